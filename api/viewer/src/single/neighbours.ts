/** Who is near whom on a map, and how that agrees with who is near in the head's own space. */

import type { Place } from "../contract/places";
import type { MapPoints } from "../contract/points";

/** Distances on the map from one point to those of the other kind. */
export interface MapNeighbours {
  /** Indices of the nearest of the other kind, nearest first. */
  readonly nearest: readonly number[];
  /** Rank by distance among the other kind of the point at an index: 1 for the nearest. */
  rank(index: number): number;
  /** Distance in the map's own units. */
  distance(index: number): number;
}

/** The k nearest of the other kind around a point, by plain comparison with every point. */
export function findMapNeighbours(points: MapPoints, of: number, k: number): MapNeighbours {
  const squared = squaredDistances(points, of);
  const others = otherKind(points, of);
  const nearest = smallest(squared, others, k);
  const rank = (index: number) => {
    const own = squared[index] ?? Number.NaN;
    let nNearer = 0;
    for (const other of others) if ((squared[other] ?? 0) < own) nNearer++;
    return nNearer + 1;
  };
  return { nearest, rank, distance: (index) => Math.sqrt(squared[index] ?? Number.NaN) };
}

function squaredDistances(points: MapPoints, of: number): Float64Array {
  const { x, y, z, n } = points;
  const [x0, y0, z0] = [x[of] ?? 0, y[of] ?? 0, z[of] ?? 0];
  const squared = new Float64Array(n);
  for (let i = 0; i < n; i++) {
    const [dx, dy, dz] = [(x[i] ?? 0) - x0, (y[i] ?? 0) - y0, (z[i] ?? 0) - z0];
    squared[i] = dx * dx + dy * dy + dz * dz;
  }
  return squared;
}

function otherKind(points: MapPoints, of: number): Int32Array {
  const own = points.isQuery[of];
  const others: number[] = [];
  for (let i = 0; i < points.n; i++) if (points.isQuery[i] !== own) others.push(i);
  return Int32Array.from(others);
}

/** Indices of the k smallest values, ascending; of equals the one drawn earlier comes first. */
function smallest(values: Float64Array, among: Int32Array, k: number): number[] {
  const best: number[] = [];
  for (const index of among) {
    const value = values[index] ?? 0;
    const last = values[best[best.length - 1] ?? -1] ?? Number.POSITIVE_INFINITY;
    if (best.length >= k && value >= last) continue;
    let at = best.length;
    while (at > 0 && (values[best[at - 1] ?? 0] ?? 0) > value) at--;
    best.splice(at, 0, index);
    if (best.length > k) best.pop();
  }
  return best;
}

/** Index of each place that is among the points; −1 for the others. */
export function findPlaces(points: MapPoints, places: readonly Place[]): number[] {
  const wanted = new Map<string, number[]>();
  places.forEach((place, i) => {
    const key = keyOf(Number(place.kind === "query"), place.sequenceId, place.position);
    wanted.set(key, [...(wanted.get(key) ?? []), i]);
  });
  const sequences = new Set(places.map((place) => place.sequenceId));
  const found = places.map(() => -1);
  for (let i = 0; i < points.n; i++) {
    const sequenceId = points.sequenceId[i] ?? -1;
    if (!sequences.has(sequenceId)) continue;
    const key = keyOf(points.isQuery[i] ?? 0, sequenceId, points.position[i] ?? 0);
    for (const at of wanted.get(key) ?? []) found[at] = i;
  }
  return found;
}

function keyOf(isQuery: number, sequenceId: number, position: number): string {
  return `${isQuery}:${sequenceId}:${position}`;
}

/** How many of the first are among the second. */
export function countShared(first: readonly number[], second: readonly number[]): number {
  const known = new Set(second);
  return first.filter((index) => index >= 0 && known.has(index)).length;
}

/** Tokens of the same kind and sequence around a point, as far as they are among the points. */
export interface Surroundings {
  readonly before: readonly string[];
  readonly token: string;
  readonly after: readonly string[];
}

/** What stands within `reach` positions of a point in its sequence. */
export function findSurroundings(points: MapPoints, of: number, reach: number): Surroundings {
  const [kind, sequenceId] = [points.isQuery[of], points.sequenceId[of]];
  const position = points.position[of] ?? 0;
  const around = new Map<number, string>();
  for (let i = 0; i < points.n; i++) {
    if (points.sequenceId[i] !== sequenceId || points.isQuery[i] !== kind) continue;
    const offset = (points.position[i] ?? 0) - position;
    const token = points.tokens.words[points.tokens.codes[i] ?? -1];
    if (Math.abs(offset) <= reach && token !== undefined) around.set(offset, token);
  }
  const run = (from: number, to: number) => {
    const tokens: string[] = [];
    for (let at = from; at <= to; at++)
      tokens.push(...[around.get(at)].filter((t) => t !== undefined));
    return tokens;
  };
  return { before: run(-reach, -1), token: around.get(0) ?? "", after: run(1, reach) };
}
