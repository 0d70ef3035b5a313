/** What Sentence View shows of an attention: keys hidden, rows scaled anew, keys listed. */

import type { Attention, TokenPlace } from "../contract/rows";
import {
  renormalise,
  type Span,
  strongestOutside,
  sum,
  type Weights,
  windowOfKeys,
} from "./attention_lines";

/** Queries shown at once. */
export const WINDOW = 128;

const MOST_OUTSIDE = 8;

/** What hides keys. */
export interface Hiding {
  readonly hidden: readonly number[];
  readonly hideSpecial: boolean;
  readonly hideFirst: boolean;
}

/** An attention as it is shown. */
export interface Arrangement {
  readonly queries: readonly TokenPlace[];
  readonly keys: readonly TokenPlace[];
  /** After hiding; a row a query, a column a key. */
  readonly weights: Weights;
  /** Columns of hidden keys. */
  readonly hidden: ReadonlySet<number>;
  /** Columns listed: the strongest outside the window first, then the window. */
  readonly listed: readonly number[];
  readonly nOutside: number;
  readonly inside: Span;
}

/** Arrange an attention for the lists. */
export function arrange(attention: Attention, hiding: Hiding): Arrangement {
  const { queries, keys } = attention;
  const hidden = findHidden(keys, hiding);
  const weights = renormalise(attention.weights, hidden);
  const inside = windowOfKeys(queries[0]?.position ?? 0, keys.length, WINDOW);
  const outside = strongestOutside(weights, inside, MOST_OUTSIDE);
  const window = Array.from({ length: inside.end - inside.first }, (_, i) => inside.first + i);
  const listed = [...outside, ...window];
  return { queries, keys, weights, hidden, listed, nOutside: outside.length, inside };
}

function findHidden(keys: readonly TokenPlace[], hiding: Hiding): ReadonlySet<number> {
  const chosen = new Set(hiding.hidden);
  const columns = new Set<number>();
  keys.forEach((key, column) => {
    const isSpecial = hiding.hideSpecial && key.is_special;
    const isFirst = hiding.hideFirst && key.position === 0;
    if (isSpecial || isFirst || chosen.has(key.position)) columns.add(column);
  });
  return columns;
}

/** True where hiding left a query no weight at all. */
export function hasNothingLeft(arrangement: Arrangement, row: number): boolean {
  return arrangement.hidden.size > 0 && sum(arrangement.weights[row] ?? []) === 0;
}

/** The row of a query position; −1 where it is not shown. */
export function rowOf(arrangement: Arrangement, position: number | null): number {
  const first = arrangement.queries[0]?.position ?? 0;
  const row = position === null ? -1 : position - first;
  return row < arrangement.queries.length ? Math.max(row, -1) : -1;
}
