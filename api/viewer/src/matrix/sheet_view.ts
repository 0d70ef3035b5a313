/** Which part of the grid of cells is in sight: pure geometry of pan and zoom. */

import type { Size } from "../draw/camera";

/** Where the first cell's corner lies, and how wide a cell is; CSS pixels of the viewport. */
export interface SheetView {
  readonly left: number;
  readonly top: number;
  readonly cell: number;
}

/** The part in sight as any screen can show it. */
export interface SheetPart {
  /** What lies in the middle of the viewport, in cells from the sheet's corner. */
  readonly column: number;
  readonly row: number;
  /** Width of a cell; 1 where all cells just fit. */
  readonly zoom: number;
}

/** How many cells there are each way. */
export interface Extent {
  readonly nColumns: number;
  readonly nRows: number;
}

const WIDEST_FITTED = 220;
const NARROWEST = 4;
/** Of the shorter side of the viewport: a cell that wide is as large as a map of its own. */
const LARGEST = 0.9;

/** All cells in sight, as large as they can be. */
export function fitSheet(extent: Extent, size: Size): SheetView {
  const wide = size.width / Math.max(1, extent.nColumns);
  const high = size.height / Math.max(1, extent.nRows);
  const cell = Math.max(NARROWEST, Math.min(wide, high, WIDEST_FITTED));
  return { left: 0, top: 0, cell };
}

/** The part that a view shows; null for all cells as they are fitted. */
export function partOf(view: SheetView, extent: Extent, size: Size): SheetPart | null {
  const whole = fitSheet(extent, size);
  const isLike = (a: number, b: number) => Math.abs(a - b) < 0.01;
  const isPlaced = isLike(view.left, whole.left) && isLike(view.top, whole.top);
  if (isPlaced && isLike(view.cell, whole.cell)) return null;
  return {
    column: (size.width / 2 - view.left) / view.cell,
    row: (size.height / 2 - view.top) / view.cell,
    zoom: view.cell / whole.cell,
  };
}

/** The view that shows a part, or as much like it as the screen can; all cells for null. */
export function viewOf(part: SheetPart | null, extent: Extent, size: Size): SheetView {
  const whole = fitSheet(extent, size);
  if (part === null) return whole;
  const cell = clamp(part.zoom * whole.cell, whole.cell, largestCell(extent, size));
  const left = size.width / 2 - part.column * cell;
  const top = size.height / 2 - part.row * cell;
  return keepInSight({ left, top, cell }, extent, size);
}

/** `column,row,zoom` for the address; empty for all cells. */
export function writePart(part: SheetPart | null): string {
  if (part === null) return "";
  return [part.column, part.row, part.zoom].map((value) => Number(value.toFixed(4))).join(",");
}

/** The part that such a text names; null for all cells, as for what is malformed. */
export function readPart(text: string): SheetPart | null {
  if (!/^-?[\d.]+,-?[\d.]+,[\d.]+$/.test(text)) return null;
  const [column = Number.NaN, row = Number.NaN, zoom = Number.NaN] = text.split(",").map(Number);
  return Number.isFinite(column + row + zoom) && zoom > 0 ? { column, row, zoom } : null;
}

/** How large a cell can get. */
export function largestCell(extent: Extent, size: Size): number {
  return Math.max(fitSheet(extent, size).cell, LARGEST * Math.min(size.width, size.height));
}

/** Zoom by a factor so that what is under a point of the viewport stays there. */
export function zoomSheet(
  view: SheetView,
  extent: Extent,
  size: Size,
  at: { readonly px: number; readonly py: number },
  factor: number,
): SheetView {
  const least = fitSheet(extent, size).cell;
  const cell = clamp(view.cell * factor, least, largestCell(extent, size));
  const scale = cell / view.cell;
  const left = at.px - (at.px - view.left) * scale;
  const top = at.py - (at.py - view.top) * scale;
  return keepInSight({ left, top, cell }, extent, size);
}

/** Move by pixels, never out of sight. */
export function panSheet(
  view: SheetView,
  extent: Extent,
  size: Size,
  dx: number,
  dy: number,
): SheetView {
  return keepInSight({ ...view, left: view.left + dx, top: view.top + dy }, extent, size);
}

/** The nearest view that shows as much of the sheet as fits, its cells no smaller than fitted. */
export function keepInSight(view: SheetView, extent: Extent, size: Size): SheetView {
  const cell = clamp(view.cell, fitSheet(extent, size).cell, largestCell(extent, size));
  const left = clamp(view.left, Math.min(0, size.width - extent.nColumns * cell), 0);
  const top = clamp(view.top, Math.min(0, size.height - extent.nRows * cell), 0);
  return { left, top, cell };
}

/** The view moved as little as it takes to show a cell whole. */
export function revealCell(
  view: SheetView,
  extent: Extent,
  size: Size,
  column: number,
  row: number,
): SheetView {
  const across = shiftInto(view.left + column * view.cell, view.cell, size.width);
  const down = shiftInto(view.top + row * view.cell, view.cell, size.height);
  return panSheet(view, extent, size, across, down);
}

/** Column and row of the cell at a point of the viewport; null beside the sheet. */
export function cellAt(
  view: SheetView,
  extent: Extent,
  px: number,
  py: number,
): { readonly column: number; readonly row: number } | null {
  const column = Math.floor((px - view.left) / view.cell);
  const row = Math.floor((py - view.top) / view.cell);
  const isInside = column >= 0 && column < extent.nColumns && row >= 0 && row < extent.nRows;
  return isInside ? { column, row } : null;
}

/** How far something must move to lie within a side; its start counts where it is longer. */
function shiftInto(start: number, length: number, side: number): number {
  if (start < 0) return -start;
  return Math.min(0, Math.max(side - start - length, -start));
}

function clamp(value: number, low: number, high: number): number {
  return Math.min(Math.max(value, low), high);
}
