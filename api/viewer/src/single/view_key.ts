/** What Single View is to show, as one text: a pane is complete once it shows just this. */

import { computed, type ReadonlySignal } from "@preact/signals";
import type { PlaceSet } from "../contract/places";
import { hits, selection } from "../contract/selection";
import { state } from "../contract/state";
import { map } from "../shell/chosen";
import { isDark } from "../shell/theme";

const FIELDS = [
  "beside",
  "colour",
  "size",
  "labels",
  "lines",
  "distortion",
  "thumbnails",
  "point",
  "clickedIn",
  "picked",
  "selector",
] as const;

/** Changes whenever a pane has to be drawn anew, but by its camera. */
export const viewKey: ReadonlySignal<string> = computed(() =>
  JSON.stringify([
    map.value?.map_id ?? null,
    state.layer.value,
    state.head.value,
    isDark.value,
    numberOf(selection.value),
    numberOf(hits.value),
    ...FIELDS.map((name) => state[name].value),
  ]),
);

const numbers = new WeakMap<PlaceSet, number>();
let lastNumber = 0;

/** Tells sets apart, also those of one size; 0 for none. */
function numberOf(places: PlaceSet | null): number {
  if (!places) return 0;
  const known = numbers.get(places) ?? ++lastNumber;
  numbers.set(places, known);
  return known;
}

/** What of the state the points, colours and sizes of a map depend on. */
export function drawnKey(mapId: string, isDarkNow: boolean, box: readonly number[] | null): string {
  return JSON.stringify([mapId, state.colour.value, state.size.value, isDarkNow, box]);
}
