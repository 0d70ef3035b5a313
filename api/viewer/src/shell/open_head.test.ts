import { expect, test } from "vitest";
import { findNeighbour } from "./open_head";

const GRID = [0, 1, 2].flatMap((layer) => [0, 1, 2].map((head) => ({ layer, head })));

test("neighbours lie a head to the side and a layer above and below", () => {
  const at = { layer: 1, head: 1 };
  expect(findNeighbour(GRID, at, "left")).toEqual({ layer: 1, head: 0 });
  expect(findNeighbour(GRID, at, "right")).toEqual({ layer: 1, head: 2 });
  expect(findNeighbour(GRID, at, "up")).toEqual({ layer: 0, head: 1 });
  expect(findNeighbour(GRID, at, "down")).toEqual({ layer: 2, head: 1 });
});

test("there is nothing beyond the edge", () => {
  expect(findNeighbour(GRID, { layer: 0, head: 0 }, "left")).toBeNull();
  expect(findNeighbour(GRID, { layer: 0, head: 0 }, "up")).toBeNull();
  expect(findNeighbour(GRID, { layer: 2, head: 2 }, "right")).toBeNull();
  expect(findNeighbour(GRID, { layer: 2, head: 2 }, "down")).toBeNull();
  expect(findNeighbour([], { layer: 0, head: 0 }, "down")).toBeNull();
});

test("heads that were not captured are stepped over", () => {
  const some = [0, 3, 7].map((head) => ({ layer: 4, head }));
  expect(findNeighbour(some, { layer: 4, head: 7 }, "left")).toEqual({ layer: 4, head: 3 });
  expect(findNeighbour(some, { layer: 4, head: 1 }, "right")).toEqual({ layer: 4, head: 3 });
});
