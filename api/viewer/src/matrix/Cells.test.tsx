import { render } from "preact";
import { act } from "preact/test-utils";
import { afterEach, describe, expect, it, vi } from "vitest";
import { readState } from "../contract/state";
import { Cells, findNext } from "./Cells";
import type { Cell, Scene } from "./scene";

const PLACES = [
  [0, 0],
  [1, 0],
  [1, 1],
] as const;

function makeCell(column: number, row: number, rest: Partial<Cell> = {}): Cell {
  return {
    facts: { at: { layer: row, head: column }, row: null, map: null },
    head: null,
    column,
    row,
    name: `layer ${row}, head ${column}`,
    title: `L${row} H${column}`,
    tint: null,
    isHatched: false,
    value: "",
    described: [],
    found: null,
    selected: null,
    ...rest,
  };
}

function makeScene(cells: readonly Cell[]): Scene {
  const sheet = {
    nColumns: 2,
    nRows: 2,
    columns: cells.map((cell) => cell.column),
    rows: cells.map((cell) => cell.row),
    columnNames: [],
    rowNames: [],
  };
  const colouring = { value: null, problem: null, isLoading: false };
  return { matrix: null, sheet, cells, tint: null, marks: null, colouring };
}

async function show(scene: Scene, open = vi.fn()): Promise<HTMLElement> {
  const root = document.createElement("div");
  document.body.replaceChildren(root);
  await act(() => render(<Cells scene={scene} hold={null} open={open} focus={() => {}} />, root));
  return root;
}

function press(root: HTMLElement, key: string): void {
  const grid = root.querySelector("[role=grid]");
  grid?.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
}

afterEach(() => readState(""));

describe("cells of the matrix", () => {
  it("are one stop of the tab key, moved by arrow keys and opened by Enter", async () => {
    const open = vi.fn();
    const root = await show(makeScene(PLACES.map(([column, row]) => makeCell(column, row))), open);
    const stops = () => [...root.querySelectorAll<HTMLElement>('[role=gridcell][tabindex="0"]')];
    expect(stops().map((cell) => cell.querySelector(".unseen")?.textContent)).toEqual([
      "layer 0, head 0",
    ]);
    await act(() => press(root, "ArrowRight"));
    await act(() => press(root, "ArrowDown"));
    expect(stops().map((cell) => cell.querySelector(".unseen")?.textContent)).toEqual([
      "layer 1, head 1",
    ]);
    await act(() => press(root, "Enter"));
    expect(open).toHaveBeenCalledWith(2);
  });

  it("say why a head has no points, and how many were found in one that has", async () => {
    const head = { layer: 0, head: 0, mapId: null, scoreSpearman: null, low: [], high: [] };
    const missing = { ...head, coordinates: null, missing: "no such map" };
    const none = { nQueries: 0, nKeys: 0 };
    const root = await show(
      makeScene([
        makeCell(0, 0, { head: missing, found: none }),
        makeCell(1, 0, { found: { nQueries: 4, nKeys: 3 } }),
      ]),
    );
    expect(root.querySelector(".matrix-missing")?.textContent).toBe("no such map");
    const counts = [...root.querySelectorAll(".matrix-count")].map((count) => count.textContent);
    expect(counts).toEqual(["7"]);
  });

  it("are found beyond a gap, and none at the edge", () => {
    const cells = [makeCell(0, 0), makeCell(2, 0)];
    const extent = { nColumns: 3, nRows: 1 };
    expect(findNext(cells, 0, { columns: 1, rows: 0 }, extent)).toBe(1);
    expect(findNext(cells, 1, { columns: 1, rows: 0 }, extent)).toBe(-1);
    expect(findNext(cells, 0, { columns: 0, rows: 1 }, extent)).toBe(-1);
  });
});
