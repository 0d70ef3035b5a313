import { expect, test } from "vitest";
import { describeAverage } from "./AggregateMap";
import { countPositions, cropAverages, hideFirstKey, makeAverages } from "./averages";

const ROWS = [
  { query_position: 0, key_position: 0, weight: 1, n_sequences: 200 },
  { query_position: 1, key_position: 0, weight: 0.75, n_sequences: 180 },
  { query_position: 1, key_position: 1, weight: 0.25, n_sequences: 180 },
];

test("averages lie by position, with how many sequences are behind each", () => {
  const averages = makeAverages(ROWS);
  expect(averages.weights).toEqual([
    [1, 0],
    [0.75, 0.25],
  ]);
  expect(averages.counts.map((row) => [...row])).toEqual([
    [200, 0],
    [180, 180],
  ]);
  expect(describeAverage(averages, { query: 1, key: 0 })).toBe(
    "query position 1 → key position 0: .750, mean of 180 sequences",
  );
  expect(describeAverage(averages, { query: 0, key: 1 })).toContain("in no sequence");
});

test("a row or a column in focus is told by its strongest cell", () => {
  const averages = makeAverages(ROWS);
  expect(describeAverage(averages, { query: 1, key: null })).toContain("key position 0: .750");
  expect(describeAverage(averages, { query: null, key: 1 })).toContain("query position 1");
  expect(describeAverage(averages, { query: 9, key: null })).toBe("Averages end at position 1.");
  expect(makeAverages([]).nPositions).toBe(0);
});

test("the first key is hidden as in the sentence", () => {
  expect(hideFirstKey(makeAverages(ROWS)).weights).toEqual([
    [0, 0],
    [0, 1],
  ]);
});

test("only as many positions as the sequence has are drawn, hidden ones scaled before", () => {
  const cropped = cropAverages(makeAverages(ROWS), 1);
  expect(cropped.weights).toEqual([[1]]);
  expect(cropped.nPositions).toBe(1);
  expect(describeAverage(cropped, { query: 1, key: 0 })).toBe("Averages end at position 0.");
  expect(cropAverages(hideFirstKey(makeAverages(ROWS)), 9).weights).toEqual([
    [0, 0],
    [0, 1],
  ]);
});

test("positions asked for hold the sequence, and end at 128", () => {
  expect([1, 16, 17, 64, 65, 2048].map(countPositions)).toEqual([16, 16, 32, 64, 128, 128]);
});
