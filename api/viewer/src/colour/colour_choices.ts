/** Which colourings a model's points can have, found by a look at some of its tokens. */

import { Cache } from "../contract/cache";
import { ask, askSql } from "../contract/client";
import type { ModelRow, Page } from "../contract/rows";

/** A choice of the menu. */
export interface ColourChoice {
  /** As in `state.colour`. */
  readonly name: string;
  readonly label: string;
  readonly group: string;
}

const kept = new Cache(8);
const TOKENS_LOOKED_AT = 100_000;
const MOST_LABELS = 40;
/** What says where a token is, and so what the other choices say better. */
const PLACES = new Set(["model", "sequence_id", "position", "token"]);

const POINT = "Point";
const TOKEN = "Token";
const SEQUENCE = "Sequence";
const PATCH = "Image patch";
const COLUMN = "Column of tokens";
const LABEL = "Label of sequences";

const ALWAYS: readonly ColourChoice[] = [
  { name: "kind", label: "kind (query or key)", group: POINT },
  { name: "norm", label: "norm", group: POINT },
  { name: "position", label: "position in the sequence", group: POINT },
  { name: "mod5", label: "position modulo 5", group: POINT },
  { name: "none", label: "none", group: POINT },
];
const OF_TEXT: readonly ColourChoice[] = [
  { name: "same_token", label: "same token", group: TOKEN },
  { name: "punctuation", label: "punctuation", group: TOKEN },
  { name: "token_length", label: "token length", group: TOKEN },
  { name: "frequency", label: "token frequency", group: TOKEN },
];
const OF_SEQUENCES: readonly ColourChoice[] = [
  { name: "sequence", label: "sequence", group: SEQUENCE },
  { name: "sequence_length", label: "sequence length", group: SEQUENCE },
];
const OF_PATCHES: readonly (ColourChoice & { column: string })[] = [
  { name: "patch_row", label: "patch row", group: PATCH, column: "patch_row" },
  { name: "patch_col", label: "patch column", group: PATCH, column: "patch_col" },
  { name: "patch_colour", label: "the patch’s own colour", group: PATCH, column: "hue" },
];

/** The colourings that the tokens and sequences of a model have values for. */
export function listColourings(
  model: ModelRow,
  signal?: AbortSignal,
): Promise<readonly ColourChoice[]> {
  const models = [...new Set([model.query_model, model.key_model])];
  return kept.get(JSON.stringify(models), () => findChoices(models), signal);
}

async function findChoices(models: readonly string[]): Promise<readonly ColourChoice[]> {
  const [filled, labels] = await Promise.all([findColumns(models), findLabels(models)]);
  const columns = filled.filter((name) => !PLACES.has(name));
  return [
    ...ALWAYS,
    ...(filled.includes("token") ? OF_TEXT : []),
    ...OF_SEQUENCES,
    ...OF_PATCHES.filter(({ column }) => filled.includes(column)),
    ...columns.map((name) => ({ name: `token:${name}`, label: name, group: COLUMN })),
    ...labels.map((name) => ({ name: `label:${name}`, label: name, group: LABEL })),
  ];
}

interface TableRow {
  readonly name: string;
  readonly columns: readonly { readonly name: string }[];
}

/** The columns of tokens that are not empty in those looked at. */
async function findColumns(models: readonly string[]): Promise<string[]> {
  const { rows } = await ask<Page<TableRow>>("v1/schema");
  const columns = rows.find(({ name }) => name === "tokens")?.columns ?? [];
  const names = columns.map(({ name }) => name);
  const counts = names.map((name, i) => `count("${name.replaceAll('"', '""')}") AS n${i}`);
  const found = new Set<string>();
  for (const model of models) {
    const sql = `SELECT ${counts.join(", ")} FROM
(SELECT * FROM tokens WHERE model = $model LIMIT ${TOKENS_LOOKED_AT})`;
    const { table } = await askSql(sql, { model });
    names.forEach((name, i) => {
      if (Number(table.getChild(`n${i}`)?.at(0) ?? 0) > 0) found.add(name);
    });
  }
  return names.filter((name) => found.has(name));
}

async function findLabels(models: readonly string[]): Promise<string[]> {
  const sql = `SELECT DISTINCT unnest(map_keys(labels)) AS name FROM sequences
WHERE model IN (SELECT unnest($models)) ORDER BY name LIMIT ${MOST_LABELS}`;
  const { table } = await askSql(sql, { models });
  return Array.from((table.getChild("name")?.toArray() ?? []) as ArrayLike<string>);
}
