/** Keys that do something, each registered where it is done; the help sheet lists them. */

import { signal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";

/** A registered key. */
export interface Shortcut {
  /** As `KeyboardEvent.key` has it; `Shift+`, `Alt+` or `Ctrl+` (also for Command) before it. */
  readonly key: string;
  readonly what: string;
  readonly run: () => void;
}

/** What is registered now, the newest last. */
export const shortcuts = signal<readonly Shortcut[]>([]);

/** Register a key while the component is there; the newest of those with one key runs. */
export function useShortcut(key: string, what: string, run: () => void): void {
  const latest = useRef(run);
  latest.current = run;
  useEffect(() => register({ key, what, run: () => latest.current() }), [key, what]);
}

/** Register a key; returns what takes it back. */
export function register(shortcut: Shortcut): () => void {
  shortcuts.value = [...shortcuts.peek(), shortcut];
  return () => {
    shortcuts.value = shortcuts.peek().filter((other) => other !== shortcut);
  };
}

/** Listen for registered keys, but while somebody types or a dialog is open. */
export function followKeys(): () => void {
  const listen = (event: KeyboardEvent) => {
    if (event.defaultPrevented || isTaken(event)) return;
    const shortcut = shortcuts.peek().findLast((one) => isPressed(one.key, event));
    if (!shortcut) return;
    event.preventDefault();
    shortcut.run();
  };
  addEventListener("keydown", listen);
  return () => removeEventListener("keydown", listen);
}

/** Whether an event is the press of a key as `Shortcut.key` writes it. */
export function isPressed(written: string, event: KeyboardEvent): boolean {
  const parts = written === "+" ? ["+"] : written.split("+");
  const key = written.endsWith("++") ? "+" : (parts.at(-1) ?? "");
  const hasControl = event.ctrlKey || event.metaKey;
  if (hasControl !== parts.includes("Ctrl") || event.altKey !== parts.includes("Alt")) return false;
  // Characters such as `?` need Shift on some keyboards, so only named keys ask for it.
  if (key.length > 1 && event.shiftKey !== parts.includes("Shift")) return false;
  return event.key === key;
}

const TYPED_IN =
  "input:not([type=checkbox], [type=radio], [type=button]), textarea, select, [contenteditable]";

function isTaken(event: KeyboardEvent): boolean {
  if (document.querySelector("dialog[open]")) return true;
  const target = event.target;
  if (!(target instanceof Element)) return false;
  if (target.closest(TYPED_IN)) return true;
  if (isScrolled(event, target)) return true;
  return (
    (event.key === "Enter" || event.key === " ") && target.closest("button, a, summary") !== null
  );
}

/** Whether an arrow key scrolls the page or a part of it, which is never taken from whoever reads. */
function isScrolled(event: KeyboardEvent, target: Element): boolean {
  if (!event.key.startsWith("Arrow") || event.shiftKey || event.ctrlKey || event.altKey)
    return false;
  if (target.closest("[role=application]")) return false;
  const isAcross = event.key === "ArrowLeft" || event.key === "ArrowRight";
  for (let at: Element | null = target; at; at = at.parentElement) {
    if (canScroll(at, isAcross)) return true;
  }
  return false;
}

function canScroll(element: Element, isAcross: boolean): boolean {
  const { scrollWidth, clientWidth, scrollHeight, clientHeight } = element;
  const isLarger = isAcross ? scrollWidth > clientWidth : scrollHeight > clientHeight;
  if (!isLarger) return false;
  const style = getComputedStyle(element);
  const overflow = isAcross ? style.overflowX : style.overflowY;
  if (element === document.documentElement) return overflow !== "hidden" && overflow !== "clip";
  return overflow === "auto" || overflow === "scroll";
}
