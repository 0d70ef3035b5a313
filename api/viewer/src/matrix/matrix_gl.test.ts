import { describe, expect, it } from "vitest";
import type { MatrixHead } from "../contract/atlas";
import { interleave, scalesOf, visibleRange } from "./matrix_gl";

function head(coordinates: readonly number[] | null, high = [1, 1]): MatrixHead {
  return {
    layer: 0,
    head: 0,
    mapId: null,
    scoreSpearman: null,
    coordinates: coordinates && Uint16Array.from(coordinates),
    low: [0, 0],
    high,
    missing: null,
  };
}

describe("points of the matrix", () => {
  it("carry their place, cell and number, and leave out heads without a map", () => {
    const heads = [head([1, 2, 3, 4]), head(null), head([5, 6, 7, 8])];
    expect([...interleave(heads, 2)]).toEqual([1, 2, 0, 0, 3, 4, 0, 1, 5, 6, 2, 0, 7, 8, 2, 1]);
  });

  it("are seen along z where maps have three dimensions", () => {
    expect([...interleave([head([1, 2, 3, 4, 5, 6])], 3)]).toEqual([1, 2, 0, 0, 4, 5, 0, 1]);
  });

  it("keep a map's proportions in a square cell", () => {
    expect(scalesOf(head([], [4, 2]))).toEqual([1, 0.5]);
    expect(scalesOf(head([], [0, 0]))).toEqual([1, 1]);
  });

  it("are drawn from the first head in sight to the last", () => {
    const cells = Float32Array.of(0, 0, 1, 1, 1, 0, 1, 1, 0, 1, 1, 1, 1, 1, 1, 1);
    const size = { width: 100, height: 100 };
    expect(visibleRange(cells, { left: 0, top: 0, cell: 50 }, size)).toEqual([0, 3]);
    expect(visibleRange(cells, { left: 0, top: -90, cell: 90 }, size)).toEqual([2, 3]);
    expect(visibleRange(cells, { left: 0, top: -500, cell: 90 }, size)).toEqual([0, -1]);
  });
});
