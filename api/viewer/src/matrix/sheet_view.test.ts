import { describe, expect, it } from "vitest";
import {
  cellAt,
  fitSheet,
  keepInSight,
  largestCell,
  panSheet,
  partOf,
  readPart,
  revealCell,
  type SheetView,
  viewOf,
  writePart,
  zoomSheet,
} from "./sheet_view";

const EXTENT = { nColumns: 12, nRows: 6 };
const SIZE = { width: 960, height: 600 };

/** Where a cell's middle is drawn, written apart from the code under test. */
function middle(view: SheetView, column: number, row: number): [number, number] {
  return [view.left + (column + 0.5) * view.cell, view.top + (row + 0.5) * view.cell];
}

describe("view of the cells", () => {
  it("fits all cells at first", () => {
    const view = fitSheet(EXTENT, SIZE);
    expect(view.cell).toBe(80);
    expect(middle(view, 11, 5)).toEqual([920, 440]);
  });

  it("finds the cell under the pointer at any zoom and place", () => {
    let view = fitSheet(EXTENT, SIZE);
    for (let step = 0; step < 60; step++) {
      const at = { px: (step * 97) % SIZE.width, py: (step * 61) % SIZE.height };
      view = zoomSheet(view, EXTENT, SIZE, at, step % 5 === 0 ? 0.6 : 1.4);
      view = panSheet(view, EXTENT, SIZE, ((step * 31) % 200) - 100, ((step * 17) % 90) - 45);
      for (const [column, row] of [
        [0, 0],
        [11, 5],
        [7, 2],
      ] as const) {
        const [px, py] = middle(view, column, row);
        expect(cellAt(view, EXTENT, px, py)).toEqual({ column, row });
      }
    }
  });

  it("finds no cell beside the sheet", () => {
    const view = fitSheet(EXTENT, SIZE);
    expect(cellAt(view, EXTENT, 100, 480)).toBeNull();
    expect(cellAt(view, EXTENT, -1, 10)).toBeNull();
    expect(cellAt(view, EXTENT, 960, 10)).toBeNull();
  });

  it("keeps what is under the pointer while zooming in", () => {
    const before = fitSheet(EXTENT, SIZE);
    const after = zoomSheet(before, EXTENT, SIZE, { px: 500, py: 250 }, 3);
    expect((500 - after.left) / after.cell).toBeCloseTo((500 - before.left) / before.cell);
    expect((250 - after.top) / after.cell).toBeCloseTo((250 - before.top) / before.cell);
  });

  it("stops at all cells and at one that fills the viewport", () => {
    const at = { px: 10, py: 10 };
    const all = fitSheet(EXTENT, SIZE);
    expect(zoomSheet(all, EXTENT, SIZE, at, 0.01)).toEqual(all);
    const one = zoomSheet(all, EXTENT, SIZE, at, 1000);
    expect(one.cell).toBe(largestCell(EXTENT, SIZE));
  });

  it("is never lost out of sight", () => {
    const zoomed = zoomSheet(fitSheet(EXTENT, SIZE), EXTENT, SIZE, { px: 0, py: 0 }, 4);
    const far = panSheet(zoomed, EXTENT, SIZE, -1e6, 1e6);
    expect(far.top).toBe(0);
    expect(far.left + EXTENT.nColumns * far.cell).toBeCloseTo(SIZE.width);
    const other = keepInSight(far, { nColumns: 2, nRows: 1 }, SIZE);
    expect(cellAt(other, { nColumns: 2, nRows: 1 }, 5, 5)).toEqual({ column: 0, row: 0 });
  });

  it("comes back from the address as it was left, within a tenth of a pixel", () => {
    let view = zoomSheet(fitSheet(EXTENT, SIZE), EXTENT, SIZE, { px: 700, py: 400 }, 3.3);
    view = panSheet(view, EXTENT, SIZE, -123, 45);
    const text = writePart(partOf(view, EXTENT, SIZE));
    const again = viewOf(readPart(text), EXTENT, SIZE);
    for (const side of ["left", "top", "cell"] as const) {
      expect(Math.abs(again[side] - view[side])).toBeLessThan(0.1);
    }
    expect(writePart(partOf(again, EXTENT, SIZE))).toBe(text);
  });

  it("shows the same cells in the middle of another screen", () => {
    const view = zoomSheet(fitSheet(EXTENT, SIZE), EXTENT, SIZE, { px: 480, py: 300 }, 4);
    const phone = { width: 330, height: 420 };
    const there = viewOf(partOf(view, EXTENT, SIZE), EXTENT, phone);
    const mid = cellAt(view, EXTENT, SIZE.width / 2, SIZE.height / 2);
    expect(cellAt(there, EXTENT, phone.width / 2, phone.height / 2)).toEqual(mid);
  });

  it("is empty in the address for all cells, and all cells for what is malformed", () => {
    expect(writePart(partOf(fitSheet(EXTENT, SIZE), EXTENT, SIZE))).toBe("");
    for (const text of ["", "1,2", "1,2,0", "1,2,x", "1,2,3,4", "1.2.3,4,5", "Infinity,1,1"]) {
      expect(viewOf(readPart(text), EXTENT, SIZE)).toEqual(fitSheet(EXTENT, SIZE));
    }
    const far = viewOf(readPart("-1000000,1000000,9000"), EXTENT, SIZE);
    expect(far).toEqual(keepInSight(far, EXTENT, SIZE));
  });

  it("shows the whole cell that gets the focus", () => {
    const zoomed = zoomSheet(fitSheet(EXTENT, SIZE), EXTENT, SIZE, { px: 0, py: 0 }, 4);
    const view = revealCell(zoomed, EXTENT, SIZE, 9, 4);
    expect(view.left + 10 * view.cell).toBeLessThanOrEqual(SIZE.width + 1e-9);
    expect(view.top + 5 * view.cell).toBeLessThanOrEqual(SIZE.height + 1e-9);
    expect(revealCell(view, EXTENT, SIZE, 9, 4)).toEqual(view);
  });
});
