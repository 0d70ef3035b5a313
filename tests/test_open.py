"""`qkatlas.open`: an atlas from Python."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import qkatlas
from store.atlas import Atlas
from store.errors import AtlasNotFoundError, NotInAtlasError, QueryError
from tests.flows.tiny_run import make_run, run_here, save_model


@pytest.fixture(scope="module")
def atlas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Atlas]:
    folder = tmp_path_factory.mktemp("run")
    config = make_run(folder, save_model(folder / "model"))
    run_here(config)
    with qkatlas.open(config.atlas) as opened:
        assert isinstance(opened, Atlas)
        yield opened


def test_sql_gives_an_arrow_table(atlas: Atlas) -> None:
    found = atlas.sql("SELECT count(*) AS n FROM sequences WHERE model = ?", ["tiny"])
    assert isinstance(found, pa.Table)
    assert found.to_pylist() == [{"n": 40}]


def test_relation_is_lazy_and_goes_on_in_duckdb(atlas: Atlas) -> None:
    relation = atlas.relation("SELECT layer, head FROM heads")
    assert relation.filter("layer = 1").aggregate("count(*) AS n").fetchall() == [(4,)]


def test_models_and_heads_say_what_was_captured(atlas: Atlas) -> None:
    (model,) = atlas.models().to_pylist()
    assert (model["model"], model["architecture"], model["d_head"]) == ("tiny", "BertModel", 8)
    assert model["attention_stored_max_abs_error"] < 5e-3
    heads = atlas.heads("tiny").to_pylist()
    assert [(row["layer"], row["head"]) for row in heads] == [
        (layer, head) for layer in range(2) for head in range(4)
    ]
    assert all(row["entropy"] is not None for row in heads)


def test_attention_has_a_row_a_query_that_sums_to_one(atlas: Atlas) -> None:
    (row,) = atlas.sql("SELECT * FROM sequences ORDER BY sequence_id LIMIT 1").to_pylist()
    found = atlas.attention("tiny", 1, 3, row["sequence_id"])
    assert found.weights.shape == (row["n_tokens"], row["n_tokens"])
    assert np.allclose(found.weights.sum(axis=1), 1)
    assert found.query_tokens == found.key_tokens
    assert found.query_tokens[0] == "[CLS]"
    assert found.query_tokens[1:-1] == row["text"].split()


def test_what_is_not_there_is_named(atlas: Atlas) -> None:
    with pytest.raises(NotInAtlasError, match=r"no model tony .* nearest: tiny"):
        atlas.heads("tony")
    with pytest.raises(NotInAtlasError, match="no layer 7, head 0 of tiny"):
        atlas.attention("tiny", 7, 0, 0)
    with pytest.raises(QueryError, match="nothing"):
        atlas.sql("FROM nothing")


def test_no_atlas_is_said_with_the_next_step(tmp_path: Path) -> None:
    with pytest.raises(AtlasNotFoundError, match="build one with `qkatlas run`"):
        qkatlas.open(str(tmp_path))
