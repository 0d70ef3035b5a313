/** Short notices that float over the page. */

import { signal } from "@preact/signals";

/** A notice; one with an action stays until it is answered. */
export interface Notice {
  readonly id: number;
  readonly text: string;
  readonly action: { readonly label: string; readonly run: () => void } | null;
}

const SHOWN_MS = 6_000;
let lastId = 0;

/** The notices in sight, oldest first. */
export const notices = signal<readonly Notice[]>([]);

/** Show a notice; the same text again replaces the one before. */
export function say(text: string, action: Notice["action"] = null): void {
  const id = ++lastId;
  const others = notices.peek().filter((notice) => notice.text !== text);
  notices.value = [...others, { id, text, action }];
  if (!action) setTimeout(() => dismiss(id), SHOWN_MS);
}

/** Take a notice away. */
export function dismiss(id: number): void {
  notices.value = notices.value.filter((notice) => notice.id !== id);
}

/** Take the notice of a text away, where there is one. */
export function dismissText(text: string): void {
  const value = notices.peek();
  if (value.some((notice) => notice.text === text)) {
    notices.value = value.filter((notice) => notice.text !== text);
  }
}
