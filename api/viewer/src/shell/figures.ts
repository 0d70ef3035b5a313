/** What the figures mean, in plain words; the tables' own words are asked of the service. */

import { ask } from "../contract/client";
import type { MapRow, Page } from "../contract/rows";

/** A number's text with a true minus, and without one where it says zero. */
export function writeSigned(text: string): string {
  return Number(text) === 0 ? text.replace("-", "") : text.replaceAll("-", "−");
}

/** A column of a table, as the service describes it. */
export interface ColumnRow {
  readonly name: string;
  readonly type: string;
  readonly meaning: string;
}

interface TableRow {
  readonly name: string;
  readonly columns: readonly ColumnRow[];
}

/** Columns of a table with their meanings; empty for no such table. */
export async function loadColumns(
  table: string,
  signal?: AbortSignal,
): Promise<readonly ColumnRow[]> {
  const { rows } = await ask<Page<TableRow>>("v1/schema", {}, signal);
  return rows.find((row) => row.name === table)?.columns ?? [];
}

/** A figure of a map. */
export interface Figure {
  /** The column of the atlas's maps. */
  readonly name: keyof MapRow & string;
  readonly label: string;
  /** The label where there is little room. */
  readonly short: string;
  readonly ideal: number;
  readonly meaning: string;
}

/** The figures shown beside a map, in this order. */
export const FIGURES: readonly Figure[] = [
  {
    name: "score_spearman",
    label: "ρ",
    short: "ρ",
    ideal: -1,
    meaning:
      "rank correlation of distance on the map and attention score, mean over queries: at −1 nearer always means a higher score, at 0 distance says nothing",
  },
  {
    name: "top_key_recall_3",
    label: "top key",
    short: "top",
    ideal: 1,
    meaning: "share of queries whose highest-scored key is among the 3 nearest keys on the map",
  },
  {
    name: "trustworthiness",
    label: "trust",
    short: "trust",
    ideal: 1,
    meaning: "of the 15 nearest on the map, how near they are in the head’s own space",
  },
  {
    name: "continuity",
    label: "continuity",
    short: "cont.",
    ideal: 1,
    meaning: "of the 15 nearest in the head’s own space, how near they are on the map",
  },
];

/** The same of sequences that the map was not made from. */
export const HELD_OUT: readonly Figure[] = [
  {
    name: "heldout_score_spearman",
    label: "held-out ρ",
    short: "ρ′",
    ideal: -1,
    meaning: "ρ of sequences that were placed on the map after it was made",
  },
  {
    name: "heldout_top_key_recall_3",
    label: "held-out top key",
    short: "top′",
    ideal: 1,
    meaning: "top key of sequences that were placed on the map after it was made",
  },
];

/** The same without special tokens. */
export const CONTENT: readonly Figure[] = [
  {
    name: "score_spearman_content",
    label: "content ρ",
    short: "ρ c.",
    ideal: -1,
    meaning: "ρ without special tokens",
  },
  {
    name: "top_key_recall_3_content",
    label: "content top key",
    short: "top c.",
    ideal: 1,
    meaning: "top key without special tokens",
  },
];

/** The figure of a map in a column; null where it is none that tells how far the map is true. */
export function findFigure(name: string): Figure | null {
  return [...FIGURES, ...CONTENT, ...HELD_OUT].find((figure) => figure.name === name) ?? null;
}

/** `score_spearman: rank correlation …`: what a figure's label stands for. */
export function explainFigure(figure: Figure): string {
  return `${figure.name}: ${figure.meaning}`;
}

/** Measures of heads; definitions with equations are in docs/measures.md. */
export const MEASURES: Readonly<Record<string, string>> = {
  entropy: "how evenly attention is spread: 0 on one key, 1 over all in reach",
  randomness: "how far attention is from uniform: 0 uniform, 1 on one of many keys",
  mean_distance: "how far attention reaches, in positions",
  previous_token: "attention to the position before",
  next_token: "attention to the position after",
  self_token: "attention to its own position",
  first_token: "attention to position 0",
  special_token: "attention to special tokens",
  punctuation: "attention to punctuation and symbols",
  same_token: "attention to the same token elsewhere",
  induction: "attention to what followed an earlier occurrence, on repeated random text",
  query_norm: "mean length of query vectors",
  key_norm: "mean length of key vectors",
  norm_ratio: "query_norm divided by key_norm",
  centroid_distance: "distance of the mean query and the mean key",
  score_mean: "mean logit over the keys in reach",
  score_spread: "standard deviation of the logits",
  score_spearman: "rank correlation of score and distance before any map is made: −1 is best",
  effective_rank_q: "how many dimensions queries use",
  effective_rank_k: "how many dimensions keys use",
  effective_rank_qk: "how many dimensions their products use",
};
