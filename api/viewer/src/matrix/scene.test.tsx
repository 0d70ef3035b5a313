import { render } from "preact";
import { act } from "preact/test-utils";
import { afterEach, expect, it } from "vitest";
import type { Matrix } from "../contract/atlas";
import type { ModelRow } from "../contract/rows";
import { change, readState } from "../contract/state";
import { useScene } from "./scene";

const HEAD = { layer: 0, head: 0, mapId: null, scoreSpearman: null, low: [], high: [] };
const MATRIX = {
  model: "m",
  method: "pca",
  dims: 2,
  heads: [{ ...HEAD, coordinates: null, missing: "no such map" }],
  points: {
    n: 0,
    isQuery: new Uint8Array(),
    sequenceId: new Float64Array(),
    position: new Int32Array(),
    tokens: { codes: new Int32Array(), words: [] },
    isSpecial: new Uint8Array(),
  },
} as unknown as Matrix;
const MODEL = { model: "m" } as ModelRow;

function Names() {
  const { cells } = useScene(MODEL, MATRIX);
  return <p>{cells.map((cell) => cell.name)}</p>;
}

afterEach(() => readState(""));

it("cells name the tint in use also where no head has a value of it", async () => {
  const root = document.createElement("div");
  change({ tint: "entropy" });
  await act(() => render(<Names />, root));
  expect(root.textContent).toContain("entropy –");
  await act(() => change({ tint: "induction" }));
  expect(root.textContent).toContain("induction –");
  render(null, root);
});
