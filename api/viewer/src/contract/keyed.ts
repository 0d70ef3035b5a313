/** Loading that knows what its newest value is of, so that an outdated one never counts as drawn. */

import { useSignal } from "@preact/signals";
import { type Loaded, useLoaded } from "./loading";

/** A load that can be asked again. */
export interface Keyed<T> extends Loaded<T> {
  readonly retry: () => void;
}

/** Load what a key names, anew when the key changes; null for nothing to load. */
export function useKeyed<T>(
  key: string | null,
  load: (signal: AbortSignal) => Promise<T>,
): Keyed<T> {
  const round = useSignal(0);
  const name = key === null ? null : `${round.value} ${key}`;
  const start = (signal: AbortSignal) =>
    name === null ? null : load(signal).then((value) => ({ name, value }));
  const loaded = useLoaded(start, [name]);
  const isOutdated = name !== null && loaded.problem === null && loaded.value?.name !== name;
  return {
    value: name === null ? null : (loaded.value?.value ?? null),
    problem: name === null ? null : loaded.problem,
    isLoading: name !== null && (loaded.isLoading || isOutdated),
    retry: () => {
      round.value += 1;
    },
  };
}
