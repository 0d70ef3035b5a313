/** Finds again what an outline in the address selects, on whatever map it was drawn. */

import { computed, type ReadonlySignal, signal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { loadPoints, MOST_POINTS } from "../contract/atlas";
import { placesOf } from "../contract/points";
import type { MapRow } from "../contract/rows";
import { select, selection } from "../contract/selection";
import { type Selector, state } from "../contract/state";
import { makePicker } from "../draw/grid";
import { isSearching } from "../shell/searching";
import { selectionProblem } from "../shell/selecting";
import { say } from "../shell/toasts";
import { NEARLY_ALL } from "./drawn";
import { boxAround, readPolygon } from "./polygon";

/** Numbers of the least outline: a triangle. */
const LEAST_CORNERS = 6;

/** The outline whose points could not be found; null for none. */
const unfound = signal<Selector | null>(null);

/** True until the places of the state's selector and the search's hits are known, or cannot be. */
export const isSelecting: ReadonlySignal<boolean> = computed(() => {
  const selector = state.selector.value;
  if (isSearching.value) return true;
  if (selector === null || selection.value !== null) return false;
  if (selector.by === "search" || selectionProblem.value) return false;
  return unfound.value !== selector;
});

/** Select what the state's outline holds, where only the outline is known. */
export function useRestoredOutline(maps: readonly MapRow[]): void {
  const selector = state.selector.value;
  const isUnknown = selector?.by === "polygon" && selection.value === null;
  useEffect(() => {
    if (!isUnknown || maps.length === 0) return;
    const map = maps.find((one) => one.map_id === selector.mapId);
    if (!map) {
      unfound.value = selector;
      say("The map on which the selection was outlined is no longer in the atlas.");
      return;
    }
    const controller = new AbortController();
    restore(map, selector, controller.signal).catch((problem: Error) => {
      if (controller.signal.aborted) return;
      unfound.value = selector;
      say(`The selection could not be found: ${problem.message}`);
    });
    return () => controller.abort();
  }, [isUnknown, selector, maps]);
}

async function restore(
  map: MapRow,
  selector: Selector & { by: "polygon" },
  signal: AbortSignal,
): Promise<void> {
  // Only part of a large map is loaded at once, so what lies around the outline is asked for.
  const { corners } = selector;
  const isFlat = map.dims === 2 && corners.length >= LEAST_CORNERS;
  const points = await loadPoints(map, isFlat ? { box: boxAround(corners) } : {}, signal);
  if (points.n >= NEARLY_ALL * MOST_POINTS) {
    say(`Only those of the first ${points.n.toLocaleString("en")} points there are selected.`);
  }
  const indices = readPolygon(corners, map.dims, makePicker(points));
  if (state.selector.peek() !== selector || selection.peek() !== null) return;
  select(selector, placesOf(points, indices));
}
