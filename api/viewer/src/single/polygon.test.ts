import { describe, expect, it } from "vitest";
import type { Camera } from "../draw/camera";
import { makePicker } from "../draw/grid";
import { boxAround, boxCorners, MOST_CORNERS, readPolygon, thinOut, writePolygon } from "./polygon";

const n = 400;
const axis = (step: number) =>
  Float32Array.from({ length: n }, (_, i) => ((i * step) % 101) / 50 - 1);
const flat = { n, dims: 2, x: axis(17), y: axis(43), z: new Float32Array(n) } as const;
const deep = { n, dims: 3, x: axis(17), y: axis(43), z: axis(71) } as const;
const size = { width: 700, height: 420 };
const outline = [120, 60, 480, 90, 610, 300, 333, 222, 200, 390];

const cameras: readonly Camera[] = [
  { dims: 2, x: 0.2, y: -0.1, span: 0.9 },
  { dims: 3, x: 0.1, y: 0, z: -0.2, yaw: 0.7, pitch: -0.4, span: 1.3 },
];

describe("an outline", () => {
  it.each(cameras)(
    "selects the same points from the address as on the screen ($dims-D)",
    (camera) => {
      const picker = makePicker(camera.dims === 2 ? flat : deep);
      const selector = writePolygon("map", camera, size, outline);
      if (selector.by !== "polygon") throw new Error("no outline");
      const seen = picker.inPolygon(camera, size, outline);
      expect(seen.length).toBeGreaterThan(10);
      expect(readPolygon(selector.corners, camera.dims, picker)).toEqual(seen);
      expect(JSON.parse(JSON.stringify(selector))).toEqual(selector);
    },
  );

  it.each([0.0001, 0.01, 30])("finds a point within 30 pixels at span %d, far from 0", (span) => {
    const x = Float32Array.of(104.3217);
    const y = Float32Array.of(-98.7654);
    const picker = makePicker({ n: 1, dims: 2, x, y, z: new Float32Array(1) });
    const camera = { dims: 2, x: x[0] as number, y: y[0] as number, span } as const;
    const around = boxCorners(335, 195, 365, 225);
    const selector = writePolygon("map", camera, size, around);
    if (selector.by !== "polygon") throw new Error("no outline");
    expect(readPolygon(selector.corners, 2, picker)).toEqual([0]);
  });

  it("lies within the box around its corners", () => {
    expect(boxAround([3, -1, 5, 2, 4, 9])).toEqual([3, 5, -1, 9]);
  });

  it("selects nothing where an address was cut short", () => {
    expect(readPolygon([0, 0, 1], 2, makePicker(flat))).toEqual([]);
    expect(readPolygon([0, 0, 0, 1, 1, 1, 5], 3, makePicker(deep))).toEqual([]);
  });

  it("keeps an address short, and its ends", () => {
    const long = Array.from({ length: 2 * 1_000 }, (_, i) => i);
    const thin = thinOut(long);
    expect(thin).toHaveLength(2 * MOST_CORNERS);
    expect(thin.slice(0, 2)).toEqual([0, 1]);
    for (let i = 0; i < thin.length; i += 2) expect(thin[i + 1]).toBe((thin[i] as number) + 1);
    expect(thinOut(outline)).toEqual(outline);
  });

  it("of a box has four corners, whichever way it was drawn", () => {
    const picker = makePicker(flat);
    const select = (corners: number[]) => picker.inPolygon(cameras[0] as Camera, size, corners);
    expect(select(boxCorners(500, 300, 100, 50))).toEqual(select(boxCorners(100, 50, 500, 300)));
  });
});
