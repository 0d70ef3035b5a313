/** Which of the matrix's points a search or the selection lights, and how many in each head. */

import type { MatrixHead } from "../contract/atlas";
import type { PlaceSet } from "../contract/places";
import { isIn, type PointSet } from "../contract/points";

/** How many points are lit. */
export interface MarkCount {
  readonly nQueries: number;
  readonly nKeys: number;
}

/** 1 for each point in a set; null for no set. */
export function markPoints(points: PointSet, places: PlaceSet | null): Uint8Array | null {
  if (places === null) return null;
  return Uint8Array.from({ length: points.n }, (_, i) => Number(isIn(points, i, places)));
}

/** 1 where one of two marks is; null where neither is there. */
export function joinMarks(one: Uint8Array | null, other: Uint8Array | null): Uint8Array | null {
  if (one === null || other === null) return one ?? other;
  return one.map((mark, i) => mark | (other[i] ?? 0));
}

/** How many of a head's points are marked: none where it has no points. */
export function countMarks(points: PointSet, head: MatrixHead, marks: Uint8Array): MarkCount {
  let [nQueries, nKeys] = [0, 0];
  if (head.coordinates === null) return { nQueries, nKeys };
  const n = Math.min(points.n, marks.length);
  for (let i = 0; i < n; i++) {
    if (marks[i] !== 1) continue;
    if (points.isQuery[i] === 1) nQueries++;
    else nKeys++;
  }
  return { nQueries, nKeys };
}
