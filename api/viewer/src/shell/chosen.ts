/** What the state names, found in the atlas's listings: the model, its heads and maps. */

import { batch, computed, effect, type ReadonlySignal, type Signal, signal } from "@preact/signals";
import { findMap, loadHeads, loadMaps, loadModels, loadSequences } from "../contract/atlas";
import { ask, newestVersion } from "../contract/client";
import type { HeadRow, MapRow, ModelRow } from "../contract/rows";
import { state } from "../contract/state";

/** What is listed of one model. */
interface Listing {
  readonly model: string;
  readonly heads: readonly HeadRow[];
  readonly maps: readonly MapRow[];
  readonly hasImages: boolean;
}

const listedModels = signal<readonly ModelRow[] | null>(null);
const listing = signal<Listing | null>(null);
const modelsFailure = signal<Error | null>(null);
const modelFailure = signal<Error | null>(null);
const round = signal(0);

/** The atlas's version that the listings are of. */
export const listedVersion = signal("");

/** All models of the atlas. */
export const models: ReadonlySignal<readonly ModelRow[]> = computed(() => listedModels.value ?? []);

/** The model that the state names, else the first; null for none, or for a name not there. */
export const model: ReadonlySignal<ModelRow | null> = computed(() => {
  const name = state.model.value;
  if (name === "") return models.value[0] ?? null;
  return models.value.find((row) => row.model === name) ?? null;
});

const ofModel = computed(() =>
  listing.value?.model === model.value?.model ? listing.value : null,
);

/** The heads of the model with their measures; empty while they load. */
export const heads: ReadonlySignal<readonly HeadRow[]> = computed(() => ofModel.value?.heads ?? []);

/** The maps of the model, newest first within a head; empty while they load. */
export const maps: ReadonlySignal<readonly MapRow[]> = computed(() => ofModel.value?.maps ?? []);

/** Whether the sequences of the model are images. */
export const hasImages: ReadonlySignal<boolean> = computed(() => ofModel.value?.hasImages ?? false);

/** The head in sight; null where the model has no such head. */
export const headRow: ReadonlySignal<HeadRow | null> = computed(() => {
  const layer = state.layer.value;
  const head = state.head.value;
  return heads.value.find((row) => row.layer === layer && row.head === head) ?? null;
});

/** The method in sight: as the state names it, else attention if there, else the first. */
export const method: ReadonlySignal<string> = computed(() => {
  if (state.method.value !== "") return state.method.value;
  const ofDims = maps.value.filter((map) => map.dims === state.dims.value);
  const methods = (ofDims.length > 0 ? ofDims : maps.value).map((map) => map.method);
  return methods.includes("attention") ? "attention" : (methods[0] ?? "");
});

/** The map of the head in sight; null where it has none of that method, space and dimensions. */
export const map: ReadonlySignal<MapRow | null> = computed(() => {
  const name = model.value?.model;
  if (name === undefined) return null;
  const at = { model: name, layer: state.layer.value, head: state.head.value };
  return findMap(maps.value, at, method.value, state.joint.value, state.dims.value);
});

const FACTS: ReadonlySet<string> = new Set([
  "model",
  "layer",
  "head",
  "kv_head",
  "d_head",
  "scaling",
  "window",
  "soft_cap",
  "sink",
]);

/** Names of the measures that some head has, by name. */
export const measures: ReadonlySignal<readonly string[]> = computed(() =>
  listMeasures(heads.value),
);

/** The columns of heads that are numbers and no facts of the head. */
export function listMeasures(rows: readonly HeadRow[]): readonly string[] {
  const names = new Set<string>();
  for (const row of rows) {
    for (const [name, value] of Object.entries(row)) {
      if (typeof value === "number" && !FACTS.has(name)) names.add(name);
    }
  }
  return [...names].sort();
}

/** Why the listings could not be had. */
export const problem: ReadonlySignal<Error | null> = computed(
  () => modelsFailure.value ?? modelFailure.value,
);

/** True until the models, and the heads and maps of the model in sight, are there or failed. */
export const isListing: ReadonlySignal<boolean> = computed(() => {
  if (problem.value) return false;
  return listedModels.value === null || (model.value !== null && ofModel.value === null);
});

/** True for an atlas without a model. */
export const isEmpty: ReadonlySignal<boolean> = computed(() => listedModels.value?.length === 0);

/** True where the state names a model that the atlas does not have. */
export const isUnknownModel: ReadonlySignal<boolean> = computed(
  () => models.value.length > 0 && model.value === null,
);

/** Keep the listings as the state wants them; returns what ends that. */
export function followListings(): () => void {
  if (state.model.peek() !== "") beginEarly(state.model.peek());
  const stopModels = effect(() => {
    round.value;
    const controller = new AbortController();
    void listModels(controller.signal);
    return () => controller.abort();
  });
  const stopModel = effect(() => {
    round.value;
    const row = model.value;
    if (row === null) return;
    const controller = new AbortController();
    void listModel(row, controller.signal);
    return () => controller.abort();
  });
  return () => {
    stopModels();
    stopModel();
  };
}

/** A link names the model, so its heads and maps need not wait for the listing of models. */
function beginEarly(name: string): void {
  for (const load of [loadHeads, loadMaps]) {
    load(name).catch(() => {
      // Asked again with the model's row, and told then.
    });
  }
}

/** List all anew, as after a failure or for a newer version of the atlas. */
export async function reloadListings(): Promise<void> {
  try {
    await ask("v1"); // its reply tells the version, at which older listings are forgotten
  } catch (error) {
    modelsFailure.value = toError(error);
    return;
  }
  round.value += 1;
}

async function listModels(aborted: AbortSignal): Promise<void> {
  await noteFailure(modelsFailure, aborted, async () => {
    const rows = await loadModels(aborted);
    batch(() => {
      listedModels.value = rows;
      listedVersion.value = newestVersion.value;
    });
  });
}

async function listModel(row: ModelRow, aborted: AbortSignal): Promise<void> {
  await noteFailure(modelFailure, aborted, async () => {
    const [headRows, mapRows, hasPictures] = await Promise.all([
      loadHeads(row.model, aborted),
      loadMaps(row.model, aborted),
      askWhetherImages(row.query_model, aborted),
    ]);
    listing.value = { model: row.model, heads: headRows, maps: mapRows, hasImages: hasPictures };
  });
}

async function askWhetherImages(name: string, aborted: AbortSignal): Promise<boolean> {
  const { rows } = await loadSequences(name, { limit: 1 }, aborted);
  return rows[0] !== undefined && rows[0].text === null;
}

async function noteFailure(
  failure: Signal<Error | null>,
  aborted: AbortSignal,
  load: () => Promise<void>,
): Promise<void> {
  try {
    await load();
    failure.value = null;
  } catch (error) {
    if (!aborted.aborted) failure.value = toError(error); // else somebody else's load tells
  }
}

function toError(error: unknown): Error {
  return error instanceof Error ? error : new Error(String(error));
}
