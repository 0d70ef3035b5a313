/** Cameras over maps: pan and zoom in 2-D, orthographic orbit in 3-D. Pure: each move is a new camera. */

/** CSS pixels. */
export interface Size {
  readonly width: number;
  readonly height: number;
}

/** Points to draw, in drawing order; `z` is not read in 2-D. */
export interface Cloud {
  readonly n: number;
  readonly dims: 2 | 3;
  readonly x: Float32Array;
  readonly y: Float32Array;
  readonly z: Float32Array;
}

/** Looks at (x, y); half the shorter side of the picture shows `span` map units. */
export interface Camera2 {
  readonly dims: 2;
  readonly x: number;
  readonly y: number;
  readonly span: number;
}

/** Turns about (x, y, z) by `yaw` about the map's y, then by `pitch`, in radians. */
export interface Camera3 {
  readonly dims: 3;
  readonly x: number;
  readonly y: number;
  readonly z: number;
  readonly yaw: number;
  readonly pitch: number;
  readonly span: number;
}

export type Camera = Camera2 | Camera3;

/** A point of the picture: CSS pixels from its upper left; a smaller depth is nearer. */
export interface Projected {
  readonly px: number;
  readonly py: number;
  readonly depth: number;
}

/** Empty border around all points, as a part of what they span. */
const BORDER = 0.06;
const FIRST_YAW = 0.6;
const FIRST_PITCH = 0.35;
const RADIANS_A_PIXEL = 0.008;
const SMALLEST_SPAN = 1e-9;
const LARGEST_SPAN = 1e9;
const DIGITS = 6;
/** Decimals of a coordinate where the span is 1: a thirtieth of a pixel or less. */
const DECIMALS = 4;
const MOST_DECIMALS = 20;

/** The camera that has all points in view. */
export function fitCamera(cloud: Cloud): Camera {
  const [x, spanX] = middle(cloud.x, cloud.n);
  const [y, spanY] = middle(cloud.y, cloud.n);
  if (cloud.dims === 2) {
    return { dims: 2, x, y, span: limitSpan((1 + BORDER) * (Math.max(spanX, spanY) || 1)) };
  }
  const [z] = middle(cloud.z, cloud.n);
  const span = limitSpan((1 + BORDER) * (farthest(cloud, [x, y, z]) || 1));
  return { dims: 3, x, y, z, yaw: FIRST_YAW, pitch: FIRST_PITCH, span };
}

/** How far the farthest point is from a place, so that no turn moves it out of view. */
function farthest({ n, x, y, z }: Cloud, [atX, atY, atZ]: Axis): number {
  let most = 0;
  for (let i = 0; i < n; i++) {
    const away = Math.hypot((x[i] as number) - atX, (y[i] as number) - atY, (z[i] as number) - atZ);
    if (away > most && away < Number.POSITIVE_INFINITY) most = away;
  }
  return most;
}

/** Middle and half extent of the finite values. */
function middle(values: Float32Array, n: number): [number, number] {
  let low = Number.POSITIVE_INFINITY;
  let high = Number.NEGATIVE_INFINITY;
  for (let i = 0; i < n; i++) {
    const value = values[i] as number;
    if (value - value !== 0) continue; // NaN or infinite
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return low > high ? [0, 0] : [(low + high) / 2, (high - low) / 2];
}

/** Pixels of a map unit. */
export function scaleOf(camera: Camera, size: Size): number {
  return Math.max(1, Math.min(size.width, size.height)) / 2 / camera.span;
}

/** The screen's right, up and depth in map units, three numbers each. */
function axesOf(camera: Camera): readonly [Axis, Axis, Axis] {
  if (camera.dims === 2) return FLAT;
  const [cy, sy] = [Math.cos(camera.yaw), Math.sin(camera.yaw)];
  const [cp, sp] = [Math.cos(camera.pitch), Math.sin(camera.pitch)];
  return [
    [cy, 0, sy],
    [sp * sy, cp, -sp * cy],
    [cp * sy, -sp, -cp * cy],
  ];
}

type Axis = readonly [number, number, number];
const FLAT = [
  [1, 0, 0],
  [0, 1, 0],
  [0, 0, 0],
] as const satisfies readonly Axis[];

function centreOf(camera: Camera): Axis {
  return [camera.x, camera.y, camera.dims === 3 ? camera.z : 0];
}

/** Map units to clip space, 16 numbers by columns. Depth is in spans: let the shader bound it. */
export function toMatrix(camera: Camera, size: Size): Float32Array {
  const scale = scaleOf(camera, size);
  const factors = [
    (2 * scale) / Math.max(1, size.width),
    (2 * scale) / Math.max(1, size.height),
    1 / camera.span,
  ];
  const centre = centreOf(camera);
  const matrix = new Float32Array(16);
  axesOf(camera).forEach((axis, row) => {
    const factor = factors[row] as number;
    for (let column = 0; column < 3; column++) {
      matrix[4 * column + row] = factor * (axis[column] as number);
    }
    matrix[12 + row] = -factor * dot(axis, centre);
  });
  matrix[15] = 1;
  return matrix;
}

function dot(a: Axis, b: Axis): number {
  return a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
}

/** Where a place of the map is in the picture. */
export function project(camera: Camera, size: Size, x: number, y: number, z: number): Projected {
  const scale = scaleOf(camera, size);
  const centre = centreOf(camera);
  const from: Axis = [x - centre[0], y - centre[1], z - centre[2]];
  const [right, up, depth] = axesOf(camera);
  return {
    px: size.width / 2 + scale * dot(right, from),
    py: size.height / 2 - scale * dot(up, from),
    depth: dot(depth, from) / camera.span,
  };
}

/** All points' places in the picture: pairs of CSS pixels, and depths. */
export function projectAll(
  camera: Camera,
  size: Size,
  cloud: Cloud,
): { pixels: Float32Array; depths: Float32Array } {
  const matrix = toMatrix(camera, size);
  const at = (index: number) => matrix[index] as number;
  const [m0, m4, m8, m12] = [at(0), at(4), at(8), at(12)];
  const [m1, m5, m9, m13] = [at(1), at(5), at(9), at(13)];
  const [m2, m6, m10, m14] = [at(2), at(6), at(10), at(14)];
  const pixels = new Float32Array(2 * cloud.n);
  const depths = new Float32Array(cloud.n);
  for (let i = 0; i < cloud.n; i++) {
    const x = cloud.x[i] as number;
    const y = cloud.y[i] as number;
    const z = cloud.dims === 3 ? (cloud.z[i] as number) : 0;
    pixels[2 * i] = ((m0 * x + m4 * y + m8 * z + m12 + 1) * size.width) / 2;
    pixels[2 * i + 1] = ((1 - (m1 * x + m5 * y + m9 * z + m13)) * size.height) / 2;
    depths[i] = m2 * x + m6 * y + m10 * z + m14;
  }
  return { pixels, depths };
}

/** The place of the map at a pixel; in 3-D on the plane through the camera's centre. */
export function unproject(camera: Camera, size: Size, px: number, py: number): Axis {
  const scale = scaleOf(camera, size);
  return along(camera, (px - size.width / 2) / scale, (size.height / 2 - py) / scale);
}

/** Centre moved by map units to the right and up of the screen. */
function along(camera: Camera, toRight: number, toTop: number): Axis {
  const centre = centreOf(camera);
  const [right, up] = axesOf(camera);
  const moved = (i: 0 | 1 | 2) => centre[i] + toRight * right[i] + toTop * up[i];
  return [moved(0), moved(1), moved(2)];
}

/** Moved so that what was under the pointer stays under it after it went (dx, dy) pixels. */
export function panBy<C extends Camera>(camera: C, size: Size, dx: number, dy: number): C {
  const scale = scaleOf(camera, size);
  return moveTo(camera, along(camera, -dx / scale, dy / scale));
}

function moveTo<C extends Camera>(camera: C, [x, y, z]: Axis): C {
  return camera.dims === 3 ? { ...camera, x, y, z } : { ...camera, x, y };
}

/** Zoomed in (`factor` above 1) or out, with what is at the pixel kept there. */
export function zoomAt<C extends Camera>(
  camera: C,
  size: Size,
  px: number,
  py: number,
  factor: number,
): C {
  const span = limitSpan(camera.span / factor);
  const part = 1 - span / camera.span;
  const scale = scaleOf(camera, size);
  const toRight = (part * (px - size.width / 2)) / scale;
  const toTop = (part * (size.height / 2 - py)) / scale;
  return { ...moveTo(camera, along(camera, toRight, toTop)), span };
}

function limitSpan(span: number): number {
  return Math.min(LARGEST_SPAN, Math.max(SMALLEST_SPAN, span));
}

/** Turned by a drag of (dx, dy) pixels; never over the poles. */
export function orbitBy(camera: Camera3, dx: number, dy: number): Camera3 {
  const pitch = camera.pitch + dy * RADIANS_A_PIXEL;
  return {
    ...camera,
    yaw: (camera.yaw + dx * RADIANS_A_PIXEL) % (2 * Math.PI),
    pitch: Math.min(Math.PI / 2, Math.max(-Math.PI / 2, pitch)),
  };
}

/** What is in view in map units: [x0, x1, y0, y1]. */
export function boxOf(camera: Camera2, size: Size): [number, number, number, number] {
  const scale = scaleOf(camera, size);
  const [halfX, halfY] = [size.width / 2 / scale, size.height / 2 / scale];
  return [camera.x - halfX, camera.x + halfX, camera.y - halfY, camera.y + halfY];
}

/** `x,y,span` in 2-D, `x,y,z,yaw,pitch,span` in 3-D. */
export function writeCamera(camera: Camera): string {
  const round = (value: number) => Number(value.toPrecision(DIGITS));
  const span = round(camera.span);
  const centre = centreOf(camera).map((value) => roundWithin(value, span));
  const numbers =
    camera.dims === 2
      ? [...centre.slice(0, 2), span]
      : [...centre, round(camera.yaw), round(camera.pitch), span];
  return numbers.join(",");
}

/** A coordinate to a small part of a pixel where a picture shows `span`, however far from 0. */
export function roundWithin(value: number, span: number): number {
  const decimals = Math.ceil(DECIMALS - Math.log10(span));
  if (decimals < 0) return Math.round(value);
  return Number(value.toFixed(Math.min(MOST_DECIMALS, decimals)));
}

/** The camera that such a text tells; null where it is malformed or of other dimensions. */
export function readCamera(text: string, dims: number): Camera | null {
  const numbers = text.split(",").map((part) => (part.trim() === "" ? Number.NaN : Number(part)));
  if (!numbers.every(Number.isFinite) || numbers.length !== (dims === 3 ? 6 : 3)) return null;
  const at = (index: number) => numbers[index] as number;
  const span = at(numbers.length - 1);
  if (!(span > 0)) return null;
  if (dims !== 3) return { dims: 2, x: at(0), y: at(1), span: limitSpan(span) };
  const pitch = Math.min(Math.PI / 2, Math.max(-Math.PI / 2, at(4)));
  return { dims: 3, x: at(0), y: at(1), z: at(2), yaw: at(3), pitch, span: limitSpan(span) };
}
