import { expect, test } from "vitest";
import { isPunctuation, plainToken, tokenLength } from "./token_text";

test.each([
  ["##ing", "ing"],
  ["Ġword", "word"],
  ["▁word", "word"],
  ["ĠĠĠĠ", ""],
  ["Ċ", "\n"],
  ["##", "##"],
  ["#", "#"],
  ["word", "word"],
])("%o is read as %o", (token, plain) => {
  expect(plainToken(token)).toBe(plain);
});

test.each([",", "Ġ(", "##).", "▁—", "。", "؟", "+", "€"])("%o is punctuation", (token) => {
  expect(isPunctuation(token)).toBe(true);
});

test.each(["a,", "3", "ab", "", "Ġ", "語"])("%o is not punctuation", (token) => {
  expect(isPunctuation(token)).toBe(false);
});

test.each([
  ["##ing", 3],
  ["Ġthe", 3],
  ["語彙", 2],
  ["👍", 1],
  ["e\u0301", 1],
  ["שָׁ", 1],
])("%o has %i characters", (token, n) => {
  expect(tokenLength(token)).toBe(n);
});
