/** Rows of the service's listings, with the names of its columns. */

/** A model of the atlas; more columns in docs/tables.md. */
export interface ModelRow {
  readonly model: string;
  readonly architecture: string;
  /** Keys of the models whose tokens describe queries and keys; other than itself in cross attention. */
  readonly query_model: string;
  readonly key_model: string;
  readonly n_layers: number;
  readonly n_heads: number;
  readonly n_kv_heads: number;
  readonly d_head: number;
  readonly n_sequences: number;
  readonly n_tokens: number;
  readonly part_of_speech: string | null;
  readonly position_encoding: string;
  readonly source: string;
  readonly precision: string;
  readonly attention_stored_max_abs_error: number | null;
}

/** A head: its facts, and each measure as a column. */
export interface HeadRow {
  readonly model: string;
  readonly layer: number;
  readonly head: number;
  readonly kv_head: number;
  readonly mask: "full" | "causal";
  readonly [measure: string]: number | string | null | readonly number[];
}

/** A map with its fidelity. */
export interface MapRow {
  readonly map_id: string;
  readonly model: string;
  readonly layer: number;
  readonly head: number;
  readonly method: string;
  readonly dims: 2 | 3;
  /** Name of the joint space: translate, attentionviz, balance or lift. */
  readonly joint: string;
  readonly n_queries: number;
  readonly n_keys: number;
  /** Of all parts, as a map that grew has several; n_queries and n_keys are of the first. */
  readonly n_points: number;
  readonly generation: number;
  readonly backend: string;
  readonly score_spearman: number | null;
  readonly top_key_recall_3: number | null;
  readonly score_spearman_content: number | null;
  readonly top_key_recall_3_content: number | null;
  readonly trustworthiness: number | null;
  readonly continuity: number | null;
  readonly heldout_score_spearman: number | null;
  readonly heldout_top_key_recall_3: number | null;
}

/** A sequence; `text` is cut in listings and null for images. */
export interface SequenceRow {
  readonly sequence_id: number;
  readonly corpus: string;
  readonly source: string;
  readonly row: number;
  readonly n_tokens: number;
  readonly truncated: boolean;
  readonly text: string | null;
  readonly labels: Readonly<Record<string, string>> | null;
}

/** A token of a sequence; patches of images have rows, columns and colours. */
export interface TokenRow {
  readonly sequence_id: number;
  readonly position: number;
  readonly token: string | null;
  readonly char_start: number | null;
  readonly char_end: number | null;
  readonly is_special: boolean;
  readonly part_of_speech: string | null;
  readonly patch_row: number | null;
  readonly patch_col: number | null;
  readonly hue: number | null;
  readonly saturation: number | null;
  readonly brightness: number | null;
  readonly label: string | null;
}

/** A page of rows; `next` is the cursor of the one after. */
export interface Page<Row> {
  readonly version: string;
  readonly n_rows: number;
  readonly next: string | null;
  /** Of all pages, where the service counted them. */
  readonly n_matches?: number;
  readonly rows: readonly Row[];
}

/** Who is nearest: a key of a query, or a query of a key, by the head's own score. */
export interface NearestRow {
  readonly sequence_id: number;
  readonly position: number;
  readonly token: string | null;
  readonly is_special: boolean;
  readonly score: number;
}

/** Attention of one head over one sequence: weights[i][j] of the i-th query shown and j-th key. */
export interface Attention {
  readonly queries: readonly TokenPlace[];
  readonly keys: readonly TokenPlace[];
  readonly weights: readonly (readonly number[])[];
}

/** A token as attention names it. */
export interface TokenPlace {
  readonly position: number;
  readonly token: string | null;
  readonly is_special: boolean;
}

/** Attention from position to position, averaged over sequences. */
export interface MeanAttentionRow {
  readonly query_position: number;
  readonly key_position: number;
  readonly weight: number;
  readonly n_sequences: number;
}

/** Attention of one head over one sequence as a small picture, 255 for weight 1, row by row. */
export interface AttentionPicture {
  readonly layer: number;
  readonly head: number;
  readonly nRows: number;
  readonly nColumns: number;
  readonly nQueries: number;
  readonly nKeys: number;
  readonly weights: Uint8Array;
}
