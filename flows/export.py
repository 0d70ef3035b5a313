"""Exporting maps from an atlas: which ones, and in which format."""

from dataclasses import dataclass
from pathlib import Path

from store.atlas import Atlas
from store.errors import ConfigError, NotInAtlasError
from store.export import Format, export_points

SUFFIXES: dict[str, Format] = {
    ".parquet": "parquet",
    ".duckdb": "duckdb",
    ".db": "duckdb",
    ".csv": "csv",
}

_CHOSEN = """
SELECT map_id FROM current_maps
WHERE model = coalesce($model, model) AND layer = coalesce($layer, layer)
    AND head = coalesce($head, head) AND method = coalesce($method, method)
    AND dims = coalesce($dims, dims)
ORDER BY model, layer, head, method, dims, map_id
"""


@dataclass(frozen=True)
class MapChoice:
    """Which current maps to export; None is any."""

    model: str | None = None
    layer: int | None = None
    head: int | None = None
    method: str | None = None
    dims: int | None = None


def export_maps(
    uri: str, target: Path, map_ids: list[str], choice: MapChoice, format: str | None = None
) -> str:
    """Write the points of maps, with their tokens, into one new file.

    Args:
        uri: of the atlas.
        target: the file; its suffix names the format where `format` does not.
        map_ids: the maps, replaced ones too; empty to go by `choice`.
        choice: of the current maps.
        format: `parquet`, `duckdb` or `csv`.

    Returns:
        A sentence on what was written.

    Raises:
        ConfigError: no format, both ways of choosing at once, or the file is there already.
        NotInAtlasError: there is no such map.
    """
    chosen = _find_format(target, format)
    if map_ids and choice != MapChoice():
        raise ConfigError("name maps with --map, or choose them by model, layer, …; not both")
    with Atlas(uri) as atlas:
        found = map_ids or atlas.ask(_CHOSEN, vars(choice))["map_id"].to_pylist()
        if not found:
            raise NotInAtlasError(
                f"no current map in {uri} is like that: `qkatlas status --atlas {uri}` lists them"
            )
        n_rows = export_points(atlas, found, target, chosen)
    return f"{n_rows:,} points of {len(found):,} map(s) are in {target}"


def _find_format(target: Path, format: str | None) -> Format:
    """The format that is asked for, or that the file's name says."""
    known = {str(name): name for name in SUFFIXES.values()}
    found = known.get(format) if format else SUFFIXES.get(target.suffix.lower())
    if found is None:
        raise ConfigError(
            f"{format or target}: which format? write OUT.parquet, OUT.duckdb or OUT.csv, or name "
            f"it with --format {', '.join(known)}"
        )
    return found
