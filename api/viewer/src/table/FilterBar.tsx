import { useSignal } from "@preact/signals";
import { useEffect, useId, useRef } from "preact/hooks";
import { change, state } from "../contract/state";
import { Choice, Toolbar } from "../shell/Toolbar";
import {
  addCondition,
  COLUMNS,
  describeCondition,
  operatorsOf,
  TOKEN,
  takesValue,
  writeCondition,
} from "./filters";

const REST_MS = 300;

/** What narrows the table: a text, and conditions on columns, labels and tokens. */
export function FilterBar({ labels }: { labels: readonly string[] }) {
  return (
    <Toolbar label="Filters">
      <TextFilter />
      <ConditionForm labels={labels} />
      <ul class="table-conditions" aria-label="Conditions">
        {state.filters.value.map((text) => (
          <li key={text}>
            <span dir="auto">{describeCondition(text)}</span>
            <button
              type="button"
              aria-label={`Remove ${describeCondition(text)}`}
              onClick={() => setFilters(state.filters.value.filter((one) => one !== text))}
            >
              ×
            </button>
          </li>
        ))}
      </ul>
    </Toolbar>
  );
}

function setFilters(filters: readonly string[]): void {
  change({ filters, cursor: "" });
}

function TextFilter() {
  const id = useId();
  const draft = useSignal(state.contains.value);
  const timer = useRef(0);
  useEffect(() => {
    draft.value = state.contains.value;
  }, [state.contains.value]);
  useEffect(() => () => clearTimeout(timer.current), []);
  const apply = (text: string) => {
    clearTimeout(timer.current);
    // The page in sight is of another question.
    if (text !== state.contains.value) change({ contains: text, cursor: "" });
  };
  return (
    <span class="choice">
      <label for={id}>Text contains</label>
      <input
        id={id}
        type="search"
        dir="auto"
        value={draft.value}
        onInput={(event) => {
          const text = event.currentTarget.value;
          draft.value = text;
          clearTimeout(timer.current);
          timer.current = window.setTimeout(() => apply(text), REST_MS);
        }}
        onKeyDown={(event) => event.key === "Enter" && apply(event.currentTarget.value)}
      />
    </span>
  );
}

function ConditionForm({ labels }: { labels: readonly string[] }) {
  const id = useId();
  const column = useSignal<string>("n_tokens");
  const operator = useSignal(">");
  const value = useSignal("");
  const columns = [TOKEN, ...COLUMNS, ...labels.map((name) => `label.${name}`)];
  const operators = operatorsOf(column.value);
  const chosen = operators.includes(operator.value) ? operator.value : (operators[0] ?? "=");
  const isReady = !takesValue(chosen) || value.value !== "";
  const add = (event: Event) => {
    event.preventDefault();
    if (!isReady) return;
    const text = writeCondition({ column: column.value, operator: chosen, value: value.value });
    setFilters(addCondition(state.filters.value, text));
    value.value = "";
  };
  return (
    <form class="table-condition" onSubmit={add}>
      <Choice
        label="Column"
        value={column.value}
        options={columns}
        onChange={(name) => {
          column.value = name;
        }}
      />
      <Choice
        label="is"
        value={chosen}
        options={operators.map((name) => ({ value: name, label: name.replace("_", " ") }))}
        onChange={(name) => {
          operator.value = name;
        }}
      />
      {takesValue(chosen) && (
        <span class="choice">
          <label for={id} class="unseen">
            Value
          </label>
          <input
            id={id}
            dir="auto"
            placeholder={column.value === TOKEN ? "token as it is spelt" : "value"}
            value={value.value}
            onInput={(event) => {
              value.value = event.currentTarget.value;
            }}
          />
        </span>
      )}
      <button type="submit" disabled={!isReady}>
        Add filter
      </button>
    </form>
  );
}
