/** Which points are under the pointer or in a lasso, found on the CPU. */

import { type Camera, type Cloud, projectAll, type Size, scaleOf, unproject } from "./camera";

/** Answers where the points of one cloud are; indices as in the cloud. */
export interface Picker {
  /** The point nearest to a pixel within a radius of CSS pixels; −1 for none. */
  nearest(camera: Camera, size: Size, px: number, py: number, radius: number): number;
  /** The points within a polygon of pixels x0, y0, x1, y1, …, ascending. */
  inPolygon(camera: Camera, size: Size, corners: readonly number[]): number[];
  /** The points within a polygon of map units, by x and y alone, ascending. */
  inMapPolygon(corners: readonly number[]): number[];
}

/** A picker over a cloud; what it needs is built at the first question. */
export function makePicker(cloud: Cloud): Picker {
  return cloud.dims === 2 ? new FlatPicker(cloud) : new DeepPicker(cloud);
}

const POINTS_A_CELL = 4;
const MOST_CELLS_A_SIDE = 1024;

/** Points by square cells: those of cell c are `order[starts[c]]` to `order[starts[c + 1]]`. */
interface Grid {
  readonly x0: number;
  readonly y0: number;
  readonly cell: number;
  readonly columns: number;
  readonly rows: number;
  readonly starts: Uint32Array;
  readonly order: Uint32Array;
}

class FlatPicker implements Picker {
  #grid: Grid | null = null;

  constructor(private readonly cloud: Cloud) {}

  nearest(camera: Camera, size: Size, px: number, py: number, radius: number): number {
    this.#grid ??= makeGrid(this.cloud);
    const [x, y] = unproject(camera, size, px, py);
    return nearestIn(this.#grid, this.cloud, x, y, radius / scaleOf(camera, size));
  }

  inPolygon(camera: Camera, size: Size, corners: readonly number[]): number[] {
    const places: number[] = [];
    for (let i = 0; i + 1 < corners.length; i += 2) {
      const [x, y] = unproject(camera, size, corners[i] as number, corners[i + 1] as number);
      places.push(x, y);
    }
    return this.inMapPolygon(places);
  }

  inMapPolygon(corners: readonly number[]): number[] {
    const { n, x, y } = this.cloud;
    return within(
      corners,
      n,
      (i) => x[i] as number,
      (i) => y[i] as number,
    );
  }
}

/** In 3-D the picture changes with each turn, so all points are projected, once a camera. */
class DeepPicker implements Picker {
  #seen: { camera: Camera; width: number; height: number } | null = null;
  #pixels: Float32Array = new Float32Array(0);
  #depths: Float32Array = new Float32Array(0);

  constructor(private readonly cloud: Cloud) {}

  nearest(camera: Camera, size: Size, px: number, py: number, radius: number): number {
    this.#look(camera, size);
    let found = -1;
    let least = radius * radius;
    for (let i = 0; i < this.cloud.n; i++) {
      const dx = (this.#pixels[2 * i] as number) - px;
      const dy = (this.#pixels[2 * i + 1] as number) - py;
      const away = dx * dx + dy * dy;
      // Of points at the same pixel the one in front is seen.
      const isCloser = away < least - 0.5;
      const isInFront =
        away <= least &&
        (found < 0 || (this.#depths[i] as number) < (this.#depths[found] as number));
      if (!isCloser && !isInFront) continue;
      found = i;
      least = Math.min(least, away);
    }
    return found;
  }

  inPolygon(camera: Camera, size: Size, corners: readonly number[]): number[] {
    this.#look(camera, size);
    const pixels = this.#pixels;
    const x = (i: number) => pixels[2 * i] as number;
    const y = (i: number) => pixels[2 * i + 1] as number;
    return within(corners, this.cloud.n, x, y);
  }

  inMapPolygon(corners: readonly number[]): number[] {
    const { n, x, y } = this.cloud;
    return within(
      corners,
      n,
      (i) => x[i] as number,
      (i) => y[i] as number,
    );
  }

  #look(camera: Camera, size: Size): void {
    const { width, height } = size;
    const seen = this.#seen;
    if (seen?.camera === camera && seen.width === width && seen.height === height) return;
    const { pixels, depths } = projectAll(camera, size, this.cloud);
    this.#pixels = pixels;
    this.#depths = depths;
    this.#seen = { camera, width, height };
  }
}

/** The grid of a cloud by a counting sort; points that are nowhere (NaN) are in no cell. */
function makeGrid(cloud: Cloud): Grid {
  const [x0, x1] = boundsOf(cloud.x, cloud.n);
  const [y0, y1] = boundsOf(cloud.y, cloud.n);
  const side = Math.min(MOST_CELLS_A_SIDE, Math.ceil(Math.sqrt(cloud.n / POINTS_A_CELL)) || 1);
  const cell = Math.max(x1 - x0, y1 - y0) / side || 1;
  const columns = Math.floor((x1 - x0) / cell) + 1;
  const rows = Math.floor((y1 - y0) / cell) + 1;
  const cellOf = (i: number) => {
    const column = Math.floor(((cloud.x[i] as number) - x0) / cell);
    const row = Math.floor(((cloud.y[i] as number) - y0) / cell);
    // Infinite and NaN are in no cell.
    return column < columns && row < rows ? row * columns + column : -1;
  };
  const starts = new Uint32Array(columns * rows + 1);
  for (let i = 0; i < cloud.n; i++) {
    const at = cellOf(i);
    if (at >= 0) starts[at + 1] = (starts[at + 1] as number) + 1;
  }
  for (let c = 0; c < columns * rows; c++) {
    starts[c + 1] = (starts[c + 1] as number) + (starts[c] as number);
  }
  const order = new Uint32Array(starts[columns * rows] as number);
  const next = starts.slice();
  for (let i = 0; i < cloud.n; i++) {
    const at = cellOf(i);
    if (at < 0) continue;
    const place = next[at] as number;
    order[place] = i;
    next[at] = place + 1;
  }
  return { x0, y0, cell, columns, rows, starts, order };
}

function boundsOf(values: Float32Array, n: number): [number, number] {
  let low = Number.POSITIVE_INFINITY;
  let high = Number.NEGATIVE_INFINITY;
  for (let i = 0; i < n; i++) {
    const value = values[i] as number;
    if (value - value !== 0) continue; // NaN or infinite
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return low > high ? [0, 0] : [low, high];
}

function nearestIn(grid: Grid, cloud: Cloud, x: number, y: number, radius: number): number {
  const { x0, y0, cell, columns, rows, starts, order } = grid;
  const first = (value: number, low: number) => Math.max(0, Math.floor((value - low) / cell));
  const [left, right] = [first(x - radius, x0), Math.min(columns - 1, first(x + radius, x0))];
  const [bottom, top] = [first(y - radius, y0), Math.min(rows - 1, first(y + radius, y0))];
  let found = -1;
  let least = radius * radius;
  for (let row = bottom; row <= top; row++) {
    const end = starts[row * columns + right + 1] as number;
    for (let k = starts[row * columns + left] as number; k < end; k++) {
      const i = order[k] as number;
      const dx = (cloud.x[i] as number) - x;
      const dy = (cloud.y[i] as number) - y;
      const away = dx * dx + dy * dy;
      // Of points at the same place the last is drawn on top.
      if (away > least || (away === least && i < found)) continue;
      least = away;
      found = i;
    }
  }
  return found;
}

/** Indices of the points within a polygon, by the even-odd rule. */
function within(
  corners: readonly number[],
  n: number,
  xOf: (i: number) => number,
  yOf: (i: number) => number,
): number[] {
  if (corners.length < 6) return [];
  const xs = corners.filter((_, i) => i % 2 === 0);
  const ys = corners.filter((_, i) => i % 2 === 1);
  const [left, right] = [Math.min(...xs), Math.max(...xs)];
  const [low, high] = [Math.min(...ys), Math.max(...ys)];
  const found: number[] = [];
  for (let i = 0; i < n; i++) {
    const x = xOf(i);
    const y = yOf(i);
    if (x < left || x > right || y < low || y > high) continue;
    if (isInside(xs, ys, x, y)) found.push(i);
  }
  return found;
}

function isInside(xs: readonly number[], ys: readonly number[], x: number, y: number): boolean {
  let inside = false;
  const last = Math.min(xs.length, ys.length) - 1;
  for (let a = 0, b = last; a <= last; b = a++) {
    const [ya, yb] = [ys[a] as number, ys[b] as number];
    if (ya > y === yb > y) continue;
    const [xa, xb] = [xs[a] as number, xs[b] as number];
    if (x < xa + ((y - ya) / (yb - ya)) * (xb - xa)) inside = !inside;
  }
  return inside;
}
