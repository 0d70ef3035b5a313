/** One texture of many images, from which a map's points are drawn as their patches. */

import { imageUrl } from "../contract/atlas";
import { askSql } from "../contract/client";
import type { PointSet } from "../contract/points";
import type { ModelRow } from "../contract/rows";
import { loadImage } from "./load_image";
import { type PatchPlace, placePatches } from "./patch_places";

/** Pixels of an image's square in the texture. */
const TILE_PX = 128;
const MOST_TEXTURE_PX = 4_096;
const AT_ONCE = 6;

/** A texture, and for each point the corners u0, v0, u1, v1 of its patch; zeros where it has none. */
export interface Thumbnails {
  readonly bitmap: ImageBitmap;
  readonly uv: Float32Array;
}

/** The patches of the images that most points are of; null where no point is of an image. */
export async function loadThumbnails(
  model: ModelRow,
  points: PointSet,
  most = 64,
  signal?: AbortSignal,
): Promise<Thumbnails | null> {
  const chosen = chooseImages(points.sequenceId, most);
  const patches = await loadPatches(model.query_model, chosen, signal);
  const images = chosen.filter((id) => patches.has(id));
  if (images.length === 0) return null;
  const across = Math.ceil(Math.sqrt(images.length));
  const tile = Math.min(TILE_PX, Math.floor(MOST_TEXTURE_PX / across));
  const canvas = document.createElement("canvas");
  canvas.width = across * tile;
  canvas.height = Math.ceil(images.length / across) * tile;
  const context = canvas.getContext("2d");
  if (!context) throw new Error("This browser cannot draw on a canvas. Use another browser.");
  for (let first = 0; first < images.length; first += AT_ONCE) {
    const some = images.slice(first, first + AT_ONCE);
    const loaded = await Promise.all(some.map((id) => loadImage(imageUrl(model.query_model, id))));
    signal?.throwIfAborted();
    loaded.forEach((image, i) => {
      const at = first + i;
      const [x, y] = [(at % across) * tile, Math.floor(at / across) * tile];
      context.drawImage(image, x, y, tile, tile);
    });
  }
  const uv = placePatches(points, patches, images, across);
  return { bitmap: await createImageBitmap(canvas), uv };
}

/** The sequences that most points are of, at most `most`, by how many they have. */
export function chooseImages(sequenceId: ArrayLike<number>, most: number): number[] {
  const counts = new Map<number, number>();
  for (let i = 0; i < sequenceId.length; i++) {
    const id = sequenceId[i] ?? 0;
    counts.set(id, (counts.get(id) ?? 0) + 1);
  }
  const byCount = [...counts].sort(([a, n], [b, m]) => m - n || a - b);
  return byCount.slice(0, most).map(([id]) => id);
}

const PATCHES =
  "SELECT sequence_id::DOUBLE AS sequence_id, position, patch_row, patch_col FROM tokens " +
  "WHERE model = $model AND sequence_id IN (SELECT unnest($ids)) AND patch_row IS NOT NULL";

async function loadPatches(
  model: string,
  ids: readonly number[],
  signal?: AbortSignal,
): Promise<ReadonlyMap<number, readonly PatchPlace[]>> {
  const { table } = await askSql(PATCHES, { model, ids }, signal);
  const column = (name: string) => table.getChild(name)?.toArray() as ArrayLike<number>;
  const [sequence, position] = [column("sequence_id"), column("position")];
  const [row, col] = [column("patch_row"), column("patch_col")];
  const found = new Map<number, PatchPlace[]>();
  for (let i = 0; i < table.numRows; i++) {
    const id = sequence[i] ?? 0;
    const places = found.get(id) ?? [];
    found.set(id, places);
    places.push({ position: position[i] ?? 0, row: row[i] ?? 0, col: col[i] ?? 0 });
  }
  return found;
}
