import { describe, expect, it } from "vitest";
import {
  addCondition,
  describeCondition,
  listLabels,
  operatorsOf,
  splitConditions,
  turnSort,
  writeCondition,
} from "./filters";

describe("conditions on sequences", () => {
  it("are written as the service reads them, colons in values included", () => {
    const written = writeCondition({ column: "label.topic", operator: "=", value: "a:b" });
    expect(written).toBe("label.topic:=:a:b");
    expect(describeCondition(written)).toBe("label.topic = a:b");
    const empty = writeCondition({ column: "source", operator: "is_null", value: "ignored" });
    expect(empty).toBe("source:is_null");
    expect(describeCondition(empty)).toBe("source is null");
  });

  it("give the token to the parameter of its own", () => {
    const texts = ["n_tokens:>:20", "token:=::="];
    expect(splitConditions(texts)).toEqual({ filter: ["n_tokens:>:20"], token: ":=" });
    expect(splitConditions(["n_tokens:>:20"]).token).toBeUndefined();
  });

  it("hold each condition once, and one token", () => {
    expect(addCondition(["a:=:1"], "a:=:1")).toEqual(["a:=:1"]);
    expect(addCondition(["token:=:a", "b:=:1"], "token:=:c")).toEqual(["b:=:1", "token:=:c"]);
  });

  it("compare numbers by size and texts by what they hold", () => {
    expect(operatorsOf("n_tokens")).toContain(">=");
    expect(operatorsOf("label.topic")).toContain("contains");
    expect(operatorsOf("label.topic")).not.toContain(">");
    expect(operatorsOf("token")).toEqual(["="]);
  });

  it("turn round by pressing a heading again, then end", () => {
    expect(turnSort("", "n_tokens")).toBe("n_tokens");
    expect(turnSort("n_tokens", "n_tokens")).toBe("-n_tokens");
    expect(turnSort("-n_tokens", "n_tokens")).toBe("");
    expect(turnSort("-n_tokens", "row")).toBe("row");
  });

  it("know the labels of all rows", () => {
    expect(listLabels([{ labels: { b: "1" } }, { labels: null }, { labels: { a: "2" } }])).toEqual([
      "a",
      "b",
    ]);
  });
});
