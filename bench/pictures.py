"""The pictures of README and `docs/maps.md`, drawn from the demonstration's atlas.

Run with `make pictures` after `make demo`. One head under every method, coloured by kind and by
position; and two heads as the demonstration maps them, with tokens.
"""

from pathlib import Path
from typing import Annotated, Any

import matplotlib as mpl
import numpy as np
import typer
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from flows.environment import prepare_environment
from pipeline.maps import HeadMap, make_maps
from pipeline.settings import Joint, MapSpec, MethodName
from store.atlas import Atlas
from store.vectors import HeadVectors

KINDS = {"key": "#2665ac", "query": "#d65d0e"}
JOINTS: dict[MethodName, Joint] = {
    "pca": "translate",
    "umap": "translate",
    "tsne": "translate",
    "attention": "lift",
}

POINTS = """
SELECT kind, x, y, token FROM points
JOIN current_maps USING (map_id) JOIN tokens USING (sequence_id, position)
WHERE points.model = 'minilm' AND tokens.model = 'minilm' AND points.layer = $layer
    AND points.head = $head AND method = 'attention' AND dims = 2
ORDER BY points.rank
"""

FIGURES = """
SELECT score_spearman, top_key_recall_3 FROM current_maps
WHERE model = 'minilm' AND layer = $layer AND head = $head AND method = 'attention' AND dims = 2
"""


def draw(
    atlas: Annotated[Path, typer.Option(help="The demonstration's atlas.")] = Path(
        "build/demo-atlas"
    ),
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("docs"),
    layer: Annotated[int, typer.Option(help="Head under every method.")] = 1,
    head: Annotated[int, typer.Option(help="Head under every method.")] = 1,
) -> None:
    """Draw the pictures."""
    prepare_environment()
    mpl.use("Agg")
    mpl.rcParams |= {"font.family": "DejaVu Sans", "font.size": 9, "savefig.dpi": 160}
    with Atlas(str(atlas)) as opened:
        draw_methods(read_mapped(opened, layer, head), out / "maps-methods.png")
        draw_heads(opened, [(layer, head), (0, 2)], out / "demo-head.png")


def read_mapped(atlas: Atlas, layer: int, head: int) -> HeadVectors:
    """The vectors of a head over the sequences that its maps hold."""
    query = "SELECT DISTINCT sequence_id FROM points WHERE model = ? AND layer = ? AND head = ?"
    ids = atlas.sql(query, ["minilm", layer, head])["sequence_id"].to_pylist()
    return atlas.read_head("minilm", layer, head, ids)


def draw_methods(head: HeadVectors, path: Path) -> None:
    """A row coloured by kind and a row coloured by position, a column a method."""
    specs = [MapSpec(method=method, dims=2, joint=joint) for method, joint in JOINTS.items()]
    figure, axes = plt.subplots(2, len(specs), figsize=(12, 6.6), layout="constrained")
    place = np.concatenate([head.query_at.position, head.key_at.position])
    is_query = np.arange(len(place)) < len(head.queries)
    for column, (spec, made) in enumerate(zip(specs, make_maps(head, specs), strict=True)):
        if isinstance(made, Exception):
            raise made
        order = np.argsort(made.rank)
        kinds = np.where(is_query, KINDS["query"], KINDS["key"])
        scatter(axes[0, column], made, order, c=kinds[order])
        drawn = scatter(axes[1, column], made, order, c=place[order], cmap="viridis", vmax=40)
        axes[0, column].set_title(f"{spec.method}\n{words(made.fidelity)}", loc="left")
    for name, colour in KINDS.items():
        axes[0, 0].scatter([], [], s=24, color=colour, label=name)
    axes[0, 0].legend(frameon=False, loc="lower left", handletextpad=0.1)
    figure.colorbar(
        drawn, ax=axes[1, :], label="position in the sentence", shrink=0.7, extend="max"
    )
    figure.savefig(path)
    plt.close(figure)


def scatter(axis: Axes, made: HeadMap, order: Any, **colours: Any) -> Any:
    """Points without axes, which have no unit."""
    bare(axis)
    x, y = made.coordinates[order].T
    return axis.scatter(x, y, s=5, linewidths=0, alpha=0.65, **colours)


def bare(axis: Axes) -> None:
    """Equal scales and no ticks: distances count, axes have no meaning."""
    axis.set_aspect("equal", adjustable="datalim")
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set_color("#d8d8d4")


def words(fidelity: Any) -> str:
    """How far to trust a map, in a line."""
    return f"ρ {fidelity.score_spearman:.2f}   top key {fidelity.top_key_recall_3:.2f}"


def draw_heads(atlas: Atlas, heads: list[tuple[int, int]], path: Path) -> None:
    """The attention maps of some heads, with the tokens that find room."""
    figure, axes = plt.subplots(1, len(heads), figsize=(11.5, 5.4), layout="constrained")
    for axis, (layer, head) in zip(axes, heads, strict=True):
        where = {"layer": layer, "head": head}
        rows = atlas.sql(POINTS, where).to_pydict()
        (figures,) = atlas.sql(FIGURES, where).to_pylist()
        bare(axis)
        colours = [KINDS[kind] for kind in rows["kind"]]
        axis.scatter(rows["x"], rows["y"], s=7, linewidths=0, alpha=0.6, c=colours)
        axis.set_title(f"MiniLM, layer {layer}, head {head}", loc="left", fontsize=12)
        spearman, recall = figures["score_spearman"], figures["top_key_recall_3"]
        axis.set_xlabel(f"ρ {spearman:.2f}   top key {recall:.2f}", loc="left", color="#555")
        write_tokens(axis, rows)
    for name, colour in KINDS.items():
        axes[-1].scatter([], [], s=24, color=colour, label=name)
    axes[-1].legend(frameon=False, loc="upper right", ncols=2, handletextpad=0.1)
    figure.savefig(path)
    plt.close(figure)


def write_tokens(axis: Axes, rows: dict[str, list[Any]], most: int = 60) -> None:
    """Words beside their points, none over another."""
    axis.figure.canvas.draw()
    taken: list[Any] = []
    for x, y, token in zip(rows["x"], rows["y"], rows["token"], strict=True):
        if not (token.isalpha() and len(token) > 3) or len(taken) >= most:
            continue
        text = axis.annotate(token, (x, y), (3, 0), textcoords="offset points", fontsize=7.5)
        box = text.get_window_extent().expanded(1.06, 1.2)
        if any(box.overlaps(other) for other in taken):
            text.remove()
        else:
            taken.append(box)


if __name__ == "__main__":
    typer.run(draw)
