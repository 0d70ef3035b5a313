/** The matrix as a PNG: tints and frames beneath the points, names above them. */

import { savePicture } from "../draw/picture";
import type { Cell, Scene } from "./scene";
import type { Stage } from "./stage";

/** Save what is in sight of the matrix. */
export async function saveMatrix(stage: Stage, scene: Scene, model: string): Promise<void> {
  stage.drawNow();
  const { canvas } = stage.parts;
  const style = getComputedStyle(document.documentElement);
  const css = (name: string) => style.getPropertyValue(name).trim();
  const beneath = makeLayer(
    stage,
    (context, x, y, cell) => {
      context.fillStyle = cell.tint ?? css("--card");
      context.strokeStyle = css("--line");
      context.fillRect(x, y, stage.view.cell, stage.view.cell);
      context.strokeRect(x + 0.5, y + 0.5, stage.view.cell - 1, stage.view.cell - 1);
    },
    scene,
  );
  const above = makeLayer(
    stage,
    (context, x, y, cell) => {
      context.fillStyle = css("--quiet");
      context.font = "10px system-ui, sans-serif";
      context.fillText([cell.title, cell.value].filter(Boolean).join(" "), x + 4, y + 12);
      if (cell.head?.missing) context.fillText(cell.head.missing, x + 4, y + stage.view.cell / 2);
    },
    scene,
  );
  const { matrix } = scene;
  const what = matrix ? `${matrix.method} ${matrix.dims}-D, ${matrix.points.n} points a head` : "";
  const name = `${model.replace(/[^\w.-]+/g, "-")}-matrix.png`;
  const caption = `${model} · ${what}`;
  await savePicture([beneath, canvas, above], name, css("--ground"), caption);
}

function makeLayer(
  stage: Stage,
  paint: (context: CanvasRenderingContext2D, x: number, y: number, cell: Cell) => void,
  scene: Scene,
): HTMLCanvasElement {
  const layer = document.createElement("canvas");
  const { canvas } = stage.parts;
  [layer.width, layer.height] = [canvas.width, canvas.height];
  const context = layer.getContext("2d");
  if (!context) throw new Error("This browser cannot draw on a canvas. Use another browser.");
  const ratio = canvas.width / stage.size.width;
  context.scale(ratio, ratio);
  const { left, top, cell: side } = stage.view;
  for (const cell of scene.cells) {
    paint(context, left + cell.column * side, top + cell.row * side, cell);
  }
  return layer;
}
