/** Places of tokens: what a point on a map stands for, and sets of them that all views share. */

/** Which vector of a token: what asks, or what is asked. */
export type Kind = "query" | "key";

/** One vector of one token, on whatever map. */
export interface Place {
  readonly kind: Kind;
  readonly sequenceId: number;
  readonly position: number;
}

/** A set of places; fast enough to be asked for each of a million points. */
export class PlaceSet {
  readonly #bySequence = new Map<number, Set<number>>();
  #size = 0;

  /** How many places it holds. */
  get size(): number {
    return this.#size;
  }

  /** Add a place; `isQuery` 1 for queries and 0 for keys, as point sets hold it. */
  add(isQuery: number, sequenceId: number, position: number): void {
    let places = this.#bySequence.get(sequenceId);
    if (!places) {
      places = new Set();
      this.#bySequence.set(sequenceId, places);
    }
    const before = places.size;
    places.add(position * 2 + isQuery);
    this.#size += places.size - before;
  }

  /** True where the place is in it. */
  has(isQuery: number, sequenceId: number, position: number): boolean {
    return this.#bySequence.get(sequenceId)?.has(position * 2 + isQuery) ?? false;
  }

  /** The sequences that it touches, ascending. */
  sequences(): number[] {
    return [...this.#bySequence.keys()].sort((a, b) => a - b);
  }

  /** Every place, by sequence and position. */
  *places(): Generator<Place> {
    for (const sequenceId of this.sequences()) {
      const codes = [...(this.#bySequence.get(sequenceId) ?? [])].sort((a, b) => a - b);
      for (const code of codes) {
        const kind: Kind = code % 2 === 1 ? "query" : "key";
        yield { kind, sequenceId, position: Math.floor(code / 2) };
      }
    }
  }
}

/** `q:12:3` for the query of sequence 12 at position 3; keys begin with `k`. */
export function writePlace(place: Place): string {
  return `${place.kind === "query" ? "q" : "k"}:${place.sequenceId}:${place.position}`;
}

/** The place that such a text names; null where it names none. */
export function readPlace(text: string): Place | null {
  const found = /^([qk]):(\d{1,16}):(\d{1,10})$/.exec(text);
  if (!found) return null;
  const [, kind, sequence, position] = found;
  return {
    kind: kind === "q" ? "query" : "key",
    sequenceId: Number(sequence),
    position: Number(position),
  };
}
