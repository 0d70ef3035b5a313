import type { Table } from "@uwdata/flechette";
import { model, models } from "../shell/chosen";
import { openHead, openModel } from "../shell/open_head";
import { recognise, writeCell } from "./columns";

/** The rows of a result; those that name a head open it. */
export function ResultTable({ table }: { table: Table }) {
  const names = table.schema.fields.map((field) => field.name);
  const columns = names.map((_, i) => table.getChildAt(i));
  const { hasHeads } = recognise(names);
  const rows = Array.from({ length: table.numRows }, (_, i) => columns.map((one) => one.at(i)));
  const read = (row: readonly unknown[], name: string) => row[names.indexOf(name)];
  return (
    // biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls is reached by keys
    <section class="sql-rows" tabIndex={0} aria-label="Result">
      <table class="sql-result">
        <thead>
          <tr>
            {hasHeads && <th scope="col">head</th>}
            {names.map((name, i) => (
              <th key={i} scope="col">
                {name}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {rows.map((row, line) => (
            <tr key={line}>
              {hasHeads && (
                <td>
                  <HeadLink
                    model={read(row, "model")}
                    layer={read(row, "layer")}
                    head={read(row, "head")}
                  />
                </td>
              )}
              {row.map((value, i) => (
                <Value key={names[i]} value={value} />
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </section>
  );
}

const MOST_CHARACTERS = 300;

function Value({ value }: { value: unknown }) {
  const text = writeCell(value);
  const isNumber = typeof value === "number" || typeof value === "bigint";
  const shown = text.length > MOST_CHARACTERS ? `${text.slice(0, MOST_CHARACTERS)}…` : text;
  return (
    <td dir="auto" class={isNumber ? "sql-number" : undefined}>
      {value === null || value === undefined ? <i class="sql-note">null</i> : shown}
    </td>
  );
}

function HeadLink(props: { model: unknown; layer: unknown; head: unknown }) {
  const [layer, head] = [Number(props.layer), Number(props.head)];
  const name = typeof props.model === "string" ? props.model : model.value?.model;
  const isKnown = models.value.some((row) => row.model === name);
  if (props.layer === null || props.head === null || name === undefined || !isKnown) return null;
  const open = () => {
    if (name !== model.value?.model) openModel(name);
    openHead({ layer, head });
  };
  return (
    <button type="button" class="quiet sql-head" onClick={open}>
      L{layer} H{head}
    </button>
  );
}
