import "../styles/table.css";
import { useSignal } from "@preact/signals";
import { useMemo } from "preact/hooks";
import { loadSequences } from "../contract/atlas";
import { type Loaded, useLoaded } from "../contract/loading";
import type { ModelRow, Page, SequenceRow } from "../contract/rows";
import { hits, selection } from "../contract/selection";
import { change, state } from "../contract/state";
import { listedVersion, map, model } from "../shell/chosen";
import { Problem } from "../shell/Problem";
import { Busy } from "../shell/Toolbar";
import { say } from "../shell/toasts";
import { type Asked, countAmong, loadSequencesOfMap, narrow } from "./counts";
import { FilterBar } from "./FilterBar";
import { listLabels, splitConditions, turnSort } from "./filters";
import { findTrail, loadPage, noteNext } from "./pages";
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
  const round = useSignal(0);
  const cursor = state.cursor.value;
  const sort = state.sort.value ? [state.sort.value] : [];
  const loaded = useLoaded<Page<SequenceRow>>(
    (signal) => {
      const load = (from: string) => {
        const page = { sort, limit: ROWS_A_PAGE, ...(from ? { cursor: from } : {}) };
        return loadSequences(row.query_model, { ...narrow(asked), ...page }, signal);
      };
      return loadPage(cursor, load, () => goToFirst(signal));
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
              onSort={(column) => change({ sort: turnSort(state.sort.value, column), cursor: "" })}
            />
          )}
          <Pages loaded={loaded} question={question} />
        </>
      )}
    </section>
  );
}

function readAsked(): Asked {
  const { filter, token } = splitConditions(state.filters.value);
  return { contains: state.contains.value || undefined, filter, token };
}

/** The link's page is of a former version of the atlas: the first one is shown in its place. */
function goToFirst(aborted: AbortSignal): void {
  if (aborted.aborted) return;
  change({ cursor: "" });
  say("That page was of a former version of the atlas: this is the first one.");
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

function Pages(props: { loaded: Loaded<Page<SequenceRow>>; question: string }) {
  const { loaded, question } = props;
  const cursor = state.cursor.value;
  const trail = findTrail(question, cursor);
  const page = loaded.value;
  if (!page) return null;
  const next = page.next;
  const goOn = () => {
    if (next === null) return;
    noteNext(question, cursor, next);
    change({ cursor: next });
  };
  return (
    <nav class="table-pages" aria-label="Pages">
      <button
        type="button"
        disabled={cursor === "" || loaded.isLoading}
        onClick={() => change({ cursor: trail?.at(-2) ?? "" })}
      >
        {trail === null ? "First page" : "Previous"}
      </button>
      <span>{loaded.isLoading ? "Loading…" : writeRange(page, trail)}</span>
      <button type="button" disabled={next === null || loaded.isLoading} onClick={goOn}>
        Next
      </button>
    </nav>
  );
}

/** `51–100 of 720`; where a link led to the page it is not known which rows are before. */
function writeRange(page: Page<SequenceRow>, trail: readonly string[] | null): string {
  if (page.n_rows === 0) return "No sequence matches: remove a filter.";
  const all = write(page.n_matches ?? page.n_rows);
  if (trail === null) return `${write(page.n_rows)} of ${all}`;
  const first = trail.length * ROWS_A_PAGE;
  return `${write(first + 1)}–${write(first + page.n_rows)} of ${all}`;
}
