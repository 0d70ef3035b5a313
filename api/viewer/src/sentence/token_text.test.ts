import { expect, test } from "vitest";
import { shortToken, showToken, showWeight } from "./token_text";

test.each([
  [" ", "␠"],
  ["\n\n", "⏎⏎"],
  [" a b  c ", "␠a b␠␠c␠"],
  ["\t", "⇥"],
  ["\u0000", "␀"],
  ["\u001b[0m", "␛[0m"],
  ["\u202eabc", "‹202e›abc"],
  ["", "∅"],
  [null, "–"],
  ["<b>&amp;", "<b>&amp;"],
  ["שלום", "שלום"],
  ["👩‍🚀", "👩‍🚀"],
])("a token without a form of its own gets one: %j", (token, shown) => {
  expect(showToken(token)).toBe(shown);
});

test("a long token is cut between characters, never inside one", () => {
  expect(shortToken("a".repeat(300))).toBe(`${"a".repeat(23)}…`);
  expect(shortToken("🚀".repeat(30), 4)).toBe("🚀🚀🚀…");
  expect(shortToken("a".repeat(24))).toBe("a".repeat(24));
});

test.each([
  [0, "0"],
  [0.0001, "<.001"],
  [0.0312, ".031"],
  [1, "1.000"],
])("the weight %d is shown as %s", (weight, shown) => {
  expect(showWeight(weight)).toBe(shown);
});
