import { expect, test } from "vitest";
import type { HeadRow } from "../contract/rows";
import { runsOutOfReach } from "./HeatMap";
import { describeReach, makeReach } from "./reach";

function head(mask: "full" | "causal", window: number | null): HeadRow {
  return { model: "m", layer: 0, head: 0, kv_head: 0, mask, window };
}

test("a full mask without a window hides nothing and says nothing", () => {
  expect(makeReach(head("full", null))).toBeNull();
  expect(describeReach(head("full", null))).toBe("");
  expect(makeReach(null)).toBeNull();
});

test.each([
  ["causal", null],
  ["causal", 3],
  ["full", 3],
] as const)("%s mask with window %s reaches what docs/tables.md says", (mask, window) => {
  const reach = makeReach(head(mask, window));
  for (let i = 0; i < 8; i++) {
    for (let j = 0; j < 8; j++) {
      const isReached =
        (mask === "full" || j <= i) && (window === null || Math.abs(i - j) < window);
      expect(reach?.(i, j)).toBe(isReached);
    }
  }
});

test("the words name the mask and the window", () => {
  expect(describeReach(head("causal", 4))).toMatch(/causal mask.*window of 4/);
});

test("what is hatched are the keys out of reach, in runs", () => {
  const reach = makeReach(head("causal", 2));
  expect(reach && runsOutOfReach(reach, 4, 8)).toEqual([
    [0, 3],
    [5, 8],
  ]);
});
