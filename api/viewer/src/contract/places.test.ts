import { expect, test } from "vitest";
import { PlaceSet, readPlace, writePlace } from "./places";

test("a set holds each place once, and queries beside keys", () => {
  const places = new PlaceSet();
  places.add(1, 7, 3);
  places.add(1, 7, 3);
  places.add(0, 7, 3);
  places.add(0, 2, 0);
  expect(places.size).toBe(3);
  expect(places.has(1, 7, 3)).toBe(true);
  expect(places.has(0, 7, 3)).toBe(true);
  expect(places.has(1, 2, 0)).toBe(false);
  expect(places.has(1, 99, 0)).toBe(false);
  expect(places.sequences()).toEqual([2, 7]);
});

test("its places come by sequence and position", () => {
  const places = new PlaceSet();
  for (const [isQuery, sequence, position] of [
    [1, 9, 2],
    [0, 9, 10],
    [0, 9, 2],
    [1, 4, 0],
  ] as const) {
    places.add(isQuery, sequence, position);
  }
  expect([...places.places()].map(writePlace)).toEqual(["q:4:0", "k:9:2", "q:9:2", "k:9:10"]);
});

test("sequence ids beyond 32 bits and late positions are told apart", () => {
  const places = new PlaceSet();
  const id = 5 * 2 ** 32 + 1;
  places.add(1, id, 2_000_000_000);
  expect(places.has(1, id, 2_000_000_000)).toBe(true);
  expect(places.has(1, 1, 2_000_000_000)).toBe(false);
  expect(places.has(0, id, 2_000_000_000)).toBe(false);
  expect([...places.places()]).toEqual([
    { kind: "query", sequenceId: id, position: 2_000_000_000 },
  ]);
});

test("a place comes back from its text", () => {
  for (const kind of ["query", "key"] as const) {
    const place = { kind, sequenceId: 2 ** 40 + 3, position: 12 };
    expect(readPlace(writePlace(place))).toEqual(place);
  }
});

test("a text that names no place gives none", () => {
  for (const text of ["", "q", "q:1", "x:1:2", "q:1:2:3", "q:-1:2", "q:1.5:2", "q:a:b", " q:1:2"]) {
    expect(readPlace(text), text).toBeNull();
  }
});
