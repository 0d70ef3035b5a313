import { expect, test } from "vitest";
import { readTexts } from "../contract/points";
import { fromCss } from "./oklch";
import { CATEGORIES, continuousPalette, othersColour } from "./palettes";
import { type Scale, scaleCategories, scaleNumbers, shadeDistortion } from "./scale";

function colourAt(scale: Scale, index: number): number[] {
  return [...scale.rgba.slice(4 * index, 4 * index + 3)];
}

test("the eight most frequent words have colours, the rest and what has none are others", () => {
  const words = "abcdefghij".split("");
  const texts = readTexts([...words.flatMap((word, i) => Array(12 - i).fill(word)), null]);
  const scale = scaleCategories(texts, "letter", false);
  const { legend } = scale;
  if (legend.kind !== "categories") throw new Error("not categories");
  expect(legend.entries.map(({ label, n }) => `${label}${n}`)).toEqual(
    words.slice(0, 8).map((word, i) => `${word}${12 - i}`),
  );
  expect(legend.nOthers).toBe(4 + 3 + 1);
  expect(colourAt(scale, 0)).toEqual([...fromCss(CATEGORIES(false)[0] ?? "")]);
  expect(colourAt(scale, texts.codes.length - 1)).toEqual([...fromCss(othersColour(false))]);
  expect(legend.entries.reduce((sum, { n }) => sum + n, legend.nOthers)).toBe(texts.codes.length);
});

test("categories in their own order keep it, and those not there have no entry", () => {
  const texts = { codes: Int32Array.of(4, 4, 4, 0, 2), words: ["0", "1", "2", "3", "4"] };
  const { legend } = scaleCategories(texts, "mod", true, true);
  if (legend.kind !== "categories") throw new Error("not categories");
  expect(legend.entries.map(({ label }) => label)).toEqual(["0", "2", "4"]);
});

test("numbers go from the lowest colour to the highest, and missing ones are counted", () => {
  const scale = scaleNumbers(Float64Array.of(2, 6, 4, Number.NaN), "n", true);
  const { legend } = scale;
  expect(legend).toMatchObject({ kind: "continuous", low: 2, high: 6, nMissing: 1 });
  const palette = continuousPalette(true);
  expect(colourAt(scale, 0)).toEqual([...palette(0)]);
  expect(colourAt(scale, 1)).toEqual([...palette(1)]);
  expect(colourAt(scale, 2)).toEqual([...palette(0.5)]);
  expect(colourAt(scale, 3)).toEqual([...fromCss(othersColour(true))]);
});

test("a few giants among many take no colour from the others, and the legend says so", () => {
  const values = Float64Array.from({ length: 1_000 }, (_, i) => (i < 2 ? 1e6 : i));
  const { legend } = scaleNumbers(values, "norm", false);
  if (legend.kind !== "continuous") throw new Error("not continuous");
  expect(legend.high).toBeLessThan(1_000);
  expect(legend.isClipped).toBe(true);
});

test("numbers of both signs diverge from 0 in the middle", () => {
  const { legend } = scaleNumbers(Float64Array.of(-1, 4), "change", false);
  expect(legend).toMatchObject({ low: -4, high: 4 });
});

test("equal numbers, one number and none are scales too", () => {
  expect(scaleNumbers(Float64Array.of(3, 3), "n", false).legend).toMatchObject({ low: 3, high: 3 });
  expect(scaleNumbers(Float64Array.of(Number.NaN), "n", false).legend).toMatchObject({
    low: Number.NaN,
    nMissing: 1,
  });
  expect(scaleNumbers(new Float64Array(0), "n", false).rgba).toHaveLength(0);
});

test("a point fades the more the map distorts it; what is not known is in between", () => {
  const rgba = new Uint8Array(16).fill(255);
  const shaded = shadeDistortion(rgba, Float32Array.of(0, 0.2, 0.5, Number.NaN), false);
  const alpha = (i: number) => shaded[4 * i + 3] ?? 0;
  expect(alpha(0)).toBe(255);
  expect(alpha(1)).toBeLessThan(alpha(0));
  expect(alpha(2)).toBeLessThan(alpha(1));
  expect(alpha(2)).toBeGreaterThan(0);
  expect(alpha(3)).toBeLessThan(alpha(0));
  expect(alpha(3)).toBeGreaterThan(alpha(2));
  expect([...shaded.slice(0, 3)]).toEqual([255, 255, 255]);
  expect(rgba[11]).toBe(255);
});
