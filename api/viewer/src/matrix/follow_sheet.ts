/** The part of the matrix in sight and the address, kept equal. */

import { effect } from "@preact/signals";
import { state } from "../contract/state";
import { readPart, type SheetPart, writePart } from "./sheet_view";

/** Rest after which the part in sight goes into the address, as a map's camera does. */
const REST_MS = 300;

/** What has a part in sight: a stage. */
export interface Movable {
  readonly part: SheetPart | null;
  show(part: SheetPart | null): void;
  onMoved: () => void;
}

/** What ends the following, and what writes a move at once, as leaving the view needs it. */
export interface Following {
  readonly rest: () => void;
  readonly stop: () => void;
}

/** Show what the address says, now and when it changes; write what the user moves to. */
export function followSheet(stage: Movable): Following {
  let written = "";
  let timer: ReturnType<typeof setTimeout> | undefined;
  const forget = () => {
    clearTimeout(timer);
    timer = undefined;
  };
  const rest = () => {
    if (timer === undefined) return;
    forget();
    written = writePart(stage.part);
    state.sheet.value = written;
  };
  const stopReading = effect(() => {
    const text = state.sheet.value;
    if (text === written) return;
    forget();
    written = text;
    stage.show(readPart(text));
  });
  stage.onMoved = () => {
    forget();
    timer = setTimeout(rest, REST_MS);
  };
  const stop = () => {
    forget();
    stopReading();
    stage.onMoved = () => {};
  };
  return { rest, stop };
}
