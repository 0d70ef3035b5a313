/** Norms of the vectors behind points, whichever part of the map is drawn. */

import { loadNorms, MOST_POINTS } from "../contract/atlas";
import { Cache } from "../contract/cache";
import { askArrow, writeUrl } from "../contract/client";
import type { MapPoints, PointSet } from "../contract/points";
import type { MapRow } from "../contract/rows";

const kept = new Cache(4);

/** The norm of each point's vector, NaN where it is not known. */
export async function loadPointNorms(
  map: MapRow,
  points: PointSet,
  signal?: AbortSignal,
): Promise<Float64Array> {
  if (!("rank" in points)) throw new Error("These points are not of one map: they have no norms.");
  const part = points as MapPoints;
  // Ranks count from 0, so the map's first points are known by the rank of the last of them.
  if (part.n > 0 && part.rank[part.n - 1] === part.n - 1) {
    const norms = await loadNorms(map, signal);
    return Float64Array.from(part.rank, (rank) => norms[rank] ?? Number.NaN);
  }
  const byRank = await loadByRank(map, part, signal);
  return Float64Array.from(part.rank, (rank) => byRank.get(rank) ?? Number.NaN);
}

/** Norms by rank of what lies in the box around some points of the map. */
function loadByRank(
  map: MapRow,
  points: MapPoints,
  signal?: AbortSignal,
): Promise<ReadonlyMap<number, number>> {
  const path = `v1/maps/${encodeURIComponent(map.map_id)}/points`;
  const box = [...boundsOf(points.x), ...boundsOf(points.y)].join(",");
  const parameters = { columns: "rank,norm", max_points: MOST_POINTS, limit: MOST_POINTS, box };
  const load = async () => {
    const table = await askArrow(path, parameters);
    const ranks = table.getChild("rank")?.toArray() as ArrayLike<number>;
    const norms = table.getChild("norm")?.toArray() as ArrayLike<number | null>;
    return new Map(Array.from(ranks, (rank, i) => [rank, norms[i] ?? Number.NaN]));
  };
  return kept.get(writeUrl(path, parameters), load, signal);
}

function boundsOf(values: Float32Array): [number, number] {
  let [low, high] = [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY];
  for (const value of values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return [low, high];
}
