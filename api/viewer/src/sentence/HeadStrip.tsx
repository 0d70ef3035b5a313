/** The same sequence in all heads: small matrices by layer and head, loaded as they come into sight. */

import { useSignal } from "@preact/signals";
import { useLayoutEffect, useRef } from "preact/hooks";
import { loadAttentionPictures } from "../contract/atlas";
import { useKeyed } from "../contract/keyed";
import type { AttentionPicture, ModelRow } from "../contract/rows";
import { change, state } from "../contract/state";
import { heads } from "../shell/chosen";
import { Problem } from "../shell/Problem";
import { isDark } from "../shell/theme";
import { type NoteBusy, useNoted } from "./busy_parts";
import { paintCells, readColour, toAlphas } from "./heat";

const MOST_SIDE = 48;
const WHOLE = 255;

/** Layers × heads; a layer is noted while it loads in sight, or it is not known if it is. */
export function HeadStrip(props: { model: ModelRow; sequenceId: number; note: NoteBusy }) {
  const { model, sequenceId, note } = props;
  const layers = [...new Set(heads.value.map((row) => row.layer))].sort((a, b) => a - b);
  return (
    <section class="sentence-strip" aria-label="The same sequence in all heads">
      <h3>All heads</h3>
      <p class="sentence-hint">
        Queries down, keys across; a click opens the head. Opacity is the square root of the weight.
        Always of plain attention: hiding and value norm do not apply here.
      </p>
      <div class="sentence-strip-layers">
        {layers.map((layer) => (
          <LayerRow
            key={layer}
            model={model.model}
            nHeads={heads.value.filter((row) => row.layer === layer).length}
            layer={layer}
            sequenceId={sequenceId}
            note={note}
          />
        ))}
      </div>
    </section>
  );
}

function LayerRow(props: {
  model: string;
  layer: number;
  nHeads: number;
  sequenceId: number;
  note: NoteBusy;
}) {
  const { model, layer, sequenceId, note } = props;
  const row = useRef<HTMLElement>(null);
  const inSight = useInSight(row);
  const key = inSight ? `${model} ${layer} ${sequenceId}` : null;
  const loaded = useKeyed(key, (signal) =>
    loadAttentionPictures(model, layer, sequenceId, MOST_SIDE, signal),
  );
  useNoted(note, `layer ${layer}`, inSight === null || loaded.isLoading);
  const pictures = loaded.isLoading ? [] : (loaded.value ?? []); // never of another sequence
  return (
    <section class="sentence-strip-layer" ref={row} aria-label={`Layer ${layer}`}>
      <span class="sentence-strip-name">L{layer}</span>
      {loaded.problem && <Problem problem={loaded.problem} retry={loaded.retry} />}
      {pictures.map((picture) => (
        <HeadButton key={picture.head} picture={picture} />
      ))}
      {pictures.length === 0 &&
        !loaded.problem &&
        Array.from({ length: props.nHeads }, (_, head) => (
          <span key={`empty ${head}`} class="sentence-strip-empty" />
        ))}
    </section>
  );
}

/** Whether an element is in sight, or was once; null until that is known. */
function useInSight(element: { current: Element | null }): boolean | null {
  const inSight = useSignal<boolean | null>(null);
  useLayoutEffect(() => {
    if (!element.current) return;
    const observer = new IntersectionObserver((entries) => {
      const isIn = entries.some((entry) => entry.isIntersecting);
      inSight.value = isIn || inSight.peek() === true;
      if (isIn) observer.disconnect();
    });
    observer.observe(element.current);
    return () => observer.disconnect();
  }, []);
  return inSight.value;
}

function HeadButton({ picture }: { picture: AttentionPicture }) {
  const { layer, head } = picture;
  const canvas = useRef<HTMLCanvasElement>(null);
  const dark = isDark.value;
  useLayoutEffect(() => {
    if (!canvas.current) return;
    const alphas = toAlphas(picture.weights, WHOLE);
    paintCells(alphas, picture.nRows, picture.nColumns, readColour("--accent"), canvas.current);
  }, [picture, dark]);
  const isCurrent = state.layer.value === layer && state.head.value === head;
  return (
    <button
      type="button"
      class="sentence-strip-head"
      aria-label={`Layer ${layer}, head ${head}`}
      aria-current={isCurrent ? "true" : undefined}
      title={`L${layer} H${head}`}
      onClick={() => change({ layer, head })}
    >
      <canvas ref={canvas} />
    </button>
  );
}
