/** A scene on two canvases as long as its pane is there, as large as its frame. */

import { useSignal, useSignalEffect } from "@preact/signals";
import type { RefObject } from "preact";
import { useEffect, useLayoutEffect } from "preact/hooks";
import { isDark } from "../shell/theme";
import type { Pane } from "./pane";
import { type Inks, Scene } from "./scene";

/** The elements of a pane's map. */
export interface Elements {
  readonly frame: RefObject<HTMLDivElement | null>;
  readonly canvas: RefObject<HTMLCanvasElement | null>;
  readonly over: RefObject<HTMLCanvasElement | null>;
}

/** The scene of a pane once it is there, or why the browser cannot draw. */
export function useScene(
  pane: Pane,
  { frame, canvas, over }: Elements,
): { scene: Scene | null; problem: Error | null } {
  const made = useSignal<{ scene: Scene | null; problem: Error | null }>({
    scene: null,
    problem: null,
  });
  useLayoutEffect(() => {
    if (!canvas.current || !over.current) return;
    const [points, top] = [canvas.current, over.current];
    try {
      const scene = new Scene(points, top);
      made.value = { scene, problem: null };
      pane.canvases.value = [points, top];
      return () => {
        scene.dispose();
        pane.canvases.value = [];
      };
    } catch (problem) {
      made.value = { scene: null, problem: problem as Error };
      return;
    }
  }, []);
  useEffect(() => (frame.current ? followSize(pane, frame.current) : undefined), []);
  useSignalEffect(() => {
    made.value.scene?.setView(pane.camera.value, pane.size.value);
  });
  useSignalEffect(() => {
    isDark.value;
    // The page's theme is set by an effect of its own, perhaps after this one.
    queueMicrotask(() => frame.current && made.peek().scene?.setInks(readInks(frame.current)));
  });
  return made.value;
}

function followSize(pane: Pane, frame: HTMLElement): () => void {
  const observer = new ResizeObserver(() => {
    const { clientWidth: width, clientHeight: height } = frame;
    const before = pane.size.peek();
    if (before.width !== width || before.height !== height) pane.size.value = { width, height };
  });
  observer.observe(frame);
  return () => observer.disconnect();
}

function readInks(element: HTMLElement): Inks {
  const style = getComputedStyle(element);
  const read = (name: string) => style.getPropertyValue(name).trim();
  return { ink: read("--ink"), halo: read("--card"), accent: read("--accent") };
}
