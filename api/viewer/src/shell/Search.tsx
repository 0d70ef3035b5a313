import { useEffect, useId, useRef } from "preact/hooks";
import { hits, select } from "../contract/selection";
import { change, state } from "../contract/state";
import { hasImages } from "./chosen";
import { isSearching, MOST_HITS, type SearchCount, searchCount, searchProblem } from "./searching";
import { useShortcut } from "./shortcuts";
import { Choice, Toggle } from "./Toolbar";

const TYPING_MS = 350;

const MATCHES = [
  { value: "exact", label: "exactly" },
  { value: "prefix", label: "begins with" },
  { value: "substring", label: "contains" },
] as const;

/** Searches tokens, and labels of images, in the whole corpus; what is found lights up in every view. */
export function Search() {
  const field = useRef<HTMLInputElement>(null);
  const typing = useRef(0);
  const id = useId();
  const what = hasImages.value ? "Search labels and tokens" : "Search tokens";
  useShortcut("/", what, () => field.current?.focus());
  useEffect(() => () => clearTimeout(typing.current), []);
  const text = state.search.value;
  useEffect(() => {
    if (field.current && document.activeElement !== field.current) field.current.value = text;
  }, [text]);
  const search = () => {
    clearTimeout(typing.current);
    change({ search: field.current?.value.trim() ?? "" });
  };
  const clear = () => {
    if (field.current) field.current.value = "";
    search();
    if (state.selector.value?.by === "search") select(null, null);
    field.current?.focus();
  };
  return (
    <search class="search">
      <form
        onSubmit={(event) => {
          event.preventDefault();
          search();
        }}
      >
        <label class="unseen" for={id}>
          {what}
        </label>
        <input
          id={id}
          ref={field}
          type="search"
          placeholder={what}
          autocomplete="off"
          spellcheck={false}
          maxLength={1000}
          dir="auto"
          defaultValue={text}
          onInput={() => {
            clearTimeout(typing.current);
            typing.current = window.setTimeout(search, TYPING_MS);
          }}
          onKeyDown={(event) => {
            if (event.key !== "Escape") return;
            event.preventDefault();
            clear();
          }}
        />
        <Choice
          label="Match"
          value={state.match.value}
          options={MATCHES}
          onChange={(match) => change({ match })}
        />
        <Toggle
          label="Any case"
          value={state.anyCase.value}
          onChange={(anyCase) => change({ anyCase })}
        />
      </form>
      <Found clear={clear} />
    </search>
  );
}

function Found({ clear }: { clear: () => void }) {
  const count = searchCount.value;
  const problem = searchProblem.value;
  return (
    <span class="search-found">
      <output dir="auto">
        {problem ? `Not found out: ${problem.message}` : writeCount(count, isSearching.value)}
      </output>
      {hits.value && hits.value.size > 0 && state.selector.value?.by !== "search" && (
        <button type="button" class="quiet" onClick={() => select({ by: "search" }, hits.value)}>
          Select them
        </button>
      )}
      {state.search.value !== "" && (
        <button type="button" class="quiet" onClick={clear}>
          Clear
        </button>
      )}
    </span>
  );
}

/** `118 in the corpus, 36 on this map`. */
export function writeCount(count: SearchCount | null, isAsking: boolean): string {
  if (isAsking) return "Searching…";
  if (count === null) return "";
  if (count.inCorpus === 0) return "None in the corpus";
  const parts = [`${count.inCorpus.toLocaleString("en")} in the corpus`];
  if (count.shown !== null) {
    const among =
      count.among === null ? "on this map" : `of the first ${count.among.toLocaleString("en")}`;
    parts.push(`${count.shown.toLocaleString("en")} points ${among}`);
  }
  if (count.hasMore) parts.push(`the first ${MOST_HITS.toLocaleString("en")} lit`);
  return parts.join(", ");
}
