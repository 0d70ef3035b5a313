/** A matrix of weights on a canvas: queries down, keys across, hover told to all. */

import { useLayoutEffect, useMemo, useRef } from "preact/hooks";
import { isDark } from "../shell/theme";
import type { Weights } from "./attention_lines";
import { paintCells, readColour, shrink, toAlphas } from "./heat";
import { hover, type Spot } from "./hovering";
import type { Reach } from "./reach";

const MOST_PX = 340;
const LARGEST_CELL_PX = 22;
const MOST_CELLS = 512;

/** What a heat map shows. */
export interface Heat {
  readonly weights: Weights;
  readonly nKeys: number;
  /** Position of the first row. */
  readonly firstQuery: number;
  readonly reach: Reach | null;
}

/** The canvas; `label` says what it shows to those who do not see it. */
export function HeatMap(props: { heat: Heat; label: string; lit: Spot | null }) {
  const { heat, lit } = props;
  const canvas = useRef<HTMLCanvasElement>(null);
  const { width, height } = measureHeat(heat);
  const dark = isDark.value;
  const ground = useMemo(() => drawGround(heat), [heat, dark]);
  useLayoutEffect(() => {
    if (canvas.current) drawHeat(canvas.current, ground, heat, lit);
  }, [ground, lit?.query, lit?.key]);
  const point = (event: PointerEvent) => {
    const box = (event.currentTarget as HTMLElement).getBoundingClientRect();
    const row = Math.floor(((event.clientY - box.top) / box.height) * heat.weights.length);
    const column = Math.floor(((event.clientX - box.left) / box.width) * heat.nKeys);
    const isIn = row >= 0 && row < heat.weights.length && column >= 0 && column < heat.nKeys;
    hover(isIn ? { query: heat.firstQuery + row, key: column } : null);
  };
  return (
    <canvas
      ref={canvas}
      class="sentence-heat"
      role="img"
      aria-label={props.label}
      style={{ width: `${width}px`, aspectRatio: `${width} / ${height}` }}
      onPointerMove={point}
      onPointerDown={point}
      onPointerLeave={() => hover(null)}
    />
  );
}

/** Size in CSS pixels: cells are square where neither side has very many. */
export function measureHeat(heat: Heat): { width: number; height: number } {
  const nRows = Math.max(1, heat.weights.length);
  const nColumns = Math.max(1, heat.nKeys);
  const square = Math.min(LARGEST_CELL_PX, MOST_PX / Math.max(nRows, nColumns));
  const across = Math.max(square, Math.min(LARGEST_CELL_PX, 160 / nColumns));
  const down = Math.max(square, Math.min(LARGEST_CELL_PX, 160 / nRows));
  return { width: Math.round(across * nColumns), height: Math.round(down * nRows) };
}

/** The cells of a heat map, as sharp as the screen: drawn once, however often the hover changes. */
function drawGround(heat: Heat): HTMLCanvasElement {
  const { width, height } = measureHeat(heat);
  const scale = Math.min(2, devicePixelRatio || 1);
  const canvas = document.createElement("canvas");
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  const context = canvas.getContext("2d");
  context?.scale(scale, scale);
  if (context) paintHeat(context, heat, width, height);
  return canvas;
}

function drawHeat(
  canvas: HTMLCanvasElement,
  ground: HTMLCanvasElement,
  heat: Heat,
  lit: Spot | null,
): void {
  canvas.width = ground.width;
  canvas.height = ground.height;
  const context = canvas.getContext("2d");
  if (!context || ground.width === 0 || ground.height === 0) return;
  context.drawImage(ground, 0, 0);
  const { width, height } = measureHeat(heat);
  context.scale(ground.width / width, ground.height / height);
  markLit(context, heat, lit, width, height);
}

/** Draw the cells and the hatching of a heat map at the origin of a context. */
export function paintHeat(
  context: CanvasRenderingContext2D,
  heat: Heat,
  width: number,
  height: number,
): void {
  if (heat.weights.length === 0 || heat.nKeys === 0) return;
  const cells = shrink(heat.weights, heat.nKeys, MOST_CELLS);
  const alphas = toAlphas(cells.values, 1);
  const picture = paintCells(alphas, cells.nRows, cells.nColumns, readColour("--accent"));
  context.imageSmoothingEnabled = false;
  context.drawImage(picture, 0, 0, width, height);
  if (heat.reach) hatch(context, heat, heat.reach, width, height);
}

function hatch(
  context: CanvasRenderingContext2D,
  heat: Heat,
  reach: Reach,
  width: number,
  height: number,
): void {
  const down = height / heat.weights.length;
  const across = width / heat.nKeys;
  context.save();
  context.beginPath();
  heat.weights.forEach((_, row) => {
    for (const [first, end] of runsOutOfReach(reach, heat.firstQuery + row, heat.nKeys)) {
      context.rect(first * across, row * down, (end - first) * across, down);
    }
  });
  context.clip();
  context.strokeStyle = readColour("--line");
  context.lineWidth = 1;
  context.beginPath();
  for (let x = -height; x < width; x += 6) {
    context.moveTo(x, height);
    context.lineTo(x + height, 0);
  }
  context.stroke();
  context.restore();
}

/** Runs of keys that a query does not reach: first, and end without it. */
export function runsOutOfReach(reach: Reach, query: number, nKeys: number): [number, number][] {
  const runs: [number, number][] = [];
  for (let key = 0; key < nKeys; key++) {
    if (reach(query, key)) continue;
    const last = runs.at(-1);
    if (last && last[1] === key) last[1] = key + 1;
    else runs.push([key, key + 1]);
  }
  return runs;
}

function markLit(
  context: CanvasRenderingContext2D,
  heat: Heat,
  lit: Spot | null,
  width: number,
  height: number,
): void {
  const down = height / heat.weights.length;
  const across = width / heat.nKeys;
  context.lineWidth = 1.5;
  if (lit?.query !== null && lit?.query !== undefined) {
    context.strokeStyle = readColour("--query");
    context.strokeRect(0.5, (lit.query - heat.firstQuery) * down, width - 1, Math.max(down, 2));
  }
  if (lit?.key !== null && lit?.key !== undefined) {
    context.strokeStyle = readColour("--key");
    context.strokeRect(lit.key * across, 0.5, Math.max(across, 2), height - 1);
  }
}
