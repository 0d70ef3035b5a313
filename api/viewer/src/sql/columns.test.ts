import { describe, expect, it } from "vitest";
import { readColour, recognise, trimStatement, writeCell, writeColour } from "./columns";

describe("uses of a result", () => {
  it("selects points by sequence and position, and knows whether the kind is told", () => {
    expect(recognise(["sequence_id", "position"])).toEqual({
      hasPlaces: true,
      hasKind: false,
      hasModel: false,
      hasHeads: false,
      colourColumns: [],
    });
    expect(recognise(["kind", "position", "sequence_id"]).hasKind).toBe(true);
    expect(recognise(["sequence_id", "token"]).hasPlaces).toBe(false);
  });

  it("colours by further columns only where rows name tokens", () => {
    const columns = ["sequence_id", "position", "layer", "head", "score", "n"];
    expect(recognise(columns).colourColumns).toEqual(["score", "n"]);
    expect(recognise(["token", "n"]).colourColumns).toEqual([]);
  });

  it("links to heads by layer and head", () => {
    expect(recognise(["layer", "head", "entropy"]).hasHeads).toBe(true);
    expect(recognise(["layer", "entropy"]).hasHeads).toBe(false);
  });

  it("takes a column of any name and a statement of any end as colour", () => {
    const colour = writeColour('SELECT 1 AS "a:%b" -- why\n;  ', "a:%b");
    expect(colour).toBe('column:a%3A%25b:SELECT 1 AS "a:%b" -- why');
    expect(readColour(colour.slice("column:".length))).toEqual({
      column: "a:%b",
      sql: 'SELECT 1 AS "a:%b" -- why',
    });
    for (const damaged of ["", "c", "c:", ":SELECT 1", "%:SELECT 1"]) {
      expect(readColour(damaged)).toBeNull();
    }
    expect(trimStatement("SELECT 1 ; ;\n")).toBe("SELECT 1");
  });

  it("writes values of every type as text", () => {
    expect(writeCell(null)).toBe("");
    expect(writeCell(0.1 + 0.2)).toBe("0.3");
    expect(writeCell(new Uint8Array(1200))).toBe("1,200 bytes");
    expect(writeCell(new Map([["a", 1n]]))).toBe('{"a":1}');
    expect(writeCell(Float32Array.of(0.5, 2))).toBe("[0.5,2]");
    expect(writeCell({ a: [1n, null] })).toBe('{"a":[1,null]}');
    expect(writeCell("<b>")).toBe("<b>");
  });
});
