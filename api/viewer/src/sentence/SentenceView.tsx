/** One sequence in one head: tokens and lines, its matrix, the average, and all other heads. */

import { useEffect } from "preact/hooks";
import type { Keyed } from "../contract/keyed";
import type { ModelRow, SequenceRow } from "../contract/rows";
import { change, state } from "../contract/state";
import { hasImages, isListing, model } from "../shell/chosen";
import { HeadMenu } from "../shell/HeadMenu";
import { Problem } from "../shell/Problem";
import { Busy, Choice, Toggle, Toolbar } from "../shell/Toolbar";
import { useBusyParts } from "./busy_parts";
import { goTo, useSequence } from "./chosen_sequence";
import { HeadStrip } from "./HeadStrip";
import { hover } from "./hovering";
import { SentenceMain } from "./SentenceMain";
import { SequenceMenu } from "./SequenceMenu";
import "../styles/sentence.css";

/** Sentence View of what the state names. */
export function SentenceView() {
  const row = model.value;
  if (!row) return <section class="sentence-view" data-drawn={isListing.value ? "no" : "yes"} />;
  if (hasImages.value) return <OnlyImages model={row} />;
  return <SentenceOf key={row.model} model={row} />;
}

function OnlyImages(props: { model: ModelRow }) {
  return (
    <section class="sentence-view" data-drawn="yes">
      <div class="sentence-note">
        <p>The sequences of {props.model.model} are images: Image View shows their attention.</p>
        <button type="button" onClick={() => change({ view: "image" })}>
          Image View
        </button>
      </div>
    </section>
  );
}

function SentenceOf(props: { model: ModelRow }) {
  const row = props.model;
  const sequence = useSequence(row.model);
  const { hasBusy, note } = useBusyParts("attention");
  useEffect(() => () => hover(null), []);
  const shown = sequence.value;
  const isBusy = sequence.isLoading || (shown !== null && hasBusy);
  return (
    <section class="sentence-view" data-drawn={isBusy ? "no" : "yes"}>
      <Toolbar label="Head, sequence and weights">
        <HeadMenu />
        <SequenceMenu model={row.model} sequence={shown} what="sequence" />
        <Weighing />
      </Toolbar>
      <Busy isLoading={isBusy} what="attention" />
      <Absent sequence={sequence} model={row} />
      {shown && !sequence.problem && (
        <SentenceMain model={row} sequence={shown} note={note}>
          <HeadStrip model={row} sequenceId={shown.sequence_id} note={note} />
        </SentenceMain>
      )}
    </section>
  );
}

function Weighing() {
  const nHidden = state.hidden.value.length;
  return (
    <>
      <Toggle
        label="Hide special tokens"
        value={state.hideSpecial.value}
        onChange={(hideSpecial) => change({ hideSpecial })}
      />
      <Toggle
        label="Hide first token"
        value={state.hideFirst.value}
        onChange={(hideFirst) => change({ hideFirst })}
      />
      <Choice
        label="Weight"
        value={state.weight.value}
        options={[
          { value: "none", label: "attention" },
          { value: "value_norm", label: "attention × value norm" },
        ]}
        onChange={(weight) => change({ weight })}
      />
      {nHidden > 0 && (
        <button type="button" onClick={() => change({ hidden: [] })}>
          Show {nHidden} hidden {nHidden === 1 ? "key" : "keys"}
        </button>
      )}
    </>
  );
}

/** Why there is no sequence, with a way back. */
export function Absent(props: { sequence: Keyed<SequenceRow>; model: ModelRow }) {
  const { problem, isLoading, value, retry } = props.sequence;
  if (problem) {
    return (
      <div class="sentence-note">
        <Problem problem={problem} retry={retry} />
        <button type="button" onClick={() => goTo(-1)}>
          Show the first of {props.model.model}
        </button>
      </div>
    );
  }
  if (value || isLoading) return null;
  return <p class="sentence-note">{props.model.model} has no sequences yet.</p>;
}
