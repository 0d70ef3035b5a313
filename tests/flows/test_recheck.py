from pathlib import Path

import numpy as np
import pytest
from deltalake import DeltaTable, write_deltalake
from PIL import Image

from flows.config import RunConfig, load_config
from flows.recheck import verify_atlas
from store.errors import (
    CaptureConflictError,
    CaptureMismatchError,
    NotInAtlasError,
    SourceChangedError,
)
from tests.flows.tiny_run import make_run, run_here, save_model, write_config

STORED = 5e-3
"""Allowed of vectors stored with the precision float16."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def config(tmp_path: Path, model: Path) -> RunConfig:
    config = make_run(tmp_path, model, maps=[], measures=False)
    run_here(config)
    return config


def test_atlas_agrees_with_the_model(config: RunConfig) -> None:
    (found,) = verify_atlas(config, 5)
    assert (found.model, found.n_heads, found.limit) == ("tiny", 8, STORED)
    assert 0 < found.max_abs_error <= STORED
    assert found.n_sequences in (5, 6)
    assert found.n_tokens >= 14 + 4 * 5


def test_more_sequences_than_there_are_means_all(config: RunConfig) -> None:
    (found,) = verify_atlas(config, 10_000)
    assert found.n_sequences == 40


def test_changed_facts_are_found_with_the_place(config: RunConfig) -> None:
    where = f"{config.atlas}/heads"
    heads = DeltaTable(where).to_pyarrow_table().to_pylist()
    for row in heads:
        row["scaling"] *= 30 if (row["layer"], row["head"]) == (1, 2) else 1
    schema = DeltaTable(where).schema().to_arrow()
    import pyarrow as pa

    write_deltalake(where, pa.Table.from_pylist(heads, schema=pa.schema(schema)), mode="overwrite")
    with pytest.raises(
        CaptureMismatchError, match=r"tiny, layer 1, head 2, sequence \d+: .* 5e-03"
    ):
        verify_atlas(config, 5)


def test_other_weights_are_refused(config: RunConfig, tmp_path: Path) -> None:
    other = save_model(tmp_path / "other", seed=1)
    changed = load_config(tmp_path / "tiny.yaml", [f"model.name={other}"])
    with pytest.raises(CaptureConflictError, match="weights_sha256"):
        verify_atlas(changed, 5)


def test_nothing_captured_is_said(tmp_path: Path, model: Path) -> None:
    config = make_run(tmp_path, model)
    with pytest.raises(
        NotInAtlasError, match="holds no captured sequence of tiny: capture it with"
    ):
        verify_atlas(config, 5)


def test_all_stacks_of_an_encoder_decoder_agree(tmp_path: Path) -> None:
    shape = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}
    folder = save_model(tmp_path / "t5", "t5", **shape)
    config = make_run(tmp_path, folder, maps=[], measures=False)
    run_here(config)
    found = verify_atlas(config, 4)
    assert [row.model for row in found] == ["tiny--encoder", "tiny--decoder", "tiny--cross"]
    assert all(0 < row.max_abs_error <= STORED and row.n_heads == 8 for row in found)


def save_clip(folder: Path) -> Path:
    from transformers import CLIPImageProcessorPil

    tower = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
    }
    save_model(
        folder,
        "clip",
        text_config=tower | {"vocab_size": 64, "max_position_embeddings": 64, "eos_token_id": 3},
        vision_config=tower | {"image_size": 32, "patch_size": 8},
        projection_dim=16,
    )
    size = {"height": 32, "width": 32}
    CLIPImageProcessorPil(size=size, crop_size=size, do_center_crop=False).save_pretrained(folder)
    return folder


def test_both_towers_agree_and_a_changed_image_is_refused(tmp_path: Path) -> None:
    folder = save_clip(tmp_path / "clip")
    texts = make_run(tmp_path, folder, maps=[], measures=False)
    run_here(texts)
    (tmp_path / "photos").mkdir()
    draw = np.random.default_rng(0)
    for number in range(4):
        pixels = draw.integers(0, 255, (40, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{number}.png")
    corpus = {"name": "photos", "source": "photos"}
    images = load_config(write_config(tmp_path, folder, corpus=corpus, maps=[], measures=False))
    run_here(images)
    (text,), (image,) = verify_atlas(texts, 4), verify_atlas(images, 2)
    assert (text.model, image.model) == ("tiny--text", "tiny--vision")
    assert image.n_tokens == 17 * image.n_sequences
    assert max(text.max_abs_error, image.max_abs_error) <= STORED
    for number in range(4):
        Image.fromarray(np.zeros((40, 48, 3), np.uint8)).save(tmp_path / f"photos/{number}.png")
    with pytest.raises(SourceChangedError, match=r"\.png changed since it was captured"):
        verify_atlas(images, 2)
