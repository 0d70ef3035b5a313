/** All that a view shows, as signals, and its form in the address behind `#`. Never the token. */

import { batch, computed, effect, type Signal, signal } from "@preact/signals";
import { type Place, readPlace, writePlace } from "./places";

/** The views, in the order of their tabs. */
export const VIEWS = ["matrix", "single", "sentence", "image", "table", "sql"] as const;
export type View = (typeof VIEWS)[number];

/** What makes a selection; kept in place of the selected, so that a link restores it. */
export type Selector =
  | { readonly by: "polygon"; readonly mapId: string; readonly corners: readonly number[] }
  | { readonly by: "sequence"; readonly sequenceIds: readonly number[] }
  | { readonly by: "search" }
  | { readonly by: "sql"; readonly sql: string };

/** The fields of the state with what they are when the address says nothing. */
const DEFAULTS = {
  view: "matrix" as View,
  model: "",
  layer: 0,
  head: 0,
  method: "",
  /** Joint space of the map: empty for the newest by that method. */
  joint: "",
  dims: 2,
  /** A second pane beside the first: `model/layer/head/method/joint/dims`; empty for none. */
  beside: "",
  /** `kind`, `mod5`, … `token:<column>`, `label:<name>`, `sql:<expression>`, `column:<name>:<sql>`. */
  colour: "kind",
  size: "same" as "same" | "norm",
  labels: false,
  lines: false,
  distortion: false,
  thumbnails: false,
  /** Camera of the first pane as `draw/camera.ts` writes it; empty for all in view. */
  camera: "",
  cameraBeside: "",
  /** The pane in which the point was clicked. */
  clickedIn: "first" as "first" | "beside",
  /** Entry of the legend whose points are lit; empty for none. */
  picked: "",
  /** Whether a clicked point's true nearest are looked for on this map alone. */
  isOnMapOnly: true,
  /** Part of the matrix in sight, as `matrix/sheet_view.ts` writes it; empty for all. */
  sheet: "",
  /** Order of the matrix: empty for layers × heads, else a measure; `-` first for descending. */
  order: "",
  /** Measure that tints the cells; empty for none. */
  tint: "",
  search: "",
  match: "exact" as "exact" | "prefix" | "substring",
  anyCase: false,
  selector: null as Selector | null,
  /** The clicked point. */
  point: null as Place | null,
  /** The sequence in Sentence and Image View; −1 for the first of the model. */
  sequenceId: -1,
  /** Key positions hidden in Sentence View. */
  hidden: [] as readonly number[],
  hideSpecial: false,
  hideFirst: false,
  weight: "none" as "none" | "value_norm",
  /** First query shown of a long sequence. */
  firstQuery: 0,
  /** What a patch of an image stands for: a query, or a key. */
  patchKind: "query" as "query" | "key",
  /** Arrows over an image: each patch to its strongest, or all flows of at least `threshold`. */
  arrows: "none" as "none" | "strongest" | "all",
  /** Percent of the image's strongest flow. */
  threshold: 50,
  /** The table's text filter, and filters as the API writes them, one a line. */
  contains: "",
  filters: [] as readonly string[],
  /** Order of the table: a column of sequences, `-` first for descending; empty for by id. */
  sort: "",
  /** Page of the table, as the service names it; empty for the first. */
  cursor: "",
  sql: "",
  theme: "auto" as "auto" | "light" | "dark",
};

type Fields = typeof DEFAULTS;
/** A name of the state's fields. */
export type Field = keyof Fields;

function makeSignals(): { readonly [Name in Field]: Signal<Fields[Name]> } {
  const entries = Object.entries(DEFAULTS).map(([name, value]) => [name, signal(value)]);
  return Object.fromEntries(entries) as { [Name in Field]: Signal<Fields[Name]> };
}

/** The state; components read `state.layer.value` and so are drawn anew when it changes. */
export const state = makeSignals();

/** Fields whose change is a step that the back button takes back. */
const STEPS: ReadonlySet<Field> = new Set<Field>([
  "view",
  "model",
  "layer",
  "head",
  "method",
  "joint",
  "dims",
  "beside",
  "sequenceId",
  "selector",
]);

/** Change several fields at once. */
export function change(fields: Partial<Fields>): void {
  batch(() => {
    for (const name of Object.keys(fields) as Field[]) assign(name, fields[name]);
  });
}

function assign<Name extends Field>(name: Name, value: Fields[Name] | undefined): void {
  if (value !== undefined) state[name].value = value;
}

/** The state as text for the address: only what is not as it is by default. */
export function writeState(): string {
  const parts = new URLSearchParams();
  for (const name of Object.keys(DEFAULTS) as Field[]) {
    const text = writeField(name);
    if (text !== null) parts.set(name, text);
  }
  return parts.toString();
}

function writeField(name: Field): string | null {
  const value = state[name].value;
  if (JSON.stringify(value) === JSON.stringify(DEFAULTS[name])) return null;
  if (name === "point") return value === null ? null : writePlace(value as Place);
  return typeof value === "string" ? value : JSON.stringify(value);
}

/** Take over the state from such a text; what is malformed is as by default. */
export function readState(text: string): void {
  const parts = new URLSearchParams(text);
  batch(() => {
    for (const name of Object.keys(DEFAULTS) as Field[]) readField(name, parts.get(name));
  });
}

function readField<Name extends Field>(name: Name, text: string | null): void {
  const usual = DEFAULTS[name];
  const value = text === null ? usual : parseField(name, text);
  const next = (isLike(name, value) ? value : usual) as Fields[Name];
  // An equal list or object is kept, so that nothing is drawn anew for it.
  if (JSON.stringify(state[name].value) !== JSON.stringify(next)) state[name].value = next;
}

function parseField(name: Field, text: string): unknown {
  if (name === "point") return readPlace(text);
  if (typeof DEFAULTS[name] === "string") return text;
  try {
    return JSON.parse(text);
  } catch {
    return DEFAULTS[name]; // an address that somebody cut short
  }
}

const CHOICES: Partial<Record<Field, readonly unknown[]>> = {
  view: VIEWS,
  dims: [2, 3],
  size: ["same", "norm"],
  match: ["exact", "prefix", "substring"],
  weight: ["none", "value_norm"],
  arrows: ["none", "strongest", "all"],
  patchKind: ["query", "key"],
  clickedIn: ["first", "beside"],
  theme: ["auto", "light", "dark"],
};

const PERCENT: ReadonlySet<unknown> = new Set(Array.from({ length: 101 }, (_, i) => i));

function isLike(name: Field, value: unknown): boolean {
  const usual = DEFAULTS[name];
  const choices = CHOICES[name];
  if (choices) return choices.includes(value);
  if (name === "selector") return value === null || isSelector(value);
  if (name === "point") return true;
  if (name === "threshold") return PERCENT.has(value);
  if (Array.isArray(usual)) return Array.isArray(value) && value.every(isElementOf(name));
  if (typeof usual === "number") return Number.isSafeInteger(value) && (value as number) >= -1;
  return typeof value === typeof usual;
}

function isElementOf(name: Field): (value: unknown) => boolean {
  return name === "hidden" ? Number.isSafeInteger : (value) => typeof value === "string";
}

function isSelector(value: unknown): value is Selector {
  if (typeof value !== "object" || value === null || !("by" in value)) return false;
  const it = value as Record<string, unknown>;
  const numbers = (list: unknown) => Array.isArray(list) && list.every(Number.isFinite);
  switch (it["by"]) {
    case "polygon":
      return typeof it["mapId"] === "string" && numbers(it["corners"]);
    case "sequence":
      return numbers(it["sequenceIds"]);
    case "sql":
      return typeof it["sql"] === "string";
    default:
      return it["by"] === "search";
  }
}

/** A number that grows when a step is taken: what the address pushes rather than replaces. */
const steps = computed(() => JSON.stringify([...STEPS].map((name) => state[name].value)));

/** Keep state and address equal, from now on; returns what ends that. */
export function followAddress(): () => void {
  readState(location.hash.slice(1));
  let lastSteps = steps.value;
  let isReading = false;
  const write = effect(() => {
    const text = writeState();
    const isStep = steps.value !== lastSteps && !isReading;
    lastSteps = steps.value;
    if (text === location.hash.slice(1)) return;
    const address = text ? `#${text}` : location.pathname + location.search;
    if (isStep) history.pushState(null, "", address);
    else history.replaceState(null, "", address);
  });
  const read = () => {
    isReading = true;
    readState(location.hash.slice(1));
    isReading = false;
  };
  addEventListener("popstate", read);
  addEventListener("hashchange", read);
  return () => {
    write();
    removeEventListener("popstate", read);
    removeEventListener("hashchange", read);
  };
}
