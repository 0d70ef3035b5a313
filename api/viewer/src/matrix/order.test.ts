import { describe, expect, it } from "vitest";
import { arrange, readOrder, sortHeads, writeOrder } from "./order";

const HEADS = [
  { layer: 0, head: 0 },
  { layer: 0, head: 1 },
  { layer: 1, head: 0 },
  { layer: 1, head: 1 },
];

describe("order of the matrix", () => {
  it("comes back from the text that it is written as", () => {
    for (const text of ["entropy", "-entropy", "-map.score_spearman/layer", "entropy/layer", ""]) {
      expect(writeOrder(readOrder(text))).toBe(text);
    }
    expect(readOrder("-entropy/layer")).toEqual({
      name: "entropy",
      isDescending: true,
      isWithinLayer: true,
    });
  });

  it("puts heads without a value last, both ways", () => {
    const values = [null, 2, Number.NaN, 1];
    expect(sortHeads(HEADS, values, false)).toEqual([3, 1, 0, 2]);
    expect(sortHeads(HEADS, values, true)).toEqual([1, 3, 0, 2]);
  });

  it("keeps heads of equal value by layer and head, both ways", () => {
    const values = [1, 1, 0, 1];
    expect(sortHeads(HEADS, values, false)).toEqual([2, 0, 1, 3]);
    expect(sortHeads(HEADS, values, true)).toEqual([0, 1, 3, 2]);
  });

  it("lays heads out by layer and head, also where some are not in the atlas", () => {
    const sheet = arrange([{ layer: 2, head: 5 }, ...HEADS], null, []);
    expect([sheet.nColumns, sheet.nRows]).toEqual([3, 3]);
    expect([sheet.columns[0], sheet.rows[0]]).toEqual([2, 2]);
    expect(sheet.columnNames).toEqual(["head 0", "head 1", "head 5"]);
    expect(sheet.rowNames).toEqual(["layer 0", "layer 1", "layer 2"]);
  });

  it("fills rows by rank where all heads are sorted", () => {
    const sheet = arrange(HEADS, readOrder("entropy"), [4, 3, 2, 1]);
    expect(sheet.columns).toEqual([1, 0, 1, 0]);
    expect(sheet.rows).toEqual([1, 1, 0, 0]);
    expect(sheet.rowNames).toEqual(["1–2", "3–4"]);
  });

  it("keeps layers as rows where heads are sorted within them", () => {
    const sheet = arrange(HEADS, readOrder("-entropy/layer"), [1, 2, null, 1]);
    expect(sheet.rows).toEqual([0, 0, 1, 1]);
    expect(sheet.columns).toEqual([1, 0, 1, 0]);
    expect(sheet.rowNames).toEqual(["layer 0", "layer 1"]);
  });
});
