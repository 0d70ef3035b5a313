import { ask } from "../contract/client";
import { useLoaded } from "../contract/loading";
import type { Page } from "../contract/rows";
import { Problem } from "../shell/Problem";

/** A table as the service describes it. */
interface TableRow {
  readonly name: string;
  readonly about: string;
  readonly columns: readonly {
    readonly name: string;
    readonly type: string;
    readonly meaning: string;
  }[];
  readonly examples: readonly string[];
}

/** Tables with their columns, to be put into the statement, and statements to begin with. */
export function SchemaList(props: {
  insert: (text: string) => void;
  replace: (text: string) => void;
}) {
  const { value, problem } = useLoaded(
    async (signal) => (await ask<Page<TableRow>>("v1/schema", {}, signal)).rows,
    [],
  );
  return (
    <aside class="sql-schema" aria-label="Tables and examples">
      {problem && <Problem problem={problem} />}
      <h3>Tables</h3>
      {value?.map((table) => (
        <Columns key={table.name} table={table} insert={props.insert} />
      ))}
      <h3>Examples</h3>
      <ul class="sql-examples">
        {value
          ?.flatMap((table) => table.examples)
          .map((sql) => (
            <li key={sql}>
              <button type="button" class="sql-example" onClick={() => props.replace(sql)}>
                <code>{sql}</code>
              </button>
            </li>
          ))}
      </ul>
    </aside>
  );
}

function Columns({ table, insert }: { table: TableRow; insert: (text: string) => void }) {
  return (
    <details class="sql-table">
      <summary title={table.about}>{table.name}</summary>
      <p class="sql-note">{table.about}</p>
      <button type="button" class="quiet sql-name" onClick={() => insert(table.name)}>
        insert {table.name}
      </button>
      <ul>
        {table.columns.map(({ name, type, meaning }) => (
          <li key={name}>
            <button
              type="button"
              class="quiet sql-name"
              title={meaning}
              onClick={() => insert(name)}
            >
              {name}
            </button>
            <span class="sql-note">{type}</span>
          </li>
        ))}
      </ul>
    </details>
  );
}
