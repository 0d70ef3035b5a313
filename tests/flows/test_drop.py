from pathlib import Path

import pytest

from flows.config import RunConfig, load_config
from flows.drop import Kind, drop_from_atlas
from flows.work import find_work
from store.atlas import Atlas
from store.errors import AtlasNotFoundError, CaptureConflictError, NotInAtlasError
from tests.flows.tiny_run import make_lines, make_run, run_here, save_model, write_lines

HEADS = 8


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def config(tmp_path: Path, model: Path) -> RunConfig:
    """A finished run."""
    config = make_run(tmp_path, model)
    run_here(config)
    return config


def count(config: RunConfig, *tables: str) -> list[int]:
    with Atlas(config.atlas) as atlas:
        return [atlas.sql(f"SELECT count(*) AS n FROM {t}")["n"][0].as_py() for t in tables]


def test_dropped_model_is_hidden_at_once(config: RunConfig) -> None:
    said = drop_from_atlas(config.atlas, "model", "tiny")
    assert said.startswith("dropped tiny: 1 shard(s) and 8 map(s) are hidden")
    names = ("models", "heads", "sequences", "tokens", "queries", "points", "current_maps")
    assert count(config, *names, "measures") == [0] * 8


def test_dropped_model_can_be_captured_again_with_other_weights(
    config: RunConfig, tmp_path: Path
) -> None:
    other = save_model(tmp_path / "other", seed=1)
    changed = load_config(tmp_path / "tiny.yaml", [f"model.name={other}"])
    with pytest.raises(CaptureConflictError, match="qkatlas drop --model tiny"):
        find_work(changed)
    with Atlas(config.atlas) as atlas:
        before = atlas.sql("SELECT x, y FROM points ORDER BY ALL")
    drop_from_atlas(config.atlas, "model", "tiny")
    run_here(changed)
    assert count(config, "models", "sequences", "current_maps") == [1, 40, HEADS]
    with Atlas(config.atlas) as atlas:
        assert atlas.sql("SELECT x, y FROM points ORDER BY ALL") != before
    assert find_work(changed).is_done


def test_dropping_a_model_twice_does_no_harm(config: RunConfig) -> None:
    drop_from_atlas(config.atlas, "model", "tiny")
    with pytest.raises(NotInAtlasError, match="no model tiny in the atlas; it holds none"):
        drop_from_atlas(config.atlas, "model", "tiny")


def test_dropped_corpus_leaves_the_others(config: RunConfig, tmp_path: Path) -> None:
    write_lines(tmp_path / "more.txt", make_lines(12, seed=3))
    more = load_config(tmp_path / "tiny.yaml", ["corpus={name: more, source: more.txt}"])
    run_here(more)
    assert count(config, "sequences", "models") == [52, 1]
    said = drop_from_atlas(config.atlas, "corpus", "tiny")
    assert said.startswith("dropped corpus tiny: 1 shard(s) are hidden; the bytes")
    assert count(config, "sequences", "models") == [12, 1]
    run_here(config)
    assert count(config, "sequences", "models", "current_maps") == [52, 1, HEADS]


def test_dropped_corpus_takes_models_with_it_that_have_nothing_left(config: RunConfig) -> None:
    said = drop_from_atlas(config.atlas, "corpus", "tiny")
    assert "and tiny with 8 map(s), of which nothing is left" in said
    assert count(config, "sequences", "models", "current_maps", "measures") == [0, 0, 0, 0]


def test_dropped_map_is_made_again_by_the_next_run(config: RunConfig) -> None:
    with Atlas(config.atlas) as atlas:
        name = atlas.sql("SELECT map_id FROM current_maps ORDER BY layer, head")["map_id"][0]
    said = drop_from_atlas(config.atlas, "map", name.as_py())
    assert "(pca in 2-D of tiny, layer 0, head 0)" in said
    assert count(config, "current_maps") == [HEADS - 1]
    run_here(config)
    assert count(config, "current_maps") == [HEADS]


def test_stacks_of_a_model_are_dropped_by_their_common_key(tmp_path: Path) -> None:
    folder = save_model(
        tmp_path / "t5",
        "t5",
        d_model=32,
        d_kv=8,
        d_ff=64,
        num_hidden_layers=1,
        num_heads=4,
        num_decoder_layers=1,
    )
    config = make_run(tmp_path, folder, maps=[], measures=False)
    run_here(config)
    assert count(config, "models", "heads") == [3, 12]
    said = drop_from_atlas(config.atlas, "model", "tiny--encoder")
    assert said.startswith("dropped tiny--cross and tiny--encoder: 2 shard(s)")
    said = drop_from_atlas(config.atlas, "model", "tiny")
    assert said.startswith("dropped tiny--decoder: 1 shard(s)")
    assert count(config, "models", "heads", "sequences") == [0, 0, 0]


@pytest.mark.parametrize(
    ("kind", "there"),
    [("model", "holds tiny"), ("corpus", "holds tiny"), ("map", "holds [0-9a-f]{16}")],
)
def test_unknown_name_is_refused_with_what_there_is(
    config: RunConfig, kind: Kind, there: str
) -> None:
    with pytest.raises(NotInAtlasError, match=f"no {kind} tony in the atlas; it {there}"):
        drop_from_atlas(config.atlas, kind, "tony")


def test_no_atlas_is_said(tmp_path: Path) -> None:
    with pytest.raises(AtlasNotFoundError, match="no atlas at"):
        drop_from_atlas(str(tmp_path / "none"), "model", "tiny")
