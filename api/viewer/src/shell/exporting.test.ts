import { tableFromArrays, tableToIPC } from "@uwdata/flechette";
import { afterEach, expect, test, vi } from "vitest";
import { PlaceSet } from "../contract/places";
import { type MapPoints, placesOf, readTexts } from "../contract/points";
import type { MapRow, ModelRow } from "../contract/rows";
import {
  MOST_PLACES,
  makeCsv,
  makeParquet,
  nameFile,
  picture,
  registerPicture,
  writeCsv,
  writeFloat,
} from "./exporting";

const MAP = {
  map_id: "m1",
  model: "org/model one",
  layer: 2,
  head: 11,
  method: "attention",
  dims: 2,
} as MapRow;
const MODEL = { query_model: "q", key_model: "k" } as ModelRow;

function makePoints(tokens: readonly (string | null)[], dims: 2 | 3 = 2): MapPoints {
  const n = tokens.length;
  return {
    n,
    mapId: "m1",
    dims,
    isQuery: Uint8Array.from(tokens, (_, i) => i % 2),
    sequenceId: Float64Array.from(tokens, (_, i) => 2 ** 32 + i),
    position: Int32Array.from(tokens, (_, i) => i),
    tokens: readTexts(tokens),
    isSpecial: new Uint8Array(n),
    x: Float32Array.from(tokens, (_, i) => i + 0.5),
    y: Float32Array.from(tokens, () => -1),
    z: Float32Array.from(tokens, () => 3),
    rank: Int32Array.from(tokens, (_, i) => i),
    distortion: null,
  };
}

afterEach(() => vi.unstubAllGlobals());

test("CSV has a heading and a line for each point, in the API's names", () => {
  expect(writeCsv(makePoints(["a", "b"]), null)).toBe(
    "kind,sequence_id,position,token,x,y\r\n" +
      "key,4294967296,0,a,0.5,-1\r\n" +
      "query,4294967297,1,b,1.5,-1\r\n",
  );
  expect(writeCsv(makePoints([null], 3), null)).toContain(
    "token,x,y,z\r\nkey,4294967296,0,,0.5,-1,3",
  );
});

test("commas, quotes and line ends of a token stay one field", () => {
  const csv = writeCsv(makePoints([",", '"', "\n", "a\r"]), null);
  for (const field of ['","', '""""', '"\n"', '"a\r"']) expect(csv).toContain(`,${field},`);
});

test("a coordinate is as short as it can be without loss", () => {
  expect(writeFloat(Math.fround(3.4748886))).toBe("3.4748886");
  expect(writeFloat(Math.fround(0.1))).toBe("0.1");
  for (let i = 1; i < 1_000; i++) {
    const value = Math.fround(Math.sin(i) * 10 ** ((i % 60) - 30));
    expect(Math.fround(Number(writeFloat(value)))).toBe(value);
  }
});

test("only what is selected is written", () => {
  const points = makePoints(["a", "b", "c"]);
  const lines = writeCsv(points, placesOf(points, [2]))
    .trim()
    .split("\r\n");
  expect(lines).toHaveLength(2);
  expect(lines[1]).toContain(",c,");
});

test("Parquet is asked with the places as lists of parameters", async () => {
  const fetch = vi.fn(async (_url: string, _init?: RequestInit) => new Response("PAR1"));
  vi.stubGlobal("fetch", fetch);
  const places = placesOf(makePoints(["a", "b"]), [0, 1]);
  await makeParquet(MAP, MODEL, places);
  const body = JSON.parse(String(fetch.mock.calls[0]?.[1]?.body));
  expect(body.format).toBe("parquet");
  expect(body.parameters).toEqual({
    map_id: "m1",
    query_model: "q",
    key_model: "k",
    kinds: ["key", "query"],
    sequences: [2 ** 32, 2 ** 32 + 1],
    positions: [0, 1],
  });
});

/** A service whose SQL gives these columns, each time the same. */
function serveSql(columns: Record<string, unknown[]>) {
  const fetch = vi.fn(async (_url: string, _init?: RequestInit) => {
    const headers = { "Content-Type": "application/vnd.apache.arrow.stream" };
    return new Response(tableToIPC(tableFromArrays(columns as never), {}) as BodyInit, { headers });
  });
  vi.stubGlobal("fetch", fetch);
  return fetch;
}

test("a selection on a map with more points than are drawn is asked for by SQL, in pieces", async () => {
  const fetch = serveSql({
    kind: ["query"],
    sequence_id: [5],
    position: [3],
    token: [","],
    x: [0.5],
    y: [-1],
    z: [null],
  });
  const places = new PlaceSet();
  for (let i = 0; i <= MOST_PLACES; i++) places.add(1, 5, i);
  const csv = await makeCsv({ ...MAP, n_points: 250_001 }, MODEL, places);
  const line = 'query,5,3,",",0.5,-1\r\n';
  expect(csv).toBe(`kind,sequence_id,position,token,x,y\r\n${line}${line}`);
  const bodies = fetch.mock.calls.map(([, init]) => JSON.parse(String(init?.body)));
  expect(bodies.map(({ parameters }) => parameters.positions.length)).toEqual([MOST_PLACES, 1]);
});

test("a selection that is not on the map is told so", async () => {
  serveSql({ kind: [], sequence_id: [], position: [], token: [], x: [], y: [] });
  const places = placesOf(makePoints(["a"]), [0]);
  const map = { ...MAP, n_points: 250_001 };
  await expect(makeCsv(map, MODEL, places)).rejects.toThrow(/none of the selected/);
});

test("a selection too large for one request is refused with the way out", async () => {
  const places = new PlaceSet();
  for (let i = 0; i <= MOST_PLACES; i++) places.add(1, 0, i);
  await expect(makeParquet(MAP, MODEL, places)).rejects.toThrow(/at most 20000 .* use CSV/);
});

test("a file is named for its map, without what file systems refuse", () => {
  expect(nameFile(MAP)).toBe("org-model-one-l2-h11-attention-2d");
});

test("the view in sight says how its picture is taken, and an older one takes nothing back", () => {
  const [first, second] = [async () => {}, async () => {}];
  const stopFirst = registerPicture(first);
  const stopSecond = registerPicture(second);
  stopFirst();
  expect(picture.value).toBe(second);
  stopSecond();
  expect(picture.value).toBeNull();
});
