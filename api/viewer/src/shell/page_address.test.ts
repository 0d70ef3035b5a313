import { expect, test } from "vitest";
import { hasToken, withoutToken, withToken, writeLink } from "./page_address";

test("the token's part is taken from the end of the path, wherever the page lives", () => {
  expect(withoutToken("/")).toBe("/");
  expect(withoutToken("/t/s3cret/")).toBe("/");
  expect(withoutToken("/proxy/8765/t/s3cret/")).toBe("/proxy/8765/");
  expect(withoutToken("/t/s3cret/more/")).toBe("/t/s3cret/more/");
  expect(hasToken("/t/s3cret/")).toBe(true);
  expect(hasToken("/notes/")).toBe(false);
});

test("a token leads below the page, in place of a former one", () => {
  expect(withToken("/", "a b/c")).toBe("/t/a%20b%2Fc/");
  expect(withToken("/proxy/t/old/", "new")).toBe("/proxy/t/new/");
});

test("a link to share never holds the token", () => {
  history.replaceState(null, "", "/proxy/t/s3cret/?a=1#layer=2");
  expect(writeLink()).toBe(`${location.origin}/proxy/?a=1#layer=2`);
  history.replaceState(null, "", "/");
});
