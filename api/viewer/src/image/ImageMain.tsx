/** The picture of an image with its attention, the choice of flows, and the patch in focus. */

import type { ComponentChildren } from "preact";
import { useEffect, useMemo } from "preact/hooks";
import { continuousPalette } from "../colour/palettes";
import { imageUrl, loadAttention, loadTokens } from "../contract/atlas";
import { useKeyed } from "../contract/keyed";
import type { Kind } from "../contract/places";
import type { ModelRow, SequenceRow, TokenRow } from "../contract/rows";
import { change, state } from "../contract/state";
import { arrange } from "../sentence/arrangement";
import type { Weights } from "../sentence/attention_lines";
import { type NoteBusy, useNoted } from "../sentence/busy_parts";
import { hover, type Spot } from "../sentence/hovering";
import { useLit } from "../sentence/SentenceMain";
import { showWeight } from "../sentence/token_text";
import { Problem } from "../shell/Problem";
import { Choice } from "../shell/Toolbar";
import { colourOf, describePatch, namePatch } from "./describe_patch";
import { largestHeat, type PatchLayer } from "./draw_patches";
import { nameImage } from "./ImageList";
import { loadImage } from "./load_image";
import { PatchPicture, pinPatch, toSpot } from "./PatchPicture";
import {
  type Flow,
  largestFlow,
  makeGrid,
  type PatchGrid,
  strongestFlows,
  strongFlows,
  weightsOf,
} from "./patches";

const MOST_FLOWS = 2_000;

const STOPS = [0, 0.25, 0.5, 0.75, 1].map(
  (part) => `rgb(${continuousPalette(true)(part).join(" ")})`,
);
const SCALE = `linear-gradient(to right, ${STOPS.join(", ")})`;

type FlowChoice = typeof state.arrows.value;

/** What the picture is drawn from. */
interface Seen {
  readonly id: number;
  readonly image: HTMLImageElement;
  readonly tokens: readonly TokenRow[];
}

/** An image in the head in sight; `children` stand beside the picture. */
export function ImageMain(props: {
  model: ModelRow;
  sequence: SequenceRow;
  note: NoteBusy;
  children: ComponentChildren;
}) {
  const { model, sequence, note } = props;
  const id = sequence.sequence_id;
  const at = { model: model.model, layer: state.layer.value, head: state.head.value };
  const weight = state.weight.value;
  const seen = useKeyed<Seen>(`${model.model} ${id}`, async (signal) => {
    const [image, tokens] = await Promise.all([
      loadImage(imageUrl(model.model, id)),
      loadTokens(model.query_model, id, signal),
    ]);
    return { id, image, tokens };
  });
  const place = `${at.model} ${at.layer} ${at.head}`;
  const attention = useKeyed(`${place} ${id} ${weight}`, async (signal) => ({
    id,
    loaded: await loadAttention(at, id, { weight }, signal),
  }));
  useNoted(note, "image", seen.isLoading);
  useNoted(note, "attention", attention.isLoading);
  const hideSpecial = state.hideSpecial.value;
  // Another head's stays until this one's is there; another image's never does.
  const own = attention.value?.id === id ? attention.value.loaded : null;
  const weights = useMemo(() => {
    const hiding = { hidden: [], hideSpecial, hideFirst: false };
    return own && arrange(own, hiding).weights;
  }, [own, hideSpecial]);
  const failed = seen.problem ? seen : attention;
  return (
    <div class="image-main">
      <div class="image-pane" data-outdated={attention.isLoading ? "yes" : undefined}>
        {failed.problem && <Problem problem={failed.problem} retry={failed.retry} />}
        {seen.value?.id === id && weights && (
          <Patches seen={seen.value} weights={weights} sequence={sequence} />
        )}
      </div>
      <div class="image-side">{props.children}</div>
    </div>
  );
}

function Patches(props: { seen: Seen; weights: Weights; sequence: SequenceRow }) {
  const { seen, weights, sequence } = props;
  const id = sequence.sequence_id;
  const lit = useLit(id);
  const side = state.patchKind.value;
  useEffect(() => {
    const point = state.point.peek(); // one clicked in another view may be of the other kind
    if (point?.sequenceId === id) change({ patchKind: point.kind });
  }, [id]);
  const least = state.threshold.value / 100;
  const { layer, whole, n } = useLayer(seen.tokens, weights, lit, state.arrows.value, least);
  const { grid, focus, heat } = layer;
  if (grid.nRows === 0) return <p class="sentence-note">This image has no patches.</p>;
  return (
    <>
      <div class="image-controls">
        <Choice
          label="A patch counts as"
          value={side}
          options={[
            { value: "query", label: "query: what it attends to" },
            { value: "key", label: "key: what attends to it" },
          ]}
          onChange={(patchKind) => {
            const point = state.point.peek();
            const isHere = point?.sequenceId === id;
            change({ patchKind, point: isHere ? { ...point, kind: patchKind } : point });
          }}
        />
        <FlowMenu whole={whole} n={n} />
      </div>
      <PatchPicture
        image={seen.image}
        layer={layer}
        sequenceId={id}
        side={side}
        text={nameImage(sequence)}
      />
      <Focus grid={grid} focus={focus} heat={heat} />
      <Others grid={grid} heat={heat} focus={focus} side={side} sequenceId={id} />
    </>
  );
}

/** What lies over the picture; `n` flows are strong enough, `whole` is the largest weight of all. */
function useLayer(
  tokens: readonly TokenRow[],
  weights: Weights,
  lit: Spot | null,
  choice: FlowChoice,
  part: number,
): { layer: PatchLayer; whole: number; n: number } {
  const grid = useMemo(() => makeGrid(tokens), [tokens]);
  const whole = useMemo(() => largestFlow(grid, weights), [grid, weights]);
  const found = useMemo(
    () => findFlows(grid, weights, choice, part * whole),
    [grid, weights, choice, part, whole],
  );
  const layer = useMemo(() => {
    const focus = toFocus(lit);
    const heat = focus && weightsOf(weights, focus.side, focus.position);
    const flows = focus ? ofFocus(found.flows, focus) : found.flows;
    return { grid, heat, focus, flows };
  }, [grid, weights, lit, found]);
  return { layer, whole, n: found.n };
}

function findFlows(
  grid: PatchGrid,
  weights: Weights,
  choice: FlowChoice,
  least: number,
): { flows: readonly Flow[]; n: number } {
  if (choice === "none") return { flows: [], n: 0 };
  if (choice === "all") return strongFlows(grid, weights, least, MOST_FLOWS);
  const flows = strongestFlows(grid, weights);
  return { flows: flows.sort((a, b) => b.weight - a.weight), n: flows.length };
}

interface PatchFocus {
  readonly position: number;
  readonly side: Kind;
}

function toFocus(lit: Spot | null): PatchFocus | null {
  if (lit === null) return null;
  if (lit.query !== null) return { position: lit.query, side: "query" };
  return lit.key === null ? null : { position: lit.key, side: "key" };
}

function ofFocus(flows: readonly Flow[], focus: PatchFocus): readonly Flow[] {
  return flows.filter((flow) => flow[focus.side] === focus.position);
}

function FlowMenu({ whole, n }: { whole: number; n: number }) {
  return (
    <>
      <Choice
        label="Arrows"
        value={state.arrows.value}
        options={[
          { value: "none", label: "none" },
          { value: "strongest", label: "each patch to its strongest" },
          { value: "all", label: "all strong flows" },
        ]}
        onChange={(arrows) => change({ arrows })}
      />
      {state.arrows.value === "all" && (
        <label class="image-threshold">
          At least {showWeight((state.threshold.value / 100) * whole)}
          <input
            type="range"
            min={2}
            max={100}
            value={state.threshold.value}
            onInput={(event) => change({ threshold: Number(event.currentTarget.value) })}
          />
          <span>
            {n.toLocaleString("en")} {n === 1 ? "flow" : "flows"}
            {n > MOST_FLOWS && `, the strongest ${MOST_FLOWS.toLocaleString("en")} drawn`}
          </span>
        </label>
      )}
    </>
  );
}

function Focus(props: {
  grid: PatchGrid;
  focus: PatchFocus | null;
  heat: readonly number[] | null;
}) {
  const { grid, focus, heat } = props;
  const token = focus ? grid.byPosition.get(focus.position) : undefined;
  const colour = token ? colourOf(token) : null;
  return (
    <div class="image-focus">
      <p id="image-focus" aria-live="polite">
        {focus && heat
          ? describePatch(grid, focus.side, focus.position, heat)
          : `${grid.nRows} × ${grid.nCols} patches; point at one, or click it to keep it in focus.`}
      </p>
      {heat && (
        <p class="sentence-hint">
          <span class="image-scale" style={{ background: SCALE }} aria-hidden="true" /> 0 to{" "}
          {showWeight(largestHeat(grid, heat))}, the strongest patch
        </p>
      )}
      {colour && (
        <p class="sentence-hint">
          <span class="image-swatch" style={{ background: colour }} aria-hidden="true" /> mean
          colour {colour}
        </p>
      )}
    </div>
  );
}

/** CLS and registers, which have no place on the picture. */
function Others(props: {
  grid: PatchGrid;
  heat: readonly number[] | null;
  focus: PatchFocus | null;
  side: Kind;
  sequenceId: number;
}) {
  const { grid, heat, focus, side, sequenceId } = props;
  if (grid.others.length === 0) return null;
  return (
    <ul class="image-others" aria-label="Tokens without a place on the picture">
      {grid.others.map(({ position }) => (
        <li key={position}>
          <button
            type="button"
            aria-pressed={focus?.position === position}
            onPointerEnter={() => hover(toSpot(side, position))}
            onPointerLeave={() => hover(null)}
            onFocus={() => hover(toSpot(side, position))}
            onBlur={() => hover(null)}
            onClick={() => pinPatch(side, sequenceId, position)}
          >
            {namePatch(grid, position)} {heat && showWeight(heat[position] ?? 0)}
          </button>
        </li>
      ))}
    </ul>
  );
}
