/** What is in focus in Sentence View, in words and numbers. */

import { type Arrangement, hasNothingLeft, rowOf } from "./arrangement";
import { meanRow, strongest, sumOutside } from "./attention_lines";
import { LEAST_WEIGHT } from "./draw_lines";
import type { Spot } from "./hovering";
import { shortToken, showWeight } from "./token_text";

const MOST_NAMED = 4;

/** A sentence on the query, key or cell in focus; without one, on what the lines show. */
export function describeFocus(shown: Arrangement, lit: Spot | null): string {
  const row = rowOf(shown, lit?.query ?? null);
  const column = lit?.key ?? null;
  if (row !== -1 && column !== null) return describeCell(shown, row, column);
  if (row !== -1) return describeQuery(shown, row);
  if (column !== null && lit?.query === null) return describeKey(shown, column);
  return describeAll(shown);
}

function describeAll(shown: Arrangement): string {
  const hint = `Opacity is the weight (from ${LEAST_WEIGHT}; of a token in focus, its square root). Click a key to hide it, a query to keep it in focus.`;
  const outside = describeOutside(shown, meanRow(shown.weights), "on average ");
  return outside ? `${outside}. ${hint}` : hint;
}

function describeQuery(shown: Arrangement, row: number): string {
  const name = `query ${nameQuery(shown, row)}`;
  if (hasNothingLeft(shown, row)) return `${name}: nothing left, all its keys are hidden`;
  const weights = shown.weights[row] ?? [];
  const top = strongest(weights, MOST_NAMED, LEAST_WEIGHT);
  const list = top.map((key) => `${nameKey(shown, key)} ${showWeight(weights[key] ?? 0)}`);
  const parts = [`${name} → ${list.join(", ") || "no key above 0.01"}`];
  const outside = describeOutside(shown, weights, "");
  return [...parts, ...(outside ? [outside] : [])].join("; ");
}

function describeKey(shown: Arrangement, column: number): string {
  const name = `key ${nameKey(shown, column)}`;
  if (shown.hidden.has(column)) return `${name}: hidden`;
  const weights = shown.weights.map((row) => row[column] ?? 0);
  const top = strongest(weights, MOST_NAMED, LEAST_WEIGHT);
  const list = top.map((row) => `${nameQuery(shown, row)} ${showWeight(weights[row] ?? 0)}`);
  return `${name} ← ${list.join(", ") || "no query above 0.01"}`;
}

function describeCell(shown: Arrangement, row: number, column: number): string {
  const weight = showWeight(shown.weights[row]?.[column] ?? 0);
  return `query ${nameQuery(shown, row)} → key ${nameKey(shown, column)}: ${weight}`;
}

/** `37 keys outside this window hold 0.21 of the attention`; empty where there are none. */
function describeOutside(shown: Arrangement, row: readonly number[], how: string): string {
  if (shown.keys.length === shown.inside.end - shown.inside.first) return "";
  const { n, weight } = sumOutside(row, shown.inside);
  const keys = n === 1 ? "1 key" : `${n.toLocaleString("en")} keys`;
  return `${keys} outside this window ${how}hold ${weight.toFixed(2)} of the attention`;
}

function nameQuery(shown: Arrangement, row: number): string {
  const token = shown.queries[row];
  return `“${isolate(token?.token)}” (${token?.position ?? row})`;
}

function nameKey(shown: Arrangement, column: number): string {
  return `“${isolate(shown.keys[column]?.token)}” (${column})`;
}

/** Marks keep a token of another direction from turning the words around it. */
function isolate(token: string | null | undefined): string {
  return `\u2068${shortToken(token ?? null)}\u2069`;
}
