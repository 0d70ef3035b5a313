/** Keeps the search hits equal to what is searched, and counts them. */

import { computed, effect, type ReadonlySignal, signal } from "@preact/signals";
import { countTokens, loadPoints, searchTokens } from "../contract/atlas";
import { PlaceSet } from "../contract/places";
import { isIn } from "../contract/points";
import type { MapRow, ModelRow } from "../contract/rows";
import { hits } from "../contract/selection";
import { state } from "../contract/state";
import { hasImages, map, model } from "./chosen";
import { searchLabels } from "./label_search";

/** Places that one search lights at most. */
export const MOST_HITS = 100_000;

/** How often the text occurs. */
export interface SearchCount {
  /** Tokens, or patches of images, in the whole corpus. */
  readonly inCorpus: number;
  /** Points on the map of Single View; null where there is no map in sight. */
  readonly shown: number | null;
  /** How many points the ones shown are counted among; null for all of the map. */
  readonly among: number | null;
  /** True where only the first MOST_HITS are lit. */
  readonly hasMore: boolean;
}

/** What is asked of the corpus. */
interface Asked {
  readonly text: string;
  readonly match: string;
  readonly case: boolean;
  /** Whether labels of images are searched too. */
  readonly hasLabels: boolean;
}

const inCorpus = signal<{ n: number; hasMore: boolean } | null>(null);
const shown = signal<{ n: number; among: number | null } | null>(null);

/** Why the search failed. */
export const searchProblem = signal<Error | null>(null);

/** True from a search to its hits. */
export const isSearching = signal(false);

/** Counts of the search; null while there is none. */
export const searchCount: ReadonlySignal<SearchCount | null> = computed(() => {
  const counted = inCorpus.value;
  if (!counted) return null;
  const { n = null, among = null } = shown.value ?? {};
  return { inCorpus: counted.n, shown: n, among, hasMore: counted.hasMore };
});

/** Keep hits and counts as the state wants them; returns what ends that. */
export function followSearch(): () => void {
  const stopHits = effect(() => {
    const row = model.value;
    const asked = {
      text: state.search.value,
      match: state.match.value,
      case: !state.anyCase.value,
      hasLabels: hasImages.value,
    };
    const controller = new AbortController();
    if (row === null || asked.text === "") forget();
    else void find(row, asked, controller.signal);
    return () => controller.abort();
  });
  const stopShown = effect(() => {
    const found = hits.value;
    const mapRow = state.view.value === "single" ? map.value : null;
    const controller = new AbortController();
    shown.value = null;
    if (found && mapRow) void countShown(mapRow, found, controller.signal);
    return () => controller.abort();
  });
  return () => {
    stopHits();
    stopShown();
  };
}

function forget(): void {
  hits.value = null;
  inCorpus.value = null;
  searchProblem.value = null;
  isSearching.value = false;
}

async function find(row: ModelRow, asked: Asked, aborted: AbortSignal): Promise<void> {
  isSearching.value = true;
  searchProblem.value = null;
  try {
    const found = await findBoth(row, asked, aborted);
    inCorpus.value = { n: found.n, hasMore: found.hasMore };
    hits.value = found.places;
  } catch (error) {
    if (aborted.aborted) return; // overtaken by another search
    forget();
    searchProblem.value = error instanceof Error ? error : new Error(String(error));
  } finally {
    if (!aborted.aborted) isSearching.value = false;
  }
}

interface Found {
  readonly n: number;
  readonly hasMore: boolean;
  readonly places: PlaceSet;
}

/** Queries and keys may be of two corpora, as in cross attention. */
async function findBoth(row: ModelRow, asked: Asked, aborted: AbortSignal): Promise<Found> {
  const sides = [...new Set([row.query_model, row.key_model])];
  const places = new PlaceSet();
  const found = await Promise.all(sides.map((side) => findSide(side, asked, aborted)));
  for (const [index, { rows }] of found.entries()) {
    for (const { sequence_id, position } of rows) {
      if (sides[index] === row.query_model) places.add(1, sequence_id, position);
      if (sides[index] === row.key_model) places.add(0, sequence_id, position);
    }
  }
  const n = found.reduce((sum, side) => sum + side.n, 0);
  return { n, hasMore: found.some((side) => side.hasMore), places };
}

async function findSide(side: string, asked: Asked, aborted: AbortSignal) {
  const { hasLabels, ...tokens } = asked;
  const [page, counts, labels] = await Promise.all([
    searchTokens(side, { ...tokens, limit: MOST_HITS }, aborted),
    countTokens(side, tokens, aborted),
    hasLabels ? searchLabels(side, tokens, MOST_HITS, aborted) : null,
  ]);
  return {
    rows: [...page.rows, ...(labels?.rows ?? [])],
    hasMore: page.hasMore || (labels?.hasMore ?? false),
    n: counts.reduce((sum, count) => sum + count.n, labels?.n ?? 0),
  };
}

async function countShown(row: MapRow, found: PlaceSet, aborted: AbortSignal): Promise<void> {
  try {
    const points = await loadPoints(row, {}, aborted);
    let n = 0;
    for (let i = 0; i < points.n; i++) n += Number(isIn(points, i, found));
    shown.value = { n, among: points.n < row.n_points ? points.n : null };
  } catch {
    // Overtaken, or the map failed: the map's own place says so, and here is no count.
  }
}
