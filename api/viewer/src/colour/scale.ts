/** Values of points to colours and a legend: categories, and numbers. */

import type { Texts } from "../contract/points";
import { fromCss, type Rgb, toCss } from "./oklch";
import {
  CATEGORIES,
  continuousPalette,
  divergingPalette,
  othersColour,
  type Palette,
} from "./palettes";

/** What the colours mean. */
export type Legend = CategoryLegend | NumberLegend;

/** A colour for each entry; `nOthers` points are in none. */
export interface CategoryLegend {
  readonly kind: "categories";
  readonly title: string;
  readonly entries: readonly LegendEntry[];
  readonly nOthers: number;
}

export interface LegendEntry {
  readonly label: string;
  readonly css: string;
  readonly n: number;
}

/** Colours from `low` to `high` (NaN without values); `nMissing` points have no value. */
export interface NumberLegend {
  readonly kind: "continuous";
  readonly title: string;
  readonly low: number;
  readonly high: number;
  /** Colours at equal steps. */
  readonly css: readonly string[];
  readonly nMissing: number;
  /** True where points beyond `low` and `high` have their colours. */
  readonly isClipped: boolean;
}

/** What to draw, and how to read it. */
export interface Scale {
  /** Four bytes a point. */
  readonly rgba: Uint8Array;
  readonly legend: Legend;
}

/** Words for codes beyond the palette, or below 0. */
export const OTHERS = "others";
const LEGEND_STEPS = 16;
/** Share of the points at each end that may lie beyond the scale: a few giants hide no detail. */
const CLIPPED_SHARE = 0.005;
const CLIP_FROM = 200;

/**
 * Colours of categories: of the most frequent words, or where `isOrdered` of the first ones.
 *
 * A word has its colour by rank, so what is most frequent is the same colour on each map.
 */
export function scaleCategories(
  texts: Texts,
  title: string,
  isDark: boolean,
  isOrdered = false,
): Scale {
  const counts = countCodes(texts);
  const colours = CATEGORIES(isDark);
  const known = [...counts.keys()].filter((code) => (counts[code] ?? 0) > 0);
  if (!isOrdered) known.sort((a, b) => (counts[b] ?? 0) - (counts[a] ?? 0) || a - b);
  const chosen = known.slice(0, colours.length);
  const entries = chosen.map((code, rank) => ({
    label: texts.words[code] ?? "",
    css: colours[rank] ?? othersColour(isDark),
    n: counts[code] ?? 0,
  }));
  const shown = entries.reduce((sum, { n }) => sum + n, 0);
  const byCode = new Map(
    chosen.map((code, rank) => [code, fromCss(entries[rank]?.css ?? "#000000")]),
  );
  const rgba = paintEach(texts.codes.length, fromCss(othersColour(isDark)), (i) =>
    byCode.get(texts.codes[i] as number),
  );
  return {
    rgba,
    legend: { kind: "categories", title, entries, nOthers: texts.codes.length - shown },
  };
}

function countCodes({ codes, words }: Texts): Uint32Array {
  const counts = new Uint32Array(words.length);
  for (const code of codes) if (code >= 0) counts[code] = (counts[code] as number) + 1;
  return counts;
}

/** Colours of numbers; NaN is missing. Numbers of both signs diverge from 0. */
export function scaleNumbers(values: Float64Array, title: string, isDark: boolean): Scale {
  const range = findRange(values);
  const isDiverging = range.low < 0 && range.high > 0;
  const most = Math.max(-range.low, range.high);
  const [low, high] = isDiverging ? [-most, most] : [range.low, range.high];
  const palette = isDiverging ? divergingPalette(isDark) : continuousPalette(isDark);
  return {
    rgba: paintNumbers(values, low, high, palette, fromCss(othersColour(isDark))),
    legend: {
      kind: "continuous",
      title,
      low,
      high,
      css: Array.from({ length: LEGEND_STEPS }, (_, i) => toCss(palette(i / (LEGEND_STEPS - 1)))),
      nMissing: values.length - range.n,
      isClipped: range.isClipped,
    },
  };
}

interface Range {
  readonly low: number;
  readonly high: number;
  readonly n: number;
  readonly isClipped: boolean;
}

function findRange(values: Float64Array): Range {
  const sorted = values.filter(Number.isFinite).sort();
  const n = sorted.length;
  if (n === 0) return { low: Number.NaN, high: Number.NaN, n, isClipped: false };
  const [first, last] = [sorted[0] as number, sorted[n - 1] as number];
  const cut = n < CLIP_FROM ? 0 : Math.floor(n * CLIPPED_SHARE);
  const [low, high] = [sorted[cut] as number, sorted[n - 1 - cut] as number];
  // Where nearly all are equal, the few others are what there is to see.
  if (low === high) return { low: first, high: last, n, isClipped: false };
  return { low, high, n, isClipped: low > first || high < last };
}

function paintNumbers(
  values: Float64Array,
  low: number,
  high: number,
  palette: Palette,
  missing: Rgb,
): Uint8Array {
  const span = high - low || 1;
  return paintEach(values.length, missing, (i) => {
    const value = values[i] as number;
    if (!Number.isFinite(value)) return undefined;
    return palette(Math.min(1, Math.max(0, (value - low) / span)));
  });
}

/** Four bytes for each of n points; `otherwise` where `colourOf` has no colour. */
export function paintEach(
  n: number,
  otherwise: Rgb,
  colourOf: (index: number) => Rgb | undefined,
): Uint8Array {
  const rgba = new Uint8Array(4 * n);
  for (let i = 0; i < n; i++) {
    const colour = colourOf(i) ?? otherwise;
    rgba[4 * i] = colour[0];
    rgba[4 * i + 1] = colour[1];
    rgba[4 * i + 2] = colour[2];
    rgba[4 * i + 3] = 255;
  }
  return rgba;
}

/** Cover left to a point that the map places worst. */
const LEAST_COVER = 0.12;
/** Distortion where the map says nothing: as faint as it gets. */
const WORST = 0.5;

/** Colours that fade with distortion: full where the map is true; a point without one is half. */
export function shadeDistortion(
  rgba: Uint8Array,
  distortion: Float32Array,
  isDark: boolean,
): Uint8Array {
  const shaded = rgba.slice();
  const gamma = isDark ? 1 : 0.85; // faint colours are seen less on a light ground
  for (let i = 0; i < distortion.length; i++) {
    const value = distortion[i] as number;
    const trust = Number.isNaN(value) ? 0.5 : 1 - Math.min(1, Math.max(0, value / WORST));
    const cover = LEAST_COVER + (1 - LEAST_COVER) * trust ** gamma;
    shaded[4 * i + 3] = Math.round((rgba[4 * i + 3] as number) * cover);
  }
  return shaded;
}
