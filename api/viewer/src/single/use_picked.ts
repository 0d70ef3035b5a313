/** The picked entry of a legend goes with its colouring. */

import { useLayoutEffect } from "preact/hooks";
import { state } from "../contract/state";

/** What was there when it was last seen; null before the first address was. */
let last: { readonly colour: string; readonly picked: string } | null = null;

/** Give up what was picked in a legend when another colour is chosen, also in another view. */
export function usePickedOfColour(): void {
  const colour = state.colour.value;
  const picked = state.picked.value;
  useLayoutEffect(() => {
    // An address that changes both at once means the entry of its own colour.
    const isLeft = last !== null && last.colour !== colour && last.picked === picked;
    if (isLeft) state.picked.value = "";
    last = { colour, picked: state.picked.peek() };
  }, [colour, picked]);
}
