/** What a component shows while something loads, and what it shows where that failed. */

import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";

/** Something that loads: the newest value stays in sight while its successor is on its way. */
export interface Loaded<T> {
  readonly value: T | null;
  readonly problem: Error | null;
  readonly isLoading: boolean;
}

/**
 * Load whenever one of `causes` changes; an overtaken load is aborted.
 *
 * `load` returns null for nothing to load. A failure clears the value.
 */
export function useLoaded<T>(
  load: (signal: AbortSignal) => Promise<T> | null,
  causes: readonly unknown[],
): Loaded<T> {
  const loaded = useSignal<Loaded<T>>({ value: null, problem: null, isLoading: true });
  useEffect(() => {
    const controller = new AbortController();
    const show = (next: Loaded<T>) => {
      if (!controller.signal.aborted) loaded.value = next;
    };
    const promise = load(controller.signal);
    if (promise === null) {
      show({ value: null, problem: null, isLoading: false });
    } else {
      show({ ...loaded.peek(), problem: null, isLoading: true });
      promise.then(
        (value) => show({ value, problem: null, isLoading: false }),
        (problem: Error) => show({ value: null, problem, isLoading: false }),
      );
    }
    return () => controller.abort();
  }, causes);
  return loaded.value;
}
