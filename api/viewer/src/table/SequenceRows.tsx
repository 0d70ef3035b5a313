import { useEffect, useMemo, useRef } from "preact/hooks";
import { imageUrl } from "../contract/atlas";
import type { ModelRow, SequenceRow } from "../contract/rows";
import { hits, selection } from "../contract/selection";
import { state } from "../contract/state";
import { openSequence } from "../shell/open_head";
import { selectSequences } from "../shell/select_sequences";
import { countBySequence, countTokensBySequence } from "./counts";

interface RowsProps {
  readonly row: ModelRow;
  readonly rows: readonly SequenceRow[];
  readonly labels: readonly string[];
  readonly sort: string;
  readonly onSort: (column: string) => void;
}

/** A page of sequences: each opens by its text, and is selected by its box. */
export function SequenceRows(props: RowsProps) {
  const { row, rows, labels } = props;
  const found = hits.value;
  const chosen = selection.value;
  const nHits = useMemo(() => countTokensBySequence(found), [found]);
  const nSelected = useMemo(() => countBySequence(chosen), [chosen]);
  const ids = rows.map((one) => one.sequence_id);
  const selected = readSelected();
  const counts = { found: found && nHits, selected: chosen && nSelected };
  return (
    // biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls is reached by keys
    <section class="table-scroll" tabIndex={0} aria-label="Rows">
      <table class="table-rows">
        <Head {...props} ids={ids} selected={selected} counts={counts} />
        <tbody>
          {rows.map((sequence) => (
            <Row
              key={sequence.sequence_id}
              model={row.query_model}
              sequence={sequence}
              labels={labels}
              isSelected={selected.has(sequence.sequence_id)}
              counts={counts}
            />
          ))}
        </tbody>
      </table>
    </section>
  );
}

interface RowCounts {
  readonly found: ReadonlyMap<number, number> | null;
  readonly selected: ReadonlyMap<number, number> | null;
}

const SORTED = [
  { column: "sequence_id", name: "sequence_id" },
  { column: "", name: "text" },
  { column: "n_tokens", name: "n_tokens" },
  { column: "corpus", name: "corpus" },
  { column: "row", name: "row" },
  { column: "truncated", name: "truncated" },
];

function Head(
  props: RowsProps & {
    ids: readonly number[];
    selected: ReadonlySet<number>;
    counts: RowCounts;
  },
) {
  const { labels, sort, onSort, ids, selected, counts } = props;
  const ofLabels = labels.map((name) => ({ column: `label.${name}`, name }));
  return (
    <thead>
      <tr>
        <th scope="col">
          <PageBox ids={ids} selected={selected} />
        </th>
        {[...SORTED, ...ofLabels].map(({ column, name }) => (
          <th key={column || name} scope="col" aria-sort={nameSort(sort, column)}>
            {column === "" ? (
              name
            ) : (
              <button type="button" class="quiet table-sort" onClick={() => onSort(column)}>
                {name}
                <span aria-hidden="true">
                  {sort === column ? " ▲" : sort === `-${column}` ? " ▼" : ""}
                </span>
              </button>
            )}
          </th>
        ))}
        {counts.found && <th scope="col">hits</th>}
        {counts.selected && <th scope="col">selected points</th>}
      </tr>
    </thead>
  );
}

function nameSort(sort: string, column: string) {
  if (column === "") return undefined;
  if (sort === column) return "ascending" as const;
  return sort === `-${column}` ? ("descending" as const) : ("none" as const);
}

/** The box of all rows of the page; in between where some are selected. */
function PageBox({ ids, selected }: { ids: readonly number[]; selected: ReadonlySet<number> }) {
  const box = useRef<HTMLInputElement>(null);
  const n = ids.filter((id) => selected.has(id)).length;
  useEffect(() => {
    if (box.current) box.current.indeterminate = n > 0 && n < ids.length;
  }, [n, ids.length]);
  return (
    <input
      ref={box}
      type="checkbox"
      aria-label="select all on this page"
      title="select all on this page"
      checked={n > 0 && n === ids.length}
      disabled={ids.length === 0}
      onChange={(event) => turnSequences(ids, event.currentTarget.checked)}
    />
  );
}

function Row(props: {
  model: string;
  sequence: SequenceRow;
  labels: readonly string[];
  isSelected: boolean;
  counts: RowCounts;
}) {
  const { model, sequence, labels, isSelected, counts } = props;
  const id = sequence.sequence_id;
  const open = () => openSequence(id);
  return (
    <tr data-selected={isSelected ? "yes" : "no"}>
      <td>
        <input
          type="checkbox"
          aria-label={`select sequence ${id}`}
          checked={isSelected}
          onChange={(event) => turnSequences([id], event.currentTarget.checked)}
        />
      </td>
      <td class="table-number">{id}</td>
      <td class="table-text">
        <button type="button" class="table-open" dir="auto" onClick={open}>
          {sequence.text === null ? (
            <img src={imageUrl(model, id)} alt={`sequence ${id}`} loading="lazy" />
          ) : (
            sequence.text || "(empty)"
          )}
        </button>
      </td>
      <td class="table-number">{sequence.n_tokens}</td>
      <td>{sequence.corpus}</td>
      <td class="table-number">{sequence.row}</td>
      <td>{sequence.truncated ? "yes" : "no"}</td>
      {labels.map((name) => (
        <td key={name} dir="auto">
          {sequence.labels?.[name] ?? ""}
        </td>
      ))}
      {counts.found && <td class="table-number">{counts.found.get(id) ?? 0}</td>}
      {counts.selected && <td class="table-number">{counts.selected.get(id) ?? 0}</td>}
    </tr>
  );
}

/** The sequences that are selected as such, not by some of their points. */
function readSelected(): ReadonlySet<number> {
  const selector = state.selector.value;
  return new Set(selector?.by === "sequence" ? selector.sequenceIds : []);
}

/** Select some sequences more, or less; their places are found from the selector. */
function turnSequences(ids: readonly number[], isMore: boolean): void {
  const next = new Set(readSelected());
  for (const id of ids) {
    if (isMore) next.add(id);
    else next.delete(id);
  }
  selectSequences([...next].sort((a, b) => a - b));
}
