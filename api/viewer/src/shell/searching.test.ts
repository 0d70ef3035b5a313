import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { newestVersion } from "../contract/client";
import { writePlace } from "../contract/places";
import { hits } from "../contract/selection";
import { change, readState } from "../contract/state";
import { followListings, model, reloadListings } from "./chosen";
import { writeCount } from "./Search";
import { followSearch, isSearching, searchCount, searchProblem } from "./searching";

const ROW = { model: "a", query_model: "q", key_model: "k", n_layers: 1, n_heads: 1 };
const stops: (() => void)[] = [];
const asked: URL[] = [];
let hasMore = false;
let answerSearch: () => Promise<Response>;

async function answer(text: string): Promise<Response> {
  const url = new URL(text, "http://atlas.test");
  asked.push(url);
  if (url.pathname.endsWith("/search")) return answerSearch();
  if (url.pathname.endsWith("/count")) {
    return toPage([
      { token: "a", n: 100 },
      { token: "A", n: 18 },
    ]);
  }
  return toPage(url.pathname === "/v1/models" ? [ROW] : []);
}

const toPage = (rows: unknown[], next: string | null = null) => Response.json({ rows, next });

beforeEach(async () => {
  newestVersion.value += "x";
  hasMore = false;
  asked.length = 0;
  answerSearch = async () => toPage([{ sequence_id: 3, position: 1 }], hasMore ? "more" : null);
  vi.stubGlobal("fetch", answer);
  stops.push(followListings());
  await reloadListings();
  await vi.waitFor(() => expect(model.value?.model).toBe("a"));
  stops.push(followSearch());
});

afterEach(() => {
  for (const stop of stops.splice(0)) stop();
  readState("");
  hits.value = null;
  vi.unstubAllGlobals();
});

test("a search lights its places, as queries of one corpus and keys of the other", async () => {
  change({ search: "a", match: "prefix", anyCase: true });
  await vi.waitFor(() => expect(hits.value).not.toBeNull());
  expect([...(hits.value?.places() ?? [])].map(writePlace)).toEqual(["k:3:1", "q:3:1"]);
  expect(searchCount.value).toEqual({
    inCorpus: 236,
    shown: null,
    among: null,
    hasMore: false,
  });
  const search = asked.filter((url) => url.pathname.endsWith("/search"));
  expect(search.map((url) => url.pathname)).toEqual([
    "/v1/models/q/tokens/search",
    "/v1/models/k/tokens/search",
  ]);
  const parameters = Object.fromEntries(search[0]?.searchParams ?? []);
  expect(parameters).toMatchObject({ text: "a", match: "prefix", case: "false" });
});

test("no search is no hits, not none of them", async () => {
  change({ search: "a" });
  await vi.waitFor(() => expect(hits.value).not.toBeNull());
  change({ search: "" });
  expect(hits.value).toBeNull();
  expect(searchCount.value).toBeNull();
});

test("an overtaken search changes nothing", async () => {
  let finish = (_reply: Response) => {};
  answerSearch = () =>
    new Promise((resolve) => {
      finish = resolve;
    });
  change({ search: "slow" });
  answerSearch = async () => toPage([{ sequence_id: 8, position: 8 }]);
  change({ search: "fast" });
  await vi.waitFor(() => expect(hits.value?.sequences()).toEqual([8]));
  finish(toPage([{ sequence_id: 1, position: 1 }]));
  await new Promise((resolve) => setTimeout(resolve, 10));
  expect(hits.value?.sequences()).toEqual([8]);
  expect(isSearching.value).toBe(false);
});

test("a search that fails says why and lights nothing", async () => {
  answerSearch = async () =>
    Response.json({ error: { kind: "bad_query", message: "too long" } }, { status: 400 });
  change({ search: "a" });
  await vi.waitFor(() => expect(searchProblem.value?.message).toBe("too long"));
  expect(hits.value).toBeNull();
  expect(isSearching.value).toBe(false);
});

test("counts say what is in the corpus, on the map, and more than lit", () => {
  const count = { inCorpus: 118, shown: 36, among: null, hasMore: false };
  expect(writeCount(count, false)).toBe("118 in the corpus, 36 points on this map");
  expect(writeCount({ ...count, among: 250_000 }, false)).toBe(
    "118 in the corpus, 36 points of the first 250,000",
  );
  expect(writeCount({ ...count, inCorpus: 0 }, false)).toBe("None in the corpus");
  expect(writeCount({ ...count, inCorpus: 250_000, shown: null, hasMore: true }, false)).toBe(
    "250,000 in the corpus, the first 100,000 lit",
  );
  expect(writeCount(null, true)).toBe("Searching…");
  expect(writeCount(null, false)).toBe("");
});
