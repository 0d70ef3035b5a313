"""Atlases for benchmarks: a model over plain text, built once and kept below `build/bench`."""

from collections.abc import Mapping, Sequence
from json import dumps
from pathlib import Path

import typer
from rich.console import Console

from flows.config import load_config
from flows.demo import find_weights
from flows.run import run

BUILD = Path("build/bench")


def make_atlas(
    name: str,
    texts: list[Path],
    sequences: int | None = None,
    layers: str | list[int] = "all",
    heads: str | list[int] = "all",
    model: str = "minilm",
    maps: Sequence[Mapping[str, object]] = (),
    measures: bool | Mapping[str, object] = False,
) -> str:
    """Capture sentences of some text files; nothing is done where that was done before.

    Args:
        name: of the folder below `build/bench`.
        texts: plain text, a paragraph a line.
        sequences: most sentences, chosen by hash; None takes all.
        layers: as in a configuration.
        heads: as in a configuration.
        model: of the demonstration: minilm or smollm2.
        maps: as in a configuration.
        measures: as in a configuration.

    Returns:
        The atlas's folder.
    """
    for text in texts:
        if not text.is_file():
            raise typer.BadParameter(f"{text} is no file; give plain text, a paragraph a line")
    BUILD.mkdir(parents=True, exist_ok=True)
    path = BUILD / f"{name}.yaml"
    path.write_text(
        dumps(
            {
                "atlas": name,
                "corpus": {
                    "name": "text",
                    "source": [str(text.resolve()) for text in texts],
                    "split": "sentence",
                },
                "model": {"name": str(find_weights(model)), "key": model},
                "capture": {
                    "max_length": 256,
                    "layers": layers,
                    "heads": heads,
                    "sample": {"limit": sequences},
                },
                "maps": list(maps),
                "measures": measures,
            }
        )
    )
    config = load_config(path)
    run(config, Console(stderr=True))
    return config.atlas
