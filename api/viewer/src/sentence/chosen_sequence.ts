/** The sequence in sight of Sentence and Image View, and those before and after it. */

import { loadSequence, loadSequences } from "../contract/atlas";
import { type Keyed, useKeyed } from "../contract/keyed";
import type { SequenceRow } from "../contract/rows";
import { change, state } from "../contract/state";

/** The sequence that the state names, else the first of the model; its value is null for none. */
export function useSequence(model: string): Keyed<SequenceRow> {
  const id = state.sequenceId.value;
  const loaded = useKeyed(`${model} ${id}`, async (signal) => {
    const found = id >= 0 ? id : await findFirst(model, signal);
    return { row: found === null ? null : await loadSequence(model, found, signal) };
  });
  return { ...loaded, value: loaded.value?.row ?? null };
}

async function findFirst(model: string, signal: AbortSignal): Promise<number | null> {
  const { rows } = await loadSequences(model, { limit: 1 }, signal);
  return rows[0]?.sequence_id ?? null;
}

/** Where a sequence stands among all of its model; ids have gaps. */
export interface Neighbours {
  readonly before: number | null;
  readonly after: number | null;
  /** From 1. */
  readonly rank: number;
  readonly n: number;
}

/** The neighbours of a sequence, by id. */
export async function loadNeighbours(
  model: string,
  id: number,
  signal: AbortSignal,
): Promise<Neighbours> {
  const lower = { filter: [`sequence_id:<:${id}`], sort: ["-sequence_id"], limit: 1 };
  const higher = { filter: [`sequence_id:>:${id}`], sort: ["sequence_id"], limit: 1 };
  const [before, after] = await Promise.all([
    loadSequences(model, lower, signal),
    loadSequences(model, higher, signal),
  ]);
  const nBefore = before.n_matches ?? 0;
  return {
    before: before.rows[0]?.sequence_id ?? null,
    after: after.rows[0]?.sequence_id ?? null,
    rank: nBefore + 1,
    n: nBefore + 1 + (after.n_matches ?? 0),
  };
}

/** Show another sequence in the same view; −1 for the first. */
export function goTo(sequenceId: number): void {
  change({ sequenceId, hidden: [], firstQuery: 0 });
}
