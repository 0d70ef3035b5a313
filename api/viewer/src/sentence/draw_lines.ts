/** Lines between the lists of queries and keys; opacity is the weight, or its root for one token. */

import type { Arrangement } from "./arrangement";
import { rowOf } from "./arrangement";
import { readColour } from "./heat";
import type { Spot } from "./hovering";

/** Height of a row of the lists in CSS pixels. */
export const ROW_PX = 20;

/** Lines of less weight are drawn only for the token in focus. */
export const LEAST_WEIGHT = 0.01;

/** A line by rows of the two lists. */
export interface ListLine {
  readonly from: number;
  readonly to: number;
  readonly weight: number;
  /** 0 to 1. */
  readonly opacity: number;
}

/** The lines to draw: all that can be seen, or those of the spot's query, key or both. */
export function listLines(shown: Arrangement, lit: Spot | null): ListLine[] {
  const only = rowOf(shown, lit?.query ?? null);
  const onlyKey = lit?.key ?? null;
  const isIsolated = only !== -1 || onlyKey !== null;
  const least = isIsolated ? 1e-4 : LEAST_WEIGHT;
  const lines: ListLine[] = [];
  shown.weights.forEach((row, from) => {
    if (only !== -1 && from !== only) return;
    shown.listed.forEach((column, to) => {
      if (onlyKey !== null && column !== onlyKey) return;
      const weight = row[column] ?? 0;
      // Of one token's lines the weak ones may be in sight: they cover nothing.
      const opacity = Math.min(1, isIsolated ? Math.sqrt(weight) : weight);
      if (weight >= least) lines.push({ from, to, weight, opacity });
    });
  });
  return lines;
}

/** Draw lines over a width, from the middle of row to the middle of row, the faintest first. */
export function drawLines(
  context: CanvasRenderingContext2D,
  lines: readonly ListLine[],
  width: number,
  css: string,
): void {
  context.strokeStyle = css;
  for (const line of [...lines].sort((a, b) => a.weight - b.weight)) {
    const top = (line.from + 0.5) * ROW_PX;
    const end = (line.to + 0.5) * ROW_PX;
    context.globalAlpha = line.opacity;
    context.lineWidth = 1 + 2 * line.weight;
    context.beginPath();
    context.moveTo(0, top);
    context.bezierCurveTo(width / 2, top, width / 2, end, width, end);
    context.stroke();
  }
  context.globalAlpha = 1;
}

/** The colour of lines: of the kind of the token in focus, else the accent. */
export function lineColour(lit: Spot | null): string {
  if (lit?.query !== null && lit?.query !== undefined) return readColour("--query");
  return readColour(lit ? "--key" : "--accent");
}
