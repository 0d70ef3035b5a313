/** What is shown of a head that has no such map: which ones it has. */

import type { MapRow } from "../contract/rows";
import { heads } from "../shell/chosen";
import { type LayerHead, nameHead, openHead } from "../shell/open_head";
import { nameVariant } from "./VariantsTable";
import type { Variant } from "./variants";

/** Says that a map is missing and offers those that there are. */
export function NoMap(props: {
  at: { readonly layer: number; readonly head: number };
  wanted: Variant;
  variants: readonly MapRow[];
  /** False where the model has no such head at all. */
  isHead: boolean;
  onChoose: (map: MapRow) => void;
}) {
  const { at, wanted, variants, isHead, onChoose } = props;
  if (!isHead) {
    const nearest = findNearest(heads.value, at);
    return (
      <div class="single-no-map" role="status">
        <p>
          The atlas has no layer {at.layer}, head {at.head} of this model.
        </p>
        {nearest && (
          <button type="button" onClick={() => openHead(nearest)}>
            Show {nameHead(nearest)}
          </button>
        )}
      </div>
    );
  }
  const joint = wanted.joint === "" ? "" : ` in the ${wanted.joint} space`;
  const what = wanted.method === "" ? "map" : `${wanted.method} map in ${wanted.dims}-D${joint}`;
  return (
    <div class="single-no-map" role="status">
      <p>
        Layer {at.layer}, head {at.head} has no {what}.
      </p>
      {variants.length === 0 ? (
        <p class="single-quiet">
          No map was made of this head. Name its layer and head under <code>capture</code>, and maps
          under <code>maps</code>, in the run’s configuration, and run it again; or choose another
          head.
        </p>
      ) : (
        <>
          <p>It has:</p>
          <ul>
            {variants.map((map) => (
              <li key={map.map_id}>
                <button type="button" onClick={() => onChoose(map)}>
                  {nameVariant(map)}
                </button>
              </li>
            ))}
          </ul>
        </>
      )}
    </div>
  );
}

/** Of the heads that there are, the one fewest layers and then heads away. */
function findNearest<Head extends LayerHead>(among: readonly Head[], at: LayerHead): Head | null {
  const away = (one: LayerHead) =>
    Math.abs(one.layer - at.layer) * 1_000 + Math.abs(one.head - at.head);
  return [...among].sort((a, b) => away(a) - away(b))[0] ?? null;
}
