import "../styles/table.css";
import { type Signal, useSignal } from "@preact/signals";
import { useMemo } from "preact/hooks";
import { loadSequences } from "../contract/atlas";
import { type Loaded, useLoaded } from "../contract/loading";
import type { ModelRow, Page, SequenceRow } from "../contract/rows";
import { hits, selection } from "../contract/selection";
import { change, state } from "../contract/state";
import { listedVersion, map, model } from "../shell/chosen";
import { Problem } from "../shell/Problem";
import { Busy } from "../shell/Toolbar";
import { type Asked, countAmong, loadSequencesOfMap, narrow } from "./counts";
import { FilterBar } from "./FilterBar";
import { listLabels, splitConditions, turnSort } from "./filters";
import { SequenceRows } from "./SequenceRows";

const ROWS_A_PAGE = 50;

/** The sequences that the model read, narrowed and sorted. */
export function TableView() {
  const row = model.value;
  if (!row) {
    return (
      <section class="table-view" data-drawn="no">
        <Busy isLoading what="the models" />
      </section>
    );
  }
  return <ModelTable key={row.model} row={row} />;
}

function ModelTable({ row }: { row: ModelRow }) {
  const asked = readAsked();
  const question = JSON.stringify([asked, state.sort.value, listedVersion.value]);
  const cursors = useCursors(question);
  const round = useSignal(0);
  const cursor = cursors.value.list.at(-1) ?? "";
  const sort = state.sort.value ? [state.sort.value] : [];
  const loaded = useLoaded<Page<SequenceRow>>(
    (signal) => {
      const page = { sort, limit: ROWS_A_PAGE, ...(cursor ? { cursor } : {}) };
      return loadSequences(row.query_model, { ...narrow(asked), ...page }, signal);
    },
    [row.query_model, question, cursor, round.value],
  );
  const page = loaded.value;
  const labels = useMemo(() => listLabels(page?.rows ?? []), [page]);
  const retry = () => {
    round.value += 1;
  };
  return (
    <section class="table-view" aria-label="Sequences" data-drawn={loaded.isLoading ? "no" : "yes"}>
      <FilterBar labels={labels} />
      <Busy isLoading={loaded.isLoading} what="sequences" />
      {loaded.problem ? (
        <Problem problem={loaded.problem} retry={retry} />
      ) : (
        <>
          <Counts row={row} page={page} asked={asked} question={question} />
          {page && (
            <SequenceRows
              row={row}
              rows={page.rows}
              labels={labels}
              sort={state.sort.value}
              onSort={(column) => change({ sort: turnSort(state.sort.value, column) })}
            />
          )}
          <Pages loaded={loaded} cursors={cursors} />
        </>
      )}
    </section>
  );
}

function readAsked(): Asked {
  const { filter, token } = splitConditions(state.filters.value);
  return { contains: state.contains.value || undefined, filter, token };
}

interface Cursors {
  /** The question that these are pages of: a cursor of another one is of no use. */
  readonly question: string;
  readonly list: readonly string[];
}

function useCursors(question: string): Signal<Cursors> {
  const cursors = useSignal<Cursors>({ question, list: [] });
  if (cursors.peek().question !== question) cursors.value = { question, list: [] };
  return cursors;
}

function Counts(props: {
  row: ModelRow;
  page: Page<SequenceRow> | null;
  asked: Asked;
  question: string;
}) {
  const { row, page, asked, question } = props;
  const shown = map.value;
  const onMap = useLoaded(
    (signal) => {
      if (!shown) return null;
      const load = async () => {
        const ids = await loadSequencesOfMap(shown, signal);
        return { ids, n: await countAmong(row.query_model, asked, ids, signal) };
      };
      return load();
    },
    [shown?.map_id, question],
  );
  if (!page) return null;
  const nMatches = page.n_matches ?? page.n_rows;
  const parts = [`${write(nMatches)} of ${write(row.n_sequences)} sequences`];
  if (shown && onMap.value) {
    const n = onMap.value.n === null ? "some" : write(onMap.value.n);
    parts.push(`${n} on the map of L${shown.layer} H${shown.head}`);
  }
  if (selection.value) {
    const n = selection.value.sequences().length;
    parts.push(`${write(n)} with selected points`);
  }
  if (hits.value) parts.push(`${write(hits.value.sequences().length)} with hits of the search`);
  return (
    <div class="table-counts">
      <p role="status">{parts.join(" · ")}</p>
      {onMap.problem && <p class="table-note">Not counted on the map: {onMap.problem.message}</p>}
    </div>
  );
}

function write(n: number): string {
  return n.toLocaleString("en");
}

function Pages(props: { loaded: Loaded<Page<SequenceRow>>; cursors: Signal<Cursors> }) {
  const { loaded, cursors } = props;
  const { question, list } = cursors.value;
  const page = loaded.value;
  if (!page) return null;
  const first = list.length * ROWS_A_PAGE;
  const next = page.next;
  const show = (pages: readonly string[]) => {
    cursors.value = { question, list: pages };
  };
  const range =
    page.n_rows === 0
      ? "No sequence matches: remove a filter."
      : `${write(first + 1)}–${write(first + page.n_rows)} of ${write(page.n_matches ?? page.n_rows)}`;
  return (
    <nav class="table-pages" aria-label="Pages">
      <button
        type="button"
        disabled={list.length === 0 || loaded.isLoading}
        onClick={() => show(list.slice(0, -1))}
      >
        Previous
      </button>
      <span>{range}</span>
      <button
        type="button"
        disabled={next === null || loaded.isLoading}
        onClick={() => next !== null && show([...list, next])}
      >
        Next
      </button>
    </nav>
  );
}
