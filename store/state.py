"""What a fitted map keeps so that further sequences find their places on it: named arrays.

A state lies in `_state/<map_id>/` beside the tables, and is none, because nobody asks SQL for it.
No reader looks into the folder, so a state whose map was never committed is harmless.
"""

import secrets
import zlib
from collections.abc import Mapping
from io import BytesIO
from typing import Any, cast
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from store.errors import AtlasFormatError, ShapeError
from store.files import filesystem, join
from store.object_store import ask_again, explained
from store.outgoing import naming

FOLDER = "_state"

_REMEDY = "make a new fit: run once with `when_grown: fit` for this map"


def write_state(uri: str, map_id: str, state: Mapping[str, NDArray[Any]]) -> str:
    """Write a map's state, before its ledger row is committed; returns the name of its file.

    Two runs may fit the same map at the same time and come to other coordinates, so every state
    has a name of its own, and the ledger row of the map says which one belongs to its points.

    Args:
        uri: of the atlas.
        map_id: map.
        state: arrays by name, of numbers or text.

    Raises:
        ShapeError: an array holds objects.
        OSError: it cannot be written; the error names the file.
    """
    for name, array in state.items():
        if array.dtype.hasobject:
            raise ShapeError(f"the state's {name} holds objects; expected numbers or text")
    buffer = BytesIO()
    np.savez(buffer, **dict(state))  # type: ignore[arg-type]
    name = f"state-{secrets.token_hex(4)}.npz"
    where, root = filesystem(uri)
    folder = join(root, FOLDER, map_id)

    def write() -> None:
        with explained(uri), where.open_output_stream(join(folder, name)) as stream:
            stream.write(buffer.getvalue())

    with naming(join(folder, name)):
        where.create_dir(folder, recursive=True)
        ask_again(write)  # the same bytes under the same name: once more does no harm
    return name


def read_state(uri: str, map_id: str, name: str) -> dict[str, NDArray[Any]]:
    """A map's state as it was written.

    Args:
        uri: of the atlas.
        map_id: map.
        name: of the file, as `write_state` gave it.

    Raises:
        AtlasFormatError: the file is missing or damaged.
        ObjectStoreError: its object store does not answer.
    """
    where, root = filesystem(uri)
    path = join(root, FOLDER, map_id, name)

    def read() -> bytes:
        with explained(uri), where.open_input_file(path) as stream:
            return cast(bytes, stream.read())

    try:
        content = ask_again(read)
    except FileNotFoundError as error:
        raise AtlasFormatError(
            f"the state of map {map_id} is missing ({path}), so no sequences can be added to it: "
            f"restore it from a copy, or {_REMEDY}"
        ) from error
    try:
        with np.load(BytesIO(content), allow_pickle=False) as arrays:
            return {key: arrays[key] for key in arrays.files}
    except (ValueError, OSError, EOFError, KeyError, BadZipFile, zlib.error) as error:
        raise AtlasFormatError(
            f"the state of map {map_id} is damaged ({path}: {error}), so no sequences can be added "
            f"to it: restore it from a copy, or {_REMEDY}"
        ) from error
