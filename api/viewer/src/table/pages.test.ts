import { expect, test, vi } from "vitest";
import { AtlasProblem } from "../contract/client";
import type { Page } from "../contract/rows";
import { findTrail, loadPage, noteNext } from "./pages";

const toPage = (row: string): Page<string> => ({
  version: "1",
  n_rows: 1,
  next: null,
  rows: [row],
});

test("pages gone through lead back; those of a link do not", () => {
  expect(findTrail("q", "")).toEqual([]);
  expect(findTrail("q", "b")).toBeNull();
  noteNext("q", "", "a");
  noteNext("q", "a", "b");
  expect(findTrail("q", "b")).toEqual(["a", "b"]);
  expect(findTrail("q", "a")).toEqual(["a"]);
  expect(findTrail("another", "a")).toBeNull();
});

test("a cursor of a former version gives the first page, and is said to be stale", async () => {
  const onStale = vi.fn();
  const load = async (cursor: string) => {
    if (cursor === "old") throw new AtlasProblem(410, "stale_version", "it has grown");
    return toPage("first");
  };
  expect(await loadPage("old", load, onStale)).toEqual(toPage("first"));
  expect(onStale).toHaveBeenCalledTimes(1);
});

test("other failures are not taken for a stale cursor", async () => {
  const onStale = vi.fn();
  const fail = (kind: string) => async () => {
    throw new AtlasProblem(500, kind, kind);
  };
  await expect(loadPage("c", fail("internal"), onStale)).rejects.toThrow("internal");
  await expect(loadPage("", fail("bad_query"), onStale)).rejects.toThrow("bad_query");
  await expect(loadPage("c", fail("bad_query"), onStale)).rejects.toThrow("bad_query");
  expect(onStale).not.toHaveBeenCalled();
});
