import { useSignal } from "@preact/signals";
import { select } from "../contract/selection";
import { change } from "../contract/state";
import { model } from "../shell/chosen";
import { Choice } from "../shell/Toolbar";
import { say } from "../shell/toasts";
import { recognise, writeColour } from "./columns";
import type { Result } from "./SqlView";

/** What can be done with a result: select its points, colour by one of its columns. */
export function ResultUses({ result }: { result: Result }) {
  const uses = recognise(result.table.schema.fields.map((field) => field.name));
  const chosen = useSignal("");
  if (!uses.hasPlaces) {
    return (
      <p class="sql-note">
        A result with the columns sequence_id and position (and kind: query or key, and model) can
        become the selection, and any further column a colour.
      </p>
    );
  }
  const [first] = uses.colourColumns;
  const column = uses.colourColumns.includes(chosen.value) ? chosen.value : (first ?? "");
  const selectPoints = () => {
    // Of the whole result, which may be longer than what is shown here.
    select({ by: "sql", sql: result.sql }, null);
    say("The points of the result are selected in all views.");
  };
  const colour = () => {
    change({ colour: writeColour(result.sql, column) });
    say(`Points are coloured by ${column}.`);
  };
  return (
    <div class="sql-uses">
      <button type="button" onClick={selectPoints}>
        Select these points
      </button>
      <span class="sql-note">
        {uses.hasKind ? "queries and keys as named" : "queries and keys of these tokens"}
        {uses.hasModel && `, rows of ${model.value?.model ?? "the model in sight"} only`}
      </span>
      {first !== undefined && (
        <>
          <Choice
            label="Column"
            value={column}
            options={uses.colourColumns}
            onChange={(name) => {
              chosen.value = name;
            }}
          />
          <button type="button" onClick={colour}>
            Colour by it
          </button>
        </>
      )}
    </div>
  );
}
