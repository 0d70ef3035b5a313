/** Files of what is in sight: a picture of the view, the selected points as CSV or Parquet. */

import { signal } from "@preact/signals";
import { loadPoints, MOST_POINTS } from "../contract/atlas";
import { askFile } from "../contract/client";
import type { PlaceSet } from "../contract/places";
import { indicesOf, type MapPoints, placeAt, tokenAt } from "../contract/points";
import type { MapRow, ModelRow } from "../contract/rows";

/** Places that one Parquet file of a selection may have: more do not fit one request. */
export const MOST_PLACES = 20_000;

/** Takes the picture of the view in sight; null where it has none. */
export const picture = signal<(() => Promise<void>) | null>(null);

/** Say how the picture of the view in sight is taken; returns what takes that back. */
export function registerPicture(take: () => Promise<void>): () => void {
  picture.value = take;
  return () => {
    if (picture.peek() === take) picture.value = null;
  };
}

/** Name of a file without its ending. */
export function nameFile(map: MapRow): string {
  const model = map.model.replace(/[^\w.-]+/g, "-");
  return `${model}-l${map.layer}-h${map.head}-${map.method}-${map.dims}d`;
}

/** The points of a map, or of those in a set, as CSV (RFC 4180) with a heading. */
export function writeCsv(points: MapPoints, places: PlaceSet | null): string {
  const axes = points.dims === 3 ? ["x", "y", "z"] : ["x", "y"];
  const lines = [["kind", "sequence_id", "position", "token", ...axes].join(",")];
  const indices = places
    ? indicesOf(points, places)
    : Array.from({ length: points.n }, (_, i) => i);
  for (const i of indices) {
    const { kind, sequenceId, position } = placeAt(points, i);
    const start = [
      kind,
      sequenceId,
      position,
      quote(tokenAt(points, i)),
      writeFloat(points.x[i]),
      writeFloat(points.y[i]),
    ];
    lines.push((points.dims === 3 ? [...start, writeFloat(points.z[i])] : start).join(","));
  }
  return `${lines.join("\r\n")}\r\n`;
}

/** The shortest decimal that is this float32 again. */
export function writeFloat(value = Number.NaN): string {
  for (let digits = 6; digits < 9; digits++) {
    const short = Number(value.toPrecision(digits));
    if (Math.fround(short) === value) return String(short);
  }
  return String(Number(value.toPrecision(9)));
}

function quote(text: string): string {
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** The CSV of a map's points; at most MOST_POINTS of them, by drawing order. */
export async function makeCsv(map: MapRow, places: PlaceSet | null): Promise<string> {
  const points = await loadPoints(map, { maxPoints: MOST_POINTS });
  if (places && indicesOf(points, places).length === 0) {
    throw new RangeError("none of the selected points is on this map");
  }
  return writeCsv(points, places);
}

const OF_MAP =
  "SELECT points.*, token FROM points LEFT JOIN tokens ON tokens.sequence_id = points.sequence_id " +
  "AND tokens.position = points.position " +
  "AND tokens.model = CASE kind WHEN 'query' THEN $query_model ELSE $key_model END " +
  "WHERE map_id = $map_id";
const CHOSEN =
  " AND (kind, points.sequence_id, points.position) IN " +
  "(SELECT (unnest($kinds), unnest($sequences), unnest($positions)))";

/** The Parquet file of a map's points: of all, or of at most MOST_PLACES in a set. */
export async function makeParquet(
  map: MapRow,
  of: ModelRow,
  places: PlaceSet | null,
): Promise<Blob> {
  const parameters = {
    map_id: map.map_id,
    query_model: of.query_model,
    key_model: of.key_model,
  };
  if (places === null) return askFile(OF_MAP, parameters, "parquet");
  if (places.size > MOST_PLACES) {
    throw new RangeError(`Parquet takes at most ${MOST_PLACES} selected points: use CSV`);
  }
  const chosen = [...places.places()];
  const lists = {
    kinds: chosen.map((place) => place.kind),
    sequences: chosen.map((place) => place.sequenceId),
    positions: chosen.map((place) => place.position),
  };
  return askFile(OF_MAP + CHOSEN, { ...parameters, ...lists }, "parquet");
}
