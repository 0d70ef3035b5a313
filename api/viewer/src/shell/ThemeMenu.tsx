import { change, state } from "../contract/state";
import { Choice } from "./Toolbar";

const THEMES = [
  { value: "auto", label: "system" },
  { value: "light", label: "light" },
  { value: "dark", label: "dark" },
] as const;

/** Light, dark, or as the system has it. */
export function ThemeMenu() {
  return (
    <Choice
      label="Theme"
      value={state.theme.value}
      options={THEMES}
      onChange={(theme) => change({ theme })}
    />
  );
}
