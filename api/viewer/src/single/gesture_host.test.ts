import { beforeEach, expect, test } from "vitest";
import { PlaceSet } from "../contract/places";
import { select } from "../contract/selection";
import { change, readState, state } from "../contract/state";
import { giveUp } from "./gesture_host";
import { besidePane, firstPane } from "./pane";

beforeEach(() => readState(""));

test("what is there is given up one by one: the outline, the point, the selection", () => {
  change({ point: { kind: "query", sequenceId: 1, position: 2 } });
  select({ by: "search" }, new PlaceSet());
  besidePane.outline.value = [1, 2, 3, 4];
  const left = () => [
    besidePane.outline.value.length > 0,
    state.point.value !== null,
    state.selector.value !== null,
  ];
  const panes = [firstPane, besidePane];
  expect([giveUp(panes), left()]).toEqual([true, [false, true, true]]);
  expect([giveUp(panes), left()]).toEqual([true, [false, false, true]]);
  expect([giveUp(panes), left()]).toEqual([true, [false, false, false]]);
  expect(giveUp(panes)).toBe(false);
});
