import { describe, expect, test } from "vitest";
import {
  boxOf,
  type Camera,
  type Camera2,
  type Camera3,
  fitCamera,
  orbitBy,
  panBy,
  project,
  projectAll,
  readCamera,
  toMatrix,
  unproject,
  writeCamera,
  zoomAt,
} from "./camera";

const SIZE = { width: 800, height: 500 };
const FLAT: Camera2 = { dims: 2, x: 3, y: -1, span: 4 };
const DEEP: Camera3 = { dims: 3, x: 1, y: 2, z: -3, yaw: 0.7, pitch: -0.4, span: 5 };
const CAMERAS: readonly Camera[] = [FLAT, DEEP];

function cloudOf(dims: 2 | 3, points: readonly (readonly number[])[]) {
  const axis = (i: number) => Float32Array.from(points, (point) => point[i] ?? 0);
  return { n: points.length, dims, x: axis(0), y: axis(1), z: axis(2) };
}

describe.each(CAMERAS)("a camera of $dims dimensions", (camera) => {
  test("shows what it looks at in the middle, and its span at half the shorter side", () => {
    const [x, y] = unproject(camera, SIZE, 400, 250);
    expect([x, y]).toEqual([camera.x, camera.y]);
    const edge = unproject(camera, SIZE, 400, 0);
    const centre = [camera.x, camera.y, camera.dims === 3 ? camera.z : 0];
    expect(Math.hypot(...edge.map((value, i) => value - (centre[i] ?? 0)))).toBeCloseTo(
      camera.span,
    );
  });

  test("projects as its matrix does, and back", () => {
    const at = unproject(camera, SIZE, 123, 77);
    const { px, py } = project(camera, SIZE, ...at);
    expect([px, py]).toEqual([expect.closeTo(123, 3), expect.closeTo(77, 3)]);
    const matrix = toMatrix(camera, SIZE);
    const clip = [0, 1].map((row) =>
      [...at, 1].reduce((sum, value, column) => sum + (matrix[4 * column + row] ?? 0) * value, 0),
    );
    expect(((clip[0] ?? 0) + 1) * 400).toBeCloseTo(123, 2);
    expect((1 - (clip[1] ?? 0)) * 250).toBeCloseTo(77, 2);
  });

  test("projects all points as it projects each", () => {
    const cloud = cloudOf(camera.dims, [
      [1, 2, 3],
      [-4, 0.5, 9],
    ]);
    const { pixels, depths } = projectAll(camera, SIZE, cloud);
    for (const i of [0, 1]) {
      const one = project(camera, SIZE, cloud.x[i] ?? 0, cloud.y[i] ?? 0, cloud.z[i] ?? 0);
      expect(pixels[2 * i]).toBeCloseTo(one.px, 2);
      expect(pixels[2 * i + 1]).toBeCloseTo(one.py, 2);
      expect(depths[i]).toBeCloseTo(one.depth, 4);
    }
  });

  test("panned, shows under the pointer what it showed there before", () => {
    const at = unproject(camera, SIZE, 300, 200);
    const { px, py } = project(panBy(camera, SIZE, 25, -40), SIZE, ...at);
    expect([px, py]).toEqual([expect.closeTo(325, 3), expect.closeTo(160, 3)]);
  });

  test("zoomed, keeps what is under the pointer", () => {
    const at = unproject(camera, SIZE, 650, 90);
    const zoomed = zoomAt(camera, SIZE, 650, 90, 3);
    expect(zoomed.span).toBeCloseTo(camera.span / 3);
    const { px, py } = project(zoomed, SIZE, ...at);
    expect([px, py]).toEqual([expect.closeTo(650, 3), expect.closeTo(90, 3)]);
  });

  test("is read as it was written", () => {
    const read = readCamera(writeCamera(camera), camera.dims);
    expect(read).toEqual(camera);
    expect(readCamera(writeCamera(camera), camera.dims === 2 ? 3 : 2)).toBeNull();
  });
});

test.each([
  { dims: 2, x: 123.456_712, y: -98.765_432, span: 0.0001 },
  { dims: 3, x: 123.456_712, y: -98.765_432, z: 77.000_123, yaw: 1, pitch: 0.5, span: 0.0001 },
] as const)(
  "a camera deep in a map far from 0 is written to a part of a pixel ($dims-D)",
  (camera) => {
    const read = readCamera(writeCamera(camera), camera.dims);
    const at = read && project(read, SIZE, camera.x, camera.y, camera.dims === 3 ? camera.z : 0);
    expect(at?.px).toBeCloseTo(SIZE.width / 2, 1);
    expect(at?.py).toBeCloseTo(SIZE.height / 2, 1);
  },
);

test("the first camera has every point in view, in 2-D and whichever way 3-D is turned", () => {
  const points = [
    [-9, 1, 2],
    [4, 8, -7],
    [0, -3, 5],
  ];
  for (const dims of [2, 3] as const) {
    const cloud = cloudOf(dims, points);
    const first = fitCamera(cloud);
    for (const turned of first.dims === 3 ? [first, orbitBy(first, 200, 90)] : [first]) {
      for (let i = 0; i < cloud.n; i++) {
        const at = project(turned, SIZE, cloud.x[i] ?? 0, cloud.y[i] ?? 0, cloud.z[i] ?? 0);
        expect(at.px).toBeGreaterThan(0);
        expect(at.px).toBeLessThan(SIZE.width);
        expect(at.py).toBeGreaterThan(0);
        expect(at.py).toBeLessThan(SIZE.height);
      }
    }
  }
});

test("points that are nowhere, one point and none at all still give a camera", () => {
  const wanted = { dims: 2, x: 5, y: 6, span: 1.06 };
  const cloud = cloudOf(2, [
    [5, 6],
    [Number.NaN, Number.POSITIVE_INFINITY],
  ]);
  expect(fitCamera(cloud)).toEqual(wanted);
  expect(fitCamera(cloudOf(2, []))).toEqual({ ...wanted, x: 0, y: 0 });
});

test("turning never goes over the poles", () => {
  expect(orbitBy(DEEP, 0, 10_000).pitch).toBe(Math.PI / 2);
  expect(orbitBy(DEEP, 0, -10_000).pitch).toBe(-Math.PI / 2);
});

test("the box in view has the picture's proportions", () => {
  const [x0, x1, y0, y1] = boxOf(FLAT, SIZE);
  expect([y0, y1]).toEqual([-5, 3]);
  expect((x1 - x0) / (y1 - y0)).toBeCloseTo(SIZE.width / SIZE.height);
});

test.each(["", "1,2", "1,2,0", "1,2,-3", "1,2,x", "1,,3", "NaN,1,1", "1,2,3,4"])(
  "%o in an address is no camera",
  (text) => {
    expect(readCamera(text, 2)).toBeNull();
  },
);
