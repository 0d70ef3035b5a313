import {
  dictionary,
  float32,
  int32,
  tableFromArrays,
  tableFromIPC,
  tableToIPC,
  utf8,
} from "@uwdata/flechette";
import { expect, test } from "vitest";
import { PlaceSet } from "./places";
import { indicesOf, isIn, placeAt, placesOf, readMapPoints, readTexts, tokenAt } from "./points";

const COLUMNS = {
  kind: ["query", "key", "key"],
  sequence_id: [3, 2 ** 34, 3],
  position: [0, 5, 1],
  x: [0.5, -1, 2],
  y: [1, 2, 3],
  rank: [2, 0, 1],
  token: ["a", null, "a"],
  is_special: [false, true, null],
};

function makeTable(more: Record<string, unknown[]> = {}, isDictionary = false) {
  const text = () => (isDictionary ? dictionary(utf8(), int32()) : utf8());
  const types = {
    kind: text(),
    token: text(),
    position: int32(),
    rank: int32(),
    x: float32(),
    y: float32(),
    ...(more["distortion"] ? { distortion: float32() } : {}),
  };
  const table = tableFromArrays({ ...COLUMNS, ...more }, { types });
  return tableFromIPC(tableToIPC(table, {}) as Uint8Array);
}

for (const isDictionary of [false, true]) {
  test(`points are read from ${isDictionary ? "dictionaries" : "texts"}`, () => {
    const points = readMapPoints(makeTable({}, isDictionary), "m", 2);
    expect(points.n).toBe(3);
    expect([...points.isQuery]).toEqual([1, 0, 0]);
    expect([...points.sequenceId]).toEqual([3, 2 ** 34, 3]);
    expect([...points.x]).toEqual([0.5, -1, 2]);
    expect([...points.z]).toEqual([0, 0, 0]);
    expect([...points.isSpecial]).toEqual([0, 1, 0]);
    expect([0, 1, 2].map((i) => tokenAt(points, i))).toEqual(["a", "", "a"]);
    expect(points.tokens.words).toEqual(["a"]);
    expect(points.distortion).toBeNull();
    expect(placeAt(points, 1)).toEqual({ kind: "key", sequenceId: 2 ** 34, position: 5 });
  });
}

test("distortion is NaN where unknown, and null where the map has none at all", () => {
  const some = readMapPoints(makeTable({ distortion: [0.5, null, 0] }), "m", 2).distortion;
  expect([...(some ?? [])]).toEqual([0.5, Number.NaN, 0]);
  expect(
    readMapPoints(makeTable({ distortion: [null, null, null] }), "m", 2).distortion,
  ).toBeNull();
});

test("a reply without a column that is needed says which", () => {
  const { y: _, ...others } = COLUMNS;
  const table = tableFromArrays(others);
  expect(() => readMapPoints(table, "m", 2)).toThrow(/no column y/);
  expect(() => readMapPoints(makeTable(), "m", 3)).toThrow(/no column z/);
});

test("places of points and points of places fit together", () => {
  const points = readMapPoints(makeTable(), "m", 2);
  const places = placesOf(points, [0, 2]);
  expect(indicesOf(points, places)).toEqual([0, 2]);
  expect(isIn(points, 1, places)).toBe(false);
  expect(indicesOf(points, new PlaceSet())).toEqual([]);
});

test("each text is kept once", () => {
  const texts = readTexts(["a", "b", "a", null, ""]);
  expect([...texts.codes]).toEqual([0, 1, 0, -1, 2]);
  expect(texts.words).toEqual(["a", "b", ""]);
});
