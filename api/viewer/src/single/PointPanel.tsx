/** The clicked point: its sequence, who is truly near it and who is near it on the map. */

import type { Place } from "../contract/places";
import { tokenAt } from "../contract/points";
import type { ModelRow } from "../contract/rows";
import { change } from "../contract/state";
import { showToken } from "../sentence/token_text";
import { hasImages } from "../shell/chosen";
import { openSequence } from "../shell/open_head";
import { NearestLists } from "./NearestLists";
import { findPlaces } from "./neighbours";
import { PointSequence } from "./PointSequence";
import type { Drawn } from "./pane";

/** A panel on a place of a model, as the map of `drawn` has it; null while that loads. */
export function PointPanel(props: { model: ModelRow; drawn: Drawn | null; place: Place }) {
  const { model, drawn, place } = props;
  const [index = -1] = drawn ? findPlaces(drawn.points, [place]) : [];
  const token = drawn && index >= 0 ? tokenAt(drawn.points, index) || null : null;
  return (
    <section class="single-point" aria-label="The clicked point">
      <header class="single-point-head">
        <h2>
          <span class={`single-dot single-dot-${place.kind}`} aria-hidden="true" />
          {index >= 0 && <bdi>{showToken(token)}</bdi>}
          <span class="single-quiet">
            {place.kind}, sequence {place.sequenceId}, position {place.position}
          </span>
        </h2>
        <button type="button" onClick={() => change({ point: null })} aria-label="Close the point">
          ✕
        </button>
      </header>
      {drawn && index < 0 && (
        <p class="single-quiet">This point is not among those drawn on this map.</p>
      )}
      <PointSequence model={sideOf(model, place)} place={place} />
      <p class="single-actions">
        <button type="button" onClick={() => openSequence(place.sequenceId, "sentence")}>
          Open in Sentence View
        </button>
        {hasImages.value && (
          <button type="button" onClick={() => openSequence(place.sequenceId, "image")}>
            Open in Image View
          </button>
        )}
      </p>
      {drawn ? (
        <NearestLists drawn={drawn} place={place} index={index} />
      ) : (
        <p class="single-quiet">The map is on its way.</p>
      )}
    </section>
  );
}

/** The model whose tokens a place is of: cross attention has one for queries and one for keys. */
function sideOf(model: ModelRow, place: Place): string {
  return place.kind === "query" ? model.query_model : model.key_model;
}
