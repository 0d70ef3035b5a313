import { expect, test } from "vitest";
import type { ModelRow } from "../contract/rows";
import { findSides } from "./sides";

const SELF = { model: "a", query_model: "a", key_model: "a" } as ModelRow;
const CROSS = { model: "a/cross", query_model: "a/decoder", key_model: "a/encoder" } as ModelRow;
const BOTH = { isQuery: true, isKey: true };
const QUERY = { isQuery: true, isKey: false };
const KEY = { isQuery: false, isKey: true };
const NONE = { isQuery: false, isKey: false };

test("a row without kind and model names the query and the key", () => {
  expect(findSides({}, SELF)).toEqual(BOTH);
});

test("a row names the kind that it says, and none where it is null", () => {
  expect(findSides({ kind: "query" }, SELF)).toEqual(QUERY);
  expect(findSides({ kind: "key", model: "a" }, SELF)).toEqual(KEY);
  expect(findSides({ kind: null }, SELF)).toEqual(NONE);
});

test("a row of another model names nothing", () => {
  expect(findSides({ model: "b" }, SELF)).toEqual(NONE);
  expect(findSides({ model: null, kind: "query" }, SELF)).toEqual(NONE);
  expect(findSides({ model: "a" }, SELF)).toEqual(BOTH);
});

test("in cross attention tokens are of one side and points of the map's model", () => {
  expect(findSides({ model: "a/decoder" }, CROSS)).toEqual(QUERY);
  expect(findSides({ model: "a/encoder" }, CROSS)).toEqual(KEY);
  expect(findSides({ model: "a/cross", kind: "key" }, CROSS)).toEqual(KEY);
  expect(findSides({ model: "a/cross" }, CROSS)).toEqual(BOTH);
});
