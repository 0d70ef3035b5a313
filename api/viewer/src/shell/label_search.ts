/** Searches the labels of images: of single patches, and of whole images for all their patches. */

import { askSql } from "../contract/client";

/** What is asked of labels, as of tokens. */
export interface LabelsAsked {
  readonly text: string;
  readonly match: string;
  /** Whether upper and lower case differ. */
  readonly case: boolean;
}

/** Where labels match, and how often in all. */
export interface LabelsFound {
  readonly rows: readonly { readonly sequence_id: number; readonly position: number }[];
  readonly n: number;
  readonly hasMore: boolean;
}

const MATCHES: Readonly<Record<string, (label: string, text: string) => string>> = {
  exact: (label, text) => `${label} = ${text}`,
  prefix: (label, text) => `starts_with(${label}, ${text})`,
  substring: (label, text) => `contains(${label}, ${text})`,
};

/** The patches whose label matches, or whose image has a label that does; at most `limit` rows. */
export async function searchLabels(
  model: string,
  asked: LabelsAsked,
  limit: number,
  signal: AbortSignal,
): Promise<LabelsFound> {
  const from = writeFrom(asked);
  const parameters = { model, text: asked.text };
  const ordered = `SELECT sequence_id, position ${from} ORDER BY ALL`;
  const [found, counted] = await Promise.all([
    askSql(ordered, parameters, signal, limit),
    askSql(`SELECT count(*)::DOUBLE AS n ${from}`, parameters, signal),
  ]);
  const { table, isTruncated } = found;
  const sequences = table.getChild("sequence_id");
  const positions = table.getChild("position");
  const rows = Array.from({ length: table.numRows }, (_, i) => ({
    sequence_id: Number(sequences.at(i)),
    position: Number(positions.at(i)),
  }));
  return { rows, n: Number(counted.table.getChild("n").at(0)), hasMore: isTruncated };
}

function writeFrom(asked: LabelsAsked): string {
  const fold = (text: string) => (asked.case ? text : `lower(${text})`);
  const compare = MATCHES[asked.match];
  if (!compare) throw new Error(`There is no match “${asked.match}”.`);
  const condition = compare(fold("label"), fold("$text"));
  return `FROM tokens WHERE model = $model AND (${condition} OR sequence_id IN (
SELECT sequence_id FROM (
SELECT sequence_id, unnest(map_values(labels)) AS label FROM sequences WHERE model = $model
) WHERE ${condition}))`;
}
