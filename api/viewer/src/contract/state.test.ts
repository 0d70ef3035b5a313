import { afterEach, beforeEach, describe, expect, test } from "vitest";
import {
  change,
  type Field,
  followAddress,
  readState,
  type Selector,
  state,
  VIEWS,
  writeState,
} from "./state";

/** Numbers that look random and are the same each time (mulberry32). */
function makeRandom(seed: number): () => number {
  let at = seed;
  return () => {
    at = (at + 0x6d2b79f5) | 0;
    let mixed = Math.imul(at ^ (at >>> 15), 1 | at);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

const TEXTS = [
  "",
  "minilm",
  "a b",
  "100%",
  "a&b=c#d",
  "ü😀",
  "العربية",
  '"quoted"',
  "null",
  "[1]",
  "\n+",
];
const SELECTORS: readonly (Selector | null)[] = [
  null,
  { by: "search" },
  { by: "sql", sql: "SELECT sequence_id, position FROM tokens WHERE token = 'a&b'" },
  { by: "sequence", sequenceIds: [0, 4_294_967_296] },
  { by: "polygon", mapId: "135cc8f89b9b30cb", corners: [0.5, -1.25, 3, 4e-7] },
];

function makeFields(random: () => number) {
  const one = <T>(of: readonly T[]): T => of[Math.floor(random() * of.length)] as T;
  const whole = () => Math.floor(random() * 5_000) - 1;
  return {
    view: one(VIEWS),
    model: one(TEXTS),
    layer: whole(),
    head: whole(),
    method: one(TEXTS),
    joint: one(TEXTS),
    dims: one([2, 3]),
    beside: one(TEXTS),
    colour: one(TEXTS),
    size: one(["same", "norm"] as const),
    labels: one([true, false]),
    lines: one([true, false]),
    distortion: one([true, false]),
    thumbnails: one([true, false]),
    camera: one(["", "1,2,3", "0.5,-1e-7,9"]),
    order: one(TEXTS),
    tint: one(TEXTS),
    search: one(TEXTS),
    match: one(["exact", "prefix", "substring"] as const),
    anyCase: one([true, false]),
    selector: one(SELECTORS),
    point: one([null, { kind: "query", sequenceId: 3, position: 2 } as const]),
    sequenceId: whole(),
    hidden: one([[], [0], [3, 1, 2]]),
    hideSpecial: one([true, false]),
    hideFirst: one([true, false]),
    weight: one(["none", "value_norm"] as const),
    firstQuery: whole(),
    arrows: one(["none", "strongest", "all"] as const),
    threshold: one([0, 50, 100]),
    patchKind: one(["query", "key"] as const),
    clickedIn: one(["first", "beside"] as const),
    cameraBeside: one(TEXTS),
    picked: one(TEXTS),
    isOnMapOnly: one([true, false]),
    sheet: one(TEXTS),
    cursor: one(TEXTS),
    contains: one(TEXTS),
    filters: one([[], ["n_tokens:>:20", "label.topic:=:a\nb"]]),
    sort: one(TEXTS),
    sql: one(TEXTS),
    theme: one(["auto", "light", "dark"] as const),
  };
}

function snapshot(): Record<string, unknown> {
  return Object.fromEntries(
    (Object.keys(state) as Field[]).map((name) => [name, state[name].value]),
  );
}

beforeEach(() => readState(""));

describe("the state as text", () => {
  test("every field comes back, over many random states", () => {
    const random = makeRandom(6);
    for (let round = 0; round < 500; round++) {
      const fields = makeFields(random);
      readState("");
      change(fields);
      const text = writeState();
      readState("");
      readState(text);
      expect(snapshot()).toEqual(fields);
      expect(writeState()).toBe(text);
    }
  });

  test("the random states name every field", () => {
    expect(Object.keys(makeFields(makeRandom(1))).sort()).toEqual(Object.keys(state).sort());
  });

  test("what is as by default is not written", () => {
    expect(writeState()).toBe("");
    change({ layer: 3 });
    expect(writeState()).toBe("layer=3");
  });

  test("what is malformed is as by default, and the rest is read", () => {
    const usual = snapshot();
    const bad = [
      "view=nowhere",
      "layer=1.5",
      "layer=-7",
      "layer=1e999",
      "layer=%22a%22",
      "dims=4",
      "labels=1",
      "labels=yes",
      "hidden=[1",
      "hidden=[1.5]",
      'hidden=["a"]',
      "hidden=3",
      "filters=[1]",
      "selector={}",
      'selector={"by":"polygon","mapId":1,"corners":[]}',
      'selector={"by":"polygon","mapId":"a","corners":[null]}',
      'selector={"by":"sequence","sequenceIds":"all"}',
      'selector={"by":"sql"}',
      'selector={"by":"__proto__"}',
      "selector=null",
      "selector=[]",
      "point=x:1:2",
      "point=q:1",
      "point=q:-1:0",
      "theme=purple",
      "weight=",
      "match=regex",
      "%E0%A4%A",
      "unknown=1",
    ];
    for (const text of bad) {
      readState(`${text}&head=2`);
      expect(snapshot(), text).toEqual({ ...usual, head: 2 });
    }
  });

  test("an equal list is kept, so that nothing is drawn anew", () => {
    change({ hidden: [1, 2] });
    const before = state.hidden.value;
    readState(writeState());
    expect(state.hidden.value).toBe(before);
  });
});

describe("the address", () => {
  let stop = () => {};
  beforeEach(() => history.replaceState(null, "", "/"));
  afterEach(() => stop());

  test("is read at first and written after", () => {
    history.replaceState(null, "", "/#layer=2&view=single");
    stop = followAddress();
    expect(state.layer.value).toBe(2);
    change({ head: 5 });
    expect(new URLSearchParams(location.hash.slice(1)).get("head")).toBe("5");
  });

  test("a step is one entry of the history, and a detail is none", () => {
    stop = followAddress();
    const before = history.length;
    change({ camera: "1,2,3" });
    change({ search: "class", theme: "dark" });
    expect(history.length).toBe(before);
    change({ layer: 1, head: 2 });
    expect(history.length).toBe(before + 1);
  });

  test("a change of the address changes the state and adds no entry", () => {
    stop = followAddress();
    change({ layer: 1 });
    history.replaceState(null, "", "/#layer=4");
    const before = history.length;
    dispatchEvent(new PopStateEvent("popstate"));
    expect(state.layer.value).toBe(4);
    expect(history.length).toBe(before);
    expect(location.hash).toBe("#layer=4");
  });

  test("a state as by default leaves nothing behind #, and keeps the path", () => {
    history.replaceState(null, "", "/t/secret/?a=1");
    stop = followAddress();
    change({ layer: 1 });
    change({ layer: 0 });
    expect(location.pathname + location.search + location.hash).toBe("/t/secret/?a=1");
  });

  test("after the end nothing is written", () => {
    followAddress()();
    change({ layer: 3 });
    expect(location.hash).toBe("");
  });
});
