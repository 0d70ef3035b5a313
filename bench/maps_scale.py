"""Time and memory of one head's map as it grows to a million points.

Run with `make bench-scale`. One head of MiniLM over all sentences of the texts; each map is made
in a process of its own, with fidelity, distortion and drawing order but no held-out sequences, so
that its peak memory is its own. The last line is JSON.
"""

import itertools
import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any, cast

import numpy as np
import torch
import typer

from bench.atlases import make_atlas
from flows.environment import prepare_environment
from flows.samples import hash_order
from pipeline.maps import make_maps, prime_umap
from pipeline.settings import Joint, MapSpec, MethodName
from store.atlas import Atlas

LAYER, HEAD = 2, 5
SIZES = (10_000, 100_000, 1_000_000)
METHODS: tuple[MethodName, ...] = ("attention", "umap", "pca")

app = typer.Typer(add_completion=False)


@app.command()
def measure(
    texts: Annotated[list[Path], typer.Argument(help="Plain text, a paragraph a line.")],
    dims: Annotated[int, typer.Option(help="2 or 3.")] = 2,
) -> None:
    """Make maps of 10,000, 100,000 and 1,000,000 points."""
    prepare_environment()
    uri = make_atlas("scale", texts, layers=[LAYER], heads=[HEAD])
    rows = []
    for method in METHODS:
        for size in SIZES:
            rows.append(measure_apart(uri, method, size, dims))
            print(json.dumps(rows[-1]), flush=True)
    growth = {
        method: [
            round(later["seconds"] / earlier["seconds"] / (later["points"] / earlier["points"]), 2)
            for earlier, later in itertools.pairwise(own)
        ]
        for method in METHODS
        if (own := [row for row in rows if row["method"] == method])
    }
    machine = {"threads": torch.get_num_threads(), "cores": os.cpu_count()}
    print(json.dumps({"bench": "maps_scale", **machine, "rows": rows, "over_linear": growth}))


def measure_apart(uri: str, method: str, points: int, dims: int) -> dict[str, Any]:
    """Make one map in a process of its own."""
    command = [sys.executable, "-m", "bench.maps_scale", "one", uri, method, str(points), str(dims)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return cast(dict[str, Any], json.loads(done.stdout.splitlines()[-1]))


@app.command()
def one(uri: str, method: str, points: int, dims: int) -> None:
    """Make a map and print its time, its peak memory and what was read before it."""
    prepare_environment()
    with Atlas(uri) as atlas:
        known = atlas.sequences("minilm")
        order = hash_order(known, 0)
        total = np.cumsum(known["n_tokens"].to_numpy()[order])
        count = int(np.searchsorted(total, points // 2, side="right"))
        ids = known["sequence_id"].to_numpy()[order[:count]].tolist()
        head = atlas.read_head("minilm", LAYER, HEAD, ids)
    torch.set_num_threads(1)
    prime_umap()
    before = peak_memory_mb()
    joint: Joint = "lift" if method == "attention" else "translate"
    spec = MapSpec(method=cast(MethodName, method), dims=dims, joint=joint)
    (made,) = make_maps(head, [spec])
    if isinstance(made, Exception):
        raise made
    result = {
        "method": method,
        "dims": dims,
        "points": len(made.coordinates),
        "sequences": count,
        "seconds": round(made.seconds, 1),
        "peak_memory_mb": peak_memory_mb(),
        "memory_before_mb": before,
        "score_spearman": made.fidelity.score_spearman,
        "top_key_recall_3": made.fidelity.top_key_recall_3,
    }
    print(json.dumps(result))


def peak_memory_mb() -> int:
    """Peak memory of this process."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


if __name__ == "__main__":
    app()
