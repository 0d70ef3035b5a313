import { tableFromArrays, tableToIPC } from "@uwdata/flechette";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { type PointSet, readTexts } from "../contract/points";
import type { MapRow, ModelRow } from "../contract/rows";
import { type ColourContext, type Legend, listColourings, loadColouring } from "./colourings";

interface Asked {
  readonly url: string;
  readonly sql: string;
  readonly parameters: Readonly<Record<string, unknown>>;
}

let asked: Asked[] = [];
let nModels = 0;

/** A service that answers what `reply` makes of a question: arrays by column, or JSON. */
function serve(reply: (question: Asked) => Record<string, unknown>, headers = {}) {
  vi.stubGlobal("fetch", async (url: string, init: RequestInit) => {
    const body = init.body ? (JSON.parse(String(init.body)) as Asked) : null;
    const question = { url, sql: body?.sql ?? "", parameters: body?.parameters ?? {} };
    asked.push(question);
    const columns = reply(question);
    if ("rows" in columns || "error" in columns) {
      return new Response(JSON.stringify(columns), { status: "error" in columns ? 400 : 200 });
    }
    const bytes = tableToIPC(tableFromArrays(columns as never), {});
    return new Response(bytes as BodyInit, { headers });
  });
}

/** A model that no test before asked about, so that nothing kept answers. */
function makeModel(fields: Partial<ModelRow> = {}): ModelRow {
  const model = `m${++nModels}`;
  return { model, query_model: model, key_model: model, ...fields } as ModelRow;
}

/** Points as kind, sequence, position, token. */
function makePoints(rows: readonly (readonly [string, number, number, string | null])[]): PointSet {
  return {
    n: rows.length,
    isQuery: Uint8Array.from(rows, ([kind]) => Number(kind === "q")),
    sequenceId: Float64Array.from(rows, ([, sequenceId]) => sequenceId),
    position: Int32Array.from(rows, ([, , position]) => position),
    tokens: readTexts(rows.map(([, , , token]) => token)),
    isSpecial: Uint8Array.from(rows, ([, , , token]) => Number(token === "[CLS]")),
  };
}

const POINTS = makePoints([
  ["q", 7, 0, "[CLS]"],
  ["k", 7, 6, "def"],
  ["k", 9, 1, ","],
  ["q", 9, 5, "def"],
]);

function contextOf(fields: Partial<ColourContext> = {}): ColourContext {
  return { model: makeModel(), map: null, points: POINTS, isDark: false, ...fields };
}

function labelsOf(legend: Legend): string[] {
  return legend.kind === "categories" ? legend.entries.map(({ label, n }) => `${label} ${n}`) : [];
}

function colourAt(rgba: Uint8Array, index: number): string {
  return rgba.slice(4 * index, 4 * index + 4).join(" ");
}

beforeEach(() => {
  asked = [];
  serve(() => {
    throw new Error("nothing is to be asked");
  });
});

afterEach(() => {
  vi.unstubAllGlobals();
});

test("by kind, queries and keys have their two colours", async () => {
  const { rgba, legend, usesKind } = await loadColouring("kind", contextOf());
  expect(labelsOf(legend)).toEqual(["query 2", "key 2"]);
  expect(usesKind).toBe(true);
  expect(colourAt(rgba, 0)).toBe(colourAt(rgba, 3));
  expect(colourAt(rgba, 0)).not.toBe(colourAt(rgba, 1));
  expect(asked).toEqual([]);
});

test.each([
  ["mod5", ["0 2", "1 2"]],
  ["punctuation", ["other token 2", "punctuation 1", "special token 1"]],
  ["same_token", ["def 2", "[CLS] 1", ", 1"]],
  ["sequence", ["7 2", "9 2"]],
  ["none", []],
])("by %s, what the points themselves hold is enough", async (name, labels) => {
  const { rgba, legend } = await loadColouring(name, contextOf());
  expect(labelsOf(legend)).toEqual(labels);
  expect(rgba).toHaveLength(16);
  expect(asked).toEqual([]);
});

test("by position, each is a part of its own sequence's length", async () => {
  serve(() => ({ sequence_id: [7, 9], value: [7, 11] }));
  const { legend, texts } = await loadColouring("position", contextOf());
  expect(legend).toMatchObject({ kind: "continuous", low: 0, high: 1, nMissing: 0 });
  expect(texts(3)).toBe("5 of 0–10");
  expect(asked[0]?.parameters["sequences"]).toEqual([7, 9]);
});

test("by token length, the tokenizer's marks do not count", async () => {
  const points = makePoints([
    ["q", 1, 1, "Ġthe"],
    ["q", 1, 2, "##s"],
    ["q", 1, 3, null],
  ]);
  const { legend, texts } = await loadColouring("token_length", contextOf({ points }));
  expect(legend).toMatchObject({ low: 1, high: 3, nMissing: 1 });
  expect([texts(0), texts(2)]).toEqual(["3", ""]);
});

test("by frequency, tokens are counted in the whole corpus and shown by powers of ten", async () => {
  serve(() => ({ token: ["[CLS]", "def", ","], n: [1000, 10, 100] }));
  const { legend, texts } = await loadColouring("frequency", contextOf());
  expect(legend).toMatchObject({ low: 1, high: 3 });
  expect(texts(0)).toBe("1000 in the corpus");
});

test("a column of texts makes categories and one of numbers a scale", async () => {
  const rows = { sequence_id: [7, 7, 9, 9], position: [0, 6, 1, 5] };
  serve(({ sql }) =>
    sql.includes('"part_of_speech"')
      ? { ...rows, value: ["X", "NOUN", "PUNCT", "NOUN"] }
      : { ...rows, value: [101, 5, 6, 5] },
  );
  const context = contextOf();
  const words = await loadColouring("token:part_of_speech", context);
  expect(labelsOf(words.legend)).toEqual(["NOUN 2", "X 1", "PUNCT 1"]);
  expect(words.texts(2)).toBe("PUNCT");
  const numbers = await loadColouring("token:vocab_id", context);
  expect(numbers.legend).toMatchObject({ kind: "continuous", low: 5, high: 101 });
});

test("a column's name is quoted, whatever it has in it", async () => {
  serve(() => ({ sequence_id: [7], position: [0], value: [1] }));
  await loadColouring('token:a"b', contextOf());
  expect(asked[0]?.sql).toContain('("a""b"');
});

test("an SQL expression is asked over tokens, and where it has no value the point is missing", async () => {
  serve(() => ({ sequence_id: [9, 7], position: [5, 0], value: [2.5, -1] }));
  const context = contextOf();
  const { legend, texts } = await loadColouring("sql:vocab_id % 10 -- ends", context);
  expect(asked[0]?.sql).toContain("(vocab_id % 10 -- ends\n)");
  expect(asked[0]?.parameters["model"]).toBe(context.model.model);
  expect(legend).toMatchObject({ title: "vocab_id % 10 -- ends", nMissing: 2 });
  expect([texts(0), texts(1), texts(3)]).toEqual(["-1", "", "2.5"]);
});

test("what the service says of a wrong expression is what is shown", async () => {
  serve(() => ({ error: { kind: "bad_query", message: "no column foo" } }));
  await expect(loadColouring("sql:foo", contextOf())).rejects.toThrow("no column foo");
});

test.each([
  ["sql: ", /Write an SQL expression/],
  ["colour", /There is no colouring “colour”/],
  ["constructor", /There is no colouring/],
  ["norm", /open a head/],
])("%o is refused with a sentence", async (name, sentence) => {
  await expect(loadColouring(name, contextOf())).rejects.toThrow(sentence);
});

test("a label of sequences colours all tokens of each", async () => {
  serve(() => ({ sequence_id: [7, 9], value: ["code", "prose"] }));
  const { legend } = await loadColouring("label:genre", contextOf());
  expect(labelsOf(legend)).toEqual(["code 2", "prose 2"]);
  expect(asked[0]?.parameters["label"]).toBe("genre");
});

test("in cross attention queries have the tokens of one model and keys those of the other", async () => {
  const model = makeModel({ query_model: "decoder", key_model: "encoder" });
  serve(({ parameters }) => ({
    sequence_id: [7, 7, 9, 9],
    position: [0, 6, 1, 5],
    value: Array(4).fill(String(parameters["model"])),
  }));
  const { texts } = await loadColouring("token:label", contextOf({ model }));
  expect([0, 1, 2, 3].map(texts)).toEqual(["decoder", "encoder", "encoder", "decoder"]);
});

test("a reply that a limit cut is asked again in halves", async () => {
  vi.stubGlobal("fetch", async (_: string, init: RequestInit) => {
    const { parameters } = JSON.parse(String(init.body)) as Asked;
    const ids = parameters["sequences"] as number[];
    asked.push({ url: "", sql: "", parameters });
    const columns = {
      sequence_id: ids.slice(0, 1),
      position: [ids[0] === 7 ? 0 : 5],
      value: [ids[0] ?? 0],
    };
    const headers = { "X-Truncated": String(ids.length > 1) };
    return new Response(tableToIPC(tableFromArrays(columns), {}) as BodyInit, { headers });
  });
  const { texts } = await loadColouring("token:vocab_id", contextOf());
  expect([texts(0), texts(3)]).toEqual(["7", "9"]);
  expect(asked.map(({ parameters }) => parameters["sequences"])).toEqual([[7, 9], [7], [9]]);
});

test("heads with the same tokens ask once", async () => {
  serve(() => ({ sequence_id: [7], position: [0], value: [1] }));
  const context = contextOf();
  await loadColouring("token:vocab_id", context);
  await loadColouring("token:vocab_id", { ...context, head: 3 });
  expect(asked).toHaveLength(1);
});

test("patches have their own colours", async () => {
  const points = makePoints([
    ["q", 1, 0, null],
    ["q", 1, 1, null],
    ["q", 1, 2, null],
  ]);
  const values: Record<string, (number | null)[]> = {
    hue: [0, 1 / 3, null],
    saturation: [1, 0.5, null],
    brightness: [1, 0.8, null],
  };
  serve(({ sql }) => ({
    sequence_id: [1, 1, 1],
    position: [0, 1, 2],
    value: values[/\("(\w+)"/.exec(sql)?.[1] ?? ""] ?? [],
  }));
  const { rgba, legend } = await loadColouring("patch_colour", contextOf({ points }));
  expect(colourAt(rgba, 0)).toBe("255 0 0 255");
  expect(colourAt(rgba, 1)).toBe("102 204 102 255");
  expect(legend).toMatchObject({ nOthers: 1 });
});

/** Two points of a map, with their ranks. */
function makePart(ranks: readonly [number, number]) {
  const points = makePoints([
    ["q", 1, 0, "a"],
    ["q", 1, 1, "b"],
  ]);
  const axes = { x: Float32Array.of(1, 2), y: Float32Array.of(-1, 5) };
  return { ...points, ...axes, rank: Int32Array.from(ranks) };
}

test("norms of a part of a map are asked for by the box of its points", async () => {
  const map = { map_id: `map${nModels++}` } as MapRow;
  serve(() => ({ norm: [80, 30] }));
  const box = [0, 3, -2, 6];
  const { texts } = await loadColouring("norm", contextOf({ map, box, points: makePart([8, 3]) }));
  expect([texts(0), texts(1)]).toEqual(["80", "30"]);
  expect(decodeURIComponent(asked[0]?.url ?? "")).toContain("box=0,3,-2,6");
});

test("points of a map that has grown have their own norms, though they share ranks", async () => {
  const map = { map_id: `map${nModels++}` } as MapRow;
  serve(() => ({ norm: [3, 7] }));
  const { texts } = await loadColouring("norm", contextOf({ map, points: makePart([0, 0]) }));
  expect([texts(0), texts(1)]).toEqual(["3", "7"]);
});

test("norms of another number than the points' are refused", async () => {
  const map = { map_id: `map${nModels++}` } as MapRow;
  serve(() => ({ norm: [3, 7, 9] }));
  const context = contextOf({ map, points: makePart([0, 1]) });
  await expect(loadColouring("norm", context)).rejects.toThrow(/has changed/);
});

test("norms of a map's first points come in drawing order", async () => {
  const map = { map_id: `map${nModels++}` } as MapRow;
  serve(() => ({ norm: [3, 7] }));
  const points = makePart([0, 1]);
  const { texts } = await loadColouring("norm", contextOf({ map, points }));
  expect([texts(0), texts(1)]).toEqual(["3", "7"]);
  expect(asked[0]?.url).not.toContain("box=");
});

test("the menu has what the model's tokens have values for, and no more", async () => {
  const columns = ["model", "token", "part_of_speech", "patch_row", "hue"].map((name) => ({
    name,
  }));
  const counts: Record<string, number> = { n0: 5, n1: 5, n2: 5, n3: 0, n4: 0 };
  serve(({ url, sql }) => {
    if (url === "v1/schema") return { rows: [{ name: "tokens", columns }] };
    if (sql.includes("map_keys")) return { name: ["topic"] };
    return Object.fromEntries(Object.entries(counts).map(([name, n]) => [name, [n]]));
  });
  const names = (await listColourings(makeModel())).map(({ name }) => name);
  expect(names).toEqual(expect.arrayContaining(["kind", "norm", "frequency", "label:topic"]));
  expect(names).toContain("token:part_of_speech");
  expect(names).not.toContain("patch_row");
  expect(names).not.toContain("token:hue");
  expect(names).not.toContain("token:model");
});
