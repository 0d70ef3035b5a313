import { useSignal } from "@preact/signals";
import { MOST_POINTS } from "../contract/atlas";
import type { MapRow, ModelRow } from "../contract/rows";
import { selection } from "../contract/selection";
import { saveBlob, saveText } from "../draw/picture";
import { map, model } from "./chosen";
import { MOST_PLACES, makeCsv, makeParquet, nameFile, picture } from "./exporting";
import { Menu } from "./Menu";
import { nameHead } from "./open_head";

/** Saves the view as a picture, and points of the map as CSV or Parquet. */
export function ExportMenu() {
  return (
    <Menu label="Export">
      <ExportChoices />
    </Menu>
  );
}

function ExportChoices() {
  const said = useSignal("");
  const isBusy = useSignal(false);
  const run = async (save: () => Promise<unknown>) => {
    said.value = "Making the file…";
    isBusy.value = true;
    try {
      await save();
      said.value = "Saved.";
    } catch (error) {
      said.value = `It could not be made: ${error instanceof Error ? error.message : String(error)}`;
    }
    isBusy.value = false;
  };
  const take = picture.value;
  return (
    <div class="export">
      <button
        type="button"
        disabled={isBusy.value || take === null}
        onClick={() => take && run(take)}
      >
        Picture of the view (PNG)
      </button>
      {take === null && <p>This view has no picture.</p>}
      {map.value && model.value && (
        <PointChoices map={map.value} model={model.value} isBusy={isBusy.value} run={run} />
      )}
      <p class="export-said" role="status">
        {said.value}
      </p>
    </div>
  );
}

function PointChoices(props: {
  map: MapRow;
  model: ModelRow;
  isBusy: boolean;
  run: (save: () => Promise<unknown>) => void;
}) {
  const { map: row, isBusy, run } = props;
  const places = selection.value;
  const n = row.n_points;
  const name = `${nameFile(row)}${places ? "-selection" : ""}`;
  const isTooMany = places !== null && places.size > MOST_PLACES;
  const saveCsv = async () =>
    saveText(await makeCsv(row, props.model, places), `${name}.csv`, "text/csv");
  const saveParquet = async () =>
    saveBlob(await makeParquet(row, props.model, places), `${name}.parquet`);
  return (
    <fieldset>
      <legend>
        {places ? "The selected points" : `All ${n.toLocaleString("en")} points`} of {nameHead(row)}
        , {row.method} {row.dims}-D
      </legend>
      <button type="button" disabled={isBusy} onClick={() => run(saveCsv)}>
        CSV
      </button>
      <button type="button" disabled={isBusy || isTooMany} onClick={() => run(saveParquet)}>
        Parquet
      </button>
      {isTooMany && (
        <p>
          Parquet takes at most {MOST_PLACES.toLocaleString("en")} selected points: use CSV, or SQL
          for more.
        </p>
      )}
      {places === null && n > MOST_POINTS && (
        <p>CSV has the first {MOST_POINTS.toLocaleString("en")} points by drawing order.</p>
      )}
    </fieldset>
  );
}
