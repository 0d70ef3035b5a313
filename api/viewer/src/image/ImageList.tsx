/** Thumbnails of a model's images, a page at a time. */

import { useSignal } from "@preact/signals";
import { imageUrl, loadSequences } from "../contract/atlas";
import { useKeyed } from "../contract/keyed";
import type { Page, SequenceRow } from "../contract/rows";
import { goTo } from "../sentence/chosen_sequence";
import { Problem } from "../shell/Problem";

const A_PAGE = 24;

/** A button an image; the one in sight is marked. */
export function ImageList(props: { model: string; current: number }) {
  const { model, current } = props;
  const cursors = useSignal<readonly string[]>([""]);
  const cursor = cursors.value.at(-1) ?? "";
  const loaded = useKeyed(`${model} ${cursor}`, (signal) =>
    loadSequences(model, { limit: A_PAGE, cursor }, signal),
  );
  if (loaded.problem) return <Problem problem={loaded.problem} retry={loaded.retry} />;
  const page = loaded.value;
  return (
    <section class="image-list" aria-label="Images">
      <h3>Images</h3>
      <ul>
        {page?.rows.map((row) => (
          <Thumbnail key={row.sequence_id} model={model} row={row} current={current} />
        ))}
      </ul>
      <Pages
        page={page}
        isFirst={cursors.value.length === 1}
        onBack={() => {
          cursors.value = cursors.value.slice(0, -1);
        }}
        onNext={(next) => {
          cursors.value = [...cursors.value, next];
        }}
      />
    </section>
  );
}

function Pages(props: {
  page: Page<SequenceRow> | null;
  isFirst: boolean;
  onBack: () => void;
  onNext: (cursor: string) => void;
}) {
  const next = props.page?.next ?? null;
  if (props.isFirst && next === null) return null;
  return (
    <p class="image-pages">
      <button type="button" disabled={props.isFirst} onClick={props.onBack}>
        Images before
      </button>
      <button
        type="button"
        disabled={next === null}
        onClick={() => next !== null && props.onNext(next)}
      >
        Images after
      </button>
    </p>
  );
}

function Thumbnail(props: { model: string; row: SequenceRow; current: number }) {
  const { model, row, current } = props;
  const name = nameImage(row);
  return (
    <li>
      <button
        type="button"
        class="image-thumbnail"
        aria-current={row.sequence_id === current ? "true" : undefined}
        title={name}
        onClick={() => goTo(row.sequence_id)}
      >
        <img
          src={imageUrl(model, row.sequence_id)}
          alt={name}
          loading="lazy"
          width={64}
          height={64}
        />
      </button>
    </li>
  );
}

/** `image 12 · folder: cat`. */
export function nameImage(row: SequenceRow): string {
  const labels = Object.entries(row.labels ?? {}).map(([name, value]) => `${name}: ${value}`);
  return [`image ${row.sequence_id}`, ...labels].join(" · ");
}
