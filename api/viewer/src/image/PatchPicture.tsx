/** The picture on which patches are hovered, clicked and reached by arrow keys. */

import { useLayoutEffect, useRef } from "preact/hooks";
import { change, state } from "../contract/state";
import { savePicture } from "../draw/picture";
import { readColour } from "../sentence/heat";
import { hover } from "../sentence/hovering";
import { registerPicture } from "../shell/exporting";
import { nameHere } from "../shell/open_head";
import { isDark } from "../shell/theme";
import { drawPatches, type PatchLayer } from "./draw_patches";
import { type PatchGrid, stepOnGrid } from "./patches";

const MOST_PX = 560;
const SCALE = 2;

/** The canvas; `side` is what a patch under the pointer counts as. */
export function PatchPicture(props: {
  image: HTMLImageElement;
  layer: PatchLayer;
  sequenceId: number;
  side: "query" | "key";
  text: string;
}) {
  const { image, layer, sequenceId, side } = props;
  const size = fitSize(image.naturalWidth, image.naturalHeight);
  const canvas = useDrawn(image, layer, size);
  usePicture(canvas, sequenceId);
  const point = (position: number | null) => hover(toSpot(side, position));
  const { grid, focus } = layer;
  const togglePin = (position: number | null) => pinPatch(side, sequenceId, position);
  const press = (event: KeyboardEvent) => {
    if (event.shiftKey || event.altKey || event.ctrlKey || event.metaKey) return;
    const next = stepOnGrid(grid, focus?.position ?? null, event.key);
    if (next !== null) point(next);
    else if (event.key === "Enter" || event.key === " ") togglePin(focus?.position ?? null);
    else return;
    event.preventDefault();
  };
  return (
    <div
      class="image-picture"
      role="application"
      // biome-ignore lint/a11y/noNoninteractiveTabindex: arrow keys move from patch to patch
      tabIndex={0}
      aria-label={`Patches of the picture: ${grid.nRows} rows, ${grid.nCols} columns; arrow keys move, Enter keeps one in focus`}
      aria-describedby="image-focus"
      style={{ maxWidth: `${size.width}px` }}
      onKeyDown={press}
      onBlur={() => hover(null)}
      onPointerMove={(event) => point(findPatch(event, grid))}
      onPointerLeave={() => hover(null)}
      onClick={(event) => togglePin(findPatch(event, grid))}
    >
      <canvas
        ref={canvas}
        width={size.width * SCALE}
        height={size.height * SCALE}
        role="img"
        aria-label={props.text}
      />
    </div>
  );
}

interface Size {
  readonly width: number;
  readonly height: number;
}

function useDrawn(image: HTMLImageElement, layer: PatchLayer, size: Size) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const dark = isDark.value;
  useLayoutEffect(() => {
    const context = canvas.current?.getContext("2d");
    if (!context) return;
    context.setTransform(SCALE, 0, 0, SCALE, 0, 0);
    drawPatches(context, image, layer, size.width, size.height);
  }, [image, layer, dark]);
  return canvas;
}

/** The patch under the pointer; null beside the picture. */
function findPatch(event: PointerEvent | MouseEvent, grid: PatchGrid): number | null {
  const box = (event.currentTarget as HTMLElement).getBoundingClientRect();
  const col = Math.floor(((event.clientX - box.left) / box.width) * grid.nCols);
  const row = Math.floor(((event.clientY - box.top) / box.height) * grid.nRows);
  const isIn = row >= 0 && row < grid.nRows && col >= 0 && col < grid.nCols;
  return isIn ? (grid.cells[row * grid.nCols + col]?.position ?? null) : null;
}

function usePicture(canvas: { current: HTMLCanvasElement | null }, sequenceId: number): void {
  useLayoutEffect(
    () =>
      registerPicture(async () => {
        if (!canvas.current) return;
        const caption = `${nameHere()} · image ${sequenceId}`;
        await savePicture([canvas.current], "image.png", readColour("--card"), caption);
      }),
    [sequenceId],
  );
}

function fitSize(width: number, height: number): Size {
  const scale = MOST_PX / Math.max(width, height, 1);
  return { width: Math.round(width * scale), height: Math.round(height * scale) };
}

/** What hovering a position as a query or a key means. */
export function toSpot(side: "query" | "key", position: number | null) {
  if (position === null) return null;
  return side === "query" ? { query: position, key: null } : { query: null, key: position };
}

/** Keep a patch in focus, or let it go if it is; for none nothing changes. */
export function pinPatch(side: "query" | "key", sequenceId: number, position: number | null): void {
  if (position === null) return;
  const now = state.point.peek();
  const isPinned = now?.kind === side && now.sequenceId === sequenceId && now.position === position;
  change({ point: isPinned ? null : { kind: side, sequenceId, position } });
}
