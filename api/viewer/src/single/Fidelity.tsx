/** How far a map can be trusted, always beside it: its figures with what they would ideally be. */

import type { MapRow } from "../contract/rows";
import { FIGURES, HELD_OUT, writeSigned } from "../shell/figures";

/** The figures of one map in a line, and what they mean. */
export function Fidelity({ map }: { map: MapRow }) {
  return (
    <div class="single-fidelity">
      <dl class="single-figures" aria-label="How far this map can be trusted">
        {[...FIGURES, ...HELD_OUT].map((figure) => (
          <div class="single-figure" key={figure.name} title={figure.meaning}>
            <dt>{figure.label}</dt>
            <dd data-figure={figure.name}>
              <b>{writeFigure(map[figure.name])}</b>{" "}
              <span class="single-ideal">(ideal {writeSigned(String(figure.ideal))})</span>
            </dd>
          </div>
        ))}
      </dl>
      <details class="single-meanings">
        <summary>What these say</summary>
        <ul>
          {[...FIGURES, ...HELD_OUT].map((figure) => (
            <li key={figure.name}>
              <b>{figure.label}</b> (<code>{figure.name}</code>): {figure.meaning}.
            </li>
          ))}
        </ul>
      </details>
    </div>
  );
}

/** Two decimals with a true minus; a dash for what was not measured. */
export function writeFigure(value: unknown): string {
  if (typeof value !== "number") return "–";
  return writeSigned(value.toFixed(2));
}
