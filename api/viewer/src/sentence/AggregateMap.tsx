/** Attention averaged by position, beside the sentence's and hovered with it. */

import { useMemo } from "preact/hooks";
import type { MeanAttentionRow } from "../contract/rows";
import { state } from "../contract/state";
import { type Averages, cropAverages, hideFirstKey, makeAverages } from "./averages";
import { type Heat, HeatMap } from "./HeatMap";
import type { Spot } from "./hovering";
import type { Reach } from "./reach";
import { showWeight } from "./token_text";

/** The averages as a heat map; what is hovered is said with the number of sequences behind it. */
export function AggregateMap(props: {
  rows: readonly MeanAttentionRow[];
  /** Positions of the sequence beside: later ones are not drawn, so that cells are as large. */
  nTokens: number;
  isOutdated: boolean;
  hidesFirst: boolean;
  reach: Reach | null;
  lit: Spot | null;
}) {
  const { rows, nTokens, hidesFirst, reach, lit } = props;
  const averages = useMemo(() => {
    const made = makeAverages(rows);
    return cropAverages(hidesFirst ? hideFirstKey(made) : made, nTokens);
  }, [rows, nTokens, hidesFirst]);
  const heat: Heat = useMemo(() => {
    const { weights, nPositions } = averages;
    return { weights, nKeys: nPositions, firstQuery: 0, reach };
  }, [averages, reach]);
  const n = averages.nPositions;
  const label = `Attention averaged by position over sequences, ${n} by ${n} positions`;
  return (
    <figure
      class="sentence-figure sentence-aggregate"
      data-outdated={props.isOutdated ? "yes" : undefined}
    >
      <h3>Averaged by position</h3>
      {n === 0 ? <p>No sequence has attention here.</p> : null}
      <HeatMap heat={heat} label={label} lit={lit} />
      <figcaption>
        {describeAverage(averages, lit)}
        {isOtherwiseWeighed() && " Of plain attention: only hiding the first token changes it."}
      </figcaption>
    </figure>
  );
}

/** Whether the sentence beside is weighed or hidden in ways that averages by position cannot follow. */
function isOtherwiseWeighed(): boolean {
  const isWeighed = state.weight.value !== "none";
  return isWeighed || state.hideSpecial.value || state.hidden.value.length > 0;
}

/** What the averages say of a spot: a cell, or the strongest cell of a row or column. */
export function describeAverage(averages: Averages, lit: Spot | null): string {
  const n = averages.nPositions;
  if (lit === null) return `Positions 0–${Math.max(0, n - 1)}; point at a cell or a token.`;
  const { query, key } = lit;
  if ((query ?? 0) >= n || (key ?? 0) >= n) return `Averages end at position ${n - 1}.`;
  if (query !== null && key !== null) return describeCell(averages, query, key);
  if (query !== null) {
    return describeCell(averages, query, findLargest(averages.weights[query] ?? []));
  }
  const column = averages.weights.map((row) => row[key ?? 0] ?? 0);
  return describeCell(averages, findLargest(column), key ?? 0);
}

function describeCell(averages: Averages, query: number, key: number): string {
  const count = averages.counts[query]?.[key] ?? 0;
  const cell = `query position ${query} → key position ${key}`;
  if (count === 0) return `${cell}: in no sequence`;
  const weight = showWeight(averages.weights[query]?.[key] ?? 0);
  const of = count === 1 ? "1 sequence" : `${count.toLocaleString("en")} sequences`;
  return `${cell}: ${weight}, mean of ${of}`;
}

function findLargest(values: readonly number[]): number {
  return values.reduce((best, value, at) => (value > (values[best] ?? 0) ? at : best), 0);
}
