/** Palettes that colour-blind people can read too, for a light and a dark ground. */

import { fromCss, oklchToRgb, type Rgb } from "./oklch";

export type { Rgb } from "./oklch";

/** A colour for each part of a scale, 0 to 1. */
export type Palette = (part: number) => Rgb;

/**
 * Chosen by annealing for the largest least distance in OKLab between any two of them and grey, as
 * seen with full colour vision, protanopia and deuteranopia; contrast with ground and card ≥ 3.
 */
const LIGHT = [
  "#2b6cb0",
  "#d1731b",
  "#4c1305",
  "#b554fa",
  "#666437",
  "#3117a2",
  "#5c4069",
  "#002150",
] as const;
const DARK = [
  "#7db3ee",
  "#f2a154",
  "#a7f344",
  "#d24e40",
  "#e6d7fc",
  "#6477dd",
  "#92cdac",
  "#e8fdb6",
] as const;

/** Eight colours for categories, the most frequent first. */
export function CATEGORIES(isDark: boolean): readonly string[] {
  return isDark ? DARK : LIGHT;
}

/** What is in no category, or has no value. */
export function othersColour(isDark: boolean): string {
  return isDark ? "#7c7f85" : "#8a8a8a";
}

/** Queries and keys: `--query` and `--key` of base.css. */
export function kindColours(isDark: boolean): { readonly query: string; readonly key: string } {
  return isDark ? { query: "#f2a154", key: "#7db3ee" } : { query: "#d1731b", key: "#2b6cb0" };
}

/** From faint to strong: lightness moves steadily away from the ground, hue from yellow or to it. */
export function continuousPalette(isDark: boolean): Palette {
  return tabulate((part) =>
    isDark
      ? oklchToRgb(0.56 + 0.38 * part, 0.17 - 0.03 * part, 300 - 195 * part)
      : oklchToRgb(0.64 - 0.42 * part, 0.13 + 0.02 * part, 105 + 195 * part),
  );
}

/** From one hue over grey to the other: blue for low, orange for high, strong at both ends. */
export function divergingPalette(isDark: boolean): Palette {
  return tabulate((part) => {
    const away = Math.abs(2 * part - 1);
    const hue = part < 0.5 ? 255 : 55;
    return isDark
      ? oklchToRgb(0.56 + 0.3 * away, 0.14 * away, hue)
      : oklchToRgb(0.64 - 0.3 * away, 0.14 * away, hue);
  });
}

const SHADES = 256;

function tabulate(palette: Palette): Palette {
  const shades = Array.from({ length: SHADES }, (_, i) => palette(i / (SHADES - 1)));
  const last = shades[SHADES - 1] as Rgb;
  return (part) => shades[Math.max(0, Math.round(part * (SHADES - 1)))] ?? last;
}

/** Bytes of the colours of a list of `#rrggbb`. */
export function readColours(css: readonly string[]): readonly Rgb[] {
  return css.map(fromCss);
}
