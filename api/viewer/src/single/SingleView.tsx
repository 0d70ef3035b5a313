/** Single View: one map, or two side by side, with all that can be asked of its points. */

import { useEffect } from "preact/hooks";
import type { MapRow, ModelRow } from "../contract/rows";
import { change, state } from "../contract/state";
import { zoomAt } from "../draw/camera";
import {
  headRow,
  isListing,
  map as mapInSight,
  maps,
  method,
  model,
  models,
} from "../shell/chosen";
import { registerPicture } from "../shell/exporting";
import { useShortcut } from "../shell/shortcuts";
import { Busy } from "../shell/Toolbar";
import { BesidePane } from "./BesidePane";
import { giveUp } from "./gesture_host";
import { MapPane } from "./MapPane";
import { NoMap } from "./NoMap";
import { PointPanel } from "./PointPanel";
import { active, besidePane, firstPane, type Pane } from "./pane";
import { saveMaps } from "./portrait";
import { isSelecting, useRestoredOutline } from "./restore";
import { SelectionSummary } from "./SelectionSummary";
import { SingleControls } from "./SingleControls";
import { useNeighboursAhead } from "./use_drawn";
import { usePickedOfColour } from "./use_picked";
import { nameVariant, VariantsTable } from "./VariantsTable";
import { readTarget, variantsOf } from "./variants";
import { viewKey } from "./view_key";
import "../styles/single.css";

const ZOOM_STEP = 1.4;

/** The view of one head's map. */
export function SingleView() {
  const row = model.value;
  const map = mapInSight.value;
  useKeys();
  usePickedOfColour();
  useRestoredOutline(maps.value);
  useEffect(() => registerPicture(saveMaps), []);
  const isComplete = useIsComplete(map);
  useNeighboursAhead(maps.value, map, isComplete);
  if (!row) return <Waiting />;
  const variants = variantsOf(maps.value, state.layer.value, state.head.value);
  return (
    <div
      class="single-view"
      data-drawn={isComplete ? "yes" : "no"}
      data-n-drawn={firstPane.drawn.value?.points.n ?? 0}
    >
      <SingleControls model={row} variants={variants} map={map} />
      <div class="single-body">
        <div class="single-panes" data-n-panes={state.beside.value === "" ? 1 : 2}>
          <FirstPane row={row} map={map} variants={variants} />
          {state.beside.value !== "" && <BesidePane />}
        </div>
        <Panel model={row} map={map} variants={variants} />
      </div>
    </div>
  );
}

function Waiting() {
  return (
    <div class="single-view" data-drawn="no">
      <Busy isLoading={isListing.value} what="the models" />
    </div>
  );
}

/** Whether all panes show what the state wants; a pane without a map has nothing to show. */
function useIsComplete(map: MapRow | null): boolean {
  const isShown = (pane: Pane) => pane.shownKey.value === viewKey.value;
  if (isListing.value || isSelecting.value) return false;
  const isFirst = map === null || isShown(firstPane);
  return (
    isFirst && (state.beside.value === "" || besidePane.isMissing.value || isShown(besidePane))
  );
}

function FirstPane(props: { row: ModelRow; map: MapRow | null; variants: readonly MapRow[] }) {
  const { row, map, variants } = props;
  const at = { layer: state.layer.value, head: state.head.value };
  if (map) {
    const heading = (
      <h2>
        {row.model} · L{map.layer} H{map.head} · {nameVariant(map)}
      </h2>
    );
    return <MapPane pane={firstPane} model={row} map={map} heading={heading} />;
  }
  if (isListing.value) {
    return (
      <section class="single-pane" aria-label="Map">
        <Busy isLoading what="the maps" />
      </section>
    );
  }
  const wanted = { method: method.value, joint: state.joint.value, dims: state.dims.value };
  return (
    <section class="single-pane" aria-label="Map">
      <NoMap
        at={at}
        wanted={wanted}
        variants={variants}
        isHead={headRow.value !== null}
        onChoose={showMap}
      />
    </section>
  );
}

function showMap({ method: name, joint, dims }: MapRow): void {
  change({ method: name, joint, dims });
}

/** What is known beside the map: the clicked point, the selection, the head's other maps. */
function Panel(props: { model: ModelRow; map: MapRow | null; variants: readonly MapRow[] }) {
  const place = state.point.value;
  const target = readTarget(state.beside.value);
  const isBeside = state.clickedIn.value === "beside" && target !== null;
  const model = isBeside
    ? models.value.find((row) => row.model === target.model)
    : props.map && props.model;
  const { drawn } = isBeside ? besidePane : firstPane;
  const first = firstPane.drawn.value;
  return (
    <aside class="single-panel" aria-label="About the map and its points">
      {place && model && <PointPanel model={model} drawn={drawn.value} place={place} />}
      {!place && first && (
        <p class="single-quiet">Click a point for its sequence and neighbours.</p>
      )}
      {first && <SelectionSummary drawn={first} />}
      {props.variants.length > 0 && (
        <VariantsTable variants={props.variants} shown={props.map} onChoose={showMap} />
      )}
    </aside>
  );
}

function useKeys(): void {
  useShortcut("+", "Zoom in", () => zoom(ZOOM_STEP));
  useShortcut("=", "Zoom in", () => zoom(ZOOM_STEP));
  useShortcut("-", "Zoom out", () => zoom(1 / ZOOM_STEP));
  useShortcut("0", "Show the whole map", () => {
    const { camera, whole } = active.peek();
    camera.value = whole.peek() ?? camera.peek();
  });
  useShortcut(
    "Escape",
    "Give up the outline, the point and the selection; then back to the matrix",
    () => {
      if (!giveUp([firstPane, besidePane])) change({ view: "matrix" });
    },
  );
}

function zoom(factor: number): void {
  const { camera, size } = active.peek();
  const { width, height } = size.peek();
  const now = camera.peek();
  if (now) camera.value = zoomAt(now, { width, height }, width / 2, height / 2, factor);
}
