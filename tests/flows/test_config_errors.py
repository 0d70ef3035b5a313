"""The configuration, refused: what is wrong is said in words that help, all of it at once."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.config import RunConfig, describe_config, load_config
from store.errors import ConfigError

MINIMAL: dict[str, Any] = {
    "atlas": "./atlas",
    "corpus": {"source": "lines.txt"},
    "model": {"name": "org/some-model"},
}
FULL: dict[str, Any] = {
    "atlas": "./atlas",
    "corpus": {"name": "c", "source": "lines.txt", "text_column": "text", "split": {"window": 9}},
    "model": {
        "name": "org/m",
        "key": "m",
        "revision": "main",
        "dtype": "float32",
        "device": "cpu",
        "trust_remote_code": False,
        "random_seed": 1,
    },
    "capture": {
        "layers": "all",
        "heads": [0],
        "max_length": 64,
        "special_tokens": True,
        "part_of_speech": "en_core_web_sm",
        "precision": "float16",
        "sample": {"sequences": 0.5, "limit": 10, "seed": 0},
        "shard_rows": 10,
        "shard_tokens": 100,
        "batch_tokens": 100,
    },
    "maps": [
        {
            "method": "umap",
            "dims": 2,
            "joint": "translate",
            "max_tokens": 100,
            "seed": 0,
            "n_neighbors": 5,
            "min_dist": 0.1,
            "n_epochs": 10,
            "stability": False,
            "when_grown": "transform",
        }
    ],
    "measures": {"sequences": 10, "seed": 0},
    "workers": {
        "num_cpus": 1,
        "num_gpus": 0,
        "groups": [{"actors": 1, "num_cpus": 1, "num_gpus": 0.5, "resources": {}}],
        "tasks": {"num_cpus": 1, "num_gpus": 0},
        "wait_s": 60,
    },
    "budget_bytes": "1 GB",
}

Load = Callable[..., RunConfig]


@pytest.fixture(name="load")
def _load(tmp_path: Path) -> Load:
    """Load a minimal run with some top-level fields replaced, or other text as it is."""

    def load(text: str | None = None, *overrides: str, **fields: Any) -> RunConfig:
        path = tmp_path / "run.yaml"
        path.write_text(yaml.safe_dump(MINIMAL | fields) if text is None else text, "utf-8")
        return load_config(path, overrides)

    return load


def field_paths(node: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Yield the path of every field of a configuration."""
    if isinstance(node, list):
        for index, entry in enumerate(node):
            yield from field_paths(entry, (*path, index))
    elif isinstance(node, dict):
        for name, value in node.items():
            yield (*path, name)
            yield from field_paths(value, (*path, name))


def test_document_has_every_field_and_its_meaning() -> None:
    rows = [line.split(" | ") for line in describe_config().splitlines() if line.startswith("| `")]
    others = 3  # the stride of a window, the perplexity of tsne, actors without groups
    assert len(rows) == len(list(field_paths(FULL))) + others
    assert all(len(row) == 4 and row[3].rstrip(" |") for row in rows)


@pytest.mark.parametrize("path", list(field_paths(FULL)), ids=lambda p: ".".join(map(str, p)))
@pytest.mark.parametrize("change", [lambda n: n[:-1] + "_", lambda n: n + n[-1]], ids=["_", "xx"])
def test_a_typo_is_refused_with_the_nearest_name(
    load: Load, path: tuple[str | int, ...], change: Callable[[str], str]
) -> None:
    content = yaml.safe_load(yaml.safe_dump(FULL))
    section, name = content, str(path[-1])
    for part in path[:-1]:
        section = section[part]
    section[change(name)] = section.pop(name)
    with pytest.raises(ConfigError) as caught:
        load(yaml.safe_dump(content))
    where = ".".join(map(str, (*path[:-1], change(name))))
    assert f"{where}: unknown field; did you mean '{name}'?" in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        (
            {"capture": {"precison": 1}},
            "capture.precison: unknown field; did you mean 'precision'?",
        ),
        ({"measures": {"x": 1}}, "measures.x: unknown field; known here: sequences, seed"),
        (
            {"capture": {"max_length": "abc"}},
            "capture.max_length: expected an integer of at least 1, got 'abc'",
        ),
        (
            {"capture": {"max_length": 2**40}},
            "capture.max_length: expected an integer of at least 1 and at most 2147483647, "
            "got 1099511627776",
        ),
        ({"capture": {"max_length": True}}, "expected an integer of at least 1, got true"),
        ({"capture": {"max_length": None}}, "got nothing; write a value, or take the field out"),
        ({"capture": {"layers": 3}}, "capture.layers: expected 'all', a range such as '0-5'"),
        ({"capture": {"layers": []}}, "got the list []"),
        ({"capture": {"layers": [0, "0-1"]}}, "capture.layers: index 0 is there twice"),
        ({"capture": {"heads": "5-2"}}, "capture.heads: expected indices from 0 to 9999, rising"),
        ({"capture": {"heads": [-1]}}, "capture.heads: expected indices from 0 to 9999, rising"),
        ({"capture": {"heads": [True]}}, "ranges, got true"),
        (
            {"capture": {"sample": {"sequences": 0}}},
            "capture.sample.sequences: expected a number above 0 and at most 1, got 0",
        ),
        ({"capture": 5}, "capture: expected a mapping (layers, heads,"),
        (
            {"capture": {"special_tokens": "yes"}},
            "capture.special_tokens: expected true or false, got 'yes'",
        ),
        ({"maps": [{"method": "pca", "min_dist": 0.2}]}, "maps.0.min_dist: belongs to method umap"),
        (
            {"maps": [{"dims": 4}]},
            "maps.0.dims: expected 2 or 3, or a list (each entry: 2 or 3), got 4",
        ),
        ({"maps": [{}, {"dims": [3, 2]}]}, "maps.1: the 2-D map of maps.0 again; take one out"),
        ({"maps": {"method": "pca"}}, "got the mapping {'method': 'pca'}"),
        (
            {"maps": [{"method": "som"}]},
            "maps.0.method: expected 'pca', 'umap', 'tsne' or 'attention', got 'som'",
        ),
        ({"maps": [{}, {"when_grown": "fit"}]}, "maps.1: the 2-D map of maps.0 again"),
        ({"maps": [{}, {"stability": True}]}, "maps.1: the 2-D map of maps.0 again"),
        ({"maps": [{"when_grown": "no"}]}, "maps.0.when_grown: expected 'transform' or 'fit'"),
        ({"maps": [{"perplexity": 9}]}, "maps.0.perplexity: belongs to method tsne, not umap"),
        ({"maps": [{"method": "tsne", "n_epochs": 9}]}, "maps.0.n_epochs: belongs to method umap"),
        (
            {"maps": [{"method": "tsne", "perplexity": 1}]},
            "maps.0.perplexity: expected a number of at least 2 and at most 1000, got 1",
        ),
        (
            {"maps": [{"method": "attention", "joint": "translate"}]},
            "maps.0.joint: attention starts from the lifted vectors; take translate out",
        ),
        (
            {"measures": 3},
            "measures: expected true or false, or a mapping (sequences, seed), got 3",
        ),
        (
            {"workers": {"num_gpus": 1.5}},
            "workers.num_gpus: expected a fraction below 1 or a whole",
        ),
        (
            {"workers": {"actors": 2, "groups": [{"actors": 1}]}},
            "workers.actors: the groups say how many; take it out",
        ),
        (
            {"workers": {"groups": [{"resources": {"fast_disk": 0}}]}},
            "workers.groups.0.resources.fast_disk: expected a number above 0",
        ),
        ({"workers": {"num_cpus": float("inf")}}, "workers.num_cpus: expected a number above 0"),
        ({"budget_bytes": "5 parsecs"}, "text such as '20 GB', got '5 parsecs'"),
        ({"budget_bytes": 0}, "budget_bytes: expected bytes (1 or more)"),
        ({"budget_bytes": True}, "got true"),
        ({"corpus": 3}, "corpus: expected a mapping (name, source, text_column, split), got 3"),
        ({"corpus": {}}, "corpus.source: missing; expected text, or a list (each entry: text)"),
        ({"corpus": {"source": []}}, "corpus.source: expected text, or a list"),
        ({"corpus": {"source": "x", "name": "a b"}}, "corpus.name: expected at most 128 letters"),
        ({"corpus": {"source": "日本"}}, "corpus.name: no name can be made from the source"),
        ({"corpus": {"source": "x", "split": "word"}}, "corpus.split: expected 'record', 'line'"),
        (
            {"corpus": {"source": "x", "split": {"stride": 2}}},
            "corpus.split.window: missing; expected an integer of at least 1",
        ),
        (
            {"corpus": {"source": "x", "split": {"window": 4, "stride": 5}}},
            "corpus.split.stride: expected at most the window, 4, or text is lost, got 5",
        ),
        (
            {"corpus": {"source": "x", "split": {"window": 600}}},
            "corpus.split.window: expected at most capture.max_length, 512, got 600",
        ),
        ({"model": {"name": ""}}, "model.name: expected text, got ''"),
        ({"model": {"name": "./日本"}}, "model.key: no key can be made from model.name"),
        ({"model": {"name": "m", "key": "a--b"}}, "model.key: '--' is reserved for the stacks"),
        ({"model": {"name": "m", "key": "-a"}}, "model.key: expected at most 128 letters"),
        (
            {"model": {"name": "m", "revision": 123}},
            "model.revision: expected text, got 123; put text that looks like a number in quotes",
        ),
        (
            {"model": {"name": "m", "device": "cuda:x"}},
            "model.device: expected text such as 'auto'",
        ),
        ({"model": {"name": "m", "dtype": "int8"}}, "model.dtype: expected 'float32', 'float16'"),
        ({"model": {"name": "m", "random_seed": -1}}, "model.random_seed: expected an integer"),
    ],
)
def test_a_wrong_value_is_refused_with_what_is_expected(
    load: Load, fields: dict[str, Any], line: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(**fields)
    message = str(caught.value)
    assert line in message
    assert not any(word in message for word in ("pydantic", "http", "type=", "scalar", "\n\n"))


def test_all_problems_are_listed_at_once(load: Load) -> None:
    with pytest.raises(ConfigError) as caught:
        load(capture={"max_length": 0, "precison": 1}, model={}, budget_bytes="x")
    lines = str(caught.value).splitlines()
    assert lines[0].endswith("run.yaml: 4 problems")
    assert sorted(line.split(":")[0].strip() for line in lines[1:]) == [
        "budget_bytes",
        "capture.max_length",
        "capture.precison",
        "model.name",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "run.yaml: empty; start from a file in examples/"),
        ("# only a comment\n", "empty"),
        ("[1]", r"expected fields such as 'atlas: ./atlas', got the list \[1\]"),
        ("a: 1\nb: [1", "not YAML: line 2, column 6: expected"),
        ("a: 1\n\tb: 2", "line 2, column 1: .*indent with spaces, not with tabs"),
        ("a: *.txt", "line 1, column 5: .*in quotes"),
        ("a: b: c", "put text that has ': ' in it in quotes"),
        ("a: \0", "not YAML: unacceptable character"),
        ("atlas: a\natlas: b", "line 2, column 1: 'atlas' is on line 1 already; keep one"),
        ("corpus: {source: a, 'source': b}", "'source' is on line 1 already"),
        ("a: !!python/object:os.system x", "line 1, column 4: could not determine a constructor"),
        ("a: !!int x", "a number is too long, or a value is not of its tag"),
        ("a: " + "9" * 5000, "a number is too long"),
        ("a: " + "[" * 5000, "nested too deeply"),
        ("a: 1\n---\nb: 2", "line 2, column 1: but found another document"),
        ("1: 2", "1: a field's name must be text; put it in quotes"),
        ("true: 2", "true: a field's name must be text; put it in quotes"),
    ],
)
def test_what_is_no_configuration_is_refused(load: Load, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(text)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: there is no such file; start from"):
        load_config(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(str(tmp_path))
    (tmp_path / "latin.yaml").write_bytes(b"atlas: \xe9")
    with pytest.raises(ConfigError, match="not UTF-8 text"):
        load_config(tmp_path / "latin.yaml")


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("capture.precison=x", "--set capture.precison: unknown field; did you mean 'precision'?"),
        ("captur.precision=x", "--set captur: unknown field; did you mean 'capture'?"),
        ("capture.max_length=abc", "--set capture.max_length: expected an integer of at least 1"),
        (
            "capture.max_length=",
            "--set capture.max_length: expected an integer of at least 1, got n",
        ),
        ("atlas.x=1", "--set atlas: expected text, got the mapping {'x': 1}"),
        ("capture=5", "--set capture: expected a mapping"),
        ("a..b=1", "--set a..b=1: expected path=value, such as --set capture.max_length=256"),
        ("=1", "--set =1: expected path=value"),
        ("capture", "--set capture: expected path=value"),
        ("maps={method: pca", "--set maps={method: pca: not YAML: line 1"),
        ("corpus.source=*.txt", "--set corpus.source=*.txt: not YAML: line 1"),
    ],
)
def test_a_wrong_set_is_refused_by_name(load: Load, override: str, line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(None, override)
    assert line in str(caught.value)


def test_problems_of_the_file_do_not_blame_set(load: Load) -> None:
    with pytest.raises(ConfigError, match=r"run\.yaml: capture\.max_length: expected"):
        load(None, "capture.shard_rows=5", capture={"max_length": 0})


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("atlas", "s3://me:hush@lab/a", "atlas: the URI of s3://lab holds credentials"),
        ("corpus", {"source": "https://me:hush@lab/a.txt"}, "source: .*download the file first"),
        (
            "corpus",
            {"source": ["a.txt", "s3://lab/a?access_key=hush"]},
            r"source\.1: .*AWS_PROFILE",
        ),
    ],
)
def test_a_uri_with_credentials_is_refused(load: Load, field: str, value: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        load(yaml.safe_dump({**MINIMAL, field: value}))
    assert "hush" not in str(caught.value)
