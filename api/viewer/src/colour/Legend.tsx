/** What the colours of points mean. */

import { useEffect, useRef } from "preact/hooks";
import { writeNumber } from "./colourings";
import type { CategoryLegend, Legend as LegendOf, NumberLegend } from "./scale";
import { OTHERS } from "./scale";
import "../styles/colour.css";

/**
 * A legend; `onPick` gets the label of an entry that the user chose, `picked` is the one chosen.
 *
 * Of two side by side, `name` tells them apart for those who do not see where they are.
 */
export function Legend(props: {
  legend: LegendOf;
  name?: string | undefined;
  picked?: string;
  onPick?: (label: string) => void;
}) {
  const { legend, name, picked, onPick } = props;
  const of = name ? `, ${name}` : "";
  return (
    <section class="colour-legend" aria-label={`Legend: ${legend.title}${of}`}>
      <p class="colour-title" title={legend.title}>
        {legend.title}
      </p>
      {legend.kind === "categories" ? (
        <Categories legend={legend} picked={picked} onPick={onPick} />
      ) : (
        <Numbers legend={legend} />
      )}
    </section>
  );
}

function Categories(props: {
  legend: CategoryLegend;
  picked: string | undefined;
  onPick: ((label: string) => void) | undefined;
}) {
  const { legend, picked, onPick } = props;
  return (
    <ul class="colour-entries">
      {legend.entries.map(({ label, css, n }) => (
        <Entry
          key={label}
          label={label}
          css={css}
          n={n}
          isPicked={label === picked}
          onPick={onPick}
        />
      ))}
      {legend.nOthers > 0 && (
        <Entry label={OTHERS} css={null} n={legend.nOthers} isPicked={false} onPick={undefined} />
      )}
    </ul>
  );
}

function Entry(props: {
  label: string;
  css: string | null;
  n: number;
  isPicked: boolean;
  onPick: ((label: string) => void) | undefined;
}) {
  const { label, css, n, isPicked, onPick } = props;
  const content = (
    <>
      <span
        class={css ? "colour-dot" : "colour-dot colour-dot-others"}
        style={css ? { backgroundColor: css } : {}}
        aria-hidden="true"
      />
      <bdi class="colour-label">{showText(label)}</bdi>
      <span class="colour-count">{n.toLocaleString("en")}</span>
    </>
  );
  return (
    <li>
      {onPick ? (
        <button
          type="button"
          class="colour-entry"
          aria-pressed={isPicked}
          onClick={() => onPick(label)}
        >
          {content}
        </button>
      ) : (
        <span class="colour-entry">{content}</span>
      )}
    </li>
  );
}

/** White space made visible, as tokens can be nothing else. */
function showText(text: string): string {
  if (text.trim() !== "") return text;
  return text === ""
    ? "(empty)"
    : text.replaceAll("\n", "⏎").replaceAll("\t", "⇥").replaceAll(" ", "␠");
}

function Numbers({ legend }: { legend: NumberLegend }) {
  const { low, high, css, nMissing, isClipped } = legend;
  return (
    <>
      {Number.isNaN(low) ? (
        <p class="colour-note">no point here has a value</p>
      ) : (
        <>
          <Gradient css={css} />
          <p class="colour-range">
            <span>{`${isClipped ? "≤ " : ""}${writeNumber(low)}`}</span>
            <span>{`${isClipped ? "≥ " : ""}${writeNumber(high)}`}</span>
          </p>
        </>
      )}
      {nMissing > 0 && (
        <p class="colour-note">
          <span class="colour-dot colour-dot-others" aria-hidden="true" />
          {`no value: ${nMissing.toLocaleString("en")}`}
        </p>
      )}
    </>
  );
}

const STEP_PIXELS = 12;

function Gradient({ css }: { css: readonly string[] }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  useEffect(() => {
    const context = canvas.current?.getContext("2d");
    if (!context) return; // the numbers beside it say the range
    const gradient = context.createLinearGradient(0, 0, css.length * STEP_PIXELS, 0);
    css.forEach((colour, i) => {
      gradient.addColorStop(i / Math.max(1, css.length - 1), colour);
    });
    context.fillStyle = gradient;
    context.fillRect(0, 0, css.length * STEP_PIXELS, 1);
  }, [css]);
  return (
    <canvas
      ref={canvas}
      class="colour-gradient"
      width={css.length * STEP_PIXELS}
      height={1}
      role="img"
      aria-label="colours from low to high"
    />
  );
}
