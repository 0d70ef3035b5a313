/** The title of the browser's tab: what is in sight. */

import { effect } from "@preact/signals";
import { state, type View } from "../contract/state";
import { map, model } from "./chosen";
import { nameHead } from "./open_head";

const NAME = "QK Atlas";

/** Names of the views, as tabs and titles have them. */
export const VIEW_NAMES: Readonly<Record<View, string>> = {
  matrix: "Matrix",
  single: "Single",
  sentence: "Sentence",
  image: "Image",
  table: "Sequences",
  sql: "SQL",
};

/** Views of one head. */
export const HEAD_VIEWS: ReadonlySet<View> = new Set<View>(["single", "sentence", "image"]);

/** `L0 H2 · attention 2-D · minilm — QK Atlas`. */
export function writeTitle(): string {
  const name = model.value?.model;
  if (name === undefined) return NAME;
  const view = state.view.value;
  const parts = [VIEW_NAMES[view], name];
  if (HEAD_VIEWS.has(view)) {
    parts.unshift(nameHead({ layer: state.layer.value, head: state.head.value }));
  }
  if (view === "single") parts[1] = writeVariant();
  return `${parts.filter((part) => part !== "").join(" · ")} — ${NAME}`;
}

function writeVariant(): string {
  const row = map.value;
  return row ? `${row.method} ${row.dims}-D` : VIEW_NAMES.single;
}

/** Keep the title as the state has it; returns what ends that. */
export function followTitle(): () => void {
  return effect(() => {
    document.title = writeTitle();
  });
}
