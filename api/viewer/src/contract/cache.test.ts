import { effect } from "@preact/signals";
import { beforeEach, expect, test, vi } from "vitest";
import { Cache } from "./cache";
import { newestVersion } from "./client";

beforeEach(() => {
  newestVersion.value = "one";
});

test("what is kept is loaded once, also by callers at one time", async () => {
  const cache = new Cache();
  const load = vi.fn(async () => "value");
  expect(await Promise.all([cache.get("a", load), cache.get("a", load)])).toEqual([
    "value",
    "value",
  ]);
  expect(await cache.get("a", load)).toBe("value");
  expect(load).toHaveBeenCalledTimes(1);
});

test("what failed is loaded anew", async () => {
  const cache = new Cache();
  await expect(cache.get("a", () => Promise.reject(new Error("no")))).rejects.toThrow("no");
  expect(await cache.get("a", async () => 1)).toBe(1);
});

test("the least recently asked is given up first", async () => {
  const cache = new Cache(2);
  const load = vi.fn(async () => 0);
  await cache.get("a", load);
  await cache.get("b", load);
  await cache.get("a", load);
  await cache.get("c", load);
  await cache.get("a", load);
  expect(load).toHaveBeenCalledTimes(3);
  await cache.get("b", load);
  expect(load).toHaveBeenCalledTimes(4);
});

test("a newer version of the atlas forgets all", async () => {
  const cache = new Cache();
  const load = vi.fn(async () => newestVersion.value);
  await cache.get("a", load);
  newestVersion.value = "two";
  expect(await cache.get("a", load)).toBe("two");
});

test("the first version forgets nothing that was asked before it was known", async () => {
  newestVersion.value = "";
  const cache = new Cache();
  const load = vi.fn(async () => 0);
  await cache.get("a", load);
  newestVersion.value = "one";
  await cache.get("a", load);
  expect(load).toHaveBeenCalledTimes(1);
});

test("a caller that goes away ends its own wait and nobody else's", async () => {
  const cache = new Cache();
  const controller = new AbortController();
  let finish = (_value: number) => {};
  const load = () =>
    new Promise<number>((resolve) => {
      finish = resolve;
    });
  const gone = expect(cache.get("a", load, controller.signal)).rejects.toThrow(/abort/i);
  const stays = cache.get("a", load);
  controller.abort();
  finish(7);
  await gone;
  expect(await stays).toBe(7);
});

test("a failed load takes away no successor of its key", async () => {
  const cache = new Cache();
  let fail = (_error: Error) => {};
  const old = cache.get(
    "a",
    () =>
      new Promise<number>((_resolve, reject) => {
        fail = reject;
      }),
  );
  newestVersion.value = "two";
  const load = vi.fn(async () => 2);
  expect(await cache.get("a", load)).toBe(2);
  fail(new Error("late"));
  await expect(old).rejects.toThrow("late");
  expect(await cache.get("a", load)).toBe(2);
  expect(load).toHaveBeenCalledTimes(1);
});

test("an effect that asks is not run again by a newer version", async () => {
  const cache = new Cache();
  const run = vi.fn(() => {
    void cache.get("a", async () => 0);
  });
  const stop = effect(run);
  newestVersion.value = "two";
  stop();
  expect(run).toHaveBeenCalledTimes(1);
});
