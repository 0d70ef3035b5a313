import { render } from "preact";
import { act } from "preact/test-utils";
import { afterEach, expect, test, vi } from "vitest";
import type { SequenceRow } from "../contract/rows";
import { SentenceText } from "./SentenceText";

const spans = [
  { position: 0, char_start: 0, char_end: 3 },
  { position: 1, char_start: 3, char_end: 4 },
];
const SEQUENCES = [
  { sequence_id: 1, text: "one!" },
  { sequence_id: 2, text: "another" },
] as const;

afterEach(() => vi.unstubAllGlobals());

test("a text is never cut at the tokens of another", async () => {
  let isHeld = false;
  vi.stubGlobal("fetch", async () => {
    await vi.waitUntil(() => !isHeld);
    return new Response(JSON.stringify({ version: "texts", n_rows: 2, next: null, rows: spans }), {
      headers: { "X-Atlas-Version": "texts" },
    });
  });
  const root = document.createElement("div");
  const show = (sequence: (typeof SEQUENCES)[number]) =>
    act(() =>
      render(
        <SentenceText
          title="Text"
          model="tiny"
          sequence={sequence as unknown as SequenceRow}
          shown={{ first: 0, end: 2 }}
          side="query"
          lit={null}
          note={() => {}}
        />,
        root,
      ),
    );
  await show(SEQUENCES[0]);
  await vi.waitFor(() => expect(root.querySelector("p")?.textContent).toBe("one!"));
  isHeld = true;
  await show(SEQUENCES[1]);
  expect(root.querySelector("p")?.textContent).toBe("");
  isHeld = false;
  await vi.waitFor(() => expect(root.querySelector("p")?.textContent).toBe("anot"));
  render(null, root);
});
