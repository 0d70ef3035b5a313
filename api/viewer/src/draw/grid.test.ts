import { describe, expect, test } from "vitest";
import { type Camera, type Cloud, fitCamera, panBy, project, zoomAt } from "./camera";
import { makePicker } from "./grid";

const SIZE = { width: 640, height: 480 };

/** Numbers that look random and are the same at each run. */
function makeRandom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

function makeCloud(n: number, dims: 2 | 3): Cloud {
  const random = makeRandom(n);
  const axis = () => Float32Array.from({ length: n }, () => (random() + random() - 1) * 7);
  return { n, dims, x: axis(), y: axis(), z: dims === 3 ? axis() : new Float32Array(n) };
}

function distances(cloud: Cloud, camera: Camera, px: number, py: number): number[] {
  return Array.from({ length: cloud.n }, (_, i) => {
    const at = project(camera, SIZE, cloud.x[i] ?? 0, cloud.y[i] ?? 0, cloud.z[i] ?? 0);
    return Math.hypot(at.px - px, at.py - py);
  });
}

describe.each([2, 3] as const)("a picker of %i dimensions", (dims) => {
  const cloud = makeCloud(3_000, dims);
  const first = fitCamera(cloud);
  const cameras = [first, zoomAt(first, SIZE, 200, 100, 6), panBy(first, SIZE, 500, 90)];

  test("finds the nearest point that a look at every point finds", () => {
    const picker = makePicker(cloud);
    const random = makeRandom(5);
    for (const camera of cameras) {
      for (let trial = 0; trial < 60; trial++) {
        const [px, py] = [random() * SIZE.width, random() * SIZE.height];
        const all = distances(cloud, camera, px, py);
        const least = Math.min(...all);
        const found = picker.nearest(camera, SIZE, px, py, 9);
        if (least > 9) expect(found).toBe(-1);
        else expect(all[found]).toBeLessThan(least + 1);
      }
    }
  });

  test("finds the points in a lasso that a look at every point finds", () => {
    const picker = makePicker(cloud);
    const box = [100, 80, 420, 80, 420, 300, 100, 300];
    for (const camera of cameras) {
      const wanted: number[] = [];
      for (let i = 0; i < cloud.n; i++) {
        const at = project(camera, SIZE, cloud.x[i] ?? 0, cloud.y[i] ?? 0, cloud.z[i] ?? 0);
        if (at.px > 100 && at.px < 420 && at.py > 80 && at.py < 300) wanted.push(i);
      }
      expect(picker.inPolygon(camera, SIZE, box)).toEqual(wanted);
    }
  });
});

test("a lasso with a bay leaves out what is in the bay", () => {
  const cloud: Cloud = {
    n: 3,
    dims: 2,
    x: Float32Array.of(1, 5, 9),
    y: Float32Array.of(5, 5, 5),
    z: new Float32Array(3),
  };
  const horseshoe = [0, 0, 10, 0, 10, 10, 7, 10, 7, 3, 3, 3, 3, 10, 0, 10];
  expect(makePicker(cloud).inMapPolygon(horseshoe)).toEqual([0, 2]);
  expect(makePicker(cloud).inMapPolygon([0, 0, 10, 10])).toEqual([]);
});

test("of points at one place the one drawn last is found; points that are nowhere never", () => {
  const cloud: Cloud = {
    n: 4,
    dims: 2,
    x: Float32Array.of(1, 1, Number.NaN, Number.POSITIVE_INFINITY),
    y: Float32Array.of(2, 2, 2, 2),
    z: new Float32Array(4),
  };
  const camera = fitCamera(cloud);
  expect(makePicker(cloud).nearest(camera, SIZE, 320, 240, 5)).toBe(1);
  expect(makePicker(cloud).nearest(camera, SIZE, 0, 0, 5)).toBe(-1);
});

test("in 3-D of points at one pixel the one in front is found", () => {
  const camera: Camera = { dims: 3, x: 0, y: 0, z: 0, yaw: 0, pitch: 0, span: 10 };
  const cloud: Cloud = {
    n: 3,
    dims: 3,
    x: new Float32Array(3),
    y: new Float32Array(3),
    z: Float32Array.of(-4, 6, 2),
  };
  const found = makePicker(cloud).nearest(camera, SIZE, 320, 240, 5);
  const depths = [...cloud.z].map((z) => project(camera, SIZE, 0, 0, z).depth);
  expect(depths[found]).toBe(Math.min(...depths));
});

test("a map without points has nothing under the pointer", () => {
  const none = new Float32Array(0);
  for (const dims of [2, 3] as const) {
    const cloud: Cloud = { n: 0, dims, x: none, y: none, z: none };
    expect(makePicker(cloud).nearest(fitCamera(cloud), SIZE, 1, 1, 50)).toBe(-1);
    expect(makePicker(cloud).inPolygon(fitCamera(cloud), SIZE, [0, 0, 9, 0, 9, 9])).toEqual([]);
  }
});
