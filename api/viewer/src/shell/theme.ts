/** Light or dark: as chosen, else as the system has it. */

import { computed, effect, type ReadonlySignal, signal } from "@preact/signals";
import { state } from "../contract/state";

const DARK = "(prefers-color-scheme: dark)";
const systemIsDark = signal(matchMedia(DARK).matches);
matchMedia(DARK).addEventListener("change", (event) => {
  systemIsDark.value = event.matches;
});

/** Whether what is drawn lies on a dark ground. */
export const isDark: ReadonlySignal<boolean> = computed(() =>
  state.theme.value === "auto" ? systemIsDark.value : state.theme.value === "dark",
);

/** Keep `data-theme` of the page as `isDark` says; returns what ends that. */
export function followTheme(): () => void {
  return effect(() => {
    document.documentElement.dataset["theme"] = isDark.value ? "dark" : "light";
  });
}
