/** Layer and head in sight: menus, and steps to the adjacent heads; the same in every view. */

import { state } from "../contract/state";
import { heads } from "./chosen";
import { type Direction, nameHead, neighbourHead, openHead } from "./open_head";
import { useShortcut } from "./shortcuts";
import { Choice } from "./Toolbar";

interface StepOf {
  readonly direction: Direction;
  readonly sign: string;
  readonly key: string;
  readonly what: string;
}

const STEPS: readonly StepOf[] = [
  { direction: "left", sign: "←", key: "ArrowLeft", what: "Head before" },
  { direction: "right", sign: "→", key: "ArrowRight", what: "Head after" },
  { direction: "up", sign: "↑", key: "ArrowUp", what: "Same head in the layer before" },
  { direction: "down", sign: "↓", key: "ArrowDown", what: "Same head in the layer after" },
];

/**
 * The head in sight, to be changed; the view stays.
 *
 * Shift and an arrow key step everywhere; without Shift only where `hasPlainKeys`, as other views
 * need those keys themselves. With `hasNames` each step says where it leads.
 */
export function HeadMenu(props: { hasNames?: boolean; hasPlainKeys?: boolean }) {
  const { layer, head } = { layer: state.layer.value, head: state.head.value };
  const ofLayer = heads.value.filter((row) => row.layer === layer).map((row) => row.head);
  return (
    <fieldset class="head-menu" aria-label="Head">
      <NumberChoice
        label="Layer"
        value={layer}
        of={heads.value.map((row) => row.layer)}
        onChange={(next) => go({ layer: next, head: nearestHead(next, head) })}
      />
      <NumberChoice
        label="Head"
        value={head}
        of={ofLayer}
        onChange={(next) => go({ layer, head: next })}
      />
      {STEPS.map((step) => (
        <Step key={step.direction} step={step} hasName={props.hasNames ?? false} />
      ))}
      {props.hasPlainKeys &&
        STEPS.map((step) => <StepKey key={step.direction} step={step} pressed={step.key} />)}
    </fieldset>
  );
}

function go(at: { layer: number; head: number }): void {
  openHead(at, state.view.peek());
}

function goTo(direction: Direction): void {
  const at = neighbourHead(direction);
  if (at) go(at);
}

/** The head of a layer whose number is nearest; the same where the layer has it. */
function nearestHead(layer: number, head: number): number {
  const among = heads.peek().filter((row) => row.layer === layer);
  const away = (one: number) => Math.abs(one - head);
  const [nearest] = among.map((row) => row.head).sort((a, b) => away(a) - away(b) || a - b);
  return nearest ?? 0;
}

/** A menu of whole numbers, each once and ascending; its value is always among them. */
export function NumberChoice(props: {
  label: string;
  value: number;
  of: readonly number[];
  onChange: (value: number) => void;
}) {
  const numbers = [...new Set([props.value, ...props.of])].sort((a, b) => a - b);
  return (
    <Choice
      label={props.label}
      value={String(props.value)}
      options={numbers.map(String)}
      onChange={(value) => props.onChange(Number(value))}
    />
  );
}

function StepKey({ step, pressed }: { step: StepOf; pressed: string }) {
  useShortcut(pressed, step.what, () => goTo(step.direction));
  return null;
}

function Step({ step, hasName }: { step: StepOf; hasName: boolean }) {
  const { direction, sign, key, what } = step;
  const next = neighbourHead(direction);
  const name = next ? nameHead(next) : "none";
  useShortcut(`Shift+${key}`, what, () => goTo(direction));
  return (
    <button
      type="button"
      class="head-step"
      disabled={!next}
      onClick={() => goTo(direction)}
      title={`${what}: ${name} (Shift + ${sign})`}
    >
      <span aria-hidden="true">{sign} </span>
      {hasName && <span class="head-step-name">{next ? name : "–"}</span>}
      <span class="unseen">
        {hasName ? ": " : ""}
        {what}
      </span>
    </button>
  );
}
