/** What could not be shown on a map as it was asked for, and why. */

import { selection } from "../contract/selection";
import { state } from "../contract/state";
import { type Lines, MOST_LINE_SEQUENCES, MOST_QUERIES } from "./lines";
import type { Drawn } from "./pane";

/** Why a map cannot be shaded by distortion, and what to set so that the next one can. */
export const NO_DISTORTION =
  "This map has no distortion: a point needs at least 5 tokens in reach. Longer sequences have it: see corpus.split and capture.max_length in docs/configuration.md, then make the map anew.";

/** A line for each thing that is missing or cut. */
export function Notes(props: {
  drawn: Drawn | null;
  lines: { readonly value: Lines | null; readonly problem: Error | null };
  spritesProblem: Error | null;
}) {
  const notes = [...noteDrawn(props.drawn), ...noteLines(props.lines)];
  if (props.spritesProblem) notes.push(`Patches cannot be shown: ${props.spritesProblem.message}`);
  if (notes.length === 0) return null;
  return (
    <ul class="single-notes" role="status">
      {notes.map((note) => (
        <li key={note}>{note}</li>
      ))}
    </ul>
  );
}

function noteDrawn(drawn: Drawn | null): string[] {
  if (!drawn) return [];
  const notes: string[] = [];
  const { colourProblem, sizeProblem, points } = drawn;
  if (colourProblem) {
    notes.push(`Coloured by kind, as the colour asked for failed: ${colourProblem.message}`);
  }
  if (sizeProblem) notes.push(`Dots have one size, as norms failed: ${sizeProblem.message}`);
  if (state.distortion.value && points.n > 0 && !points.distortion) notes.push(NO_DISTORTION);
  return notes;
}

function noteLines({ value, problem }: { value: Lines | null; problem: Error | null }): string[] {
  if (!state.lines.value) return [];
  if (problem) return [`Attention lines failed: ${problem.message}`];
  if (!state.point.value && !selection.value) {
    return ["Click a point or select some to see the attention lines of their sequences."];
  }
  const notes: string[] = [];
  if (value?.problem) notes.push(`Some attention lines failed: ${value.problem.message}`);
  if (value && value.nLeftOut > 0) {
    const nAll = MOST_LINE_SEQUENCES + value.nLeftOut;
    notes.push(
      `Lines of ${MOST_LINE_SEQUENCES} of ${nAll} sequences are drawn: select fewer to see the others.`,
    );
  }
  if (value?.isCut) notes.push(`Lines are of each sequence’s first ${MOST_QUERIES} queries.`);
  if (value && value.lines.length === 0 && !value.problem) {
    notes.push("No key of these sequences gets a weight of 0.05 or more.");
  }
  return notes;
}
