import { describe, expect, it } from "vitest";
import type { MatrixHead } from "../contract/atlas";
import { PlaceSet } from "../contract/places";
import type { PointSet } from "../contract/points";
import type { HeadRow, MapRow } from "../contract/rows";
import {
  explainValue,
  gatherFacts,
  labelFigure,
  listNames,
  MAP_FIGURES,
  median,
  readValue,
  writeValue,
} from "./cell_values";
import { countMarks, joinMarks, markPoints } from "./marks";
import { makeTint } from "./tint";

const POINTS: PointSet = {
  n: 4,
  isQuery: Uint8Array.of(1, 0, 1, 0),
  sequenceId: Float64Array.of(7, 7, 8, 8),
  position: Int32Array.of(0, 0, 3, 3),
  tokens: { codes: Int32Array.of(0, 0, 0, 0), words: ["the"] },
  isSpecial: new Uint8Array(4),
};

function head(coordinates: Uint16Array | null): MatrixHead {
  return {
    layer: 0,
    head: 0,
    mapId: null,
    scoreSpearman: null,
    coordinates,
    low: [],
    high: [],
    missing: coordinates ? null : "no such map",
  };
}

describe("marks of a search", () => {
  const found = new PlaceSet();
  found.add(1, 7, 0);
  found.add(1, 8, 3);
  found.add(0, 8, 3);
  found.add(0, 9, 1);

  it("counts the queries and keys of a head that were found, and none where it has no map", () => {
    const marks = markPoints(POINTS, found) ?? new Uint8Array();
    expect([...marks]).toEqual([1, 0, 1, 1]);
    expect(countMarks(POINTS, head(new Uint16Array(8)), marks)).toEqual({ nQueries: 2, nKeys: 1 });
    expect(countMarks(POINTS, head(null), marks)).toEqual({ nQueries: 0, nKeys: 0 });
  });

  it("lights what was found as well as what is selected", () => {
    expect(joinMarks(Uint8Array.of(1, 0), Uint8Array.of(0, 0))).toEqual(Uint8Array.of(1, 0));
    expect(joinMarks(null, Uint8Array.of(0, 1))).toEqual(Uint8Array.of(0, 1));
    expect(joinMarks(null, null)).toBeNull();
    expect(markPoints(POINTS, null)).toBeNull();
  });
});

describe("tint of cells", () => {
  it("runs from the lowest to the highest value, and has none for what is missing", () => {
    const tint = makeTint([2, null, -1, 5, Number.NaN], false);
    expect([tint?.low, tint?.high, tint?.nMissing]).toEqual([-1, 5, 2]);
    expect(tint?.cssOf(-1)).toBe(tint?.steps[0]);
    expect(tint?.cssOf(5)).toBe(tint?.steps.at(-1));
    expect(tint?.cssOf(null)).toBeNull();
    expect(tint?.cssOf(2)).not.toBe(tint?.cssOf(3));
  });

  it("stands in the middle where all values are equal, and is none where there are none", () => {
    const tint = makeTint([3, 3], true);
    expect(tint?.cssOf(3)).toBe(tint?.steps[4]);
    expect(makeTint([null, null], true)).toBeNull();
  });

  it("darkens steadily on light and brightens steadily on dark", () => {
    const brightness = (css: string) =>
      (css.match(/\d+/g) ?? []).reduce((sum, part) => sum + Number(part), 0);
    const light = makeTint([0, 1], false)?.steps.map(brightness) ?? [];
    const dark = makeTint([0, 1], true)?.steps.map(brightness) ?? [];
    expect(light).toEqual([...light].sort((a, b) => b - a));
    expect(dark).toEqual([...dark].sort((a, b) => a - b));
    expect(new Set(light).size).toBe(9);
  });
});

describe("figures of a cell", () => {
  const rows = [{ model: "m", layer: 0, head: 1, entropy: 0.5, score_spearman: -0.2 }];
  const maps = [
    { model: "m", layer: 0, head: 1, method: "pca", dims: 2, joint: "lift", score_spearman: -0.9 },
  ];
  const places = [
    { layer: 0, head: 0 },
    { layer: 0, head: 1 },
  ];
  const variant = { model: "m", method: "pca", joint: "", dims: 2 } as const;
  const facts = gatherFacts(
    places,
    rows as unknown as HeadRow[],
    maps as unknown as MapRow[],
    variant,
  );

  it("tells the measure of a head from the figure of its map where both have one name", () => {
    const [without, one] = facts;
    if (!one || !without) throw new Error("two heads were given");
    expect(readValue("score_spearman", one)).toBe(-0.2);
    expect(readValue("map.score_spearman", one)).toBe(-0.9);
    expect(readValue("map.score_spearman", without)).toBeNull();
    expect(readValue("entropy", without)).toBeNull();
  });

  it("offers only figures that some map has", () => {
    expect(listNames(facts, ["entropy"]).map((one) => one.label)).toEqual([
      "fidelity: ρ",
      "entropy",
    ]);
  });

  it("names figures of maps as Single View does, and says which column each is", () => {
    expect(MAP_FIGURES.map((name) => labelFigure(`map.${name}`))).toEqual([
      "ρ",
      "top key",
      "content ρ",
      "content top key",
      "trust",
      "continuity",
      "held-out ρ",
      "held-out top key",
    ]);
    for (const name of MAP_FIGURES) expect(explainValue(`map.${name}`)).toContain(`${name}: `);
    expect(labelFigure("score_spearman")).toBe("score_spearman");
  });

  it("takes the median of what is there", () => {
    expect(median([3, null, 1])).toBe(2);
    expect(median([5, 1, 3])).toBe(3);
    expect(median([null])).toBeNull();
  });

  it("writes values short", () => {
    expect([0.0123, -0.002, -0.8, 12.34, 4321, 0.00001, 0, null].map(writeValue)).toEqual([
      "0.01",
      "0.00",
      "−0.80",
      "12.3",
      "4321",
      "1.0e−5",
      "0.00",
      "–",
    ]);
  });
});
