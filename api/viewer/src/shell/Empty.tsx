import { state } from "../contract/state";
import { model, models, reloadListings } from "./chosen";
import { openModel } from "./open_head";

/** In place of a view where the atlas has no model yet. */
export function EmptyAtlas() {
  return (
    <section class="notice-page empty-atlas">
      <h2>This atlas is empty</h2>
      <p>
        It holds no model yet. Name a model, a corpus and maps in a file <code>mine.yaml</code> (
        <code>docs/configuration.md</code> has every field), then capture and map:
      </p>
      <pre>qkatlas plan mine.yaml{"\n"}qkatlas run mine.yaml</pre>
      <p>The page finds what a run adds: nothing needs a restart.</p>
      <button type="button" class="primary" onClick={() => void reloadListings()}>
        Look again
      </button>
    </section>
  );
}

/** In place of Matrix and Single View where the model has no maps. */
export function NoMaps() {
  return (
    <section class="notice-page no-maps">
      <h2>No maps of {model.value?.model}</h2>
      <p>
        Its vectors are captured, but no maps are made of them. Add <code>maps:</code> to the
        configuration and run it again; what is captured is kept.
      </p>
      <pre>
        maps:{"\n"} - method: attention{"\n"} dims: 2
      </pre>
      <p>Sentences, the table of sequences and SQL need no maps.</p>
      <button type="button" class="primary" onClick={() => void reloadListings()}>
        Look again
      </button>
    </section>
  );
}

/** In place of a view where the address names a model that is not in the atlas. */
export function UnknownModel() {
  return (
    <section class="notice-page unknown-model" role="alert">
      <h2>
        No model <bdi>{state.model.value}</bdi> in this atlas
      </h2>
      <p>The link may be of another atlas, or the model was deleted. This atlas has:</p>
      <p class="notice-choices">
        {models.value.map((row) => (
          <button type="button" key={row.model} onClick={() => openModel(row.model)}>
            {row.model}
          </button>
        ))}
      </p>
    </section>
  );
}
