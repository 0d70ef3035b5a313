/** What is selected on the map in sight. */

import { selection } from "../contract/selection";
import { countPlaces } from "./marks";
import type { Drawn } from "./pane";

/** Counts of the selected queries, keys and sequences. */
export function SelectionSummary({ drawn }: { drawn: Drawn }) {
  const places = selection.value;
  if (!places) {
    return (
      <p class="single-quiet">
        Nothing is selected: Shift and drag for a box, Alt and drag for a lasso.
      </p>
    );
  }
  const { nQueries, nKeys, nSequences } = countPlaces(drawn.points, places);
  const nElsewhere = places.size - nQueries - nKeys;
  const format = (n: number, one: string, many: string) =>
    `${n.toLocaleString("en")} ${n === 1 ? one : many}`;
  return (
    <div class="single-selection">
      <p role="status" data-n-queries={nQueries} data-n-keys={nKeys} data-n-sequences={nSequences}>
        <b>
          Selected: {format(nQueries, "query", "queries")}, {format(nKeys, "key", "keys")} of{" "}
          {format(nSequences, "sequence", "sequences")}
        </b>
        {nElsewhere > 0 && `; ${nElsewhere.toLocaleString("en")} more are not drawn on this map`}
      </p>
    </div>
  );
}
