/** The drawn part of the matrix: one canvas, and the cells' elements that lie beneath it. */

import type { Matrix } from "../contract/atlas";
import type { Size } from "../draw/camera";
import { MatrixGL } from "./matrix_gl";
import type { Sheet } from "./order";
import {
  type Extent,
  panSheet,
  partOf,
  revealCell,
  type SheetPart,
  type SheetView,
  viewOf,
  zoomSheet,
} from "./sheet_view";

/** Elements that a stage moves and draws on. */
export interface Parts {
  readonly viewport: HTMLElement;
  readonly canvas: HTMLCanvasElement;
  /** Holds the cells; their places are percentages of it. */
  readonly sheet: HTMLElement;
  readonly columns: HTMLElement;
  readonly rows: HTMLElement;
}

const NOTHING: Extent = { nColumns: 1, nRows: 1 };
const MOST_RATIO = 2;

/** Moves, zooms and draws, at most once a frame and only after a change. */
export class Stage {
  readonly #gl: MatrixGL;
  readonly #observer: ResizeObserver;
  #size: Size;
  #extent: Extent = NOTHING;
  #part: SheetPart | null = null;
  #frame = 0;
  #ground: readonly number[] = [1, 1, 1];
  /** Called after each frame that showed points. */
  onDrawn: () => void = () => {};
  /** Called after each move by the user. */
  onMoved: () => void = () => {};

  constructor(readonly parts: Parts) {
    this.#gl = new MatrixGL(parts.canvas);
    this.#gl.onRestored = () => this.redraw();
    this.#size = sizeOf(parts.viewport);
    this.#observer = new ResizeObserver(() => this.#resize());
    this.#observer.observe(parts.viewport);
  }

  /** Where the part in sight lies in the viewport. */
  get view(): SheetView {
    return viewOf(this.#part, this.#extent, this.#size);
  }

  /** The part in sight; null for all cells. */
  get part(): SheetPart | null {
    return this.#part;
  }

  /** Show a part, which no user moved to. */
  show(part: SheetPart | null): void {
    this.#part = part;
    this.#apply();
  }

  /** CSS pixels of the viewport. */
  get size(): Size {
    return this.#size;
  }

  /** How many cells there are each way. */
  get extent(): Extent {
    return this.#extent;
  }

  /** Points of all heads. */
  setMatrix(matrix: Matrix): void {
    this.#gl.setHeads(matrix.heads, matrix.dims);
    this.redraw();
  }

  /** Where cells lie, after setMatrix. */
  setSheet(sheet: Sheet): void {
    this.#gl.setSheet(sheet);
    this.setExtent(sheet);
  }

  /** How many cells there are, known before their points. */
  setExtent(extent: Extent): void {
    this.#extent = extent;
    this.#apply();
  }

  /** Colours of the shared points, what is lit among them, and the ground they lie on. */
  setColours(rgba: Uint8Array, marks: Uint8Array | null, ground: readonly number[]): void {
    this.#ground = ground;
    this.#gl.setColours(rgba, marks);
    this.redraw();
  }

  /** Zoom about a point of the viewport. */
  zoom(px: number, py: number, factor: number): void {
    this.#move(zoomSheet(this.view, this.#extent, this.#size, { px, py }, factor));
  }

  /** Move by pixels. */
  pan(dx: number, dy: number): void {
    this.#move(panSheet(this.view, this.#extent, this.#size, dx, dy));
  }

  /** Bring a cell into sight. */
  reveal(column: number, row: number): void {
    this.#move(revealCell(this.view, this.#extent, this.#size, column, row));
  }

  /** All cells in sight again. */
  fit(): void {
    this.show(null);
    this.onMoved();
  }

  /** Draw in the next frame. */
  redraw(): void {
    this.#frame ||= requestAnimationFrame(() => {
      this.#frame = 0;
      this.drawNow();
    });
  }

  /** Draw at once, as a picture that is taken needs it. */
  drawNow(): void {
    const ratio = Math.min(MOST_RATIO, devicePixelRatio || 1);
    const frame = { view: this.view, size: this.#size, ratio, ground: this.#ground };
    if (this.#gl.draw(frame)) this.onDrawn();
  }

  /** Free what it holds. */
  dispose(): void {
    cancelAnimationFrame(this.#frame);
    this.#observer.disconnect();
    this.#gl.dispose();
  }

  #move(view: SheetView): void {
    this.show(partOf(view, this.#extent, this.#size));
    this.onMoved();
  }

  #resize(): void {
    this.#size = sizeOf(this.parts.viewport);
    this.#apply();
  }

  #apply(): void {
    const { left: x, top: y, cell } = this.view;
    const { sheet, columns, rows, viewport } = this.parts;
    const [width, height] = [this.#extent.nColumns * cell, this.#extent.nRows * cell];
    Object.assign(sheet.style, box(x, y, width, height));
    Object.assign(columns.style, { left: `${x}px`, width: `${width}px` });
    Object.assign(rows.style, { top: `${y}px`, height: `${height}px` });
    const name = cell < 44 ? "small" : cell < 84 ? "medium" : "large";
    for (const part of [viewport, columns]) part.dataset["cells"] = name;
    this.redraw();
  }
}

function box(x: number, y: number, width: number, height: number) {
  return { left: `${x}px`, top: `${y}px`, width: `${width}px`, height: `${height}px` };
}

function sizeOf(element: HTMLElement): Size {
  return { width: Math.max(1, element.clientWidth), height: Math.max(1, element.clientHeight) };
}
