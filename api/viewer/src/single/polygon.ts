/** A lasso's outline, in pixels while it is drawn and in the map's units where it is kept. */

import type { Selector } from "../contract/state";
import { type Camera, type Camera3, roundWithin, type Size } from "../draw/camera";
import type { Picker } from "../draw/grid";

/** Corners that an outline keeps: more would make addresses long and nothing more exact. */
export const MOST_CORNERS = 80;
const ANGLE_DIGITS = 6;
/** Numbers of the 3-D camera that stand before the corners of an outline seen through it. */
const N_CAMERA = 6;
const SIDE = 1_000;

/** The four corners of a box between two pixels. */
export function boxCorners(x0: number, y0: number, x1: number, y1: number): number[] {
  return [x0, y0, x1, y0, x1, y1, x0, y1];
}

/** An outline of at most MOST_CORNERS corners, evenly taken. */
export function thinOut(corners: readonly number[]): number[] {
  const n = corners.length / 2;
  if (n <= MOST_CORNERS) return [...corners];
  return Array.from({ length: MOST_CORNERS }, (_, i) => {
    const at = Math.floor((i * n) / MOST_CORNERS);
    return [corners[2 * at] ?? 0, corners[2 * at + 1] ?? 0];
  }).flat();
}

/**
 * The selector of an outline in pixels.
 *
 * In 2-D its corners are in the map's units. In 3-D an outline means something only as seen from
 * where it was drawn: x, y, z, yaw, pitch and span of the camera come first, then the corners in
 * the map's units across and down from the middle of the view.
 */
export function writePolygon(
  mapId: string,
  camera: Camera,
  size: Size,
  pixels: readonly number[],
): Selector {
  const scale = camera.span / (Math.min(size.width, size.height) / 2);
  const flat = thinOut(pixels).map((pixel, i) =>
    i % 2 === 0 ? (pixel - size.width / 2) * scale : (pixel - size.height / 2) * scale,
  );
  const corners =
    camera.dims === 2
      ? flat.map((value, i) => (i % 2 === 0 ? camera.x + value : camera.y - value))
      : flat;
  const rounded = corners.map((value) => roundWithin(value, camera.span));
  return { by: "polygon", mapId, corners: [...viewOf(camera), ...rounded] };
}

/** What comes before the corners: where a 3-D outline is seen from. */
function viewOf(camera: Camera): number[] {
  if (camera.dims === 2) return [];
  const { x, y, z, yaw, pitch, span } = camera;
  const angles = [yaw, pitch, span].map((value) => Number(value.toPrecision(ANGLE_DIGITS)));
  return [...[x, y, z].map((value) => roundWithin(value, span)), ...angles];
}

/** x0, x1, y0, y1 around the corners of a 2-D outline. */
export function boxAround(corners: readonly number[]): [number, number, number, number] {
  const xs = corners.filter((_, i) => i % 2 === 0);
  const ys = corners.filter((_, i) => i % 2 === 1);
  return [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
}

/** The indices of the points inside the outline of a selector. */
export function readPolygon(corners: readonly number[], dims: number, picker: Picker): number[] {
  if (dims === 2) return picker.inMapPolygon(corners);
  const [x = 0, y = 0, z = 0, yaw = 0, pitch = 0, span = 1, ...flat] = corners;
  if (corners.length < N_CAMERA + 6) return [];
  const camera: Camera3 = { dims: 3, x, y, z, yaw, pitch, span };
  const pixels = flat.map((value) => SIDE / 2 + (value / span) * (SIDE / 2));
  return picker.inPolygon(camera, { width: SIDE, height: SIDE }, pixels);
}
