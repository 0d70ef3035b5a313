import { expect, test } from "vitest";
import type { TokenRow } from "../contract/rows";
import { cutText } from "./text_spans";

function token(position: number, start: number | null, end: number | null): TokenRow {
  return { position, char_start: start, char_end: end } as TokenRow;
}

test("pieces are the tokens and what lies between, and give the text again", () => {
  const text = "The  cat\n<b>sat</b>";
  const tokens = [token(0, null, null), token(1, 0, 3), token(2, 5, 8), token(3, 9, 19)];
  const spans = cutText(text, tokens);
  expect(spans.map((span) => span.text).join("")).toBe(text);
  expect(spans.filter((span) => span.positions.length > 0).map((span) => span.text)).toEqual([
    "The",
    "cat",
    "<b>sat</b>",
  ]);
});

test("places count characters, not halves of them, as behind an emoji", () => {
  const spans = cutText("🚀🚀 go", [token(0, 0, 2), token(1, 3, 5)]);
  expect(spans.map((span) => span.text)).toEqual(["🚀🚀", " ", "go"]);
});

test("tokens of the same characters share a piece", () => {
  const spans = cutText("a🚀b", [token(0, 0, 1), token(1, 1, 2), token(2, 1, 2), token(3, 2, 3)]);
  expect(spans).toEqual([
    { text: "a", positions: [0] },
    { text: "🚀", positions: [1, 2] },
    { text: "b", positions: [3] },
  ]);
});

test("a part of the tokens gives their part of the text", () => {
  const tokens = [token(5, 4, 7), token(6, 8, 11)];
  expect(cutText("one two six ten", tokens).map((span) => span.text)).toEqual(["two", " ", "six"]);
  expect(cutText("one", [])).toEqual([]);
});
