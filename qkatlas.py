"""QK Atlas from Python and from the command line: `qkatlas.open(uri)` and `qkatlas --help`.

The only module that knows all of the others; it imports them late, so that a query loads neither
torch nor Ray.
"""

import errno
import os
import sys
import traceback
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from api.command import serve
from api.viewers import commands as viewers
from flows.environment import is_debugging
from flows.maintain_commands import commands as maintain
from store.errors import AtlasError, ConfigError

if TYPE_CHECKING:
    from api.remote import RemoteAtlas
    from store.atlas import Atlas

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Atlases of transformer attention: capture every head's queries and keys, map them, "
    "ask SQL.",
)
console = Console()
errors = Console(stderr=True)

_INTERRUPTED = 130

ConfigFile = Annotated[
    Path, typer.Argument(metavar="CONFIG.yaml", help="Configuration of the run.")
]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="A.B=C", help="Replace one field; repeatable.")
]
AtlasOption = Annotated[
    str | None,
    typer.Option(
        "--atlas", metavar="URI", envvar="QKATLAS_ATLAS", help="Folder or URI of the atlas."
    ),
]
OtherAtlas = Annotated[
    str | None, typer.Option("--atlas", metavar="URI", help="In place of the configuration's.")
]


def open(uri: str) -> "Atlas | RemoteAtlas":
    """Open an atlas to read it.

    Args:
        uri: folder or URI; or the address of a service, as `qkatlas serve` prints it, whose token
            may also come from QKATLAS_TOKEN.

    Returns:
        An atlas with `sql`, `models`, `heads`, `attention` and more.

    Raises:
        AtlasNotFoundError: there is none.
    """
    if uri.startswith(("http://", "https://")):
        return _connect(uri)
    from store.atlas import Atlas

    return Atlas(uri)


def _connect(url: str) -> "RemoteAtlas":
    from api.remote import RemoteAtlas

    return RemoteAtlas(url)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(version("qkatlas"))
        raise typer.Exit


@app.callback()
def _options(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    pass


@app.command()
def run(
    config: ConfigFile,
    overrides: Overrides = None,
    atlas: OtherAtlas = None,
    strict: Annotated[bool, typer.Option(help="Stop at the first unreadable row.")] = False,
) -> None:
    """Capture, map and measure what is not in the atlas yet.

    Example: `qkatlas run examples/encoder_on_text.yaml --set capture.sample.limit=1000`
    """
    from flows.config import load_config
    from flows.results import show_failed, show_results
    from flows.run import run as run_config

    results = run_config(load_config(config, overrides or (), atlas), console, strict)
    if results is None:
        console.print("nothing to do: the atlas is up to date")
        return
    show_results(results, console)
    if show_failed(results, errors):
        raise typer.Exit(1)


@app.command()
def plan(
    config: ConfigFile,
    overrides: Overrides = None,
    atlas: OtherAtlas = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Of a cluster; the configuration's if left out.")
    ] = None,
    probe: Annotated[bool, typer.Option("--probe", help="Measure this machine first.")] = False,
    probe_seconds: Annotated[float, typer.Option(min=0.1, help="How long to measure.")] = 30.0,
    price: Annotated[float, typer.Option(min=0, help="Storage, USD a GB and month.")] = 0.023,
) -> None:
    """Say what a run would read and write, without writing, and what it costs on a cluster.

    Example: `qkatlas plan examples/encoder_on_text.yaml --probe --workers 16`
    """
    from flows.cluster_plan import plan_cluster
    from flows.config import load_config

    loaded = load_config(config, overrides or (), atlas)
    plan_cluster(loaded, console, workers, probe_seconds if probe else None, price)


@app.command()
def status(
    atlas: AtlasOption = None,
    watch: Annotated[bool, typer.Option("--watch", help="Look again until Ctrl-C.")] = False,
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between looks.")] = 2.0,
    until_done: Annotated[
        bool, typer.Option("--until-done", help="End the watch when no shard waits.")
    ] = False,
) -> None:
    """Show what an atlas holds and what went wrong in it, or watch it grow.

    Example: `qkatlas status --atlas build/demo-atlas --watch`
    """
    if until_done and not watch:
        raise typer.BadParameter("it ends a watch: give --watch, too", param_hint="--until-done")
    if watch:
        from flows.watch_view import watch_atlas

        return watch_atlas(_uri(atlas), console, every, until_done)
    from flows.dashboards import show_dashboards
    from flows.overview import show_status

    show_status(_uri(atlas), console)
    show_dashboards(console)


@app.command()
def sql(
    context: typer.Context,
    query: Annotated[str, typer.Argument(metavar="'SELECT …'", help="One SELECT statement.")],
    atlas: AtlasOption = None,
    url: Annotated[
        str | None, typer.Option(metavar="URL", help="Ask a service that runs in place of a URI.")
    ] = None,
    format: Annotated[
        str, typer.Option(help="table, json, csv, arrow or parquet.", metavar="FORMAT")
    ] = "table",
) -> None:
    """Ask an atlas in DuckDB's SQL; `SHOW TABLES` lists the views.

    Example: `qkatlas sql --atlas build/demo-atlas 'SELECT * FROM models' --format json`
    """
    from store.formats import FORMATS, write_result

    chosen = next((known for known in FORMATS if known == format), None)
    if chosen is None:
        raise ConfigError(f"--format: expected one of {', '.join(FORMATS)}, got '{format}'")
    source = context.get_parameter_source("atlas")
    if url is not None and source is not None and source.name == "COMMANDLINE":
        raise ConfigError("name either --atlas URI or --url URL, not both")
    with open(_uri(atlas)) if url is None else _connect(url) as opened:
        write_result(opened.sql(query), chosen, sys.stdout.buffer)


@app.command()
def export(
    target: Annotated[
        Path, typer.Argument(metavar="OUT.parquet", help="A new file: .parquet, .duckdb or .csv.")
    ],
    atlas: AtlasOption = None,
    map: Annotated[
        list[str] | None, typer.Option(metavar="MAP_ID", help="One map; repeatable.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="All current maps of this model.")] = None,
    layer: Annotated[int | None, typer.Option(min=0, help="Of this layer.")] = None,
    head: Annotated[int | None, typer.Option(min=0, help="Of this head.")] = None,
    method: Annotated[str | None, typer.Option(help="Of this method.")] = None,
    dims: Annotated[int | None, typer.Option(min=2, max=3, help="Of 2 or 3 dimensions.")] = None,
    format: Annotated[
        str | None, typer.Option(help="parquet, duckdb or csv, whatever the file's name says.")
    ] = None,
) -> None:
    """Write the points of maps, with their tokens, to a file.

    Example: `qkatlas export points.parquet --atlas build/demo-atlas --method umap`
    """
    from flows.export import MapChoice, export_maps

    choice = MapChoice(model, layer, head, method, dims)
    said = export_maps(_uri(atlas), target, map or [], choice, format)
    console.print(said, soft_wrap=True, highlight=False, markup=False)


@app.command()
def verify(
    config: ConfigFile,
    overrides: Overrides = None,
    atlas: OtherAtlas = None,
    sequences: Annotated[int, typer.Option(min=1, help="How many to compare.")] = 8,
) -> None:
    """Compare attention recomputed from the atlas with the model's own.

    Example: `qkatlas verify examples/encoder_on_text.yaml`
    """
    from flows.config import load_config
    from flows.recheck import verify_atlas

    for row in verify_atlas(load_config(config, overrides or (), atlas), sequences):
        console.print(
            f"{row.model}: largest difference {row.max_abs_error:.2g} over {row.n_heads} heads, "
            f"{row.n_sequences} sequences, {row.n_tokens} tokens (allowed {row.limit:.0e})"
        )


@app.command()
def drop(
    atlas: AtlasOption = None,
    model: Annotated[str | None, typer.Option(help="Model key to drop.")] = None,
    corpus: Annotated[str | None, typer.Option(help="Corpus to drop.")] = None,
    map: Annotated[str | None, typer.Option(metavar="MAP_ID", help="Map to drop.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Hide a model, a corpus or a map at once.

    Example: `qkatlas drop --atlas build/demo-atlas --model minilm`
    """
    from flows.drop import Kind, drop_from_atlas

    chosen: dict[Kind, str | None] = {"model": model, "corpus": corpus, "map": map}
    wanted = {kind: name for kind, name in chosen.items() if name is not None}
    if len(wanted) != 1:
        raise ConfigError("name exactly one of --model, --corpus and --map")
    ((kind, name),) = wanted.items()
    uri = _uri(atlas)
    if not yes:
        typer.confirm(f"Drop {kind} {name} from {uri}?", abort=True)
    console.print(drop_from_atlas(uri, kind, name))


@app.command()
def retry(
    atlas: AtlasOption = None,
    corpus: Annotated[str | None, typer.Option(help="Only shards of this corpus.")] = None,
    model: Annotated[str | None, typer.Option(help="Only shards of this model key.")] = None,
) -> None:
    """Plan quarantined shards again, for the next run.

    Example: `qkatlas retry --atlas build/demo-atlas --model minilm`
    """
    from flows.retry import plan_again

    console.print(plan_again(_uri(atlas), corpus, model), soft_wrap=True, highlight=False)


@app.command()
def demo(
    model: Annotated[str, typer.Option(help="minilm or smollm2.")] = "minilm",
    folder: Annotated[Path, typer.Option(help="Where to build it.")] = Path("build"),
) -> None:
    """Build an atlas of a real model over Python's language reference, and ask it.

    Example: `qkatlas demo --model minilm`
    """
    from flows.config import load_config
    from flows.demo import NAMES, write_demo
    from flows.run import run as run_config

    if model not in NAMES:
        raise ConfigError(f"--model: expected one of {', '.join(NAMES)}, got '{model}'")
    path = write_demo(model, folder)
    config = load_config(path)
    results = run_config(config, console)
    if results is None:
        console.print(f"nothing to do: {os.path.relpath(config.atlas)} is up to date")
        return
    from flows.overview import show_demo
    from flows.results import show_failed, show_results

    show_results(results, console)
    show_demo(config, path, console)
    if show_failed(results, errors):
        raise typer.Exit(1)


app.command()(serve)
app.add_typer(viewers, name="viewers")
app.add_typer(maintain, name="maintain")


def _uri(atlas: str | None) -> str:
    if atlas is None:
        raise ConfigError("which atlas? name it with --atlas URI, or set QKATLAS_ATLAS")
    return atlas


def main() -> None:
    """Run the command line; trouble ends with one line on stderr.

    Exit codes: 2 for the user's mistakes, 1 for all other trouble, 130 after Ctrl-C.
    """
    try:
        code = app(standalone_mode=False)
        if code == _INTERRUPTED:  # Typer's word for Ctrl-C
            raise KeyboardInterrupt
    except (Exception, KeyboardInterrupt) as error:
        if is_debugging():
            traceback.print_exc()
        message, code = _explain(error)
        errors.print(message, soft_wrap=True, highlight=False)
    sys.exit(code if isinstance(code, int) else 0)


def _explain(error: BaseException) -> tuple[Text, int]:
    """What to tell the user of an exception, and the exit code."""
    if isinstance(error, KeyboardInterrupt) or isinstance(error.__cause__, KeyboardInterrupt):
        return Text("stopped; run the same command again to go on from here"), _INTERRUPTED
    if isinstance(error, typer.Abort):
        return Text("not done"), 1
    if isinstance(error, AtlasError):
        return _error_line(str(error)), error.exit_code
    if hasattr(error, "format_message"):  # Typer's own: a wrong option, a missing argument
        return _error_line(error.format_message()), getattr(error, "exit_code", 2)
    if isinstance(error, OSError) and error.strerror:
        return _error_line(_describe_os_error(error)), 1
    text = str(error).strip().partition("\n")[0] or "no message"
    return _error_line(
        f"{type(error).__name__}: {text} (unexpected; QKATLAS_DEBUG=1 shows where it comes from)"
    ), 1


def _error_line(message: str) -> Text:
    return Text.assemble(("error", "red"), ": ", message)


def _describe_os_error(error: OSError) -> str:
    """An error of the operating system with its file, and what to do about it."""
    name = error.filename or ""
    where = os.fsdecode(name) if isinstance(name, str | bytes) else ""
    said = f"{where}: {error.strerror}" if where else str(error.strerror)
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return (
            f"{said}; what is committed stays: make room (`qkatlas plan` says how much a run "
            "takes) and run the same command again"
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR):
        return f"{said}; choose a folder that you may write to, with --atlas or in `atlas`"
    return f"{said} (QKATLAS_DEBUG=1 shows where it comes from)"


if __name__ == "__main__":
    main()
