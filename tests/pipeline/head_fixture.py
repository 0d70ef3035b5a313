"""Small random heads for the tests of maps, fidelity and measures."""

from collections.abc import Sequence

import numpy as np

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
