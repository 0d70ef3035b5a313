/** What a point is, beside the pointer. */

import type { ReadonlySignal } from "@preact/signals";
import { tokenAt } from "../contract/points";
import { showToken } from "../sentence/token_text";
import type { Pixel } from "./gestures";
import { findPlaces, findSurroundings } from "./neighbours";
import { type Drawn, type Pane, pointed } from "./pane";

const WIDTH_PX = 280;
const OFFSET_PX = 14;
const REACH = 6;

/** The tooltip of the point that the pointer of a pane is over. */
export function PointTooltip(props: {
  pane: Pane;
  drawn: Drawn;
  at: ReadonlySignal<Pixel | null>;
}) {
  const { pane, drawn, at } = props;
  const over = pointed.value;
  const pixel = at.value;
  if (!over || over.from !== pane.name || !pixel) return null;
  const [index = -1] = findPlaces(drawn.points, [over.place]);
  if (index < 0) return null;
  return (
    <div class="single-tooltip" role="tooltip" style={placeBeside(pixel, pane.size.value)}>
      <PointFacts drawn={drawn} index={index} />
    </div>
  );
}

function placeBeside({ x, y }: Pixel, size: { width: number; height: number }) {
  const left = Math.max(
    4,
    x + OFFSET_PX + WIDTH_PX > size.width ? x - OFFSET_PX - WIDTH_PX : x + OFFSET_PX,
  );
  const isLow = y > size.height / 2;
  return {
    left: `${Math.min(left, Math.max(4, size.width - WIDTH_PX - 4))}px`,
    ...(isLow ? { bottom: `${size.height - y + OFFSET_PX}px` } : { top: `${y + OFFSET_PX}px` }),
    maxWidth: `${WIDTH_PX}px`,
  };
}

function PointFacts({ drawn, index }: { drawn: Drawn; index: number }) {
  const { points, colouring } = drawn;
  const kind = points.isQuery[index] === 1 ? "query" : "key";
  const value = colouring.texts(index);
  const around = findSurroundings(points, index, REACH);
  const distortion = points.distortion?.[index];
  return (
    <>
      <p class="single-tooltip-token">
        <span class={`single-dot single-dot-${kind}`} aria-hidden="true" />
        <bdi>{showToken(tokenAt(points, index) || null)}</bdi>
      </p>
      <p>
        {kind} · sequence {points.sequenceId[index]} · position {points.position[index]}
      </p>
      {value !== "" && (
        <p>
          {colouring.legend.title}: <bdi>{value}</bdi>
        </p>
      )}
      {distortion !== undefined && !Number.isNaN(distortion) && (
        <p>distortion: {distortion.toFixed(2)}</p>
      )}
      {around.before.length + around.after.length > 0 && (
        <p class="single-tooltip-text" dir="auto">
          {around.before.map(showToken).join(" ")} <mark>{showToken(around.token)}</mark>{" "}
          {around.after.map(showToken).join(" ")}
        </p>
      )}
    </>
  );
}
