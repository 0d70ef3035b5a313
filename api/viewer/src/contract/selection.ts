/** The selection and the search hits as sets of places, which all views light up. */

import { batch, signal } from "@preact/signals";
import type { PlaceSet } from "./places";
import { change, type Selector } from "./state";

/** What is selected; null for nothing. Made from `state.selector` by `shell/selecting.ts`. */
export const selection = signal<PlaceSet | null>(null);

/** What the search found; null while there is no search. Made by `shell/searching.ts`. */
export const hits = signal<PlaceSet | null>(null);

/** Select what a selector says, whose places the caller knows already; null selects nothing. */
export function select(selector: Selector | null, places: PlaceSet | null): void {
  batch(() => {
    selection.value = places;
    change({ selector });
  });
}
