/** The controls of Single View: which map, how its points look, what dragging does. */

import type { Signal } from "@preact/signals";
import { ColourMenu } from "../colour/ColourMenu";
import type { MapRow, ModelRow } from "../contract/rows";
import { change, state } from "../contract/state";
import { hasImages, method } from "../shell/chosen";
import { HeadMenu } from "../shell/HeadMenu";
import { Choice, Toggle, Toolbar } from "../shell/Toolbar";
import { NO_DISTORTION } from "./Notes";
import { firstPane, tool } from "./pane";
import { choicesOf, closestVariant, type Variant, writeTarget } from "./variants";

/** Show another map of the head in sight; one that it does not have gives the likest. */
export function showVariant(variants: readonly MapRow[], wanted: Variant): void {
  const found = closestVariant(variants, wanted);
  if (!found) return;
  const joint = wanted.joint === "" ? "" : found.joint;
  change({ method: found.method, joint, dims: found.dims });
}

/** The rows of controls above the map. */
export function SingleControls(props: {
  model: ModelRow;
  variants: readonly MapRow[];
  map: MapRow | null;
}) {
  const { model, variants, map } = props;
  return (
    <>
      <Toolbar label="Which map">
        <HeadMenu hasNames hasPlainKeys />
        <VariantMenus variants={variants} map={map} />
        {state.beside.value === "" && map && (
          <button type="button" onClick={() => openBeside(variants, map)}>
            Compare
          </button>
        )}
      </Toolbar>
      <Toolbar label="How points look">
        <ColourMenu model={model} />
        <Choice
          label="Dots"
          value={state.size.value}
          options={[
            { value: "same", label: "same size" },
            { value: "norm", label: "by norm" },
          ]}
          onChange={(size) => change({ size })}
        />
        <Toggles />
        <Tools />
      </Toolbar>
    </>
  );
}

function VariantMenus({ variants, map }: { variants: readonly MapRow[]; map: MapRow | null }) {
  const shown: Variant = map ?? {
    method: method.value,
    joint: state.joint.value,
    dims: state.dims.value,
  };
  const { methods, joints, dims } = choicesOf(variants, shown);
  const { joint } = state;
  const show = (part: Partial<Variant>) =>
    showVariant(variants, { ...shown, joint: joint.value, ...part });
  const withShown = (value: string, among: readonly string[]) => [...new Set([value, ...among])];
  return (
    <>
      <Choice
        label="Method"
        value={shown.method}
        options={withShown(shown.method, methods)}
        onChange={(next) => show({ method: next })}
      />
      <Choice
        label="Joint space"
        value={shown.joint}
        options={withShown(shown.joint, joints).map((value) => ({
          value,
          label: value === "" ? "newest" : value,
        }))}
        isDisabled={joints.length < 2}
        onChange={(next) => show({ joint: next })}
      />
      <Choice
        label="Dimensions"
        value={String(shown.dims)}
        options={withShown(String(shown.dims), dims.map(String)).map((value) => ({
          value,
          label: `${value}-D`,
        }))}
        isDisabled={dims.length < 2}
        onChange={(next) => show({ dims: Number(next) })}
      />
    </>
  );
}

/** Begin to compare: another map of this head, else the same one to be changed by its menus. */
function openBeside(variants: readonly MapRow[], map: MapRow): void {
  const others = variants.filter((one) => one.map_id !== map.map_id);
  const other = others.find((one) => one.dims === map.dims) ?? others[0];
  const { model, layer, head, method: name, joint, dims } = other ?? map;
  change({ beside: writeTarget({ model, layer, head, method: name, joint, dims }) });
}

type Flag = "labels" | "lines" | "distortion" | "thumbnails";

function Toggles() {
  const points = firstPane.drawn.value?.points;
  const hasNoDistortion = points !== undefined && points.n > 0 && points.distortion === null;
  return (
    <>
      <Switch name="labels" label="Labels" />
      <Switch name="lines" label="Attention lines" />
      <Toggle
        label="Shade distortion"
        value={state.distortion.value && !hasNoDistortion}
        isDisabled={hasNoDistortion}
        title={
          hasNoDistortion
            ? NO_DISTORTION
            : "Points that the map is wrong about fade: 0 right, 0.5 says nothing, 1 reversed"
        }
        onChange={(distortion) => change({ distortion })}
      />
      {hasImages.value && <Switch name="thumbnails" label="Patches as points" />}
    </>
  );
}

function Switch({ name, label }: { name: Flag; label: string }) {
  const flag: Signal<boolean> = state[name];
  return (
    <Toggle label={label} value={flag.value} onChange={(value) => change({ [name]: value })} />
  );
}

const TOOLS = [
  { value: "move", label: "Move", title: "Dragging moves a 2-D map and turns a 3-D one" },
  { value: "box", label: "Box", title: "Dragging selects the points in a box (or Shift and drag)" },
  {
    value: "lasso",
    label: "Lasso",
    title: "Dragging selects the points in an outline (or Alt and drag)",
  },
] as const;

function Tools() {
  return (
    <fieldset class="single-tools" aria-label="What dragging does">
      {TOOLS.map(({ value, label, title }) => (
        <button
          key={value}
          type="button"
          title={title}
          aria-pressed={tool.value === value}
          onClick={() => {
            tool.value = value;
          }}
        >
          {label}
        </button>
      ))}
    </fieldset>
  );
}
