import { tableFromArrays, tableToIPC } from "@uwdata/flechette";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { searchLabels } from "./label_search";

const asked: { sql: string; parameters: Record<string, unknown>; max_rows?: number }[] = [];
const { signal } = new AbortController();

beforeEach(() => {
  asked.length = 0;
  vi.stubGlobal("fetch", async (_url: string, init: RequestInit) => {
    const body = JSON.parse(String(init.body));
    asked.push(body);
    const isCount = body.sql.includes("count(*)");
    const columns = isCount ? { n: [12] } : { sequence_id: [4, 5], position: [1, 2] };
    const headers = {
      "Content-Type": "application/vnd.apache.arrow.stream",
      "X-Truncated": String(!isCount),
    };
    return new Response(tableToIPC(tableFromArrays(columns as never), {}) as BodyInit, { headers });
  });
});

afterEach(() => vi.unstubAllGlobals());

test("labels of patches and of images are found, counted and cut at the limit", async () => {
  const found = await searchLabels("m", { text: "cat", match: "exact", case: true }, 2, signal);
  expect(found).toEqual({
    rows: [
      { sequence_id: 4, position: 1 },
      { sequence_id: 5, position: 2 },
    ],
    n: 12,
    hasMore: true,
  });
  expect(asked[0]?.max_rows).toBe(2);
  for (const { sql, parameters } of asked) {
    expect(sql.match(/label = \$text/g)).toHaveLength(2);
    expect(parameters).toEqual({ model: "m", text: "cat" });
  }
});

test("a text is matched as it is asked, and never part of the statement", async () => {
  const text = "'; DROP";
  await searchLabels("m", { text, match: "prefix", case: false }, 2, signal);
  expect(asked[0]?.sql).toContain("starts_with(lower(label), lower($text))");
  await searchLabels("m", { text, match: "substring", case: true }, 2, signal);
  expect(asked.at(-1)?.sql).toContain("contains(label, $text)");
  expect(asked.some(({ sql }) => sql.includes("DROP"))).toBe(false);
});
