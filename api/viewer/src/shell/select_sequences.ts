/** Selects sequences as such, from the table or by an outline on another model's map. */

import { select } from "../contract/selection";
import { say } from "./toasts";

/** Sequences that a selector may name: more make an address too long. */
export const MOST_SEQUENCES = 500;

/** Select all tokens of some sequences; says so where they are too many for a link. */
export function selectSequences(ids: readonly number[]): void {
  if (ids.length > MOST_SEQUENCES) say(`Only the first ${MOST_SEQUENCES} sequences are selected.`);
  const sequenceIds = ids.slice(0, MOST_SEQUENCES);
  select(sequenceIds.length > 0 ? { by: "sequence", sequenceIds } : null, null);
}
