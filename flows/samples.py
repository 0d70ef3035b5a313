"""Which sequences a model's maps and measures are made of, and what there is to do for a head.

All heads of a model share one sample: whole sequences in hash order.
"""

from dataclasses import dataclass, field
from json import dumps
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash
from numpy.typing import NDArray

from pipeline.sampling import sample_hash
from pipeline.settings import MapSpec
from store.atlas import Atlas

Ints = NDArray[np.int64]

HELDOUT_SHARE = 0.2
MAX_HELDOUT_TOKENS = 2_500

_CAPTURE = (
    "weights_sha256",
    "tokenizer_sha256",
    "dtype",
    "precision",
    "max_length",
    "special_tokens",
)


@dataclass(frozen=True)
class Sample:
    """Some whole sequences of a model."""

    sequence_ids: Ints
    corpora: str
    """Their corpora, a JSON list."""
    n_tokens: int
    capture: str = ""
    """What they were captured with: a key that was dropped may come back with other weights."""

    @property
    def digest(self) -> str:
        """A token that changes with any sequence and with the capture."""
        ids = self.sequence_ids.astype("<i8").tobytes()
        return xxhash.xxh64_hexdigest(f"{self.capture} {self.n_tokens} ".encode() + ids)


@dataclass(frozen=True)
class Growth:
    """A part to add to a map."""

    part: int
    fit: dict[str, Any]
    """The map's ledger row of part 0."""
    sample: str
    """Digest of the sample that the map covers with this part."""
    displaced: int
    """Sequences on the map that are not in that sample."""


def no_sequences() -> Ints:
    """An array without ids."""
    return np.empty(0, np.int64)


@dataclass(frozen=True)
class HeadJob:
    """One head to map or to measure."""

    model: str
    layer: int
    head: int
    sample: Sample
    """The sequences to read: of a fit or of measures all, of growths those to be added."""
    specs: tuple[MapSpec, ...] = ()
    """Maps to make or to add to; empty for measures."""
    map_ids: tuple[str, ...] = ()
    replaces: tuple[str | None, ...] = ()
    heldout: Ints = field(default_factory=no_sequences)
    """Sequences that are not placed, to judge a fit by."""
    growths: tuple[Growth, ...] = ()
    """What to add to each map; empty where they are to be fitted."""

    @property
    def place(self) -> tuple[str, int, int]:
        """Model, layer and head."""
        return (self.model, self.layer, self.head)


def hash_order(sequences: pa.Table, seed: int) -> Ints:
    """Indices of sequences (columns corpus, source, row) in the order of their hash."""
    columns = [sequences[name].to_pylist() for name in ("corpus", "source", "row")]
    hashes = np.fromiter(
        (
            sample_hash(corpus, source, row, seed)
            for corpus, source, row in zip(*columns, strict=True)
        ),
        dtype=np.uint64,
        count=len(sequences),
    )
    return np.argsort(hashes, kind="stable")


def take_tokens(sequences: pa.Table, order: Ints, max_tokens: int) -> Sample:
    """The first sequences in hash order that together have at most `max_tokens`; at least one."""
    return take(sequences, order[: _count_taken(sequences, order, max_tokens)])


def take_heldout(sequences: pa.Table, order: Ints, max_tokens: int) -> Ints:
    """Ids of the sequences that come after those of `take_tokens`, to judge a map by.

    They have together at most a fifth of the tokens on the map, and at most 2,500.
    """
    n_taken = _count_taken(sequences, order, max_tokens)
    on_map = int(sequences["n_tokens"].to_numpy()[order[:n_taken]].sum())
    rest = order[n_taken:]
    bound = min(MAX_HELDOUT_TOKENS, int(on_map * HELDOUT_SHARE))
    return take(sequences, rest[: _count_within(sequences, rest, bound)]).sequence_ids


def _count_taken(sequences: pa.Table, order: Ints, max_tokens: int) -> int:
    return max(1, _count_within(sequences, order, max_tokens))


def _count_within(sequences: pa.Table, order: Ints, max_tokens: int) -> int:
    """How many sequences from the first on have together at most so many tokens."""
    n_tokens = sequences["n_tokens"].to_numpy()[order]
    return int(np.searchsorted(np.cumsum(n_tokens), max_tokens, side="right"))


def take_sequences(sequences: pa.Table, seed: int, count: int) -> Sample:
    """The first `count` sequences in hash order."""
    return take(sequences, hash_order(sequences, seed)[:count])


def take(sequences: pa.Table, indices: Ints, capture: str = "") -> Sample:
    """The sequences at some rows of the table."""
    taken = sequences.take(pa.array(indices))
    corpora = sorted(set(taken["corpus"].to_pylist()))
    ids = np.sort(taken["sequence_id"].to_numpy())
    return Sample(ids, dumps(corpora), int(pc.sum(taken["n_tokens"]).as_py() or 0), capture)


def name_capture(atlas: Atlas, model: str) -> str:
    """A token of the weights and settings that a model was captured with."""
    rows = atlas.snapshot.rows("models")
    own = rows.filter(pc.equal(rows["model"], model)).select(_CAPTURE).to_pylist()
    return xxhash.xxh64_hexdigest(dumps(own[0] if own else {}, sort_keys=True).encode())


def list_heads(atlas: Atlas, model: str) -> list[tuple[int, int]]:
    """The captured (layer, head) of a model, in order."""
    rows = atlas.snapshot.rows("heads")
    own = rows.filter(pc.equal(rows["model"], model))
    return sorted(
        {(row["layer"], row["head"]) for row in own.select(["layer", "head"]).to_pylist()}
    )
