import { afterEach, expect, test, vi } from "vitest";
import type { Camera2, Cloud } from "./camera";
import { litLast, PointsGL } from "./points_gl";
import { NoWebGL } from "./program";

const SIZE = { width: 300, height: 200 };
const CAMERA: Camera2 = { dims: 2, x: 0, y: 0, span: 1 };

function cloudOf(n: number): Cloud {
  const zeros = () => new Float32Array(n);
  return { n, dims: 2, x: zeros(), y: zeros(), z: zeros() };
}

/** A context that counts: what is made and not deleted, what is uploaded, what is drawn. */
function makeContext() {
  const alive = { buffers: 0, programs: 0, textures: 0 };
  const calls: string[] = [];
  const uploads: unknown[] = [];
  let isLost = false;
  const known: Record<string, unknown> = {
    alive,
    calls,
    uploads,
    lose: (lost: boolean) => {
      isLost = lost;
    },
    isContextLost: () => isLost,
    createBuffer: () => ({ made: ++alive.buffers }),
    createProgram: () => ({ made: ++alive.programs }),
    createTexture: () => ({ made: ++alive.textures }),
    createShader: () => ({}),
    getShaderParameter: () => true,
    getProgramParameter: () => true,
    getUniformLocation: () => ({}),
    deleteBuffer: (it: unknown) => it && alive.buffers--,
    deleteProgram: (it: unknown) => it && alive.programs--,
    deleteTexture: (it: unknown) => it && alive.textures--,
    bufferData: (_: number, values: unknown) => uploads.push(values),
    drawArrays: (_: number, first: number, count: number) => calls.push(`arrays ${first} ${count}`),
    drawElements: (_: number, count: number) => calls.push(`elements ${count}`),
  };
  return new Proxy(known, {
    get: (target, name: string) =>
      name in target ? target[name] : /^[A-Z0-9_]+$/.test(name) ? name : () => undefined,
  }) as unknown as {
    alive: typeof alive;
    calls: string[];
    uploads: unknown[];
    lose: (lost: boolean) => void;
  };
}

function makeCanvas() {
  const canvas = document.createElement("canvas");
  const context = makeContext();
  canvas.getContext = (() => context) as unknown as typeof canvas.getContext;
  return { canvas, context };
}

afterEach(() => {
  vi.unstubAllGlobals();
});

test("a frame is one draw, and a pan with the same colours uploads nothing", () => {
  const { canvas, context } = makeCanvas();
  const points = new PointsGL(canvas);
  const colours = new Uint8Array(20);
  points.setCloud(cloudOf(5));
  points.setColours(colours);
  points.draw(CAMERA, SIZE);
  expect(context.calls).toEqual(["arrays 0 5"]);
  const uploaded = context.uploads.length;
  points.setColours(colours);
  points.draw({ ...CAMERA, x: 1 }, SIZE, 3);
  expect(context.calls).toEqual(["arrays 0 5", "arrays 0 3"]);
  expect(context.uploads).toHaveLength(uploaded);
});

test("marked points are drawn last, in one draw of all", () => {
  const { canvas, context } = makeCanvas();
  const points = new PointsGL(canvas);
  points.setCloud(cloudOf(5));
  points.setMarked(Uint8Array.of(1, 0, 1, 0, 0));
  points.draw(CAMERA, SIZE);
  expect(context.calls).toEqual(["elements 5"]);
  expect(context.uploads.at(-1)).toEqual(Uint32Array.of(1, 3, 4, 0, 2));
  points.draw(CAMERA, SIZE, 3);
  expect(context.uploads.at(-1)).toEqual(Uint32Array.of(1, 0, 2));
});

test("marks keep the drawing order within dimmed and within lit", () => {
  expect(litLast(Uint8Array.of(0, 1, 0, 1, 0), 4)).toEqual(Uint32Array.of(0, 2, 1, 3));
  expect(litLast(new Uint8Array(0), 0)).toHaveLength(0);
});

test("values for another number of points are not drawn from", () => {
  const { canvas, context } = makeCanvas();
  const points = new PointsGL(canvas);
  points.setCloud(cloudOf(5));
  const late = new Uint8Array(4 * 9);
  points.setColours(late);
  points.draw(CAMERA, SIZE);
  expect(context.calls).toEqual(["arrays 0 5"]);
  expect(context.uploads).not.toContain(late);
});

test("a hundred clouds on one canvas hold no more than one", () => {
  const { canvas, context } = makeCanvas();
  const points = new PointsGL(canvas);
  const draw = (n: number) => {
    points.setCloud(cloudOf(n));
    points.setColours(new Uint8Array(4 * n));
    points.setMarked(new Uint8Array(n));
    points.draw(CAMERA, SIZE);
  };
  draw(3);
  const before = { ...context.alive };
  for (let n = 1; n <= 100; n++) draw(n);
  expect(context.alive).toEqual(before);
  points.dispose();
  expect(context.alive).toEqual({ buffers: 0, programs: 0, textures: 0 });
});

test("a lost context draws nothing, and when restored has all again", () => {
  const { canvas, context } = makeCanvas();
  const points = new PointsGL(canvas);
  const cloud = cloudOf(4);
  const colours = new Uint8Array(16);
  points.setCloud(cloud);
  points.setColours(colours);
  points.draw(CAMERA, SIZE);
  const lost = new Event("webglcontextlost", { cancelable: true });
  context.lose(true);
  canvas.dispatchEvent(lost);
  expect(lost.defaultPrevented).toBe(true);
  points.draw(CAMERA, SIZE);
  expect(context.calls).toHaveLength(1);
  context.lose(false);
  context.uploads.length = 0;
  points.onRestored = () => points.draw(CAMERA, SIZE);
  canvas.dispatchEvent(new Event("webglcontextrestored"));
  expect(context.calls).toHaveLength(2);
  expect(context.uploads).toEqual([cloud.x, cloud.y, colours]);
});

test("after dispose a restored context calls nobody", () => {
  const { canvas } = makeCanvas();
  const points = new PointsGL(canvas);
  points.onRestored = vi.fn();
  points.dispose();
  canvas.dispatchEvent(new Event("webglcontextrestored"));
  expect(points.onRestored).not.toHaveBeenCalled();
});

test("the canvas has at most two device pixels for each of CSS", () => {
  const { canvas } = makeCanvas();
  vi.stubGlobal("devicePixelRatio", 3);
  const points = new PointsGL(canvas);
  points.draw(CAMERA, SIZE);
  expect([canvas.width, canvas.height]).toEqual([600, 400]);
});

test("a browser without WebGL 2 is told what to do", () => {
  const canvas = document.createElement("canvas");
  canvas.getContext = (() => null) as unknown as typeof canvas.getContext;
  expect(() => new PointsGL(canvas)).toThrow(NoWebGL);
  expect(() => new PointsGL(canvas)).toThrow(/Switch on WebGL 2, or use another browser/);
});
