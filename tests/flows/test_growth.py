"""A corpus that grows: its new sequences find places on maps whose points do not move."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from json import dumps
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flows import growth, head_tasks, samples
from flows.config import RunConfig, load_config
from flows.drop import drop_from_atlas
from flows.growth import find_due_fits
from flows.head_tasks import HeadTask, map_head
from flows.identity import Row
from flows.samples import Ints
from flows.work import find_work
from pipeline.maps import make_maps as fit_maps
from pipeline.sampling import sample_hash
from store.atlas import Atlas
from store.compaction import compact
from store.lake import MAPS, Lake, Unit
from store.scan import read_sequences
from store.schema import TABLES
from store.snapshot import Snapshot, parse_file_name
from tests.flows.tiny_run import make_lines, make_run, run_here, save_model, write_lines
from tests.store.small_shards import add_part, make_lake

HEADS = 8
PCA = {"method": "pca", "dims": 2, "max_tokens": 200}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(autouse=True)
def _order_without_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hash order is the same in whatever folder the corpus lies."""

    def place(corpus: str, source: str, row: int, seed: int) -> int:
        return sample_hash(corpus, Path(source).name, row, seed)

    monkeypatch.setattr(samples, "sample_hash", place)


@pytest.fixture
def config(tmp_path: Path, model: Path) -> RunConfig:
    """A finished run with sequences that are not on the map."""
    config = make_run(tmp_path, model, maps=[PCA], measures=False)
    run_here(config)
    return config


def grow(config: RunConfig, seed: int = 1) -> None:
    """Append lines to the corpus and capture them, without making maps."""
    path = Path(config.corpus.sources[0])
    write_lines(path, [*path.read_text().splitlines(), *make_lines(30, seed)])
    run_here(replace(config, maps=()))


def make_maps(config: RunConfig) -> list[Unit]:
    """What the map stage does, in this process."""
    version = Snapshot.load(config.atlas).version
    made = [
        each
        for job in find_work(config).maps
        for each in map_head(HeadTask(config.atlas, version, job))
    ]
    good = [Unit(each.row, each.files) for each in made if each.row["status"] == "ok"]
    Lake(config.atlas).commit_rows(MAPS, [m.row for m in made if m.row["status"] != "ok"])
    return Lake(config.atlas).commit(MAPS, good)


def ask(config: RunConfig, query: str) -> list[dict[str, Any]]:
    with Atlas(config.atlas) as atlas:
        return list(atlas.sql(query).to_pylist())


def read_files(config: RunConfig, folder: str) -> dict[str, bytes]:
    root = Path(config.atlas) / folder
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in root.rglob("*")
        if path.suffix in (".parquet", ".npz")
    }


def test_new_sequences_are_added_and_old_points_stay(config: RunConfig) -> None:
    points, states = read_files(config, "points"), read_files(config, "_state")
    maps = ask(config, "SELECT map_id, score_spearman FROM current_maps ORDER BY ALL")
    assert len(points) == len(states) == len(maps) == HEADS
    for part in (1, 2):
        grow(config, part)
        assert len(make_maps(config)) == HEADS
        assert find_work(config).is_done
        found = read_files(config, "points")
        assert len(found) == HEADS * (part + 1) and points.items() <= found.items()
        points = found
    found_parts = Counter(parse_file_name(name).number for name in points)
    assert found_parts == {0: HEADS, 1: HEADS, 2: HEADS}
    assert read_files(config, "_state") == states
    assert ask(config, "SELECT map_id, score_spearman FROM current_maps ORDER BY ALL") == maps
    rows = ask(config, "SELECT * FROM maps WHERE part > 0")
    assert all(-1 <= row["score_spearman"] <= 1 and row["n_evaluated"] for row in rows)
    assert all(row["heldout_score_spearman"] is None for row in rows)
    assert {row["replaces"] for row in rows} == {None}


def test_a_map_covers_the_sample_of_the_grown_corpus(config: RunConfig) -> None:
    before = ask(config, "SELECT DISTINCT sequence_id FROM points ORDER BY ALL")
    grow(config)
    (job, *_) = find_work(config).maps
    make_maps(config)
    for map_id in ask(config, "SELECT map_id FROM current_maps"):
        query = f"SELECT DISTINCT part, sequence_id FROM points WHERE map_id = '{map_id['map_id']}'"
        parts: dict[int, set[int]] = {}
        for row in ask(config, query):
            parts.setdefault(row["part"], set()).add(row["sequence_id"])
        assert parts == {
            0: {row["sequence_id"] for row in before},
            1: set(job.sample.sequence_ids.tolist()),
        }


def test_a_prefix_of_the_drawing_order_holds_a_like_share_of_every_part(
    config: RunConfig,
) -> None:
    grow(config)
    make_maps(config)
    query = "SELECT map_id, part, list(rank ORDER BY rank) AS ranks FROM points GROUP BY ALL"
    found = {(row["map_id"], row["part"]): np.array(row["ranks"]) for row in ask(config, query)}
    for (map_id, part), ranks in found.items():
        fitted = found[map_id, 0]
        assert fitted.tolist() == list(range(len(fitted)))
        if part:
            assert ranks.min() == 0 and ranks.max() < len(fitted)
            for share in (0.1, 0.5, 0.9):
                drawn = np.mean(ranks < share * len(fitted))
                assert drawn == pytest.approx(share, abs=1 / len(ranks) + 1 / len(fitted))
    for name, content in read_files(config, "points").items():
        ranks = pq.read_table(pa.BufferReader(content))["rank"].to_pylist()
        assert ranks == sorted(ranks), name


def test_points_of_heads_that_grew_alike_are_read_once(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    grow(config)
    read: list[str] = []
    plain = growth.read_cover

    def count(atlas: Atlas, made: growth.GrownMap) -> Ints:
        read.append(made.map_id)
        return plain(atlas, made)

    monkeypatch.setattr(growth, "read_cover", count)
    assert len(find_work(config).maps) == HEADS
    assert len(read) == 1


def test_a_maps_cover_is_read_from_its_own_merged_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_lake(tmp_path, 3)
    for map_id in ("aa", "bb"):
        for part in range(2):
            add_part(tmp_path, map_id, part)
    compact(str(tmp_path))
    asked: list[str] = []

    def watch(table: str, files: pa.Table, columns: list[str]) -> pa.Table:
        asked.extend(files["path"].to_pylist())
        return read_sequences(table, files, columns)

    monkeypatch.setattr("flows.growth.read_sequences", watch)
    with Atlas(str(tmp_path)) as atlas:
        rows = [row for row in atlas.snapshot.newest_maps().to_pylist() if row["map_id"] == "aa"]
        cover = growth.read_cover(atlas, growth.GrownMap(tuple(rows)))
    assert len(cover) and len(asked) == 1
    assert re.search(r"/c-\d+-aa-\w+\.parquet$", asked[0])


def test_a_head_whose_state_is_missing_fails_alone(config: RunConfig) -> None:
    grow(config)
    (lost, *_) = sorted((Path(config.atlas) / "_state").iterdir())
    (file,) = lost.iterdir()
    content = file.read_bytes()
    file.unlink()
    assert len(make_maps(config)) == HEADS - 1
    (row,) = ask(config, "SELECT * FROM maps WHERE status = 'failed'")
    assert (row["map_id"], row["part"]) == (lost.name, 1)
    assert "is missing" in row["reason"] and "when_grown: fit" in row["reason"]
    (job,) = find_work(config).maps
    assert job.map_ids == (lost.name,)
    file.write_bytes(content)
    assert len(make_maps(config)) == 1
    assert find_work(config).is_done
    assert ask(config, "SELECT count(*) AS n FROM maps WHERE status = 'failed'") == [{"n": 0}]


def test_a_dropped_map_is_fitted_to_all_sequences(config: RunConfig) -> None:
    grow(config)
    make_maps(config)
    name = ask(config, "SELECT map_id FROM current_maps ORDER BY layer, head")[0]["map_id"]
    said = drop_from_atlas(config.atlas, "map", name)
    assert "with 1 added part(s): it is hidden" in said
    assert ask(config, f"SELECT count(*) AS n FROM points WHERE map_id = '{name}'") == [{"n": 0}]
    (unit,) = make_maps(config)
    assert (unit.row["part"], unit.row["replaces"]) == (0, None)
    assert find_work(config).is_done


def test_a_dropped_corpus_leads_to_maps_of_what_is_left(config: RunConfig, tmp_path: Path) -> None:
    write_lines(tmp_path / "more.txt", make_lines(12, seed=3))
    more = load_config(tmp_path / "tiny.yaml", ["corpus={name: more, source: more.txt}"])
    run_here(more)
    maps = ask(config, "SELECT map_id FROM current_maps")
    assert ask(config, "SELECT count(*) AS n FROM maps WHERE part = 1") == [{"n": HEADS}]
    drop_from_atlas(config.atlas, "corpus", "tiny")
    assert {unit.row["part"] for unit in make_maps(more)} == {0}
    rows = ask(config, "SELECT replaces FROM current_maps")
    assert {row["replaces"] for row in rows} == {row["map_id"] for row in maps}
    assert find_work(more).is_done


def test_a_fit_may_be_asked_for_in_place_of_parts(config: RunConfig, tmp_path: Path) -> None:
    grow(config)
    anew = load_config(tmp_path / "tiny.yaml", ["maps.0.when_grown=fit"])
    units = make_maps(anew)
    assert {unit.row["part"] for unit in units} == {0}
    assert find_work(config).is_done and find_work(anew).is_done


def test_held_out_fidelity_is_there_where_sequences_are_not_on_the_map(
    config: RunConfig,
) -> None:
    rows = ask(config, "SELECT * FROM current_maps")
    assert all(-1 <= row["heldout_score_spearman"] <= 1 for row in rows)
    assert all(0 <= row["heldout_top_key_recall_3"] <= 1 for row in rows)
    whole = replace(config, maps=(replace(config.maps[0], max_tokens=10_000),))
    make_maps(whole)
    rows = ask(config, "SELECT * FROM current_maps")
    assert {row["heldout_score_spearman"] for row in rows} == {None}


def test_distortion_is_null_where_it_is_undefined(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoil(*arguments: Any) -> Iterator[Any]:
        for made in fit_maps(*arguments):
            assert not isinstance(made, Exception)
            distortion = np.linspace(0, 1, len(made.coordinates), dtype=np.float32)
            distortion[:3] = np.nan
            yield replace(made, distortion=distortion)

    monkeypatch.setattr(head_tasks, "make_maps", spoil)
    version = Snapshot.load(config.atlas).version
    again = replace(config, maps=(replace(config.maps[0], seed=1),))
    job = find_work(again).maps[0]
    (made,) = map_head(HeadTask(config.atlas, version, job))
    (file,) = made.files
    column = pq.read_table(f"{config.atlas}/points/{file.path}")["distortion"]
    assert column.null_count == 3
    assert not np.isnan(column.drop_null().to_numpy()).any()


# whether a new fit is due


def row_of(part: int, head: int = 0, n: int = 100, **changes: object) -> Row:
    blank = dict.fromkeys(TABLES["maps"].schema.names)
    settings = {"method": "pca", "dims": 2, "joint": "translate"}
    own = {
        "map_id": f"m{head}",
        "part": part,
        "model": "tiny",
        "layer": 0,
        "head": head,
        "method": "pca",
        "dims": 2,
        "parameters": dumps({"settings": settings, "sample": str(part), "displaced": 0}),
        "n_queries": n,
        "n_keys": n,
        "status": "ok",
        "generation": part,
        "score_spearman": -0.5,
        "top_key_recall_3": 0.6,
        "trustworthiness": 0.9,
    }
    return {**blank, **own, **changes}


def due(rows: Sequence[Row]) -> list[str]:
    schema = TABLES["maps"].schema.remove_metadata()
    return find_due_fits(pa.Table.from_pylist(list(rows), schema=schema))


def test_no_fit_is_due_without_parts_or_with_parts_that_fit_in() -> None:
    assert due([]) == due([row_of(0)]) == []
    assert due([row_of(0), row_of(1, score_spearman=-0.41, top_key_recall_3=0.51)]) == []
    assert due([row_of(0), row_of(1, score_spearman=None, trustworthiness=None)]) == []
    assert due([row_of(0, status="dropped"), row_of(1, score_spearman=0.9)]) == []


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"score_spearman": -0.39},
            "score_spearman is -0.39 over the points that were added and -0.50",
        ),
        ({"top_key_recall_3": 0.49}, "top_key_recall_3 is 0.49"),
        ({"trustworthiness": 0.79}, "trustworthiness is 0.79"),
        ({"n_queries": 150}, r"more points were added than fitted \(250 and 200\)"),
    ],
)
def test_a_fit_is_due_when_parts_no_longer_fit_in(changes: Row, reason: str) -> None:
    (note,) = due([row_of(0), row_of(1, **changes)])
    assert reason.replace("\\", "") in note
    assert note.startswith("pca maps in 2-D of tiny (joint translate): a new fit is due, as ")
    assert "`qkatlas run CONFIG.yaml --set maps.0.when_grown=fit`" in note


def test_parts_count_by_their_points_and_held_out_figures_before_the_fits() -> None:
    worse: Row = {"score_spearman": -0.3}
    assert len(due([row_of(0, n=900), row_of(1, n=300, **worse), row_of(2, n=120)])) == 1
    assert due([row_of(0, n=900), row_of(1, n=120, **worse), row_of(2, n=300)]) == []
    assert due([row_of(0), row_of(1, n=99, **worse)]) == []
    assert due([row_of(0, heldout_score_spearman=-0.35), row_of(1, **worse)]) == []


def test_a_series_is_judged_by_the_mean_over_its_heads() -> None:
    bad = [row_of(0, 0), row_of(1, 0, score_spearman=-0.35)]
    good = [row_of(0, 1), row_of(1, 1)]
    assert len(due(bad)) == 1
    assert due([*bad, *good]) == []
    replaced = row_of(0, 2, generation=9, replaces="m0")
    assert due([*bad, replaced]) == []
