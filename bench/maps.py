"""How well maps keep attention and neighbours, and how long they take, beside AttentionViz.

Run with `make bench-maps`. Every head of MiniLM over the same sentences of a text, in one run:
our methods in 2-D and 3-D, then the recipe of AttentionViz (scikit-learn's t-SNE, UMAP, PCA),
rebuilt from its notebooks, then the ceiling of linear maps. Heads go through two processes of one
thread each. Fidelity is that of the table `maps`, and counts apart from the times. The last line
is JSON; a line a head goes to `build/bench/maps.jsonl`.
"""

import json
import os
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from bench.atlases import BUILD, make_atlas
from flows.environment import prepare_environment
from flows.samples import hash_order, list_heads
from pipeline.fidelity import Evaluation
from pipeline.joint import JointSpace, apply_joint, make_joint
from pipeline.maps import METHODS, prime_umap
from pipeline.neighbours import Points
from pipeline.settings import Joint, MapSpec, MethodName
from store.atlas import Atlas
from store.vectors import Floats, HeadVectors, Ints

OURS: tuple[MethodName, ...] = ("pca", "umap", "attention", "tsne")
JOINTS: dict[MethodName, Joint] = {"attention": "lift"}
COUNTED: tuple[MethodName, ...] = ("pca", "umap", "attention")
"""Methods whose times are set against AttentionViz's six; t-SNE is told apart."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """A head to measure."""

    uri: str
    layer: int
    head: int
    fitted: Ints
    heldout: Ints
    reference: bool
    tsne: bool


_open: list[Atlas] = []


def measure(
    text: Annotated[Path, typer.Option(help="Plain text, a paragraph a line.")],
    sequences: Annotated[int, typer.Option(help="Sentences that are fitted.")] = 84,
    heldout: Annotated[int, typer.Option(help="Sentences that are held out.")] = 40,
    heads: Annotated[int, typer.Option(help="Heads, evenly spread; 72 are all.")] = 72,
    reference: Annotated[bool, typer.Option(help="Rebuild AttentionViz's recipe too.")] = True,
    tsne_every: Annotated[
        int, typer.Option(help="t-SNE, ours and theirs, for every so many heads.")
    ] = 6,
    processes: Annotated[int, typer.Option(help="Heads worked on at a time.")] = 2,
) -> None:
    """Measure the maps of MiniLM's heads."""
    prepare_environment()
    os.environ |= {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    uri = make_atlas("maps", [text], sequences + heldout)
    with Atlas(uri) as atlas:
        known = atlas.sequences("minilm")
        ids = known["sequence_id"].to_numpy()[hash_order(known, 0)]
        places = list_heads(atlas, "minilm")
    chosen = [places[int(at)] for at in np.linspace(0, len(places) - 1, heads).round()]
    jobs = [
        Job(uri, *place, ids[:sequences], ids[sequences:], reference, at % tsne_every == 0)
        for at, place in enumerate(chosen)
    ]
    rows = []
    with (
        (BUILD / "maps.jsonl").open("w") as log,
        ProcessPoolExecutor(processes, get_context("spawn"), warm_up) as pool,
    ):
        for done in pool.map(measure_head, jobs):
            rows += done
            log.writelines(json.dumps(row) + "\n" for row in done)
            log.flush()
            print(f"layer {done[0]['layer']}, head {done[0]['head']}", flush=True)
    print_table(rows)
    print(json.dumps(summarise(rows)))


def warm_up() -> None:
    """Import and compile what the first map of a process would."""
    torch.set_num_threads(1)
    random = np.random.default_rng(0)
    vectors = random.normal(size=(4200, 8)).astype(np.float32)  # smaller ones go another way
    for name, dims in RECIPE:
        place_by_recipe(name, dims, vectors)
    prime_umap()


def measure_head(job: Job) -> list[Row]:
    """Everything of one head, a row a map."""
    if not _open:
        _open.append(Atlas(job.uri))
    fitted, heldout = (
        _open[0].read_head("minilm", job.layer, job.head, ids.tolist())
        for ids in (job.fitted, job.heldout)
    )
    judges = judge_of(fitted, fitted), judge_of(heldout, fitted)
    methods = OURS if job.tsne else COUNTED
    rows = list(measure_ours(methods, fitted, heldout, judges))
    if job.reference:
        rows += measure_recipe(RECIPE if job.tsne else RECIPE[2:], fitted, judges[0])
    rows += measure_ceiling(fitted, judges[0])
    return [{"layer": job.layer, "head": job.head, **row} for row in rows]


def judge_of(head: HeadVectors, fitted: HeadVectors) -> Evaluation:
    """The evaluation of some sequences in the `translate` space of the fit."""
    space = apply_joint(head.queries, head.keys, make_joint(fitted, "translate").constants)
    return Evaluation(head, np.concatenate([space.queries, space.keys]))


def measure_ours(
    methods: Sequence[MethodName],
    fitted: HeadVectors,
    heldout: HeadVectors,
    judges: tuple[Evaluation, Evaluation],
) -> Iterator[Row]:
    """Our methods; joint spaces and neighbours are shared and paid for by the first that asks."""
    spaces: dict[Joint, tuple[JointSpace, Points]] = {}
    for method in methods:
        for dims in (2, 3):
            joint: Joint = JOINTS.get(method, "translate")
            spec = MapSpec(method=method, dims=dims, joint=joint)
            start = time.perf_counter()
            if joint not in spaces:
                wanted = 91 if "tsne" in methods else 15  # three times the perplexity
                made_space = make_joint(fitted, joint)
                spaces[joint] = made_space, Points(fitted, made_space, wanted)
            fitted_space, points = spaces[joint]
            made = METHODS[method].fit(points, spec)
            seconds = time.perf_counter() - start
            space = apply_joint(heldout.queries, heldout.keys, fitted_space.constants)
            start = time.perf_counter()
            placed = METHODS[method].transform(made.state, Points(heldout, space, 91), spec)
            row = describe(method, dims, seconds, judges[0], made.coordinates)
            row["transform_seconds"] = time.perf_counter() - start
            yield row | {f"heldout_{k}": v for k, v in asdict(judges[1].measure(placed)).items()}


RECIPE = [(name, dims) for name in ("tsne", "umap", "pca") for dims in (2, 3)]
"""AttentionViz's six projections."""


def place_by_recipe(name: str, dims: int, vectors: Floats) -> Floats:
    """Coordinates as AttentionViz's notebooks make them; float32 (n, dims)."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from umap import UMAP

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if name == "tsne":
            fit = TSNE(dims, perplexity=50, max_iter=300, metric="cosine", random_state=0)
        elif name == "umap":
            fit = UMAP(15, dims, metric="cosine", init="random", random_state=0, n_jobs=1)
        else:
            fit = PCA(dims)
        placed: Floats = fit.fit_transform(vectors)
    return placed


def measure_recipe(
    recipe: Sequence[tuple[str, int]], fitted: HeadVectors, judge: Evaluation
) -> Iterator[Row]:
    """AttentionViz's recipe: its scale and translation, then its six projections."""
    space = make_joint(fitted, "attentionviz")
    vectors = np.concatenate([space.queries, space.keys])
    for name, dims in recipe:
        start = time.perf_counter()
        coordinates = place_by_recipe(name, dims, vectors)
        seconds = time.perf_counter() - start
        yield describe(f"attentionviz {name}", dims, seconds, judge, coordinates)


def measure_ceiling(fitted: HeadVectors, judge: Evaluation) -> Iterator[Row]:
    """The best inner products of 2 and 3 numbers a point: the score matrix's truncated SVD.

    Lifted, so that their order is one of distances; the extra coordinate makes it no map.
    """
    keys = fitted.keys - fitted.keys.mean(axis=0)
    (left, upper), (right, lower) = (
        np.linalg.qr(each.astype(np.float64)) for each in (fitted.queries, keys)
    )
    turn, sizes, back = np.linalg.svd(upper @ lower.T)
    for rank in (2, 3):
        share = np.sqrt(sizes[:rank])
        queries, keys = left @ turn[:, :rank] * share, right @ back[:rank].T * share
        linear = replace(fitted, queries=queries.astype(np.float32), keys=keys.astype(np.float32))
        space = make_joint(linear, "lift")
        yield describe(
            "truncated SVD", rank, 0.0, judge, np.concatenate([space.queries, space.keys])
        )


def describe(name: str, dims: int, seconds: float, judge: Evaluation, coordinates: Floats) -> Row:
    """A row of the log."""
    return {"map": name, "dims": dims, "seconds": seconds, **asdict(judge.measure(coordinates))}


SHOWN = ("score_spearman", "top_key_recall_3", "trustworthiness", "continuity")


def summarise(rows: list[Row]) -> Row:
    """Means and worst heads of every map, and the ratios that matter."""
    result: Row = {"bench": "maps", "heads": len({(row["layer"], row["head"]) for row in rows})}
    for name, dims in dict.fromkeys((row["map"], row["dims"]) for row in rows):
        own = [row for row in rows if (row["map"], row["dims"]) == (name, dims)]
        figures = {"seconds": round(mean(own, "seconds"), 2)}
        for each in SHOWN:
            figures[each] = round(mean(own, each), 3)
            if f"heldout_{each}" in own[0]:
                figures[f"heldout_{each}"] = round(mean(own, f"heldout_{each}"), 3)
        figures["worst_score_spearman"] = round(max(row["score_spearman"] for row in own), 3)
        figures["worst_top_key_recall_3"] = round(min(row["top_key_recall_3"] for row in own), 3)
        result[f"{name} {dims}-D"] = figures
    result |= compare(rows)
    return result


def compare(rows: list[Row]) -> Row:
    """Our six maps against AttentionViz's six: seconds a head, and heads where UMAP is as good."""
    theirs = [row for row in rows if row["map"].startswith("attentionviz")]
    if not theirs:
        return {}
    ours_seconds, their_seconds = (
        sum(mean(select(rows, name, dims), "seconds") for name in names for dims in (2, 3))
        for names in (COUNTED, dict.fromkeys(row["map"] for row in theirs))
    )
    result: Row = {
        "seconds_a_head": [round(ours_seconds, 2), round(their_seconds, 2)],
        "times_faster": round(their_seconds / ours_seconds, 2),
    }
    for figure in ("trustworthiness", "continuity"):
        for dims in (2, 3):
            ours, other = (
                {(r["layer"], r["head"]): r[figure] for r in select(rows, name, dims)}
                for name in ("umap", "attentionviz umap")
            )
            share = np.mean([ours[head] >= other[head] for head in ours])
            result[f"umap_{dims}d_{figure}_as_good"] = round(float(share), 3)
    return result


def select(rows: Iterable[Row], name: str, dims: int) -> list[Row]:
    """The rows of a map."""
    return [row for row in rows if (row["map"], row["dims"]) == (name, dims)]


def mean(rows: list[Row], name: str) -> float:
    """Mean of a figure over heads."""
    return float(np.mean([row[name] for row in rows]))


def print_table(rows: list[Row]) -> None:
    """The figures as a Markdown table."""
    print("| map | s a head | " + " | ".join(SHOWN) + " | held out: ρ, recall |")
    print("|---" * (len(SHOWN) + 3) + "|")
    for name, figures in summarise(rows).items():
        if not isinstance(figures, dict):
            continue
        cells = [f"{figures['seconds']:.2f}"]
        cells += [f"{figures[each]:.3f}" for each in SHOWN]
        cells[1] += f" (worst {figures['worst_score_spearman']:.3f})"
        cells[2] += f" (worst {figures['worst_top_key_recall_3']:.3f})"
        held = [figures.get(f"heldout_{each}") for each in SHOWN[:2]]
        cells.append(", ".join(f"{each:.3f}" for each in held if each is not None) or "–")
        print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    typer.run(measure)
