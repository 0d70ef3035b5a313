import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { Camera } from "../draw/camera";
import { type GestureHost, listenGestures, type Pixel, type Tool } from "./gestures";

const size = { width: 200, height: 100 };
let element: HTMLElement;
let stop: () => void;
let camera: Camera;
let tool: Tool;
let outline: readonly number[];
let finished: readonly number[][];
let clicks: Pixel[];
let hovered: (Pixel | null)[];

beforeEach(() => {
  element = document.createElement("div");
  element.setPointerCapture = () => {};
  camera = { dims: 2, x: 0, y: 0, span: 1 };
  tool = "move";
  outline = [];
  finished = [];
  clicks = [];
  hovered = [];
  const host: GestureHost = {
    camera: () => camera,
    moveTo: (next) => {
      camera = next;
    },
    size: () => size,
    tool: () => tool,
    outline: () => outline,
    setOutline: (corners) => {
      outline = corners;
    },
    finishOutline: (corners) => {
      finished = [...finished, [...corners]];
    },
    hover: (at) => hovered.push(at),
    click: (at) => clicks.push(at),
    reset: () => {},
  };
  stop = listenGestures(element, host);
});

afterEach(() => stop());

function send(type: string, x: number, y: number, more: PointerEventInit = {}): void {
  const init = { clientX: x, clientY: y, pointerId: 1, button: 0, bubbles: true, ...more };
  element.dispatchEvent(new PointerEvent(type, init));
}

function drag(from: Pixel, to: Pixel, more: PointerEventInit = {}): void {
  send("pointerdown", from.x, from.y, more);
  for (let step = 1; step <= 5; step++) {
    const part = step / 5;
    send("pointermove", from.x + (to.x - from.x) * part, from.y + (to.y - from.y) * part, more);
  }
  send("pointerup", to.x, to.y, more);
}

describe("a pointer on a map", () => {
  it("clicks even where the hand shakes a little, and a drag is no click", () => {
    drag({ x: 50, y: 50 }, { x: 52, y: 51 });
    expect(clicks).toEqual([{ x: 52, y: 51 }]);
    expect(camera).toMatchObject({ x: 0, y: 0 });
    drag({ x: 50, y: 50 }, { x: 90, y: 50 });
    expect(clicks).toHaveLength(1);
  });

  it("pans by as much as it is dragged: half the shorter side is one span", () => {
    drag({ x: 50, y: 50 }, { x: 100, y: 75 });
    expect(camera.x).toBeCloseTo(-1);
    expect(camera.y).toBeCloseTo(0.5);
  });

  it("turns a 3-D map, and moves it with Control", () => {
    camera = { dims: 3, x: 0, y: 0, z: 0, yaw: 0, pitch: 0, span: 1 };
    drag({ x: 50, y: 50 }, { x: 100, y: 50 });
    expect(camera).toMatchObject({ x: 0, y: 0, z: 0 });
    expect(camera.yaw).not.toBe(0);
    const { yaw } = camera;
    drag({ x: 50, y: 50 }, { x: 100, y: 50 }, { ctrlKey: true });
    expect(camera.yaw).toBe(yaw);
    expect(Math.hypot(camera.x, camera.z)).toBeGreaterThan(0.1);
  });

  it("draws a box with Shift, and moves nothing meanwhile", () => {
    drag({ x: 10, y: 20 }, { x: 60, y: 80 }, { shiftKey: true });
    expect(finished).toEqual([[10, 20, 60, 20, 60, 80, 10, 80]]);
    expect(outline).toEqual([]);
    expect(camera).toEqual({ dims: 2, x: 0, y: 0, span: 1 });
  });

  it("draws a lasso with Alt or by the tool chosen", () => {
    drag({ x: 10, y: 20 }, { x: 60, y: 80 }, { altKey: true });
    tool = "lasso";
    drag({ x: 10, y: 20 }, { x: 60, y: 80 });
    expect(finished).toHaveLength(2);
    expect(finished[0]?.slice(0, 2)).toEqual([10, 20]);
    expect(finished[0]?.length).toBeGreaterThanOrEqual(10);
  });

  it("selects nothing where the outline was given up meanwhile", () => {
    send("pointerdown", 10, 10, { shiftKey: true });
    send("pointermove", 50, 50, { shiftKey: true });
    outline = [];
    send("pointermove", 70, 70, { shiftKey: true });
    send("pointerup", 70, 70, { shiftKey: true });
    expect(finished).toEqual([]);
    expect(clicks).toEqual([]);
  });

  it("zooms by the wheel with what is under it kept there", () => {
    const turn = new WheelEvent("wheel", { deltaY: -200 });
    Object.assign(turn, { clientX: 150, clientY: 50 }); // happy-dom leaves them out
    element.dispatchEvent(turn);
    const before = 1; // a quarter of the width right of the middle, in map units
    const after = camera.x + (50 / 50) * camera.span;
    expect(camera.span).toBeLessThan(1);
    expect(after).toBeCloseTo(before);
  });

  it("zooms by two fingers, which never click", () => {
    const touch = (id: number) => ({ pointerId: id, pointerType: "touch" });
    send("pointerdown", 90, 50, touch(1));
    send("pointerdown", 110, 50, touch(2));
    send("pointermove", 70, 50, touch(1));
    send("pointermove", 130, 50, touch(2));
    send("pointerup", 70, 50, touch(1));
    send("pointerup", 130, 50, touch(2));
    expect(camera.span).toBeCloseTo(1 / 3, 1);
    expect(camera.x).toBeCloseTo(0, 1);
    expect(clicks).toEqual([]);
  });

  it("hovers only while nothing is pressed", () => {
    send("pointermove", 5, 6);
    expect(hovered).toEqual([{ x: 5, y: 6 }]);
    send("pointerdown", 5, 6);
    send("pointermove", 50, 60);
    expect(hovered.filter((at) => at !== null)).toHaveLength(1);
    expect(hovered.at(-1)).toBeNull();
  });
});
