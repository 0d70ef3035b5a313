/** Tokens as they are shown: what has no form of its own gets one, what is too long is cut. */

const MOST_CHARACTERS = 24;

/** Written for a token that has no text, such as a patch. */
export const WITHOUT_TEXT = "–";

/** The text of a token with spaces, line ends and control characters made visible. */
export function showToken(token: string | null): string {
  if (token === null) return WITHOUT_TEXT;
  if (token === "") return "∅";
  const isSpace = (character: string | undefined) => character === undefined || character === " ";
  const characters = Array.from(token);
  return characters
    .map((character, i) => {
      // A single space between words is seen without help.
      const isPlain =
        character === " " && !isSpace(characters[i - 1]) && !isSpace(characters[i + 1]);
      return isPlain ? character : showCharacter(character);
    })
    .join("");
}

/** The same, cut to what a row of a list has room for. */
export function shortToken(token: string | null, most = MOST_CHARACTERS): string {
  const characters = Array.from(showToken(token));
  if (characters.length <= most) return characters.join("");
  return `${characters.slice(0, most - 1).join("")}…`;
}

const NAMED: Readonly<Record<string, string>> = {
  " ": "␠",
  "\n": "⏎",
  "\t": "⇥",
  "\r": "␍",
  "\u007f": "␡",
  "\u00a0": "⍽",
};

function showCharacter(character: string): string {
  const named = NAMED[character];
  if (named !== undefined) return named;
  const code = character.codePointAt(0) ?? 0;
  if (code < 0x20) return String.fromCodePoint(0x2400 + code);
  return isInvisible(code) ? `‹${code.toString(16).padStart(4, "0")}›` : character;
}

/** C1 controls and marks that only steer; joiners stay, as scripts and emoji are made with them. */
function isInvisible(code: number): boolean {
  const isControl = code >= 0x80 && code <= 0x9f;
  const isSteering = code === 0x200e || code === 0x200f || (code >= 0x202a && code <= 0x202e);
  const isIsolating = code >= 0x2066 && code <= 0x2069;
  return isControl || isSteering || isIsolating || code === 0x200b || code === 0xfeff;
}

/** A weight as lists show it. */
export function showWeight(weight: number): string {
  if (weight === 0) return "0";
  return weight < 0.0005 ? "<.001" : weight.toFixed(3).replace(/^0/, "");
}
