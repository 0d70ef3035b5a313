/** A picture with its patches on a canvas: heat of one patch, flows, outlines. */

import { continuousPalette } from "../colour/palettes";
import { readColour } from "../sentence/heat";
import type { Flow, PatchGrid } from "./patches";

/** What lies over the picture. */
export interface PatchLayer {
  readonly grid: PatchGrid;
  /** Weight by position of the patch in focus; null for no heat. */
  readonly heat: readonly number[] | null;
  readonly focus: { readonly position: number; readonly side: "query" | "key" } | null;
  readonly flows: readonly Flow[];
}

const HEAT_OPACITY = 0.6;
const LEAST_FLOW_OPACITY = 0.12;

/** Largest weight of the patches: the heat map's brightest. */
export function largestHeat(grid: PatchGrid, heat: readonly number[]): number {
  return grid.cells.reduce((most, cell) => Math.max(most, heat[cell?.position ?? -1] ?? 0), 0);
}

/** Draw everything in a context of this size. */
export function drawPatches(
  context: CanvasRenderingContext2D,
  image: CanvasImageSource,
  layer: PatchLayer,
  width: number,
  height: number,
): void {
  const { grid } = layer;
  const cell = { width: width / grid.nCols, height: height / grid.nRows };
  context.clearRect(0, 0, width, height);
  // Colours of the picture would mix with those of the heat.
  context.filter = layer.heat ? "grayscale(1)" : "none";
  context.drawImage(image, 0, 0, width, height);
  context.filter = "none";
  if (layer.heat) drawHeat(context, grid, layer.heat, cell);
  drawGrid(context, grid, cell, width, height);
  drawFlows(context, grid, layer.flows, cell);
  drawFocus(context, layer, cell);
}

interface Cell {
  readonly width: number;
  readonly height: number;
}

function drawHeat(
  context: CanvasRenderingContext2D,
  grid: PatchGrid,
  heat: readonly number[],
  cell: Cell,
): void {
  const whole = largestHeat(grid, heat) || 1;
  // On the dark ground's palette more is brighter, whatever the theme of the page.
  const palette = continuousPalette(true);
  context.globalAlpha = HEAT_OPACITY;
  grid.cells.forEach((token, at) => {
    if (!token) return;
    const [red, green, blue] = palette((heat[token.position] ?? 0) / whole);
    context.fillStyle = `rgb(${red} ${green} ${blue})`;
    const [x, y] = [(at % grid.nCols) * cell.width, Math.floor(at / grid.nCols) * cell.height];
    context.fillRect(x, y, cell.width, cell.height);
  });
  context.globalAlpha = 1;
}

function drawGrid(
  context: CanvasRenderingContext2D,
  grid: PatchGrid,
  cell: Cell,
  width: number,
  height: number,
): void {
  context.strokeStyle = "rgb(255 255 255 / 35%)";
  context.lineWidth = 1;
  context.beginPath();
  for (let col = 1; col < grid.nCols; col++) {
    context.moveTo(col * cell.width, 0);
    context.lineTo(col * cell.width, height);
  }
  for (let row = 1; row < grid.nRows; row++) {
    context.moveTo(0, row * cell.height);
    context.lineTo(width, row * cell.height);
  }
  context.stroke();
}

function drawFlows(
  context: CanvasRenderingContext2D,
  grid: PatchGrid,
  flows: readonly Flow[],
  cell: Cell,
): void {
  const whole = flows.reduce((most, flow) => Math.max(most, flow.weight), 0) || 1;
  for (const flow of [...flows].reverse()) {
    const from = centreOf(grid, flow.query, cell);
    const to = centreOf(grid, flow.key, cell);
    if (!from || !to) continue;
    context.globalAlpha = Math.max(LEAST_FLOW_OPACITY, flow.weight / whole);
    // A dark edge keeps an arrow in sight on any picture.
    drawArrow(context, from, to, "rgb(0 0 0 / 60%)", 4, cell);
    drawArrow(context, from, to, "#ffd76a", 2, cell);
  }
  context.globalAlpha = 1;
}

type Point = readonly [number, number];

function centreOf(grid: PatchGrid, position: number, cell: Cell): Point | null {
  const token = grid.byPosition.get(position);
  if (!token || token.patch_row === null || token.patch_col === null) return null;
  return [(token.patch_col + 0.5) * cell.width, (token.patch_row + 0.5) * cell.height];
}

function drawArrow(
  context: CanvasRenderingContext2D,
  from: Point,
  to: Point,
  css: string,
  lineWidth: number,
  cell: Cell,
): void {
  context.strokeStyle = css;
  context.lineWidth = lineWidth;
  context.beginPath();
  const length = Math.hypot(to[0] - from[0], to[1] - from[1]);
  if (length === 0) {
    context.arc(from[0], from[1], Math.min(cell.width, cell.height) / 5, 0, 2 * Math.PI);
  } else {
    const tip = Math.min(7, length / 2);
    const [ux, uy] = [(to[0] - from[0]) / length, (to[1] - from[1]) / length];
    context.moveTo(from[0], from[1]);
    context.lineTo(to[0], to[1]);
    context.moveTo(to[0] - tip * (ux - uy * 0.6), to[1] - tip * (uy + ux * 0.6));
    context.lineTo(to[0], to[1]);
    context.lineTo(to[0] - tip * (ux + uy * 0.6), to[1] - tip * (uy - ux * 0.6));
  }
  context.stroke();
}

function drawFocus(context: CanvasRenderingContext2D, layer: PatchLayer, cell: Cell): void {
  const { focus, grid } = layer;
  const centre = focus && centreOf(grid, focus.position, cell);
  if (!focus || !centre) return;
  const [x, y] = [centre[0] - cell.width / 2, centre[1] - cell.height / 2];
  context.lineWidth = 5;
  context.strokeStyle = "rgb(0 0 0 / 70%)";
  context.strokeRect(x, y, cell.width, cell.height);
  context.lineWidth = 3;
  context.strokeStyle = readColour(focus.side === "query" ? "--query" : "--key");
  context.strokeRect(x, y, cell.width, cell.height);
}
