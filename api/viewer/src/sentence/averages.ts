/** Attention averaged by position as a matrix, hidden and scaled like a sentence's. */

import type { MeanAttentionRow } from "../contract/rows";
import { renormalise, type Weights } from "./attention_lines";

/** Most positions averaged. */
export const MOST_POSITIONS = 128;

/** Averages and how many sequences are behind each; 0 sequences where no query reaches the key. */
export interface Averages {
  readonly weights: Weights;
  readonly counts: readonly Int32Array[];
  readonly nPositions: number;
}

/** How many positions to ask for so that a sequence fits, in few steps so that replies are shared. */
export function countPositions(nTokens: number): number {
  return [16, 32, 64].find((most) => nTokens <= most) ?? MOST_POSITIONS;
}

/** The matrix of averages over the positions that occur. */
export function makeAverages(rows: readonly MeanAttentionRow[]): Averages {
  let n = 0;
  for (const row of rows) n = Math.max(n, row.query_position + 1, row.key_position + 1);
  const weights = Array.from({ length: n }, () => Array.from({ length: n }, () => 0));
  const counts = Array.from({ length: n }, () => new Int32Array(n));
  for (const row of rows) {
    const line = weights[row.query_position];
    const count = counts[row.query_position];
    if (line) line[row.key_position] = row.weight;
    if (count) count[row.key_position] = row.n_sequences;
  }
  return { weights, counts, nPositions: n };
}

/** The first positions alone, as many as the sequence beside has; weights stay as they are. */
export function cropAverages(averages: Averages, nTokens: number): Averages {
  const n = Math.min(averages.nPositions, nTokens);
  return {
    weights: averages.weights.slice(0, n).map((row) => row.slice(0, n)),
    counts: averages.counts.slice(0, n).map((row) => row.subarray(0, n)),
    nPositions: n,
  };
}

/** The same without the first key, rows scaled anew. */
export function hideFirstKey(averages: Averages): Averages {
  return { ...averages, weights: renormalise(averages.weights, new Set([0])) };
}
