/** Pointer and wheel on a map: pan, orbit, zoom, pinch, box and lasso, hover and click. */

import { type Camera, orbitBy, panBy, type Size, zoomAt } from "../draw/camera";
import { boxCorners } from "./polygon";

/** What dragging does, once Shift and Alt have had their say. */
export type Tool = "move" | "box" | "lasso";

/** What gestures act on. */
export interface GestureHost {
  readonly camera: () => Camera | null;
  readonly moveTo: (camera: Camera) => void;
  readonly size: () => Size;
  readonly tool: () => Tool;
  /** The outline being drawn; empty for none, as after Escape. */
  readonly outline: () => readonly number[];
  readonly setOutline: (corners: readonly number[]) => void;
  readonly finishOutline: (corners: readonly number[]) => void;
  /** Null where the pointer left. */
  readonly hover: (at: Pixel | null) => void;
  readonly click: (at: Pixel) => void;
  readonly reset: () => void;
}

/** CSS pixels from the upper left of the map. */
export interface Pixel {
  readonly x: number;
  readonly y: number;
}

/** Less than this is a click by a hand that shakes. */
const LEAST_DRAG_PX = 4;
const LEAST_STEP_PX = 4;
const ZOOM_A_PIXEL = 0.0015;
const PIXELS_A_LINE = 20;
const MOST_PIXELS_A_TURN = 300;

/** Listen on an element; returns what ends that. */
export function listenGestures(element: HTMLElement, host: GestureHost): () => void {
  const controller = new AbortController();
  const gestures = new Gestures(element, host);
  const on = <Name extends keyof HTMLElementEventMap>(
    name: Name,
    run: (event: HTMLElementEventMap[Name]) => void,
  ) => element.addEventListener(name, run, { signal: controller.signal, passive: false });
  on("pointerdown", (event) => gestures.press(event));
  on("pointermove", (event) => gestures.move(event));
  on("pointerup", (event) => gestures.release(event, true));
  on("pointercancel", (event) => gestures.release(event, false));
  on("pointerleave", () => host.hover(null));
  on("wheel", (event) => gestures.turn(event));
  on("dblclick", () => host.reset());
  return () => controller.abort();
}

class Gestures {
  readonly #pressed = new Map<number, Pixel>();
  #start: Pixel = { x: 0, y: 0 };
  #isDrag = false;
  #tool: Tool | "pan" = "move";

  constructor(
    private readonly element: HTMLElement,
    private readonly host: GestureHost,
  ) {}

  press(event: PointerEvent): void {
    if (event.button > 1) return;
    const at = this.#pixel(event);
    this.element.setPointerCapture(event.pointerId);
    this.#pressed.set(event.pointerId, at);
    this.host.hover(null);
    if (this.#pressed.size > 1) {
      this.#isDrag = true; // two fingers never click
      this.host.setOutline([]);
      this.#tool = "move";
      return;
    }
    this.#start = at;
    this.#isDrag = false;
    this.#tool = chooseTool(event, this.host.tool());
    if (this.#tool === "box" || this.#tool === "lasso") this.host.setOutline([at.x, at.y]);
  }

  move(event: PointerEvent): void {
    const at = this.#pixel(event);
    const before = this.#pressed.get(event.pointerId);
    if (!before) {
      if (event.pointerType !== "touch") this.host.hover(at);
      return;
    }
    if (distance(at, this.#start) >= LEAST_DRAG_PX) this.#isDrag = true;
    if (!this.#isDrag) return;
    if (this.#pressed.size > 1) this.#pinch(event.pointerId, before, at);
    else this.#drag(before, at);
    if (this.#tool !== "lasso" || distance(at, before) >= LEAST_STEP_PX) {
      this.#pressed.set(event.pointerId, at);
    }
  }

  release(event: PointerEvent, isDone: boolean): void {
    if (!this.#pressed.delete(event.pointerId)) return;
    const outline = this.host.outline();
    this.host.setOutline([]);
    if (!isDone || this.#pressed.size > 0) return;
    if (!this.#isDrag) this.host.click(this.#pixel(event));
    else if (outline.length >= 6) this.host.finishOutline(outline);
  }

  turn(event: WheelEvent): void {
    event.preventDefault();
    const camera = this.host.camera();
    if (!camera) return;
    const pixels = event.deltaMode === 0 ? event.deltaY : event.deltaY * PIXELS_A_LINE;
    const bounded = Math.max(-MOST_PIXELS_A_TURN, Math.min(MOST_PIXELS_A_TURN, pixels));
    const { x, y } = this.#pixel(event);
    this.host.moveTo(zoomAt(camera, this.host.size(), x, y, Math.exp(-bounded * ZOOM_A_PIXEL)));
  }

  #drag(before: Pixel, at: Pixel): void {
    if (this.#tool === "box" || this.#tool === "lasso") {
      this.#draw(before, at);
      return;
    }
    const camera = this.host.camera();
    if (!camera) return;
    const [dx, dy] = [at.x - before.x, at.y - before.y];
    const isOrbit = camera.dims === 3 && this.#tool !== "pan";
    this.host.moveTo(isOrbit ? orbitBy(camera, dx, dy) : panBy(camera, this.host.size(), dx, dy));
  }

  #draw(before: Pixel, at: Pixel): void {
    const outline = this.host.outline();
    if (outline.length === 0) return; // given up by Escape
    if (this.#tool === "box") {
      this.host.setOutline(boxCorners(this.#start.x, this.#start.y, at.x, at.y));
    } else if (distance(at, before) >= LEAST_STEP_PX) {
      this.host.setOutline([...outline, at.x, at.y]);
    }
  }

  /** Two fingers: what is between them stays between them. */
  #pinch(id: number, before: Pixel, at: Pixel): void {
    const camera = this.host.camera();
    const other = [...this.#pressed].find(([key]) => key !== id)?.[1];
    if (!camera || !other) return;
    const size = this.host.size();
    const factor = distance(at, other) / Math.max(1, distance(before, other));
    const middle = { x: (at.x + other.x) / 2, y: (at.y + other.y) / 2 };
    const moved = panBy(camera, size, (at.x - before.x) / 2, (at.y - before.y) / 2);
    this.host.moveTo(zoomAt(moved, size, middle.x, middle.y, Math.max(0.2, Math.min(5, factor))));
  }

  #pixel(event: MouseEvent): Pixel {
    const { left, top } = this.element.getBoundingClientRect();
    return { x: event.clientX - left, y: event.clientY - top };
  }
}

function chooseTool(event: PointerEvent, tool: Tool): Tool | "pan" {
  if (event.shiftKey) return "box";
  if (event.altKey) return "lasso";
  return event.ctrlKey || event.metaKey || event.button === 1 ? "pan" : tool;
}

function distance(a: Pixel, b: Pixel): number {
  return Math.hypot(a.x - b.x, a.y - b.y);
}
