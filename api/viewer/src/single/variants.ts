/** The maps that a head has, and which of them a menu's choice leads to. */

import type { HeadPlace } from "../contract/atlas";
import type { MapRow } from "../contract/rows";

/** What tells the maps of one head apart; an empty joint space stands for the newest. */
export interface Variant {
  readonly method: string;
  readonly joint: string;
  readonly dims: number;
}

/** A map of some model as the second pane names it. */
export interface Target extends HeadPlace, Variant {}

/** The newest map of each variant of a head: `attention` first, then by name, joint space and dims. */
export function variantsOf(maps: readonly MapRow[], layer: number, head: number): MapRow[] {
  const newest = new Map<string, MapRow>();
  for (const map of maps) {
    if (map.layer !== layer || map.head !== head) continue;
    const key = JSON.stringify([map.method, map.joint, map.dims]);
    if ((newest.get(key)?.generation ?? -1) < map.generation) newest.set(key, map);
  }
  return [...newest.values()].sort(compareVariants);
}

function compareVariants(a: Variant, b: Variant): number {
  const first = Number(b.method === "attention") - Number(a.method === "attention");
  const byName = a.method.localeCompare(b.method) || a.joint.localeCompare(b.joint);
  return first || byName || a.dims - b.dims;
}

/** The map among a head's that is most like what is wanted: method counts most, then dims. */
export function closestVariant(variants: readonly MapRow[], wanted: Variant): MapRow | null {
  const likeness = (map: MapRow) =>
    4 * Number(map.method === wanted.method) +
    2 * Number(map.dims === wanted.dims) +
    Number(map.joint === wanted.joint);
  let best: MapRow | null = null;
  for (const map of variants) if (!best || likeness(map) > likeness(best)) best = map;
  return best;
}

/** The exact map of a variant among a head's; null for none. An empty method takes the first. */
export function findVariant(variants: readonly MapRow[], wanted: Variant): MapRow | null {
  if (wanted.method === "") return closestVariant(variants, { ...wanted, method: "attention" });
  const isIt = (map: MapRow) =>
    map.method === wanted.method &&
    map.dims === wanted.dims &&
    (wanted.joint === "" || map.joint === wanted.joint);
  return [...variants].sort((a, b) => b.generation - a.generation).find(isIt) ?? null;
}

/** What a menu may offer so that each choice leads to a map: one menu a field. */
export interface VariantChoices {
  readonly methods: readonly string[];
  /** Joint spaces of the method chosen. */
  readonly joints: readonly string[];
  /** Dimensions of the method and joint space chosen. */
  readonly dims: readonly number[];
}

/** The choices of a head's maps beside the one shown. */
export function choicesOf(variants: readonly MapRow[], shown: Variant): VariantChoices {
  const ofMethod = variants.filter((map) => map.method === shown.method);
  const ofJoint = ofMethod.filter((map) => shown.joint === "" || map.joint === shown.joint);
  return {
    methods: [...new Set(variants.map((map) => map.method))],
    joints: [...new Set(ofMethod.map((map) => map.joint))],
    dims: [...new Set(ofJoint.map((map) => map.dims))].sort(),
  };
}

/** The second pane's target as the address keeps it. */
export function writeTarget(target: Target): string {
  const { model, layer, head, method, joint, dims } = target;
  return [model, layer, head, method, joint, dims].join("/");
}

/** The target that such a text names, of which the model's name may hold slashes; null for none. */
export function readTarget(text: string): Target | null {
  const found = /^(.+)\/(\d{1,6})\/(\d{1,6})\/([^/]*)\/([^/]*)\/([23])$/.exec(text);
  if (!found) return null;
  const [, model = "", layer, head, method = "", joint = "", dims] = found;
  return { model, layer: Number(layer), head: Number(head), method, joint, dims: Number(dims) };
}
