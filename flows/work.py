"""What remains to do for a configuration, decided from the ledger alone.

Neither torch, Ray nor Prefect is loaded here: a finished run says so within seconds.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from json import loads
from urllib.parse import quote

import pyarrow as pa
import pyarrow.compute as pc

from flows.config import RunConfig
from flows.growth import find_due_fits
from flows.identity import Identity, Row, check_identity, identify, known_models
from flows.map_jobs import find_map_jobs
from flows.measure_jobs import InductionJob, find_induction_job, find_measure_jobs
from flows.samples import HeadJob
from pipeline.corpus import appended_cleanly, begins_as, fingerprint, list_sources, modality
from pipeline.settings import CorpusSpec, SampleSpec
from pipeline.sources import SourceFile
from store.atlas import Atlas
from store.errors import AtlasNotFoundError, CaptureConflictError, SourceChangedError
from store.snapshot import Snapshot


@dataclass(frozen=True)
class NewRows:
    """A file with rows that were not planned yet."""

    file: SourceFile
    ordinal: int | None
    """None for a file that the atlas does not know."""
    first_row: int
    fingerprint: str


@dataclass(frozen=True)
class ModelRows:
    """New rows for models that have covered the corpus equally far."""

    models: tuple[str, ...]
    """Empty when the model is new to the atlas, and its stacks are not known yet."""
    rows: tuple[NewRows, ...]
    limit: int | None
    """Sequences still to be taken; None means no limit."""


@dataclass
class Work:
    """All that remains to do."""

    identity: Identity
    modality: str
    files: list[SourceFile]
    known: list[Row]
    new_rows: list[ModelRows]
    planned: list[Row]
    """Newest ledger rows of shards that wait for capture."""
    maps: list[HeadJob] = field(default_factory=list)
    due: list[str] = field(default_factory=list)
    """Maps that need a new fit, in sentences; nothing does it unasked."""
    measures: list[HeadJob] = field(default_factory=list)
    induction: InductionJob | None = None
    """Heads without an induction score."""
    given_up: int = 0
    """Quarantined shards of the corpus."""
    vanished: list[str] = field(default_factory=list)
    """Files of the corpus in the atlas that are no longer there."""

    @property
    def is_done(self) -> bool:
        """Whether nothing remains."""
        heads = self.maps or self.measures or self.induction
        return not (self.new_rows or self.planned or heads)


def load_snapshot(uri: str) -> Snapshot | None:
    """The newest snapshot of an atlas; None where there is none yet."""
    try:
        return Snapshot.load(uri)
    except AtlasNotFoundError:
        return None


def find_work(config: RunConfig) -> Work:
    """Compare a configuration with the atlas.

    Raises:
        CaptureConflictError: the model key holds another capture.
        SourceChangedError: a file that was captured has other content now.
        SourceNotFoundError, ModelLoadError: the input is not there.
    """
    files = list_sources(config.corpus)
    kind = modality(files)
    identity = identify(config)
    snapshot = load_snapshot(config.atlas)
    known = known_models(snapshot, config.model.key, kind)
    check_identity(config, identity, known)
    models = [row["model"] for row in known]
    work = Work(
        identity,
        kind,
        files,
        known,
        find_new_rows(
            config,
            files,
            snapshot,
            models,
            identity.tokenizer_sha256 or identity.weights_sha256,
        ),
        find_shards(snapshot, models, config.corpus.name, "planned"),
        given_up=len(find_shards(snapshot, models, config.corpus.name, "quarantined")),
        vanished=find_vanished(config, files, snapshot),
    )
    asks = config.maps or config.measures
    if asks and (visible := find_visible(snapshot, models)):
        with Atlas(config.atlas) as atlas:
            work.maps = find_map_jobs(config.maps, atlas, visible)
            work.due = find_due_fits(atlas.snapshot.newest_maps()) if config.maps else []
            work.measures = find_measure_jobs(config.measures, atlas, visible)
            work.induction = find_induction_job(config.measures, atlas, visible)
    return work


def find_visible(snapshot: Snapshot | None, models: Sequence[str]) -> list[str]:
    """The models of which something was captured."""
    if snapshot is None:
        return []
    shards = snapshot.newest_shards()
    done = set(shards.filter(pc.equal(shards["status"], "done"))["model"].to_pylist())
    return [model for model in models if model in done]


def find_shards(
    snapshot: Snapshot | None, models: Sequence[str], corpus: str, status: str
) -> list[Row]:
    """Newest ledger rows of the shards of a corpus that have this status."""
    if snapshot is None:
        return []
    shards = _shards_of(snapshot, corpus)
    waiting = shards.filter(pc.equal(shards["status"], status)).to_pylist()
    return [row for row in waiting if row["model"] in models]


def _shards_of(snapshot: Snapshot, corpus: str) -> pa.Table:
    shards = snapshot.newest_shards()
    return shards.filter(pc.equal(shards["corpus"], corpus))


def find_vanished(
    config: RunConfig, files: Sequence[SourceFile], snapshot: Snapshot | None
) -> list[str]:
    """Files that the atlas knows of this corpus and that its sources no longer name."""
    known = newest_files(snapshot, config.corpus.name)
    return sorted(set(known) - {file.source for file in files})


def newest_files(snapshot: Snapshot | None, corpus: str) -> dict[str, Row]:
    """The row with most bytes and rows of each file of a corpus, by source."""
    if snapshot is None:
        return {}
    files = snapshot.rows("files")
    rows = files.filter(pc.equal(files["corpus"], corpus)).to_pylist()
    rows.sort(key=lambda row: (row["bytes"], -1 if row["n_rows"] is None else row["n_rows"]))
    return {row["source"]: row for row in rows}


def find_new_rows(
    config: RunConfig,
    files: Sequence[SourceFile],
    snapshot: Snapshot | None,
    models: Sequence[str],
    tokenizer: str | None = None,
) -> list[ModelRows]:
    """Files with rows that some model has not planned, for each group of equal models."""
    known = newest_files(snapshot, config.corpus.name)
    checked = [_check_file(config, file, known.get(file.source), tokenizer) for file in files]
    groups: dict[tuple[tuple[tuple[int, int], ...], int], list[str]] = {}
    for model in models:
        covered, taken = _coverage_in(snapshot, model, config.corpus.name)
        groups.setdefault((tuple(sorted(covered.items())), taken), []).append(model)
    if not models:
        groups[((), 0)] = []
    found = []
    for (covered_items, taken), members in groups.items():
        limit = limit_left(config.capture.sample, taken)
        rows = _uncovered(checked, dict(covered_items), known) if limit != 0 else ()
        if rows:
            found.append(ModelRows(tuple(members), rows, limit))
    return found


def limit_left(sample: SampleSpec, taken: int) -> int | None:
    """Sequences that may still be planned; None means no limit."""
    return None if sample.limit is None else max(0, sample.limit - taken)


def _coverage_in(snapshot: Snapshot | None, model: str, corpus: str) -> tuple[dict[int, int], int]:
    return ({}, 0) if snapshot is None else find_coverage(snapshot.newest_shards(), model, corpus)


def find_coverage(shards: pa.Table, model: str, corpus: str) -> tuple[dict[int, int], int]:
    """How far a model has planned a corpus.

    Args:
        shards: newest ledger rows.
        model: model key.
        corpus: name of the corpus.

    Returns:
        The row behind the last planned one of each ordinal, and the sequences planned.
    """
    covered: dict[int, int] = {}
    taken = 0
    own = shards.filter(
        pc.and_(pc.equal(shards["model"], model), pc.equal(shards["corpus"], corpus))
    )
    for row in own.select(["status", "n_sequences", "file_rows"]).to_pylist():
        if row["status"] == "dropped":
            continue
        taken += row["n_sequences"]
        for ordinal, _, last in loads(row["file_rows"]):
            covered[ordinal] = max(covered.get(ordinal, 0), last + 1)
    return covered, taken


def _check_file(
    config: RunConfig, file: SourceFile, known: Row | None, tokenizer: str | None
) -> NewRows:
    """Tell a file that is unchanged or only grew from one that changed.

    Raises:
        SourceChangedError: rows that were captured are others now.
        CaptureConflictError: they were cut in another way, or read from another column.
    """
    reading = describe_reading(config.corpus, file, tokenizer)
    if known is None:
        return NewRows(file, None, 0, f"{fingerprint(file)} {reading}")
    content, _, was_read = known["fingerprint"].rpartition(" ")
    if was_read != reading:
        raise CaptureConflictError(
            f"corpus {config.corpus.name} was read by {was_read}, this run reads it by {reading}: "
            "its rows would get other numbers; set corpus.name to another name"
        )
    mark = fingerprint(file, content)
    grew = file.bytes > known["bytes"] and begins_as(file, known["bytes"], content)
    if mark != content and not (grew and appended_cleanly(file, known["bytes"], config.corpus)):
        raise SourceChangedError(
            f"{file.source} changed since it was captured ({known['bytes']} bytes then, "
            f"{file.bytes} now): restore it, or capture the corpus anew under another "
            "corpus.name" + ("; text that is appended must begin a new record" if grew else "")
        )
    return NewRows(file, known["ordinal"], 0, f"{mark} {reading}")


def describe_reading(corpus: CorpusSpec, file: SourceFile, tokenizer: str | None = None) -> str:
    """What decides how a file's rows are numbered and what they hold, as a word.

    Windows are cut by a tokenizer, so models with other ones need a corpus name each.
    """
    split = corpus.split
    unit: str = "record" if split.unit == "line" and file.kind == "text" else split.unit
    if split.unit == "window":
        unit = f"window-{split.window}-{split.stride or split.window}-by-{(tokenizer or '')[:8]}"
    return unit if file.kind in ("text", "image") else f"{unit}-of-{quote(corpus.text_column)}"


def _uncovered(
    checked: Sequence[NewRows], covered: dict[int, int], known: dict[str, Row]
) -> tuple[NewRows, ...]:
    """Files with rows beyond what is covered, in the order of their ordinals, unknown ones last.

    A shard's rows then stand in the order of their sequence ids, however the sources are listed.
    """
    found = []
    for item in checked:
        if item.ordinal is None:
            found.append(item)
            continue
        first = covered.get(item.ordinal, 0)
        row = known[item.file.source]
        is_same = row["fingerprint"] == item.fingerprint
        if is_same and row["n_rows"] is not None and first >= row["n_rows"]:
            continue
        found.append(NewRows(item.file, item.ordinal, first, item.fingerprint))
    found.sort(key=lambda new: (new.ordinal is None, new.ordinal or 0))
    return tuple(found)
