/** Colours of a map's points as they are drawn, and patches of images in the place of points. */

import { useLayoutEffect } from "preact/hooks";
import { shadeDistortion } from "../colour/colourings";
import { type Keyed, useKeyed } from "../contract/keyed";
import type { MapPoints } from "../contract/points";
import { state } from "../contract/state";
import { loadThumbnails } from "../image/thumbnails";
import { hasImages } from "../shell/chosen";
import { isDark } from "../shell/theme";
import type { Drawn } from "./pane";
import type { Scene, Sprites } from "./scene";

/** Show points in their colours, shaded by distortion where that is wanted and known. */
export function useColours(scene: Scene | null, drawn: Drawn | null): void {
  const isShaded = state.distortion.value;
  useLayoutEffect(() => {
    if (!scene) return;
    if (!drawn) return scene.clear();
    const { distortion } = drawn.points;
    const { rgba } = drawn.colouring;
    const isKnown = isShaded && distortion !== null;
    scene.show(drawn, isKnown ? shadeDistortion(rgba, distortion, isDark.peek()) : rgba);
  }, [scene, drawn, isShaded]);
  const hasLabels = state.labels.value;
  useLayoutEffect(() => scene?.setLabels(hasLabels), [scene, hasLabels]);
}

/** Show patches as points where that is wanted and the sequences are images. */
export function useSprites(scene: Scene | null, drawn: Drawn | null): Keyed<Sprites | null> {
  const points = state.thumbnails.value && hasImages.value ? (drawn?.points ?? null) : null;
  const key = points && keyOf(points);
  const loaded = useKeyed<Sprites | null>(key, () =>
    drawn ? loadThumbnails(drawn.model, drawn.points) : Promise.resolve(null),
  );
  const sprites = loaded.isLoading ? null : loaded.value;
  useLayoutEffect(() => scene?.setSprites(sprites), [scene, drawn?.points, sprites]);
  return loaded;
}

const keys = new WeakMap<MapPoints, string>();
let lastKey = 0;

/** A name for some points as they are in memory. */
function keyOf(points: MapPoints): string {
  const key = keys.get(points) ?? String(++lastKey);
  keys.set(points, key);
  return key;
}
