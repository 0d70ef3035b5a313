import re
import tempfile
from pathlib import Path

import pytest
import torch

from flows.probe import Probe, WriterRate, _read_again_and_again, probe_machine
from flows.worker import CaptureWorker
from pipeline.corpus import list_sources
from store.errors import ConfigError, SourceNotFoundError
from tests.flows.tiny_run import D_HEAD, N_HEADS, N_LAYERS, make_run, save_model

SECONDS = 0.8


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model"))


def test_a_probe_measures_this_machine_and_leaves_nothing(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    config = make_run(tmp_path, model)
    probe = probe_machine(config, SECONDS)
    assert probe.elements_per_token == 2 * N_LAYERS * N_HEADS * D_HEAD
    assert (probe.device, probe.seconds, probe.one.writers) == ("cpu", SECONDS, 1)
    assert probe.many.writers >= 2
    captured = SECONDS / 4 * (probe.one.tokens_per_s + probe.many.tokens_per_s)
    assert probe.n_tokens >= captured * 0.999 > 0
    assert min(probe.one.elements_per_s, probe.many.elements_per_s) > 0
    assert list(temporary.iterdir()) == [] and not Path(config.atlas).exists()


@pytest.mark.parametrize("n_threads", [1, 3])
def test_a_probe_computes_with_a_workers_threads(
    tmp_path: Path, model: Path, n_threads: int
) -> None:
    seen = set[int]()

    def look(*_: object) -> None:
        seen.add(torch.get_num_threads())

    before = torch.get_num_threads()
    with torch.nn.modules.module.register_module_forward_hook(look):
        probe = probe_machine(make_run(tmp_path, model), 0.1, n_threads)
    torch.set_num_threads(before)
    assert seen == {n_threads} and probe.n_threads == n_threads
    assert probe.writers == max(1, n_threads // 2)


def test_choosing_layers_and_heads_means_fewer_elements(tmp_path: Path, model: Path) -> None:
    capture = {"max_length": 32, "layers": [1], "heads": [0, 2]}
    probe = probe_machine(make_run(tmp_path, model, capture=capture), 0.1)
    assert probe.elements_per_token == 2 * 2 * D_HEAD


def test_a_short_corpus_is_read_again_and_again(tmp_path: Path, model: Path) -> None:
    config = make_run(tmp_path, model, 3)
    extractor = CaptureWorker(config, "text", 1, False).extractor
    source = _read_again_and_again(extractor, list_sources(config.corpus))
    records = [next(source) for _ in range(7)]
    assert [record.sequence_id for record in records] == sorted(
        {record.sequence_id for record in records}
    )
    texts = [record.unit.text for record in records]
    assert texts == (texts[:3] * 3)[:7]


def test_a_corpus_without_text_cannot_be_probed(tmp_path: Path, model: Path) -> None:
    config = make_run(tmp_path, model)
    (tmp_path / "corpus.txt").write_text("\n\n", "utf-8")
    with pytest.raises(ConfigError, match="corpus tiny has no readable row in its sample to probe"):
        probe_machine(config, SECONDS)
    (tmp_path / "corpus.txt").unlink()
    with pytest.raises(SourceNotFoundError, match=re.escape("corpus.txt")):
        probe_machine(config, SECONDS)


def make_probe(one: float, many: float, encoded: float, writers: int) -> Probe:
    rates = WriterRate(1, one, encoded / 2), WriterRate(8, many, encoded)
    return Probe("cpu", 16, 4, 30.0, 1000, 100, *rates, writers=writers)


def test_a_run_is_as_fast_as_the_writers_that_it_has() -> None:
    assert make_probe(10, 50, 1e6, writers=1).tokens_per_s == 10
    assert make_probe(10, 50, 1e6, writers=8).tokens_per_s == 50


def test_what_sets_the_pace_is_told() -> None:
    slow_model = make_probe(10, 50, 1e6, writers=8)
    assert slow_model.encoding_limit == 10_000 and not slow_model.is_storage_bound
    assert make_probe(10, 9000, 1e6, writers=8).is_storage_bound
