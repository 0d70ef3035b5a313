/** What is lit and ringed on a map, from the selection, the search, the clicked and the hovered. */

import { effect } from "@preact/signals";
import { useEffect, useLayoutEffect } from "preact/hooks";
import type { MapPoints } from "../contract/points";
import { hits, selection } from "../contract/selection";
import { state } from "../contract/state";
import { model as modelInSight } from "../shell/chosen";
import { markPoints } from "./marks";
import { findPlaces } from "./neighbours";
import { besidePane, type Drawn, firstPane, pointed } from "./pane";
import type { Scene } from "./scene";

/** Rings on a map of another model, where one token is a whole sequence. */
const MOST_RINGS = 300;

/** Keep marks and rings of a scene as they are to be. */
export function useMarks(scene: Scene | null, drawn: Drawn | null, value: string | null): void {
  useLayoutEffect(() => {
    if (!scene || !drawn) return;
    const isForeign = drawn.model.model !== modelInSight.value?.model;
    const lights = {
      selection: selection.value,
      hits: hits.value,
      point: state.point.value,
      isForeign,
      value,
      texts: textsOf(drawn),
    };
    scene.setMarked(markPoints(drawn.points, lights));
  }, [scene, drawn, selection.value, hits.value, state.point.value, value]);
  useEffect(() => {
    if (!scene || !drawn) return;
    return effect(() => scene.setRings(findRings(drawn)));
  }, [scene, drawn]);
}

/** What the legend calls the colour of a point. */
export function textsOf({ points, colouring }: Drawn): (index: number) => string {
  if (!colouring.usesKind) return colouring.texts;
  return (index) => (points.isQuery[index] === 1 ? "query" : "key");
}

function findRings(shown: Drawn): number[] {
  const rings: number[] = [];
  const over = pointed.value;
  if (over?.model === shown.model.model) rings.push(...findPlaces(shown.points, [over.place]));
  else if (over) rings.push(...findSequence(shown.points, over.place.sequenceId));
  const clicked = state.point.value;
  const source = state.clickedIn.value === "beside" ? besidePane : firstPane;
  const isOwn = source.drawn.value?.model.model === shown.model.model;
  if (clicked && isOwn) rings.push(...findPlaces(shown.points, [clicked]));
  return rings.filter((index) => index >= 0);
}

function findSequence(points: MapPoints, sequenceId: number): number[] {
  const found: number[] = [];
  for (let i = 0; i < points.n && found.length < MOST_RINGS; i++) {
    if (points.sequenceId[i] === sequenceId) found.push(i);
  }
  return found;
}
