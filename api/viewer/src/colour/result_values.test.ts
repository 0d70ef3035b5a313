import { tableFromArrays, tableToIPC } from "@uwdata/flechette";
import { afterEach, expect, test, vi } from "vitest";
import { type PointSet, readTexts } from "../contract/points";
import type { ModelRow } from "../contract/rows";
import { writeColour } from "../sql/columns";
import { loadColouring } from "./colourings";

const MODEL = { model: "a", query_model: "a", key_model: "a" } as ModelRow;
/** Query and key of two tokens. */
const POINTS: PointSet = {
  n: 4,
  isQuery: Uint8Array.of(1, 0, 1, 0),
  sequenceId: Float64Array.of(7, 7, 9, 9),
  position: Int32Array.of(0, 0, 2, 2),
  tokens: readTexts(["a", "a", "b", "b"]),
  isSpecial: new Uint8Array(4),
};
const asked: { sql: string; parameters: Record<string, unknown> }[] = [];
let nStatements = 0;

/** A service whose SQL gives these columns; those of a statement never asked before. */
async function colour(columns: Record<string, unknown[]>, name = "c") {
  vi.stubGlobal("fetch", async (_url: string, init: RequestInit) => {
    asked.push(JSON.parse(String(init.body)));
    const headers = { "Content-Type": "application/vnd.apache.arrow.stream" };
    return new Response(tableToIPC(tableFromArrays(columns as never), {}) as BodyInit, { headers });
  });
  const sql = `SELECT ${++nStatements} -- a comment`;
  const context = { model: MODEL, map: null, points: POINTS, isDark: false };
  const { texts, legend } = await loadColouring(writeColour(sql, name), context);
  return { texts: [0, 1, 2, 3].map(texts), legend };
}

afterEach(() => {
  asked.length = 0;
  vi.unstubAllGlobals();
});

test("a result colours queries and keys apart where it has their kind", async () => {
  const { texts } = await colour({
    kind: ["key", "query", "query"],
    sequence_id: [7, 7, 9],
    position: [0, 0, 2],
    c: ["K", "Q", "R"],
  });
  expect(texts).toEqual(["Q", "K", "R", ""]);
});

test("a result without kinds colours both points of a token", async () => {
  const { texts } = await colour({ sequence_id: [9], position: [2], c: [5] });
  expect(texts).toEqual(["", "", "5", "5"]);
});

test("rows of another model colour nothing", async () => {
  const { texts } = await colour({
    model: ["b", "a"],
    sequence_id: [7, 9],
    position: [0, 2],
    c: ["wrong", "right"],
  });
  expect(texts).toEqual(["", "", "right", "right"]);
});

test("rows without a place colour nothing, and of two rows of a point the first counts", async () => {
  const { texts } = await colour({
    sequence_id: [7, null, 7, 7],
    position: [null, 0, 0, 0],
    c: ["x", "y", "first", "second"],
  });
  expect(texts).toEqual(["first", "first", "", ""]);
});

test("the legend has the column's name, and the statement stands in a line of its own", async () => {
  const { legend } = await colour({ sequence_id: [7], position: [0], "a:%b": [1] }, "a:%b");
  expect(legend.title).toBe("a:%b");
  expect(asked[1]?.sql).toBe(
    `SELECT "sequence_id", "position", "a:%b" FROM (SELECT ${nStatements} -- a comment
) AS result\nWHERE sequence_id IN (SELECT unnest($sequences))`,
  );
  expect(asked[1]?.parameters).toEqual({ sequences: [7, 9] });
});

test("a result without the column says so", async () => {
  await expect(colour({ sequence_id: [7], position: [0] })).rejects.toThrow(/needs its column c/);
});

test("a damaged link says so", async () => {
  const context = { model: MODEL, map: null, points: POINTS, isDark: false };
  await expect(loadColouring("column:c", context)).rejects.toThrow(/damaged/);
});
