/** The camera of a pane: all in view for a new map, else as the address or the user has it. */

import { useSignalEffect } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import type { MapRow } from "../contract/rows";
import { state } from "../contract/state";
import { type Camera, readCamera, writeCamera } from "../draw/camera";
import type { Drawn, Pane } from "./pane";
import type { Scene } from "./scene";

/** Rest after which the camera goes into the address. */
const REST_MS = 300;

/** What the address was last told; another text there comes from a link or a step back. */
interface Written {
  mapId: string;
  text: string;
}

/** Outlives the pane: a camera left behind in the address is not for the map of another head. */
const firstWritten: Written = { mapId: "", text: "" };

/** Keep the camera of a pane right for what it shows; only the first pane's is in the address. */
export function useCamera(pane: Pane, scene: Scene | null, map: MapRow, drawn: Drawn | null): void {
  const isFirst = pane.name === "first";
  const written = useRef<Written>(isFirst ? firstWritten : { mapId: "", text: "" }).current;
  const isThere = drawn?.map.map_id === map.map_id;
  useEffect(() => {
    if (!scene?.whole || !isThere) return;
    pane.whole.value = scene.whole;
    const text = isFirst ? state.camera.peek() : "";
    const isSame = written.mapId === map.map_id;
    if (isSame && text === written.text && pane.camera.peek()) return;
    const isOfOther = !isSame && text === written.text;
    const restored = isOfOther ? null : readCamera(text, map.dims);
    written.mapId = map.map_id;
    written.text = restored ? text : "";
    pane.camera.value = restored ?? scene.whole;
    if (isFirst) state.camera.value = written.text;
  }, [scene, drawn, map.map_id]);
  useSignalEffect(() => {
    const text = state.camera.value;
    const isShown = pane.drawn.peek()?.map.map_id === written.mapId;
    if (!isFirst || !scene || !isShown || text === written.text) return;
    if (map.map_id !== written.mapId) return; // it is for the map on its way
    written.text = text;
    pane.camera.value = readCamera(text, map.dims) ?? scene.whole;
  });
  useSignalEffect(() => {
    const camera = pane.camera.value;
    if (!isFirst || !camera) return;
    const { mapId } = written;
    const timer = setTimeout(() => {
      if (written.mapId !== mapId || camera !== pane.camera.peek()) return;
      written.text = writeUnlessWhole(camera, scene?.whole ?? null);
      state.camera.value = written.text;
    }, REST_MS);
    return () => clearTimeout(timer);
  });
}

function writeUnlessWhole(camera: Camera, whole: Camera | null): string {
  const text = writeCamera(camera);
  return whole && text === writeCamera(whole) ? "" : text;
}
