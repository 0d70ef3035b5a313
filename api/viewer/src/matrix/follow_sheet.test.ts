import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { readState, state } from "../contract/state";
import { type Following, followSheet } from "./follow_sheet";
import type { SheetPart } from "./sheet_view";

class FakeStage {
  part: SheetPart | null = null;
  onMoved = () => {};
  show(part: SheetPart | null): void {
    this.part = part;
  }
  move(part: SheetPart | null): void {
    this.show(part);
    this.onMoved();
  }
}

const PART = { column: 3.25, row: 2, zoom: 4 };

let stage: FakeStage;
let following: Following;

beforeEach(() => {
  vi.useFakeTimers();
  readState("sheet=7,1.5,2");
  stage = new FakeStage();
  following = followSheet(stage);
});

afterEach(() => {
  following.stop();
  readState("");
  vi.useRealTimers();
});

test("the matrix shows the part that the address names, also after a step back", () => {
  expect(stage.part).toEqual({ column: 7, row: 1.5, zoom: 2 });
  readState("sheet=1,1,3");
  expect(stage.part).toEqual({ column: 1, row: 1, zoom: 3 });
  readState("");
  expect(stage.part).toBeNull();
});

test("where the user moved to stands in the address once at rest", () => {
  stage.move(PART);
  vi.advanceTimersByTime(200);
  stage.move({ ...PART, zoom: 5 });
  vi.advanceTimersByTime(200);
  expect(state.sheet.value).toBe("7,1.5,2");
  vi.advanceTimersByTime(200);
  expect(state.sheet.value).toBe("3.25,2,5");
  stage.move(null);
  vi.advanceTimersByTime(400);
  expect(state.sheet.value).toBe("");
});

test("a move that is left at once is kept, and none is written where nothing moved", () => {
  following.rest();
  expect(state.sheet.value).toBe("7,1.5,2");
  stage.move(PART);
  following.rest();
  expect(state.sheet.value).toBe("3.25,2,4");
});

test("another address overtakes a move, and nothing is written after the end", () => {
  stage.move(PART);
  readState("sheet=1,1,3");
  vi.advanceTimersByTime(400);
  expect(state.sheet.value).toBe("1,1,3");
  stage.move(PART);
  following.stop();
  vi.advanceTimersByTime(400);
  expect(state.sheet.value).toBe("1,1,3");
});
