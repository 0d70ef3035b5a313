import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { newestVersion } from "../contract/client";
import type { HeadRow } from "../contract/rows";
import { change, readState } from "../contract/state";
import {
  followListings,
  hasImages,
  headRow,
  isEmpty,
  isListing,
  isUnknownModel,
  listMeasures,
  map,
  measures,
  method,
  model,
  models,
  problem,
  reloadListings,
} from "./chosen";
import { openModel } from "./open_head";

const makeModel = (name: string) => ({
  model: name,
  query_model: name,
  key_model: name,
  n_layers: 2,
  n_heads: 2,
});
const makeMap = (of: string, name: string, dims: number, joint = "lift") => ({
  map_id: `${of}-${name}-${dims}-${joint}`,
  model: of,
  layer: 0,
  head: 0,
  method: name,
  dims,
  joint: JSON.stringify({ method: joint, centre: [0.1] }),
});

interface Atlas {
  models: string[];
  maps: Record<string, unknown[]>;
  images: string[];
  failing: string;
}

let atlas: Atlas;
let stop = () => {};

function answer(url: string): Response {
  const { pathname, searchParams } = new URL(url, "http://atlas.test");
  const name = searchParams.get("model") ?? "";
  if (pathname === `/${atlas.failing}`) {
    return Response.json({ error: { kind: "internal", message: "it broke" } }, { status: 500 });
  }
  if (pathname === "/v1/models") return toPage(atlas.models.map(makeModel));
  if (pathname === "/v1/maps") return toPage(atlas.maps[name] ?? []);
  if (pathname === "/v1/heads") {
    return toPage([{ model: name, layer: 0, head: 0, kv_head: 0, d_head: 8, entropy: 0.5 }]);
  }
  const of = pathname.split("/")[3] ?? "";
  return toPage([{ sequence_id: 0, text: atlas.images.includes(of) ? null : "a text" }]);
}

const toPage = (rows: unknown[]) =>
  Response.json({ rows }, { headers: { "X-Atlas-Version": version } });

let version = "v0";

beforeEach(() => {
  version = `${version}x`;
  newestVersion.value = version; // what was kept of another test is forgotten
  atlas = { models: ["a", "b"], maps: {}, images: ["b"], failing: "" };
  atlas.maps["a"] = [makeMap("a", "umap", 2), makeMap("a", "attention", 2)];
  vi.stubGlobal("fetch", async (url: string) => answer(url));
});

afterEach(() => {
  stop();
  readState("");
  vi.unstubAllGlobals();
});

async function list(): Promise<void> {
  stop();
  stop = followListings();
  await reloadListings();
  await vi.waitFor(() => expect(isListing.value).toBe(false));
}

test("without a name the first model is in sight, with attention as its map", async () => {
  await list();
  await vi.waitFor(() => expect(models.value).toHaveLength(2));
  expect(model.value?.model).toBe("a");
  expect(method.value).toBe("attention");
  expect(map.value?.map_id).toBe("a-attention-2-lift");
  expect(map.value?.joint).toBe("lift");
  expect(headRow.value?.["entropy"]).toBe(0.5);
  expect(measures.value).toEqual(["entropy"]);
  expect(hasImages.value).toBe(false);
});

test("the map is of the state's method, joint space and dimensions, or none", async () => {
  atlas.maps["a"] = [makeMap("a", "umap", 2, "translate"), makeMap("a", "umap", 2, "balance")];
  await list();
  await vi.waitFor(() => expect(map.value?.map_id).toBe("a-umap-2-translate"));
  change({ joint: "balance" });
  expect(map.value?.map_id).toBe("a-umap-2-balance");
  change({ dims: 3 });
  expect(map.value).toBeNull();
  change({ dims: 2, method: "pca" });
  expect(map.value).toBeNull();
  change({ method: "", layer: 1 });
  expect(map.value).toBeNull();
});

test("another model comes with its own listings, and the head stays within it", async () => {
  await list();
  change({ layer: 7, head: 1, method: "umap", tint: "entropy" });
  openModel("b");
  await vi.waitFor(() => expect(hasImages.value).toBe(true));
  expect(model.value?.model).toBe("b");
  expect(method.value).toBe("");
  expect(headRow.value).toBeNull();
  change({ layer: 0, head: 0 });
  expect(headRow.value?.model).toBe("b");
});

test("a name that is not in the atlas is no other model in disguise", async () => {
  change({ model: "gone" });
  await list();
  await vi.waitFor(() => expect(isUnknownModel.value).toBe(true));
  expect(model.value).toBeNull();
  openModel("a");
  expect(isUnknownModel.value).toBe(false);
});

test("an atlas without models is empty, until a newer version has one", async () => {
  atlas.models = [];
  await list();
  await vi.waitFor(() => expect(isEmpty.value).toBe(true));
  atlas.models = ["a"];
  version = `${version}x`;
  await reloadListings();
  await vi.waitFor(() => expect(isEmpty.value).toBe(false));
});

test("a listing that fails says why, and tries again when asked to", async () => {
  atlas.failing = "v1/maps";
  await list();
  await vi.waitFor(() => expect(problem.value?.message).toBe("it broke"));
  atlas.failing = "";
  await reloadListings();
  await vi.waitFor(() => expect(problem.value).toBeNull());
});

test("measures are numbers that some head has, and no facts of heads", () => {
  const facts = { model: "a", layer: 0, head: 0, kv_head: 0, mask: "full", d_head: 8, scaling: 1 };
  const rows = [
    { ...facts, window: 128, entropy: null, offset_bias: [1] },
    { ...facts, window: null, entropy: 0.1, induction: 0.2, backend: "x" },
  ] as unknown as HeadRow[];
  expect(listMeasures(rows)).toEqual(["entropy", "induction"]);
});
