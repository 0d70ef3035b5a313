import { describe, expect, it } from "vitest";
import { type Box, choosePart } from "./refine";

const whole: Box = [-10, 10, -10, 10];
const first = { box: null, isCut: true };

describe("the part of a large map that is asked for", () => {
  it("is all of it while most of it is in view", () => {
    expect(choosePart(first, [-9, 9, -9, 9], whole)).toBeNull();
  });

  it("is more than the view once one zooms in", () => {
    expect(choosePart(first, [-2, 2, -2, 2], whole)).toEqual([-3, 3, -3, 3]);
  });

  it("stays while the view stays in it", () => {
    const now = { box: [-3, 3, -3, 3] as Box, isCut: true };
    expect(choosePart(now, [-1.5, 2.5, -2, 2], whole)).toBe(now.box);
    expect(choosePart(now, [0, 4, -2, 2], whole)).toEqual([-1, 5, -3, 3]);
  });

  it("is asked for anew closer up only if it holds points that were not drawn", () => {
    const box: Box = [-3, 3, -3, 3];
    const view: Box = [-1, 1, -1, 1];
    expect(choosePart({ box, isCut: true }, view, whole)).toEqual([-1.5, 1.5, -1.5, 1.5]);
    expect(choosePart({ box, isCut: false }, view, whole)).toBe(box);
  });

  it("is all of it again once one zooms out", () => {
    expect(choosePart({ box: [-3, 3, -3, 3], isCut: false }, whole, whole)).toBeNull();
  });
});
