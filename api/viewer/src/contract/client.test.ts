import { tableFromArrays, tableToIPC } from "@uwdata/flechette";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import {
  AtlasProblem,
  ask,
  askArrow,
  askFile,
  askSql,
  connection,
  newestVersion,
  writeUrl,
} from "./client";

const json = (body: unknown, status = 200, headers: Record<string, string> = {}) =>
  new Response(JSON.stringify(body), { status, headers });
const refusal = (status: number, kind: string, headers: Record<string, string> = {}) =>
  json({ error: { kind, message: `said of ${kind}` } }, status, headers);
const lost = () => Promise.reject(new TypeError("Failed to fetch"));

type Reply = () => Response | Promise<Response>;

/** Answers in this order, the last one again and again. */
function answer(...replies: Reply[]) {
  const fetch = vi.fn(async (_url: string, _init?: RequestInit) => {
    const reply = replies.length > 1 ? replies.shift() : replies[0];
    if (!reply) throw new Error("no reply");
    return reply();
  });
  vi.stubGlobal("fetch", fetch);
  return fetch;
}

beforeEach(() => {
  vi.useFakeTimers();
  connection.value = "ok";
  newestVersion.value = "";
});

afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

describe("a URL", () => {
  test("leaves out what is not said, repeats lists and keeps no and zero", () => {
    const parameters = { a: undefined, b: "", c: 0, d: false, e: ["x y", "z&"] };
    expect(writeUrl("v1/maps", parameters)).toBe("v1/maps?c=0&d=false&e=x+y&e=z%26");
    expect(writeUrl("v1/maps")).toBe("v1/maps");
  });
});

describe("a question", () => {
  test("is relative, and its reply tells the version", async () => {
    const fetch = answer(() => json({ rows: [1] }, 200, { "X-Atlas-Version": "abc" }));
    expect(await ask("v1/heads", { model: "a" })).toEqual({ rows: [1] });
    expect(fetch.mock.calls[0]?.[0]).toBe("v1/heads?model=a");
    expect(newestVersion.value).toBe("abc");
  });

  test("waits as long as a busy server says, then is asked again", async () => {
    const fetch = answer(
      () => refusal(429, "busy", { "Retry-After": "2" }),
      () => json("done"),
    );
    const asked = ask("v1");
    await vi.advanceTimersByTimeAsync(1_900);
    expect(fetch).toHaveBeenCalledTimes(1);
    await vi.advanceTimersByTimeAsync(200);
    expect(await asked).toBe("done");
    expect(fetch).toHaveBeenCalledTimes(2);
  });

  test("waits no longer than it can be seen to wait", async () => {
    const fetch = answer(
      () => refusal(429, "busy", { "Retry-After": "99999" }),
      () => json("done"),
    );
    const asked = ask("v1");
    await vi.advanceTimersByTimeAsync(5_100);
    expect(await asked).toBe("done");
    expect(fetch).toHaveBeenCalledTimes(2);
  });

  test("says so where another answered in the server's place, or the reply was damaged", async () => {
    const page = { headers: { "Content-Type": "text/html" } };
    answer(
      () => new Response("<!doctype html>", page),
      () => new Response("{"),
    );
    await expect(ask("v1")).rejects.toThrow(/is a web page/);
    await expect(ask("v1")).rejects.toMatchObject({ kind: "damaged_reply" });
  });

  test("is given up where the server stays busy", async () => {
    answer(() => refusal(429, "busy"));
    const asked = expect(ask("v1")).rejects.toMatchObject({ status: 429, kind: "busy" });
    await vi.advanceTimersByTimeAsync(60_000);
    await asked;
  });

  test("waits for a server that went away, and says so until it is back", async () => {
    answer(lost, lost, () => json("back"));
    const asked = ask("v1");
    await vi.advanceTimersByTimeAsync(100);
    expect(connection.value).toBe("lost");
    await vi.advanceTimersByTimeAsync(2_000);
    expect(await asked).toBe("back");
    expect(connection.value).toBe("ok");
  });

  test("takes a proxy without a server behind it for a server that is away", async () => {
    answer(
      () => new Response("<h1>Bad gateway</h1>", { status: 502 }),
      () => json("back"),
    );
    const asked = ask("v1");
    await vi.advanceTimersByTimeAsync(100);
    expect(connection.value).toBe("lost");
    await vi.advanceTimersByTimeAsync(2_000);
    expect(await asked).toBe("back");
    expect(connection.value).toBe("ok");
  });

  test("is asked again where the server went away in the middle of its reply", async () => {
    const fail = () => Promise.reject(new TypeError("network error"));
    const cut = () => Object.assign(json("cut"), { arrayBuffer: fail });
    answer(cut, () => json("whole"));
    const asked = ask("v1");
    await vi.advanceTimersByTimeAsync(100);
    expect(connection.value).toBe("lost");
    await vi.advanceTimersByTimeAsync(2_000);
    expect(await asked).toBe("whole");
  });

  test("ends where it is aborted while the server is away", async () => {
    const fetch = answer(lost);
    const controller = new AbortController();
    const asked = expect(ask("v1", {}, controller.signal)).rejects.toThrow(/abort/i);
    await vi.advanceTimersByTimeAsync(100);
    controller.abort();
    await asked;
    const before = fetch.mock.calls.length;
    await vi.advanceTimersByTimeAsync(30_000);
    expect(fetch).toHaveBeenCalledTimes(before);
  });

  test("asks for the token where the server wants one", async () => {
    answer(() => refusal(401, "unauthorized"));
    await expect(ask("v1")).rejects.toBeInstanceOf(AtlasProblem);
    expect(connection.value).toBe("token");
  });

  test("that is refused says why in the service's own words", async () => {
    answer(() => refusal(404, "not_found"));
    await expect(ask("v1")).rejects.toMatchObject({
      status: 404,
      kind: "not_found",
      message: "said of not_found",
    });
  });

  test("that something else than the service refuses says the status", async () => {
    for (const body of ["<html>", "{}", '{"error": 3}', "null", ""]) {
      answer(() => new Response(body, { status: 418 }));
      const problem = await ask("v1").catch((error: unknown) => error);
      expect(problem, body).toBeInstanceOf(AtlasProblem);
      expect(problem, body).toMatchObject({ status: 418, kind: "unknown" });
      expect((problem as Error).message, body).toMatch(/418/);
    }
  });
});

describe("a table", () => {
  const rows = tableFromArrays({ id: [1n, 2n ** 40n], word: ["a", "b"] });
  const bytes = new Uint8Array(tableToIPC(rows, {}) ?? []);
  const reply = () => new Response(bytes, { headers: { "X-Truncated": "true" } });

  test("comes as Arrow, with integers as numbers", async () => {
    const fetch = answer(reply);
    const table = await askArrow("v1/x");
    expect([...(table.getChild("id")?.toArray() ?? [])]).toEqual([1, 2 ** 40]);
    const headers = fetch.mock.calls[0]?.[1]?.headers as Record<string, string>;
    expect(headers["Accept"]).toBe("application/vnd.apache.arrow.stream");
  });

  test("of SQL sends values as parameters and says where it was cut", async () => {
    const fetch = answer(reply);
    const { table, isTruncated } = await askSql("SELECT $a", { a: "x" }, undefined, 10);
    expect(isTruncated).toBe(true);
    expect(table.numRows).toBe(2);
    expect(JSON.parse(String(fetch.mock.calls[0]?.[1]?.body))).toEqual({
      sql: "SELECT $a",
      parameters: { a: "x" },
      format: "arrow",
      max_rows: 10,
    });
  });

  test("that is saved whole is refused where it was cut", async () => {
    answer(reply);
    await expect(askFile("SELECT 1", {}, "parquet")).rejects.toMatchObject({ kind: "over_limit" });
    answer(() => new Response("a\n1\n"));
    expect(await (await askFile("SELECT 1", {}, "csv")).text()).toBe("a\n1\n");
  });
});
