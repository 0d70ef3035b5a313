import { expect, it } from "vitest";
import type { MapPoints } from "../contract/points";
import type { MapRow } from "../contract/rows";
import { describeCount } from "./counts";

function describe(
  nDrawn: number,
  nAll: number,
  part: { box: null | [0, 1, 0, 1]; isCut: boolean },
) {
  const isQuery = Uint8Array.from({ length: nDrawn }, (_, i) => Number(i < 3));
  const map = { n_points: nAll } as MapRow;
  return describeCount({ map, points: { n: nDrawn, isQuery } as unknown as MapPoints, part });
}

it("the count tells queries from keys where all points are drawn", () => {
  expect(describe(1_980, 1_980, { box: null, isCut: false })).toBe(
    "1,980 points: 3 queries, 1,977 keys",
  );
});

it("the count tells how many of a large map are drawn, and whether zooming in shows more", () => {
  expect(describe(2_500, 10_000, { box: null, isCut: true })).toMatch(
    /^2,500 of 10,000 points drawn.*zoom in for more$/,
  );
  expect(describe(400, 10_000, { box: [0, 1, 0, 1], isCut: false })).toMatch(/all in view$/);
});
