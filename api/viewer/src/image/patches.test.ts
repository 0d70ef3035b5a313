import { describe, expect, test } from "vitest";
import type { PointSet } from "../contract/points";
import type { TokenRow } from "../contract/rows";
import { colourOf, describePatch, namePatch } from "./describe_patch";
import { measureGrid, placePatches } from "./patch_places";
import {
  largestFlow,
  makeGrid,
  stepOnGrid,
  strongestFlows,
  strongFlows,
  weightsOf,
} from "./patches";
import { chooseImages } from "./thumbnails";

function token(position: number, row: number | null, col: number | null): TokenRow {
  return { position, patch_row: row, patch_col: col, token: null, label: null } as TokenRow;
}

/** CLS at 0, a register at 1, then 2 × 3 patches. */
const TOKENS = [
  token(0, null, null),
  token(1, null, null),
  ...[0, 1, 2, 3, 4, 5].map((i) => token(2 + i, Math.floor(i / 3), i % 3)),
];

/** Each query gives its weight to the token after it, half of it to CLS. */
const WEIGHTS = TOKENS.map((_, i) =>
  TOKENS.map((__, j) => (j === 0 ? 0.5 : j === (i + 1) % TOKENS.length ? 0.5 - i / 100 : 0)),
);

describe("the grid of patches", () => {
  const grid = makeGrid(TOKENS);

  test("has rows, columns, and the tokens without a place beside it", () => {
    expect([grid.nRows, grid.nCols]).toEqual([2, 3]);
    expect(grid.cells.map((cell) => cell?.position)).toEqual([2, 3, 4, 5, 6, 7]);
    expect(grid.others.map((other) => namePatch(grid, other.position))).toEqual([
      "CLS",
      "register 1",
    ]);
  });

  test("is walked by arrow keys and ends at its edges", () => {
    const steps = ["ArrowRight", "ArrowRight", "ArrowRight", "ArrowDown", "ArrowDown", "ArrowLeft"];
    let at: number | null = null;
    const seen = ["ArrowDown", ...steps].map((key) => {
      at = stepOnGrid(grid, at, key);
      return at;
    });
    expect(seen).toEqual([2, 3, 4, 4, 7, 7, 6]);
    expect(stepOnGrid(grid, 2, "a")).toBeNull();
    expect(stepOnGrid(grid, 0, "ArrowUp")).toBe(2);
  });

  test("a picture without patches has no cells and no step", () => {
    const none = makeGrid([token(0, null, null)]);
    expect(none.cells).toEqual([]);
    expect(stepOnGrid(none, null, "ArrowUp")).toBeNull();
  });
});

describe("flows", () => {
  const grid = makeGrid(TOKENS);

  test("go from each patch to its strongest patch, never to CLS", () => {
    expect(strongestFlows(grid, WEIGHTS).map(({ query, key }) => [query, key])).toEqual([
      [2, 3],
      [3, 4],
      [4, 5],
      [5, 6],
      [6, 7],
    ]);
  });

  test("are all of a weight or more, strongest first, and counted beyond what is drawn", () => {
    const all = strongFlows(grid, WEIGHTS, 0.455, 2);
    expect(all.n).toBe(3);
    expect(all.flows.map((flow) => flow.query)).toEqual([2, 3]);
    expect(largestFlow(grid, WEIGHTS)).toBeCloseTo(0.48, 12);
  });

  test("of a key are its column", () => {
    expect(weightsOf(WEIGHTS, "key", 3)).toEqual(WEIGHTS.map((row) => row[3]));
    expect(weightsOf(WEIGHTS, "query", 3)).toEqual(WEIGHTS[3]);
  });

  test("are told with names and weights", () => {
    const text = describePatch(grid, "query", 2, weightsOf(WEIGHTS, "query", 2));
    expect(text).toBe("query row 0, column 0 → CLS .500; row 0, column 1 .480");
  });
});

test.each([
  [0, 1, 1, "rgb(255 0 0)"],
  [1 / 3, 1, 1, "rgb(0 255 0)"],
  [2 / 3, 1, 0.5, "rgb(0 0 128)"],
  [0.9, 0, 0.2, "rgb(51 51 51)"],
])("hue %d, saturation %d, brightness %d is %s", (hue, saturation, brightness, css) => {
  expect(colourOf({ ...token(0, 0, 0), hue, saturation, brightness })).toBe(css);
});

describe("patches as points", () => {
  const points = {
    n: 4,
    sequenceId: Float64Array.of(7, 8, 7, 9),
    position: Int32Array.of(1, 2, 0, 1),
  } as PointSet;
  const places = [
    { position: 1, row: 0, col: 0 },
    { position: 2, row: 1, col: 2 },
  ];
  const patches = new Map([
    [7, places],
    [8, places],
  ]);

  test("lie within their image's square; others have zeros", () => {
    const uv = placePatches(points, patches, [7, 8], 2);
    const corners = Array.from({ length: 4 }, (_, i) => [...uv.slice(4 * i, 4 * i + 4)]);
    const close = (values: number[]) => values.map((value) => expect.closeTo(value, 6));
    expect(corners[0]).toEqual(close([0, 0, 1 / 6, 0.5]));
    expect(corners[1]).toEqual(close([0.5 + 2 / 6, 0.5, 1, 1]));
    expect(corners[2]).toEqual([0, 0, 0, 0]);
    expect(corners[3]).toEqual([0, 0, 0, 0]);
    expect(measureGrid(places)).toEqual([2, 3]);
  });

  test("are of the images with most points", () => {
    expect(chooseImages(points.sequenceId, 2)).toEqual([7, 8]);
    expect(chooseImages(Float64Array.of(3, 2, 2), 5)).toEqual([2, 3]);
  });
});
