/** Labels that do not overlap: the weightiest first, each where there is room. */

import type { Size } from "./camera";

/** A point that wants a label. */
export interface LabelCandidate {
  readonly index: number;
  readonly px: number;
  readonly py: number;
  readonly text: string;
  readonly weight: number;
}

/** A label with its left edge and its middle line, in CSS pixels. */
export interface PlacedLabel {
  readonly index: number;
  readonly x: number;
  readonly y: number;
  readonly text: string;
}

interface Box {
  readonly left: number;
  readonly right: number;
  readonly top: number;
  readonly bottom: number;
}

const HEIGHT = 15;
const FROM_POINT = 6;
const BETWEEN = 3;
/** Side of the squares by which boxes are looked up. */
const SQUARE = 64;
/** So many candidates may fail for each label wanted, so that a crowd costs no frame. */
const TRIES_A_LABEL = 25;

/** At most `most` labels, each right of its point, or left of it, wholly in the picture. */
export function placeLabels(
  candidates: readonly LabelCandidate[],
  size: Size,
  measure: (text: string) => number,
  most = 200,
): readonly PlacedLabel[] {
  const taken = new Taken();
  const placed: PlacedLabel[] = [];
  const inOrder = candidates
    .filter(
      ({ text, px, py }) => text !== "" && isWithin(px, size.width) && isWithin(py, size.height),
    )
    .sort((a, b) => b.weight - a.weight || a.index - b.index)
    .slice(0, most * TRIES_A_LABEL);
  for (const candidate of inOrder) {
    if (placed.length >= most) break;
    const box = boxesOf(candidate, measure(candidate.text)).find(
      (one) => isInside(one, size) && taken.isFree(one),
    );
    if (!box) continue;
    taken.add(box);
    const { index, text } = candidate;
    placed.push({ index, x: box.left, y: candidate.py, text });
  }
  return placed;
}

function isWithin(value: number, end: number): boolean {
  return value >= 0 && value <= end;
}

function boxesOf({ px, py }: LabelCandidate, width: number): readonly Box[] {
  const [top, bottom] = [py - HEIGHT / 2, py + HEIGHT / 2];
  const left = px - FROM_POINT - width;
  return [
    { left: px + FROM_POINT, right: px + FROM_POINT + width, top, bottom },
    { left, right: left + width, top, bottom },
  ];
}

function isInside({ left, right, top, bottom }: Box, { width, height }: Size): boolean {
  return left >= 0 && right <= width && top >= 0 && bottom <= height;
}

/** Boxes taken, by the squares that they touch. */
class Taken {
  readonly #bySquare = new Map<string, Box[]>();

  isFree(box: Box): boolean {
    return squaresOf(box).every((square) =>
      (this.#bySquare.get(square) ?? []).every((other) => !isOverlapping(box, other)),
    );
  }

  add(box: Box): void {
    for (const square of squaresOf(box)) {
      const boxes = this.#bySquare.get(square);
      if (boxes) boxes.push(box);
      else this.#bySquare.set(square, [box]);
    }
  }
}

function squaresOf({ left, right, top, bottom }: Box): string[] {
  const squares: string[] = [];
  const at = (value: number) => Math.floor(value / SQUARE);
  for (let column = at(left - BETWEEN); column <= at(right + BETWEEN); column++) {
    for (let row = at(top); row <= at(bottom); row++) squares.push(`${column},${row}`);
  }
  return squares;
}

function isOverlapping(a: Box, b: Box): boolean {
  const isBeside = a.left >= b.right + BETWEEN || b.left >= a.right + BETWEEN;
  return !isBeside && a.top < b.bottom && b.top < a.bottom;
}
