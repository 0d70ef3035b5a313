import { signal } from "@preact/signals";
import { render } from "preact";
import { afterEach, expect, test, vi } from "vitest";
import type { ModelRow } from "../contract/rows";
import { HeadStrip } from "./HeadStrip";

let isHeld = false;

vi.mock("../shell/chosen", () => ({ heads: signal([{ layer: 0, head: 0 }]) }));
vi.mock("../contract/atlas", () => ({
  loadAttentionPictures: async () => {
    await vi.waitUntil(() => !isHeld);
    return [{ layer: 0, head: 0, nRows: 1, nColumns: 1, weights: new Uint8Array([255]) }];
  },
}));

/** All that is observed is in sight at once. */
class InSight {
  constructor(private readonly tell: (entries: unknown[]) => void) {}
  observe(): void {
    this.tell([{ isIntersecting: true }]);
  }
  disconnect(): void {}
}

afterEach(() => vi.unstubAllGlobals());

test("pictures of another sequence are gone while those of this one load", async () => {
  vi.stubGlobal("IntersectionObserver", InSight);
  const root = document.createElement("div");
  const show = (sequenceId: number) =>
    render(
      <HeadStrip model={{ model: "m" } as ModelRow} sequenceId={sequenceId} note={() => {}} />,
      root,
    );
  const pictures = () => root.querySelectorAll("canvas").length;
  show(1);
  await vi.waitFor(() => expect(pictures()).toBe(1));
  isHeld = true;
  show(2);
  await vi.waitFor(() => expect(pictures()).toBe(0));
  expect(root.querySelectorAll(".sentence-strip-empty")).toHaveLength(1);
  isHeld = false;
  await vi.waitFor(() => expect(pictures()).toBe(1));
  render(null, root);
});
