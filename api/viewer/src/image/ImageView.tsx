/** One image in one head: attention of its patches over the picture, flows, and all other heads. */

import { useEffect } from "preact/hooks";
import { loadSequences } from "../contract/atlas";
import { useKeyed } from "../contract/keyed";
import type { ModelRow } from "../contract/rows";
import { change, state } from "../contract/state";
import { useBusyParts } from "../sentence/busy_parts";
import { useSequence } from "../sentence/chosen_sequence";
import { HeadStrip } from "../sentence/HeadStrip";
import { hover } from "../sentence/hovering";
import { Absent } from "../sentence/SentenceView";
import { SequenceMenu } from "../sentence/SequenceMenu";
import { hasImages, isListing, model, models } from "../shell/chosen";
import { HeadMenu } from "../shell/HeadMenu";
import { openModel } from "../shell/open_head";
import { Problem } from "../shell/Problem";
import { Busy, Toggle, Toolbar } from "../shell/Toolbar";
import { ImageList } from "./ImageList";
import { ImageMain } from "./ImageMain";
import "../styles/image.css";
import "../styles/sentence.css";

/** Image View of what the state names. */
export function ImageView() {
  const row = model.value;
  if (!row || isListing.value) {
    return <section class="image-view" data-drawn={isListing.value ? "no" : "yes"} />;
  }
  if (!hasImages.value) return <OnlyTexts model={row} />;
  return <ImageOf key={row.model} model={row} />;
}

const MOST_PROBED = 50;

/** What Image View is for, and the models of the atlas that it can show. */
function OnlyTexts(props: { model: ModelRow }) {
  const others = models.value.filter((row) => row.model !== props.model.model);
  const names = others.slice(0, MOST_PROBED).map((row) => row.model);
  const loaded = useKeyed(names.join("\n"), async (signal) => {
    const areImages = await Promise.all(
      names.map(async (name) => {
        const { rows } = await loadSequences(name, { limit: 1 }, signal);
        return rows[0]?.text === null;
      }),
    );
    return names.filter((_, i) => areImages[i]);
  });
  const found = loaded.value ?? [];
  return (
    <section class="image-view" data-drawn={loaded.isLoading ? "no" : "yes"}>
      <div class="sentence-note">
        <p>
          Image View shows attention between the patches of a picture. {props.model.model} read
          texts: Sentence View shows them.
        </p>
        <button type="button" onClick={() => change({ view: "sentence" })}>
          Sentence View
        </button>
        {loaded.problem && <Problem problem={loaded.problem} retry={loaded.retry} />}
        {found.length > 0 && <p>Models of images in this atlas:</p>}
        {found.map((name) => (
          <button key={name} type="button" onClick={() => openModel(name)}>
            {name}
          </button>
        ))}
        {loaded.value && found.length === 0 && (
          <p>This atlas has no model of images. A run over a folder of pictures adds one.</p>
        )}
      </div>
    </section>
  );
}

function ImageOf(props: { model: ModelRow }) {
  const row = props.model;
  const sequence = useSequence(row.model);
  const { hasBusy, note } = useBusyParts("attention");
  useEffect(() => () => hover(null), []);
  const shown = sequence.value;
  const isBusy = sequence.isLoading || (shown !== null && hasBusy);
  return (
    <section class="image-view" data-drawn={isBusy ? "no" : "yes"}>
      <Toolbar label="Head and image">
        <HeadMenu />
        <SequenceMenu model={row.model} sequence={shown} what="image" />
        <Toggle
          label="Hide CLS and registers"
          value={state.hideSpecial.value}
          onChange={(hideSpecial) => change({ hideSpecial })}
        />
        <Toggle
          label="Weigh by value norm"
          value={state.weight.value === "value_norm"}
          onChange={(isOn) => change({ weight: isOn ? "value_norm" : "none" })}
        />
      </Toolbar>
      <Busy isLoading={isBusy} what="attention" />
      <Absent sequence={sequence} model={row} />
      {shown && !sequence.problem && (
        <ImageMain model={row} sequence={shown} note={note}>
          <ImageList model={row.model} current={shown.sequence_id} />
          <HeadStrip model={row} sequenceId={shown.sequence_id} note={note} />
        </ImageMain>
      )}
    </section>
  );
}
