/** Attention weights as lines: the strongest keys, hiding keys, windows of long sequences. */

import type { Attention } from "../contract/rows";

/** Weights of queries (rows) to keys (columns). */
export type Weights = readonly (readonly number[])[];

/** A query, a key and the weight between them; positions in their sequences. */
export interface Line {
  readonly query: number;
  readonly key: number;
  readonly weight: number;
}

/** The `most` strongest keys of each query whose weight is `least` or more, strongest first. */
export function topKeys(attention: Attention, most: number, least: number): Line[] {
  return attention.queries.flatMap((query, i) => {
    const row = attention.weights[i] ?? [];
    return strongest(row, most, least).map((j) => ({
      query: query.position,
      key: attention.keys[j]?.position ?? j,
      weight: row[j] ?? 0,
    }));
  });
}

/** Indices of the `most` largest values that are `least` or more, largest first, then by index. */
export function strongest(values: readonly number[], most: number, least: number): number[] {
  const found: number[] = [];
  values.forEach((value, index) => {
    if (!(value >= least)) return;
    const at = found.findIndex((other) => value > (values[other] ?? 0));
    if (at === -1) found.push(index);
    else found.splice(at, 0, index);
    if (found.length > most) found.pop();
  });
  return found;
}

/** Weights without those of some columns, what is left of each row scaled to sum 1; 0 where nothing is. */
export function renormalise(weights: Weights, hiddenKeys: ReadonlySet<number>): Weights {
  if (hiddenKeys.size === 0) return weights;
  return weights.map((row) => {
    const left = row.map((weight, key) => (hiddenKeys.has(key) ? 0 : weight));
    const total = sum(left);
    return total > 0 ? left.map((weight) => weight / total) : left;
  });
}

/** Sum of numbers. */
export function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}

/** A run of positions: `first` up to but without `end`. */
export interface Span {
  readonly first: number;
  readonly end: number;
}

/** The keys listed beside some queries: the same positions, moved so that they are in the sequence. */
export function windowOfKeys(firstQuery: number, nKeys: number, size: number): Span {
  const first = Math.max(0, Math.min(firstQuery, nKeys - size));
  return { first, end: Math.min(nKeys, first + size) };
}

/** How many keys outside a window get any weight of a row, and how much together. */
export function sumOutside(row: readonly number[], inside: Span): { n: number; weight: number } {
  let n = 0;
  let weight = 0;
  row.forEach((value, key) => {
    if (value <= 0 || isWithin(key, inside)) return;
    n += 1;
    weight += value;
  });
  return { n, weight };
}

/** The columns outside a window that get the most weight of all rows together, by position. */
export function strongestOutside(weights: Weights, inside: Span, most: number): number[] {
  const totals: number[] = Array.from({ length: weights[0]?.length ?? 0 }, () => 0);
  for (const row of weights) {
    row.forEach((value, key) => {
      if (!isWithin(key, inside)) totals[key] = (totals[key] ?? 0) + value;
    });
  }
  const least = Number.MIN_VALUE;
  return strongest(totals, most, least).sort((a, b) => a - b);
}

/** Mean of rows, a number a column. */
export function meanRow(weights: Weights): number[] {
  const total: number[] = Array.from({ length: weights[0]?.length ?? 0 }, () => 0);
  for (const row of weights) {
    row.forEach((value, key) => {
      total[key] = (total[key] ?? 0) + value / weights.length;
    });
  }
  return total;
}

function isWithin(key: number, span: Span): boolean {
  return key >= span.first && key < span.end;
}
