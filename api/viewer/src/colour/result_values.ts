/** Values of an SQL result, brought to the points that its rows name. */

import type { Table } from "@uwdata/flechette";
import { Cache } from "../contract/cache";
import { askSql } from "../contract/client";
import type { PointSet } from "../contract/points";
import type { ModelRow } from "../contract/rows";
import { findSides } from "../sql/sides";
import { readValues, type Values } from "./token_values";

/** A statement, and the column of its result that has the values. */
export interface ResultColumn {
  readonly column: string;
  readonly sql: string;
}

const kept = new Cache(8);
const NAMES_OF_POINTS = ["sequence_id", "position", "kind", "model"];
const SEQUENCES_A_QUESTION = 2_000;

/** The column's value for each point that a row names by kind and model, where it has them. */
export async function loadResultValues(
  model: ModelRow,
  points: PointSet,
  result: ResultColumn,
  signal?: AbortSignal,
): Promise<Values> {
  const sequences = [...new Set(points.sequenceId)].sort((a, b) => a - b);
  const key = JSON.stringify([result, sequences]);
  const tables = await kept.get(key, () => askAll(result, sequences), signal);
  const values = new Map<string, unknown>();
  for (const table of tables) readRows(table, model, result.column, values);
  const cells = Array.from({ length: points.n }, (_, i) =>
    values.get(`${points.isQuery[i]} ${points.sequenceId[i]} ${points.position[i]}`),
  );
  return readValues(cells);
}

async function askAll(result: ResultColumn, sequences: readonly number[]): Promise<Table[]> {
  const names = await askNames(result.sql);
  for (const name of ["sequence_id", "position", result.column]) {
    if (names.includes(name)) continue;
    throw new Error(`A colour by this result needs its column ${name}, which it does not have.`);
  }
  const wanted = [...new Set([...NAMES_OF_POINTS, result.column])].filter((name) =>
    names.includes(name),
  );
  const sql = `SELECT ${wanted.map(quoteName).join(", ")} ${readFrom(result.sql)}
WHERE sequence_id IN (SELECT unnest($sequences))`;
  const tables: Table[] = [];
  for (let from = 0; from < sequences.length; from += SEQUENCES_A_QUESTION) {
    tables.push(...(await askSome(sql, sequences.slice(from, from + SEQUENCES_A_QUESTION))));
  }
  return tables;
}

async function askNames(sql: string): Promise<readonly string[]> {
  const { table } = await askSql(`SELECT * ${readFrom(sql)} LIMIT 0`);
  return table.schema.fields.map((field) => field.name);
}

/** A line of its own, as the statement may end in a comment. */
function readFrom(sql: string): string {
  return `FROM (${sql}
) AS result`;
}

/** What a limit cut is asked again in halves. */
async function askSome(sql: string, sequences: readonly number[]): Promise<Table[]> {
  const { table, isTruncated } = await askSql(sql, { sequences });
  if (!isTruncated || sequences.length < 2) return [table];
  const middle = sequences.length >> 1;
  return [
    ...(await askSome(sql, sequences.slice(0, middle))),
    ...(await askSome(sql, sequences.slice(middle))),
  ];
}

/** Note the value of each point that a row names; of several rows the first counts. */
function readRows(
  table: Table,
  model: ModelRow,
  column: string,
  values: Map<string, unknown>,
): void {
  const names = table.schema.fields.map((field) => field.name);
  const read = (name: string): ArrayLike<unknown> | undefined =>
    names.includes(name) ? (table.getChild(name).toArray() as ArrayLike<unknown>) : undefined;
  const [sequences, positions, cells] = ["sequence_id", "position", column].map(read);
  const [kinds, models] = ["kind", "model"].map(read);
  const note = (isQuery: number, row: number) => {
    const key = `${isQuery} ${sequences?.[row]} ${positions?.[row]}`;
    if (!values.has(key)) values.set(key, cells?.[row]);
  };
  for (let row = 0; row < table.numRows; row++) {
    const { isQuery, isKey } = findSides({ kind: kinds?.[row], model: models?.[row] }, model);
    if (isQuery) note(1, row);
    if (isKey) note(0, row);
  }
}

function quoteName(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}
