/** Which points a row of a result names: queries and keys, each of the model that its tokens are of. */

import type { ModelRow } from "../contract/rows";

/** What a row says beyond its place; undefined where the result has no such column. */
export interface RowNames {
  readonly kind?: unknown;
  readonly model?: unknown;
}

/** The kinds of point that a row names. */
export interface Sides {
  readonly isQuery: boolean;
  readonly isKey: boolean;
}

/** Both where it says neither kind nor model; none where it is of another model. */
export function findSides({ kind, model }: RowNames, of: ModelRow): Sides {
  // Rows of tokens have the model of the tokens, rows of points that of the map.
  const isOfMap = model === of.model && (kind !== undefined || !isTokensModel(of));
  const isOf = (tokensModel: string) => model === undefined || isOfMap || model === tokensModel;
  return {
    isQuery: (kind === undefined || kind === "query") && isOf(of.query_model),
    isKey: (kind === undefined || kind === "key") && isOf(of.key_model),
  };
}

/** Whether tokens are named by the model itself, as they are but in cross attention. */
function isTokensModel({ model, query_model, key_model }: ModelRow): boolean {
  return model === query_model || model === key_model;
}
