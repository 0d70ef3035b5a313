/** One map on its two canvases: drawn again, once a frame, only when something changed. */

import { type Camera, fitCamera, project, type Size } from "../draw/camera";
import { makePicker, type Picker } from "../draw/grid";
import { placeLabels } from "../draw/labels";
import { Overlay } from "../draw/overlay";
import { Pace } from "../draw/pace";
import { PointsGL } from "../draw/points_gl";
import { zoomedDiameter } from "./diameters";
import { chooseLabels } from "./label_choice";
import type { DrawnLine } from "./lines";
import type { Drawn } from "./pane";

/** Colours of what lies over the points, as the style sheet has them. */
export interface Inks {
  readonly ink: string;
  readonly halo: string;
  readonly accent: string;
}

/** Patches that stand for points: all in one picture, and u0, v0, u1, v1 of each. */
export interface Sprites {
  readonly bitmap: ImageBitmap;
  readonly uv: Float32Array;
}

const RING_PX = 3;
/** Rest of the camera after which all points are drawn again. */
const REST_MS = 150;
/** A patch needs more room than a disc to be recognised. */
const SPRITE_FACTOR = 3;
const LEAST_SPRITE_PX = 12;

/** Draws one map; its owner says what changed and never when to draw. */
export class Scene {
  /** Called after each frame that has all points. */
  onFrame: () => void = () => {};

  readonly #points: PointsGL;
  readonly #overlay: Overlay;
  #drawn: Drawn | null = null;
  #whole: Camera | null = null;
  #picker: Picker | null = null;
  #camera: Camera | null = null;
  #size: Size = { width: 0, height: 0 };
  #marked: Uint8Array | null = null;
  #lines: readonly DrawnLine[] = [];
  #rings: readonly number[] = [];
  #outline: readonly number[] = [];
  #inks: Inks = { ink: "#000", halo: "#fff", accent: "#000" };
  #hasLabels = false;
  #hasSprites = false;
  #frame = 0;
  readonly #pace = new Pace();
  #isMoving = false;
  #rest: ReturnType<typeof setTimeout> | undefined;

  constructor(canvas: HTMLCanvasElement, over: HTMLCanvasElement) {
    this.#points = new PointsGL(canvas);
    this.#points.onRestored = () => this.#ask();
    this.#overlay = new Overlay(over);
  }

  /** Points with their colours and sizes; what was marked is forgotten. */
  show(drawn: Drawn, rgba: Uint8Array): void {
    if (this.#drawn?.points !== drawn.points) {
      this.#points.setCloud(drawn.points);
      this.#picker = makePicker(drawn.points);
      if (drawn.part.box === null) this.#whole = fitCamera(drawn.points);
      this.#marked = null;
      this.#lines = [];
      this.#rings = [];
    }
    this.#drawn = drawn;
    this.#points.setColours(rgba);
    this.#points.setShapes(drawn.colouring.usesKind ? null : drawn.points.isQuery);
    this.#ask();
  }

  /** Show nothing. */
  clear(): void {
    this.#points.setCloud(NOTHING);
    this.#drawn = null;
    this.#picker = null;
    this.#ask();
  }

  /** The camera that shows all points; null while there are none. */
  get whole(): Camera | null {
    return this.#whole;
  }

  setSprites(sprites: Sprites | null): void {
    this.#points.setSprites(sprites?.bitmap ?? null, sprites?.uv ?? null);
    this.#hasSprites = sprites !== null;
    this.#ask();
  }

  setView(camera: Camera | null, size: Size): void {
    if (camera !== this.#camera) this.#move();
    this.#camera = camera;
    this.#size = size;
    this.#ask();
  }

  /** While the camera moves on a slow machine, fewer points are drawn. */
  #move(): void {
    clearTimeout(this.#rest);
    this.#isMoving = true;
    this.#rest = setTimeout(() => {
      this.#isMoving = false;
      this.#pace.rest();
      this.#ask();
    }, REST_MS);
  }

  setMarked(marked: Uint8Array | null): void {
    this.#marked = marked;
    this.#points.setMarked(marked);
    this.#ask();
  }

  setLines(lines: readonly DrawnLine[]): void {
    this.#lines = lines;
    this.#ask();
  }

  /** Indices of the points to ring. */
  setRings(rings: readonly number[]): void {
    if (rings.length === 0 && this.#rings.length === 0) return;
    this.#rings = rings;
    this.#ask();
  }

  /** The outline being drawn, as pairs of pixels. */
  setOutline(corners: readonly number[]): void {
    this.#outline = corners;
    this.#ask();
  }

  setLabels(hasLabels: boolean): void {
    this.#hasLabels = hasLabels;
    this.#ask();
  }

  setInks(inks: Inks): void {
    this.#inks = inks;
    this.#ask();
  }

  /** The point at a pixel; −1 for none. */
  pick(px: number, py: number, radius: number): number {
    if (!this.#picker || !this.#camera) return -1;
    return this.#picker.nearest(this.#camera, this.#size, px, py, radius);
  }

  /** What finds points in outlines; null while there are none. */
  get picker(): Picker | null {
    return this.#picker;
  }

  /** Draw again, and so call `onFrame`. */
  redraw(): void {
    this.#ask();
  }

  /** End drawing and free what the graphics side holds. */
  dispose(): void {
    cancelAnimationFrame(this.#frame);
    clearTimeout(this.#rest);
    this.#points.dispose();
  }

  #ask(): void {
    if (this.#frame !== 0) return;
    this.#frame = requestAnimationFrame((now) => {
      this.#frame = 0;
      const n = this.#drawn?.points.n ?? 0;
      const count = this.#isMoving ? this.#pace.count(n) : n;
      if (this.#isMoving) this.#pace.note(now, count);
      this.#draw(count);
      if (count === n) this.onFrame();
    });
  }

  #draw(count: number): void {
    const camera = this.#camera;
    this.#overlay.begin(this.#size);
    if (!this.#drawn || !camera || camera.dims !== this.#drawn.points.dims) {
      this.#points.draw(camera ?? NOWHERE, this.#size, 0); // wipes what stood there
      return;
    }
    this.#points.setDiameters(this.#diameters(camera, this.#drawn));
    this.#points.draw(camera, this.#size, count);
    this.#drawLines(camera, this.#drawn);
    if (this.#hasLabels) this.#drawLabels(camera, this.#drawn);
    this.#drawRings(camera, this.#drawn);
    if (this.#outline.length >= 4) this.#overlay.polygon(this.#outline, this.#inks.accent);
  }

  #lastDiameters: Float32Array | number = 0;

  #diameters(camera: Camera, drawn: Drawn): Float32Array | number {
    if (drawn.diameters) return this.#sized(drawn.diameters);
    const zoom = this.#whole ? this.#whole.span / camera.span : 1;
    const diameter = zoomedDiameter(drawn.points.n, zoom);
    return this.#sized(
      this.#hasSprites ? Math.max(LEAST_SPRITE_PX, SPRITE_FACTOR * diameter) : diameter,
    );
  }

  #sized(diameters: Float32Array | number): Float32Array | number {
    this.#lastDiameters = diameters;
    return diameters;
  }

  #drawLines(camera: Camera, { points }: Drawn): void {
    for (const { query, key, weight } of this.#lines) {
      const from = this.#place(camera, points, query);
      const to = this.#place(camera, points, key);
      this.#overlay.line(from.px, from.py, to.px, to.py, this.#inks.ink, weight, 1.2);
    }
  }

  #drawLabels(camera: Camera, { points }: Drawn): void {
    const candidates = chooseLabels(points, this.#marked, camera, this.#size);
    const measure = (text: string) => this.#overlay.measure(text);
    for (const label of placeLabels(candidates, this.#size, measure)) {
      this.#overlay.label(label.x, label.y, label.text, this.#inks.ink, this.#inks.halo);
    }
  }

  #drawRings(camera: Camera, { points }: Drawn): void {
    for (const index of this.#rings) {
      const { px, py } = this.#place(camera, points, index);
      const last = this.#lastDiameters;
      const diameter = typeof last === "number" ? last : (last[index] ?? 0);
      this.#overlay.ring(px, py, diameter / 2 + RING_PX, this.#inks.accent);
    }
  }

  #place(camera: Camera, points: Drawn["points"], i: number) {
    return project(camera, this.#size, points.x[i] ?? 0, points.y[i] ?? 0, points.z[i] ?? 0);
  }
}

const EMPTY = new Float32Array(0);
const NOWHERE: Camera = { dims: 2, x: 0, y: 0, span: 1 };
const NOTHING = { n: 0, dims: 2, x: EMPTY, y: EMPTY, z: EMPTY } as const;
