import { render } from "preact";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { readState, state } from "../contract/state";
import { followListings, reloadListings } from "../shell/chosen";
import { hover } from "./hovering";
import { SentenceView } from "./SentenceView";

const MODEL = {
  model: "tiny",
  query_model: "tiny",
  key_model: "tiny",
  n_layers: 1,
  n_heads: 1,
  n_tokens: 3,
};
const HOSTILE = '<img src=x onerror="alert(1)">';
const TOKENS = ["[CLS]", HOSTILE, "\n"];
/** Of another sequence, 6. */
const OTHERS = ["a", "bc"];
const OTHER = { model: "tiny", sequence_id: 6, n_tokens: 2, text: "a bc", labels: {} };
const SEQUENCE = { model: "tiny", sequence_id: 5, n_tokens: 3, text: `${HOSTILE}\n`, labels: {} };

let isGone = false;
/** Replies to paths that hold this text wait until it is empty. */
let held = "";
let asked: string[] = [];
let stop: () => void;
let root: HTMLElement;

function reply(path: string): unknown {
  const place = (token: string, position: number) => ({
    position,
    token,
    is_special: position === 0,
  });
  const page = (...rows: unknown[]) => ({ version: "1", n_rows: rows.length, next: null, rows });
  if (path.startsWith("v1/models?")) return page(MODEL);
  if (path.startsWith("v1/heads?"))
    return page({ model: "tiny", layer: 0, head: 0, kv_head: 0, mask: "causal", window: null });
  if (path.startsWith("v1/maps?")) return page();
  if (path.includes("/sequences?")) return { ...page(SEQUENCE), n_matches: 1 };
  if (path.endsWith("/sequences/5")) return page(SEQUENCE);
  if (path.endsWith("/sequences/6")) return page(OTHER);
  if (path.includes("/sequences/6/tokens?")) {
    const spans = [
      { char_start: 0, char_end: 1 },
      { char_start: 2, char_end: 4 },
    ];
    return page(...OTHERS.map((token, i) => ({ ...place(token, i), ...spans[i] })));
  }
  if (path.includes("/tokens?")) {
    const ends = [null, HOSTILE.length, HOSTILE.length + 1];
    return page(
      ...TOKENS.map((token, i) => ({
        ...place(token, i),
        char_start: i === 0 ? null : (ends[i - 1] ?? 0),
        char_end: ends[i],
      })),
    );
  }
  if (path.includes("/mean_attention?"))
    return page({ query_position: 0, key_position: 0, weight: 1, n_sequences: 3 });
  if (path.includes("/attention?") && path.includes("sequence_id=6")) {
    const places = OTHERS.map(place);
    const weights = [
      [1, 0],
      [0.4, 0.6],
    ];
    return { version: "1", queries: places, keys: places, weights };
  }
  if (path.includes("/attention?")) {
    const places = TOKENS.map(place);
    const weights = [
      [1, 0, 0],
      [0.5, 0.5, 0],
      [0.5, 0.3, 0.2],
    ];
    return { version: "1", queries: places, keys: places, weights };
  }
  throw new Error(`nobody answers ${path}`);
}

async function answer(path: string): Promise<Response> {
  asked.push(path);
  await vi.waitUntil(() => held === "" || !path.includes(held));
  if (isGone && path.endsWith("/sequences/5")) {
    const error = { kind: "not_found", message: "no sequence 5 of tiny" };
    return new Response(JSON.stringify({ error }), { status: 404 });
  }
  return new Response(JSON.stringify(reply(path)), { headers: { "X-Atlas-Version": version } });
}

/** Each test has an atlas of its own version, so that no reply is kept from another. */
let version = "0";

beforeEach(async () => {
  isGone = false;
  held = "";
  asked = [];
  version = String(Number(version) + 1);
  vi.stubGlobal("fetch", (url: string) => answer(url));
  readState("view=sentence&sequenceId=5");
  hover(null);
  stop = followListings();
  reloadListings();
  root = document.createElement("div");
  document.body.append(root);
});

afterEach(() => {
  render(null, root);
  root.remove();
  stop();
  vi.unstubAllGlobals();
});

const keys = () => [...root.querySelectorAll<HTMLButtonElement>(".sentence-row.is-key button")];
const queries = () => [
  ...root.querySelectorAll<HTMLButtonElement>(".sentence-row.is-query button"),
];
const numbers = (buttons: HTMLButtonElement[]) =>
  buttons.map((button) => button.querySelector(".sentence-number")?.textContent);

async function open(): Promise<void> {
  render(<SentenceView />, root);
  await vi.waitFor(() => expect(keys().length).toBe(3));
  await vi.waitFor(() => expect(root.querySelector(".sentence-piece")).not.toBeNull());
}

test("a token in focus shows the weights of the other side", async () => {
  await open();
  queries()[2]?.focus();
  await vi.waitFor(() => expect(numbers(keys())).toEqual([".500", ".300", ".200"]));
  keys()[1]?.focus();
  await vi.waitFor(() => expect(numbers(queries())).toEqual(["0", ".500", ".300"]));
});

test("a click hides a key, scales what is left and stands in the address's state", async () => {
  await open();
  keys()[0]?.click();
  expect(state.hidden.value).toEqual([0]);
  queries()[2]?.focus();
  await vi.waitFor(() => expect(numbers(keys())).toEqual(["hidden", ".600", ".400"]));
  expect(queries()[0]?.textContent).toContain("nothing left");
  keys()[0]?.click();
  expect(state.hidden.value).toEqual([]);
  await vi.waitFor(() => expect(numbers(keys())).toEqual([".500", ".300", ".200"]));
});

test("hiding special tokens hides those alone", async () => {
  await open();
  state.hideSpecial.value = true;
  await vi.waitFor(() =>
    expect(keys().map((key) => key.getAttribute("aria-pressed"))).toEqual([
      "true",
      "false",
      "false",
    ]),
  );
});

test("texts of strangers are text, and what has no form is visible", async () => {
  await open();
  expect(root.querySelector("img")).toBeNull();
  const shown = keys().map((key) => key.querySelector(".sentence-token")?.textContent);
  expect(shown).toEqual(["[CLS]", `${HOSTILE.slice(0, 23)}…`, "⏎"]);
  expect(root.querySelector(".sentence-text p")?.textContent).toBe(`${HOSTILE}\n`);
});

test("the causal mask is said in words", async () => {
  await open();
  expect(root.textContent).toContain("causal mask: no query reaches a key after it");
});

test("a sequence that is gone leaves a way back", async () => {
  isGone = true;
  render(<SentenceView />, root);
  await vi.waitFor(() => expect(root.textContent).toContain("no sequence 5 of tiny"));
  const back = [...root.querySelectorAll("button")].find((button) =>
    button.textContent?.startsWith("Show the first"),
  );
  isGone = false;
  back?.click();
  expect(state.sequenceId.value).toBe(-1);
  await vi.waitFor(() => expect(keys().length).toBe(3));
});

test("only a window of queries is asked for, and value norms by the service", async () => {
  await open();
  state.weight.value = "value_norm";
  await vi.waitFor(() => {
    const last = asked.filter((path) => path.includes("/heads/0/attention?")).at(-1);
    expect(last).toContain("weight=value_norm");
    expect(last).toContain("n_queries=128");
  });
});

test("lists are one tab stop each, walked by arrow keys", async () => {
  await open();
  expect(keys().map((key) => key.tabIndex)).toEqual([0, -1, -1]);
  keys()[0]?.focus();
  keys()[0]?.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowDown", bubbles: true }));
  expect(document.activeElement).toBe(keys()[1]);
  await vi.waitFor(() => expect(keys().map((key) => key.tabIndex)).toEqual([-1, 0, -1]));
});

test("tokens of another sequence never stand beside the text of the one in sight", async () => {
  await open();
  held = "/attention?";
  state.sequenceId.value = 6;
  await vi.waitFor(() => expect(asked.some((path) => path.includes("sequence_id=6"))).toBe(true));
  await vi.waitFor(() => expect(keys()).toEqual([]));
  expect(root.querySelector(".sentence-text")).toBeNull();
  expect(root.querySelector(".sentence-view")?.getAttribute("data-drawn")).toBe("no");
  held = "/tokens?";
  await vi.waitFor(() => expect(keys().map((key) => key.textContent)).toHaveLength(2));
  expect(root.querySelector(".sentence-piece")).toBeNull();
  expect(root.querySelector(".sentence-text em")).toBeNull();
  held = "";
  await vi.waitFor(() => expect(root.querySelector(".sentence-text p")?.textContent).toBe("a bc"));
});

test("weights of the former head are marked as such until those of this one are there", async () => {
  await open();
  const pane = () => root.querySelector(".sentence-pane");
  expect(pane()?.getAttribute("data-outdated")).toBeNull();
  held = "/attention?";
  state.head.value = 1;
  await vi.waitFor(() => expect(pane()?.getAttribute("data-outdated")).toBe("yes"));
  expect(keys().length).toBe(3);
  held = "";
  await vi.waitFor(() => expect(pane()?.getAttribute("data-outdated")).toBeNull());
});

test("the strip says that hiding and value norm do not apply to it", async () => {
  await open();
  const words = root.querySelector(".sentence-strip")?.textContent;
  expect(words).toContain("hiding and value norm do not apply here");
});
