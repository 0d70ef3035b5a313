/** What a token's own text says: its characters without the tokenizer's marks, punctuation, length. */

/**
 * The token as read: without the marks of word pieces (`##`), of words that begin (`Ġ`, `▁`) and
 * with `Ċ` and `ĉ` as the newline and tab that they stand for.
 */
export function plainToken(token: string): string {
  const bare = token.length > 2 && token.startsWith("##") ? token.slice(2) : token;
  return bare
    .replace(/^[Ġ▁]+/u, "")
    .replaceAll("Ċ", "\n")
    .replaceAll("ĉ", "\t");
}

/** True for tokens of punctuation and symbols alone. */
export function isPunctuation(token: string): boolean {
  return /^[\p{P}\p{S}]+$/u.test(plainToken(token).trim());
}

/** Characters of the token as read, an accent or a surrogate pair counted with its letter. */
export function tokenLength(token: string): number {
  const plain = plainToken(token);
  return [...plain.normalize("NFC")].filter((character) => !/\p{M}/u.test(character)).length;
}
