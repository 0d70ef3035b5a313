/** The text of a sequence with its tokens lit as they are hovered in the lists. */

import { loadTokens } from "../contract/atlas";
import { useKeyed } from "../contract/keyed";
import type { SequenceRow, TokenRow } from "../contract/rows";
import { Problem } from "../shell/Problem";
import type { Span } from "./attention_lines";
import { type NoteBusy, useNoted } from "./busy_parts";
import { hover, type Spot } from "./hovering";
import { cutText, type TextSpan } from "./text_spans";

/** The part of the text that some positions cover; hovering it hovers its tokens as `side`. */
export function SentenceText(props: {
  title: string;
  model: string;
  sequence: SequenceRow;
  shown: Span;
  side: "query" | "key";
  lit: Spot | null;
  note: NoteBusy;
}) {
  const { model, sequence, shown, side, lit } = props;
  const loaded = useKeyed(`${model} ${sequence.sequence_id}`, (signal) =>
    loadTokens(model, sequence.sequence_id, signal),
  );
  useNoted(props.note, `text of ${side}`, loaded.isLoading);
  if (loaded.problem) return <Problem problem={loaded.problem} retry={loaded.retry} />;
  const all = loaded.isLoading ? [] : (loaded.value ?? []); // never those of another sequence
  const tokens = all.slice(shown.first, shown.end);
  const spans = cutText(sequence.text ?? "", tokens);
  const isCut = tokens.length < all.length;
  return (
    <section class="sentence-text" aria-label={props.title}>
      <span class="sentence-text-title">
        {props.title}
        {isCut && `, positions ${shown.first}–${shown.end - 1}`}
      </span>
      <p
        dir="auto"
        // biome-ignore lint/a11y/noNoninteractiveTabindex: a long text is scrolled by keys
        tabIndex={0}
        onPointerLeave={() => hover(null)}
      >
        {!loaded.isLoading && spans.length === 0 && <em>{explainNone(sequence, tokens)}</em>}
        {spans.map((span, i) => (
          <TextPiece key={`${sequence.sequence_id} ${i}`} span={span} side={side} lit={lit} />
        ))}
      </p>
    </section>
  );
}

function explainNone(sequence: SequenceRow, tokens: readonly TokenRow[]): string {
  if ((sequence.text ?? "") === "") return "This sequence has no text.";
  return tokens.length === 0 ? "This sequence has no tokens." : "These tokens have no text.";
}

function TextPiece(props: { span: TextSpan; side: "query" | "key"; lit: Spot | null }) {
  const { span, side, lit } = props;
  const first = span.positions[0];
  if (first === undefined) return <>{span.text}</>;
  const isLit = (position: number | null | undefined) =>
    position !== null && position !== undefined && span.positions.includes(position);
  const kinds = [isLit(lit?.query) && "is-query", isLit(lit?.key) && "is-key"].filter(Boolean);
  return (
    <span
      class={`sentence-piece ${kinds.join(" ")}`}
      title={`position ${span.positions.join(", ")}`}
      onPointerEnter={() => hover({ query: null, key: null, [side]: first })}
    >
      {span.text}
    </span>
  );
}
