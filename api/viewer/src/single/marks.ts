/** Which points are lit, and which sequences get lines, from all that can be selected. */

import type { Place, PlaceSet } from "../contract/places";
import { isIn, type MapPoints } from "../contract/points";

/** What lights points up. */
export interface Lights {
  readonly selection: PlaceSet | null;
  readonly hits: PlaceSet | null;
  readonly point: Place | null;
  /** Whether the places are of another model: then only sequences are shared. */
  readonly isForeign: boolean;
  /** Text of a legend's entry whose points are to be lit; null for none. */
  readonly value: string | null;
  /** What the colour tells of a point. */
  readonly texts: (index: number) => string;
}

/**
 * 1 for each lit point; null where nothing is to be lit.
 *
 * Lit are the selection, the clicked point's sequence, the picked value and the search's hits, all
 * at once. A sequence or value that is not on the map leaves all as it is.
 */
export function markPoints(points: MapPoints, lights: Lights): Uint8Array | null {
  const tests = listTests(points, lights);
  if (tests.length === 0) return null;
  const marked = new Uint8Array(points.n);
  for (let i = 0; i < points.n; i++) marked[i] = Number(tests.some((test) => test(i)));
  const isAsked = lights.selection !== null || lights.hits !== null;
  return isAsked || marked.includes(1) ? marked : null;
}

type Test = (index: number) => boolean;

function listTests(points: MapPoints, lights: Lights): readonly Test[] {
  const { selection, hits, point, value, texts, isForeign } = lights;
  const tests: Test[] = [];
  if (point) tests.push((i) => points.sequenceId[i] === point.sequenceId);
  if (value !== null) tests.push((i) => texts(i) === value);
  for (const places of [selection, hits]) {
    if (places) tests.push(testPlaces(points, places, isForeign));
  }
  return tests;
}

function testPlaces(points: MapPoints, places: PlaceSet, isForeign: boolean): Test {
  if (!isForeign) return (i) => isIn(points, i, places);
  const sequences = new Set(places.sequences());
  return (i) => sequences.has(points.sequenceId[i] ?? -1);
}

/** How many queries, keys and sequences are lit. */
export interface Counts {
  readonly nQueries: number;
  readonly nKeys: number;
  readonly nSequences: number;
}

/** Counts of the points of a map that are in a set. */
export function countPlaces(points: MapPoints, places: PlaceSet): Counts {
  const sequences = new Set<number>();
  const n = [0, 0];
  for (let i = 0; i < points.n; i++) {
    if (!isIn(points, i, places)) continue;
    const kind = points.isQuery[i] ?? 0;
    n[kind] = (n[kind] ?? 0) + 1;
    sequences.add(points.sequenceId[i] ?? -1);
  }
  return { nQueries: n[1] ?? 0, nKeys: n[0] ?? 0, nSequences: sequences.size };
}

/** The sequences that get attention lines, and how many more would. */
export interface LineSequences {
  readonly sequenceIds: readonly number[];
  readonly nLeftOut: number;
}

/** The clicked point's sequence first, then those selected, at most `most`. */
export function chooseLineSequences(
  point: Place | null,
  selection: PlaceSet | null,
  most: number,
): LineSequences {
  const all = new Set<number>(point ? [point.sequenceId] : []);
  for (const sequenceId of selection?.sequences() ?? []) all.add(sequenceId);
  const sequenceIds = [...all].slice(0, most);
  return { sequenceIds, nLeftOut: all.size - sequenceIds.length };
}
