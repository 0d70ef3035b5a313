import { expect, test } from "vitest";
import { shrink, toAlphas } from "./heat";

test("a cell of the small matrix is the highest weight of its block", () => {
  const weights = Array.from({ length: 5 }, (_, i) =>
    Array.from({ length: 7 }, (_, j) => (i * 7 + j) / 35),
  );
  const cells = shrink(weights, 7, 3);
  expect([cells.nRows, cells.nColumns]).toEqual([3, 3]);
  for (let r = 0; r < 3; r++) {
    for (let c = 0; c < 3; c++) {
      const block = weights.slice(2 * r, 2 * r + 2).flatMap((row) => row.slice(3 * c, 3 * c + 3));
      expect(cells.values[r * 3 + c]).toBeCloseTo(Math.max(...block), 6);
    }
  }
});

test("a small matrix stays as it is", () => {
  const cells = shrink([[0.25, 0.75]], 2, 10);
  expect([cells.nRows, cells.nColumns, ...cells.values]).toEqual([1, 2, 0.25, 0.75]);
});

test("opacity is the square root of the weight", () => {
  expect([...toAlphas([0, 0.25, 1], 1)]).toEqual([0, 128, 255]);
  expect([...toAlphas(new Uint8Array([0, 255]), 255)]).toEqual([0, 255]);
});
