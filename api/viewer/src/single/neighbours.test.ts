import { describe, expect, it } from "vitest";
import type { Place } from "../contract/places";
import type { MapPoints } from "../contract/points";
import { placeAt, readTexts } from "../contract/points";
import { countShared, findMapNeighbours, findPlaces, findSurroundings } from "./neighbours";

/** Repeatable numbers from 0 to 1. */
function makeRandom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state * 1_103_515_245 + 12_345) % 2_147_483_648;
    return state / 2_147_483_648;
  };
}

function makePoints(n: number, seed = 1): MapPoints {
  const random = makeRandom(seed);
  const floats = () => Float32Array.from({ length: n }, random);
  return {
    n,
    mapId: "map",
    dims: 3,
    isQuery: Uint8Array.from({ length: n }, (_, i) => i % 2),
    sequenceId: Float64Array.from({ length: n }, (_, i) => Math.floor(i / 20)),
    position: Int32Array.from({ length: n }, (_, i) => Math.floor((i % 20) / 2)),
    tokens: readTexts(Array.from({ length: n }, (_, i) => `t${Math.floor(i / 2)}`)),
    isSpecial: new Uint8Array(n),
    x: floats(),
    y: floats(),
    z: floats(),
    rank: Int32Array.from({ length: n }, (_, i) => i),
    distortion: null,
  };
}

function plainDistance(points: MapPoints, a: number, b: number): number {
  const part = (values: Float32Array) => (values[a] as number) - (values[b] as number);
  return Math.hypot(part(points.x), part(points.y), part(points.z));
}

/** All of the other kind, nearest first, by sorting. */
function plainNearest(points: MapPoints, of: number): number[] {
  return Array.from({ length: points.n }, (_, i) => i)
    .filter((i) => points.isQuery[i] !== points.isQuery[of])
    .sort((a, b) => plainDistance(points, of, a) - plainDistance(points, of, b));
}

describe("neighbours on the map", () => {
  it.each([0, 7, 150])("of point %i are as a sort finds them, of the other kind only", (of) => {
    const points = makePoints(200);
    const near = findMapNeighbours(points, of, 10);
    const plain = plainNearest(points, of);
    expect(near.nearest).toEqual(plain.slice(0, 10));
    for (const index of plain) expect(near.rank(index)).toBe(plain.indexOf(index) + 1);
    expect(near.distance(plain[0] as number)).toBeCloseTo(
      plainDistance(points, of, plain[0] as number),
    );
  });

  it("are all there are on a small map, and none on a map of one kind", () => {
    expect(findMapNeighbours(makePoints(6), 0, 10).nearest).toHaveLength(3);
    const points = { ...makePoints(6), isQuery: new Uint8Array(6) };
    expect(findMapNeighbours(points, 0, 10).nearest).toEqual([]);
  });

  it("share with the true ones only those that are on the map", () => {
    expect(countShared([4, -1, 9, -1], [9, 3, 4])).toBe(2);
    expect(countShared([-1], [])).toBe(0);
  });
});

describe("places on a map", () => {
  it("are found by kind, sequence and position", () => {
    const points = makePoints(100);
    const places = [57, 3, 98].map((index) => placeAt(points, index));
    expect(findPlaces(points, places)).toEqual([57, 3, 98]);
  });

  it("are −1 where the map has no such point, and found twice where asked twice", () => {
    const points = makePoints(40);
    const gone: Place = { kind: "query", sequenceId: 99, position: 0 };
    const there = placeAt(points, 5);
    expect(findPlaces(points, [gone, there, there])).toEqual([-1, 5, 5]);
  });
});

describe("the text around a point", () => {
  it("is of its own kind and sequence, in order, without the point itself", () => {
    const points = makePoints(40);
    const around = findSurroundings(points, 25, 2); // position 2 of sequence 1
    expect(around).toEqual({ before: ["t10", "t11"], token: "t12", after: ["t13", "t14"] });
  });

  it("ends where the sequence does", () => {
    const around = findSurroundings(makePoints(40), 21, 3);
    expect(around.before).toEqual([]);
    expect(around.after).toEqual(["t11", "t12", "t13"]);
  });
});
