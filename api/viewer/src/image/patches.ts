/** The patches of an image as a grid, steps on it, and flows of attention between them. */

import type { TokenRow } from "../contract/rows";
import type { Weights } from "../sentence/attention_lines";
import { measureGrid } from "./patch_places";

/** Patches by row and column; tokens without a place, such as CLS, beside them. */
export interface PatchGrid {
  readonly nRows: number;
  readonly nCols: number;
  /** The patch of each cell, row by row; null where there is none. */
  readonly cells: readonly (TokenRow | null)[];
  readonly byPosition: ReadonlyMap<number, TokenRow>;
  readonly others: readonly TokenRow[];
}

/** The grid of an image's tokens. */
export function makeGrid(tokens: readonly TokenRow[]): PatchGrid {
  const placed = tokens.flatMap((token) => {
    const { patch_row: row, patch_col: col } = token;
    return row === null || col === null ? [] : [{ row, col, token }];
  });
  const [nRows, nCols] = measureGrid(placed);
  const cells: (TokenRow | null)[] = Array.from({ length: nRows * nCols }, () => null);
  for (const { row, col, token } of placed) cells[row * nCols + col] = token;
  const byPosition = new Map(tokens.map((token) => [token.position, token]));
  const others = tokens.filter((token) => token.patch_row === null || token.patch_col === null);
  return { nRows, nCols, cells, byPosition, others };
}

const STEPS: Readonly<Record<string, readonly [number, number]>> = {
  ArrowUp: [-1, 0],
  ArrowDown: [1, 0],
  ArrowLeft: [0, -1],
  ArrowRight: [0, 1],
};

/** The position one step of an arrow key from another; the first patch from none; null for no step. */
export function stepOnGrid(grid: PatchGrid, from: number | null, key: string): number | null {
  const step = STEPS[key];
  if (!step) return null;
  const token = from === null ? undefined : grid.byPosition.get(from);
  if (!token || token.patch_row === null || token.patch_col === null) {
    return grid.cells.find((cell) => cell !== null)?.position ?? null;
  }
  const row = Math.max(0, Math.min(grid.nRows - 1, token.patch_row + step[0]));
  const col = Math.max(0, Math.min(grid.nCols - 1, token.patch_col + step[1]));
  return grid.cells[row * grid.nCols + col]?.position ?? null;
}

/** Attention from one patch to another, by position. */
export interface Flow {
  readonly query: number;
  readonly key: number;
  readonly weight: number;
}

/** The strongest key patch of each query patch. */
export function strongestFlows(grid: PatchGrid, weights: Weights): Flow[] {
  const patches = patchPositions(grid);
  return patches.flatMap((query) => {
    const row = weights[query] ?? [];
    let best: Flow | null = null;
    for (const key of patches) {
      const weight = row[key] ?? 0;
      if (weight > (best?.weight ?? 0)) best = { query, key, weight };
    }
    return best ? [best] : [];
  });
}

/** All flows from patch to patch of a weight or more, strongest first, and how many there are. */
export function strongFlows(
  grid: PatchGrid,
  weights: Weights,
  least: number,
  most: number,
): { flows: Flow[]; n: number } {
  const patches = patchPositions(grid);
  const flows: Flow[] = [];
  for (const query of patches) {
    const row = weights[query] ?? [];
    for (const key of patches) {
      const weight = row[key] ?? 0;
      if (weight > 0 && weight >= least) flows.push({ query, key, weight });
    }
  }
  flows.sort((a, b) => b.weight - a.weight);
  return { flows: flows.slice(0, most), n: flows.length };
}

/** The weights of a patch to (or, as a key, from) every token, by position. */
export function weightsOf(weights: Weights, side: "query" | "key", position: number): number[] {
  if (side === "query") return [...(weights[position] ?? [])];
  return weights.map((row) => row[position] ?? 0);
}

/** The largest weight from patch to patch. */
export function largestFlow(grid: PatchGrid, weights: Weights): number {
  return strongestFlows(grid, weights).reduce((most, flow) => Math.max(most, flow.weight), 0);
}

function patchPositions(grid: PatchGrid): number[] {
  return grid.cells.flatMap((cell) => (cell ? [cell.position] : []));
}
