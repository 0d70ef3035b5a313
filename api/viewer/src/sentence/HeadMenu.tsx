/** The menus of layer and head, with steps to the adjacent heads. */

import type { ModelRow } from "../contract/rows";
import { change, state } from "../contract/state";
import { heads } from "../shell/chosen";
import { type Direction, neighbourHead } from "../shell/open_head";
import { useShortcut } from "../shell/shortcuts";
import { Choice } from "../shell/Toolbar";
import "../styles/sentence.css";

const ARROWS: readonly { direction: Direction; sign: string; pressed: string; label: string }[] = [
  { direction: "up", sign: "↑", pressed: "Shift+ArrowUp", label: "Head in the layer before" },
  { direction: "down", sign: "↓", pressed: "Shift+ArrowDown", label: "Head in the layer after" },
  { direction: "left", sign: "←", pressed: "Shift+ArrowLeft", label: "Head before" },
  { direction: "right", sign: "→", pressed: "Shift+ArrowRight", label: "Head after" },
];

/** Layer, head, and an arrow to each adjacent head that the atlas has. */
export function HeadMenu(props: { model: ModelRow }) {
  const layer = state.layer.value;
  const rows = heads.value;
  const layers = rows.length > 0 ? distinct(rows.map((row) => row.layer)) : [layer];
  const inLayer = rows.filter((row) => row.layer === layer).map((row) => row.head);
  return (
    <fieldset class="sentence-head-menu" aria-label={`Head of ${props.model.model}`}>
      <NumberChoice
        label="Layer"
        value={layer}
        of={layers}
        onChange={(next) => change({ layer: next, head: findHead(next) })}
      />
      <NumberChoice
        label="Head"
        value={state.head.value}
        of={inLayer.length > 0 ? inLayer : [state.head.value]}
        onChange={(head) => change({ head })}
      />
      {ARROWS.map((arrow) => (
        <ArrowButton key={arrow.direction} {...arrow} />
      ))}
    </fieldset>
  );
}

/** The head in sight if the layer has it, else its first. */
function findHead(layer: number): number {
  const inLayer = heads.peek().filter((row) => row.layer === layer);
  const same = inLayer.find((row) => row.head === state.head.peek());
  return (same ?? inLayer[0])?.head ?? 0;
}

function distinct(values: readonly number[]): number[] {
  return [...new Set(values)].sort((a, b) => a - b);
}

function NumberChoice(props: {
  label: string;
  value: number;
  of: readonly number[];
  onChange: (value: number) => void;
}) {
  return (
    <Choice
      label={props.label}
      value={String(props.value)}
      options={props.of.map(String)}
      onChange={(value) => props.onChange(Number(value))}
    />
  );
}

function ArrowButton(props: {
  direction: Direction;
  sign: string;
  pressed: string;
  label: string;
}) {
  const { direction, label, pressed } = props;
  const next = neighbourHead(direction);
  const step = () => {
    const at = neighbourHead(direction);
    if (at) change(at);
  };
  useShortcut(pressed, label, step);
  return (
    <button
      type="button"
      class="sentence-arrow"
      disabled={next === null}
      aria-label={label}
      title={`${label} (${pressed.replace("Shift+Arrow", "Shift + ")})`}
      onClick={step}
    >
      {props.sign}
    </button>
  );
}
