/** The second pane: a map of any head of any model, with menus of its own. */

import { useLayoutEffect } from "preact/hooks";
import type { HeadPlace } from "../contract/atlas";
import { loadMaps } from "../contract/atlas";
import { useKeyed } from "../contract/keyed";
import type { MapRow, ModelRow } from "../contract/rows";
import { change, state } from "../contract/state";
import { models } from "../shell/chosen";
import { NumberChoice } from "../shell/HeadMenu";
import { Problem } from "../shell/Problem";
import { Choice } from "../shell/Toolbar";
import { MapPane } from "./MapPane";
import { NoMap } from "./NoMap";
import { besidePane } from "./pane";
import { nameVariant } from "./VariantsTable";
import {
  closestVariant,
  findVariant,
  readTarget,
  type Target,
  variantsOf,
  writeTarget,
} from "./variants";

/** The map that `state.beside` names, or why there is none. */
export function BesidePane() {
  const target = readTarget(state.beside.value);
  const model = models.value.find((row) => row.model === target?.model) ?? null;
  const loaded = useKeyed(model?.model ?? null, (signal) => loadMaps(model?.model ?? "", signal));
  const maps = loaded.isLoading ? null : loaded.value;
  const variants = variantsOf(maps ?? [], target?.layer ?? -1, target?.head ?? -1);
  const map = target && findVariant(variants, target);
  const isWaiting = target !== null && model !== null && !loaded.problem && !maps;
  useLayoutEffect(() => {
    besidePane.isMissing.value = !map && !isWaiting;
  }, [map, isWaiting]);
  if (!target || !model) return <NoTarget target={target} />;
  if (loaded.problem) return <Problem problem={loaded.problem} retry={loaded.retry} />;
  if (!maps) return <section class="single-pane" aria-label="Second map" />;
  const heading = <BesideMenus target={target} maps={maps} variants={variants} map={map} />;
  if (map) return <MapPane pane={besidePane} model={model} map={map} heading={heading} />;
  return (
    <section class="single-pane" aria-label="Second map">
      <header class="single-pane-head">{heading}</header>
      <NoMap at={target} wanted={target} variants={variants} isHead onChoose={showBeside} />
    </section>
  );
}

function NoTarget({ target }: { target: Target | null }) {
  const text = target
    ? `The atlas has no model ${target.model}.`
    : `“${state.beside.value}” names no map: a link may have been cut short.`;
  return (
    <section class="single-pane" aria-label="Second map">
      <header class="single-pane-head">
        <CloseButton />
      </header>
      <p class="single-instead" role="alert">
        {text} Close this pane and compare anew.
      </p>
    </section>
  );
}

function showBeside(map: MapRow): void {
  change({ beside: writeTarget(map) });
}

function CloseButton() {
  return (
    <button
      type="button"
      onClick={() => change({ beside: "", cameraBeside: "", clickedIn: "first" })}
    >
      Close
    </button>
  );
}

function BesideMenus(props: {
  target: Target;
  maps: readonly MapRow[];
  variants: readonly MapRow[];
  map: MapRow | null;
}) {
  const { target, maps, variants, map } = props;
  const ofLayer = maps.filter((one) => one.layer === target.layer).map((one) => one.head);
  const go = (at: Partial<HeadPlace>) =>
    change({ beside: writeTarget(retarget(target, maps, at)) });
  return (
    <fieldset class="single-beside-menus" aria-label="Second map">
      <Choice
        label="Model"
        value={target.model}
        options={models.value.map((row: ModelRow) => row.model)}
        onChange={(model) => change({ beside: writeTarget({ ...target, model }) })}
      />
      <NumberChoice
        label="Layer"
        value={target.layer}
        of={maps.map((one) => one.layer)}
        onChange={(layer) => go({ layer })}
      />
      <NumberChoice
        label="Head"
        value={target.head}
        of={ofLayer}
        onChange={(head) => go({ head })}
      />
      <Choice
        label="Map"
        value={map?.map_id ?? ""}
        options={[
          ...(map ? [] : [{ value: "", label: "none" }]),
          ...variants.map((one) => ({ value: one.map_id, label: nameVariant(one) })),
        ]}
        onChange={(id) => {
          const chosen = variants.find((one) => one.map_id === id);
          if (chosen) showBeside(chosen);
        }}
      />
      <CloseButton />
    </fieldset>
  );
}

/** The map of another head that is most like the one shown. */
function retarget(target: Target, maps: readonly MapRow[], at: Partial<HeadPlace>): Target {
  const next = { ...target, ...at };
  const found = closestVariant(variantsOf(maps, next.layer, next.head), target);
  return found ? { ...next, method: found.method, joint: found.joint, dims: found.dims } : next;
}
