/** Two lists side by side: who is nearest in the head's own space, and who on the map. */

import { useMemo } from "preact/hooks";
import { loadNearest } from "../contract/atlas";
import { AtlasProblem } from "../contract/client";
import { useKeyed } from "../contract/keyed";
import { type Place, writePlace } from "../contract/places";
import { placeAt, tokenAt } from "../contract/points";
import type { NearestRow } from "../contract/rows";
import { change, state } from "../contract/state";
import { shortToken } from "../sentence/token_text";
import { models } from "../shell/chosen";
import { Problem } from "../shell/Problem";
import { Toggle } from "../shell/Toolbar";
import { countShared, findMapNeighbours, findPlaces, type MapNeighbours } from "./neighbours";
import { type Drawn, pointed } from "./pane";

/** Neighbours in a list. */
const N_SHOWN = 10;
/** Nearest of the whole head among which those of a smaller map are looked for. */
const N_SEARCHED = 5_000;

/** The true neighbours of a place and those on the map, and how many they share. */
export function NearestLists(props: { drawn: Drawn; place: Place; index: number }) {
  const { drawn, place, index } = props;
  const { points, map } = drawn;
  const isSample = holdsFewer(drawn);
  const isOnMapOnly = isSample && state.isOnMapOnly.value;
  const k = isOnMapOnly ? N_SEARCHED : N_SHOWN;
  const loaded = useKeyed(JSON.stringify([map.model, map.layer, map.head, place, k]), (signal) =>
    loadNearest(map, place, k, signal),
  );
  const near = useMemo(
    () => (index < 0 ? null : findMapNeighbours(points, index, N_SHOWN)),
    [points, index],
  );
  const other = place.kind === "query" ? "key" : "query";
  const others = other === "key" ? "keys" : "queries";
  const rows = loaded.isLoading ? null : loaded.value;
  const found = useMemo(() => locate(drawn, other, rows ?? []), [drawn, other, rows]);
  const truly = found.filter((one) => !isOnMapOnly || one.index >= 0).slice(0, N_SHOWN);
  return (
    <div class="single-neighbours">
      {!loaded.problem && <Overlap truly={truly} near={near} isLoading={rows === null} />}
      {isSample && (
        <Toggle
          label="Only those on this map"
          value={isOnMapOnly}
          onChange={(value) => change({ isOnMapOnly: value })}
          title={`Look among the ${N_SEARCHED.toLocaleString("en")} nearest of the whole head for those on this map`}
        />
      )}
      <div class="single-lists">
        <section aria-label={`True nearest ${others}`}>
          <h3>True nearest {others}</h3>
          <p class="single-quiet">by score, in the head’s own space</p>
          {loaded.problem && <Failure problem={loaded.problem} retry={loaded.retry} />}
          {!rows && !loaded.problem && <p class="single-quiet">Loading…</p>}
          <ol class="single-list" data-list="true">
            {truly.map((one) => (
              <Row key={writePlace(one.place)} drawn={drawn} {...one}>
                <span class="single-number">{one.score.toFixed(2)}</span>
                <span class="single-rank">
                  {one.index >= 0 ? near && `map rank ${near.rank(one.index)}` : "not on this map"}
                </span>
              </Row>
            ))}
          </ol>
          {rows && truly.length === 0 && (
            <p class="single-quiet">
              None of the {rows.length.toLocaleString("en")} nearest is on this map.
            </p>
          )}
        </section>
        <section aria-label={`Nearest ${others} on the map`}>
          <h3>Nearest {others} on the map</h3>
          <p class="single-quiet">by distance, as drawn</p>
          {!near && <p class="single-quiet">The point is not on this map.</p>}
          {near?.nearest.length === 0 && <p class="single-quiet">The map has no {others}.</p>}
          <ol class="single-list" data-list="map">
            {near?.nearest.map((at) => (
              <Row
                key={at}
                drawn={drawn}
                place={placeAt(points, at)}
                token={tokenAt(points, at) || null}
              >
                <span class="single-number">{Number(near.distance(at).toPrecision(3))}</span>
                <span class="single-rank">
                  {truly.some((one) => one.index === at) ? "true neighbour" : ""}
                </span>
              </Row>
            ))}
          </ol>
        </section>
      </div>
    </div>
  );
}

/** Whether the head has queries or keys that this picture of its map does not show. */
function holdsFewer({ model, points }: Drawn): boolean {
  const nOf = (name: string) => models.value.find((row) => row.model === name)?.n_tokens ?? 0;
  return points.n < nOf(model.query_model) + nOf(model.key_model);
}

/** The sequence beside the lists already says where it is gone. */
function Failure({ problem, retry }: { problem: Error; retry: () => void }) {
  const isGone = problem instanceof AtlasProblem && problem.kind === "not_found";
  if (isGone) return <p class="single-quiet">The point is no longer in the atlas.</p>;
  return <Problem problem={problem} retry={retry} />;
}

/** A true neighbour with its index among the points; −1 where it is not drawn. */
interface TrueNeighbour {
  readonly place: Place;
  readonly token: string | null;
  readonly score: number;
  readonly index: number;
}

function locate(
  drawn: Drawn,
  kind: Place["kind"],
  rows: readonly NearestRow[],
): readonly TrueNeighbour[] {
  const places = rows.map(
    (row): Place => ({ kind, sequenceId: row.sequence_id, position: row.position }),
  );
  const indices = findPlaces(drawn.points, places);
  return rows.map((row, i) => ({
    place: places[i] ?? { kind, sequenceId: row.sequence_id, position: row.position },
    token: row.token,
    score: row.score,
    index: indices[i] ?? -1,
  }));
}

function Overlap(props: {
  truly: readonly TrueNeighbour[];
  near: MapNeighbours | null;
  isLoading: boolean;
}) {
  const { truly, near, isLoading } = props;
  if (!near) return null;
  if (isLoading) return <p role="status">Comparing…</p>;
  const indices = truly.map((one) => one.index);
  const nOnMap = indices.filter((index) => index >= 0).length;
  return (
    <p class="single-overlap" role="status">
      <b>
        {countShared(indices, near.nearest)} of {truly.length} true nearest are among the{" "}
        {near.nearest.length} nearest drawn
      </b>
      {nOnMap < truly.length &&
        `; ${nOnMap === 0 ? "none" : nOnMap} of them ${nOnMap > 1 ? "are" : "is"} on this map`}
      .
    </p>
  );
}

function Row(props: {
  drawn: Drawn;
  place: Place;
  token: string | null;
  children: preact.ComponentChildren;
}) {
  const { drawn, place, token, children } = props;
  const point = () => {
    pointed.value = { model: drawn.model.model, place, from: "list" };
  };
  const leave = () => {
    pointed.value = null;
  };
  return (
    <li>
      <button
        type="button"
        class="single-row"
        onClick={() => change({ point: place })}
        onPointerEnter={point}
        onPointerLeave={leave}
        onFocus={point}
        onBlur={leave}
      >
        <bdi class="single-token">{shortToken(token)}</bdi>
        <span class="single-place">
          {place.sequenceId}:{place.position}
        </span>
        {children}
      </button>
    </li>
  );
}
