/** The attention of a sequence: text, lists with lines, matrix and average, hovered together. */

import type { ComponentChildren } from "preact";
import { useEffect, useMemo } from "preact/hooks";
import { loadAttention, loadMeanAttention } from "../contract/atlas";
import { useKeyed } from "../contract/keyed";
import type { ModelRow, SequenceRow } from "../contract/rows";
import { change, state } from "../contract/state";
import { headRow } from "../shell/chosen";
import { registerPicture } from "../shell/exporting";
import { nameHere } from "../shell/open_head";
import { Problem } from "../shell/Problem";
import { useShortcut } from "../shell/shortcuts";
import { AggregateMap } from "./AggregateMap";
import { type Arrangement, arrange, type Hiding, WINDOW } from "./arrangement";
import { countPositions } from "./averages";
import { type NoteBusy, useNoted } from "./busy_parts";
import { describeFocus } from "./describe_focus";
import { type Heat, HeatMap } from "./HeatMap";
import { hovered, type Spot } from "./hovering";
import { describeReach, makeReach, type Reach } from "./reach";
import { SentenceText } from "./SentenceText";
import { saveSentence } from "./sentence_picture";
import { TokenLists } from "./TokenLists";

/** All of a sequence in the head in sight; `children` stand below the maps. */
export function SentenceMain(props: {
  model: ModelRow;
  sequence: SequenceRow;
  note: NoteBusy;
  children: ComponentChildren;
}) {
  const { model, sequence, note } = props;
  const { attention, averages, shown } = useArranged(model, sequence, note);
  const isOutdated = attention.isLoading;
  const head = headRow.value;
  const reach = useMemo(() => makeReach(head), [head]);
  const lit = useLit(sequence.sequence_id);
  usePicture(isOutdated ? null : shown, reach, sequence);
  return (
    <div class="sentence-main">
      {shown && shown.queries.length > 0 && (
        <Texts model={model} sequence={sequence} shown={shown} lit={lit} note={note} />
      )}
      <div class="sentence-panes">
        <div class="sentence-pane" data-outdated={isOutdated ? "yes" : undefined}>
          {attention.problem && <Problem problem={attention.problem} retry={attention.retry} />}
          {shown && <Listing shown={shown} sequence={sequence} lit={lit} />}
        </div>
        <div class="sentence-side">
          <div class="sentence-pane sentence-maps">
            {shown && shown.queries.length > 0 && (
              <Matrix shown={shown} reach={reach} lit={lit} isOutdated={isOutdated} />
            )}
            {averages.problem && <Problem problem={averages.problem} retry={averages.retry} />}
            {averages.value && (
              <AggregateMap
                rows={averages.value}
                nTokens={Math.max(sequence.n_tokens, shown?.keys.length ?? 0)}
                isOutdated={averages.isLoading}
                hidesFirst={state.hideFirst.value}
                reach={reach}
                lit={lit}
              />
            )}
            {reach && <p class="sentence-hint">{describeReach(head)}</p>}
          </div>
          {props.children}
        </div>
      </div>
    </div>
  );
}

/**
 * What is loaded of a sequence in the head in sight, arranged as the state wants it.
 *
 * While another head loads, the former one's is kept; that of another sequence never is, since its
 * tokens would stand beside this one's text and be pinned under this one's id.
 */
function useArranged(model: ModelRow, sequence: SequenceRow, note: NoteBusy) {
  const id = sequence.sequence_id;
  const at = { model: model.model, layer: state.layer.value, head: state.head.value };
  const firstQuery = Math.max(0, state.firstQuery.value);
  const weight = state.weight.value;
  const place = `${at.model} ${at.layer} ${at.head}`;
  const attention = useKeyed(`${place} ${id} ${firstQuery} ${weight}`, async (signal) => ({
    id,
    loaded: await loadAttention(at, id, { weight, firstQuery, nQueries: WINDOW }, signal),
  }));
  const own = attention.value?.id === id ? attention.value.loaded : null;
  const most = countPositions(sequence.n_tokens);
  const averages = useKeyed(`${place} ${most}`, (signal) => loadMeanAttention(at, most, signal));
  useNoted(note, "attention", attention.isLoading);
  useNoted(note, "averages", averages.isLoading);
  const hiding: Hiding = {
    hidden: state.hidden.value,
    hideSpecial: state.hideSpecial.value,
    hideFirst: state.hideFirst.value,
  };
  const shown = useMemo(
    () => own && arrange(own, hiding),
    [own, hiding.hidden, hiding.hideSpecial, hiding.hideFirst],
  );
  return { attention, averages, shown };
}

/** What is in focus: what is hovered, else the point that was clicked, if it is of this sequence. */
export function useLit(sequenceId: number): Spot | null {
  const spot = hovered.value;
  const point = state.point.value;
  useShortcut("Escape", "Let the token kept in focus go", () => change({ point: null }));
  return useMemo(() => {
    if (spot || point?.sequenceId !== sequenceId) return spot;
    const isQuery = point.kind === "query";
    return { query: isQuery ? point.position : null, key: isQuery ? null : point.position };
  }, [spot, point, sequenceId]);
}

function Texts(props: {
  model: ModelRow;
  sequence: SequenceRow;
  shown: Arrangement;
  lit: Spot | null;
  note: NoteBusy;
}) {
  const { model, sequence, shown, lit, note } = props;
  const first = shown.queries[0]?.position ?? 0;
  const queries = { first, end: first + shown.queries.length };
  const isCross = model.query_model !== model.key_model;
  return (
    <div class="sentence-texts">
      <SentenceText
        title={isCross ? `Queries, ${model.query_model}` : "Text"}
        model={model.query_model}
        sequence={sequence}
        shown={queries}
        side="query"
        lit={lit}
        note={note}
      />
      {isCross && (
        <SentenceText
          title={`Keys, ${model.key_model}`}
          model={model.key_model}
          sequence={sequence}
          shown={shown.inside}
          side="key"
          lit={lit}
          note={note}
        />
      )}
    </div>
  );
}

function Listing(props: { shown: Arrangement; sequence: SequenceRow; lit: Spot | null }) {
  const { shown, sequence, lit } = props;
  if (shown.keys.length === 0) return <p class="sentence-note">This sequence has no tokens.</p>;
  const windows = <Windows shown={shown} n={Math.max(sequence.n_tokens, shown.queries.length)} />;
  if (shown.queries.length === 0) return windows;
  return (
    <>
      {windows}
      <p class="sentence-focus" aria-live="polite">
        {describeFocus(shown, lit)}
      </p>
      <TokenLists shown={shown} sequenceId={sequence.sequence_id} lit={lit} />
    </>
  );
}

/** Steps along a sequence that is longer than what is shown at once. */
function Windows(props: { shown: Arrangement; n: number }) {
  const { shown, n } = props;
  const first = state.firstQuery.value;
  if (n <= WINDOW && first === 0) return null;
  const isBeyond = shown.queries.length === 0;
  const go = (firstQuery: number) => change({ firstQuery });
  return (
    <fieldset class="sentence-windows" aria-label="Part of the sequence">
      <button
        type="button"
        disabled={first === 0}
        onClick={() => go(isBeyond ? 0 : Math.max(0, first - WINDOW))}
      >
        {isBeyond ? "First queries" : "Previous queries"}
      </button>
      <span>
        {isBeyond
          ? `no query ${first}: the sequence has ${n}`
          : `queries ${first}–${first + shown.queries.length - 1} of ${n.toLocaleString("en")}`}
      </span>
      <button type="button" disabled={first + WINDOW >= n} onClick={() => go(first + WINDOW)}>
        Next queries
      </button>
    </fieldset>
  );
}

function Matrix(props: {
  shown: Arrangement;
  reach: Reach | null;
  lit: Spot | null;
  isOutdated: boolean;
}) {
  const { shown, reach, lit, isOutdated } = props;
  const heat = useMemo(() => toHeat(shown, reach), [shown, reach]);
  const n = `${shown.queries.length} queries by ${shown.keys.length} keys`;
  return (
    <figure class="sentence-figure sentence-matrix" data-outdated={isOutdated ? "yes" : undefined}>
      <h3>This sequence</h3>
      <HeatMap heat={heat} label={`Attention of this sequence, ${n}`} lit={lit} />
      <figcaption>Queries down, keys across; opacity is the square root of the weight.</figcaption>
    </figure>
  );
}

function toHeat(shown: Arrangement, reach: Reach | null): Heat {
  const firstQuery = shown.queries[0]?.position ?? 0;
  return { weights: shown.weights, nKeys: shown.keys.length, firstQuery, reach };
}

function usePicture(shown: Arrangement | null, reach: Reach | null, sequence: SequenceRow): void {
  const weight = state.weight.value;
  useEffect(() => {
    if (!shown) return;
    const hidden = shown.hidden.size > 0 ? ` · ${shown.hidden.size} keys hidden` : "";
    const weighed = weight === "none" ? "" : " · weighed by value norm";
    const caption = `${nameHere()} · sequence ${sequence.sequence_id}${weighed}${hidden}`;
    return registerPicture(() => saveSentence(shown, toHeat(shown, reach), caption));
  }, [shown, reach, sequence, weight]);
}
