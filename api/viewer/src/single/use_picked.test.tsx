import { render } from "preact";
import { act } from "preact/test-utils";
import { afterEach, expect, test } from "vitest";
import { change, readState, state } from "../contract/state";
import { usePickedOfColour } from "./use_picked";

function View() {
  usePickedOfColour();
  return null;
}

const show = (isThere: boolean) => act(() => render(isThere ? <View /> : null, document.body));

afterEach(() => show(false));

test("the picked entry of an address stays, and goes with its colouring", async () => {
  readState("colour=mod5&picked=3");
  await show(true);
  expect(state.picked.value).toBe("3");
  await act(() => readState("colour=punctuation&picked=other"));
  expect(state.picked.value).toBe("other");
  await act(() => change({ colour: "kind" }));
  expect(state.picked.value).toBe("");
});

test("a colour chosen in another view leaves nothing picked", async () => {
  readState("colour=mod5&picked=3");
  await show(true);
  await show(false);
  change({ colour: "same_token" });
  await show(true);
  expect(state.picked.value).toBe("");
});
