/** Keeps the selection equal to the selector of the state, as after a link or a step back. */

import { effect, signal } from "@preact/signals";
import type { Table } from "@uwdata/flechette";
import { askSql } from "../contract/client";
import { PlaceSet } from "../contract/places";
import type { ModelRow } from "../contract/rows";
import { hits, selection } from "../contract/selection";
import { type Selector, state } from "../contract/state";
import { findSides } from "../sql/sides";
import { model } from "./chosen";
import { say } from "./toasts";

const KEPT = 16;

/** Why what the state selects could not be found. */
export const selectionProblem = signal<Error | null>(null);

/** Places of a selector; the SQL of `sql` must give sequence_id and position. */
export async function findPlaces(
  selector: Selector,
  of: ModelRow,
  aborted?: AbortSignal,
): Promise<PlaceSet | null> {
  switch (selector.by) {
    case "sequence":
      return findTokens(selector.sequenceIds, of, aborted);
    case "sql": {
      const { table, isTruncated } = await askSql(selector.sql, {}, aborted);
      if (isTruncated)
        say("The query gives more rows than one reply holds: only the first are selected.");
      return readPlaces(table, of);
    }
    default:
      return null; // of the map's points, or of the search
  }
}

/** The places of a model that a table names, of both kinds where it has no column `kind`. */
export function readPlaces(table: Table, of: ModelRow): PlaceSet {
  const names = table.schema.fields.map((field) => field.name);
  for (const name of ["sequence_id", "position"]) {
    if (!names.includes(name)) {
      throw new Error(
        `a selection by SQL needs the columns sequence_id and position, not only ${names.join(", ")}`,
      );
    }
  }
  const places = new PlaceSet();
  const sequences = table.getChild("sequence_id");
  const positions = table.getChild("position");
  const find = (name: string) => (names.includes(name) ? table.getChild(name) : undefined);
  const [kinds, models] = [find("kind"), find("model")];
  for (let i = 0; i < table.numRows; i++) {
    const [sequenceId, position] = [sequences.at(i), positions.at(i)];
    if (sequenceId === null || position === null) continue; // names no token
    const { isQuery, isKey } = findSides({ kind: kinds?.at(i), model: models?.at(i) }, of);
    if (isQuery) places.add(1, Number(sequenceId), Number(position));
    if (isKey) places.add(0, Number(sequenceId), Number(position));
  }
  return places;
}

const TOKENS =
  "SELECT sequence_id, position FROM tokens " +
  "WHERE model = $model AND sequence_id IN (SELECT unnest($ids))";

async function findTokens(
  ids: readonly number[],
  of: ModelRow,
  aborted?: AbortSignal,
): Promise<PlaceSet> {
  const places = new PlaceSet();
  for (const side of new Set([of.query_model, of.key_model])) {
    const { table, isTruncated } = await askSql(TOKENS, { model: side, ids }, aborted);
    if (isTruncated)
      say("The sequences have more tokens than one reply holds: only the first are selected.");
    for (let i = 0; i < table.numRows; i++) {
      const sequenceId = Number(table.getChild("sequence_id").at(i));
      const position = Number(table.getChild("position").at(i));
      if (side === of.query_model) places.add(1, sequenceId, position);
      if (side === of.key_model) places.add(0, sequenceId, position);
    }
  }
  return places;
}

/** Keep selection and selector equal; returns what ends that. */
export function followSelector(): () => void {
  /** Selections by what made them, so that a step back needs no map. */
  const known = new Map<string, PlaceSet>();
  let last: { key: string; places: PlaceSet | null } = { key: "", places: null };
  let finding = new AbortController();
  const stop = effect(() => {
    const [selector, row, given] = [state.selector.value, model.value, selection.value];
    if (selector !== null && row === null) return; // until there are models
    const key = writeKey(selector, row);
    const isNewKey = key !== last.key;
    const isGiven = given !== null && given !== last.places;
    if (isNewKey || isGiven) finding.abort();
    if (selector?.by === "search") {
      last = { key, places: hits.value };
    } else {
      if (isGiven) keep(known, key, given);
      last = { key, places: isNewKey && !isGiven ? (known.get(key) ?? null) : given };
    }
    selection.value = last.places;
    if (isNewKey && last.places === null && selector !== null && row !== null) {
      finding = new AbortController();
      void find(selector, row, finding.signal);
    }
  });
  return () => {
    finding.abort();
    stop();
  };
}

/** What a selection hangs on: polygons select the same places in every model. */
function writeKey(selector: Selector | null, row: ModelRow | null): string {
  if (selector === null) return "";
  const isOfModel = selector.by === "sequence" || selector.by === "sql";
  return `${isOfModel ? row?.model : ""} ${JSON.stringify(selector)}`;
}

async function find(selector: Selector, row: ModelRow, aborted: AbortSignal): Promise<void> {
  selectionProblem.value = null;
  try {
    const places = await findPlaces(selector, row, aborted);
    if (!aborted.aborted && places !== null) selection.value = places;
  } catch (error) {
    if (aborted.aborted) return; // overtaken by another selection
    selectionProblem.value = error instanceof Error ? error : new Error(String(error));
    say(`The selection could not be found: ${selectionProblem.value.message}`);
  }
}

function keep(known: Map<string, PlaceSet>, key: string, places: PlaceSet): void {
  known.set(key, places);
  const oldest = known.keys().next();
  if (known.size > KEPT && !oldest.done) known.delete(oldest.value);
}
