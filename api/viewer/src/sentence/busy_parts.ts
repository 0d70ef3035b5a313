/** Which parts of a view are still to come, so that the view can say when all of it is drawn. */

import { useSignal } from "@preact/signals";
import { useCallback, useLayoutEffect } from "preact/hooks";

/** Notes whether a part, by its name, is still to come. */
export type NoteBusy = (part: string, isBusy: boolean) => void;

/** Whether any part is to come, and what notes it; `first` is to come before it is there at all. */
export function useBusyParts(first: string): { hasBusy: boolean; note: NoteBusy } {
  const parts = useSignal<ReadonlySet<string>>(new Set([first]));
  const note = useCallback((part: string, isBusy: boolean) => {
    if (parts.peek().has(part) === isBusy) return;
    const next = new Set(parts.peek());
    if (isBusy) next.add(part);
    else next.delete(part);
    parts.value = next;
  }, []);
  return { hasBusy: parts.value.size > 0, note };
}

/** Note a part as long as its component is there. */
export function useNoted(note: NoteBusy, part: string, isBusy: boolean): void {
  useLayoutEffect(() => note(part, isBusy), [part, isBusy]);
  useLayoutEffect(() => () => note(part, false), [part]);
}
