import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { listOnce } from "./Help";
import { followKeys, isPressed, register } from "./shortcuts";

const stops: (() => void)[] = [];
const press = (key: string, init: KeyboardEventInit = {}, target: EventTarget = document.body) => {
  const event = new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true, ...init });
  target.dispatchEvent(event);
  return event;
};

beforeEach(() => {
  stops.push(followKeys());
});

afterEach(() => {
  for (const stop of stops.splice(0)) stop();
  document.body.replaceChildren();
});

test("a registered key runs until it is taken back", () => {
  const run = vi.fn();
  const stop = register({ key: "0", what: "Reset", run });
  expect(press("0").defaultPrevented).toBe(true);
  expect(press("1").defaultPrevented).toBe(false);
  stop();
  press("0");
  expect(run).toHaveBeenCalledTimes(1);
});

test("the newest of one key runs, and the sheet lists only it", () => {
  const [old, recent] = [vi.fn(), vi.fn()];
  const all = [
    { key: "Escape", what: "old", run: old },
    { key: "Escape", what: "recent", run: recent },
  ];
  stops.push(...all.map(register));
  press("Escape");
  expect(old).not.toHaveBeenCalled();
  expect(recent).toHaveBeenCalledTimes(1);
  expect(listOnce(all).map((one) => one.what)).toEqual(["recent"]);
});

test("keys typed into a field are text, and those of a checkbox are not", () => {
  const run = vi.fn();
  stops.push(register({ key: "/", what: "Search", run }));
  for (const [tag, type] of [
    ["input", "search"],
    ["textarea", ""],
    ["select", ""],
  ] as const) {
    const field = document.createElement(tag);
    if (type) field.setAttribute("type", type);
    document.body.append(field);
    press("/", {}, field);
  }
  expect(run).not.toHaveBeenCalled();
  const box = document.createElement("input");
  box.type = "checkbox";
  document.body.append(box);
  press("/", {}, box);
  expect(run).toHaveBeenCalledTimes(1);
});

test("Enter on a button presses the button", () => {
  const run = vi.fn();
  stops.push(register({ key: "Enter", what: "Open", run }));
  const button = document.createElement("button");
  document.body.append(button);
  press("Enter", {}, button);
  expect(run).not.toHaveBeenCalled();
});

test("arrow keys scroll what can be scrolled, and run what is registered elsewhere", () => {
  const run = vi.fn();
  stops.push(register({ key: "ArrowDown", what: "Next layer", run }));
  stops.push(register({ key: "ArrowRight", what: "Next head", run }));
  const [text, inner] = [document.createElement("p"), document.createElement("button")];
  text.style.overflowY = "auto";
  text.append(inner);
  document.body.append(text);
  Object.defineProperty(text, "scrollHeight", { value: 200 });
  Object.defineProperty(text, "clientHeight", { value: 100 });
  expect(press("ArrowDown", {}, inner).defaultPrevented).toBe(false);
  expect(run).not.toHaveBeenCalled();
  press("ArrowRight", {}, inner);
  press("ArrowDown");
  expect(run).toHaveBeenCalledTimes(2);
  inner.setAttribute("role", "application");
  press("ArrowDown", {}, inner);
  expect(run).toHaveBeenCalledTimes(3);
});

test("a key that something else took, or an open dialog, runs nothing", () => {
  const run = vi.fn();
  stops.push(register({ key: "0", what: "Reset", run }));
  document.body.addEventListener("keydown", (event) => event.preventDefault(), { once: true });
  press("0");
  const dialog = document.createElement("dialog");
  dialog.setAttribute("open", "");
  document.body.append(dialog);
  press("0");
  expect(run).not.toHaveBeenCalled();
});

test("a key is told from the same with Ctrl, Alt or Shift", () => {
  const event = (key: string, init: KeyboardEventInit = {}) =>
    new KeyboardEvent("keydown", { key, ...init });
  expect(isPressed("+", event("+", { shiftKey: true }))).toBe(true);
  expect(isPressed("?", event("?", { shiftKey: true }))).toBe(true);
  expect(isPressed("c", event("c", { ctrlKey: true }))).toBe(false);
  expect(isPressed("Ctrl+Enter", event("Enter", { metaKey: true }))).toBe(true);
  expect(isPressed("Ctrl+Enter", event("Enter"))).toBe(false);
  expect(isPressed("ArrowLeft", event("ArrowLeft", { shiftKey: true }))).toBe(false);
  expect(isPressed("Shift+ArrowLeft", event("ArrowLeft", { shiftKey: true }))).toBe(true);
  expect(isPressed("ArrowLeft", event("ArrowLeft", { altKey: true }))).toBe(false);
});
