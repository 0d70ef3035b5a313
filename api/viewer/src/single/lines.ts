/** Attention over some sequences as lines between the points of a map. */

import { loadAttention } from "../contract/atlas";
import type { Place } from "../contract/places";
import type { MapPoints } from "../contract/points";
import type { MapRow } from "../contract/rows";
import { topKeys } from "../sentence/attention_lines";
import type { LineSequences } from "./marks";
import { findPlaces } from "./neighbours";

/** Sequences that get lines at once: more would be a grey cloud. */
export const MOST_LINE_SEQUENCES = 30;
const KEYS_A_QUERY = 2;
const LEAST_WEIGHT = 0.05;
/** Queries of a sequence that get lines: a longer one is cut. */
export const MOST_QUERIES = 512;

/** One query's attention to one key, by position in their sequence. */
export interface Line {
  readonly sequenceId: number;
  readonly query: number;
  readonly key: number;
  readonly weight: number;
}

/** Lines of some sequences; those that could not be had are told. */
export interface Lines {
  readonly lines: readonly Line[];
  readonly nLeftOut: number;
  /** Whether a sequence has more than MOST_QUERIES queries. */
  readonly isCut: boolean;
  readonly problem: Error | null;
}

/** The strongest keys of each query of some sequences, by this head. */
export async function loadLines(
  map: MapRow,
  { sequenceIds, nLeftOut }: LineSequences,
  signal: AbortSignal,
): Promise<Lines> {
  const replies = await Promise.allSettled(sequenceIds.map((id) => loadLinesOf(map, id, signal)));
  signal.throwIfAborted();
  const loaded = replies.flatMap((reply) => (reply.status === "fulfilled" ? [reply.value] : []));
  const lines = loaded.flatMap((one) => one.lines);
  const isCut = loaded.some((one) => one.isCut);
  const failed = replies.find((reply) => reply.status === "rejected");
  return { lines, nLeftOut, isCut, problem: failed ? (failed.reason as Error) : null };
}

async function loadLinesOf(
  map: MapRow,
  sequenceId: number,
  signal: AbortSignal,
): Promise<{ lines: Line[]; isCut: boolean }> {
  const attention = await loadAttention(map, sequenceId, { nQueries: MOST_QUERIES }, signal);
  const lines = topKeys(attention, KEYS_A_QUERY, LEAST_WEIGHT).map((top) => ({
    sequenceId,
    query: top.query,
    key: top.key,
    weight: top.weight,
  }));
  return { lines, isCut: attention.queries.length >= MOST_QUERIES };
}

/** A line between two points of a map, by index. */
export interface DrawnLine {
  readonly query: number;
  readonly key: number;
  readonly weight: number;
}

/** The lines whose both ends are on the map, the weakest first so that strong ones lie on top. */
export function placeLines(points: MapPoints, lines: readonly Line[]): DrawnLine[] {
  const places = lines.flatMap(({ sequenceId, query, key }): Place[] => [
    { kind: "query", sequenceId, position: query },
    { kind: "key", sequenceId, position: key },
  ]);
  const indices = findPlaces(points, places);
  return lines
    .map(({ weight }, i) => ({
      query: indices[2 * i] ?? -1,
      key: indices[2 * i + 1] ?? -1,
      weight,
    }))
    .filter((line) => line.query >= 0 && line.key >= 0)
    .sort((a, b) => a.weight - b.weight);
}
