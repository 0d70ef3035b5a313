/** Figures of a head's cell: its measures, and the fidelity of its map. */

import { findMap } from "../contract/atlas";
import type { HeadRow, MapRow } from "../contract/rows";
import { explainFigure, findFigure, MEASURES, writeSigned } from "../shell/figures";
import type { LayerHead } from "../shell/open_head";

/** Which map of each head is meant. */
export interface Variant {
  readonly model: string;
  readonly method: string;
  /** Empty for the newest, whatever its joint space. */
  readonly joint: string;
  readonly dims: 2 | 3;
}

/** What there is to say of one head. */
export interface CellFacts {
  readonly at: LayerHead;
  readonly row: HeadRow | null;
  readonly map: MapRow | null;
}

const OF_MAP = "map.";

/** Figures of a map that cells can be sorted and tinted by, in the order of menus. */
export const MAP_FIGURES = [
  "score_spearman",
  "top_key_recall_3",
  "score_spearman_content",
  "top_key_recall_3_content",
  "trustworthiness",
  "continuity",
  "heldout_score_spearman",
  "heldout_top_key_recall_3",
] as const;

/** The facts of each head, as far as they are loaded. */
export function gatherFacts(
  places: readonly LayerHead[],
  heads: readonly HeadRow[],
  maps: readonly MapRow[],
  variant: Variant,
): readonly CellFacts[] {
  const rows = new Map(heads.map((row) => [writeKey(row), row]));
  const byHead = groupByHead(maps);
  return places.map(({ layer, head }) => {
    const at = { model: variant.model, layer, head };
    const own = byHead.get(writeKey(at)) ?? [];
    const map = findMap(own, at, variant.method, variant.joint, variant.dims);
    return { at: { layer, head }, row: rows.get(writeKey(at)) ?? null, map };
  });
}

function groupByHead(maps: readonly MapRow[]): ReadonlyMap<string, readonly MapRow[]> {
  const groups = new Map<string, MapRow[]>();
  for (const map of maps) {
    const key = writeKey(map);
    const group = groups.get(key);
    if (group) group.push(map);
    else groups.set(key, [map]);
  }
  return groups;
}

function writeKey(at: LayerHead): string {
  return `${at.layer} ${at.head}`;
}

/** The value of a measure, or with `map.` before it of a figure of the map; null for none. */
export function readValue(name: string, facts: CellFacts): number | null {
  const value = name.startsWith(OF_MAP)
    ? facts.map?.[name.slice(OF_MAP.length) as keyof MapRow]
    : facts.row?.[name];
  return typeof value === "number" && Number.isFinite(value) ? value : null;
}

/** What menus offer to sort and tint by: figures of the maps in sight, then measures. */
export function listNames(
  facts: readonly CellFacts[],
  measures: readonly string[],
): readonly { readonly value: string; readonly label: string }[] {
  const hasValue = (name: string) => facts.some((one) => readValue(name, one) !== null);
  const figures = MAP_FIGURES.map((name) => OF_MAP + name).filter(hasValue);
  return [...figures, ...measures].map((value) => ({ value, label: nameValue(value) }));
}

/** `fidelity: ρ` of a map, or the measure as the tables name it. */
export function nameValue(name: string): string {
  return name.startsWith(OF_MAP) ? `fidelity: ${labelFigure(name)}` : name;
}

/** `ρ` for `map.score_spearman`, as beside a map of its own; else the measure's name. */
export function labelFigure(name: string): string {
  if (!name.startsWith(OF_MAP)) return name;
  const column = name.slice(OF_MAP.length);
  return findFigure(column)?.label ?? column;
}

/** What such a name means, with the column that holds it; undefined where nobody says. */
export function explainValue(name: string): string | undefined {
  if (!name.startsWith(OF_MAP)) return MEASURES[name];
  const figure = findFigure(name.slice(OF_MAP.length));
  return figure ? explainFigure(figure) : undefined;
}

/** A number in three significant digits, short enough for a cell. */
export function writeValue(value: number | null): string {
  if (value === null) return "–";
  const size = Math.abs(value);
  if (size !== 0 && (size < 0.001 || size >= 100_000)) return writeSigned(value.toExponential(1));
  return writeSigned(size >= 100 ? value.toFixed(0) : value.toFixed(size >= 10 ? 1 : 2));
}

/** The middle of those values that are there; null for none. */
export function median(values: readonly (number | null)[]): number | null {
  const known = values.filter((value) => value !== null).sort((a, b) => a - b);
  const [low, high] = [known[(known.length - 1) >> 1], known[known.length >> 1]];
  return low === undefined || high === undefined ? null : (low + high) / 2;
}
