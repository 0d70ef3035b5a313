import { tableFromArrays, tableToIPC } from "@uwdata/flechette";
import { render } from "preact";
import { act } from "preact/test-utils";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import type { ModelRow } from "../contract/rows";
import { change, state } from "../contract/state";
import { ColourMenu } from "./ColourMenu";

let nModels = 0;

function serve(): void {
  vi.stubGlobal("fetch", async (url: string, init: RequestInit) => {
    if (url === "v1/schema") {
      const rows = [{ name: "tokens", columns: [{ name: "token" }, { name: "vocab_id" }] }];
      return new Response(JSON.stringify({ rows }));
    }
    const isLabels = String(init.body).includes("map_keys");
    const columns = isLabels ? { name: ["topic"] } : { n0: [4], n1: [4] };
    return new Response(tableToIPC(tableFromArrays(columns as never), {}) as BodyInit);
  });
}

async function show(): Promise<HTMLSelectElement> {
  const model = `menu${nModels++}`;
  const row = { model, query_model: model, key_model: model } as ModelRow;
  await act(() => render(<ColourMenu model={row} />, document.body));
  await vi.waitFor(() => {
    if (document.body.querySelectorAll("option").length < 5) throw new Error("still listing");
  });
  return document.querySelector("select") as HTMLSelectElement;
}

function choose(select: HTMLSelectElement, value: string): Promise<void> {
  return act(() => {
    select.value = value;
    select.dispatchEvent(new Event("change", { bubbles: true }));
  });
}

beforeEach(serve);

afterEach(() => {
  render(null, document.body);
  vi.unstubAllGlobals();
  change({ colour: "kind" });
});

test("the menu is labelled, grouped, and sets the state's colour", async () => {
  const select = await show();
  expect(document.querySelector(`label[for="${select.id}"]`)?.textContent).toBe("Colour");
  expect([...document.querySelectorAll("optgroup")].map((group) => group.label)).toContain("Token");
  await choose(select, "token:vocab_id");
  expect(state.colour.value).toBe("token:vocab_id");
});

test("an SQL expression is taken over when it is sent, not before", async () => {
  await choose(await show(), "sql:");
  expect(state.colour.value).toBe("kind");
  const field = document.querySelector("input") as HTMLInputElement;
  await act(() => {
    field.value = "vocab_id % 10";
    field.dispatchEvent(new Event("input", { bubbles: true }));
  });
  expect(state.colour.value).toBe("kind");
  await act(() => {
    document
      .querySelector("form")
      ?.dispatchEvent(new Event("submit", { bubbles: true, cancelable: true }));
  });
  expect(state.colour.value).toBe("sql:vocab_id % 10");
});

test("a colour of the address is in the menu although the model has no such column", async () => {
  change({ colour: "token:gone" });
  expect((await show()).value).toBe("token:gone");
});
