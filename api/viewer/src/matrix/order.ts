/** The order of the cells as the state writes it, and where each head's cell then lies. */

import type { LayerHead } from "../shell/open_head";

/** An order by a measure or a figure of the map. */
export interface Order {
  readonly name: string;
  readonly isDescending: boolean;
  /** Layers stay rows; only the heads of a layer change places. */
  readonly isWithinLayer: boolean;
}

const WITHIN_LAYER = "/layer";

/** The order that such a text names; null for layers × heads. */
export function readOrder(text: string): Order | null {
  const isWithinLayer = text.endsWith(WITHIN_LAYER);
  const rest = isWithinLayer ? text.slice(0, -WITHIN_LAYER.length) : text;
  const isDescending = rest.startsWith("-");
  const name = isDescending ? rest.slice(1) : rest;
  return name === "" ? null : { name, isDescending, isWithinLayer };
}

/** `-entropy/layer`: descending, within each layer; empty for layers × heads. */
export function writeOrder(order: Order | null): string {
  if (order === null) return "";
  return `${order.isDescending ? "-" : ""}${order.name}${order.isWithinLayer ? WITHIN_LAYER : ""}`;
}

/** Where cells lie: a column and a row for each head, by its index. */
export interface Sheet {
  readonly nColumns: number;
  readonly nRows: number;
  readonly columns: readonly number[];
  readonly rows: readonly number[];
  readonly columnNames: readonly string[];
  readonly rowNames: readonly string[];
}

/** Lay out the cells; `values` are those of the order, null where a head has none. */
export function arrange(
  heads: readonly LayerHead[],
  order: Order | null,
  values: readonly (number | null)[],
): Sheet {
  if (order === null) return arrangeByName(heads);
  const sorted = sortHeads(heads, values, order.isDescending);
  return order.isWithinLayer ? arrangeLayers(heads, sorted) : arrangeRanks(heads, sorted);
}

/** The indices of heads by value: those without one last, equal ones by layer and head. */
export function sortHeads(
  heads: readonly LayerHead[],
  values: readonly (number | null)[],
  isDescending: boolean,
): number[] {
  const sign = isDescending ? -1 : 1;
  const byPlace = (a: number, b: number) => {
    const [one, other] = [heads[a], heads[b]];
    if (!one || !other) return a - b;
    return one.layer - other.layer || one.head - other.head;
  };
  const knownOf = (index: number) => {
    const value = values[index] ?? null;
    return value === null || Number.isNaN(value) ? null : value;
  };
  return heads
    .map((_, index) => index)
    .sort((a, b) => {
      const [one, other] = [knownOf(a), knownOf(b)];
      if (one === null || other === null) {
        return Number(one === null) - Number(other === null) || byPlace(a, b);
      }
      return sign * (one - other) || byPlace(a, b);
    });
}

function arrangeByName(heads: readonly LayerHead[]): Sheet {
  const layers = distinct(heads.map((at) => at.layer));
  const names = distinct(heads.map((at) => at.head));
  return {
    nColumns: names.length,
    nRows: layers.length,
    columns: heads.map((at) => names.indexOf(at.head)),
    rows: heads.map((at) => layers.indexOf(at.layer)),
    columnNames: names.map((head) => `head ${head}`),
    rowNames: layers.map((layer) => `layer ${layer}`),
  };
}

function arrangeLayers(heads: readonly LayerHead[], sorted: readonly number[]): Sheet {
  const layers = distinct(heads.map((at) => at.layer));
  const filled = layers.map(() => 0);
  const [columns, rows] = [heads.map(() => 0), heads.map(() => 0)];
  for (const index of sorted) {
    const row = layers.indexOf(heads[index]?.layer ?? 0);
    rows[index] = row;
    columns[index] = filled[row] ?? 0;
    filled[row] = (filled[row] ?? 0) + 1;
  }
  const nColumns = Math.max(0, ...filled);
  return {
    nColumns,
    nRows: layers.length,
    columns,
    rows,
    columnNames: count(nColumns).map((column) => String(column + 1)),
    rowNames: layers.map((layer) => `layer ${layer}`),
  };
}

function arrangeRanks(heads: readonly LayerHead[], sorted: readonly number[]): Sheet {
  const nColumns = countWidest(heads);
  const nRows = Math.ceil(heads.length / nColumns);
  const [columns, rows] = [heads.map(() => 0), heads.map(() => 0)];
  for (const [rank, index] of sorted.entries()) {
    columns[index] = rank % nColumns;
    rows[index] = Math.floor(rank / nColumns);
  }
  const nameRow = (row: number) =>
    `${row * nColumns + 1}–${Math.min((row + 1) * nColumns, heads.length)}`;
  return {
    nColumns,
    nRows,
    columns,
    rows,
    columnNames: count(nColumns).map((column) => String(column + 1)),
    rowNames: count(nRows).map(nameRow),
  };
}

/** Heads of the layer with most: sorted cells keep the shape of the model. */
function countWidest(heads: readonly LayerHead[]): number {
  const counts = new Map<number, number>();
  for (const { layer } of heads) counts.set(layer, (counts.get(layer) ?? 0) + 1);
  return Math.max(1, ...counts.values());
}

function distinct(values: readonly number[]): number[] {
  return [...new Set(values)].sort((a, b) => a - b);
}

function count(n: number): number[] {
  return Array.from({ length: n }, (_, index) => index);
}
