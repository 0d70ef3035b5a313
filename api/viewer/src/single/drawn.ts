/** Loads all that one picture of a map needs, so that points and colours change together. */

import { type Colouring, loadColouring } from "../colour/colourings";
import { loadNorms, loadPoints, MOST_POINTS } from "../contract/atlas";
import type { MapPoints } from "../contract/points";
import type { MapRow, ModelRow } from "../contract/rows";
import { diametersByNorm } from "./diameters";
import type { Drawn } from "./pane";
import type { Box } from "./refine";

/** Points of several parts share ranks, so a box that holds more may give a few less than MOST_POINTS. */
export const NEARLY_ALL = 0.9;

/** What a picture is to show. */
export interface DrawnAsked {
  readonly map: MapRow;
  readonly model: ModelRow;
  readonly box: Box | null;
  readonly colour: string;
  readonly isDark: boolean;
  readonly hasNorms: boolean;
}

/** Points, colours and sizes of a map. Raises only where there are no points to show. */
export async function loadDrawn(asked: DrawnAsked, signal: AbortSignal): Promise<Drawn> {
  const { map, model, box } = asked;
  const points = await loadPoints(map, box ? { box } : {}, signal);
  const [colour, size] = await Promise.all([
    loadColour(asked, points, signal),
    loadDiameters(asked, points, signal),
  ]);
  const isCut = box ? points.n >= NEARLY_ALL * MOST_POINTS : points.n < map.n_points;
  return { map, model, points, part: { box, isCut }, ...colour, ...size };
}

async function loadColour(
  asked: DrawnAsked,
  points: MapPoints,
  signal: AbortSignal,
): Promise<{ colouring: Colouring; colourProblem: Error | null }> {
  const { map, model, box, isDark, colour } = asked;
  const { layer, head } = map;
  const context = { model, map, box, points, isDark, layer, head };
  try {
    return { colouring: await loadColouring(colour, context, signal), colourProblem: null };
  } catch (problem) {
    signal.throwIfAborted();
    const colouring = await loadColouring("kind", context, signal);
    return { colouring, colourProblem: problem as Error };
  }
}

async function loadDiameters(
  asked: DrawnAsked,
  points: MapPoints,
  signal: AbortSignal,
): Promise<{ diameters: Float32Array | null; sizeProblem: Error | null }> {
  if (!asked.hasNorms) return { diameters: null, sizeProblem: null };
  try {
    const norms = await loadNorms(asked.map, asked.box, signal);
    return { diameters: diametersByNorm(norms, points.n), sizeProblem: null };
  } catch (problem) {
    signal.throwIfAborted();
    return { diameters: null, sizeProblem: problem as Error };
  }
}
