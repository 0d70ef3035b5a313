/** How far a map can be trusted, always beside it: its figures with what they would ideally be. */

import type { MapRow } from "../contract/rows";

/** A figure of a map. */
export interface Figure {
  /** The column of the atlas's maps. */
  readonly name: keyof MapRow & string;
  readonly label: string;
  /** The label where there is little room. */
  readonly short: string;
  readonly ideal: number;
  readonly meaning: string;
}

/** The figures shown beside a map, in this order. */
export const FIGURES: readonly Figure[] = [
  {
    name: "score_spearman",
    label: "ρ",
    short: "ρ",
    ideal: -1,
    meaning:
      "rank correlation of distance on the map and attention score, mean over queries: at −1 nearer always means a higher score, at 0 distance says nothing",
  },
  {
    name: "top_key_recall_3",
    label: "top key",
    short: "top",
    ideal: 1,
    meaning: "share of queries whose highest-scored key is among the 3 nearest keys on the map",
  },
  {
    name: "trustworthiness",
    label: "trust",
    short: "trust",
    ideal: 1,
    meaning: "of the 15 nearest on the map, how near they are in the head’s own space",
  },
  {
    name: "continuity",
    label: "continuity",
    short: "cont.",
    ideal: 1,
    meaning: "of the 15 nearest in the head’s own space, how near they are on the map",
  },
];

/** The same of sequences that the map was not made from. */
export const HELD_OUT: readonly Figure[] = [
  {
    name: "heldout_score_spearman",
    label: "held-out ρ",
    short: "ρ′",
    ideal: -1,
    meaning: "ρ of sequences that were placed on the map after it was made",
  },
  {
    name: "heldout_top_key_recall_3",
    label: "held-out top key",
    short: "top′",
    ideal: 1,
    meaning: "top key of sequences that were placed on the map after it was made",
  },
];

/** The figures of one map in a line, and what they mean. */
export function Fidelity({ map }: { map: MapRow }) {
  return (
    <div class="single-fidelity">
      <dl class="single-figures" aria-label="How far this map can be trusted">
        {[...FIGURES, ...HELD_OUT].map((figure) => (
          <div class="single-figure" key={figure.name} title={figure.meaning}>
            <dt>{figure.label}</dt>
            <dd data-figure={figure.name}>
              <b>{writeFigure(map[figure.name])}</b>{" "}
              <span class="single-ideal">(ideal {writeWhole(figure.ideal)})</span>
            </dd>
          </div>
        ))}
      </dl>
      <details class="single-meanings">
        <summary>What these say</summary>
        <ul>
          {[...FIGURES, ...HELD_OUT].map((figure) => (
            <li key={figure.name}>
              <b>{figure.label}</b> (<code>{figure.name}</code>): {figure.meaning}.
            </li>
          ))}
        </ul>
      </details>
    </div>
  );
}

/** Two decimals with a true minus; a dash for what was not measured. */
export function writeFigure(value: unknown): string {
  if (typeof value !== "number") return "–";
  return value.toFixed(2).replace("-", "−");
}

function writeWhole(value: number): string {
  return String(value).replace("-", "−");
}
