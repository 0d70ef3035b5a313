import { describe, expect, it } from "vitest";
import { diameterOf, diametersByNorm, zoomedDiameter } from "./diameters";

describe("the size of points", () => {
  it("falls with their number and grows as one zooms in, within bounds", () => {
    const sizes = [10, 2_000, 50_000, 250_000].map(diameterOf);
    expect(sizes).toEqual([...sizes].sort((a, b) => b - a));
    expect(Math.min(...sizes)).toBeGreaterThanOrEqual(1.5);
    expect(zoomedDiameter(250_000, 20)).toBeGreaterThan(diameterOf(250_000));
    expect(zoomedDiameter(250_000, 1e9)).toBeLessThanOrEqual(10);
  });

  it("rises with the norm; a norm that is not known gives the usual size", () => {
    const norms = Float32Array.from([1, 2, 3, Number.NaN]);
    const [small, middle, large, unknown] = diametersByNorm(norms, 4);
    expect(small).toBeLessThan(middle as number);
    expect(middle).toBeLessThan(large as number);
    expect(unknown).toBeCloseTo(diameterOf(4));
  });

  it("is the usual one where all norms are equal", () => {
    expect([...diametersByNorm(Float32Array.from([2, 2]), 2)]).toEqual([
      diameterOf(2),
      diameterOf(2),
    ]);
  });
});
