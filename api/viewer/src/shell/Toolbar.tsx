import type { ComponentChildren } from "preact";
import { useId } from "preact/hooks";
import "../styles/shell.css";

/** A row of controls above a view. */
export function Toolbar(props: { label?: string; children: ComponentChildren }) {
  return (
    <fieldset class="toolbar" aria-label={props.label ?? "Controls of the view"}>
      {props.children}
    </fieldset>
  );
}

/** One choice of a menu. */
export interface Option<Value extends string = string> {
  readonly value: Value;
  readonly label: string;
  readonly isDisabled?: boolean;
}

/** A labelled menu. */
export function Choice<Value extends string>(props: {
  label: string;
  value: Value;
  options: readonly (Option<Value> | Value)[];
  onChange: (value: Value) => void;
  isDisabled?: boolean;
  title?: string;
}) {
  const id = useId();
  return (
    <span class="choice" title={props.title}>
      <label for={id}>{props.label}</label>
      <select
        id={id}
        value={props.value}
        disabled={props.isDisabled ?? false}
        onChange={(event) => props.onChange(event.currentTarget.value as Value)}
      >
        {props.options.map(toOption).map((option) => (
          <option
            key={option.value}
            value={option.value}
            disabled={option.isDisabled ?? false}
            selected={option.value === props.value}
          >
            {option.label}
          </option>
        ))}
      </select>
    </span>
  );
}

function toOption<Value extends string>(option: Option<Value> | Value): Option<Value> {
  return typeof option === "string" ? { value: option, label: option } : option;
}

/** A labelled checkbox; `title` says why where it is disabled. */
export function Toggle(props: {
  label: string;
  value: boolean;
  onChange: (value: boolean) => void;
  isDisabled?: boolean;
  title?: string;
}) {
  return (
    <label class="toggle" title={props.title}>
      <input
        type="checkbox"
        checked={props.value}
        disabled={props.isDisabled ?? false}
        onChange={(event) => props.onChange(event.currentTarget.checked)}
      />
      {props.label}
    </label>
  );
}

/** A quiet line that moves while something loads, told to screen readers too. */
export function Busy(props: { isLoading: boolean; what?: string }) {
  return (
    <div class="busy" data-loading={props.isLoading ? "yes" : "no"}>
      <span class="unseen" role="status">
        {props.isLoading ? `Loading ${props.what ?? ""}…` : ""}
      </span>
    </div>
  );
}
