import { tableFromArrays, tableToIPC } from "@uwdata/flechette";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { newestVersion } from "../contract/client";
import { PlaceSet, writePlace } from "../contract/places";
import { hits, select, selection } from "../contract/selection";
import { change, readState, type Selector, state } from "../contract/state";
import { followListings, models, reloadListings } from "./chosen";
import { findPlaces, followSelector, readPlaces, selectionProblem } from "./selecting";

const MODEL = { model: "a", query_model: "a", key_model: "a", n_layers: 1, n_heads: 1 };
const POLYGON: Selector = { by: "polygon", mapId: "m", corners: [0, 0, 1, 1, 0, 1] };
const SEQUENCE: Selector = { by: "sequence", sequenceIds: [5] };

const toReply = (columns: Record<string, unknown[]>) =>
  new Response(new Uint8Array(tableToIPC(tableFromArrays(columns), {}) ?? []));

/** A service of one model, whose SQL gives these columns. */
function serve(columns: Record<string, unknown[]>) {
  const fetch = vi.fn(async (url: string, _init?: RequestInit) => {
    if (url === "v1/sql") return toReply(columns);
    return new Response(JSON.stringify({ rows: url.startsWith("v1/models?") ? [MODEL] : [] }));
  });
  vi.stubGlobal("fetch", fetch);
  return fetch;
}

function makeSet(...places: readonly (readonly [number, number, number])[]): PlaceSet {
  const set = new PlaceSet();
  for (const [isQuery, sequence, position] of places) set.add(isQuery, sequence, position);
  return set;
}

const shown = () => selection.value && [...selection.value.places()].map(writePlace);
const stops: (() => void)[] = [];

beforeEach(async () => {
  newestVersion.value = `${Number(newestVersion.value) + 1}`;
  serve({ sequence_id: [5, 5], position: [0, 1] });
  await reloadListings();
  stops.push(followListings());
  await vi.waitFor(() => expect(models.value).toHaveLength(1));
  stops.push(followSelector());
});

afterEach(() => {
  for (const stop of stops.splice(0)) stop();
  readState("");
  selection.value = null;
  hits.value = null;
  vi.unstubAllGlobals();
});

test("a table of places selects both kinds where it names none", () => {
  const both = readPlaces(tableFromArrays({ sequence_id: [1], position: [2] }), MODEL as never);
  expect([...both.places()].map(writePlace)).toEqual(["k:1:2", "q:1:2"]);
  const table = tableFromArrays({ kind: ["key", "query"], sequence_id: [1, 3], position: [2, 4] });
  const named = readPlaces(table, MODEL as never);
  expect([...named.places()].map(writePlace)).toEqual(["k:1:2", "q:3:4"]);
});

test("a row without a sequence or a position selects nothing, nor does one of another model", () => {
  const places = readPlaces(
    tableFromArrays({
      model: ["a", "a", "b", null, "a"],
      sequence_id: [null, 1, 1, 1, 4],
      position: [0, null, 1, 1, 5],
    }),
    MODEL as never,
  );
  expect([...places.places()].map(writePlace)).toEqual(["k:4:5", "q:4:5"]);
});

test("a table without places says what it needs", () => {
  const table = tableFromArrays({ token: ["a"] });
  expect(() => readPlaces(table, MODEL as never)).toThrow(
    /sequence_id and position, not only token/,
  );
});

test("sequences of a link are selected with all their tokens", async () => {
  change({ selector: SEQUENCE });
  await vi.waitFor(() => expect(shown()).toEqual(["k:5:0", "q:5:0", "k:5:1", "q:5:1"]));
});

test("in cross attention queries and keys are of two corpora", async () => {
  const fetch = serve({ sequence_id: [5], position: [0] });
  const cross = { ...MODEL, query_model: "q", key_model: "k" } as never;
  const places = await findPlaces(SEQUENCE, cross);
  expect([...(places?.places() ?? [])].map(writePlace)).toEqual(["k:5:0", "q:5:0"]);
  const asked = fetch.mock.calls.map(([, init]) => JSON.parse(String(init?.body)).parameters.model);
  expect(asked).toEqual(["q", "k"]);
});

test("what a view selects with its places is asked of nobody", () => {
  const fetch = serve({});
  const places = makeSet([1, 2, 3]);
  select(POLYGON, places);
  expect(selection.value).toBe(places);
  expect(fetch).not.toHaveBeenCalled();
});

test("a step back shows the selection before, though no map is there", () => {
  const first = makeSet([1, 2, 3]);
  const second = makeSet([0, 9, 9]);
  select(POLYGON, first);
  select({ ...POLYGON, corners: [5, 5, 6, 6, 5, 6] }, second);
  change({ selector: { ...POLYGON } });
  expect(selection.value).toBe(first);
});

test("a polygon of a link waits for its map, and is not taken for the next selection", async () => {
  change({ selector: POLYGON });
  expect(selection.value).toBeNull();
  const places = makeSet([1, 2, 3]);
  select(POLYGON, places);
  expect(selection.value).toBe(places);
  change({ selector: SEQUENCE });
  expect(selection.value).toBeNull();
  await vi.waitFor(() => expect(selection.value?.size).toBe(4));
});

test("selecting nothing selects nothing", () => {
  select(POLYGON, makeSet([1, 2, 3]));
  select(null, null);
  expect(selection.value).toBeNull();
  expect(state.selector.value).toBeNull();
});

test("a selection by search follows the hits", () => {
  hits.value = makeSet([1, 1, 1]);
  change({ selector: { by: "search" } });
  expect(selection.value).toBe(hits.value);
  hits.value = makeSet([0, 2, 2], [1, 2, 2]);
  expect(selection.value?.size).toBe(2);
});

test("a selection that cannot be found says why", async () => {
  vi.stubGlobal(
    "fetch",
    async () =>
      new Response('{"error": {"kind": "bad_query", "message": "no table tokenz"}}', {
        status: 400,
      }),
  );
  change({ selector: { by: "sql", sql: "SELECT * FROM tokenz" } });
  await vi.waitFor(() => expect(selectionProblem.value?.message).toBe("no table tokenz"));
  expect(selection.value).toBeNull();
});
