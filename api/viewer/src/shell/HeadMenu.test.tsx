import { signal } from "@preact/signals";
import { type ComponentChild, render } from "preact";
import { act } from "preact/test-utils";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { change, readState, state } from "../contract/state";
import { HeadMenu } from "./HeadMenu";
import { followKeys } from "./shortcuts";

vi.mock("./chosen", () => ({
  heads: signal([
    { layer: 0, head: 0 },
    { layer: 0, head: 5 },
    { layer: 1, head: 2 },
    { layer: 1, head: 4 },
  ]),
  hasImages: signal(false),
  model: signal(null),
  models: signal([]),
}));

const root = document.createElement("div");
document.body.append(root);
const show = (what: ComponentChild) => act(() => render(what, root));
const press = (key: string, shiftKey = false) =>
  act(() => {
    document.body.dispatchEvent(new KeyboardEvent("keydown", { key, shiftKey, bubbles: true }));
  });
const at = () => [state.layer.value, state.head.value];
let stopKeys = () => {};

beforeEach(() => {
  readState("view=sentence&head=5&camera=1,2,3");
  stopKeys = followKeys();
});

afterEach(async () => {
  await show(null);
  stopKeys();
});

test("another layer is opened at the head nearest to the one in sight, in the same view", async () => {
  await show(<HeadMenu />);
  const menu = root.querySelector("select") as HTMLSelectElement;
  expect([...menu.options].map((one) => one.value)).toEqual(["0", "1"]);
  menu.value = "1";
  await act(async () => {
    menu.dispatchEvent(new Event("change", { bubbles: true }));
  });
  expect(at()).toEqual([1, 4]);
  expect([state.view.value, state.camera.value]).toEqual(["sentence", ""]);
});

test("Shift and an arrow step to the adjacent head everywhere, an arrow alone only where it may", async () => {
  await show(<HeadMenu />);
  await press("ArrowLeft");
  expect(at()).toEqual([0, 5]);
  await press("ArrowLeft", true);
  expect(at()).toEqual([0, 0]);
  await show(<HeadMenu hasPlainKeys />);
  await press("ArrowRight");
  expect(at()).toEqual([0, 5]);
});

test("steps are named buttons, disabled at the edge", async () => {
  await show(<HeadMenu hasNames />);
  const steps = () => [...root.querySelectorAll("button")];
  expect(steps().map((one) => one.textContent)).toEqual([
    "← L0 H0: Head before",
    "→ –: Head after",
    "↑ –: Same head in the layer before",
    "↓ –: Same head in the layer after",
  ]);
  expect(steps().map((one) => one.disabled)).toEqual([false, true, true, true]);
  await act(async () => steps()[0]?.click());
  expect(at()).toEqual([0, 0]);
  await act(() => change({ layer: 7, head: 9 }));
  const values = [...root.querySelectorAll("select")].map((one) => one.value);
  expect(values).toEqual(["7", "9"]);
});
