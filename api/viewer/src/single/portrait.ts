/** The picture of Single View as a file: one map, or two side by side. */

import { state } from "../contract/state";
import { savePicture } from "../draw/picture";
import { nameFile } from "../shell/exporting";
import { writeFigure } from "./Fidelity";
import { besidePane, type Drawn, firstPane, type Pane } from "./pane";
import { nameVariant } from "./VariantsTable";

/** Save what the panes show, with a caption that names it. */
export async function saveMaps(): Promise<void> {
  const panes = [firstPane, besidePane].filter((pane) => pane.drawn.peek() !== null);
  const shown = panes.flatMap((pane) => pane.drawn.peek() ?? []);
  const [first] = shown;
  if (!first) throw new Error("No map is drawn yet.");
  const ground = getComputedStyle(document.documentElement).getPropertyValue("--card").trim();
  const caption = `${shown.map(nameDrawn).join("  |  ")} · coloured by ${state.colour.peek()}`;
  await savePicture(layersOf(panes), `${nameFile(first.map)}.png`, ground || "#ffffff", caption);
}

function nameDrawn({ map }: Drawn): string {
  const figure = writeFigure(map.score_spearman);
  return `${map.model} · L${map.layer} H${map.head} · ${nameVariant(map)} · ρ ${figure}`;
}

/** The canvases of one pane as they are; those of two, side by side on one. */
function layersOf(panes: readonly Pane[]): readonly HTMLCanvasElement[] {
  const [first, ...others] = panes.map((pane) => pane.canvases.peek());
  if (!first || others.length === 0) return first ?? [];
  const all = [first, ...others];
  const both = document.createElement("canvas");
  both.width = all.reduce((sum, layers) => sum + (layers[0]?.width ?? 0), 0);
  both.height = Math.max(...all.map((layers) => layers[0]?.height ?? 0));
  const context = both.getContext("2d");
  let left = 0;
  for (const layers of all) {
    for (const layer of layers) context?.drawImage(layer, left, 0);
    left += layers[0]?.width ?? 0;
  }
  return [both];
}
