import "../styles/sql.css";
import { type Signal, signal, useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { type Answer, askSql } from "../contract/client";
import { type Loaded, useLoaded } from "../contract/loading";
import { change, state } from "../contract/state";
import { Problem } from "../shell/Problem";
import { Busy } from "../shell/Toolbar";
import { trimStatement } from "./columns";
import { ResultTable } from "./ResultTable";
import { ResultUses } from "./ResultUses";
import { SchemaList } from "./SchemaList";

/** Rows of a result that are asked for and shown. */
const MOST_ROWS = 1_000;

/** An answer with the statement that it is the answer to. */
export interface Result extends Answer {
  readonly sql: string;
}

/** What is typed and not yet run; it outlives a look at another view. */
const draft = signal("");
/** The statement of the address that the draft began with. */
let taken = "";

/** One statement over the atlas, and its result. */
export function SqlView() {
  const round = useSignal(0);
  const box = useRef<HTMLTextAreaElement>(null);
  const sql = state.sql.value;
  // A step back or another link brings another statement.
  useEffect(() => {
    if (sql === taken) return;
    taken = sql;
    draft.value = sql;
  }, [sql]);
  const loaded = useLoaded<Result>(
    (signal) => {
      if (sql === "") return null;
      return askSql(sql, {}, signal, MOST_ROWS).then((answer) => ({ ...answer, sql }));
    },
    [sql, round.value],
  );
  const run = () => {
    round.value += 1;
    change({ sql: trimStatement(draft.value) });
  };
  return (
    <section class="sql-view" aria-label="SQL box" data-drawn={loaded.isLoading ? "no" : "yes"}>
      <div class="sql-ask">
        <SqlForm draft={draft} box={box} run={run} />
        <Busy isLoading={loaded.isLoading} what="the result" />
        <Outcome loaded={loaded} />
      </div>
      <SchemaList
        insert={(text) => insertAt(box.current, draft, text)}
        replace={(text) => {
          draft.value = text;
          box.current?.focus();
        }}
      />
    </section>
  );
}

function SqlForm(props: {
  draft: Signal<string>;
  box: { readonly current: HTMLTextAreaElement | null };
  run: () => void;
}) {
  const { draft, box, run } = props;
  return (
    <form
      class="sql-form"
      onSubmit={(event) => {
        event.preventDefault();
        run();
      }}
    >
      <label for="sql-text">SQL</label>
      <textarea
        id="sql-text"
        ref={box}
        class="sql-text"
        rows={7}
        spellcheck={false}
        autocomplete="off"
        placeholder="SELECT token, count(*) AS n FROM tokens GROUP BY token ORDER BY n DESC LIMIT 20"
        value={draft.value}
        onInput={(event) => {
          draft.value = event.currentTarget.value;
        }}
        onKeyDown={(event) => {
          if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
          event.preventDefault();
          run();
        }}
      />
      <div class="sql-run">
        <button type="submit" class="primary" disabled={draft.value.trim() === ""}>
          Run
        </button>
        <span class="sql-note">
          Ctrl+Enter. One statement of DuckDB's SQL, read only; 30 s at most.
        </span>
      </div>
    </form>
  );
}

function Outcome({ loaded }: { loaded: Loaded<Result> }) {
  const { value, problem, isLoading } = loaded;
  if (problem) return <Problem problem={problem} />;
  if (!value) {
    return isLoading ? null : (
      <p class="sql-note">Results appear here. Choose an example to begin.</p>
    );
  }
  return (
    <>
      <p role="status">
        {value.table.numRows.toLocaleString("en")} {value.table.numRows === 1 ? "row" : "rows"}
        {value.isTruncated && `: the first only, there are more. Aggregate, or add a LIMIT`}
      </p>
      <ResultUses result={value} />
      <ResultTable table={value.table} />
    </>
  );
}

/** Put a name where the cursor stands. */
function insertAt(box: HTMLTextAreaElement | null, draft: Signal<string>, text: string): void {
  const start = box?.selectionStart ?? draft.value.length;
  const end = box?.selectionEnd ?? start;
  draft.value = draft.value.slice(0, start) + text + draft.value.slice(end);
  if (!box) return;
  box.value = draft.value;
  box.focus();
  box.setSelectionRange(start + text.length, start + text.length);
}
