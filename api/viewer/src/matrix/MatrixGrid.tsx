import { type Signal, useSignal } from "@preact/signals";
import { useLayoutEffect, useRef } from "preact/hooks";
import type { ModelRow } from "../contract/rows";
import { state } from "../contract/state";
import { registerPicture } from "../shell/exporting";
import { openHead } from "../shell/open_head";
import { useShortcut } from "../shell/shortcuts";
import { isDark } from "../shell/theme";
import { Cells } from "./Cells";
import { labelFigure, readValue, writeValue } from "./cell_values";
import { followSheet } from "./follow_sheet";
import { followGestures } from "./gestures";
import { saveMatrix } from "./matrix_picture";
import { type Cell, type Scene, sum } from "./scene";
import { Stage } from "./stage";

const STEP = 1.5;
/** The figure beside every head: its fidelity. */
const RHO = "map.score_spearman";
const LIGHT_GROUND = [1, 1, 1];
const DARK_GROUND = [0.114, 0.129, 0.145];

interface Hovered {
  readonly index: number;
  readonly px: number;
  readonly py: number;
}

interface GridProps {
  readonly scene: Scene;
  readonly row: ModelRow;
  readonly pointed: Signal<number>;
  /** Set to what identifies the scene once it is drawn. */
  readonly drawn: Signal<unknown>;
  readonly failure: Signal<Error | null>;
}

/** Headings, cells and the canvas over them. */
export function MatrixGrid(props: GridProps) {
  const { scene, pointed } = props;
  const hovered = useSignal<Hovered | null>(null);
  const latest = useRef(scene);
  latest.current = scene;
  const rest = useRef(() => {});
  const open = (index: number) => {
    const at = latest.current.cells[index]?.facts.at;
    rest.current(); // so that the step back leads to what was left
    if (at) openHead(at);
  };
  const { stage, refs } = useStage(props, hovered, latest, { open, rest });
  useKeys(stage, latest, pointed);
  const reveal = (index: number) => {
    const cell = latest.current.cells[index];
    pointed.value = index;
    if (cell) stage.value?.reveal(cell.column, cell.row);
  };
  return (
    <div class="matrix-frame">
      <fieldset class="matrix-buttons" aria-label="Zoom">
        <ZoomButton label="Zoom out" text="−" run={() => zoomBy(stage.value, 1 / STEP)} />
        <ZoomButton label="Zoom in" text="+" run={() => zoomBy(stage.value, STEP)} />
        <ZoomButton label="All heads" text="all" run={() => stage.value?.fit()} />
      </fieldset>
      <div class="matrix-columns" aria-hidden="true">
        <div ref={refs.columns}>
          <Headings names={scene.sheet.columnNames} side="left" />
        </div>
      </div>
      <div class="matrix-rows" aria-hidden="true">
        <div ref={refs.rows}>
          <Headings names={scene.sheet.rowNames} side="top" />
        </div>
      </div>
      <div class="matrix-viewport" ref={refs.viewport}>
        <Cells scene={scene} hold={refs.sheet} open={open} focus={reveal} />
        <canvas class="matrix-canvas" ref={refs.canvas} />
        <Tip scene={scene} hovered={hovered} stage={stage.value} />
      </div>
    </div>
  );
}

function ZoomButton(props: { label: string; text: string; run: () => void }) {
  return (
    <button type="button" aria-label={props.label} title={props.label} onClick={props.run}>
      {props.text}
    </button>
  );
}

/** The stage of these elements, kept equal to the scene. */
function useStage(
  { scene, row, pointed, drawn, failure }: GridProps,
  hovered: Signal<Hovered | null>,
  latest: { readonly current: Scene },
  { open, rest }: { open: (index: number) => void; rest: { current: () => void } },
) {
  const refs = {
    viewport: useRef<HTMLDivElement>(null),
    canvas: useRef<HTMLCanvasElement>(null),
    sheet: useRef<HTMLDivElement>(null),
    columns: useRef<HTMLDivElement>(null),
    rows: useRef<HTMLDivElement>(null),
  };
  const stage = useSignal<Stage | null>(null);
  const find = (column: number, line: number) =>
    latest.current.cells.findIndex((cell) => cell.column === column && cell.row === line);
  useLayoutEffect(() => {
    const parts = gatherParts(refs);
    if (!parts) return;
    let made: Stage;
    try {
      made = new Stage(parts);
    } catch (error) {
      failure.value = error as Error;
      return;
    }
    const stopGestures = followGestures(made, {
      hover: (column, line, px, py) => {
        const index = find(column, line);
        hovered.value = index < 0 ? null : { index, px, py };
        if (index >= 0) pointed.value = index;
      },
      leave: () => {
        hovered.value = null;
      },
      open: (column, line) => open(find(column, line)),
    });
    const stopPicture = registerPicture(() => saveMatrix(made, latest.current, row.model));
    const following = followSheet(made);
    rest.current = following.rest;
    stage.value = made;
    return () => {
      following.stop();
      stopGestures();
      stopPicture();
      made.dispose();
    };
  }, [row.model]);
  useDrawing(stage.value, scene, drawn);
  return { stage, refs };
}

function useDrawing(stage: Stage | null, scene: Scene, drawn: Signal<unknown>): void {
  const { matrix, sheet, marks, colouring } = scene;
  const coloured = colouring.value?.matrix === matrix ? colouring.value : null;
  useLayoutEffect(() => {
    if (matrix) stage?.setMatrix(matrix);
  }, [stage, matrix]);
  useLayoutEffect(() => {
    if (matrix) stage?.setSheet(sheet);
    else stage?.setExtent(sheet);
  }, [stage, matrix, sheet]);
  useLayoutEffect(() => {
    const rgba = coloured?.colouring.rgba ?? (colouring.problem && greyOf(scene));
    if (rgba) stage?.setColours(rgba, marks, isDark.value ? DARK_GROUND : LIGHT_GROUND);
  }, [stage, coloured, colouring.problem, marks, isDark.value]);
  useLayoutEffect(() => {
    if (!stage) return;
    stage.onDrawn = () => {
      drawn.value = scene;
    };
    stage.redraw();
  }, [stage, scene]);
}

/** What points look like where their colouring failed. */
function greyOf({ matrix }: Scene): Uint8Array | null {
  return matrix && new Uint8Array(4 * matrix.points.n).fill(138);
}

type Refs = {
  readonly [Name in keyof Stage["parts"]]: { readonly current: HTMLElement | null };
};

function gatherParts(refs: Refs): Stage["parts"] | null {
  const { viewport, canvas, sheet, columns, rows } = refs;
  if (!(canvas.current instanceof HTMLCanvasElement)) return null;
  if (!viewport.current || !sheet.current || !columns.current || !rows.current) return null;
  return {
    viewport: viewport.current,
    canvas: canvas.current,
    sheet: sheet.current,
    columns: columns.current,
    rows: rows.current,
  };
}

/** Zoom about a cell, else about the middle. */
function zoomBy(stage: Stage | null, factor: number, about?: Cell | undefined): void {
  if (!stage) return;
  const { left, top, cell } = stage.view;
  const { width, height } = stage.size;
  const px = about ? left + (about.column + 0.5) * cell : width / 2;
  const py = about ? top + (about.row + 0.5) * cell : height / 2;
  stage.zoom(px, py, factor);
}

function useKeys(
  stage: Signal<Stage | null>,
  latest: { readonly current: Scene },
  pointed: Signal<number>,
): void {
  const about = () => latest.current.cells[pointed.value];
  useShortcut("+", "Zoom into the matrix", () => zoomBy(stage.value, STEP, about()));
  useShortcut("-", "Zoom out of the matrix", () => zoomBy(stage.value, 1 / STEP, about()));
  useShortcut("0", "All heads in sight", () => stage.value?.fit());
}

function Headings({ names, side }: { names: readonly string[]; side: "left" | "top" }) {
  return (
    <>
      {names.map((name, i) => (
        <span
          class="matrix-heading"
          key={name}
          style={{ [side]: `${(100 * (i + 0.5)) / names.length}%` }}
        >
          <span class="matrix-prefix">{name.slice(0, name.lastIndexOf(" ") + 1)}</span>
          {name.slice(name.lastIndexOf(" ") + 1)}
        </span>
      ))}
    </>
  );
}

/** The name of the head under the pointer, with its main figures. */
function Tip(props: { scene: Scene; hovered: Signal<Hovered | null>; stage: Stage | null }) {
  const { scene, hovered, stage } = props;
  const at = hovered.value;
  const cell = at && scene.cells[at.index];
  if (!at || !cell) return null;
  const { width, height } = stage?.size ?? { width: 0, height: 0 };
  const fidelity = readValue(RHO, cell.facts) ?? cell.head?.scoreSpearman ?? null;
  return (
    <div
      class="matrix-tip"
      data-across={at.px > width / 2 ? "left" : "right"}
      data-down={at.py > height / 2 ? "above" : "below"}
      style={{ left: `${at.px}px`, top: `${at.py}px` }}
    >
      <b>{cell.title}</b>
      {cell.described.map((text) => (
        <span key={text}>{text}</span>
      ))}
      <span>{cell.head?.missing ?? `${labelFigure(RHO)} ${writeValue(fidelity)}`}</span>
      {cell.found && <span>{sum(cell.found)} hits</span>}
      {state.selector.value && cell.selected && <span>{sum(cell.selected)} selected</span>}
    </div>
  );
}
