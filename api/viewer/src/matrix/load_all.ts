/** The matrix in sight: which maps are asked for, and how many points of each. */

import { loadMaps, loadMatrix, type Matrix } from "../contract/atlas";
import { ask } from "../contract/client";
import type { MapRow, ModelRow, Page } from "../contract/rows";

const MOST_A_HEAD = 2_000;
const MOST_OF_ALL = 600_000;
const USUAL_METHOD = "attention";

/** What names a matrix; an empty method is the usual one. */
export interface MatrixAsked {
  readonly method: string;
  readonly joint: string;
  readonly dims: number;
}

/** Points of each head: thousands, and no more in all than one frame can draw. */
export function countPoints(model: ModelRow): number {
  const nHeads = Math.max(1, model.n_layers * model.n_heads);
  return Math.max(1, Math.min(MOST_A_HEAD, Math.floor(MOST_OF_ALL / nHeads)));
}

/** The matrix of a model, asked for without waiting for the listing of all its maps. */
export async function loadAll(model: ModelRow, asked: MatrixAsked): Promise<Matrix> {
  const { joint, dims } = asked;
  const method = asked.method || (await findMethod(model.model, dims));
  return loadMatrix(model.model, { method, joint, dims, maxPoints: countPoints(model) });
}

/** The usual method, from one row or from the listing of all maps, whichever comes first. */
async function findMethod(model: string, dims: number): Promise<string> {
  const listed = loadMaps(model).then((maps) => chooseMethod(maps, dims));
  const filter = [`method:=:${USUAL_METHOD}`, `dims:=:${dims}`];
  const found = ask<Page<MapRow>>("v1/maps", { model, filter, limit: 1 }).then(({ rows }) =>
    rows.length > 0 ? USUAL_METHOD : listed,
  );
  const method = await Promise.race([found, listed]);
  if (method === "") {
    throw new Error("No head of this model has a map: set `maps:` in its configuration.");
  }
  return method;
}

/** Attention where there is a map by it, else the newest map's method; empty where there is none. */
export function chooseMethod(maps: readonly MapRow[], dims: number): string {
  const ofDims = maps.filter((map) => map.dims === dims);
  const methods = (ofDims.length > 0 ? ofDims : maps).map((map) => map.method);
  return methods.includes(USUAL_METHOD) ? USUAL_METHOD : (methods[0] ?? "");
}
