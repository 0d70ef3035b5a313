/** Which points in view ask for a label. */

import type { MapPoints } from "../contract/points";
import { tokenAt } from "../contract/points";
import { boxOf, type Camera, project, type Size } from "../draw/camera";
import type { LabelCandidate } from "../draw/labels";
import { shortToken } from "../sentence/token_text";

/** Candidates a frame: enough to fill the view, few enough for a smooth pan. */
const MOST_CANDIDATES = 3_000;

/** The first points in view by drawing order, so that labels stay as one zooms; only lit ones if any. */
export function chooseLabels(
  points: MapPoints,
  marked: Uint8Array | null,
  camera: Camera,
  size: Size,
): LabelCandidate[] {
  const candidates: LabelCandidate[] = [];
  const isNear = makeTest(points, camera, size);
  for (let i = 0; i < points.n && candidates.length < MOST_CANDIDATES; i++) {
    if ((marked && marked[i] === 0) || !isNear(i)) continue;
    const token = tokenAt(points, i);
    if (token === "") continue;
    const { px, py } = project(camera, size, points.x[i] ?? 0, points.y[i] ?? 0, points.z[i] ?? 0);
    candidates.push({ index: i, px, py, text: shortToken(token), weight: points.n - i });
  }
  return candidates;
}

/** Tells by numbers alone which points of a 2-D map are in view: most of a large one are not. */
function makeTest(points: MapPoints, camera: Camera, size: Size): (index: number) => boolean {
  if (camera.dims === 3) return () => true;
  const [x0, x1, y0, y1] = boxOf(camera, size);
  const { x, y } = points;
  return (i) => {
    const [px, py] = [x[i] ?? Number.NaN, y[i] ?? Number.NaN];
    return px >= x0 && px <= x1 && py >= y0 && py <= y1;
  };
}
