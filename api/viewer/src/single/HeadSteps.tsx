/** Layer and head of the first pane: menus, and steps to the adjacent heads. */

import { state } from "../contract/state";
import { heads } from "../shell/chosen";
import { type Direction, nameHead, neighbourHead, openHead } from "../shell/open_head";
import { useShortcut } from "../shell/shortcuts";
import { Choice } from "../shell/Toolbar";

const STEPS: readonly { direction: Direction; sign: string; pressed: string; what: string }[] = [
  { direction: "left", sign: "←", pressed: "ArrowLeft", what: "Head before" },
  { direction: "right", sign: "→", pressed: "ArrowRight", what: "Head after" },
  { direction: "up", sign: "↑", pressed: "ArrowUp", what: "Same head in the layer before" },
  { direction: "down", sign: "↓", pressed: "ArrowDown", what: "Same head in the layer after" },
];

/** The head in sight, to be changed. */
export function HeadSteps() {
  const { layer, head } = { layer: state.layer.value, head: state.head.value };
  const layers = [...new Set([layer, ...heads.value.map((row) => row.layer)])];
  const ofLayer = heads.value.filter((row) => row.layer === layer).map((row) => row.head);
  return (
    <fieldset class="single-steps" aria-label="Head">
      <IndexChoice
        label="Layer"
        value={layer}
        of={layers}
        onChange={(next) => openHead({ layer: next, head: nearestHead(next, head) })}
      />
      <IndexChoice
        label="Head"
        value={head}
        of={[...new Set([head, ...ofLayer])]}
        onChange={(next) => openHead({ layer, head: next })}
      />
      {STEPS.map((step) => (
        <Step key={step.direction} {...step} />
      ))}
    </fieldset>
  );
}

/** The same head where a layer has it, else its last before. */
function nearestHead(layer: number, head: number): number {
  const among = heads.peek().filter((row) => row.layer === layer);
  return Math.max(0, ...among.map((row) => row.head).filter((one) => one <= head));
}

/** A menu of whole numbers, ascending. */
export function IndexChoice(props: {
  label: string;
  value: number;
  of: readonly number[];
  onChange: (value: number) => void;
}) {
  return (
    <Choice
      label={props.label}
      value={String(props.value)}
      options={[...props.of].sort((a, b) => a - b).map(String)}
      onChange={(value) => props.onChange(Number(value))}
    />
  );
}

function Step(props: (typeof STEPS)[number]) {
  const { direction, sign, pressed, what } = props;
  const next = neighbourHead(direction);
  const go = () => {
    const at = neighbourHead(direction);
    if (at) openHead(at);
  };
  useShortcut(pressed, what, go);
  const name = next ? nameHead(next) : "none";
  return (
    <button
      type="button"
      class="single-step"
      disabled={!next}
      onClick={go}
      title={`${what}: ${name} (arrow key)`}
    >
      <span aria-hidden="true">{sign} </span>
      <span class="single-step-name">{next ? name : "–"}</span>
      <span class="unseen">: {what}</span>
    </button>
  );
}
