"""QK Atlas from Python and from the command line: `qkatlas.open(uri)` and `qkatlas --help`.

The only module that knows all of the others; it imports them late, so that a query loads neither
torch nor Ray.
"""

import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from store.errors import AtlasError, ConfigError

if TYPE_CHECKING:
    from store.atlas import Atlas

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    help="Atlases of transformer attention: capture every head's queries and keys, map them, "
    "ask SQL.",
)
console = Console()
errors = Console(stderr=True)

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


def open(uri: str) -> "Atlas":
    """Open an atlas to read it.

    Args:
        uri: folder or URI.

    Returns:
        An atlas with `sql`, `models`, `heads`, `attention` and more.

    Raises:
        AtlasNotFoundError: there is none.
    """
    from store.atlas import Atlas

    return Atlas(uri)


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
    atlas: AtlasOption = None,
    strict: Annotated[bool, typer.Option(help="Stop at the first unreadable row.")] = False,
) -> None:
    """Capture, map and measure what is not in the atlas yet.

    Example: `qkatlas run examples/encoder_on_text.yaml --set capture.sample.limit=1000`
    """
    from flows.config import load_config
    from flows.run import run as run_config

    results = run_config(load_config(config, overrides or (), atlas), console, strict)
    if results is None:
        console.print("nothing to do: the atlas is up to date")
        return
    _print_results(results)
    failed = [reason for result in results for reason in result.failed]
    if failed:
        errors.print(f"[red]{len(failed)} unit(s) of work failed[/]: {escape(failed[0])}")
        raise typer.Exit(1)


def _print_results(results: Sequence[Any]) -> None:
    table = Table("stage", "done", "failed", "seconds", "notes")
    for result in results:
        notes = ", ".join(f"{n:,} {name.removeprefix('n_')}" for name, n in result.counts.items())
        table.add_row(
            result.stage, str(result.done), str(len(result.failed)), f"{result.seconds:.1f}", notes
        )
    console.print(table)


@app.command()
def plan(config: ConfigFile, overrides: Overrides = None, atlas: AtlasOption = None) -> None:
    """Say what a run would read and write, without writing.

    Example: `qkatlas plan examples/encoder_on_text.yaml`
    """
    from flows.estimate import estimate_run

    from flows.config import load_config

    estimate = estimate_run(load_config(config, overrides or (), atlas))
    table = Table("model", "sequences", "tokens", "shards", "files", "bytes", "mean file")
    for row in estimate.rows:
        table.add_row(*row.cells())
    console.print(table)
    for note in estimate.notes:
        console.print(f"[yellow]{escape(note)}")


@app.command()
def status(atlas: AtlasOption = None) -> None:
    """Show what an atlas holds and what went wrong in it.

    Example: `qkatlas status --atlas build/demo-atlas`
    """
    from flows.overview import show_status

    show_status(_uri(atlas), console)


@app.command()
def sql(
    query: Annotated[str, typer.Argument(metavar="'SELECT …'", help="One SELECT statement.")],
    atlas: AtlasOption = None,
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
    with open(_uri(atlas)) as opened:
        write_result(opened.sql(query), chosen, sys.stdout.buffer)


@app.command()
def verify(
    config: ConfigFile,
    overrides: Overrides = None,
    atlas: AtlasOption = None,
    sequences: Annotated[int, typer.Option(min=1, help="How many to compare.")] = 8,
) -> None:
    """Compare attention recomputed from the atlas with the model's own.

    Example: `qkatlas verify examples/encoder_on_text.yaml`
    """
    from flows.recheck import verify_atlas

    from flows.config import load_config

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
    from flows.drop import drop_from_atlas

    chosen = {"model": model, "corpus": corpus, "map": map}
    wanted = {kind: name for kind, name in chosen.items() if name is not None}
    if len(wanted) != 1:
        raise ConfigError("name exactly one of --model, --corpus and --map")
    ((kind, name),) = wanted.items()
    uri = _uri(atlas)
    if not yes:
        typer.confirm(f"Drop {kind} {name} from {uri}?", abort=True)
    console.print(drop_from_atlas(uri, kind, name))


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
    _print_results(results)
    from flows.overview import show_demo

    show_demo(config, path, console)
    if any(result.failed for result in results):
        raise typer.Exit(1)


def _uri(atlas: str | None) -> str:
    if atlas is None:
        raise ConfigError("which atlas? name it with --atlas URI, or set QKATLAS_ATLAS")
    return atlas


def main() -> None:
    """Run the command line; a mistake of the user ends with one line and code 2."""
    try:
        code = app(standalone_mode=False)
    except AtlasError as error:
        _fail(str(error), error.exit_code)
    except typer.Abort:
        _fail("not done", 1)
    except KeyboardInterrupt:
        _fail("stopped; run the same command again to go on from here", 130)
    except OSError as error:
        _fail(f"{error}", 1)
    except Exception as error:
        if hasattr(error, "format_message"):
            _fail(error.format_message(), getattr(error, "exit_code", 2))
        raise
    else:
        sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str, code: int) -> None:
    errors.print(f"[red]error[/]: {escape(message)}", soft_wrap=True, highlight=False)
    sys.exit(code)


if __name__ == "__main__":
    main()
