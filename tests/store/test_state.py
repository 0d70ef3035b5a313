"""A fitted map's state: written and read as it is, refused where it is missing or damaged."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

from store.atlas import Atlas
from store.errors import AtlasFormatError, ShapeError
from store.snapshot import Snapshot
from store.state import read_state, write_state
from tests.store.full_disk import no_room
from tests.store.lake_fixture import build_atlas

STATE: dict[str, NDArray[Any]] = {
    "axes": np.arange(12, dtype=np.float32).reshape(4, 3),
    "seed": np.array(7),
    "library": np.array("numpy 2"),
}

NAMES = st.from_regex(r"[a-z][a-z_]{0,12}", fullmatch=True)
ARRAYS = st.sampled_from(["f4", "f8", "i4", "i8", "?"]).flatmap(
    lambda dtype: arrays(dtype, array_shapes(min_dims=0, max_dims=3, min_side=0))
)


@settings(max_examples=40, suppress_health_check=list(HealthCheck))
@given(st.dictionaries(NAMES.filter(lambda name: name != "file"), ARRAYS))
def test_a_state_is_read_as_it_was_written(tmp_path: Path, state: dict[str, Any]) -> None:
    found = read_state(str(tmp_path), "m1", write_state(str(tmp_path), "m1", state))
    assert found.keys() == state.keys()
    for name, array in state.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def test_every_state_has_a_file_of_its_own(tmp_path: Path) -> None:
    names = {write_state(str(tmp_path), "m1", STATE) for _ in range(3)}
    assert {path.name for path in (tmp_path / "_state" / "m1").iterdir()} == names
    assert len(names) == 3


def test_an_atlas_may_be_a_uri(tmp_path: Path) -> None:
    name = write_state(tmp_path.as_uri(), "m1", STATE)
    assert read_state(str(tmp_path), "m1", name).keys() == STATE.keys()
    assert read_state(tmp_path.as_uri(), "m1", name).keys() == STATE.keys()


def test_objects_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ShapeError, match="state's tree holds objects; expected numbers or text"):
        write_state(str(tmp_path), "m1", {"tree": np.array([object()])})
    assert not (tmp_path / "_state").exists()


def test_a_missing_state_is_said(tmp_path: Path) -> None:
    with pytest.raises(AtlasFormatError, match=r"state of map m1 is missing .*when_grown: fit"):
        read_state(str(tmp_path), "m1", "state-00000000.npz")


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: b"not a zip",
        lambda content: content[: len(content) // 2],
        lambda content: content.replace(b"NUMPY", b"NUMPI"),
        lambda content: content[:140] + bytes([content[140] ^ 1]) + content[141:],
    ],
    ids=["empty", "text", "cut", "header", "bit"],
)
def test_a_damaged_state_is_said(tmp_path: Path, damage: Any) -> None:
    name = write_state(str(tmp_path), "m1", STATE)
    path = tmp_path / "_state" / "m1" / name
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(AtlasFormatError, match=r"state of map m1 is damaged .*when_grown: fit"):
        read_state(str(tmp_path), "m1", name)


def test_pickled_objects_are_not_loaded(tmp_path: Path) -> None:
    name = write_state(str(tmp_path), "m1", STATE)
    np.savez(tmp_path / "_state" / "m1" / name, tree=np.array([object()]))
    with pytest.raises(AtlasFormatError, match=r"damaged .*allow_pickle=False"):
        read_state(str(tmp_path), "m1", name)


def test_readers_pass_states_by(tmp_path: Path) -> None:
    atlas = tmp_path / "atlas"
    build_atlas(atlas, ordinals=[0])
    before = Snapshot.load(str(atlas)).version
    write_state(str(atlas), "m1", STATE)
    with Atlas(str(atlas)) as opened:
        assert opened.snapshot.version == before
        names = opened.sql("SHOW TABLES")["name"].to_pylist()
        assert "_state" not in names and "points" in names
        assert opened.sql("SELECT count(*) AS n FROM queries")["n"][0].as_py() > 0


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    state = {"numbers": np.random.default_rng(0).normal(size=10_000)}
    with pytest.raises(OSError, match=r"'.*_state/m1/state-\w+\.npz'"), no_room(20_000):
        write_state(str(tmp_path), "m1", state)
