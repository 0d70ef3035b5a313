/** Conditions on sequences as the service writes them, and the order of the table. */

/** A condition: `column:operator:value`. */
export interface Condition {
  readonly column: string;
  readonly operator: string;
  readonly value: string;
}

/** Columns that sequences can be filtered and sorted by, besides `label.<name>`. */
export const COLUMNS = ["sequence_id", "n_tokens", "corpus", "source", "row", "truncated"] as const;

/** Not a column of sequences: those that hold exactly this token. */
export const TOKEN = "token";

const NUMBERS: ReadonlySet<string> = new Set(["sequence_id", "n_tokens", "row"]);
const OF_NUMBERS = ["=", "!=", "<", "<=", ">", ">=", "in"];
const OF_TEXTS = ["=", "!=", "contains", "prefix", "in", "is_null", "not_null"];

/** Operators that make sense for a column. */
export function operatorsOf(column: string): readonly string[] {
  if (column === TOKEN) return ["="];
  if (column === "truncated") return ["=", "!="];
  return NUMBERS.has(column) ? OF_NUMBERS : OF_TEXTS;
}

/** Whether an operator compares with a value. */
export function takesValue(operator: string): boolean {
  return !operator.endsWith("_null");
}

/** The condition as the service reads it. */
export function writeCondition({ column, operator, value }: Condition): string {
  return takesValue(operator) ? `${column}:${operator}:${value}` : `${column}:${operator}`;
}

/** The condition in words for people. */
export function describeCondition(text: string): string {
  const [column = "", operator = "", ...rest] = text.split(":");
  return [column, operator.replace("_", " "), rest.join(":")].filter(Boolean).join(" ");
}

/** Conditions in the parameters that take them: a token has one of its own. */
export function splitConditions(texts: readonly string[]): {
  readonly filter: readonly string[];
  readonly token: string | undefined;
} {
  const isToken = (text: string) => text.startsWith(`${TOKEN}:=:`);
  const token = texts.findLast(isToken)?.slice(TOKEN.length + 3);
  return { filter: texts.filter((text) => !isToken(text)), token };
}

/** The conditions with one more; a second token takes the place of the first. */
export function addCondition(texts: readonly string[], text: string): readonly string[] {
  const isToken = text.startsWith(`${TOKEN}:`);
  const kept = texts.filter((one) => one !== text && !(isToken && one.startsWith(`${TOKEN}:`)));
  return [...kept, text];
}

/** The order after a heading is pressed: ascending, descending, then as it was. */
export function turnSort(sort: string, column: string): string {
  if (sort === column) return `-${column}`;
  return sort === `-${column}` ? "" : column;
}

/** Names of labels that some sequences have. */
export function listLabels(
  rows: readonly { readonly labels: Readonly<Record<string, string>> | null }[],
): readonly string[] {
  return [...new Set(rows.flatMap((row) => Object.keys(row.labels ?? {})))].sort();
}
