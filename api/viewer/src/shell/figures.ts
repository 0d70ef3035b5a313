/** What the figures mean, in plain words; the tables' own words are asked of the service. */

import { ask } from "../contract/client";
import type { Page } from "../contract/rows";

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

/** Figures of a map that tell how far it can be trusted. */
export const FIDELITY: readonly string[] = [
  "score_spearman",
  "top_key_recall_3",
  "trustworthiness",
  "continuity",
  "heldout_score_spearman",
  "heldout_top_key_recall_3",
];

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
