import { describe, expect, it } from "vitest";
import { type Place, PlaceSet } from "../contract/places";
import { type MapPoints, readTexts } from "../contract/points";
import { chooseLineSequences, countPlaces, type Lights, markPoints } from "./marks";

const N = 8;
/** Sequence 0 and 1, positions 0 and 1, key and query of each. */
const points: MapPoints = {
  n: N,
  mapId: "map",
  dims: 2,
  isQuery: Uint8Array.from({ length: N }, (_, i) => i % 2),
  position: Int32Array.from({ length: N }, (_, i) => Math.floor(i / 2) % 2),
  sequenceId: Float64Array.from({ length: N }, (_, i) => Math.floor(i / 4)),
  tokens: readTexts(Array.from({ length: N }, String)),
  isSpecial: new Uint8Array(N),
  x: new Float32Array(N),
  y: new Float32Array(N),
  z: new Float32Array(N),
  rank: new Int32Array(N),
  distortion: null,
};

function makeSet(...places: [number, number, number][]): PlaceSet {
  const set = new PlaceSet();
  for (const place of places) set.add(...place);
  return set;
}

const nothing: Lights = {
  selection: null,
  hits: null,
  point: null,
  isForeign: false,
  value: null,
  texts: () => "",
};
const lit = (lights: Partial<Lights>) => {
  const marked = markPoints(points, { ...nothing, ...lights });
  return marked && [...marked];
};
const clicked: Place = { kind: "query", sequenceId: 1, position: 0 };

describe("lit points", () => {
  it("are not told apart where nothing is selected", () => {
    expect(lit({})).toBeNull();
  });

  it("are those selected and the whole sequence of the clicked point", () => {
    expect(lit({ selection: makeSet([1, 0, 1]) })).toEqual([0, 0, 0, 1, 0, 0, 0, 0]);
    expect(lit({ point: clicked })).toEqual([0, 0, 0, 0, 1, 1, 1, 1]);
    expect(lit({ point: clicked, selection: makeSet([1, 0, 1]) })).toEqual([
      0, 0, 0, 1, 1, 1, 1, 1,
    ]);
  });

  it("are all as usual where the clicked point's sequence is not on the map", () => {
    expect(lit({ point: { ...clicked, sequenceId: 9 } })).toBeNull();
  });

  it("are the search's hits beside what is selected, clicked or picked", () => {
    const hits = makeSet([0, 0, 0], [1, 0, 0]);
    expect(lit({ hits })).toEqual([1, 1, 0, 0, 0, 0, 0, 0]);
    expect(lit({ hits, selection: makeSet([1, 1, 1]) })).toEqual([1, 1, 0, 0, 0, 0, 0, 1]);
    expect(lit({ hits, point: clicked })).toEqual([1, 1, 0, 0, 1, 1, 1, 1]);
    const texts = (index: number) => (index === 3 ? "noun" : "verb");
    expect(lit({ hits, value: "noun", texts })).toEqual([1, 1, 0, 1, 0, 0, 0, 0]);
  });

  it("are none, rather than all, where the search finds nothing", () => {
    expect(lit({ hits: makeSet() })).toEqual(new Array(N).fill(0));
  });

  it("follow whole sequences on a map of another model", () => {
    expect(lit({ selection: makeSet([1, 0, 1]), isForeign: true })).toEqual([
      1, 1, 1, 1, 0, 0, 0, 0,
    ]);
  });

  it("are those of a value picked in the legend", () => {
    const texts = (index: number) => (index < 3 ? "noun" : "verb");
    expect(lit({ value: "noun", texts })).toEqual([1, 1, 1, 0, 0, 0, 0, 0]);
    expect(lit({ value: "of another colouring", texts })).toBeNull();
  });
});

describe("counts", () => {
  it("tell queries, keys and sequences that are on the map", () => {
    const places = makeSet([1, 0, 0], [1, 1, 0], [0, 1, 1], [0, 77, 0]);
    expect(countPlaces(points, places)).toEqual({ nQueries: 2, nKeys: 1, nSequences: 2 });
  });
});

describe("sequences that get attention lines", () => {
  const many = makeSet(
    ...Array.from({ length: 40 }, (_, i): [number, number, number] => [1, i, 0]),
  );

  it("begin with the clicked point's, and tell how many are left out", () => {
    const point: Place = { ...clicked, sequenceId: 35 };
    const { sequenceIds, nLeftOut } = chooseLineSequences(point, many, 30);
    expect(sequenceIds).toHaveLength(30);
    expect(sequenceIds[0]).toBe(35);
    expect(new Set(sequenceIds).size).toBe(30);
    expect(nLeftOut).toBe(10);
  });

  it("are none where nothing is clicked or selected", () => {
    expect(chooseLineSequences(null, null, 30)).toEqual({ sequenceIds: [], nLeftOut: 0 });
  });
});
