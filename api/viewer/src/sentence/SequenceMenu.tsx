/** The sequence in sight: the one before, the one after, and any by its id. */

import { useSignal } from "@preact/signals";
import { useKeyed } from "../contract/keyed";
import type { SequenceRow } from "../contract/rows";
import { useShortcut } from "../shell/shortcuts";
import { goTo, loadNeighbours, type Neighbours } from "./chosen_sequence";

/** Previous, next, `12 of 4,334`, and a field for an id; `what` is `sequence` or `image`. */
export function SequenceMenu(props: { model: string; sequence: SequenceRow | null; what: string }) {
  const { model, what } = props;
  const id = props.sequence?.sequence_id ?? null;
  const loaded = useKeyed(id === null ? null : `${model} ${id}`, (signal) =>
    loadNeighbours(model, id ?? 0, signal),
  );
  const near = loaded.problem ? null : loaded.value;
  return (
    <fieldset class="sentence-sequence-menu" aria-label={`Choice of ${what}`}>
      <StepButton sign="‹" pressed="[" label={`Previous ${what}`} to={near?.before} />
      <span class="sentence-rank">{describeRank(near, loaded.problem)}</span>
      <StepButton sign="›" pressed="]" label={`Next ${what}`} to={near?.after} />
      <IdField id={id} what={what} />
    </fieldset>
  );
}

function describeRank(near: Neighbours | null, problem: Error | null): string {
  if (problem) return `its neighbours are not known: ${problem.message}`;
  return near === null
    ? "…"
    : `${near.rank.toLocaleString("en")} of ${near.n.toLocaleString("en")}`;
}

function StepButton(props: {
  sign: string;
  pressed: string;
  label: string;
  to: number | null | undefined;
}) {
  const { to, label, pressed } = props;
  const isAtEnd = to === null || to === undefined;
  const step = () => {
    if (!isAtEnd) goTo(to);
  };
  useShortcut(pressed, label, step);
  return (
    <button
      type="button"
      class="sentence-arrow"
      disabled={isAtEnd}
      aria-label={label}
      title={`${label} (${pressed})`}
      onClick={step}
    >
      {props.sign}
    </button>
  );
}

function IdField(props: { id: number | null; what: string }) {
  const problem = useSignal("");
  const go = (event: SubmitEvent) => {
    event.preventDefault();
    const form = event.currentTarget as HTMLFormElement;
    const text = String(new FormData(form).get("id") ?? "").trim();
    const id = Number(text);
    const isId = /^\d+$/.test(text) && Number.isSafeInteger(id);
    problem.value = isId ? "" : "an id is a whole number";
    if (isId) goTo(id);
  };
  return (
    <form class="sentence-id" onSubmit={go}>
      <label>
        Id{" "}
        <input
          name="id"
          key={props.id ?? ""}
          inputMode="numeric"
          autocomplete="off"
          size={12}
          defaultValue={props.id === null ? "" : String(props.id)}
          aria-label={`Id of the ${props.what}`}
        />
      </label>
      <button type="submit">Go</button>
      <span class="sentence-id-problem" role="alert">
        {problem.value}
      </span>
    </form>
  );
}
