import { ColourMenu } from "../colour/ColourMenu";
import type { MapRow, ModelRow } from "../contract/rows";
import { change, state } from "../contract/state";
import { maps, measures, method } from "../shell/chosen";
import { Choice, Toggle, Toolbar } from "../shell/Toolbar";
import { type CellFacts, listNames } from "./cell_values";
import { type Order, readOrder, writeOrder } from "./order";

/** What to show: which maps, in which order, tinted and coloured by what. */
export function MatrixToolbar(props: { row: ModelRow; facts: readonly CellFacts[] }) {
  return (
    <Toolbar label="Matrix">
      <MapChoices all={maps.value} />
      <OrderChoices facts={props.facts} />
      <ColourMenu model={props.row} />
    </Toolbar>
  );
}

function MapChoices({ all }: { all: readonly MapRow[] }) {
  const ofMethod = all.filter((map) => map.method === method.value);
  const dims = distinct(ofMethod.map((map) => String(map.dims)));
  const joints = distinct(
    ofMethod.filter((map) => map.dims === state.dims.value).map((map) => map.joint),
  );
  const showMethod = (name: string) => {
    const own = all.filter((map) => map.method === name);
    const keeps = own.some((map) => map.dims === state.dims.value);
    change({ method: name, joint: "", dims: keeps ? state.dims.value : (own[0]?.dims ?? 2) });
  };
  const newest = { value: "", label: "newest" };
  return (
    <>
      <Choice
        label="Method"
        value={method.value}
        options={distinct([method.value, ...all.map((map) => map.method)])}
        onChange={showMethod}
      />
      {(joints.length > 1 || state.joint.value !== "") && (
        <Choice
          label="Joint space"
          value={state.joint.value}
          options={[newest, ...distinct([state.joint.value, ...joints]).filter(Boolean)]}
          onChange={(joint) => change({ joint })}
        />
      )}
      <Choice
        label="Dimensions"
        value={String(state.dims.value)}
        options={["2", "3"].map((value) => ({
          value,
          label: `${value}-D`,
          isDisabled: !dims.includes(value),
        }))}
        onChange={(value) => change({ dims: Number(value), joint: "" })}
      />
    </>
  );
}

function OrderChoices({ facts }: { facts: readonly CellFacts[] }) {
  const order = readOrder(state.order.value);
  const names = listNames(facts, measures.value);
  const known = (name: string | undefined) =>
    name === undefined || names.some((one) => one.value === name)
      ? names
      : [...names, { value: name, label: name }];
  const reorder = (next: Partial<Order>) => {
    const usual = { name: "", isDescending: false, isWithinLayer: false };
    const changed = { ...usual, ...order, ...next };
    change({ order: changed.name === "" ? "" : writeOrder(changed) });
  };
  return (
    <>
      <Choice
        label="Order"
        value={order?.name ?? ""}
        options={[{ value: "", label: "layers × heads" }, ...known(order?.name)]}
        onChange={(name) => reorder({ name })}
      />
      <Choice
        label="Direction"
        value={order?.isDescending ? "descending" : "ascending"}
        options={["ascending", "descending"]}
        isDisabled={order === null}
        onChange={(way) => reorder({ isDescending: way === "descending" })}
      />
      <Toggle
        label="Within each layer"
        value={order?.isWithinLayer ?? false}
        isDisabled={order === null}
        onChange={(isWithinLayer) => reorder({ isWithinLayer })}
      />
      <Choice
        label="Tint"
        value={state.tint.value}
        options={[{ value: "", label: "none" }, ...known(state.tint.value || undefined)]}
        onChange={(tint) => change({ tint })}
      />
    </>
  );
}

function distinct(values: readonly string[]): string[] {
  return [...new Set(values)].filter((value) => value !== "");
}
