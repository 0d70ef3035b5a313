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
 * The selection and the clicked point's sequence come first, then the picked value, then search hits.
 * A point whose sequence is not on the map leaves all as it is.
 */
export function markPoints(points: MapPoints, lights: Lights): Uint8Array | null {
  const test = chooseTest(points, lights);
  if (!test) return null;
  const marked = new Uint8Array(points.n);
  for (let i = 0; i < points.n; i++) marked[i] = Number(test(i));
  const isElsewhere = lights.point !== null && lights.selection === null && !marked.includes(1);
  return isElsewhere ? null : marked;
}

type Test = (index: number) => boolean;

function chooseTest(points: MapPoints, lights: Lights): Test | null {
  const { selection, hits, point, value, texts } = lights;
  if (selection || point) return testSelected(points, lights);
  if (value !== null) return (i) => texts(i) === value;
  return hits ? testPlaces(points, hits, lights.isForeign) : null;
}

function testSelected(points: MapPoints, { selection, point, isForeign }: Lights): Test {
  const isSelected = selection ? testPlaces(points, selection, isForeign) : () => false;
  const sequenceId = point?.sequenceId ?? -1;
  return (i) => points.sequenceId[i] === sequenceId || isSelected(i);
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
