/** One map with its points, what lies over them and what it says about itself. */

import { useComputed } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useLayoutEffect, useRef } from "preact/hooks";
import { Legend } from "../colour/Legend";
import type { MapRow, ModelRow } from "../contract/rows";
import { change, state } from "../contract/state";
import { Problem } from "../shell/Problem";
import { Busy } from "../shell/Toolbar";
import { describeCount } from "./counts";
import { Fidelity } from "./Fidelity";
import { useMapGestures } from "./gesture_host";
import { Notes } from "./Notes";
import { PointTooltip } from "./PointTooltip";
import type { Drawn, Pane } from "./pane";
import type { Scene } from "./scene";
import { useCamera } from "./use_camera";
import { useDrawn } from "./use_drawn";
import { useLines } from "./use_lines";
import { useMarks } from "./use_marks";
import { type Elements, useScene } from "./use_scene";
import { useColours, useSprites } from "./use_sprites";
import { viewKey } from "./view_key";

const HOW =
  "Drag to move, wheel to zoom, click a point for its sequence. Keys: + and − zoom, 0 shows all, Enter opens the point in the middle.";

/** A map; `heading` names it, `retry` loads it anew after a failure. */
export function MapPane(props: {
  pane: Pane;
  model: ModelRow;
  map: MapRow;
  heading: ComponentChildren;
}) {
  const { pane, model, map, heading } = props;
  const elements = useElements();
  const { scene, problem } = useScene(pane, elements);
  const shown = useDrawn(pane, model, map);
  const drawn = shown.value;
  // What is on the canvas may be of the map before, which is not to be read under this one's name.
  const own = drawn?.map.map_id === map.map_id ? drawn : null;
  useColours(scene, drawn);
  useCamera(pane, scene, map, drawn);
  useMarks(scene, drawn, state.picked.value || null);
  const lines = useLines(scene, drawn);
  const sprites = useSprites(scene, drawn);
  const at = useMapGestures(pane, scene, elements.over);
  const failure = problem ?? shown.problem;
  const isReady = drawn !== null && !shown.isLoading && !lines.isLoading && !sprites.isLoading;
  useShownKey(pane, scene, isReady, failure !== null);
  const isEmptyMap = own?.points.n === 0 && own.part.box === null;
  const isStale = drawn !== null && own === null;
  return (
    <section class="single-pane" aria-label={describe(pane, model, map)}>
      <header class="single-pane-head">{heading}</header>
      <Fidelity map={map} />
      <div
        class="single-frame"
        ref={elements.frame}
        data-tool={toolOf(pane)}
        data-stale={isStale ? "yes" : "no"}
      >
        <canvas class="single-canvas" ref={elements.canvas} />
        {/* biome-ignore lint/a11y/noInteractiveElementToNoninteractiveRole: it takes the pointer and keys */}
        <canvas
          class="single-canvas single-over"
          ref={elements.over}
          tabIndex={0}
          role="application"
          aria-label={`${describe(pane, model, map)}. ${HOW}`}
        />
        <Busy isLoading={shown.isLoading || lines.isLoading || sprites.isLoading} what="the map" />
        {failure && (
          <div class="single-instead">
            <Problem problem={failure} retry={problem ? undefined : shown.retry} />
          </div>
        )}
        {isEmptyMap && !failure && (
          <p class="single-instead single-nothing">This map has no points.</p>
        )}
        {own && <PointTooltip pane={pane} drawn={own} at={at} />}
        {own && <Key pane={pane} drawn={own} />}
      </div>
      {own && <Count drawn={own} />}
      <Notes drawn={own} lines={lines} spritesProblem={sprites.problem} />
    </section>
  );
}

/** What colours and shapes say. */
function Key({ pane, drawn }: { pane: Pane; drawn: Drawn }) {
  const { colouring, points } = drawn;
  const pick = (label: string) => {
    change({ picked: state.picked.peek() === label ? "" : label });
  };
  return (
    <div class="single-legend">
      <Legend
        legend={colouring.legend}
        name={pane.name === "first" ? undefined : "second map"}
        picked={state.picked.value}
        onPick={pick}
      />
      {!colouring.usesKind && <p class="single-quiet">● query ◇ key</p>}
      {state.distortion.value && points.distortion && (
        <p class="single-quiet">paler: the map is wrong here</p>
      )}
    </div>
  );
}

function useElements(): Elements {
  return {
    frame: useRef<HTMLDivElement>(null),
    canvas: useRef<HTMLCanvasElement>(null),
    over: useRef<HTMLCanvasElement>(null),
  };
}

function toolOf(pane: Pane): string {
  return useComputed(() => (pane.outline.value.length > 0 ? "outline" : "move")).value;
}

function describe(pane: Pane, model: ModelRow, map: MapRow): string {
  const what = pane.name === "first" ? "Map" : "Second map, map";
  return `${what} of ${model.model}, layer ${map.layer}, head ${map.head}, ${map.method}, ${map.dims}-D`;
}

/** Tell the pane what is on its canvas, once it is there. */
function useShownKey(pane: Pane, scene: Scene | null, isReady: boolean, hasFailed: boolean): void {
  const key = viewKey.value;
  useLayoutEffect(() => {
    if (hasFailed) {
      pane.shownKey.value = key;
      return;
    }
    pane.shownKey.value = "";
    if (!scene || !isReady) return;
    scene.onFrame = () => {
      pane.shownKey.value = key;
    };
    scene.redraw();
    return () => {
      scene.onFrame = () => {};
    };
  }, [scene, isReady, hasFailed, key]);
}

/** How many points there are, and how many of them are drawn. */
function Count({ drawn }: { drawn: Drawn }) {
  return (
    <p class="single-count" role="status" data-n-drawn={drawn.points.n}>
      {describeCount(drawn)}
    </p>
  );
}
