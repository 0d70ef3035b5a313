import re
from dataclasses import replace

import pytest

from flows.cluster_plan import USD_PER_GB_MONTH
from flows.scale_table import (
    BERT_BASE,
    LEVERS,
    LLAMA_3_8B,
    PAGE,
    SHAPES,
    SHARD_TOKENS,
    VIT_L,
    Shape,
    fill_page,
    make_case,
    make_tables,
    rough_time,
    scaled,
    write_probe,
)
from store.errors import ConfigError

MINILM = Shape("MiniLM", 6, 12, 12, 32, 22_713_216, 256, "")
EVERYTHING, FOUR_LAYERS = LEVERS[0], LEVERS[2]


def test_the_page_is_made_by_this_code() -> None:
    text = PAGE.read_text("utf-8")
    assert fill_page(text) == text, "write it anew: python -m flows.scale_table"


def test_a_page_without_its_markers_is_refused() -> None:
    text = PAGE.read_text("utf-8").replace("<!-- 1e12: end -->", "")
    with pytest.raises(ValueError, match=r"lacks the markers <!-- 1e12: begin --> and"):
        fill_page(text)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        (BERT_BASE, 2 * 12 * 12 * 64 * 1.78),  # 33 kB
        (MINILM, 2 * 6 * 12 * 32 * 1.78),  # 8.2 kB
        (LLAMA_3_8B, 32 * (32 + 8) * 128 * 1.78),  # 292 kB, keys stored once
        (VIT_L, 2 * 24 * 16 * 64 * 1.78),
    ],
)
def test_bytes_of_a_token_are_those_worked_out_by_hand(shape: Shape, expected: float) -> None:
    assert shape.bytes_per_token() == pytest.approx(expected)


def test_bytes_of_a_token_have_the_size_of_the_design() -> None:
    shapes = (BERT_BASE, MINILM, LLAMA_3_8B)
    assert [f"{shape.bytes_per_token() / 1e3:.3g}" for shape in shapes] == ["32.8", "8.2", "292"]


@pytest.mark.parametrize(
    ("shape", "kind", "settings"),
    [
        (BERT_BASE, "bert", {}),
        (
            LLAMA_3_8B,
            "llama",
            {
                "hidden_size": 4096,
                "intermediate_size": 14336,
                "num_hidden_layers": 32,
                "num_attention_heads": 32,
                "num_key_value_heads": 8,
                "vocab_size": 128256,
            },
        ),
        (
            VIT_L,
            "vit",
            {
                "hidden_size": 1024,
                "intermediate_size": 4096,
                "num_hidden_layers": 24,
                "num_attention_heads": 16,
            },
        ),
    ],
)
def test_shapes_are_those_of_the_models(shape: Shape, kind: str, settings: dict[str, int]) -> None:
    import torch
    from transformers import AutoConfig, AutoModel

    config = AutoConfig.for_model(kind, **settings)
    with torch.device("meta"):
        model = AutoModel.from_config(config)
    counted = sum(
        weights.numel()
        for name, weights in model.named_parameters()
        if kind != "vit" or "pooler" not in name
    )
    assert counted == shape.n_parameters
    assert config.num_hidden_layers == shape.n_layers
    assert config.num_attention_heads == shape.n_heads
    assert getattr(config, "num_key_value_heads", shape.n_heads) == shape.n_kv_heads
    assert config.hidden_size // config.num_attention_heads == shape.d_head


def test_a_patch_of_an_image_is_a_token() -> None:
    assert VIT_L.n_context == (224 // 16) ** 2 + 1


def test_a_billion_tokens_of_bert_are_those_worked_out_by_hand() -> None:
    case = make_case(BERT_BASE, EVERYTHING, 10**9)
    assert case.load.n_bytes == pytest.approx(32.8e12, rel=0.001)
    assert case.load.n_shards == 954  # of 1,048,576 tokens
    assert case.load.n_files == 954 * (12 * 24 + 2)
    assert case.tokens_per_s == pytest.approx(1e9 / 18_432)  # encoding sets the pace
    costs = case.costs(8)
    assert costs.gpu_hours == costs.worker_hours == pytest.approx(18_432 / 3600)
    assert costs.wall_s == pytest.approx(120 / 954 * 18_432)  # 954 shards: 119.25 a node
    assert costs.usd_per_month == pytest.approx(32_809 * USD_PER_GB_MONTH, rel=0.001)


def test_the_device_sets_the_pace_where_little_is_kept() -> None:
    case = make_case(LLAMA_3_8B, FOUR_LAYERS, 10**9)
    flops = 2 * 7_504_924_672 + 4 * 32 * 32 * 128 * 512
    assert LLAMA_3_8B.flops_per_token() == flops
    assert case.tokens_per_s == pytest.approx(0.4 * 989e12 / flops)
    assert case.device_share == 1
    everything = make_case(LLAMA_3_8B, EVERYTHING, 10**9)
    assert everything.device_share == pytest.approx(flops / (0.4 * 989e12) / 163_840e-9)


@pytest.mark.parametrize("shape", SHAPES)
def test_levers_do_what_they_say(shape: Shape) -> None:
    whole, half, layers, sample, *_ = (make_case(shape, lever, 10**12) for lever in LEVERS)
    assert half.load.n_bytes / whole.load.n_bytes == pytest.approx(1.39 / 1.78)
    assert layers.load.n_bytes / whole.load.n_bytes == pytest.approx(4 / shape.n_layers)
    assert sample.load.n_bytes / whole.load.n_bytes == pytest.approx(0.01)
    assert sample.load.n_shards == -(-(10**10) // SHARD_TOKENS)
    assert layers.load.n_shards == whole.load.n_shards


def test_a_changed_shape_shows_in_the_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    before = make_tables()
    monkeypatch.setattr("flows.scale_table.SHAPES", (replace(BERT_BASE, n_layers=13),))
    after = make_tables()
    assert after["1e09"] != before["1e09"] and after["assumptions"] == before["assumptions"]


@pytest.mark.parametrize("name", ["1e09", "1e12", "shapes", "assumptions"])
def test_tables_have_as_many_cells_in_each_row(name: str) -> None:
    lines = make_tables()[name].splitlines()
    assert len({line.count(" | ") for line in lines}) == 1
    assert len(lines) > 4 and not any(re.search(r"\|  +\|", line) for line in lines)


@pytest.mark.parametrize(
    ("n", "text"),
    [(999, "999"), (999.6e3, "1 M"), (1234, "1.23 k"), (32.8e12, "32.8 T"), (2.9e17, "290 P")],
)
def test_numbers_have_three_digits(n: float, text: str) -> None:
    assert scaled(n) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(5, "5 s"), (90, "1.5 min"), (7200, "2 h"), (86_400 * 3, "3 days"), (6.4e7, "2.03 years")],
)
def test_durations_have_one_unit(seconds: float, text: str) -> None:
    assert rough_time(seconds) == text


def test_a_busy_machine_is_not_probed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.getloadavg", lambda: (9.0, 9.0, 9.0))
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    with pytest.raises(ConfigError, match=r"load of this machine is 9.0 on 4 cores"):
        write_probe("nothing.yaml")
