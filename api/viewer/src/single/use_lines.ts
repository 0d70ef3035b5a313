/** Attention lines over a map, for the clicked and the selected sequences. */

import { useLayoutEffect } from "preact/hooks";
import { type Keyed, useKeyed } from "../contract/keyed";
import { selection } from "../contract/selection";
import { state } from "../contract/state";
import { type Lines, loadLines, MOST_LINE_SEQUENCES, placeLines } from "./lines";
import { chooseLineSequences } from "./marks";
import type { Drawn } from "./pane";
import type { Scene } from "./scene";

/** Load and draw the lines that the state wants. */
export function useLines(scene: Scene | null, drawn: Drawn | null): Keyed<Lines> {
  const wanted = chooseLineSequences(state.point.value, selection.value, MOST_LINE_SEQUENCES);
  const map = state.lines.value && wanted.sequenceIds.length > 0 ? (drawn?.map ?? null) : null;
  const key = map && JSON.stringify([map.map_id, wanted]);
  const loaded = useKeyed<Lines>(key, (signal) =>
    map ? loadLines(map, wanted, signal) : Promise.reject(new Error("no map")),
  );
  const lines = loaded.isLoading ? null : loaded.value;
  useLayoutEffect(() => {
    if (scene && drawn) scene.setLines(lines ? placeLines(drawn.points, lines.lines) : []);
  }, [scene, drawn, lines]);
  return loaded;
}
