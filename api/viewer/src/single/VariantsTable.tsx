/** All maps of a head with their figures, to be chosen among. */

import type { MapRow } from "../contract/rows";
import { FIGURES, HELD_OUT } from "../shell/figures";
import { writeFigure } from "./Fidelity";

/** A table with a row for each map of a head; `shown` is the one in sight. */
export function VariantsTable(props: {
  variants: readonly MapRow[];
  shown: MapRow | null;
  onChoose: (map: MapRow) => void;
}) {
  const { variants, shown, onChoose } = props;
  const figures = [...FIGURES, ...HELD_OUT];
  return (
    <section class="single-variants" aria-label="Maps of this head">
      <h2>Maps of this head</h2>
      <div class="single-scroll">
        <table>
          <thead>
            <tr>
              <th scope="col">map</th>
              {figures.map((figure) => (
                <th scope="col" key={figure.name}>
                  <abbr title={`${figure.label}: ${figure.meaning}`}>{figure.short}</abbr>
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {variants.map((map) => (
              <tr key={map.map_id} aria-current={map.map_id === shown?.map_id ? "true" : undefined}>
                <th scope="row">
                  <button type="button" class="single-variant" onClick={() => onChoose(map)}>
                    {nameVariant(map)}
                  </button>
                </th>
                {figures.map((figure) => (
                  <td key={figure.name}>{writeFigure(map[figure.name])}</td>
                ))}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      <p class="single-quiet">
        Ideal: −1 for ρ, 1 for the others; ρ′ and top′ are of held-out sequences.
      </p>
    </section>
  );
}

/** `attention 2-D, lift`: a map among those of its head. */
export function nameVariant(map: MapRow): string {
  return map.joint === ""
    ? `${map.method} ${map.dims}-D`
    : `${map.method} ${map.dims}-D, ${map.joint}`;
}
