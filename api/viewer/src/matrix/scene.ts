/** All that the matrix shows, made from the state and what is loaded. */

import { useMemo } from "preact/hooks";
import { type Colouring, loadColouring } from "../colour/colourings";
import type { Matrix, MatrixHead } from "../contract/atlas";
import { type Loaded, useLoaded } from "../contract/loading";
import type { ModelRow } from "../contract/rows";
import { hits, selection } from "../contract/selection";
import { state } from "../contract/state";
import { heads, listedVersion, maps, method } from "../shell/chosen";
import { type LayerHead, nameHead } from "../shell/open_head";
import { isDark } from "../shell/theme";
import { type CellFacts, gatherFacts, nameValue, readValue, writeValue } from "./cell_values";
import { loadAll } from "./load_all";
import { countMarks, joinMarks, type MarkCount, markPoints } from "./marks";
import { arrange, readOrder, type Sheet } from "./order";
import { makeTint, type Tint } from "./tint";

/** What a cell shows beneath and above its points. */
export interface Cell {
  readonly facts: CellFacts;
  readonly head: MatrixHead | null;
  readonly column: number;
  readonly row: number;
  /** `layer 0, head 2, entropy 0.01, 12 hits`. */
  readonly name: string;
  readonly title: string;
  readonly tint: string | null;
  readonly isHatched: boolean;
  /** Value of the tint, else of the order; empty for neither. */
  readonly value: string;
  /** `entropy 0.01` for each value in use. */
  readonly described: readonly string[];
  readonly found: MarkCount | null;
  readonly selected: MarkCount | null;
}

/** The whole scene; the matrix is null before it is there. */
export interface Scene {
  readonly matrix: Matrix | null;
  readonly sheet: Sheet;
  readonly cells: readonly Cell[];
  readonly tint: Tint | null;
  readonly marks: Uint8Array | null;
  readonly colouring: Loaded<Coloured>;
}

/** A colouring with the matrix that it is of. */
export interface Coloured {
  readonly matrix: Matrix;
  readonly colouring: Colouring;
}

/** The matrix that the state asks for. */
export function useMatrix(row: ModelRow | null, round: number): Loaded<Matrix> {
  const asked = {
    method: state.method.value,
    joint: state.joint.value,
    dims: state.dims.value,
  };
  const { method: name, joint, dims } = asked;
  const causes = [row?.model, name, joint, dims, listedVersion.value, round];
  // Asked for while rendering, not in an effect after the next frame: the matrix takes longest.
  const promise = useMemo(() => row && loadAll(row, asked), causes);
  return useLoaded(() => promise, [promise]);
}

/** The scene of a matrix. */
export function useScene(row: ModelRow, matrix: Matrix | null): Scene {
  const facts = useFacts(row, matrix);
  const { sheet, tint } = useOrderAndTint(facts);
  const shown = `${state.order.value} ${state.tint.value}`;
  const points = matrix?.points ?? null;
  const found = useMemo(() => points && markPoints(points, hits.value), [points, hits.value]);
  const selected = useMemo(
    () => points && markPoints(points, selection.value),
    [points, selection.value],
  );
  const marks = useMemo(() => joinMarks(found, selected), [found, selected]);
  const cells = useMemo(
    () => makeCells({ facts, matrix, sheet, tint, found, selected }),
    // The names too: two tints without values are equal, but not what cells say of them.
    [facts, matrix, sheet, tint, found, selected, shown],
  );
  const colouring = useColouring(row, matrix);
  return useMemo(
    () => ({ matrix, sheet, cells, tint, marks, colouring }),
    [matrix, sheet, cells, tint, marks, colouring],
  );
}

function useFacts(row: ModelRow, matrix: Matrix | null): readonly CellFacts[] {
  const variant = {
    model: row.model,
    method: matrix?.method ?? method.value,
    joint: state.joint.value,
    dims: matrix?.dims ?? 2,
  };
  const places: readonly LayerHead[] = matrix?.heads ?? heads.value;
  return useMemo(
    () => gatherFacts(places, heads.value, maps.value, variant),
    [places, heads.value, maps.value, variant.method, variant.joint, variant.dims],
  );
}

function useOrderAndTint(facts: readonly CellFacts[]) {
  const orderText = state.order.value;
  const tintName = state.tint.value;
  const sheet = useMemo(() => {
    const order = readOrder(orderText);
    const values = facts.map((one) => (order ? readValue(order.name, one) : null));
    return arrange(
      facts.map((one) => one.at),
      order,
      values,
    );
  }, [facts, orderText]);
  const tint = useMemo(() => {
    if (tintName === "") return null;
    return makeTint(
      facts.map((one) => readValue(tintName, one)),
      isDark.value,
    );
  }, [facts, tintName, isDark.value]);
  return { sheet, tint };
}

function useColouring(row: ModelRow, matrix: Matrix | null): Loaded<Coloured> {
  const name = state.colour.value;
  const context = { model: row, map: null, isDark: isDark.value };
  return useLoaded(
    (signal) => {
      if (!matrix) return null;
      const load = loadColouring(name, { ...context, points: matrix.points }, signal);
      return load.then((colouring) => ({ matrix, colouring }));
    },
    [matrix, name, isDark.value],
  );
}

interface CellParts {
  readonly facts: readonly CellFacts[];
  readonly matrix: Matrix | null;
  readonly sheet: Sheet;
  readonly tint: Tint | null;
  readonly found: Uint8Array | null;
  readonly selected: Uint8Array | null;
}

function makeCells(parts: CellParts): readonly Cell[] {
  const { matrix, sheet, tint } = parts;
  return parts.facts.map((facts, index) => {
    const head = matrix?.heads[index] ?? null;
    const countIn = (marks: Uint8Array | null) =>
      matrix && head && marks ? countMarks(matrix.points, head, marks) : null;
    const [found, selected] = [countIn(parts.found), countIn(parts.selected)];
    const tinted = tint ? tint.cssOf(readValue(state.tint.value, facts)) : null;
    return {
      facts,
      head,
      column: sheet.columns[index] ?? 0,
      row: sheet.rows[index] ?? 0,
      name: nameCell(facts, head, found, selected),
      title: nameHead(facts.at),
      tint: tinted,
      isHatched: tint !== null && tinted === null,
      value: writeShown(facts),
      described: describeShown(facts),
      found,
      selected,
    };
  });
}

/** Names of the values that are in use: what sorts the cells, what tints them. */
function listShown(): string[] {
  const order = readOrder(state.order.value);
  return [...new Set([order?.name ?? "", state.tint.value])].filter((name) => name !== "");
}

function writeShown(facts: CellFacts): string {
  const name = listShown().at(-1);
  return name === undefined ? "" : writeValue(readValue(name, facts));
}

function describeShown(facts: CellFacts): readonly string[] {
  return listShown().map((name) => `${nameValue(name)} ${writeValue(readValue(name, facts))}`);
}

function nameCell(
  facts: CellFacts,
  head: MatrixHead | null,
  found: MarkCount | null,
  selected: MarkCount | null,
): string {
  const parts = [`layer ${facts.at.layer}`, `head ${facts.at.head}`];
  parts.push(...describeShown(facts));
  if (head?.missing) parts.push(head.missing);
  else if (found) parts.push(`${sum(found)} hits`);
  if (selected && !head?.missing) parts.push(`${sum(selected)} selected`);
  return parts.join(", ");
}

/** Queries and keys together. */
export function sum(count: MarkCount): number {
  return count.nQueries + count.nKeys;
}
