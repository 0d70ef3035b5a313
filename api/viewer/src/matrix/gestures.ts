/** Wheel, drag and pinch over the cells. */

import { cellAt, largestCell } from "./sheet_view";
import type { Stage } from "./stage";

/** What gestures lead to beyond moving the stage. */
export interface Leads {
  /** The pointer is over a cell, or over none. */
  readonly hover: (column: number, row: number, px: number, py: number) => void;
  readonly leave: () => void;
  readonly open: (column: number, row: number) => void;
}

const CLICK_PIXELS = 4;
const PIXELS_A_LINE = 16;

/** Listen on the stage's viewport; returns what ends that. */
export function followGestures(stage: Stage, leads: Leads): () => void {
  const { viewport } = stage.parts;
  const pointers = new Map<number, PointerEvent>();
  let moved = 0;

  const wheel = (event: WheelEvent) => {
    event.preventDefault();
    const { px, py } = locate(event, viewport);
    const delta = event.deltaY * (event.deltaMode === 1 ? PIXELS_A_LINE : 1);
    const factor = Math.exp(-delta * (event.ctrlKey ? 0.01 : 0.0018));
    const isLargest = stage.view.cell >= 0.999 * largestCell(stage.extent, stage.size);
    if (factor > 1 && isLargest) openAt(px, py);
    else stage.zoom(px, py, factor);
  };
  const openAt = (px: number, py: number) => {
    const at = cellAt(stage.view, stage.extent, px, py);
    if (!at) return;
    // Coming back shows the cell among others, not at the edge of being entered again.
    stage.zoom(px, py, 0.5);
    leads.open(at.column, at.row);
  };
  const press = (event: PointerEvent) => {
    if (event.button !== 0) return;
    if (pointers.size === 0) moved = 0;
    pointers.set(event.pointerId, event);
  };
  const move = (event: PointerEvent) => {
    const before = pointers.get(event.pointerId);
    if (before) {
      drag(before, event);
      pointers.set(event.pointerId, event);
      return;
    }
    const { px, py } = locate(event, viewport);
    const at = cellAt(stage.view, stage.extent, px, py);
    if (at) leads.hover(at.column, at.row, px, py);
    else leads.leave();
  };
  const drag = (before: PointerEvent, event: PointerEvent) => {
    const [dx, dy] = [event.clientX - before.clientX, event.clientY - before.clientY];
    moved += Math.abs(dx) + Math.abs(dy);
    if (moved <= CLICK_PIXELS) return;
    if (!viewport.hasPointerCapture(event.pointerId)) viewport.setPointerCapture(event.pointerId);
    leads.leave();
    const other = [...pointers.values()].find((one) => one.pointerId !== event.pointerId);
    if (other) pinch(other, before, event);
    else stage.pan(dx, dy);
  };
  const pinch = (still: PointerEvent, before: PointerEvent, event: PointerEvent) => {
    const reach = (one: PointerEvent) =>
      Math.hypot(one.clientX - still.clientX, one.clientY - still.clientY);
    const { px, py } = locate(still, viewport);
    stage.zoom(px, py, reach(event) / Math.max(1, reach(before)));
  };
  const release = (event: PointerEvent) => {
    pointers.delete(event.pointerId);
  };
  // A drag that ends over a cell is no click on it.
  const click = (event: MouseEvent) => {
    if (moved <= CLICK_PIXELS || event.detail === 0) return;
    event.stopPropagation();
    moved = 0;
  };
  // The browser scrolls what has the focus into sight; the stage does that itself.
  const scroll = () => viewport.scrollTo(0, 0);
  const leave = (event: PointerEvent) => {
    if (!viewport.hasPointerCapture(event.pointerId)) pointers.delete(event.pointerId);
    leads.leave();
  };

  const stops = [
    listen(viewport, "wheel", wheel, { passive: false }),
    listen(viewport, "pointerdown", press),
    listen(viewport, "pointermove", move),
    listen(viewport, "pointerup", release),
    listen(viewport, "pointercancel", release),
    listen(viewport, "pointerleave", leave),
    listen(viewport, "click", click, { capture: true }),
    listen(viewport, "scroll", scroll),
  ];
  return () => {
    for (const stop of stops) stop();
  };
}

function listen<Name extends keyof HTMLElementEventMap>(
  element: HTMLElement,
  name: Name,
  run: (event: HTMLElementEventMap[Name]) => void,
  options: AddEventListenerOptions = {},
): () => void {
  element.addEventListener(name, run, options);
  return () => element.removeEventListener(name, run, options);
}

function locate(event: MouseEvent, viewport: HTMLElement): { px: number; py: number } {
  const { left, top } = viewport.getBoundingClientRect();
  return { px: event.clientX - left, py: event.clientY - top };
}
