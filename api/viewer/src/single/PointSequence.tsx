/** The sequence of a point with its token marked, as text or as image. */

import { useEffect, useRef } from "preact/hooks";
import { imageUrl, loadSequence, loadTokens } from "../contract/atlas";
import { useKeyed } from "../contract/keyed";
import type { Place } from "../contract/places";
import type { SequenceRow, TokenRow } from "../contract/rows";
import { cutText } from "../sentence/text_spans";
import { showToken } from "../sentence/token_text";
import { Problem } from "../shell/Problem";

/** What a point's token stands in. */
export function PointSequence({ model, place }: { model: string; place: Place }) {
  const { sequenceId, position } = place;
  const loaded = useKeyed(JSON.stringify([model, sequenceId]), (signal) =>
    Promise.all([loadSequence(model, sequenceId, signal), loadTokens(model, sequenceId, signal)]),
  );
  if (loaded.problem) return <Problem problem={loaded.problem} retry={loaded.retry} />;
  if (!loaded.value) return <p class="single-quiet">Loading the sequence…</p>;
  const [sequence, tokens] = loaded.value;
  if (sequence.sequence_id !== sequenceId) return null; // the one before, for a moment
  const own = tokens.find((token) => token.position === position) ?? null;
  return (
    <div class="single-sequence">
      {sequence.text === null ? (
        <PointImage model={model} sequence={sequence} tokens={tokens} own={own} />
      ) : (
        <PointText text={sequence.text} tokens={tokens} own={own} />
      )}
      <Facts sequence={sequence} own={own} />
    </div>
  );
}

interface Marked {
  readonly tokens: readonly TokenRow[];
  readonly own: TokenRow | null;
}

function PointText({ text, tokens, own }: Marked & { text: string }) {
  const mark = useRef<HTMLElement>(null);
  const spans = cutText(text, tokens);
  const at = own ? spans.findIndex((span) => span.positions.includes(own.position)) : -1;
  const join = (from: number, to: number) =>
    spans
      .slice(from, to)
      .map((span) => span.text)
      .join("");
  useEffect(() => {
    mark.current?.scrollIntoView({ block: "nearest" });
  }, [own?.position, own?.sequence_id]);
  if (spans.length === 0) return <p class="single-text single-quiet">This sequence has no text.</p>;
  return (
    // biome-ignore lint/a11y/noNoninteractiveTabindex: a part that scrolls is reachable by keys
    <p class="single-text" dir="auto" tabIndex={0}>
      {at < 0 ? join(0, spans.length) : join(0, at)}
      {at >= 0 && <mark ref={mark}>{spans[at]?.text}</mark>}
      {at >= 0 && join(at + 1, spans.length)}
    </p>
  );
}

function PointImage(props: Marked & { model: string; sequence: SequenceRow }) {
  const { model, sequence, tokens, own } = props;
  const rows = 1 + Math.max(0, ...tokens.map((token) => token.patch_row ?? 0));
  const columns = 1 + Math.max(0, ...tokens.map((token) => token.patch_col ?? 0));
  const { patch_row: row = null, patch_col: column = null } = own ?? {};
  const part = (n: number, of: number) => `${(100 * n) / of}%`;
  return (
    <div class="single-image">
      <img src={imageUrl(model, sequence.sequence_id)} alt={`Sequence ${sequence.sequence_id}`} />
      {row !== null && column !== null && (
        <span
          class="single-patch"
          style={{
            left: part(column, columns),
            top: part(row, rows),
            width: part(1, columns),
            height: part(1, rows),
          }}
        />
      )}
    </div>
  );
}

function Facts({ sequence, own }: { sequence: SequenceRow; own: TokenRow | null }) {
  const labels = Object.entries(sequence.labels ?? {});
  const hasNoText = own !== null && sequence.text !== null && own.char_end === own.char_start;
  return (
    <p class="single-quiet">
      {sequence.n_tokens.toLocaleString("en")} tokens
      {own === null && ", of which this position is none any more"}
      {hasNoText && (
        <>
          , of which <bdi>{showToken(own.token)}</bdi> has no text of its own
        </>
      )}
      {labels.map(([name, value]) => (
        <span key={name}>
          {" "}
          · {name}: <bdi>{value}</bdi>
        </span>
      ))}
    </p>
  );
}
