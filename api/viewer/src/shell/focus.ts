/** Where the focus goes when the view changes. */

import { effect } from "@preact/signals";
import { state } from "../contract/state";

/** Move a focus that the old view took with it to the new view; returns what ends that. */
export function followFocus(findMain: () => HTMLElement | null): () => void {
  let last = state.view.peek();
  return effect(() => {
    const view = state.view.value;
    if (view === last) return;
    last = view;
    requestAnimationFrame(() => {
      const active = document.activeElement;
      if (active === null || active === document.body) findMain()?.focus({ preventScroll: true });
    });
  });
}
