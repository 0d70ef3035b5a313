/** What a result can be used for, told by the names of its columns. */

/** The uses of a result. */
export interface Uses {
  /** Its rows name tokens, so they can be selected. */
  readonly hasPlaces: boolean;
  readonly hasKind: boolean;
  readonly hasModel: boolean;
  /** Its rows name heads, so they can be opened. */
  readonly hasHeads: boolean;
  /** Columns that tokens can be coloured by: those beyond what names a token or a head. */
  readonly colourColumns: readonly string[];
}

const NAMES_OF_PLACES = new Set(["model", "kind", "sequence_id", "position", "layer", "head"]);

/** Recognise the uses of a result by its columns. */
export function recognise(columns: readonly string[]): Uses {
  const has = (...names: readonly string[]) => names.every((name) => columns.includes(name));
  const hasPlaces = has("sequence_id", "position");
  const others = columns.filter((name) => !NAMES_OF_PLACES.has(name));
  return {
    hasPlaces,
    hasKind: has("kind"),
    hasModel: has("model"),
    hasHeads: has("layer", "head"),
    colourColumns: hasPlaces ? others : [],
  };
}

/** The name in `state.colour` that gives each point the value of its row in a result. */
export function writeColour(sql: string, column: string): string {
  return `column:${encodeURIComponent(column)}:${trimStatement(sql)}`;
}

/** The column and the statement of such a name without its `column:`; null for no such name. */
export function readColour(text: string): { readonly column: string; readonly sql: string } | null {
  const colon = text.indexOf(":");
  const column = decodePart(text.slice(0, Math.max(0, colon)));
  const sql = text.slice(colon + 1);
  return column === "" || sql.trim() === "" ? null : { column, sql };
}

function decodePart(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return ""; // an address that somebody changed by hand
  }
}

/** A statement without what ends it, so that it fits into another. */
export function trimStatement(sql: string): string {
  return sql.replace(/[;\s]+$/, "");
}

/** A value of a result in short, for a cell of a table. */
export function writeCell(value: unknown): string {
  if (value === null || value === undefined) return "";
  if (value instanceof Date) return value.toISOString();
  if (value instanceof Uint8Array) return `${value.length.toLocaleString("en")} bytes`;
  if (typeof value === "number" && !Number.isInteger(value)) return String(+value.toPrecision(7));
  if (typeof value !== "object") return String(value);
  return JSON.stringify(toPlain(value));
}

function toPlain(value: unknown): unknown {
  if (typeof value === "bigint") return Number(value);
  if (typeof value !== "object" || value === null || value instanceof Date) return value;
  if (value instanceof Map) return Object.fromEntries([...value].map(([k, v]) => [k, toPlain(v)]));
  if (Array.isArray(value)) return value.map(toPlain);
  if (ArrayBuffer.isView(value)) return Array.from(value as unknown as ArrayLike<number>);
  return Object.fromEntries(Object.entries(value).map(([name, one]) => [name, toPlain(one)]));
}
