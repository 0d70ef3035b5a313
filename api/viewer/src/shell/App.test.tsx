import { render } from "preact";
import { act } from "preact/test-utils";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { connection, newestVersion } from "../contract/client";
import { readState } from "../contract/state";
import { App, startFollowing } from "./App";
import { reloadListings } from "./chosen";

const MODEL = {
  model: "a",
  query_model: "a",
  key_model: "a",
  n_layers: 6,
  n_heads: 12,
  n_tokens: 128_089,
};
const root = document.createElement("div");
document.body.append(root);
let stop = () => {};
let models: unknown[] = [];
const asked: string[] = [];

async function answer(url: string): Promise<Response> {
  asked.push(url);
  const rows = url.startsWith("v1/models?") ? models : [];
  const headers = { "X-Atlas-Version": newestVersion.peek() };
  return Response.json({ rows, service: "qkatlas 1.0" }, { headers });
}

beforeEach(() => {
  newestVersion.value += "x";
  models = [MODEL];
  asked.length = 0;
  vi.stubGlobal("fetch", answer);
});

afterEach(async () => {
  await act(() => render(null, root));
  stop();
  history.replaceState(null, "", "/");
  readState("");
  connection.value = "ok";
  vi.unstubAllGlobals();
});

async function open(address: string): Promise<void> {
  history.replaceState(null, "", `/${address}`);
  stop = startFollowing();
  await reloadListings();
  await act(() => render(<App />, root));
}

test("the address chooses the view, tabs are links to the others, and the title follows", async () => {
  await open("#view=table&layer=2");
  await vi.waitFor(() => expect(document.title).toBe("Sequences · a — QK Atlas"));
  await vi.waitFor(() => expect(root.querySelector(".table-view")).not.toBeNull());
  const tabs = [...root.querySelectorAll<HTMLAnchorElement>("nav a")];
  expect(tabs.map((tab) => tab.textContent)).toEqual([
    "Matrix",
    "Single",
    "Sentence",
    "Sequences",
    "SQL",
  ]);
  const current = tabs.filter((tab) => tab.getAttribute("aria-current") === "page");
  expect(current.map((tab) => tab.textContent)).toEqual(["Sequences"]);
  expect(tabs[4]?.getAttribute("href")).toBe("#view=sql&layer=2");
  await act(() => tabs[4]?.click());
  expect(location.hash).toBe("#view=sql&layer=2");
  expect(document.title).toBe("SQL · a — QK Atlas");
});

test("a model comes with its size", async () => {
  await open("#view=sql");
  await vi.waitFor(() => expect(root.textContent).toContain("6 × 12 heads, 128,089 tokens"));
});

test("an address of another view asks nothing of the first", async () => {
  await open("#view=sql");
  await vi.waitFor(() => expect(document.title).toContain("SQL"));
  expect(asked.filter((url) => url.includes("/matrix"))).toEqual([]);
});

test("an empty atlas says what to run", async () => {
  models = [];
  await open("");
  await vi.waitFor(() => expect(root.querySelector(".empty-atlas")).not.toBeNull());
  expect(root.textContent).toContain("qkatlas run mine.yaml");
});

test("a model without maps says what to configure, in the views of maps alone", async () => {
  await open("#view=single");
  await vi.waitFor(() => expect(root.querySelector(".no-maps")).not.toBeNull());
  expect(root.textContent).toContain("maps:");
  await act(() => root.querySelector<HTMLAnchorElement>("nav a:last-child")?.click());
  expect(root.querySelector(".no-maps")).toBeNull();
});

test("a link to a model that is not there names it and offers the others", async () => {
  await open("#model=gone");
  await vi.waitFor(() =>
    expect(root.querySelector(".unknown-model")?.textContent).toContain("gone"),
  );
});

test("a server that wants a token gets a form, and nothing else is offered", async () => {
  await open("#view=sql");
  await act(() => {
    connection.value = "token";
  });
  expect(root.querySelector(".token-form")).not.toBeNull();
  expect(root.querySelector("nav")).toBeNull();
});
