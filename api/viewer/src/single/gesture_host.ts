/** What the pointer does to a pane: moves its camera, points at, clicks and outlines its points. */

import { effect, type ReadonlySignal, useSignal } from "@preact/signals";
import type { RefObject } from "preact";
import { useEffect } from "preact/hooks";
import { placeAt, placesOf } from "../contract/points";
import { select } from "../contract/selection";
import { change, state } from "../contract/state";
import { model as modelInSight } from "../shell/chosen";
import { selectSequences } from "../shell/select_sequences";
import { say } from "../shell/toasts";
import { type GestureHost, listenGestures, type Pixel } from "./gestures";
import { active, firstPane, type Pane, pointed, tool } from "./pane";
import { readPolygon, writePolygon } from "./polygon";
import type { Scene } from "./scene";

const HOVER_RADIUS_PX = 10;
const CLICK_RADIUS_PX = 12;

/** Listen to a pane's pointer; returns where it hovers, null while it does not. */
export function useMapGestures(
  pane: Pane,
  scene: Scene | null,
  element: RefObject<HTMLElement | null>,
): ReadonlySignal<Pixel | null> {
  const at = useSignal<Pixel | null>(null);
  useEffect(() => {
    if (!scene || !element.current) return;
    const host = makeHost(pane, scene, (pixel) => {
      at.value = pixel;
    });
    const stop = listenGestures(element.current, host);
    const stopKeys = listenEnter(element.current, pane, scene);
    const stopOutline = effect(() => scene.setOutline(pane.outline.value));
    return () => {
      stop();
      stopKeys();
      stopOutline();
      clearPointed(pane);
      if (active.peek() === pane) active.value = firstPane;
    };
  }, [scene]);
  return at;
}

function makeHost(pane: Pane, scene: Scene, setPixel: (at: Pixel | null) => void): GestureHost {
  return {
    camera: () => pane.camera.peek(),
    moveTo: (camera) => {
      pane.camera.value = camera;
    },
    size: () => pane.size.peek(),
    tool: () => tool.peek(),
    outline: () => pane.outline.peek(),
    setOutline: (corners) => {
      if (corners.length > 0 || pane.outline.peek().length > 0) pane.outline.value = corners;
    },
    finishOutline: (corners) => selectWithin(pane, scene, corners),
    hover: oncePerFrame((at) => {
      if (at) active.value = pane;
      setPixel(at);
      if (at) pointAt(pane, scene.pick(at.x, at.y, HOVER_RADIUS_PX));
      else clearPointed(pane);
    }),
    click: ({ x, y }) => clickAt(pane, scene.pick(x, y, CLICK_RADIUS_PX)),
    reset: () => resetCamera(pane),
  };
}

function oncePerFrame(run: (at: Pixel | null) => void): (at: Pixel | null) => void {
  let latest: Pixel | null = null;
  let isAsked = false;
  return (at) => {
    latest = at;
    if (isAsked) return;
    isAsked = true;
    requestAnimationFrame(() => {
      isAsked = false;
      run(latest);
    });
  };
}

/** Enter opens the point nearest the middle, for hands without a pointer. */
function listenEnter(element: HTMLElement, pane: Pane, scene: Scene): () => void {
  const listen = (event: KeyboardEvent) => {
    if (event.key !== "Enter") return;
    event.preventDefault();
    const { width, height } = pane.size.peek();
    clickAt(pane, scene.pick(width / 2, height / 2, Math.max(width, height)));
  };
  element.addEventListener("keydown", listen);
  return () => element.removeEventListener("keydown", listen);
}

function resetCamera(pane: Pane): void {
  pane.camera.value = pane.whole.peek() ?? pane.camera.peek();
}

function pointAt(pane: Pane, index: number): void {
  const drawn = pane.drawn.peek();
  if (!drawn || index < 0) {
    clearPointed(pane);
    return;
  }
  const place = placeAt(drawn.points, index);
  const before = pointed.peek();
  const isSame =
    before?.from === pane.name &&
    before.model === drawn.model.model &&
    before.place.kind === place.kind &&
    before.place.sequenceId === place.sequenceId &&
    before.place.position === place.position;
  if (!isSame) pointed.value = { model: drawn.model.model, place, from: pane.name };
}

function clearPointed(pane: Pane): void {
  if (pointed.peek()?.from === pane.name) pointed.value = null;
}

function clickAt(pane: Pane, index: number): void {
  const drawn = pane.drawn.peek();
  if (!drawn) return;
  if (index < 0) {
    change({ point: null });
    return;
  }
  change({ point: placeAt(drawn.points, index), clickedIn: pane.name });
}

/** Select what is within an outline of pixels, as what the address will say of it. */
function selectWithin(pane: Pane, scene: Scene, pixels: readonly number[]): void {
  const [drawn, camera] = [pane.drawn.peek(), pane.camera.peek()];
  if (!drawn || !camera || !scene.picker) return;
  const selector = writePolygon(drawn.map.map_id, camera, pane.size.peek(), pixels);
  if (selector.by !== "polygon") return;
  const indices = readPolygon(selector.corners, drawn.map.dims, scene.picker);
  const places = placesOf(drawn.points, indices);
  if (places.size === 0) {
    say("No point lies within the outline.");
    select(null, null);
  } else if (drawn.model.model === modelInSight.peek()?.model) {
    // Where only some of the points are drawn, the outline is asked for as from a link.
    select(selector, drawn.part.isCut && drawn.map.dims === 2 ? null : places);
  } else {
    selectSequences(places.sequences()); // models share sequences, not positions
  }
}

/** Whether something was given up: an outline, the clicked point, the selection, in this order. */
export function giveUp(panes: readonly Pane[]): boolean {
  const outlining = panes.filter((pane) => pane.outline.peek().length > 0);
  for (const pane of outlining) pane.outline.value = [];
  if (outlining.length > 0) return true;
  if (state.point.peek() !== null) {
    change({ point: null });
    return true;
  }
  if (state.selector.peek() === null) return false;
  select(null, null);
  return true;
}
