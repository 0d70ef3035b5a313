import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { connection, newestVersion } from "../contract/client";
import { followListings, listedVersion, models, reloadListings } from "./chosen";
import { followVersion } from "./newer_version";
import { notices } from "./toasts";

let version = "v0";
let rows: { model: string; query_model: string }[] = [];
const stops: (() => void)[] = [];

beforeEach(async () => {
  vi.useFakeTimers();
  vi.stubGlobal("fetch", async (url: string) =>
    Response.json(
      { rows: url.startsWith("v1/models?") ? rows : [] },
      { headers: { "X-Atlas-Version": version } },
    ),
  );
  version = `${version}x`;
  newestVersion.value = version;
  rows = [{ model: "a", query_model: "a" }];
  stops.push(followListings());
  await reloadListings();
  await vi.waitFor(() => expect(listedVersion.value).toBe(version));
  stops.push(followVersion());
});

afterEach(() => {
  for (const stop of stops.splice(0)) stop();
  notices.value = [];
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

/** The service commits a version, which a page left open finds within the time given. */
async function commit(ms = 61_000): Promise<void> {
  version = `${version}y`;
  await vi.advanceTimersByTimeAsync(ms);
}

test("a page left open learns that the atlas has grown, and changes nothing by itself", async () => {
  expect(notices.value).toEqual([]);
  rows = [...rows, { model: "b", query_model: "b" }];
  await commit();
  expect(notices.value.map((notice) => notice.text)).toEqual(["The atlas has grown."]);
  expect(models.value).toHaveLength(1);
  notices.value[0]?.action?.run();
  await vi.advanceTimersByTimeAsync(10);
  expect(models.value).toHaveLength(2);
  expect(notices.value).toEqual([]);
});

test("each version is told once, also where a late reply is of an older one", async () => {
  await commit();
  notices.value = [];
  const newest = newestVersion.value;
  newestVersion.value = `${newest}-older`;
  notices.value = [];
  newestVersion.value = newest;
  expect(notices.value).toEqual([]);
});

test("an empty atlas shows its first model without being asked", async () => {
  rows = [];
  await commit();
  await reloadListings();
  await vi.advanceTimersByTimeAsync(10);
  rows = [{ model: "first", query_model: "first" }];
  await commit();
  await vi.advanceTimersByTimeAsync(10);
  expect(models.value.map((row) => row.model)).toEqual(["first"]);
});

test("nothing is asked while the server is away", async () => {
  connection.value = "lost";
  await commit();
  expect(notices.value).toEqual([]);
  connection.value = "ok";
});
