import { afterEach, expect, test } from "vitest";
import { readState, state } from "../contract/state";
import { MOST_SEQUENCES, selectSequences } from "./select_sequences";
import { notices } from "./toasts";

afterEach(() => {
  readState("");
  notices.value = [];
});

test("more sequences than a link can hold are cut, and it is said", () => {
  selectSequences(Array.from({ length: MOST_SEQUENCES + 1 }, (_, id) => id));
  const selector = state.selector.value;
  expect(selector?.by === "sequence" && selector.sequenceIds).toHaveLength(MOST_SEQUENCES);
  expect(notices.value[0]?.text).toContain("Only the first 500");
});

test("no sequences select nothing", () => {
  selectSequences([3]);
  expect(state.selector.value).toEqual({ by: "sequence", sequenceIds: [3] });
  selectSequences([]);
  expect(state.selector.value).toBeNull();
  expect(notices.value).toEqual([]);
});
