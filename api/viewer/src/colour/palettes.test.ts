import { describe, expect, test } from "vitest";
import { contrast, fromCss, linearToOklab, luminance, type Rgb, toLinear } from "./oklch";
import {
  CATEGORIES,
  continuousPalette,
  divergingPalette,
  kindColours,
  othersColour,
} from "./palettes";

/** `--ground` and `--card` of base.css. */
const GROUNDS = { light: ["#f3f4f6", "#ffffff"], dark: ["#14171a", "#1d2125"] } as const;

/**
 * What dichromats see of linear light, severity 1.
 *
 * Source: Machado, Oliveira and Fernandes, "A physiologically-based model for simulation of color
 * vision deficiency", IEEE TVCG 15(6), 2009, table 1.
 */
const VISIONS = {
  "full colour vision": [
    [1, 0, 0],
    [0, 1, 0],
    [0, 0, 1],
  ],
  protanopia: [
    [0.152286, 1.052583, -0.204868],
    [0.114503, 0.786281, 0.099216],
    [-0.003882, -0.048116, 1.051998],
  ],
  deuteranopia: [
    [0.367322, 0.860646, -0.227968],
    [0.280085, 0.672501, 0.047413],
    [-0.01182, 0.04294, 0.968881],
  ],
} satisfies Record<string, readonly (readonly number[])[]>;
type Vision = keyof typeof VISIONS;

/** The nearest two of all colours, as seen: 0.02 in OKLab is just noticeable side by side. */
function leastDistance(css: readonly string[], vision: Vision): number {
  const seen = css.map((colour) => {
    const linear = fromCss(colour).map(toLinear);
    const mixed = VISIONS[vision].map((row) => {
      const sum = row.reduce((total, weight, i) => total + weight * (linear[i] ?? 0), 0);
      return Math.min(1, Math.max(0, sum));
    });
    return linearToOklab(mixed as unknown as Rgb);
  });
  let least = Number.POSITIVE_INFINITY;
  seen.forEach((a, i) => {
    for (const b of seen.slice(0, i)) {
      least = Math.min(least, Math.hypot(a[0] - b[0], a[1] - b[1], a[2] - b[2]));
    }
  });
  return least;
}

describe.each([
  ["light", false],
  ["dark", true],
] as const)("on a %s ground", (ground, isDark) => {
  test.each(Object.keys(VISIONS) as Vision[])(
    "the eight categories and the others are told apart with %s",
    (vision) => {
      const css = CATEGORIES(isDark);
      expect(new Set(css).size).toBeGreaterThanOrEqual(8);
      expect(leastDistance([...css, othersColour(isDark)], vision)).toBeGreaterThan(0.095);
    },
  );

  test.each(Object.keys(VISIONS) as Vision[])(
    "queries and keys are told apart with %s",
    (vision) => {
      const { query, key } = kindColours(isDark);
      expect(leastDistance([query, key], vision)).toBeGreaterThan(0.12);
    },
  );

  test("every colour has a contrast of 3 with the page and with cards", () => {
    const steps = Array.from({ length: 21 }, (_, i) => i / 20);
    const colours = [
      ...CATEGORIES(isDark).map(fromCss),
      fromCss(othersColour(isDark)),
      ...Object.values(kindColours(isDark)).map(fromCss),
      ...steps.map(continuousPalette(isDark)),
      ...steps.map(divergingPalette(isDark)),
    ];
    for (const css of GROUNDS[ground]) {
      for (const colour of colours) {
        expect(contrast(colour, fromCss(css)), `${colour} on ${css}`).toBeGreaterThanOrEqual(3);
      }
    }
  });

  test("a larger number has more contrast, so that the order needs no hue", () => {
    const palette = continuousPalette(isDark);
    const light = Array.from({ length: 33 }, (_, i) => luminance(palette(i / 32)));
    const sorted = light.toSorted((a, b) => (isDark ? a - b : b - a));
    expect(light).toEqual(sorted);
    expect(new Set(light).size).toBe(33);
  });

  test.each(Object.keys(VISIONS) as Vision[])(
    "the ends and the middle of signed numbers are told apart with %s",
    (vision) => {
      const css = [0, 0.5, 1].map((part) => {
        const rgb = divergingPalette(isDark)(part);
        return `#${rgb.map((byte) => byte.toString(16).padStart(2, "0")).join("")}`;
      });
      expect(leastDistance(css, vision)).toBeGreaterThan(0.1);
    },
  );
});

test("contrast is WCAG's: 21 of black and white, 4.54 of its grey", () => {
  expect(contrast([0, 0, 0], [255, 255, 255])).toBeCloseTo(21);
  expect(contrast(fromCss("#767676"), fromCss("#ffffff"))).toBeCloseTo(4.54, 2);
});

test("OKLab of white is 1, 0, 0, and of red what its source says", () => {
  expect(linearToOklab([1, 1, 1]).map((value) => Math.round(value * 1e3) / 1e3 + 0)).toEqual([
    1, 0, 0,
  ]);
  const red = linearToOklab([1, 0, 0]).map((value) => Number(value.toFixed(3)));
  expect(red).toEqual([0.628, 0.225, 0.126]);
});

test("parts beyond a scale have the colours of its ends", () => {
  const palette = continuousPalette(false);
  expect(palette(-1)).toEqual(palette(0));
  expect(palette(2)).toEqual(palette(1));
});
