/** What the pointer or the focus is on, for lists, matrices and text at once. */

import { signal } from "@preact/signals";

/** A query, a key or the cell of both; positions in their sequences. */
export interface Spot {
  readonly query: number | null;
  readonly key: number | null;
}

/** What is hovered in Sentence or Image View; null for nothing. */
export const hovered = signal<Spot | null>(null);

/** Hover a spot; an equal one changes nothing. */
export function hover(spot: Spot | null): void {
  const now = hovered.peek();
  if (now?.query === spot?.query && now?.key === spot?.key) return;
  hovered.value = spot;
}
