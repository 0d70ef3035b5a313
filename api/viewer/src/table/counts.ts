/** How many of the sequences that match are on the map in sight, and what each holds. */

import { loadSequences } from "../contract/atlas";
import { askSql } from "../contract/client";
import type { PlaceSet } from "../contract/places";
import type { MapRow } from "../contract/rows";

/** What narrows the table. */
export interface Asked {
  readonly contains: string | undefined;
  readonly filter: readonly string[];
  readonly token: string | undefined;
}

/** Sequence ids in one address: it stays below what servers take. */
const IDS_A_QUESTION = 300;
const MOST_QUESTIONS = 8;

const SEQUENCES_OF_MAP =
  "SELECT DISTINCT sequence_id::DOUBLE AS sequence_id FROM points WHERE map_id = $map_id";

/** The sequences that a map has points of. */
export async function loadSequencesOfMap(
  map: MapRow,
  signal: AbortSignal,
): Promise<ReadonlySet<number>> {
  const { table } = await askSql(SEQUENCES_OF_MAP, { map_id: map.map_id }, signal);
  return new Set((table.getChild("sequence_id")?.toArray() ?? []) as ArrayLike<number> as number[]);
}

/** How many sequences match and are in a set; null for a set too large to ask about. */
export async function countAmong(
  model: string,
  asked: Asked,
  ids: ReadonlySet<number>,
  signal: AbortSignal,
): Promise<number | null> {
  if (ids.size > IDS_A_QUESTION * MOST_QUESTIONS) return null;
  const questions = splitList([...ids], IDS_A_QUESTION).map(async (some) => {
    const filter = [...asked.filter, `sequence_id:in:${some.join(",")}`];
    const page = await loadSequences(model, { ...narrow(asked), filter, limit: 1 }, signal);
    return page.n_matches ?? page.n_rows;
  });
  const counts = await Promise.all(questions);
  return counts.reduce((sum, n) => sum + n, 0);
}

/** The parameters of a question without those that are not set. */
export function narrow(asked: Asked): {
  contains?: string;
  token?: string;
  filter: readonly string[];
} {
  return {
    ...(asked.contains ? { contains: asked.contains } : {}),
    ...(asked.token ? { token: asked.token } : {}),
    filter: asked.filter,
  };
}

/** A list in pieces of at most so many. */
export function splitList<T>(list: readonly T[], most: number): readonly (readonly T[])[] {
  const pieces: (readonly T[])[] = [];
  for (let from = 0; from < list.length; from += most) pieces.push(list.slice(from, from + most));
  return pieces;
}

/** How many places of a set each sequence has. */
export function countBySequence(places: PlaceSet | null): ReadonlyMap<number, number> {
  const counts = new Map<number, number>();
  if (places === null) return counts;
  for (const { sequenceId } of places.places()) {
    counts.set(sequenceId, (counts.get(sequenceId) ?? 0) + 1);
  }
  return counts;
}

/** How many tokens of each sequence are in a set, its query and key counted once. */
export function countTokensBySequence(places: PlaceSet | null): ReadonlyMap<number, number> {
  const counts = new Map<number, number>();
  if (places === null) return counts;
  let last = "";
  for (const { sequenceId, position } of places.places()) {
    const token = `${sequenceId}:${position}`;
    if (token !== last) counts.set(sequenceId, (counts.get(sequenceId) ?? 0) + 1);
    last = token;
  }
  return counts;
}
