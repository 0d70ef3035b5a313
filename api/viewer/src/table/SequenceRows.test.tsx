import { render } from "preact";
import { act } from "preact/test-utils";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { PlaceSet } from "../contract/places";
import type { ModelRow, SequenceRow } from "../contract/rows";
import { hits, selection } from "../contract/selection";
import { readState, state } from "../contract/state";
import { SequenceRows } from "./SequenceRows";

const HTML = '<img src=x onerror="alert(1)">';

function makeRow(sequence_id: number, text: string | null): SequenceRow {
  const rest = { corpus: "c", source: "s", row: sequence_id, n_tokens: 5, truncated: false };
  return { sequence_id, text, labels: { topic: "a" }, ...rest };
}

async function show(rows: readonly SequenceRow[], onSort = vi.fn()): Promise<HTMLElement> {
  const root = document.createElement("div");
  document.body.replaceChildren(root);
  const row = { model: "m", query_model: "m" } as ModelRow;
  await act(() =>
    render(
      <SequenceRows row={row} rows={rows} labels={["topic"]} sort="-n_tokens" onSort={onSort} />,
      root,
    ),
  );
  return root;
}

beforeEach(() => readState(""));
afterEach(() => {
  hits.value = null;
  selection.value = null;
});

describe("rows of sequences", () => {
  it("show HTML as the text that it is, and open the sequence by it", async () => {
    const root = await show([makeRow(7, HTML)]);
    expect(root.querySelector("img")).toBeNull();
    const open = root.querySelector<HTMLButtonElement>(".table-open");
    expect(open?.textContent).toBe(HTML);
    expect(open?.dir).toBe("auto");
    await act(() => open?.click());
    expect([state.view.value, state.sequenceId.value]).toEqual(["sentence", 7]);
  });

  it("show images by relative addresses, when they come into sight", async () => {
    const image = (await show([makeRow(3, null)])).querySelector("img");
    expect(image?.getAttribute("src")).toBe("v1/models/m/sequences/3/image");
    expect(image?.getAttribute("loading")).toBe("lazy");
  });

  it("select sequences one by one and a page at once", async () => {
    const root = await show([makeRow(1, "a"), makeRow(2, "b")]);
    const [all, one] = root.querySelectorAll<HTMLInputElement>("input[type=checkbox]");
    await act(() => one?.click());
    expect(state.selector.value).toEqual({ by: "sequence", sequenceIds: [1] });
    await act(() => all?.click());
    expect(state.selector.value).toEqual({ by: "sequence", sequenceIds: [1, 2] });
    await act(() => all?.click());
    expect(state.selector.value).toBeNull();
  });

  it("count hits by token and selected points", async () => {
    hits.value = new PlaceSet();
    for (const kind of [0, 1]) hits.value.add(kind, 1, 4);
    const cells = (await show([makeRow(1, "a")])).querySelectorAll("tbody td");
    expect(cells[cells.length - 1]?.textContent).toBe("1");
  });

  it("tell the order and change it by headings", async () => {
    const onSort = vi.fn();
    const root = await show([makeRow(1, "a")], onSort);
    expect(root.querySelector("[aria-sort=descending]")?.textContent).toContain("n_tokens");
    const headings = [...root.querySelectorAll<HTMLButtonElement>(".table-sort")];
    await act(() => headings.find((one) => one.textContent?.includes("topic"))?.click());
    expect(onSort).toHaveBeenCalledWith("label.topic");
  });
});
