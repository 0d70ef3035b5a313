import "../styles/matrix.css";
import { useSignal } from "@preact/signals";
import type { Matrix } from "../contract/atlas";
import type { Loaded } from "../contract/loading";
import type { ModelRow } from "../contract/rows";
import { isListing, model } from "../shell/chosen";
import { Problem } from "../shell/Problem";
import { Busy } from "../shell/Toolbar";
import { MatrixAside } from "./MatrixAside";
import { MatrixGrid } from "./MatrixGrid";
import { MatrixToolbar } from "./MatrixToolbar";
import { useMatrix, useScene } from "./scene";

/** Every head of the model as a small scatter, in one grid. */
export function MatrixView() {
  const row = model.value;
  const round = useSignal(0);
  const loaded = useMatrix(row, round.value);
  const retry = () => {
    round.value += 1;
  };
  if (!row) {
    return (
      <section class="matrix-view" data-drawn="no">
        <Busy isLoading what="the models" />
      </section>
    );
  }
  return <ModelMatrix key={row.model} row={row} loaded={loaded} retry={retry} />;
}

function ModelMatrix(props: { row: ModelRow; loaded: Loaded<Matrix>; retry: () => void }) {
  const { row, loaded, retry } = props;
  const matrix = loaded.value?.model === row.model ? loaded.value : null;
  const scene = useScene(row, matrix);
  const pointed = useSignal(-1);
  const drawn = useSignal<unknown>(null);
  const failure = useSignal<Error | null>(null);
  const problem = loaded.problem ?? failure.value;
  const isBusy = loaded.isLoading || scene.colouring.isLoading || isListing.value;
  const isComplete = !isBusy && (problem !== null || drawn.value === scene);
  const facts = scene.cells.map((cell) => cell.facts);
  return (
    <section
      class="matrix-view"
      aria-label="Matrix of heads"
      data-drawn={isComplete ? "yes" : "no"}
    >
      <MatrixToolbar row={row} facts={facts} />
      <Busy isLoading={isBusy} what="all heads" />
      <div class="matrix-body">
        {problem ? (
          <Problem problem={problem} retry={loaded.problem ? retry : undefined} />
        ) : (
          <MatrixGrid scene={scene} row={row} pointed={pointed} drawn={drawn} failure={failure} />
        )}
        <MatrixAside scene={scene} pointed={pointed} />
      </div>
    </section>
  );
}
