/** Weights as pixels: opacity is the square root of the weight, so that weak ones stay in sight. */

import type { Weights } from "./attention_lines";

/** A matrix of cells, row by row. */
export interface Cells {
  readonly nRows: number;
  readonly nColumns: number;
  readonly values: Float32Array;
}

/** Weights with at most `most` rows and columns: a cell is the highest weight of its block. */
export function shrink(weights: Weights, nKeys: number, most: number): Cells {
  const down = Math.max(1, Math.ceil(weights.length / most));
  const across = Math.max(1, Math.ceil(nKeys / most));
  const nRows = Math.ceil(weights.length / down);
  const nColumns = Math.ceil(nKeys / across);
  const values = new Float32Array(nRows * nColumns);
  weights.forEach((row, i) => {
    const start = Math.floor(i / down) * nColumns;
    row.forEach((weight, j) => {
      const cell = start + Math.floor(j / across);
      if (weight > (values[cell] ?? 0)) values[cell] = weight;
    });
  });
  return { nRows, nColumns, values };
}

/** Opacities 0 to 255 of cells. */
export function toAlphas(values: ArrayLike<number>, whole: number): Uint8ClampedArray {
  return Uint8ClampedArray.from(values, (value) => 255 * Math.sqrt(value / whole));
}

/** A canvas of a pixel a cell, in a colour whose opacity tells the weight; null without 2-D canvas. */
export function paintCells(
  alphas: Uint8ClampedArray,
  nRows: number,
  nColumns: number,
  css: string,
  canvas: HTMLCanvasElement = document.createElement("canvas"),
): HTMLCanvasElement {
  canvas.width = Math.max(1, nColumns);
  canvas.height = Math.max(1, nRows);
  const context = canvas.getContext("2d");
  if (!context || alphas.length === 0) return canvas;
  const image = context.createImageData(nColumns, nRows);
  alphas.forEach((alpha, i) => {
    image.data[4 * i + 3] = alpha;
  });
  context.putImageData(image, 0, 0);
  context.globalCompositeOperation = "source-in";
  context.fillStyle = css;
  context.fillRect(0, 0, nColumns, nRows);
  return canvas;
}

/** A colour of the page's theme as it is now, such as `--accent`. */
export function readColour(name: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim() || "#777";
}
