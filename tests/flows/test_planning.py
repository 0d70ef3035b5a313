"""From corpus to ledger and lake: every row once, however it is cut, ordered, grown or stopped."""

import random
from dataclasses import replace
from json import loads
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import flows.planning
from flows.planning import check_budget, make_plan
from flows.work import find_work
from pipeline.settings import SampleSpec
from store.errors import BudgetError
from store.lake import SHARDS, Lake
from store.snapshot import Snapshot
from tests.flows.small_runs import (
    WordPlanner,
    capture,
    captured,
    drop,
    expected,
    extract,
    ledger,
    make_config,
    ordinals,
    plan,
    planned_shards,
    run,
    with_capture,
    write_source,
)

WORDS = ("red", "bird", "river", "stone", "cloud")


def lines(count: int, seed: int = 0) -> list[str]:
    draw = random.Random(seed)
    return [f"{seed} {row} " + " ".join(draw.choices(WORDS, k=1 + row % 5)) for row in range(count)]


FILES = st.lists(st.lists(st.sampled_from(["", "a", "b c", "d e f g"]), max_size=12), max_size=5)


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(
    files=FILES.filter(any),
    shard_rows=st.integers(1, 20),
    shard_tokens=st.integers(1, 30),
    packed=st.booleans(),
    seed=st.integers(0, 99),
)
def test_any_cut_and_any_order_give_each_row_once(
    tmp_path_factory: pytest.TempPathFactory,
    files: list[list[str]],
    shard_rows: int,
    shard_tokens: int,
    packed: bool,
    seed: int,
) -> None:
    folder = tmp_path_factory.mktemp("run")
    endings = [".gz" if packed and index % 2 else "" for index in range(len(files))]
    names = [f"{index}.txt{ending}" for index, ending in enumerate(endings)]
    for name, content in zip(names, files, strict=True):
        write_source(folder / name, content)
    config = make_config(folder, *names, shard_rows=shard_rows, shard_tokens=shard_tokens)
    if not any(line for content in files for line in content):
        return
    run(config, seed=seed)
    wanted = zip(names, range(len(files)), files, strict=True)
    assert captured(config.atlas) == expected(config, *wanted)
    assert find_work(config).is_done
    for row in ledger(config.atlas):
        assert row["n_rows"] == row["n_sequences"] + row["n_rejects"] + row["n_unsampled"]
        assert row["n_rows"] <= shard_rows


def test_rows_that_cannot_be_read_are_counted_once(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "one"}\nbroken\n{"text": "two"}\n{"other": 1}\n')
    config = make_config(tmp_path, "a.jsonl", shard_rows=2)
    run(config)
    assert [text for *_, text in captured(config.atlas)] == ["one", "two"]
    assert [row["n_rejects"] for row in ledger(config.atlas)] == [1, 1]
    assert find_work(config).is_done


def test_sentences_are_never_torn_between_shards(tmp_path: Path) -> None:
    text = "One two. Three four. Five six. "
    (tmp_path / "a.txt").write_text(f"{text * 3}\n\n{text * 3}\n")
    config = make_config(tmp_path, "a.txt", shard_rows=2)
    corpus = replace(config.corpus, split=replace(config.corpus.split, unit="sentence"))
    config = replace(config, corpus=corpus)
    run(config)
    assert [row["n_rows"] for row in ledger(config.atlas)] == [9, 9]
    assert [row for _, _, _, row, *_ in captured(config.atlas)] == list(range(18))
    assert find_work(config).is_done


# what comes later


def test_new_and_grown_files_are_picked_up_and_only_they(tmp_path: Path) -> None:
    contents = {name: lines(4, seed) for seed, name in enumerate(("a.txt", "b.txt", "c.txt"))}
    for name, content in contents.items():
        write_source(tmp_path / name, content)
    config = make_config(tmp_path, "*.txt", shard_rows=100)
    run(config)
    assert len(ledger(config.atlas)) == 1
    before = {row["shard_id"] for row in ledger(config.atlas)}
    write_source(tmp_path / "b.txt", lines(3, 9), "a")
    write_source(tmp_path / "bb.txt", lines(2, 8))
    work = find_work(config)
    assert [(Path(r.file.source).name, r.first_row) for r in work.new_rows[0].rows] == [
        ("b.txt", 4),
        ("bb.txt", 0),
    ]
    run(config)
    added = [row for row in ledger(config.atlas) if row["shard_id"] not in before]
    assert [loads(row["file_rows"]) for row in added] == [[[1, 4, 6], [3, 0, 1]]]
    assert captured(config.atlas) == expected(
        config,
        ("a.txt", 0, contents["a.txt"]),
        ("b.txt", 1, contents["b.txt"] + lines(3, 9)),
        ("c.txt", 2, contents["c.txt"]),
        ("bb.txt", 3, lines(2, 8)),
    )
    assert find_work(config).is_done


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz"])
def test_a_file_may_grow_while_its_shards_are_still_planned(tmp_path: Path, name: str) -> None:
    write_source(tmp_path / name, lines(5, 1))
    config = make_config(tmp_path, name, shard_rows=2)
    plan(config)
    write_source(tmp_path / name, lines(4, 2), "a")
    plan(config)
    works = planned_shards(config)
    assert len(works) == 5
    write_source(tmp_path / name, lines(1, 3), "a")
    Lake(config.atlas).commit(SHARDS, capture(config, works[4]))
    run(config, seed=4)
    content = lines(5, 1) + lines(4, 2) + lines(1, 3)
    assert captured(config.atlas) == expected(config, (name, 0, content))
    assert find_work(config).is_done


def test_growth_by_blank_lines_is_no_work(tmp_path: Path) -> None:
    write_source(tmp_path / "a.txt", lines(3))
    config = make_config(tmp_path, "a.txt")
    run(config)
    write_source(tmp_path / "a.txt", ["", ""], "a")
    plan(config)
    assert find_work(config).is_done
    assert len(ledger(config.atlas)) == 1


def test_a_raised_limit_goes_on_where_it_ended(tmp_path: Path) -> None:
    write_source(tmp_path / "a.txt", lines(7, 1))
    write_source(tmp_path / "b.txt", lines(5, 2))
    wanted = [("a.txt", 0, lines(7, 1)), ("b.txt", 1, lines(5, 2))]
    config = make_config(tmp_path, "a.txt", "b.txt", shard_rows=3)
    for limit in (4, 7, 9, None):
        config = with_capture(config, sample=SampleSpec(limit=limit))
        run(config)
        assert captured(config.atlas) == expected(config, *wanted)[:limit]
        assert find_work(config).is_done
    config = with_capture(config, sample=SampleSpec(limit=5))
    assert find_work(config).is_done


def test_a_larger_fraction_keeps_what_a_smaller_one_took(tmp_path: Path) -> None:
    write_source(tmp_path / "a.txt", lines(200))
    kept = []
    for fraction in (0.1, 0.4, 1.0):
        config = make_config(tmp_path, "a.txt", key=f"k{fraction}", sample=SampleSpec(fraction))
        run(config)
        own = [row for row in captured(config.atlas) if row[0] == config.model.key]
        kept.append({row[4] for row in own})
        shards = [row for row in ledger(config.atlas) if row["model"] == config.model.key]
        assert sum(row["n_rows"] for row in shards) == 200
    assert kept[0] < kept[1] < kept[2]
    assert len(kept[2]) == 200


# several corpora, models and stacks


def test_two_corpora_and_two_models_share_one_atlas(tmp_path: Path) -> None:
    for seed, name in enumerate(("a.txt", "b.txt")):
        write_source(tmp_path / name, lines(4, seed))
    runs = [
        make_config(tmp_path, "a.txt", "b.txt", key="one", corpus="both", shard_rows=3),
        make_config(tmp_path, "b.txt", key="one", corpus="single"),
        make_config(tmp_path, "b.txt", "a.txt", key="two", corpus="both"),
        make_config(tmp_path, "b.txt", key="two", corpus="single", shard_rows=1),
    ]
    for config in runs:
        run(config)
    assert ordinals(runs[0].atlas) == {
        ("both", "a.txt"): {0},
        ("both", "b.txt"): {1},
        ("single", "b.txt"): {2},
    }
    both = [("a.txt", 0, lines(4, 0)), ("b.txt", 1, lines(4, 1))]
    wanted = [row for c in (runs[0], runs[2]) for row in expected(c, *both)]
    wanted += [row for c in (runs[1], runs[3]) for row in expected(c, ("b.txt", 2, lines(4, 1)))]
    assert captured(runs[0].atlas) == sorted(wanted)
    assert len(Snapshot.load(runs[0].atlas).rows("files")) == 3
    assert all(find_work(config).is_done for config in runs)


def test_stacks_of_a_model_are_planned_together(tmp_path: Path) -> None:
    write_source(tmp_path / "a.txt", lines(4))
    config = make_config(tmp_path, "a.txt", key="t5", shard_rows=3)
    planner = WordPlanner(config, ["t5--decoder", "t5--encoder"])
    run(config, planner)
    assert [row["model"] for row in ledger(config.atlas)] == ["t5--decoder"] * 2 + [
        "t5--encoder"
    ] * 2
    write_source(tmp_path / "a.txt", lines(2, 5), "a")
    run(config, planner)
    assert planner.n_described == 1
    assert len(captured(config.atlas)) == 12
    assert find_work(config).is_done


# dropping


def test_a_dropped_model_can_be_planned_again_with_other_settings(tmp_path: Path) -> None:
    write_source(tmp_path / "a.txt", lines(4))
    config = make_config(tmp_path, "a.txt", shard_rows=3)
    run(config)
    old = {row["shard_id"] for row in ledger(config.atlas)}
    drop(config, model="tiny")
    assert captured(config.atlas) == []
    other = with_capture(config, max_length=64)
    run(other)
    new = {row["shard_id"] for row in ledger(config.atlas) if row["status"] == "done"}
    assert len(new) == 2
    assert not new & old
    assert captured(config.atlas) == expected(config, ("a.txt", 0, lines(4)))
    assert [
        row["max_length"] for row in Snapshot.load(config.atlas).rows("models").to_pylist()
    ] == [64]
    assert find_work(other).is_done


def test_a_dropped_corpus_can_be_planned_again_and_ordinals_are_not_reused(tmp_path: Path) -> None:
    for seed, name in enumerate(("a.txt", "b.txt")):
        write_source(tmp_path / name, lines(3, seed))
    first = make_config(tmp_path, "a.txt", corpus="first")
    second = make_config(tmp_path, "b.txt", corpus="second")
    run(first)
    drop(first, corpus="first")
    run(second)
    old = {row["shard_id"] for row in ledger(first.atlas)}
    run(first)
    assert ordinals(first.atlas) == {("first", "a.txt"): {0}, ("second", "b.txt"): {1}}
    wanted = expected(first, ("a.txt", 0, lines(3, 0))) + expected(
        second, ("b.txt", 1, lines(3, 1))
    )
    assert captured(first.atlas) == wanted
    assert len([row for row in ledger(first.atlas) if row["shard_id"] not in old]) == 1


def test_what_is_dropped_while_a_plan_is_made_is_planned_whole_again(tmp_path: Path) -> None:
    write_source(tmp_path / "a.txt", lines(4, 1))
    config = make_config(tmp_path, "a.txt")
    run(config)
    write_source(tmp_path / "a.txt", lines(2, 2), "a")
    work = find_work(config)
    planner = WordPlanner(config)
    made = make_plan(work.new_rows[0], planner)
    drop(config, corpus="texts")
    flows.planning.commit_plan(config, work, made, planner, Lake(config.atlas))
    run(config)
    assert captured(config.atlas) == expected(config, ("a.txt", 0, lines(4, 1) + lines(2, 2)))


# stops between commits


STOPS = [
    ("_commit_files", 0),
    ("_append_missing", 0),
    ("_append_missing", 1),
    ("_commit_shards", 0),
]


@pytest.mark.parametrize(("step", "nth"), STOPS)
def test_a_plan_that_died_between_commits_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, nth: int
) -> None:
    write_source(tmp_path / "a.txt", lines(5))
    config = make_config(tmp_path, "a.txt", shard_rows=2)
    original, calls = getattr(flows.planning, step), [0]

    def die(*arguments: object) -> object:
        if calls[0] == nth:
            raise KeyboardInterrupt
        calls[0] += 1
        return original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(flows.planning, step, die)
        with pytest.raises(KeyboardInterrupt):
            plan(config)
    planner = WordPlanner(config)
    run(config, planner)
    assert captured(config.atlas) == expected(config, ("a.txt", 0, lines(5)))
    snapshot = Snapshot.load(config.atlas)
    assert {name: len(snapshot.rows(name)) for name in ("files", "models", "heads")} == {
        "files": 1,
        "models": 1,
        "heads": 1,
    }
    assert planner.n_described == (0 if step == "_commit_shards" else 1)
    assert find_work(config).is_done


def test_a_run_over_the_budget_is_refused_with_both_figures(tmp_path: Path) -> None:
    write_source(tmp_path / "a.txt", lines(50))
    config = replace(make_config(tmp_path, "a.txt"), budget_bytes=1000)
    work = find_work(config)
    made = make_plan(work.new_rows[0], WordPlanner(config))
    assert made.bytes == 10 * sum(len(line.split()) for line in lines(50)) + 2 * 100
    with pytest.raises(BudgetError, match=r"about 0\.00 GB, and budget_bytes allows 0\.00 GB"):
        check_budget(config, work, [made])
    check_budget(replace(config, budget_bytes=made.bytes), work, [made])


def test_waiting_shards_count_towards_the_budget(tmp_path: Path) -> None:
    write_source(tmp_path / "a.txt", lines(50))
    config = make_config(tmp_path, "a.txt")
    work = plan(config)
    expected_bytes = sum(row["bytes"] for row in work.planned)
    with pytest.raises(BudgetError, match="would write about"):
        check_budget(replace(config, budget_bytes=expected_bytes - 1), work, [])
    extract(config)
    check_budget(replace(config, budget_bytes=1), find_work(config), [])
