/** Pages of the table: which one is in sight, and how one comes to those before. */

import { signal } from "@preact/signals";
import { AtlasProblem } from "../contract/client";
import type { Page } from "../contract/rows";

/** Pages that were gone through, the first one's empty cursor left out; of one question. */
interface Trail {
  readonly question: string;
  readonly cursors: readonly string[];
}

const trail = signal<Trail>({ question: "", cursors: [] });

/** The cursors up to the one in sight; null where a link led to it, so that those before are unknown. */
export function findTrail(question: string, cursor: string): readonly string[] | null {
  if (cursor === "") return [];
  if (trail.value.question !== question) return null;
  const index = trail.value.cursors.indexOf(cursor);
  return index < 0 ? null : trail.value.cursors.slice(0, index + 1);
}

/** Note that a page follows the one in sight. */
export function noteNext(question: string, cursor: string, next: string): void {
  const before = findTrail(question, cursor);
  if (before !== null) trail.value = { question, cursors: [...before, next] };
}

/** The page of a cursor; the first one where the service does not take the cursor any more. */
export async function loadPage<Row>(
  cursor: string,
  load: (cursor: string) => Promise<Page<Row>>,
  onStale: () => void,
): Promise<Page<Row>> {
  try {
    return await load(cursor);
  } catch (error) {
    if (cursor === "" || !isAboutCursor(error)) throw error;
    const page = await load("");
    onStale();
    return page;
  }
}

/** A cursor is of one version of the atlas; that of a link may also be cut short. */
function isAboutCursor(error: unknown): boolean {
  return (
    error instanceof AtlasProblem && (error.kind === "stale_version" || error.kind === "bad_query")
  );
}
