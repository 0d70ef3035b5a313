import { describe, expect, it } from "vitest";
import { PlaceSet } from "../contract/places";
import { countBySequence, countTokensBySequence, narrow, splitList } from "./counts";

describe("counts of sequences", () => {
  const places = new PlaceSet();
  places.add(1, 5, 0);
  places.add(0, 5, 0);
  places.add(0, 5, 2);
  places.add(1, 9, 1);

  it("count places, and tokens whose query and key are both there once", () => {
    expect([...countBySequence(places)]).toEqual([
      [5, 3],
      [9, 1],
    ]);
    expect([...countTokensBySequence(places)]).toEqual([
      [5, 2],
      [9, 1],
    ]);
    expect(countBySequence(null).size).toBe(0);
  });

  it("ask about many sequences in pieces that lose none", () => {
    const ids = Array.from({ length: 7 }, (_, i) => i);
    expect(splitList(ids, 3)).toEqual([[0, 1, 2], [3, 4, 5], [6]]);
    expect(splitList([], 3)).toEqual([]);
  });

  it("leave out what is not asked", () => {
    expect(narrow({ contains: "", token: undefined, filter: ["row:=:1"] })).toEqual({
      filter: ["row:=:1"],
    });
  });
});
