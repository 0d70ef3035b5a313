/** Typed questions to the service, by its public endpoints alone, with replies kept. */

import { Cache } from "./cache";
import { AtlasProblem, ask, askArrow, askSql, writeUrl } from "./client";
import { type MapPoints, type PointSet, readKinds, readMapPoints, readTexts } from "./points";
import type {
  Attention,
  AttentionPicture,
  HeadRow,
  MapRow,
  MeanAttentionRow,
  ModelRow,
  NearestRow,
  Page,
  SequenceRow,
  TokenRow,
} from "./rows";

const listings = new Cache(32);
const sequences = new Cache(256);
const clouds = new Cache(12);
/** Points that one picture of a map may have. */
export const MOST_POINTS = 250_000;

/** Where a head is. */
export interface HeadPlace {
  readonly model: string;
  readonly layer: number;
  readonly head: number;
}

/** All models. */
export function loadModels(signal?: AbortSignal): Promise<readonly ModelRow[]> {
  const load = async () => (await ask<Page<ModelRow>>("v1/models", { limit: 100_000 })).rows;
  return listings.get("models", load, signal);
}

/** All heads of a model with their measures, by layer and head. */
export function loadHeads(model: string, signal?: AbortSignal): Promise<readonly HeadRow[]> {
  const load = async () => (await ask<Page<HeadRow>>("v1/heads", { model, limit: 100_000 })).rows;
  return listings.get(`heads ${model}`, load, signal);
}

/** All current maps of a model, newest first within a head. */
export function loadMaps(model: string, signal?: AbortSignal): Promise<readonly MapRow[]> {
  const load = async () => {
    const parameters = { model, limit: 100_000, sort: ["-generation"] };
    const { rows } = await ask<Page<MapRow>>("v1/maps", parameters);
    return rows.map((row) => ({ ...row, joint: readJoint(row.joint) }));
  };
  return listings.get(`maps ${model}`, load, signal);
}

function readJoint(text: string | null): string {
  return !text ? "" : String((JSON.parse(text) as { method?: string }).method ?? "");
}

/** The map of a head by method, joint space (empty: newest) and dimensions; null for none. */
export function findMap(
  maps: readonly MapRow[],
  at: HeadPlace,
  method: string,
  joint: string,
  dims: number,
): MapRow | null {
  const isIt = (map: MapRow) =>
    map.layer === at.layer &&
    map.head === at.head &&
    map.method === method &&
    map.dims === dims &&
    (joint === "" || map.joint === joint);
  return maps.find(isIt) ?? null;
}

/** What may be asked of the points of a map beyond the usual. */
export interface PointsAsked {
  /** x0, x1, y0, y1: only what lies in it. */
  readonly box?: readonly number[];
  readonly maxPoints?: number;
}

/** The points of a map by drawing order, at most MOST_POINTS: a picture that keeps density. */
export function loadPoints(
  map: MapRow,
  asked: PointsAsked = {},
  signal?: AbortSignal,
): Promise<MapPoints> {
  const maxPoints = asked.maxPoints ?? MOST_POINTS;
  const columns = ["kind", "sequence_id", "position", "x", "y", "rank", "token", "is_special"];
  if (map.dims === 3) columns.push("z");
  columns.push("distortion");
  const parameters = {
    columns: columns.join(","),
    max_points: maxPoints,
    limit: maxPoints,
    dictionary: true,
    box: asked.box?.join(","),
  };
  const path = `v1/maps/${encodeURIComponent(map.map_id)}/points`;
  const load = async () => readMapPoints(await askArrow(path, parameters), map.map_id, map.dims);
  return clouds.get(writeUrl(path, parameters), load, signal);
}

/** The norms of the vectors of a map's points, in the order of `loadPoints` with the same box. */
export async function loadNorms(
  map: MapRow,
  box: readonly number[] | null = null,
  signal?: AbortSignal,
): Promise<Float32Array> {
  const path = `v1/maps/${encodeURIComponent(map.map_id)}/points`;
  const counts = { max_points: MOST_POINTS, limit: MOST_POINTS };
  const parameters = { columns: "norm", ...counts, box: box?.join(",") };
  const load = async () => {
    const table = await askArrow(path, parameters);
    const values = table.getChild("norm")?.toArray() as ArrayLike<number | null>;
    return Float32Array.from(values, (value) => value ?? Number.NaN);
  };
  return clouds.get(writeUrl(path, parameters), load, signal);
}

/** All heads of a model in small. */
export interface Matrix {
  readonly model: string;
  readonly method: string;
  readonly dims: 2 | 3;
  /** The points that every head has, in one order. */
  readonly points: PointSet;
  readonly heads: readonly MatrixHead[];
}

/** One head of a matrix; `coordinates` is dims numbers a point, 0 to 65535 within its bounds. */
export interface MatrixHead {
  readonly layer: number;
  readonly head: number;
  readonly mapId: string | null;
  readonly scoreSpearman: number | null;
  /** Null where the head has no such points: `missing` says why. */
  readonly coordinates: Uint16Array | null;
  readonly low: readonly number[];
  readonly high: readonly number[];
  readonly missing: string | null;
}

interface WireHead {
  layer: number;
  head: number;
  map_id: string | null;
  score_spearman: number | null;
  low: Float32Array | null;
  high: Float32Array | null;
  points: Uint8Array | null;
  missing: string | null;
}

interface WireToken {
  kind: string;
  sequence_id: number;
  position: number;
  token: string | null;
  is_special: boolean | null;
}

/** The matrix of a method. */
export function loadMatrix(
  model: string,
  asked: { method: string; joint?: string; dims: number; maxPoints: number },
  signal?: AbortSignal,
): Promise<Matrix> {
  const { method, joint, dims, maxPoints } = asked;
  const path = `v1/models/${encodeURIComponent(model)}/matrix`;
  const parameters = { method, joint, dims, max_points: maxPoints };
  const load = async () => {
    const table = await askArrow(path, parameters);
    const heads = table.getChild("heads")?.at(0) as WireHead[];
    const tokens = table.getChild("tokens")?.at(0) as WireToken[];
    const points = toPointSet(tokens);
    return { model, method, dims: dims as 2 | 3, points, heads: heads.map(readMatrixHead) };
  };
  return clouds.get(writeUrl(path, parameters), load, signal);
}

function toPointSet(tokens: readonly WireToken[]): PointSet {
  return {
    n: tokens.length,
    isQuery: readKinds(tokens.map((token) => token.kind)),
    sequenceId: Float64Array.from(tokens, (token) => token.sequence_id),
    position: Int32Array.from(tokens, (token) => token.position),
    tokens: readTexts(tokens.map((token) => token.token)),
    isSpecial: Uint8Array.from(tokens, (token) => Number(token.is_special)),
  };
}

function readMatrixHead(wire: WireHead): MatrixHead {
  return {
    layer: wire.layer,
    head: wire.head,
    mapId: wire.map_id,
    scoreSpearman: wire.score_spearman,
    coordinates: wire.points && new Uint16Array(wire.points.slice().buffer),
    low: [...(wire.low ?? [])],
    high: [...(wire.high ?? [])],
    missing: wire.missing,
  };
}

/** What a listing of sequences may be narrowed by. */
export interface SequencesAsked {
  readonly contains?: string;
  readonly filter?: readonly string[];
  readonly sort?: readonly string[];
  readonly token?: string;
  readonly corpus?: string;
  readonly limit?: number;
  readonly cursor?: string;
}

/** A page of a model's sequences, with `n_matches` of all pages. */
export function loadSequences(
  model: string,
  asked: SequencesAsked = {},
  signal?: AbortSignal,
): Promise<Page<SequenceRow>> {
  return ask(`v1/models/${encodeURIComponent(model)}/sequences`, { ...asked }, signal);
}

/** One sequence with its whole text; asked for each time, as it tells whether it is still there. */
export async function loadSequence(
  model: string,
  sequenceId: number,
  signal?: AbortSignal,
): Promise<SequenceRow> {
  const path = `v1/models/${encodeURIComponent(model)}/sequences/${sequenceId}`;
  const [row] = (await ask<Page<SequenceRow>>(path, {}, signal)).rows;
  if (!row) throw new Error(`the reply has no sequence ${sequenceId}`);
  return row;
}

/** The tokens of a sequence by position. */
export async function loadTokens(
  model: string,
  sequenceId: number,
  signal?: AbortSignal,
): Promise<readonly TokenRow[]> {
  const path = `v1/models/${encodeURIComponent(model)}/sequences/${sequenceId}/tokens`;
  const load = () => ask<Page<TokenRow>>(path, { limit: 1_000_000 });
  return (await sequences.get(path, load, signal)).rows;
}

/** URL of a sequence's image. */
export function imageUrl(model: string, sequenceId: number): string {
  return `v1/models/${encodeURIComponent(model)}/sequences/${sequenceId}/image`;
}

/** Where tokens that match a text stand: at most `limit` of them, and whether there are more. */
export async function searchTokens(
  model: string,
  asked: { text: string; match: string; case: boolean; limit: number },
  signal?: AbortSignal,
): Promise<{ rows: readonly TokenRow[]; hasMore: boolean }> {
  const path = `v1/models/${encodeURIComponent(model)}/tokens/search`;
  const page = await ask<Page<TokenRow>>(path, { ...asked }, signal);
  return { rows: page.rows, hasMore: page.next !== null };
}

/** How often the tokens that match a text occur in the whole corpus. */
export async function countTokens(
  model: string,
  asked: { text: string; match: string; case: boolean },
  signal?: AbortSignal,
): Promise<readonly { token: string; n: number }[]> {
  const path = `v1/models/${encodeURIComponent(model)}/tokens/count`;
  return (await ask<Page<{ token: string; n: number }>>(path, { ...asked }, signal)).rows;
}

function headPath(at: HeadPlace): string {
  return `v1/models/${encodeURIComponent(at.model)}/layers/${at.layer}/heads/${at.head}`;
}

/** Attention of a head over some queries of a sequence, and all its keys. */
export function loadAttention(
  at: HeadPlace,
  sequenceId: number,
  asked: { weight?: string; firstQuery?: number; nQueries?: number } = {},
  signal?: AbortSignal,
): Promise<Attention> {
  const path = `${headPath(at)}/attention`;
  const parameters = {
    sequence_id: sequenceId,
    weight: asked.weight,
    first_query: asked.firstQuery,
    n_queries: asked.nQueries,
  };
  return sequences.get(writeUrl(path, parameters), () => ask<Attention>(path, parameters), signal);
}

/** Attention by position, averaged. */
export async function loadMeanAttention(
  at: HeadPlace,
  maxPosition: number,
  signal?: AbortSignal,
): Promise<readonly MeanAttentionRow[]> {
  const path = `${headPath(at)}/mean_attention`;
  const parameters = { max_position: maxPosition, limit: 1_000_000 };
  const load = () => ask<Page<MeanAttentionRow>>(path, parameters);
  return (await listings.get(writeUrl(path, parameters), load, signal)).rows;
}

/** Attention of all heads of a layer over a sequence, as small pictures. */
export function loadAttentionPictures(
  model: string,
  layer: number,
  sequenceId: number,
  maxSide: number,
  signal?: AbortSignal,
): Promise<readonly AttentionPicture[]> {
  const path = `v1/models/${encodeURIComponent(model)}/layers/${layer}/attention`;
  const parameters = { sequence_id: sequenceId, max_side: maxSide };
  const load = async () => {
    const rows = (await askArrow(path, parameters)).toArray() as Record<string, unknown>[];
    return rows.map((row) => ({
      layer: Number(row["layer"]),
      head: Number(row["head"]),
      nRows: Number(row["n_rows"]),
      nColumns: Number(row["n_columns"]),
      nQueries: Number(row["n_queries"]),
      nKeys: Number(row["n_keys"]),
      weights: row["weights"] as Uint8Array,
    }));
  };
  return sequences.get(writeUrl(path, parameters), load, signal);
}

/** The keys that a query scores highest, or the queries that score a key highest, exactly. */
export async function loadNearest(
  at: HeadPlace,
  of: { kind: "query" | "key"; sequenceId: number; position: number },
  k: number,
  signal?: AbortSignal,
): Promise<readonly NearestRow[]> {
  const name = of.kind === "query" ? "nearest_keys" : "nearest_queries";
  const parameters = { sequence_id: of.sequenceId, position: of.position, k };
  const path = `${headPath(at)}/${name}`;
  const load = () => ask<Page<NearestRow>>(path, parameters);
  return (await sequences.get(writeUrl(path, parameters), load, signal)).rows;
}

/** How often each token occurs in a model's whole corpus. */
export function loadFrequencies(
  model: string,
  signal?: AbortSignal,
): Promise<ReadonlyMap<string, number>> {
  const sql = "SELECT token, count(*)::DOUBLE AS n FROM tokens WHERE model = $model GROUP BY token";
  const load = async () => {
    const { table, isTruncated } = await askSql(sql, { model });
    if (isTruncated) {
      const message = "the model has more different tokens than one reply may hold";
      throw new AtlasProblem(413, "over_limit", message);
    }
    const tokens = table.getChild("token")?.toArray() as ArrayLike<string>;
    const counts = table.getChild("n")?.toArray() as ArrayLike<number>;
    return new Map(Array.from(tokens, (token, i) => [token, counts[i] ?? 0]));
  };
  return listings.get(`frequencies ${model}`, load, signal);
}
