/** The camera of a pane: all in view for a new map, else as the address or the user has it. */

import { useSignalEffect } from "@preact/signals";
import { useEffect } from "preact/hooks";
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

/** Outlive the panes: a camera left behind in the address is not for the map of another head. */
const WRITTEN: Readonly<Record<Pane["name"], Written>> = {
  first: { mapId: "", text: "" },
  beside: { mapId: "", text: "" },
};

/** Keep the camera of a pane right for what it shows, and the same in the address. */
export function useCamera(pane: Pane, scene: Scene | null, map: MapRow, drawn: Drawn | null): void {
  const written = WRITTEN[pane.name];
  const inAddress = pane.name === "first" ? state.camera : state.cameraBeside;
  const isThere = drawn?.map.map_id === map.map_id;
  useEffect(() => {
    if (!scene?.whole || !isThere) return;
    pane.whole.value = scene.whole;
    const text = inAddress.peek();
    const isSame = written.mapId === map.map_id;
    if (isSame && text === written.text && pane.camera.peek()) return;
    const isOfOther = !isSame && text === written.text;
    const restored = isOfOther ? null : readCamera(text, map.dims);
    written.mapId = map.map_id;
    written.text = restored ? text : "";
    pane.camera.value = restored ?? scene.whole;
    inAddress.value = written.text;
  }, [scene, drawn, map.map_id]);
  useSignalEffect(() => {
    const text = inAddress.value;
    const isShown = pane.drawn.peek()?.map.map_id === written.mapId;
    if (!scene || !isShown || text === written.text) return;
    if (map.map_id !== written.mapId) return; // it is for the map on its way
    written.text = text;
    pane.camera.value = readCamera(text, map.dims) ?? scene.whole;
  });
  useSignalEffect(() => {
    const camera = pane.camera.value;
    if (!camera) return;
    const { mapId } = written;
    const timer = setTimeout(() => {
      if (written.mapId !== mapId || camera !== pane.camera.peek()) return;
      // Not the scene's: where the view was left and opened again, that has no points yet.
      written.text = writeUnlessWhole(camera, pane.whole.peek());
      inAddress.value = written.text;
    }, REST_MS);
    return () => clearTimeout(timer);
  });
}

function writeUnlessWhole(camera: Camera, whole: Camera | null): string {
  const text = writeCamera(camera);
  return whole && text === writeCamera(whole) ? "" : text;
}
