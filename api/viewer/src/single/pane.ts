/** The panes of Single View as signals: what each shows, and what is pointed at in any of them. */

import { type Signal, signal } from "@preact/signals";
import type { Colouring } from "../colour/colourings";
import type { Place } from "../contract/places";
import type { MapPoints } from "../contract/points";
import type { MapRow, ModelRow } from "../contract/rows";
import type { Camera, Size } from "../draw/camera";
import type { Part } from "./refine";

/** Everything about a map that one picture of it needs, of one moment. */
export interface Drawn {
  readonly map: MapRow;
  readonly model: ModelRow;
  readonly points: MapPoints;
  readonly part: Part;
  readonly colouring: Colouring;
  /** Why the colour asked for could not be had; kinds are shown in its place. */
  readonly colourProblem: Error | null;
  readonly diameters: Float32Array | null;
  readonly sizeProblem: Error | null;
}

/** A pane and what it shows. */
export interface Pane {
  readonly name: "first" | "beside";
  /** Null while what is on the canvas is of another map than the pane is to show. */
  readonly drawn: Signal<Drawn | null>;
  readonly camera: Signal<Camera | null>;
  /** The camera that has the whole map in view. */
  readonly whole: Signal<Camera | null>;
  readonly size: Signal<Size>;
  /** `viewKey` of what is on the canvas; empty while something is missing. */
  readonly shownKey: Signal<string>;
  /** The outline being drawn, as pairs of pixels; empty for none. */
  readonly outline: Signal<readonly number[]>;
  /** The points' canvas and the one over it; empty while there are none. */
  readonly canvases: Signal<readonly HTMLCanvasElement[]>;
  /** True where it says why it has no map. */
  readonly isMissing: Signal<boolean>;
}

function makePane(name: Pane["name"]): Pane {
  return {
    name,
    drawn: signal(null),
    camera: signal(null),
    whole: signal(null),
    size: signal({ width: 0, height: 0 }),
    shownKey: signal(""),
    outline: signal([]),
    canvases: signal([]),
    isMissing: signal(false),
  };
}

/** The pane of the state's own head. */
export const firstPane = makePane("first");

/** The pane of `state.beside`. */
export const besidePane = makePane("beside");

/** A place of a model that is pointed at, and where. */
export interface Pointed {
  readonly model: string;
  readonly place: Place;
  readonly from: Pane["name"] | "list";
}

/** What the pointer is over; rings tell it on all panes. */
export const pointed = signal<Pointed | null>(null);

/** The pane that the pointer was over last: keys zoom it. */
export const active = signal<Pane>(firstPane);

/** What dragging does. */
export const tool = signal<"move" | "box" | "lasso">("move");
