"""An atlas with words for tokens and maps of a few hundred points, for pages to show."""

from pathlib import Path

import numpy as np

from store.schema import sequence_id
from tests.store.lake_fixture import (
    add_file,
    add_map_row,
    add_model,
    add_shard,
    append_rows,
    create_tables,
    positions,
)

LENGTHS = (24,) * 12
WORDS = ["the", "cat", "sat", "on", "the", "mat", "and", "saw", "a", "dog", "run", "at", "dawn"]
HEADS = 2
"""Heads of layer 0 with a map `m<head>`; other than that of `lake_fixture`."""


def build_worded_atlas(root: Path) -> Path:
    """An atlas of one model, twelve sequences of 24 tokens, and a 2-D map of each of two heads."""
    create_tables(root)
    add_model(root)
    append_rows(root, "files", [{"corpus": "texts", "ordinal": 0, "source": "0.txt", "bytes": 9}])
    tables = ("queries", "keys", "sequences", "rejects")
    add_words(root, add_shard(root, 0, lengths=LENGTHS, tables=tables))
    for head in range(HEADS):
        add_map(root, head)
    return root


def add_words(root: Path, shard: str) -> None:
    """Commit the tokens of a shard: the words in turn, each sequence one further on."""
    at = positions(0, LENGTHS)
    rows = [number - sequence_id(0, 0) for number in at["sequence_id"]]
    words = [
        WORDS[(row + place) % len(WORDS)] for row, place in zip(rows, at["position"], strict=True)
    ]
    special = [place == 0 for place in at["position"]]
    token = ["[CLS]" if first else word for first, word in zip(special, words, strict=True)]
    add_file(
        root,
        "tokens",
        f"s-{shard}-1-n0.parquet",
        {**at, "token": token, "is_special": special},
        {"model": "tiny"},
    )


def add_map(root: Path, head: int) -> None:
    """Commit the map `m<head>`: queries left, keys right, each kind around its own centre."""
    at = positions(0, LENGTHS)
    n = len(at["position"])
    rng = np.random.default_rng(head)
    xy = rng.normal(size=(2 * n, 2)) + np.repeat([[-2.0, 0.0], [2.0, 0.0]], n, axis=0)
    by_rank = rng.permutation(2 * n)
    columns = {
        "sequence_id": at["sequence_id"] * 2,
        "position": at["position"] * 2,
        "map_id": [f"m{head}"] * 2 * n,
        "part": [0] * 2 * n,
        "kind": ["query"] * n + ["key"] * n,
        "x": xy[:, 0].tolist(),
        "y": xy[:, 1].tolist(),
    }
    ordered = {name: [values[i] for i in by_rank] for name, values in columns.items()}
    where = {"model": "tiny", "layer": 0, "head": head}
    add_file(root, "points", f"m-m{head}-0-q.parquet", {**ordered, "rank": range(2 * n)}, where)
    facts = {"layer": 0, "head": head, "method": "pca", "n_queries": n, "n_keys": n}
    add_map_row(root, f"m{head}", 0, "ok", 1, score_spearman=-0.5, **facts)
