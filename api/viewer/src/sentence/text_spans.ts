/** A sequence's text cut where its tokens begin and end. */

import type { TokenRow } from "../contract/rows";

/** A piece of text with the positions of the tokens that it holds; none between tokens. */
export interface TextSpan {
  readonly text: string;
  readonly positions: readonly number[];
}

/**
 * The text from the first to the last of some tokens, in pieces.
 *
 * Places of tokens count characters (code points), not the halves that JavaScript's strings have.
 * Tokens of the same characters, such as the bytes of an emoji, share a piece.
 */
export function cutText(text: string, tokens: readonly TokenRow[]): TextSpan[] {
  const characters = Array.from(text);
  const slice = (first: number, end: number) => characters.slice(first, end).join("");
  const spans: TextSpan[] = [];
  let cursor = -1;
  for (const { position, char_start: start, char_end: end } of tokens) {
    if (start === null || end === null || end <= start) continue;
    const last = spans.at(-1);
    if (last && start < cursor) {
      const positions = [...last.positions, position];
      spans[spans.length - 1] = { text: last.text + slice(cursor, end), positions };
    } else {
      if (cursor !== -1 && start > cursor)
        spans.push({ text: slice(cursor, start), positions: [] });
      spans.push({ text: slice(start, end), positions: [position] });
    }
    cursor = Math.max(cursor, end);
  }
  return spans;
}
