import { expect, test } from "vitest";
import { Pace } from "./pace";

/** Move for some frames on a machine that draws so many points a millisecond; ms of each frame. */
function move(pace: Pace, n: number, pointsAMs: number, nFrames: number): number[] {
  let now = 1_000;
  return Array.from({ length: nFrames }, () => {
    const count = pace.count(n);
    pace.note(now, count);
    const took = Math.max(16.7, count / pointsAMs);
    now += took;
    return took;
  });
}

test("a fast machine draws all points in each frame of a movement", () => {
  const pace = new Pace();
  move(pace, 250_000, 1e6, 20);
  expect(pace.count(250_000)).toBe(250_000);
});

test("on a slow machine frames of a movement come under 100 ms within a few", () => {
  const frames = move(new Pace(), 250_000, 1_000, 12);
  expect(frames[0]).toBe(250);
  expect(Math.max(...frames.slice(5))).toBeLessThan(100);
});

test("a machine that becomes free draws all again", () => {
  const pace = new Pace();
  move(pace, 250_000, 1_000, 12);
  pace.rest();
  move(pace, 250_000, 1e6, 12);
  expect(pace.count(250_000)).toBe(250_000);
});

test("a pause between movements is no slow frame", () => {
  const pace = new Pace();
  pace.note(0, 250_000);
  pace.rest();
  pace.note(900, 250_000);
  expect(pace.count(250_000)).toBe(250_000);
});

test("however slow, a movement shows enough points to be the map, and a small map whole", () => {
  const pace = new Pace();
  move(pace, 250_000, 100, 12);
  expect(pace.count(250_000)).toBe(20_000);
  expect(pace.count(1_980)).toBe(1_980);
});
