/** Every colouring of points by its name in `state.colour`: colours, legend, and values for tooltips. */

import { loadFrequencies, loadNorms } from "../contract/atlas";
import { type PointSet, tokenAt } from "../contract/points";
import type { MapRow, ModelRow } from "../contract/rows";
import { readColour } from "../sql/columns";
import { fromCss, type Rgb } from "./oklch";
import { kindColours, othersColour } from "./palettes";
import { loadResultValues } from "./result_values";
import { type Legend, paintEach, type Scale, scaleCategories, scaleNumbers } from "./scale";
import { isPunctuation, tokenLength } from "./token_text";
import { loadSequenceValues, loadTokenValues, type Values } from "./token_values";

export { type ColourChoice, listColourings } from "./colour_choices";
export { type Legend, shadeDistortion } from "./scale";

/** A colouring of some points. */
export interface Colouring {
  /** Four bytes a point. */
  readonly rgba: Uint8Array;
  readonly legend: Legend;
  /** True where the colour itself tells queries from keys, so that shapes need not. */
  readonly usesKind: boolean;
  /** The value of a point for its tooltip; empty for none. */
  texts(index: number): string;
}

/** What is to be coloured, on what ground. */
export interface ColourContext {
  readonly model: ModelRow;
  /** Null for points that several maps share, as a matrix has them. */
  readonly map: MapRow | null;
  /** The part of the map that the points are of, as `loadPoints` was asked; null for all of it. */
  readonly box?: readonly number[] | null;
  readonly points: PointSet;
  readonly isDark: boolean;
  readonly layer?: number;
  readonly head?: number;
}

type Load = (context: ColourContext, signal?: AbortSignal) => Colouring | Promise<Colouring>;

const BY_NAME: Readonly<Record<string, Load>> = {
  kind: colourKind,
  none: colourNone,
  position: colourPosition,
  mod5: colourMod5,
  punctuation: colourPunctuation,
  norm: colourNorm,
  token_length: colourTokenLength,
  sequence_length: colourSequenceLength,
  frequency: colourFrequency,
  same_token: colourSameToken,
  sequence: colourSequence,
  patch_row: (context, signal) => colourColumn("patch_row", context, signal),
  patch_col: (context, signal) => colourColumn("patch_col", context, signal),
  patch_colour: colourPatch,
};

/**
 * The colouring of a name as `state.colour` has it: a key above, or `token:<column>`, `label:<name>`,
 * `sql:<expression>`, `column:<name>:<sql>`. Throws AtlasProblem, or an Error with a sentence for the user.
 */
export async function loadColouring(
  name: string,
  context: ColourContext,
  signal?: AbortSignal,
): Promise<Colouring> {
  const load = Object.hasOwn(BY_NAME, name) ? BY_NAME[name] : undefined;
  if (load) return load(context, signal);
  const colon = name.indexOf(":");
  const rest = name.slice(colon + 1);
  switch (name.slice(0, Math.max(0, colon))) {
    case "token":
      return colourColumn(rest, context, signal);
    case "label":
      return colourLabel(rest, context, signal);
    case "sql":
      return colourSql(rest, context, signal);
    case "column":
      return colourResult(rest, context, signal);
    default:
      throw new Error(`There is no colouring “${name}”: choose one from the menu.`);
  }
}

function colourKind({ points, isDark }: ColourContext): Colouring {
  const css = kindColours(isDark);
  const [query, key] = [fromCss(css.query), fromCss(css.key)];
  const nQueries = points.isQuery.reduce((sum, one) => sum + one, 0);
  return {
    rgba: paintEach(points.n, key, (i) => (points.isQuery[i] === 1 ? query : key)),
    legend: {
      kind: "categories",
      title: "kind",
      entries: [
        { label: "query", css: css.query, n: nQueries },
        { label: "key", css: css.key, n: points.n - nQueries },
      ],
      nOthers: 0,
    },
    usesKind: true,
    texts: () => "",
  };
}

function colourNone({ points, isDark }: ColourContext): Colouring {
  const css = othersColour(isDark);
  const legend = { kind: "categories", title: "none", entries: [], nOthers: 0 } as const;
  return {
    rgba: paintEach(points.n, fromCss(css), () => undefined),
    legend,
    usesKind: false,
    texts: () => "",
  };
}

/** 0 for a sequence's first token and 1 for its last. */
async function colourPosition(context: ColourContext, signal?: AbortSignal): Promise<Colouring> {
  const { points } = context;
  const lengths = await loadLengths(context, signal);
  const parts = Float64Array.from(lengths, (length, i) =>
    length > 1 ? (points.position[i] as number) / (length - 1) : length === 1 ? 0 : Number.NaN,
  );
  const scale = scaleNumbers(parts, "position ÷ last position", context.isDark);
  const texts = (i: number) =>
    Number.isNaN(lengths[i] as number) ? "" : `${points.position[i]} of 0–${(lengths[i] ?? 1) - 1}`;
  return { ...scale, usesKind: false, texts };
}

function colourMod5(context: ColourContext): Colouring {
  const { points } = context;
  const codes = points.position.map((position) => position % 5);
  const texts = { codes, words: ["0", "1", "2", "3", "4"] };
  return ofTexts(scaleCategories(texts, "position modulo 5", context.isDark, true), texts);
}

function colourPunctuation(context: ColourContext): Colouring {
  const { points } = context;
  const isMark = points.tokens.words.map(isPunctuation);
  const codes = Int32Array.from(points.tokens.codes, (code, i) => {
    if (points.isSpecial[i] === 1) return 2;
    return code < 0 ? -1 : Number(isMark[code]);
  });
  const texts = { codes, words: ["other token", "punctuation", "special token"] };
  return ofTexts(scaleCategories(texts, "punctuation", context.isDark, true), texts);
}

async function colourNorm(context: ColourContext, signal?: AbortSignal): Promise<Colouring> {
  const { map, points } = context;
  if (!map) {
    throw new Error("The norm differs from head to head: open a head, or choose another colour.");
  }
  const norms = await loadNorms(map, context.box ?? null, signal);
  if (norms.length !== points.n) {
    throw new Error("The map has changed since its points were loaded: load the page again.");
  }
  return ofNumbers(Float64Array.from(norms), "norm", context.isDark);
}

function colourTokenLength(context: ColourContext): Colouring {
  const { points } = context;
  const lengths = points.tokens.words.map(tokenLength);
  const ofToken = (code: number) => lengths[code] ?? Number.NaN;
  return ofNumbers(Float64Array.from(points.tokens.codes, ofToken), "token length", context.isDark);
}

async function colourSequenceLength(
  context: ColourContext,
  signal?: AbortSignal,
): Promise<Colouring> {
  return ofNumbers(await loadLengths(context, signal), "sequence length (tokens)", context.isDark);
}

async function loadLengths(context: ColourContext, signal?: AbortSignal): Promise<Float64Array> {
  const { model, points } = context;
  const values = await loadSequenceValues(model, points, "n_tokens", {}, signal);
  return values.kind === "numbers" ? values.numbers : new Float64Array(points.n).fill(Number.NaN);
}

/** By powers of ten, as few tokens are most of a corpus. */
async function colourFrequency(context: ColourContext, signal?: AbortSignal): Promise<Colouring> {
  const { model, points } = context;
  const ofQueries = await loadFrequencies(model.query_model, signal);
  const ofKeys = await loadFrequencies(model.key_model, signal);
  const counts = Float64Array.from({ length: points.n }, (_, i) => {
    const frequencies = points.isQuery[i] === 1 ? ofQueries : ofKeys;
    return frequencies.get(tokenAt(points, i)) ?? Number.NaN;
  });
  const scale = scaleNumbers(counts.map(Math.log10), "token frequency (log₁₀)", context.isDark);
  const texts = (i: number) =>
    Number.isNaN(counts[i] as number) ? "" : `${counts[i]} in the corpus`;
  return { ...scale, usesKind: false, texts };
}

function colourSameToken(context: ColourContext): Colouring {
  const { tokens } = context.points;
  return ofTexts(scaleCategories(tokens, "same token", context.isDark), tokens);
}

function colourSequence(context: ColourContext): Colouring {
  const { sequenceId } = context.points;
  const ids = [...new Set(sequenceId)].sort((a, b) => a - b);
  const codeOf = new Map(ids.map((id, code) => [id, code]));
  const codes = Int32Array.from(sequenceId, (id) => codeOf.get(id) ?? -1);
  const texts = { codes, words: ids.map(String) };
  return ofTexts(scaleCategories(texts, "sequence", context.isDark), texts);
}

/** Each patch in its own mean colour. */
async function colourPatch(context: ColourContext, signal?: AbortSignal): Promise<Colouring> {
  const { model, points, isDark } = context;
  const load = async (column: string) => {
    const values = await loadTokenValues(model, points, quoteName(column), signal);
    return values.kind === "numbers" ? values.numbers : new Float64Array(points.n).fill(Number.NaN);
  };
  const [hue, saturation, brightness] = await Promise.all(
    ["hue", "saturation", "brightness"].map(load),
  );
  const missing = fromCss(othersColour(isDark));
  let nOthers = 0;
  const rgba = paintEach(points.n, missing, (i) => {
    const hsv = [hue, saturation, brightness].map((values) => values?.[i] ?? Number.NaN);
    if (hsv.every(Number.isFinite)) return hsvToRgb(hsv[0] ?? 0, hsv[1] ?? 0, hsv[2] ?? 0);
    nOthers += 1;
    return undefined;
  });
  const legend = { kind: "categories", title: "patch’s own colour", entries: [], nOthers } as const;
  return { rgba, legend, usesKind: false, texts: () => "" };
}

/** Hue, saturation and value from 0 to 1. */
function hsvToRgb(hue: number, saturation: number, value: number): Rgb {
  const channel = (shift: number) => {
    const sector = (shift + 6 * hue) % 6;
    const less = saturation * Math.max(0, Math.min(sector, 4 - sector, 1));
    return Math.round(255 * value * (1 - less));
  };
  return [channel(5), channel(3), channel(1)];
}

async function colourColumn(
  column: string,
  context: ColourContext,
  signal?: AbortSignal,
): Promise<Colouring> {
  const { model, points } = context;
  const values = await loadTokenValues(model, points, quoteName(column), signal);
  return ofValues(values, column, context.isDark);
}

async function colourLabel(
  label: string,
  context: ColourContext,
  signal?: AbortSignal,
): Promise<Colouring> {
  const { model, points } = context;
  const values = await loadSequenceValues(model, points, "labels[$label]", { label }, signal);
  return ofValues(values, `label ${label}`, context.isDark);
}

async function colourSql(
  expression: string,
  context: ColourContext,
  signal?: AbortSignal,
): Promise<Colouring> {
  if (expression.trim() === "") {
    throw new Error("Write an SQL expression over the columns of tokens, such as vocab_id % 10.");
  }
  const { model, points } = context;
  return ofValues(
    await loadTokenValues(model, points, expression, signal),
    expression,
    context.isDark,
  );
}

/** By a column of an SQL result, whose rows say which points they are of. */
async function colourResult(
  text: string,
  context: ColourContext,
  signal?: AbortSignal,
): Promise<Colouring> {
  const result = readColour(text);
  if (!result) throw new Error("The link is damaged: choose a colour from the menu.");
  const { model, points, isDark } = context;
  return ofValues(await loadResultValues(model, points, result, signal), result.column, isDark);
}

/** An SQL name, whatever characters it has. */
function quoteName(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}

function ofValues(values: Values, title: string, isDark: boolean): Colouring {
  return values.kind === "numbers"
    ? ofNumbers(values.numbers, title, isDark)
    : ofTexts(scaleCategories(values.texts, title, isDark), values.texts);
}

function ofNumbers(numbers: Float64Array, title: string, isDark: boolean): Colouring {
  const texts = (i: number) => {
    const value = numbers[i] ?? Number.NaN;
    return Number.isNaN(value) ? "" : writeNumber(value);
  };
  return { ...scaleNumbers(numbers, title, isDark), usesKind: false, texts };
}

function ofTexts(
  scale: Scale,
  texts: { readonly codes: ArrayLike<number>; readonly words: readonly string[] },
): Colouring {
  return { ...scale, usesKind: false, texts: (i) => texts.words[texts.codes[i] ?? -1] ?? "" };
}

/** A number for people: whole ones as they are, others to four digits. */
export function writeNumber(value: number): string {
  return Number.isInteger(value) ? String(value) : String(Number(value.toPrecision(4)));
}
