/** Values that the service holds of the points' tokens and sequences, brought to the points by SQL. */

import type { Table } from "@uwdata/flechette";
import { Cache } from "../contract/cache";
import { askSql } from "../contract/client";
import { type PointSet, readTexts, type Texts } from "../contract/points";
import type { ModelRow } from "../contract/rows";

/** One value a point: numbers (NaN where there is none) or texts (code −1). */
export type Values =
  | { readonly kind: "numbers"; readonly numbers: Float64Array }
  | { readonly kind: "texts"; readonly texts: Texts };

/** What one value of a row is: as Arrow gives it. */
type Cell = unknown;

/** Rows of a question: a value for each token, or with no positions for each sequence. */
interface Rows {
  readonly sequenceIds: ArrayLike<number>;
  readonly positions: ArrayLike<number> | null;
  readonly values: ArrayLike<Cell>;
}

const kept = new Cache(8);
/** Sequences of one question: some 100,000 tokens, far below what a reply may hold. */
const SEQUENCES_A_QUESTION = 2_000;

/** An expression over the columns of `tokens` for each point's token. */
export function loadTokenValues(
  model: ModelRow,
  points: PointSet,
  expression: string,
  signal?: AbortSignal,
): Promise<Values> {
  const sql = `SELECT sequence_id, position, (${expression}
) AS value FROM tokens WHERE model = $model AND sequence_id IN (SELECT unnest($sequences))`;
  return loadOfKinds(model, points, { sql, hasPositions: true }, signal);
}

/** An expression over the columns of `sequences` for each point's sequence. */
export function loadSequenceValues(
  model: ModelRow,
  points: PointSet,
  expression: string,
  parameters: Readonly<Record<string, unknown>> = {},
  signal?: AbortSignal,
): Promise<Values> {
  const sql = `SELECT sequence_id, (${expression}) AS value FROM sequences
WHERE model = $model AND sequence_id IN (SELECT unnest($sequences))`;
  return loadOfKinds(model, points, { sql, hasPositions: false, parameters }, signal);
}

interface Question {
  readonly sql: string;
  readonly hasPositions: boolean;
  readonly parameters?: Readonly<Record<string, unknown>>;
}

/** Queries have the tokens of `query_model`, keys those of `key_model`. */
async function loadOfKinds(
  model: ModelRow,
  points: PointSet,
  question: Question,
  signal?: AbortSignal,
): Promise<Values> {
  const cells = new Array<Cell>(points.n).fill(null);
  const models = new Set([model.query_model, model.key_model]);
  for (const tokensModel of models) {
    const isOf = (i: number) =>
      (points.isQuery[i] === 1 ? model.query_model : model.key_model) === tokensModel;
    const sequenceIds = sequencesOf(points, isOf);
    if (sequenceIds.length === 0) continue;
    const rows = await loadRows(question, tokensModel, sequenceIds, signal);
    const find = indexRows(rows);
    for (let i = 0; i < points.n; i++) {
      if (isOf(i)) cells[i] = find(points.sequenceId[i] as number, points.position[i] as number);
    }
  }
  return readValues(cells);
}

function sequencesOf(points: PointSet, isOf: (index: number) => boolean): number[] {
  const found = new Set<number>();
  for (let i = 0; i < points.n; i++) if (isOf(i)) found.add(points.sequenceId[i] as number);
  return [...found].sort((a, b) => a - b);
}

/** Kept, as all heads of a model have maps of the same tokens. */
function loadRows(
  question: Question,
  model: string,
  sequenceIds: readonly number[],
  signal?: AbortSignal,
): Promise<Rows> {
  const key = JSON.stringify([question.sql, question.parameters, model, sequenceIds]);
  return kept.get(key, () => askAll(question, model, sequenceIds), signal);
}

async function askAll(
  question: Question,
  model: string,
  sequenceIds: readonly number[],
): Promise<Rows> {
  const parts: Rows[] = [];
  for (let from = 0; from < sequenceIds.length; from += SEQUENCES_A_QUESTION) {
    const some = sequenceIds.slice(from, from + SEQUENCES_A_QUESTION);
    parts.push(...(await askSome(question, model, some)));
  }
  return parts.length === 1 ? (parts[0] as Rows) : joinRows(parts);
}

/** What a limit cut is asked again in halves. */
async function askSome(
  question: Question,
  model: string,
  sequences: readonly number[],
): Promise<Rows[]> {
  const parameters = { ...question.parameters, model, sequences };
  const { table, isTruncated } = await askSql(question.sql, parameters);
  if (isTruncated && sequences.length > 1) {
    const middle = sequences.length >> 1;
    return [
      ...(await askSome(question, model, sequences.slice(0, middle))),
      ...(await askSome(question, model, sequences.slice(middle))),
    ];
  }
  const column = (name: string) => columnOf(table, name);
  const positions = question.hasPositions ? column("position") : null;
  return [{ sequenceIds: column("sequence_id"), positions, values: column("value") }];
}

function columnOf(table: Table, name: string): ArrayLike<never> {
  return (table.getChild(name)?.toArray() ?? []) as unknown as ArrayLike<never>;
}

function joinRows(parts: readonly Rows[]): Rows {
  const join = <T>(lists: readonly ArrayLike<T>[]): T[] => {
    const joined: T[] = [];
    for (const list of lists) for (let i = 0; i < list.length; i++) joined.push(list[i] as T);
    return joined;
  };
  const positions = parts.map((part) => part.positions).filter((list) => list !== null);
  return {
    sequenceIds: join(parts.map((part) => part.sequenceIds)),
    positions: positions.length > 0 ? join(positions) : null,
    values: join(parts.map((part) => part.values)),
  };
}

/** A look-up of values by sequence and position. */
function indexRows(rows: Rows): (sequenceId: number, position: number) => Cell {
  const { sequenceIds, positions, values } = rows;
  const bySequence = new Map<number, number[]>();
  for (let row = 0; row < sequenceIds.length; row++) {
    const sequenceId = sequenceIds[row] as number;
    let byPosition = bySequence.get(sequenceId);
    if (!byPosition) {
      byPosition = [];
      bySequence.set(sequenceId, byPosition);
    }
    byPosition[positions ? (positions[row] as number) : 0] = row;
  }
  return (sequenceId, position) => {
    const row = bySequence.get(sequenceId)?.[positions ? position : 0];
    return row === undefined ? null : values[row];
  };
}

/** Numbers where all are numbers, else texts. */
export function readValues(cells: readonly Cell[]): Values {
  const isNumber = (cell: Cell) => typeof cell === "number" || typeof cell === "bigint";
  const isNothing = (cell: Cell) => cell === null || cell === undefined;
  if (cells.every((cell) => isNothing(cell) || isNumber(cell))) {
    const number = (cell: Cell) => (isNothing(cell) ? Number.NaN : Number(cell));
    return { kind: "numbers", numbers: Float64Array.from(cells, number) };
  }
  return { kind: "texts", texts: readTexts(cells.map(writeCell)) };
}

function writeCell(cell: Cell): string | null {
  if (cell === null || cell === undefined) return null;
  if (cell instanceof Date) return cell.toISOString();
  return typeof cell === "object" ? JSON.stringify(cell) : String(cell);
}
