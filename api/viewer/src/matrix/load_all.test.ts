import { describe, expect, it } from "vitest";
import type { MapRow, ModelRow } from "../contract/rows";
import { chooseMethod, countPoints } from "./load_all";

function map(method: string, dims: 2 | 3): MapRow {
  return { method, dims } as MapRow;
}

describe("what the matrix asks for", () => {
  it("is thousands of points a head, but no more in all than a frame draws", () => {
    const model = (n_layers: number, n_heads: number) => ({ n_layers, n_heads }) as ModelRow;
    expect(countPoints(model(12, 12))).toBe(2_000);
    expect(countPoints(model(80, 64))).toBe(117);
    expect(countPoints(model(1_000, 1_000))).toBe(1);
  });

  it("is attention where a head has it, else the newest map of these dimensions", () => {
    expect(chooseMethod([map("pca", 2), map("attention", 2)], 2)).toBe("attention");
    expect(chooseMethod([map("umap", 3), map("pca", 2)], 2)).toBe("pca");
    expect(chooseMethod([map("pca", 2)], 3)).toBe("pca");
    expect(chooseMethod([], 2)).toBe("");
  });
});
