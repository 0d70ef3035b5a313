/** Files of what is in sight: a picture of the view, the selected points as CSV or Parquet. */

import { signal } from "@preact/signals";
import type { Table } from "@uwdata/flechette";
import { loadPoints, MOST_POINTS } from "../contract/atlas";
import { AtlasProblem, askFile, askSql } from "../contract/client";
import type { Place, PlaceSet } from "../contract/places";
import { indicesOf, type MapPoints, placeAt, tokenAt } from "../contract/points";
import type { MapRow, ModelRow } from "../contract/rows";
import { splitList } from "../table/counts";

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
  const indices = places
    ? indicesOf(points, places)
    : Array.from({ length: points.n }, (_, i) => i);
  const axes = [points.x, points.y, points.z].slice(0, points.dims);
  const lines = indices.map((i) => {
    const at = axes.map((axis) => axis[i]);
    return writeLine(placeAt(points, i), tokenAt(points, i), at);
  });
  return joinLines(points.dims, lines);
}

function writeLine(place: Place, token: string, at: readonly (number | undefined)[]): string {
  const { kind, sequenceId, position } = place;
  return [kind, sequenceId, position, quote(token), ...at.map(writeFloat)].join(",");
}

function joinLines(dims: 2 | 3, lines: readonly string[]): string {
  const axes = ["x", "y", "z"].slice(0, dims);
  const heading = ["kind", "sequence_id", "position", "token", ...axes].join(",");
  return `${[heading, ...lines].join("\r\n")}\r\n`;
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

/** The CSV of a map's points: of all in a set, or of the first MOST_POINTS by drawing order. */
export async function makeCsv(map: MapRow, of: ModelRow, places: PlaceSet | null): Promise<string> {
  if (places !== null && map.n_points > MOST_POINTS) return makeLongCsv(map, of, places);
  const points = await loadPoints(map, { maxPoints: MOST_POINTS });
  if (places && indicesOf(points, places).length === 0) throw new RangeError(NONE_HERE);
  return writeCsv(points, places);
}

const NONE_HERE = "none of the selected points is on this map";

/** By SQL, as what is loaded of such a map is not all of it. */
async function makeLongCsv(map: MapRow, of: ModelRow, places: PlaceSet): Promise<string> {
  const lines: string[] = [];
  for (const some of splitList([...places.places()], MOST_PLACES)) {
    const parameters = { ...nameMap(map, of), ...listPlaces(some) };
    const { table, isTruncated } = await askSql(OF_MAP + CHOSEN, parameters);
    if (isTruncated) {
      throw new AtlasProblem(413, "over_limit", "the points are more than one reply may hold");
    }
    for (const line of readLines(table, map.dims)) lines.push(line);
  }
  if (lines.length === 0) throw new RangeError(NONE_HERE);
  return joinLines(map.dims, lines);
}

function* readLines(table: Table, dims: 2 | 3): Generator<string> {
  const read = (name: string) => table.getChild(name).toArray() as ArrayLike<unknown>;
  const [kinds, sequences, positions] = ["kind", "sequence_id", "position"].map(read);
  const tokens = read("token") as ArrayLike<string | null>;
  const axes = ["x", "y", "z"].slice(0, dims).map(read) as ArrayLike<number>[];
  for (let i = 0; i < table.numRows; i++) {
    const place: Place = {
      kind: kinds?.[i] === "query" ? "query" : "key",
      sequenceId: Number(sequences?.[i]),
      position: Number(positions?.[i]),
    };
    const at = axes.map((axis) => axis[i]);
    yield writeLine(place, tokens[i] ?? "", at);
  }
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
  const parameters = nameMap(map, of);
  if (places === null) return askFile(OF_MAP, parameters, "parquet");
  if (places.size > MOST_PLACES) {
    throw new RangeError(`Parquet takes at most ${MOST_PLACES} selected points: use CSV`);
  }
  const lists = listPlaces([...places.places()]);
  return askFile(OF_MAP + CHOSEN, { ...parameters, ...lists }, "parquet");
}

function nameMap(map: MapRow, of: ModelRow) {
  return { map_id: map.map_id, query_model: of.query_model, key_model: of.key_model };
}

function listPlaces(chosen: readonly Place[]) {
  return {
    kinds: chosen.map((place) => place.kind),
    sequences: chosen.map((place) => place.sequenceId),
    positions: chosen.map((place) => place.position),
  };
}
