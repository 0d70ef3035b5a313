/** What lies over the points: lines, rings, labels and the lasso, on a 2-D canvas of its own. */

import type { Size } from "./camera";
import { deviceRatio } from "./points_gl";

const FONT = "12px system-ui, sans-serif";
const HALO_PIXELS = 3;

/** A 2-D canvas over the points' canvas, in CSS pixels. */
export class Overlay {
  readonly #context: CanvasRenderingContext2D;
  readonly #widths = new Map<string, number>();

  constructor(private readonly canvas: HTMLCanvasElement) {
    const context = canvas.getContext("2d");
    if (!context) throw new Error("This browser cannot draw on a canvas. Use another browser.");
    this.#context = context;
  }

  /** Clear, at this size: the first thing of a frame. */
  begin(size: Size): void {
    const ratio = deviceRatio();
    const width = Math.max(1, Math.round(size.width * ratio));
    const height = Math.max(1, Math.round(size.height * ratio));
    if (this.canvas.width !== width) this.canvas.width = width;
    if (this.canvas.height !== height) this.canvas.height = height;
    const context = this.#context;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, size.width + 1, size.height + 1);
    context.font = FONT;
    context.textBaseline = "middle";
    context.lineJoin = "round";
  }

  /** Width of a label in CSS pixels; kept, as labels are placed anew each frame. */
  measure(text: string): number {
    const known = this.#widths.get(text);
    if (known !== undefined) return known;
    if (this.#widths.size > MOST_WIDTHS) this.#widths.clear();
    this.#context.font = FONT;
    const { width } = this.#context.measureText(text);
    this.#widths.set(text, width);
    return width;
  }

  /** A straight line; `alpha` tells its weight. */
  line(
    x0: number,
    y0: number,
    x1: number,
    y1: number,
    css: string,
    alpha: number,
    width = 1,
  ): void {
    const context = this.#context;
    context.globalAlpha = alpha;
    context.strokeStyle = css;
    context.lineWidth = width;
    context.beginPath();
    context.moveTo(x0, y0);
    context.lineTo(x1, y1);
    context.stroke();
    context.globalAlpha = 1;
  }

  /** A text from its left edge on, around its middle line, legible over points by a halo. */
  label(x: number, y: number, text: string, css: string, halo: string): void {
    const context = this.#context;
    context.lineWidth = HALO_PIXELS;
    context.strokeStyle = halo;
    context.strokeText(text, x, y);
    context.fillStyle = css;
    context.fillText(text, x, y);
  }

  /** A circle around a point. */
  ring(x: number, y: number, radius: number, css: string, width = 2): void {
    const context = this.#context;
    context.strokeStyle = css;
    context.lineWidth = width;
    context.beginPath();
    context.arc(x, y, radius, 0, 2 * Math.PI);
    context.stroke();
  }

  /** A closed polygon of pixels x0, y0, x1, y1, …, lightly filled. */
  polygon(corners: readonly number[], css: string): void {
    if (corners.length < 4) return;
    const context = this.#context;
    context.beginPath();
    for (let i = 0; i + 1 < corners.length; i += 2) {
      context.lineTo(corners[i] as number, corners[i + 1] as number);
    }
    context.closePath();
    context.fillStyle = css;
    context.globalAlpha = 0.12;
    context.fill();
    context.globalAlpha = 1;
    context.strokeStyle = css;
    context.lineWidth = 1.5;
    context.stroke();
  }
}

const MOST_WIDTHS = 20_000;
