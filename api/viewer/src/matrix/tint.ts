/** Tints of cells by a value: one hue from faint to strong, so that points stay in sight on it. */

/** A colour for each value, and what its legend says. */
export interface Tint {
  /** Null for a value that is not there: such a cell is hatched. */
  readonly cssOf: (value: number | null) => string | null;
  readonly low: number;
  readonly high: number;
  readonly nMissing: number;
  /** Colours of the legend from low to high. */
  readonly steps: readonly string[];
}

type Rgb = readonly [number, number, number];

const FAINT: { readonly light: Rgb; readonly dark: Rgb } = {
  light: [250, 249, 252],
  dark: [24, 23, 28],
};
const STRONG: { readonly light: Rgb; readonly dark: Rgb } = {
  light: [186, 168, 214],
  dark: [86, 66, 122],
};
const N_STEPS = 9;

/** The tint of some values; null where none of them is a number. */
export function makeTint(values: readonly (number | null)[], isDark: boolean): Tint | null {
  const known = values.filter((value) => value !== null && Number.isFinite(value)) as number[];
  if (known.length === 0) return null;
  const low = known.reduce((a, b) => Math.min(a, b));
  const high = known.reduce((a, b) => Math.max(a, b));
  const shade = (t: number) => mix(isDark ? "dark" : "light", t);
  return {
    cssOf: (value) => {
      if (value === null || !Number.isFinite(value)) return null;
      return shade(high > low ? (value - low) / (high - low) : 0.5);
    },
    low,
    high,
    nMissing: values.length - known.length,
    steps: Array.from({ length: N_STEPS }, (_, i) => shade(i / (N_STEPS - 1))),
  };
}

function mix(theme: "light" | "dark", t: number): string {
  const [from, to] = [FAINT[theme], STRONG[theme]];
  const parts = from.map((start, i) => Math.round(start + ((to[i] ?? start) - start) * t));
  return `rgb(${parts.join(" ")})`;
}
