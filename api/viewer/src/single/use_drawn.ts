/** What a pane draws: its map with colours, and the part of a large map that is in view. */

import { useSignal, useSignalEffect } from "@preact/signals";
import { useEffect, useLayoutEffect } from "preact/hooks";
import { loadPoints } from "../contract/atlas";
import { type Keyed, useKeyed } from "../contract/keyed";
import type { MapRow, ModelRow } from "../contract/rows";
import { state } from "../contract/state";
import { boxOf, fitCamera } from "../draw/camera";
import { heads } from "../shell/chosen";
import { type Direction, neighbourHead } from "../shell/open_head";
import { isDark } from "../shell/theme";
import { loadDrawn } from "./drawn";
import type { Drawn, Pane } from "./pane";
import { type Box, choosePart } from "./refine";
import { findVariant, variantsOf } from "./variants";
import { drawnKey } from "./view_key";

/** Rest of the camera after which more points of a large map are asked for. */
const REST_MS = 250;
/** Larger maps are not loaded ahead: what they hold in memory outweighs the wait. */
const MOST_AHEAD = 100_000;
const DIRECTIONS: readonly Direction[] = ["left", "right", "up", "down"];

/**
 * Load what a pane shows, anew where map, colours, sizes or the part in view change.
 *
 * What was there stays until its successor is, but `pane.drawn` never is of another map.
 */
export function useDrawn(pane: Pane, model: ModelRow, map: MapRow): Keyed<Drawn> {
  const box = useBox(pane, map);
  const key = drawnKey(map.map_id, isDark.value, box);
  const asked = {
    map,
    model,
    box,
    colour: state.colour.value,
    isDark: isDark.value,
    hasNorms: state.size.value === "norm",
  };
  const loaded = useKeyed<Drawn>(key, (signal) => loadDrawn(asked, signal));
  const isOwn = loaded.value?.map.map_id === map.map_id;
  useLayoutEffect(() => {
    pane.drawn.value = isOwn ? loaded.value : null;
  }, [loaded.value, isOwn]);
  useEffect(() => {
    return () => {
      pane.drawn.value = null;
    };
  }, []);
  return loaded;
}

/** The part of a map to ask for; null for all of it, as for every map that fits one picture. */
function useBox(pane: Pane, map: MapRow): Box | null {
  const chosen = useSignal<{ mapId: string; box: Box | null }>({ mapId: "", box: null });
  useSignalEffect(() => {
    const camera = pane.camera.value;
    const size = pane.size.value;
    const drawn = pane.drawn.value;
    // A map that has grown holds more points than its row says, so what was drawn tells.
    if (!drawn || (!drawn.part.isCut && !drawn.part.box)) return;
    if (camera?.dims !== 2 || size.width === 0) return;
    const timer = setTimeout(() => {
      const { mapId, box } = chosen.peek();
      const now = mapId === drawn.map.map_id ? box : null;
      if (JSON.stringify(now) !== JSON.stringify(drawn.part.box)) return; // one is on its way
      const next = choosePart(drawn.part, boxOf(camera, size), wholeBox(pane));
      if (next !== now) chosen.value = { mapId: drawn.map.map_id, box: next };
    }, REST_MS);
    return () => clearTimeout(timer);
  });
  return chosen.value.mapId === map.map_id ? chosen.value.box : null;
}

const wholeBoxes = new Map<string, Box>();

/** The bounds of a map as its first picture has them. */
function wholeBox(pane: Pane): Box {
  const drawn = pane.drawn.peek();
  if (!drawn) return [0, 0, 0, 0];
  const known = wholeBoxes.get(drawn.map.map_id);
  if (known) return known;
  const camera = fitCamera(drawn.points);
  if (camera.dims !== 2) return [0, 0, 0, 0];
  const box = boxOf(camera, { width: 1, height: 1 });
  wholeBoxes.set(drawn.map.map_id, box);
  return box;
}

/** Load the maps of the four adjacent heads ahead, once the browser has nothing else to do. */
export function useNeighboursAhead(maps: readonly MapRow[], map: MapRow | null, isDone: boolean) {
  const mapId = map?.map_id;
  useEffect(() => {
    if (!map || !isDone || heads.peek().length === 0) return;
    const controller = new AbortController();
    const stop = whenIdle(() => {
      for (const direction of DIRECTIONS) loadAhead(maps, map, direction, controller.signal);
    });
    return () => {
      stop();
      controller.abort();
    };
  }, [mapId, isDone]);
}

function loadAhead(
  maps: readonly MapRow[],
  like: MapRow,
  direction: Direction,
  signal: AbortSignal,
): void {
  const at = neighbourHead(direction);
  const next = at && findVariant(variantsOf(maps, at.layer, at.head), like);
  if (!next || next.n_points > MOST_AHEAD) return;
  // Whoever opens that head asks again and is told what is wrong.
  loadPoints(next, {}, signal).catch(() => undefined);
}

function whenIdle(run: () => void): () => void {
  if (typeof requestIdleCallback === "function") {
    const id = requestIdleCallback(run, { timeout: 2_000 });
    return () => cancelIdleCallback(id);
  }
  const timer = setTimeout(run, 200); // Safari has no idle callback
  return () => clearTimeout(timer);
}
