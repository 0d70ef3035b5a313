import { expect, it } from "vitest";
import { type MapPoints, readTexts } from "../contract/points";
import { placeLines } from "./lines";

/** Sequence 7, keys and queries of positions 0 to 2. */
const points: MapPoints = {
  n: 6,
  mapId: "map",
  dims: 2,
  isQuery: Uint8Array.of(0, 1, 0, 1, 0, 1),
  sequenceId: new Float64Array(6).fill(7),
  position: Int32Array.of(0, 0, 1, 1, 2, 2),
  tokens: readTexts(["a", "a", "b", "b", "c", "c"]),
  isSpecial: new Uint8Array(6),
  x: new Float32Array(6),
  y: new Float32Array(6),
  z: new Float32Array(6),
  rank: new Int32Array(6),
  distortion: null,
};

it("lines run from the query's point to the key's, strong ones last and so on top", () => {
  const lines = [
    { sequenceId: 7, query: 2, key: 0, weight: 0.9 },
    { sequenceId: 7, query: 1, key: 1, weight: 0.2 },
  ];
  expect(placeLines(points, lines)).toEqual([
    { query: 3, key: 2, weight: 0.2 },
    { query: 5, key: 0, weight: 0.9 },
  ]);
});

it("a line of which an end is not on the map is left out", () => {
  const lines = [
    { sequenceId: 7, query: 2, key: 9, weight: 0.9 },
    { sequenceId: 8, query: 0, key: 0, weight: 0.9 },
  ];
  expect(placeLines(points, lines)).toEqual([]);
});
