import { render } from "preact";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { readState, state } from "../contract/state";
import { hover } from "../sentence/hovering";
import { followListings, reloadListings } from "../shell/chosen";
import { ImageView } from "./ImageView";

vi.mock("./load_image", () => ({ loadImage: async () => new Image() }));

const models = ["photos", "texts"].map((name) => ({
  model: name,
  query_model: name,
  key_model: name,
  n_layers: 1,
  n_heads: 1,
}));
/** CLS, then 1 × 2 patches. */
const TOKENS = [null, 0, 1].map((col, position) => ({
  position,
  token: null,
  is_special: col === null,
  patch_row: col === null ? null : 0,
  patch_col: col,
  label: col === 1 ? "sky" : null,
  hue: null,
  saturation: null,
  brightness: null,
}));
const WEIGHTS = [
  [0.5, 0.25, 0.25],
  [0.2, 0.1, 0.7],
  [0.6, 0.3, 0.1],
];

/** Replies to paths that hold this text wait until it is empty. */
let held = "";
let version = "0";
let stop: () => void;
let root: HTMLElement;

function reply(path: string): unknown {
  const page = (...rows: unknown[]) => ({ version: "1", n_rows: rows.length, next: null, rows });
  const text = path.includes("/texts/") ? "words" : null;
  const sequence = { sequence_id: 4, n_tokens: 3, text, labels: { folder: "cat" } };
  if (path.startsWith("v1/models?")) return page(...models);
  if (path.startsWith("v1/heads?"))
    return page({ layer: 0, head: 0, kv_head: 0, mask: "full", window: null });
  if (path.startsWith("v1/maps?")) return page();
  if (path.includes("/sequences?")) return { ...page(sequence), n_matches: 1 };
  if (path.endsWith("/sequences/4")) return page(sequence);
  if (path.endsWith("/sequences/5")) return page({ ...sequence, sequence_id: 5 });
  if (path.includes("/tokens?")) return page(...TOKENS);
  if (path.includes("/attention?")) return { queries: TOKENS, keys: TOKENS, weights: WEIGHTS };
  throw new Error(`nobody answers ${path}`);
}

async function open(address: string): Promise<void> {
  readState(address);
  hover(null);
  stop = followListings();
  reloadListings();
  render(<ImageView />, root);
}

beforeEach(() => {
  held = "";
  version = String(Number(version) + 1);
  vi.stubGlobal("fetch", async (url: string) => {
    await vi.waitUntil(() => held === "" || !url.includes(held));
    return new Response(JSON.stringify(reply(url)), { headers: { "X-Atlas-Version": version } });
  });
  root = document.createElement("div");
  document.body.append(root);
});

afterEach(() => {
  render(null, root);
  root.remove();
  stop();
  vi.unstubAllGlobals();
});

const words = () => root.querySelector("#image-focus")?.textContent ?? "";
const press = (key: string) =>
  root
    .querySelector(".image-picture")
    ?.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));

test("arrow keys go from patch to patch, and Enter keeps one in focus", async () => {
  await open("view=image&model=photos");
  await vi.waitFor(() => expect(words()).toContain("1 × 2 patches"));
  press("ArrowRight");
  await vi.waitFor(() => expect(words()).toContain("query row 0, column 0 → row 0, column 1 .700"));
  press("ArrowRight");
  await vi.waitFor(() => expect(words()).toContain("row 0, column 1 (sky) → CLS .600"));
  press("Enter");
  expect(state.point.value).toEqual({ kind: "query", sequenceId: 4, position: 2 });
});

test("a patch as key tells who attends to it, and CLS stands beside the picture", async () => {
  await open("view=image&model=photos&point=k:4:1");
  await vi.waitFor(() => expect(words()).toContain("key row 0, column 0 ← row 0, column 1 .300"));
  const chips = [...root.querySelectorAll(".image-others button")];
  expect(chips.map((chip) => chip.textContent)).toEqual(["CLS .250"]);
});

test("what a patch counts as stands in the address, and a point clicked elsewhere decides", async () => {
  await open("view=image&model=photos&patchKind=key");
  const menu = () =>
    [...root.querySelectorAll("select")].find(
      (one) => one.value === "key" || one.value === "query",
    );
  await vi.waitFor(() => expect(menu()?.value).toBe("key"));
  press("ArrowRight");
  await vi.waitFor(() => expect(words()).toContain("key row 0, column 0"));
  press("Enter");
  const select = menu();
  if (!select) throw new Error("there is a menu");
  select.value = "query";
  select.dispatchEvent(new Event("change", { bubbles: true }));
  expect(state.patchKind.value).toBe("query");
  expect(state.point.value).toEqual({ kind: "query", sequenceId: 4, position: 1 });
  render(null, root);
  await open("view=image&model=photos&point=k:4:1");
  await vi.waitFor(() => expect(menu()?.value).toBe("key"));
});

test("weights of another image never lie over the one in sight", async () => {
  await open("view=image&model=photos&sequenceId=4");
  await vi.waitFor(() => expect(words()).toContain("1 × 2 patches"));
  held = "/attention?";
  state.sequenceId.value = 5;
  await vi.waitFor(() => expect(root.querySelector(".image-picture")).toBeNull());
  held = "";
  await vi.waitFor(() => expect(words()).toContain("1 × 2 patches"));
});

test("without CLS the rest is scaled anew", async () => {
  await open("view=image&model=photos&hideSpecial=true&point=q:4:2");
  await vi.waitFor(() => expect(words()).toContain("row 0, column 0 .750; row 0, column 1 .250"));
});

test("for texts the view says what it is for and names the models of images", async () => {
  await open("view=image&model=texts");
  await vi.waitFor(() => expect(root.textContent).toContain("Models of images in this atlas"));
  const [, name] = [...root.querySelectorAll("button")];
  expect(name?.textContent).toBe("photos");
  name?.click();
  expect(state.model.value).toBe("photos");
});
