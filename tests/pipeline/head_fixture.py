"""Small random heads for the tests of maps, fidelity and measures."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.measures import TokenFacts
from store.attention import HeadFacts
from store.vectors import HeadVectors, Ints, Positions

FIRST_ID = 5 << 32


def make_positions(lengths: Sequence[int]) -> Positions:
    """First and last token of each sequence are special; ids ascend from FIRST_ID."""
    ids = np.repeat(np.arange(len(lengths), dtype=np.int64) + FIRST_ID, lengths)
    position = np.concatenate([np.arange(n, dtype=np.int64) for n in (*lengths, 0)])
    last = np.repeat(np.array(lengths, dtype=np.int64) - 1, lengths)
    return Positions(ids, position, (position == 0) | (position == last))


def make_head(
    lengths: Sequence[int],
    facts: HeadFacts | None = None,
    key_lengths: Sequence[int] | None = None,
    d_head: int = 6,
    seed: int = 0,
) -> HeadVectors:
    random = np.random.default_rng(seed)
    query_at = make_positions(lengths)
    key_at = make_positions(key_lengths if key_lengths is not None else lengths)
    queries = random.normal(size=(len(query_at.position), d_head)) + 0.5
    keys = random.normal(size=(len(key_at.position), d_head)) * 1.5 - 1
    return HeadVectors(
        model="tiny",
        layer=0,
        head=0,
        facts=facts or HeadFacts(scaling=0.4),
        queries=queries.astype(np.float32),
        query_at=query_at,
        keys=keys.astype(np.float32),
        key_at=key_at,
    )


def make_tokens(at: Positions, seed: int = 0) -> TokenFacts:
    random = np.random.default_rng(seed)
    n = len(at.position)
    vocab_id: Ints = random.integers(-1, 4, size=n).astype(np.int64)
    is_punctuation = random.random(n) < 0.3
    tags = random.choice(np.array(["", "NOUN", "VERB"], dtype=np.object_), n)
    return TokenFacts(at.sequence_id, at.position, vocab_id, at.is_special, is_punctuation, tags)


def place_randomly(head: HeadVectors, dims: int = 2) -> NDArray[np.float32]:
    n = len(head.queries) + len(head.keys)
    return np.random.default_rng(7).normal(size=(n, dims)).astype(np.float32)


@dataclass(frozen=True)
class Motion:
    """A turn, a scaling, perhaps a mirroring, and a shift of a 2-D map."""

    angle: float
    size: float
    mirror: bool

    def __call__(self, places: NDArray[np.float64]) -> NDArray[np.float64]:
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        turned = places @ np.array([[cos, -sin], [sin, cos]])
        moved: NDArray[np.float64] = self.size * turned * [-1 if self.mirror else 1, 1] + 1
        return moved


MOTIONS = st.builds(Motion, st.floats(0, 7), st.floats(0.01, 100), st.booleans())
