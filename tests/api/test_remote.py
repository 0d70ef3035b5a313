"""`RemoteAtlas` beside the local reads of the same atlas, through a service in its own process."""

import inspect
from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa
import pytest

import qkatlas
from api import connection
from api.remote import RemoteAtlas
from store.atlas import Atlas
from store.errors import LimitError, NotInAtlasError, QueryError, QueryKilledError
from store.filters import Filter
from tests.api.running_service import running_service
from tests.flows.tiny_run import make_run, run_here, save_model

LATE = [Filter("layer", "=", 1), Filter("entropy", "not_null")]
BOX = ((-100.0, 0.0), (-100.0, 100.0))
WORDS = [Filter("token", "in", ["bird", "tree"])]
COLUMNS = ["x", "token", "vocab_id", "position"]


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Atlas]:
    folder = tmp_path_factory.mktemp("run")
    config = make_run(folder, save_model(folder / "model"))
    run_here(config)
    with Atlas(str(config.atlas)) as opened:
        yield opened


@pytest.fixture(scope="module")
def remote(local: Atlas) -> Iterator[RemoteAtlas]:
    with running_service(local.uri) as url, RemoteAtlas(url) as opened:
        yield opened


def first_map(atlas: Atlas | RemoteAtlas) -> str:
    found: str = atlas.maps()["map_id"][0].as_py()
    return found


READS: dict[str, Callable[[Atlas | RemoteAtlas], pa.Table]] = {
    "models": lambda it: it.models(),
    "heads": lambda it: it.heads(),
    "some heads": lambda it: it.heads("tiny", LATE, ["-entropy", "head"]),
    "maps": lambda it: it.maps("tiny"),
    "all maps": lambda it: it.maps(every_part=True),
    "points": lambda it: it.points(first_map(it)),
    "some points": lambda it: it.points(first_map(it), COLUMNS, WORDS, BOX, max_points=100),
    "sequences": lambda it: it.sequences("tiny", "tiny"),
    "sequences with text": lambda it: it.list_sequences("tiny"),
    "one sequence": lambda it: it.sequence("tiny", 7),
    "tokens": lambda it: it.tokens("tiny"),
    "some tokens": lambda it: it.tokens("tiny", [3, 1, 99]),
    "no tokens": lambda it: it.tokens("tiny", []),
    "found tokens": lambda it: it.search("tiny", "S", "prefix", case=False),
    "counted tokens": lambda it: it.count_tokens("tiny", "r", "substring"),
    "nearest keys": lambda it: it.nearest_keys("tiny", 1, 2, 3, 1, k=20),
    "nearest queries": lambda it: it.nearest_queries("tiny", 0, 3, 3, 0),
    "mean attention": lambda it: it.mean_attention("tiny", 1, 0, max_position=5),
    "SQL": lambda it: it.sql("FROM heads WHERE layer = ? ORDER BY ALL", [1]),
    "SQL by name": lambda it: it.sql("FROM heads WHERE layer = $n ORDER BY ALL", {"n": 1}),
    "no rows of SQL": lambda it: it.sql("SELECT 1 AS one LIMIT 0"),
}


@pytest.mark.parametrize("name", READS)
def test_reads_are_those_of_the_local_atlas(name: str, local: Atlas, remote: RemoteAtlas) -> None:
    there, here = READS[name](remote), READS[name](local)
    assert (there.column_names, there.schema.types) == (here.column_names, here.schema.types)
    assert there.equals(here.cast(there.schema))  # SQL does not say which columns have no null


def test_many_pages_are_one_table(
    local: Atlas, remote: RemoteAtlas, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "PAGE_ROWS", 7)
    for name in ("points", "heads", "sequences with text"):
        assert READS[name](remote).equals(READS[name](local))


def test_attention_is_that_of_the_local_atlas(local: Atlas, remote: RemoteAtlas) -> None:
    here, there = local.attention("tiny", 1, 3, 5), remote.attention("tiny", 1, 3, 5)
    assert np.array_equal(here.weights, there.weights)
    assert there.weights.dtype == np.float64
    assert (here.query_tokens, here.key_tokens) == (there.query_tokens, there.key_tokens)


def test_weighed_attention_is_that_of_the_local_atlas(local: Atlas, remote: RemoteAtlas) -> None:
    here, there = (
        it.head_attention("tiny", 0, 1, 5, "value_norm", [1, 2], True) for it in (local, remote)
    )
    assert np.array_equal(here.weights, there.weights)
    assert there.queries.equals(here.queries) and there.keys.equals(here.keys)


def test_matrix_is_that_of_the_local_atlas(local: Atlas, remote: RemoteAtlas) -> None:
    here, there = local.matrix("tiny", "pca"), remote.matrix("tiny", "pca")
    assert (here.dims, here.n_points, here.method) == (there.dims, there.n_points, there.method)
    assert there.tokens.equals(here.tokens) and there.heads.equals(here.heads)


def test_an_answer_beyond_a_limit_is_never_short(remote: RemoteAtlas) -> None:
    query = "SELECT range AS n FROM range(3000)"
    with pytest.raises(LimitError, match="more than the 5 rows"):
        remote.sql(query, max_rows=5)
    with pytest.raises(LimitError, match=r"more than the \d+ rows"):
        remote.sql(query, max_bytes=5_000)
    assert len(remote.sql(query, max_rows=3000, max_bytes=200_000_000)) == 3000


def test_errors_are_those_of_the_local_atlas(local: Atlas, remote: RemoteAtlas) -> None:
    for atlas in (local, remote):
        with pytest.raises(NotInAtlasError, match="no model tony"):
            atlas.heads("tony")
        with pytest.raises(NotInAtlasError, match="no layer 7, head 0 of tiny"):
            atlas.attention("tiny", 7, 0, 0)
        with pytest.raises(QueryError, match="nothing"):
            atlas.sql("FROM nothing")
        with pytest.raises(QueryError, match=r"reads? ?-?only"):
            atlas.sql("DROP VIEW models")
    with pytest.raises(NotInAtlasError, match="no model tony"):
        remote.tokens("tony")
    with pytest.raises(QueryKilledError):
        remote.sql("SELECT count(*) FROM range(1000000) a, range(1000000) b", timeout_s=0.2)


def test_open_gives_either_kind(local: Atlas, remote: RemoteAtlas) -> None:
    with qkatlas.open(local.uri) as here, qkatlas.open(remote.url) as there:
        assert (type(here), type(there)) == (Atlas, RemoteAtlas)
        assert repr(there) == f"RemoteAtlas('{remote.url}')"


def test_methods_are_those_of_the_local_atlas() -> None:
    """A notebook that goes from a folder to a service changes one line."""
    for name, method in inspect.getmembers(RemoteAtlas, inspect.isfunction):
        if not name.startswith("_"):
            known = list(inspect.signature(getattr(Atlas, name)).parameters)
            taken = list(inspect.signature(method).parameters)
            assert taken[: len(known)] == known[: len(taken)], name
