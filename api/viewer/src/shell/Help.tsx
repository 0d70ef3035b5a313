import { signal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { ask } from "../contract/client";
import { useLoaded } from "../contract/loading";
import { hasImages, listedVersion, measures, model } from "./chosen";
import { type ColumnRow, FIGURES, HELD_OUT, loadColumns, MEASURES } from "./figures";
import { Problem } from "./Problem";
import { type Shortcut, shortcuts } from "./shortcuts";
import { ThemeMenu } from "./ThemeMenu";
import { VIEW_NAMES } from "./title";

/** Whether the help sheet is in sight. */
export const isHelpOpen = signal(false);

/** A dialog with the shortcuts, what views and figures are for, and what the data is. */
export function Help() {
  const dialog = useRef<HTMLDialogElement>(null);
  const isOpen = isHelpOpen.value;
  useEffect(() => {
    if (isOpen) dialog.current?.showModal();
    else dialog.current?.close();
  }, [isOpen]);
  const close = () => {
    isHelpOpen.value = false;
  };
  const closeOutside = (event: MouseEvent) => {
    if (event.target === dialog.current) close();
  };
  return (
    // biome-ignore lint/a11y/useKeyWithClickEvents: Escape closes it by key
    <dialog
      class="help"
      ref={dialog}
      aria-labelledby="help-title"
      onClose={close}
      onClick={closeOutside}
    >
      {isOpen && (
        <div class="help-sheet">
          <header class="help-head">
            <h2 id="help-title">Help</h2>
            <ThemeMenu />
            <button type="button" onClick={close}>
              Close
            </button>
          </header>
          <div class="help-columns">
            <Views />
            <Keys />
            <Figures />
            <Data />
          </div>
        </div>
      )}
    </dialog>
  );
}

const PURPOSES: readonly (readonly [keyof typeof VIEW_NAMES, string])[] = [
  ["matrix", "Every head of the model as a small map. Sort, tint, search; a click enters a head."],
  ["single", "One head's map. A query near a key: the head gives that key a high score."],
  ["sentence", "One sequence's attention, token by token; hide tokens, compare all heads."],
  ["image", "One picture's attention, patch by patch."],
  ["table", "The sequences that the model read: filter, sort, select."],
  ["sql", "Any question to the atlas's tables; the answer can become the selection."],
];

function Views() {
  const shown = PURPOSES.filter(([view]) => view !== "image" || hasImages.value);
  return (
    <Section title="Views">
      <Terms terms={shown.map(([view, purpose]) => [VIEW_NAMES[view], purpose])} />
      <p>
        <span class="dot-query" aria-hidden="true" /> A query is what a token looks for,{" "}
        <span class="dot-key" aria-hidden="true" /> a key is what it offers; every token has both in
        every head. The address holds all that is in sight: Share copies it, the back button goes
        back.
      </p>
    </Section>
  );
}

function Keys() {
  return (
    <Section title="Keys">
      <table class="help-keys">
        <thead class="unseen">
          <tr>
            <th scope="col">Key</th>
            <th scope="col">What it does</th>
          </tr>
        </thead>
        <tbody>
          {listOnce(shortcuts.value).map(({ key, what }) => (
            <tr key={`${key} ${what}`}>
              <th scope="row">
                <kbd>{nameKey(key)}</kbd>
              </th>
              <td>{what}</td>
            </tr>
          ))}
        </tbody>
      </table>
      <h4>Pointer</h4>
      <Terms terms={GESTURES} />
    </Section>
  );
}

const GESTURES: readonly (readonly [string, string])[] = [
  ["Wheel, pinch", "Zoom at the pointer"],
  ["Drag", "Move the map; turn it in 3-D"],
  ["Shift + drag", "Select what lies in a box"],
  ["Alt + drag", "Select by lasso"],
  ["Click", "A head, a point, a token: more about it"],
];

/** Each key once with what it does now: two panes register the same. */
export function listOnce(registered: readonly Shortcut[]): readonly Shortcut[] {
  return [...new Map(registered.map((one) => [one.key, one])).values()];
}

const KEY_NAMES: Readonly<Record<string, string>> = {
  ArrowLeft: "←",
  ArrowRight: "→",
  ArrowUp: "↑",
  ArrowDown: "↓",
  " ": "Space",
  Escape: "Esc",
};

function nameKey(key: string): string {
  const parts = key === "+" ? ["+"] : key.split("+");
  return parts.map((part) => KEY_NAMES[part] ?? part).join(" + ");
}

function Figures() {
  const columns = useLoaded((signal) => loadColumns("maps", signal), []);
  const known = measures.value.filter((name) => MEASURES[name] !== undefined);
  const figures = [...FIGURES, ...HELD_OUT].map(
    ({ name, label }) => [`${label} (${name})`, findMeaning(columns.value, name)] as const,
  );
  return (
    <Section title="Figures">
      <h4>How far a map can be trusted</h4>
      {columns.problem && <Problem problem={columns.problem} />}
      <Terms terms={figures} />
      <h4>Measures of heads</h4>
      <Terms terms={known.map((name) => [name, MEASURES[name] ?? ""])} />
    </Section>
  );
}

function findMeaning(columns: readonly ColumnRow[] | null, name: string): string {
  return columns?.find((column) => column.name === name)?.meaning ?? "";
}

const FACTS = [
  "model",
  "source",
  "revision",
  "architecture",
  "query_model",
  "key_model",
  "n_layers",
  "n_heads",
  "n_kv_heads",
  "d_head",
  "position_encoding",
  "n_sequences",
  "n_tokens",
  "max_length",
  "dtype",
  "precision",
  "special_tokens",
  "part_of_speech",
  "sample_fraction",
  "attention_max_abs_error",
  "attention_stored_max_abs_error",
  "weights_sha256",
] as const;

function Data() {
  const service = useLoaded((signal) => ask<{ service: string }>("v1", {}, signal), []);
  const facts: Readonly<Record<string, unknown>> = { ...model.value };
  const terms = FACTS.filter((name) => facts[name] !== undefined && facts[name] !== null).map(
    (name) => [name, writeFact(facts[name])] as const,
  );
  return (
    <Section title="Data">
      <Terms
        terms={[
          ...terms,
          ["atlas version", listedVersion.value],
          ["service", service.value?.service ?? service.problem?.message ?? ""],
        ]}
      />
    </Section>
  );
}

function writeFact(value: unknown): string {
  if (typeof value !== "number") return String(value);
  return Math.abs(value) < 0.01 && value !== 0 ? value.toPrecision(2) : value.toLocaleString("en");
}

function Section(props: { title: string; children: ComponentChildren }) {
  return (
    <section class="help-section">
      <h3>{props.title}</h3>
      {props.children}
    </section>
  );
}

function Terms(props: { terms: readonly (readonly [string, string])[] }) {
  return (
    <dl class="help-terms">
      {props.terms.map(([term, meaning]) => (
        <div key={term}>
          <dt>{term}</dt> <dd dir="auto">{meaning}</dd>
        </div>
      ))}
    </dl>
  );
}
