/** How many points a frame may have while the camera moves, learned from how long frames took. */

/** What a frame of a movement is to take at most. */
const WANTED_MS = 60;
/** Below this the display's own rhythm is measured, not the drawing. */
const LEAST_TELLING_MS = 25;
/** A longer pause between frames was no drawing: nothing moved, or the page was hidden. */
const LONGEST_TELLING_MS = 3_000;
/** Fewer points than this no longer look like the map. */
const LEAST_POINTS = 20_000;
/** How much a new frame counts against those before. */
const WEIGHT = 0.5;
/** After a frame faster than the display shows them, so many times more are tried. */
const GROWTH = 1.5;

/**
 * Keeps movement fluent on slow machines: draw `count(n)` of n points, by drawing order, while the
 * camera moves, and all when it rests.
 */
export class Pace {
  #most = Number.POSITIVE_INFINITY;
  #lastMs = Number.NaN;
  #lastCount = 0;

  /** How many of n points the next frame of a movement is to have. */
  count(n: number): number {
    return Math.min(n, Math.max(LEAST_POINTS, Math.floor(this.#most)));
  }

  /** A frame of a movement begins, at the time that requestAnimationFrame gave, with n points. */
  note(nowMs: number, count: number): void {
    const took = nowMs - this.#lastMs;
    const before = this.#lastCount;
    this.#lastMs = nowMs;
    this.#lastCount = count;
    if (!(took > 0 && took < LONGEST_TELLING_MS) || before <= 0) return;
    if (took < LEAST_TELLING_MS) {
      this.#most = Math.max(this.#most, before * GROWTH);
      return;
    }
    const wanted = (before * WANTED_MS) / took;
    this.#most = Number.isFinite(this.#most) ? WEIGHT * wanted + (1 - WEIGHT) * this.#most : wanted;
  }

  /** The movement is over: the time until the next one says nothing. */
  rest(): void {
    this.#lastMs = Number.NaN;
  }
}
