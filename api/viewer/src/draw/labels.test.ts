import { expect, test } from "vitest";
import { type LabelCandidate, placeLabels } from "./labels";

const SIZE = { width: 600, height: 400 };
const measure = (text: string) => 7 * text.length;

function crowd(n: number): LabelCandidate[] {
  return Array.from({ length: n }, (_, index) => ({
    index,
    px: (index * 7919) % SIZE.width,
    py: (index * 104_729) % SIZE.height,
    text: `token ${index % 17}`,
    weight: index % 101,
  }));
}

test("no two labels overlap and all are within the picture", () => {
  const placed = placeLabels(crowd(3_000), SIZE, measure);
  expect(placed.length).toBeGreaterThan(50);
  for (const a of placed) {
    expect(a.x).toBeGreaterThanOrEqual(0);
    expect(a.x + measure(a.text)).toBeLessThanOrEqual(SIZE.width);
    for (const b of placed) {
      if (a === b) continue;
      const isBeside = a.x + measure(a.text) <= b.x || b.x + measure(b.text) <= a.x;
      expect(isBeside || Math.abs(a.y - b.y) >= 12).toBe(true);
    }
  }
});

test("the weightiest has its label first, and a crowd has no more than asked for", () => {
  const at = { px: 100, py: 100, text: "word" };
  const candidates = [
    { ...at, index: 0, weight: 1 },
    { ...at, index: 1, weight: 5, py: 102 },
  ];
  expect(placeLabels(candidates, SIZE, measure)[0]?.index).toBe(1);
  expect(placeLabels(crowd(3_000), SIZE, measure, 20)).toHaveLength(20);
});

test("a label at the right edge stands left of its point; what is out of sight or empty has none", () => {
  const one = { index: 0, px: 595, py: 100, text: "wide word", weight: 1 };
  const [label] = placeLabels([one], SIZE, measure);
  expect((label?.x ?? 600) + measure(one.text)).toBeLessThan(one.px);
  expect(placeLabels([{ ...one, px: 601 }], SIZE, measure)).toEqual([]);
  expect(placeLabels([{ ...one, text: "" }], SIZE, measure)).toEqual([]);
});
