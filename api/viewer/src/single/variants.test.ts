import { describe, expect, it } from "vitest";
import type { MapRow } from "../contract/rows";
import {
  choicesOf,
  closestVariant,
  findVariant,
  readTarget,
  variantsOf,
  writeTarget,
} from "./variants";

function makeMap(fields: Partial<MapRow>): MapRow {
  return {
    map_id: JSON.stringify(fields),
    model: "minilm",
    layer: 0,
    head: 0,
    method: "umap",
    dims: 2,
    joint: "translate",
    n_queries: 1,
    n_keys: 1,
    n_points: 2,
    generation: 1,
    backend: "",
    score_spearman: null,
    top_key_recall_3: null,
    score_spearman_content: null,
    top_key_recall_3_content: null,
    trustworthiness: null,
    continuity: null,
    heldout_score_spearman: null,
    heldout_top_key_recall_3: null,
    ...fields,
  };
}

const flat = makeMap({ method: "attention", joint: "lift" });
const deep = makeMap({ method: "attention", joint: "lift", dims: 3 });
const pca = makeMap({ method: "pca" });
const balanced = makeMap({ method: "pca", joint: "balance", generation: 2 });
const elsewhere = makeMap({ method: "tsne", head: 1 });
const all = [pca, balanced, deep, elsewhere, flat];

describe("the maps of a head", () => {
  it("are only its own, attention first", () => {
    expect(variantsOf(all, 0, 0)).toEqual([flat, deep, balanced, pca]);
    expect(variantsOf(all, 0, 2)).toEqual([]);
  });

  it("are the newest of each kind, in whatever order they are listed", () => {
    const newer = makeMap({ method: "pca", generation: 5 });
    expect(variantsOf([pca, newer], 0, 0)).toEqual([newer]);
    expect(variantsOf([newer, pca], 0, 0)).toEqual([newer]);
  });

  it("offer only choices that lead to a map", () => {
    const variants = variantsOf(all, 0, 0);
    expect(choicesOf(variants, flat)).toEqual({
      methods: ["attention", "pca"],
      joints: ["lift"],
      dims: [2, 3],
    });
    expect(choicesOf(variants, pca).joints).toEqual(["balance", "translate"]);
    expect(choicesOf(variants, pca).dims).toEqual([2]);
  });
});

describe("a map that is asked for", () => {
  const variants = variantsOf(all, 0, 0);

  it("is exactly that or none", () => {
    expect(findVariant(variants, pca)).toBe(pca);
    expect(findVariant(variants, { method: "pca", joint: "lift", dims: 2 })).toBeNull();
    expect(findVariant(variants, { method: "pca", joint: "", dims: 3 })).toBeNull();
  });

  it("is the newest where no joint space is named", () => {
    expect(findVariant(variants, { method: "pca", joint: "", dims: 2 })).toBe(balanced);
  });

  it("gives the likest where a menu changes one thing: the method before the dims", () => {
    expect(closestVariant(variants, { method: "pca", joint: "lift", dims: 3 })?.method).toBe("pca");
    expect(closestVariant(variants, { method: "attention", joint: "", dims: 3 })).toBe(deep);
    expect(closestVariant([], flat)).toBeNull();
  });
});

describe("the second pane's target", () => {
  it("survives the address, with slashes in the model's name", () => {
    const target = { model: "a/b/c", layer: 3, head: 11, method: "pca", joint: "", dims: 3 };
    expect(readTarget(writeTarget(target))).toEqual(target);
  });

  it.each(["", "minilm", "minilm/0/0/pca/lift/4", "minilm/-1/0/pca/lift/2", "/0/0/pca/lift/2"])(
    "is none for %j",
    (text) => {
      expect(readTarget(text)).toBeNull();
    },
  );
});
