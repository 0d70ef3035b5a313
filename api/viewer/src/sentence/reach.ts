/** Which keys a head's mask lets a query attend to. */

import type { HeadRow } from "../contract/rows";

/** Whether a key is in reach of a query; positions count from the start of the sequence. */
export type Reach = (query: number, key: number) => boolean;

/** The reach of a head; null where every key is in reach. */
export function makeReach(head: HeadRow | null): Reach | null {
  if (head === null) return null;
  const window = readWindow(head);
  const isCausal = head.mask === "causal";
  if (!isCausal && window === null) return null;
  return (query, key) => {
    if (isCausal && key > query) return false;
    return window === null || Math.abs(query - key) < window;
  };
}

/** The same in words; empty where every key is in reach. */
export function describeReach(head: HeadRow | null): string {
  if (head === null) return "";
  const parts: string[] = [];
  if (head.mask === "causal") parts.push("causal mask: no query reaches a key after it");
  const window = readWindow(head);
  if (window !== null) parts.push(`window of ${window}: no query reaches a key farther away`);
  return parts.length === 0 ? "" : `Hatched is out of reach (${parts.join("; ")}).`;
}

function readWindow(head: HeadRow): number | null {
  const window = head["window"];
  return typeof window === "number" ? window : null;
}
