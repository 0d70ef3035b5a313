"""Dropping a model, a corpus or a map: ledger rows that hide them at once.

The bytes stay until maintenance deletes them. A dropped model's descriptions and measures are
deleted, so that the key is free for another capture.
"""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any, Literal

from store.errors import NotInAtlasError
from store.lake import MAPS, SHARDS, Lake
from store.snapshot import Snapshot

Kind = Literal["model", "corpus", "map"]
Row = dict[str, Any]

_LATER = "the bytes go with the next maintenance"
_SHOWN = 20


def drop_from_atlas(uri: str, kind: Kind, name: str) -> str:
    """Hide a model, a corpus or a map.

    Args:
        uri: of the atlas.
        kind: what to drop.
        name: a model key, of a model with several stacks also the key of all of them; a corpus;
            or a map_id.

    Returns:
        A sentence on what was hidden.

    Raises:
        AtlasNotFoundError: there is no atlas.
        NotInAtlasError: it holds no such thing; the message says what it holds.
    """
    snapshot = Snapshot.load(uri)
    lake = Lake(uri)
    if kind == "model":
        models = _find_models(snapshot, name)
        n_shards, n_maps = _drop_models(lake, snapshot, models, f"qkatlas drop --model {name}")
        return (
            f"dropped {_listed(models)}: {n_shards:,} shard(s) and {n_maps:,} map(s) are hidden; "
            f"{_LATER}; `qkatlas run` may capture it again when no stack of the model is left"
        )
    if kind == "corpus":
        return _drop_corpus(lake, snapshot, name)
    return _drop_map(lake, snapshot, name)


def _find_models(snapshot: Snapshot, name: str) -> set[str]:
    """The model keys that a name stands for, and those whose tokens only these describe.

    Raises:
        NotInAtlasError: there are none.
    """
    rows = snapshot.rows("models").to_pylist()
    live = {row["model"] for row in _live(snapshot.newest_shards().to_pylist())}
    known = live | {row["model"] for row in rows}
    found = {model for model in known if model == name or model.startswith(f"{name}--")}
    if not found:
        raise _unknown("model", name, known)
    return found | {
        row["model"] for row in rows if row["query_model"] in found or row["key_model"] in found
    }


def _drop_models(lake: Lake, snapshot: Snapshot, models: set[str], reason: str) -> tuple[int, int]:
    """Hide shards, then maps, then forget the models; dropping again mends a crash between."""
    shards = [r for r in _live(snapshot.newest_shards().to_pylist()) if r["model"] in models]
    maps = [r for r in _live(snapshot.newest_maps().to_pylist()) if r["model"] in models]
    _hide(lake, shards, maps, reason)
    if models:
        wanted = ", ".join(f"'{model}'" for model in sorted(models))
        for table in ("models", "heads", "measures"):
            lake.drop_rows(table, f"model IN ({wanted})")
    return len(shards), len({row["map_id"] for row in maps})


def _drop_corpus(lake: Lake, snapshot: Snapshot, name: str) -> str:
    live = _live(snapshot.newest_shards().to_pylist())
    shards = [row for row in live if row["corpus"] == name]
    if not shards:
        raise _unknown("corpus", name, {row["corpus"] for row in live})
    reason = f"qkatlas drop --corpus {name}"
    _hide(lake, shards, [], reason)
    left = {row["model"] for row in live if row["corpus"] != name}
    emptied = {row["model"] for row in shards} - left
    _, n_maps = _drop_models(lake, Snapshot.load(lake.uri), emptied, reason)
    also = f", and {_listed(emptied)} with {n_maps:,} map(s), of which nothing is left"
    return (
        f"dropped corpus {name}: {len(shards):,} shard(s) are hidden{also if emptied else ''}; "
        f"{_LATER}; `qkatlas run` makes the maps and measures anew that had its sequences"
    )


def _drop_map(lake: Lake, snapshot: Snapshot, name: str) -> str:
    maps = _live(snapshot.newest_maps().to_pylist())
    own = [row for row in maps if row["map_id"] == name]
    if not own:
        raise _unknown("map", name, {row["map_id"] for row in maps})
    _hide(lake, [], own, f"qkatlas drop --map {name}")
    row, n_parts = own[0], sum(row["part"] > 0 for row in own)
    also = f" with {n_parts} added part(s)" if n_parts else ""
    return (
        f"dropped map {name} ({row['method']} in {row['dims']}-D of {row['model']}, layer "
        f"{row['layer']}, head {row['head']}){also}: it is hidden; {_LATER}"
    )


def _hide(lake: Lake, shards: list[Row], maps: list[Row], reason: str) -> None:
    dropped = {"status": "dropped", "reason": reason}
    if shards:
        lake.commit_rows(SHARDS, [row | dropped for row in shards])
    if maps:
        lake.commit_rows(MAPS, [row | dropped for row in maps])


def _live(rows: Iterable[Row]) -> list[Row]:
    return [row for row in rows if row["status"] != "dropped"]


def _unknown(kind: Kind, name: str, known: set[str]) -> NotInAtlasError:
    """The error for a name that is not there: what is, the nearest first where it is much."""
    near = get_close_matches(name, sorted(known), n=_SHOWN, cutoff=0.0)
    shown = sorted(known) if len(known) <= _SHOWN else near
    more = f" and {len(known) - len(shown):,} more" if len(known) > len(shown) else ""
    there = f"it holds {', '.join(shown)}{more}" if known else "it holds none"
    return NotInAtlasError(f"no {kind} {name} in the atlas; {there}")


def _listed(models: Iterable[str]) -> str:
    return " and ".join(sorted(models))
