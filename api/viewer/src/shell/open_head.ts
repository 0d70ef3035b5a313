/** Steps from one head or sequence to another, the same from every view. */

import { change, state, type View } from "../contract/state";
import { hasImages, heads, model, models } from "./chosen";

/** Where a head is within the model in sight. */
export interface LayerHead {
  readonly layer: number;
  readonly head: number;
}

/** Which way a neighbour lies in the layers × heads grid. */
export type Direction = "left" | "right" | "up" | "down";

/** Show a head, in Single View if no view is named. */
export function openHead(at: LayerHead, view: View = "single"): void {
  change({ layer: at.layer, head: at.head, view, camera: "" });
}

/** Show a sequence with the head in sight, as text or as image as the model has it. */
export function openSequence(sequenceId: number, view?: View): void {
  const usual = hasImages.value ? "image" : "sentence";
  change({ sequenceId, view: view ?? usual, hidden: [], firstQuery: 0 });
}

/** Show another model, at the same head if it has it. */
export function openModel(name: string): void {
  const row = models.value.find((one) => one.model === name);
  if (!row) return;
  const layer = Math.min(Math.max(state.layer.value, 0), row.n_layers - 1);
  const head = Math.min(Math.max(state.head.value, 0), row.n_heads - 1);
  change({
    model: name,
    layer,
    head,
    camera: "",
    point: null,
    sequenceId: -1,
    hidden: [],
    firstQuery: 0,
    cursor: "",
    ...forgetMeasures(),
  });
}

/** Another model may have no such method, order or tint: both would show nothing. */
function forgetMeasures() {
  return { method: "", joint: "", order: "", tint: "" };
}

/** The adjacent head that the atlas has; null at the edge. */
export function neighbourHead(direction: Direction): LayerHead | null {
  const at = { layer: state.layer.value, head: state.head.value };
  return findNeighbour(heads.value, at, direction);
}

/** The nearest of some heads in a direction, within its row or column. */
export function findNeighbour(
  among: readonly LayerHead[],
  at: LayerHead,
  direction: Direction,
): LayerHead | null {
  const isAcross = direction === "left" || direction === "right";
  const sign = direction === "left" || direction === "up" ? -1 : 1;
  const ahead = (one: LayerHead) => sign * (isAcross ? one.head - at.head : one.layer - at.layer);
  const isInLine = (one: LayerHead) => (isAcross ? one.layer === at.layer : one.head === at.head);
  const found = among
    .filter((one) => isInLine(one) && ahead(one) > 0)
    .sort((a, b) => ahead(a) - ahead(b))[0];
  return found ? { layer: found.layer, head: found.head } : null;
}

/** `L0 H2`, as every view names a head. */
export function nameHead(at: LayerHead): string {
  return `L${at.layer} H${at.head}`;
}

/** `minilm · L0 H2` of the head in sight; empty before there is a model. */
export function nameHere(): string {
  const name = model.value?.model;
  if (name === undefined) return "";
  return `${name} · ${nameHead({ layer: state.layer.value, head: state.head.value })}`;
}
