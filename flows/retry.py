"""Planning given-up shards again: ledger rows that the next run takes up.

Maps and measures that failed need none of this: every run tries them again.
"""

from store.errors import NotInAtlasError
from store.lake import SHARDS, Lake
from store.snapshot import Snapshot


def plan_again(uri: str, corpus: str | None = None, model: str | None = None) -> str:
    """Plan the quarantined shards of an atlas again; the attempts that they had are kept.

    Args:
        uri: of the atlas.
        corpus: only shards of this corpus.
        model: only shards of this model key, of a model with several stacks also its key for all.

    Returns:
        A sentence on how many, and what to do next.

    Raises:
        AtlasNotFoundError: there is no atlas.
        NotInAtlasError: no shard of such a corpus or model was ever planned.
    """
    rows = Snapshot.load(uri).newest_shards().to_pylist()
    if corpus is not None:
        rows = _chosen(rows, "corpus", {corpus}, corpus)
    if model is not None:
        keys = {row["model"] for row in rows}
        own = {key for key in keys if key == model or key.startswith(f"{model}--")}
        rows = _chosen(rows, "model", own, model)
    given_up = [row for row in rows if row["status"] == "quarantined"]
    again = [row | {"status": "planned", "reason": None} for row in given_up]
    written = Lake(uri).commit_rows(SHARDS, again) if again else []
    if not written:
        return "no shard is quarantined there: nothing to plan again"
    return (
        f"{len(written):,} shard(s) are planned again; `qkatlas run` with their configuration "
        "captures them"
    )


def _chosen(
    rows: list[dict[str, object]], column: str, wanted: set[str], name: str
) -> list[dict[str, object]]:
    found = [row for row in rows if row[column] in wanted]
    if not found:
        there = ", ".join(sorted({str(row[column]) for row in rows})) or "none"
        raise NotInAtlasError(f"no shard of {column} {name} in the atlas; it holds {there}")
    return found
