import type { ReadonlySignal } from "@preact/signals";
import { Legend } from "../colour/Legend";
import { state } from "../contract/state";
import { measures } from "../shell/chosen";
import { explainFigure, FIGURES } from "../shell/figures";
import { openHead } from "../shell/open_head";
import { Problem } from "../shell/Problem";
import {
  explainValue,
  labelFigure,
  MAP_FIGURES,
  median,
  nameValue,
  readValue,
  writeValue,
} from "./cell_values";
import type { MarkCount } from "./marks";
import type { Cell, Scene } from "./scene";

/** Beside the cells: how far the maps can be trusted, what colours mean, and the head pointed at. */
export function MatrixAside(props: { scene: Scene; pointed: ReadonlySignal<number> }) {
  const { scene } = props;
  const { value, problem } = scene.colouring;
  return (
    <aside class="matrix-aside" aria-label="Figures and legend">
      <FidelitySummary scene={scene} />
      {value && <Legend legend={value.colouring.legend} />}
      {problem && <Problem problem={problem} />}
      <TintLegend scene={scene} />
      {scene.matrix?.dims === 3 && (
        <p class="matrix-note">
          3-D maps are seen here along their z axis: open a head to turn its map.
        </p>
      )}
      <Card scene={scene} pointed={props.pointed} />
    </aside>
  );
}

/** The first two of a map tell whether its distances are scores. */
const SUMMARY = FIGURES.slice(0, 2);

function FidelitySummary({ scene }: { scene: Scene }) {
  const { matrix, cells } = scene;
  if (!matrix) return null;
  const nMaps = matrix.heads.filter((head) => head.coordinates !== null).length;
  return (
    <section class="matrix-fidelity">
      <h3>
        {matrix.method} {matrix.dims}-D
      </h3>
      <p>
        {nMaps} of {matrix.heads.length} heads, {matrix.points.n.toLocaleString("en")} points each
      </p>
      <dl>
        {SUMMARY.map((figure) => (
          <div key={figure.name} title={explainFigure(figure)}>
            <dt>median {figure.label}</dt>
            <dd>
              {writeValue(median(cells.map((cell) => readValue(`map.${figure.name}`, cell.facts))))}{" "}
              <span class="matrix-note">(ideal {String(figure.ideal).replace("-", "−")})</span>
            </dd>
          </div>
        ))}
      </dl>
    </section>
  );
}

function TintLegend({ scene }: { scene: Scene }) {
  const name = state.tint.value;
  if (name === "") return null;
  const { tint } = scene;
  if (!tint) return <p class="matrix-note">Tint: no head has {nameValue(name)}.</p>;
  return (
    <section class="matrix-tint" aria-label={`Tint by ${nameValue(name)}`}>
      <h3>{nameValue(name)}</h3>
      <div class="matrix-tint-scale">
        <span>{writeValue(tint.low)}</span>
        <span class="matrix-tint-steps" aria-hidden="true">
          {tint.steps.map((css) => (
            <i key={css} style={{ background: css }} />
          ))}
        </span>
        <span>{writeValue(tint.high)}</span>
      </div>
      {tint.nMissing > 0 && <p class="matrix-note">hatched: {tint.nMissing} without a value</p>}
    </section>
  );
}

function Card({ scene, pointed }: { scene: Scene; pointed: ReadonlySignal<number> }) {
  const here = (cell: Cell) =>
    cell.facts.at.layer === state.layer.value && cell.facts.at.head === state.head.value;
  const cell = scene.cells[pointed.value] ?? scene.cells.find(here);
  if (!cell) return null;
  const { at } = cell.facts;
  const figures = MAP_FIGURES.map((name) => `map.${name}`);
  return (
    <section class="matrix-card" aria-live="off">
      <div class="matrix-card-head">
        <h3>
          Layer {at.layer}, head {at.head}
        </h3>
        <button type="button" onClick={() => openHead(at)}>
          Open
        </button>
      </div>
      {cell.head?.missing && <p class="matrix-note">{cell.head.missing}</p>}
      <MarkLine what="hits" count={cell.found} />
      <MarkLine what="selected" count={cell.selected} />
      <Values cell={cell} caption="Fidelity of the map" names={figures} />
      <Values cell={cell} caption="Measures of the head" names={measures.value} />
    </section>
  );
}

function MarkLine({ what, count }: { what: string; count: MarkCount | null }) {
  if (!count) return null;
  const total = count.nQueries + count.nKeys;
  return (
    <p>
      <b>{total}</b> {what}: {count.nQueries} queries, {count.nKeys} keys
    </p>
  );
}

function Values(props: { cell: Cell; caption: string; names: readonly string[] }) {
  const { cell, caption, names } = props;
  const rows = names
    .map((name) => ({ name, value: readValue(name, cell.facts) }))
    .filter(({ value }) => value !== null);
  if (rows.length === 0) return null;
  return (
    <table class="matrix-values">
      <caption>{caption}</caption>
      <tbody>
        {rows.map(({ name, value }) => (
          <tr key={name}>
            <th scope="row" title={explainValue(name)}>
              {labelFigure(name)}
            </th>
            <td>{writeValue(value)}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}
