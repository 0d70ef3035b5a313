/** Points of maps as typed arrays: what is drawn, coloured, hovered and selected. */

import type { Column, Table } from "@uwdata/flechette";
import { type Kind, type Place, PlaceSet } from "./places";

/** Texts of many points, each kept once. */
export interface Texts {
  /** Index of each point's text in `words`; −1 where it has none. */
  readonly codes: Int32Array;
  readonly words: readonly string[];
}

/** Points with their places; all arrays have `n` elements, in drawing order. */
export interface PointSet {
  readonly n: number;
  /** 1 for queries, 0 for keys. */
  readonly isQuery: Uint8Array;
  readonly sequenceId: Float64Array;
  readonly position: Int32Array;
  readonly tokens: Texts;
  readonly isSpecial: Uint8Array;
}

/** The points of one map. */
export interface MapPoints extends PointSet {
  readonly mapId: string;
  readonly dims: 2 | 3;
  readonly x: Float32Array;
  readonly y: Float32Array;
  /** Zeros on 2-D maps. */
  readonly z: Float32Array;
  readonly rank: Int32Array;
  /** NaN where it is not known; null where the map has none at all. */
  readonly distortion: Float32Array | null;
}

/** The place of the point at an index. */
export function placeAt(points: PointSet, index: number): Place {
  const kind: Kind = points.isQuery[index] === 1 ? "query" : "key";
  return {
    kind,
    sequenceId: points.sequenceId[index] ?? 0,
    position: points.position[index] ?? 0,
  };
}

/** The text of the token at an index; empty where there is none. */
export function tokenAt(points: PointSet, index: number): string {
  return points.tokens.words[points.tokens.codes[index] ?? -1] ?? "";
}

/** The indices of the points in a set, ascending. */
export function indicesOf(points: PointSet, places: PlaceSet): number[] {
  const found: number[] = [];
  for (let i = 0; i < points.n; i++) {
    if (isIn(points, i, places)) found.push(i);
  }
  return found;
}

/** True where the point at an index is in a set. */
export function isIn(points: PointSet, index: number, places: PlaceSet): boolean {
  return places.has(
    points.isQuery[index] ?? 0,
    points.sequenceId[index] ?? 0,
    points.position[index] ?? 0,
  );
}

/** The places of some points. */
export function placesOf(points: PointSet, indices: Iterable<number>): PlaceSet {
  const places = new PlaceSet();
  for (const i of indices) {
    places.add(points.isQuery[i] ?? 0, points.sequenceId[i] ?? 0, points.position[i] ?? 0);
  }
  return places;
}

/** Each text once, with codes; from Arrow strings or dictionaries. */
export function readTexts(values: ArrayLike<string | null>): Texts {
  const known = new Map<string, number>();
  const codes = new Int32Array(values.length);
  for (let i = 0; i < values.length; i++) {
    const word = values[i];
    codes[i] = word === null || word === undefined ? -1 : number(known, word);
  }
  return { codes, words: [...known.keys()] };
}

function number(known: Map<string, number>, word: string): number {
  const code = known.get(word) ?? known.size;
  known.set(word, code);
  return code;
}

/** The points of a map from the service's Arrow table. */
export function readMapPoints(table: Table, mapId: string, dims: 2 | 3): MapPoints {
  const n = table.numRows;
  const floats = (name: string) => Float32Array.from(column(table, name).toArray() as Float32Array);
  const x = floats("x");
  return {
    ...readPlaces(table, n),
    mapId,
    dims,
    x,
    y: floats("y"),
    z: dims === 3 ? floats("z") : new Float32Array(n),
    rank: Int32Array.from(column(table, "rank").toArray() as Int32Array),
    distortion: readDistortion(table),
  };
}

function readPlaces(table: Table, n: number): PointSet {
  const special = column(table, "is_special").toArray() as ArrayLike<boolean | null>;
  return {
    n,
    isQuery: readKinds(column(table, "kind").toArray() as ArrayLike<string>),
    sequenceId: Float64Array.from(column(table, "sequence_id").toArray() as Float64Array),
    position: Int32Array.from(column(table, "position").toArray() as Int32Array),
    tokens: readTexts(column(table, "token").toArray() as ArrayLike<string | null>),
    isSpecial: Uint8Array.from(special, Number),
  };
}

/** 1 for each query, 0 for each key. */
export function readKinds(kinds: ArrayLike<string>): Uint8Array {
  return Uint8Array.from(kinds, (kind) => (kind === "query" ? 1 : 0));
}

function readDistortion(table: Table): Float32Array | null {
  const values = table.getChild("distortion")?.toArray() as ArrayLike<number | null> | undefined;
  if (!values) return null;
  const distortion = Float32Array.from(values, (value) => value ?? Number.NaN);
  return distortion.some((value) => !Number.isNaN(value)) ? distortion : null;
}

function column(table: Table, name: string): Column<unknown> {
  const found = table.getChild(name) as Column<unknown> | undefined;
  if (!found) throw new Error(`the reply has no column ${name}`);
  return found;
}
