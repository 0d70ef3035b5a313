import { useSignal } from "@preact/signals";
import type { Ref } from "preact";
import { state } from "../contract/state";
import { type Cell, type Scene, sum } from "./scene";

/** The cells' elements: one for each head, one of them in the order of focus. */
export function Cells(props: {
  scene: Scene;
  hold: Ref<HTMLDivElement>;
  open: (index: number) => void;
  focus: (index: number) => void;
}) {
  const { scene, hold, open, focus } = props;
  const { cells, sheet } = scene;
  const chosen = useSignal(-1);
  const here = cells.findIndex(isHere);
  const roving = cells[chosen.value] ? chosen.value : Math.max(0, here);
  const press = (event: KeyboardEvent & { currentTarget: HTMLElement }) => {
    const step = STEPS[event.key];
    if (event.key === "Enter" || event.key === " ") open(roving);
    else if (step) go(findNext(cells, roving, step, sheet), event.currentTarget);
    else return;
    event.preventDefault();
    event.stopPropagation();
  };
  const go = (index: number, root: HTMLElement) => {
    if (index < 0) return;
    chosen.value = index;
    root.querySelector<HTMLElement>(`[data-index="${index}"]`)?.focus({ preventScroll: true });
  };
  const label = `Heads, ${cells.length} in all; arrow keys move, Enter opens`;
  return (
    // biome-ignore lint/a11y/useSemanticElements: rows and cells are placed freely, no table's layout
    <div
      class="matrix-sheet"
      ref={hold}
      role="grid"
      aria-label={label}
      aria-busy={cells.length === 0}
      onKeyDown={press}
      tabIndex={-1}
    >
      {groupRows(cells, sheet.nRows).map((row, line) => (
        // biome-ignore lint/a11y/useSemanticElements: as above
        // biome-ignore lint/a11y/useFocusableInteractive: its cells have the focus
        <div key={line} class="matrix-row" role="row">
          {row.map((index) => (
            <CellElement
              key={index}
              cell={cells[index] as Cell}
              index={index}
              sheet={sheet}
              isRoving={index === roving}
              isHere={index === here}
              open={open}
              focus={() => {
                chosen.value = index;
                focus(index);
              }}
            />
          ))}
        </div>
      ))}
    </div>
  );
}

function CellElement(props: {
  cell: Cell;
  index: number;
  sheet: Scene["sheet"];
  isRoving: boolean;
  isHere: boolean;
  open: (index: number) => void;
  focus: () => void;
}) {
  const { cell, index, sheet, isRoving, isHere, open, focus } = props;
  const { at } = cell.facts;
  const place = {
    left: `${(100 * cell.column) / sheet.nColumns}%`,
    top: `${(100 * cell.row) / sheet.nRows}%`,
    width: `${100 / sheet.nColumns}%`,
    height: `${100 / sheet.nRows}%`,
    background: cell.tint ?? undefined,
  };
  return (
    // biome-ignore lint/a11y/useSemanticElements: as above
    // biome-ignore lint/a11y/useKeyWithClickEvents: the grid listens for keys
    <div
      class="matrix-cell"
      role="gridcell"
      aria-current={isHere ? "true" : undefined}
      tabIndex={isRoving ? 0 : -1}
      data-index={index}
      data-layer={at.layer}
      data-head={at.head}
      data-hatched={cell.isHatched ? "yes" : undefined}
      style={place}
      onClick={() => open(index)}
      onFocus={(event) => event.currentTarget.matches(":focus-visible") && focus()}
    >
      <span class="unseen">{cell.name}</span>
      <Marks cell={cell} />
    </div>
  );
}

/** The cell's name in short for the eye. */
function Marks({ cell }: { cell: Cell }) {
  const count = cell.found ?? cell.selected;
  const missing = cell.head?.missing;
  return (
    <span aria-hidden="true">
      <span class="matrix-name">{cell.title}</span>
      {cell.value && <span class="matrix-value">{cell.value}</span>}
      {count && !missing && <span class="matrix-count">{sum(count)}</span>}
      {missing && <span class="matrix-missing">{missing}</span>}
    </span>
  );
}

function isHere(cell: Cell): boolean {
  const { layer, head } = cell.facts.at;
  return layer === state.layer.value && head === state.head.value;
}

/** Indices of the cells row by row, from left to right. */
function groupRows(cells: readonly Cell[], nRows: number): readonly (readonly number[])[] {
  const rows: number[][] = Array.from({ length: nRows }, () => []);
  for (const [index, cell] of cells.entries()) rows[cell.row]?.push(index);
  const column = (index: number) => cells[index]?.column ?? 0;
  for (const row of rows) row.sort((a, b) => column(a) - column(b));
  return rows;
}

interface Step {
  readonly columns: number;
  readonly rows: number;
}

const STEPS: Readonly<Record<string, Step>> = {
  ArrowLeft: { columns: -1, rows: 0 },
  ArrowRight: { columns: 1, rows: 0 },
  ArrowUp: { columns: 0, rows: -1 },
  ArrowDown: { columns: 0, rows: 1 },
};

/** The next cell that is there in a direction; −1 at the edge. */
export function findNext(
  cells: readonly { readonly column: number; readonly row: number }[],
  from: number,
  step: Step,
  extent: { readonly nColumns: number; readonly nRows: number },
): number {
  const start = cells[from];
  if (!start) return -1;
  let [column, row] = [start.column + step.columns, start.row + step.rows];
  while (column >= 0 && row >= 0 && column < extent.nColumns && row < extent.nRows) {
    const found = cells.findIndex((cell) => cell.column === column && cell.row === row);
    if (found >= 0) return found;
    column += step.columns;
    row += step.rows;
  }
  return -1;
}
