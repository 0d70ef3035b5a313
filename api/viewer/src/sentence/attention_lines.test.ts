import { describe, expect, test } from "vitest";
import type { Attention } from "../contract/rows";
import {
  meanRow,
  renormalise,
  strongest,
  strongestOutside,
  sum,
  sumOutside,
  topKeys,
  windowOfKeys,
} from "./attention_lines";

/** Numbers 0 to 1 that are the same in every run. */
function seeded(seed: number): () => number {
  let value = seed;
  return () => {
    value = (value * 1_103_515_245 + 12_345) % 2 ** 31;
    return value / 2 ** 31;
  };
}

function randomRow(draw: () => number, n: number): number[] {
  const raw = Array.from({ length: n }, () => draw() ** 4);
  const total = raw.reduce((a, b) => a + b, 0);
  return raw.map((value) => value / total);
}

function randomAttention(seed: number, nQueries: number, nKeys: number, first = 0): Attention {
  const draw = seeded(seed);
  const place = (position: number) => ({ position, token: `t${position}`, is_special: false });
  return {
    queries: Array.from({ length: nQueries }, (_, i) => place(first + i)),
    keys: Array.from({ length: nKeys }, (_, j) => place(j)),
    weights: Array.from({ length: nQueries }, () => randomRow(draw, nKeys)),
  };
}

describe("topKeys", () => {
  test.each([1, 2, 3, 4, 5])("is what sorting every row gives (seed %i)", (seed) => {
    const attention = randomAttention(seed, 7, 9, 20);
    const plain = attention.queries.flatMap((query, i) =>
      attention.keys
        .map((key, j) => ({
          query: query.position,
          key: key.position,
          weight: at(attention, i, j),
        }))
        .sort((a, b) => b.weight - a.weight || a.key - b.key)
        .slice(0, 2)
        .filter((line) => line.weight >= 0.05),
    );
    expect(topKeys(attention, 2, 0.05)).toEqual(plain);
  });

  test("gives equal weights by key, and none below the least", () => {
    expect(strongest([0.2, 0.3, 0.3, 0.1, 0.3], 2, 0.15)).toEqual([1, 2]);
    expect(strongest([0.2, 0.3], 5, 0.31)).toEqual([]);
    expect(strongest([Number.NaN, 0.3], 5, 0)).toEqual([1]);
  });
});

function at(attention: Attention, i: number, j: number): number {
  return attention.weights[i]?.[j] ?? Number.NaN;
}

describe("renormalise", () => {
  test.each([1, 2, 3])("leaves rows of sum 1 in the proportions of before (seed %i)", (seed) => {
    const { weights } = randomAttention(seed, 6, 8);
    const hidden = new Set([0, 3, 7]);
    renormalise(weights, hidden).forEach((row, i) => {
      const before = weights[i] ?? [];
      const left = before.reduce((total, weight, j) => total + (hidden.has(j) ? 0 : weight), 0);
      row.forEach((weight, j) => {
        expect(weight).toBeCloseTo(hidden.has(j) ? 0 : (before[j] ?? 0) / left, 12);
      });
      expect(sum(row)).toBeCloseTo(1, 12);
    });
  });

  test("changes nothing where nothing is hidden, also rows that sum to less than 1", () => {
    const weights = [[0.25, 0.25]];
    expect(renormalise(weights, new Set())).toBe(weights);
  });

  test("leaves zeros where a row's whole weight is hidden", () => {
    const rows = [
      [1, 0],
      [0.5, 0.5],
    ];
    expect(renormalise(rows, new Set([0]))).toEqual([
      [0, 0],
      [0, 1],
    ]);
  });
});

describe("windows", () => {
  test.each([
    [0, 29, { first: 0, end: 29 }],
    [0, 2048, { first: 0, end: 128 }],
    [256, 2048, { first: 256, end: 384 }],
    [1920, 2000, { first: 1872, end: 2000 }],
    [500, 11, { first: 0, end: 11 }],
    [0, 0, { first: 0, end: 0 }],
  ])("of queries from %i with %i keys lie in the sequence", (first, nKeys, span) => {
    expect(windowOfKeys(first, nKeys, 128)).toEqual(span);
  });

  test("and what lies outside adds up with what lies inside", () => {
    const draw = seeded(9);
    const row = randomRow(draw, 300);
    row[3] = 0;
    const inside = { first: 100, end: 228 };
    const within = sum(row.slice(100, 228));
    const outside = sumOutside(row, inside);
    expect(outside.n).toBe(300 - 128 - 1);
    expect(outside.weight + within).toBeCloseTo(sum(row), 12);
  });

  test("name the strongest columns outside by position", () => {
    const weights = [
      [0.1, 0.5, 0, 0.2, 0.2],
      [0.3, 0.1, 0, 0.5, 0.1],
    ];
    expect(strongestOutside(weights, { first: 3, end: 4 }, 2)).toEqual([0, 1]);
    expect(strongestOutside(weights, { first: 0, end: 4 }, 8)).toEqual([4]);
    expect(strongestOutside([], { first: 0, end: 4 }, 8)).toEqual([]);
  });
});

test("meanRow is the mean of each column", () => {
  expect(
    meanRow([
      [0, 1],
      [1, 0.5],
    ]),
  ).toEqual([0.5, 0.75]);
});
