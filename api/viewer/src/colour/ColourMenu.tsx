/** The menu of colourings, with a field for an SQL expression. */

import { useSignal } from "@preact/signals";
import { useEffect, useId } from "preact/hooks";
import { useLoaded } from "../contract/loading";
import type { ModelRow } from "../contract/rows";
import { change, state } from "../contract/state";
import { readColour } from "../sql/columns";
import { type ColourChoice, listColourings } from "./colourings";
import "../styles/colour.css";

const SQL = "sql:";
const COLUMN = "column:";

/** Chooses `state.colour` among what the model's points can show. */
export function ColourMenu({ model }: { model: ModelRow }) {
  const id = useId();
  const isWriting = useSignal(false);
  const listed = useLoaded((signal) => listColourings(model, signal), [model]);
  const { value: colour } = state.colour;
  const isSql = isWriting.value || colour.startsWith(SQL);
  const choose = (name: string) => {
    isWriting.value = name === SQL;
    if (name !== SQL) change({ colour: name });
  };
  return (
    <span class="colour-menu">
      <label for={id}>Colour</label>
      <select
        id={id}
        value={isSql ? SQL : colour}
        aria-busy={listed.isLoading}
        onChange={(event) => choose(event.currentTarget.value)}
      >
        <Groups choices={withCurrent(listed.value ?? [], isSql ? SQL : colour)} />
        <option value={SQL}>SQL expression…</option>
      </select>
      {isSql && <Expression />}
      {listed.problem && (
        <span class="colour-problem" role="alert">
          {`Not all colours could be listed: ${listed.problem.message}`}
        </span>
      )}
    </span>
  );
}

/** The one in the address is always a choice, also before the others are known. */
function withCurrent(choices: readonly ColourChoice[], name: string): readonly ColourChoice[] {
  if (name === SQL || choices.some((choice) => choice.name === name)) return choices;
  const column = name.startsWith(COLUMN)
    ? readColour(name.slice(COLUMN.length))?.column
    : undefined;
  const label = column === undefined ? name : `${column} of an SQL result`;
  return [...choices, { name, label, group: "Chosen" }];
}

function Groups({ choices }: { choices: readonly ColourChoice[] }) {
  const groups = [...new Set(choices.map(({ group }) => group))];
  return (
    <>
      {groups.map((group) => (
        <optgroup key={group} label={group}>
          {choices
            .filter((choice) => choice.group === group)
            .map(({ name, label }) => (
              <option key={name} value={name}>
                {label}
              </option>
            ))}
        </optgroup>
      ))}
    </>
  );
}

/** The expression is taken over by Enter, so that nothing half written is asked. */
function Expression() {
  const { value: colour } = state.colour;
  const current = colour.startsWith(SQL) ? colour.slice(SQL.length) : "";
  const draft = useSignal(current);
  useEffect(() => {
    draft.value = current;
  }, [current]);
  return (
    <form
      class="colour-expression"
      onSubmit={(event) => {
        event.preventDefault();
        if (draft.value.trim() !== "") change({ colour: SQL + draft.value.trim() });
      }}
    >
      <input
        type="text"
        aria-label="SQL expression over the columns of tokens"
        placeholder="vocab_id % 10"
        spellcheck={false}
        autocomplete="off"
        value={draft.value}
        onInput={(event) => {
          draft.value = event.currentTarget.value;
        }}
      />
      <button type="submit">Colour</button>
    </form>
  );
}
