import { expect, test } from "vitest";
import type { Attention } from "../contract/rows";
import { arrange, hasNothingLeft, rowOf, WINDOW } from "./arrangement";
import { sum } from "./attention_lines";
import { describeFocus } from "./describe_focus";
import { listLines } from "./draw_lines";

const PLAIN = { hidden: [], hideSpecial: false, hideFirst: false };

function uniform(nQueries: number, nKeys: number, first = 0): Attention {
  const place = (position: number) => ({
    position,
    token: `t${position}`,
    is_special: position === nKeys - 1,
  });
  return {
    queries: Array.from({ length: nQueries }, (_, i) => place(first + i)),
    keys: Array.from({ length: nKeys }, (_, j) => place(j)),
    weights: Array.from({ length: nQueries }, () => Array.from({ length: nKeys }, () => 1 / nKeys)),
  };
}

test("keys are hidden by hand, as special and as first, and the rest sums to 1", () => {
  const shown = arrange(uniform(3, 5), { hidden: [2], hideSpecial: true, hideFirst: true });
  expect([...shown.hidden].sort()).toEqual([0, 2, 4]);
  for (const row of shown.weights) expect(row).toEqual([0, 0.5, 0, 0.5, 0]);
});

test("positions that the sequence does not have hide nothing", () => {
  expect(arrange(uniform(2, 3), { ...PLAIN, hidden: [7] }).hidden.size).toBe(0);
});

test("a query whose keys are all hidden has nothing left, and is told so", () => {
  const shown = arrange(uniform(2, 2), { ...PLAIN, hidden: [0, 1] });
  expect(hasNothingLeft(shown, 0)).toBe(true);
  expect(describeFocus(shown, { query: 0, key: null })).toContain("nothing left");
  expect(hasNothingLeft(arrange(uniform(2, 2), PLAIN), 0)).toBe(false);
});

test("of 2,048 keys no more are listed than a window and a few outside", () => {
  const shown = arrange(uniform(WINDOW, 2048, 256), PLAIN);
  expect(shown.listed.length).toBe(WINDOW + 8);
  expect(shown.listed.slice(8)).toEqual(Array.from({ length: WINDOW }, (_, i) => 256 + i));
  expect(shown.weights[0]?.length).toBe(2048);
  expect(describeFocus(shown, { query: 256, key: null })).toContain(
    `1,920 keys outside this window hold ${(1920 / 2048).toFixed(2)} of the attention`,
  );
});

test("rows are found by position within the window alone", () => {
  const shown = arrange(uniform(4, 300, 128), PLAIN);
  expect([128, 131, 132, 127, null].map((position) => rowOf(shown, position))).toEqual([
    0, 3, -1, -1, -1,
  ]);
});

test("lines are all that can be seen, or those of the token in focus", () => {
  const shown = arrange(uniform(3, 4), PLAIN);
  expect(listLines(shown, null).length).toBe(12);
  expect(listLines(shown, { query: 1, key: null }).map((line) => line.from)).toEqual([1, 1, 1, 1]);
  expect(listLines(shown, { query: null, key: 2 }).map((line) => line.to)).toEqual([2, 2, 2]);
  expect(listLines(shown, { query: 1, key: 2 }).length).toBe(1);
  const weak = arrange(uniform(2, 150), PLAIN);
  expect(sum(listLines(weak, null).map((line) => line.weight))).toBe(0);
});

test("a cell in focus is told with its weight", () => {
  const text = describeFocus(arrange(uniform(3, 4), PLAIN), { query: 1, key: 2 });
  expect(text).toMatch(/t1.*\(1\) → key .*t2.*\(2\): \.250/);
});
