/** Patches in words. */

import type { TokenRow } from "../contract/rows";
import { strongest } from "../sentence/attention_lines";
import { showWeight } from "../sentence/token_text";
import type { PatchGrid } from "./patches";

const MOST_NAMED = 3;

/** `row 3, column 4`, `CLS` or `register 2`. */
export function namePatch(grid: PatchGrid, position: number): string {
  const token = grid.byPosition.get(position);
  if (!token) return `position ${position}`;
  if (token.patch_row !== null && token.patch_col !== null) {
    return `row ${token.patch_row}, column ${token.patch_col}`;
  }
  if (token.token !== null) return token.token;
  const at = grid.others.indexOf(token);
  return at === 0 ? "CLS" : `register ${at}`;
}

/** The patch, its label, and those that it attends to, or that attend to it, most. */
export function describePatch(
  grid: PatchGrid,
  side: "query" | "key",
  position: number,
  weights: readonly number[],
): string {
  const top = strongest(weights, MOST_NAMED, 1e-4);
  const list = top.map((at) => `${namePatch(grid, at)} ${showWeight(weights[at] ?? 0)}`);
  const label = grid.byPosition.get(position)?.label;
  const name = `${side} ${namePatch(grid, position)}${label ? ` (${label})` : ""}`;
  if (list.length === 0) return `${name}: no attention`;
  return `${name} ${side === "query" ? "→" : "←"} ${list.join("; ")}`;
}

/** The mean colour of a patch as CSS; null where it is not known. */
export function colourOf(token: TokenRow): string | null {
  const { hue, saturation, brightness } = token;
  if (hue === null || saturation === null || brightness === null) return null;
  const channel = (n: number) => {
    const k = (n + hue * 6) % 6;
    const part = brightness - brightness * saturation * Math.max(0, Math.min(k, 4 - k, 1));
    return Math.round(255 * part);
  };
  return `rgb(${channel(5)} ${channel(3)} ${channel(1)})`;
}
