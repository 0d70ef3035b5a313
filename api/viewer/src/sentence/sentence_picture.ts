/** The picture of Sentence View: both lists, the lines and the matrix on one canvas. */

import { savePicture } from "../draw/picture";
import type { Arrangement } from "./arrangement";
import { drawLines, lineColour, listLines, ROW_PX } from "./draw_lines";
import { type Heat, measureHeat, paintHeat } from "./HeatMap";
import { readColour } from "./heat";
import { shortToken } from "./token_text";

const LIST_PX = 170;
const LINES_PX = 260;
const GAP_PX = 16;
const SCALE = 2;

/** Save the picture as PNG. */
export async function saveSentence(shown: Arrangement, heat: Heat, caption: string): Promise<void> {
  const canvas = drawSentence(shown, heat);
  await savePicture([canvas], "sentence.png", readColour("--card"), caption);
}

function drawSentence(shown: Arrangement, heat: Heat): HTMLCanvasElement {
  const size = measureHeat(heat);
  const lists = Math.max(shown.queries.length, shown.listed.length) * ROW_PX;
  const canvas = document.createElement("canvas");
  canvas.width = SCALE * (2 * LIST_PX + LINES_PX + size.width + 3 * GAP_PX);
  canvas.height = SCALE * (Math.max(lists, size.height) + 2 * GAP_PX);
  const context = canvas.getContext("2d");
  if (!context) throw new Error("This browser cannot draw on a canvas. Use another browser.");
  context.scale(SCALE, SCALE);
  context.translate(GAP_PX, GAP_PX);
  drawTokens(context, shown);
  context.translate(LIST_PX, 0);
  drawLines(context, listLines(shown, null), LINES_PX, lineColour(null));
  context.translate(LINES_PX + LIST_PX + GAP_PX, 0);
  paintHeat(context, heat, size.width, size.height);
  return canvas;
}

function drawTokens(context: CanvasRenderingContext2D, shown: Arrangement): void {
  context.font = "13px system-ui, sans-serif";
  context.textBaseline = "middle";
  context.fillStyle = readColour("--ink");
  context.textAlign = "right";
  shown.queries.forEach((token, row) => {
    context.fillText(shortToken(token.token), LIST_PX - 6, (row + 0.5) * ROW_PX, LIST_PX - 6);
  });
  context.textAlign = "left";
  shown.listed.forEach((column, row) => {
    context.globalAlpha = shown.hidden.has(column) ? 0.4 : 1;
    const text = shortToken(shown.keys[column]?.token ?? null);
    context.fillText(text, LIST_PX + LINES_PX + 6, (row + 0.5) * ROW_PX, LIST_PX - 6);
  });
  context.globalAlpha = 1;
}
