/** Where the patches of images lie in a texture of images in a square grid. */

import type { PointSet } from "../contract/points";

/** A patch of an image: its token's position, its row and column. */
export interface PatchPlace {
  readonly position: number;
  readonly row: number;
  readonly col: number;
}

/**
 * The corners u0, v0, u1, v1 of each point's patch, 0 to 1 over the texture; zeros where none.
 *
 * `images` lie `across` a row in this order, each in a square of its own.
 */
export function placePatches(
  points: PointSet,
  patches: ReadonlyMap<number, readonly PatchPlace[]>,
  images: readonly number[],
  across: number,
): Float32Array {
  const down = Math.ceil(images.length / across);
  const corners = new Map<number, Map<number, readonly number[]>>();
  images.forEach((id, at) => {
    const places = patches.get(id) ?? [];
    const [nRows, nCols] = measureGrid(places);
    const [left, top] = [at % across, Math.floor(at / across)];
    const byPosition = new Map<number, readonly number[]>();
    for (const { position, row, col } of places) {
      const [u, v] = [(left + col / nCols) / across, (top + row / nRows) / down];
      byPosition.set(position, [u, v, u + 1 / (nCols * across), v + 1 / (nRows * down)]);
    }
    corners.set(id, byPosition);
  });
  const uv = new Float32Array(4 * points.n);
  for (let i = 0; i < points.n; i++) {
    const found = corners.get(points.sequenceId[i] ?? -1)?.get(points.position[i] ?? -1);
    if (found) uv.set(found, 4 * i);
  }
  return uv;
}

/** Rows and columns of patches. */
export function measureGrid(places: readonly { row: number; col: number }[]): [number, number] {
  let nRows = 0;
  let nCols = 0;
  for (const { row, col } of places) {
    nRows = Math.max(nRows, row + 1);
    nCols = Math.max(nCols, col + 1);
  }
  return [nRows, nCols];
}
