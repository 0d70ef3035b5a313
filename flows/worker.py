"""A capture worker: a model loaded once, which scans, checks and captures."""

import os
import resource
import socket
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from flows.config import RunConfig
from flows.log import log_event
from pipeline.buffers import choose_calls
from pipeline.cards import Row, check_model, describe_heads, describe_models
from pipeline.extract import Extractor
from pipeline.induction import Head, InductionPass, Repeats, make_repeats, score_induction
from pipeline.inputs import encode_units, max_length, token_spans
from pipeline.models import load_model
from pipeline.part_of_speech import check_taggable, load_tagger
from pipeline.readers import Unit
from pipeline.scan import Scan, ScanRange, scan_files, token_counter
from pipeline.settings import InductionSpec
from pipeline.shards import ShardReport, ShardWork
from pipeline.sizes import Sizes, measure_sizes
from pipeline.stacks import list_stacks, trace_calls
from store.attention import HeadFacts
from store.errors import ConfigError


class CaptureWorker:
    """A model on its device with everything that capture needs."""

    def __init__(
        self,
        config: RunConfig,
        modality: Any,
        n_workers: int,
        strict: bool,
        n_threads: int | None = None,
    ) -> None:
        """Load the model and trace its attention calls.

        Args:
            config: of the run.
            modality: text or image.
            n_workers: that share this machine's cores.
            strict: stop at the first row that cannot be read.
            n_threads: in place of a share of the cores, as on a cluster, where CPUs are booked.

        Raises:
            ModelLoadError, UnsupportedModelError, ConfigError: the run cannot be made.
        """
        _raise_open_files()
        tags = config.capture.part_of_speech
        tagger = None if tags is None else load_tagger(tags)  # before a model that loads for long
        cores = n_threads or max(1, (os.cpu_count() or 1) // n_workers)
        torch.set_num_threads(cores)
        self.config = config
        self.loaded = load_model(config.model, modality)
        if tagger is not None:
            check_taggable(self.loaded)
        self.sites = trace_calls(self.loaded)
        self.stacks = list_stacks(config.model.key, self.sites)
        capture = config.capture
        self.wanted = choose_calls(self.stacks, self.sites, capture.layers, capture.heads)
        self.length = max_length(self.loaded, capture.max_length)
        self._check_length()
        self.extractor = Extractor(
            config.atlas,
            self.loaded,
            self.sites,
            self.stacks,
            self.wanted,
            config.corpus,
            capture,
            self.length,
            strict,
            threads=max(1, cores // 2),
            tagger=tagger,
        )

    def _check_length(self) -> None:
        """Refuse a length that leaves no room for text.

        Raises:
            ConfigError: special tokens fill it, or every window would be cut.
        """
        if self.loaded.modality == "image" or not self.config.capture.special_tokens:
            extra = 0
        else:
            extra = self.loaded.tokenizer.num_special_tokens_to_add()
        window = self.config.corpus.split.window or 1
        if self.loaded.modality == "text" and window + extra > self.length:
            raise ConfigError(
                f"capture.max_length: {self.length} tokens have no room for {window} of text and "
                f"{extra} special ones; raise it, or make corpus.split.window smaller"
            )

    def models(self) -> list[str]:
        """Model keys of the stacks."""
        return [stack.model for stack in self.stacks]

    def name(self) -> str:
        """Host, process and device."""
        return f"{socket.gethostname()}:{os.getpid()}:{self.loaded.device}"

    def scan(self, ranges: Sequence[ScanRange], limit: int | None) -> Scan:
        """Count new rows and cut them into shards."""
        if self.loaded.modality == "image":
            return scan_files(
                ranges, self.config.corpus, self.config.capture, self._count_patches, None, limit
            )
        tokenizer = self.loaded.tokenizer
        counter = token_counter(tokenizer, self.length, self.config.capture.special_tokens)
        return scan_files(
            ranges,
            self.config.corpus,
            self.config.capture,
            counter,
            lambda text: token_spans(tokenizer, text),
            limit,
        )

    def _count_patches(self, units: Sequence[Unit]) -> list[int]:
        encoded = encode_units(self.loaded, units[:1], self.length)
        return [encoded[0].n_tokens for _ in units] if encoded else []

    def describe(self, units: Sequence[Unit]) -> tuple[list[Row], list[Row]]:
        """Check the model's attention on real units; rows of `models` and `heads`.

        Raises:
            CaptureMismatchError, UnsupportedModelError: it cannot be captured faithfully.
            ConfigError: there is not one readable unit to check it on.
        """
        capture = self.config.capture
        encoded = encode_units(self.loaded, units, self.length, capture.special_tokens)
        encoded = [sequence for sequence in encoded if sequence.n_tokens]
        if not encoded:
            raise ConfigError(
                f"corpus {self.config.corpus.name} has no readable row in its sample; "
                "check corpus.source, corpus.text_column and capture.sample"
            )
        checks = check_model(self.loaded, self.sites, encoded, capture.precision, self.length)
        return (
            describe_models(self.loaded, self.stacks, checks),
            describe_heads(self.wanted, checks),
        )

    def measure_sizes(self, units: Sequence[Unit]) -> dict[str, Sizes]:
        """Bytes that capture takes, from about one row group of real vectors."""
        return measure_sizes(self.extractor, units)

    def score_induction(
        self, spec: InductionSpec, facts: Callable[[str, int, int], HeadFacts]
    ) -> tuple[Repeats | None, dict[Head, float | None]]:
        """The random sequences read, and the induction score of every head that is captured."""
        special_tokens = self.config.capture.special_tokens
        repeats = make_repeats(self.loaded, spec, self.length, special_tokens)
        batch_tokens = self.extractor.batch_tokens
        run = InductionPass(self.loaded, self.sites, self.stacks, self.wanted, batch_tokens)
        return repeats, score_induction(run, repeats, facts)

    def count_tokens(self) -> int:
        """Tokens captured so far, over all shards."""
        return self.extractor.n_tokens

    def capture(self, work: ShardWork) -> ShardReport:
        """Capture a shard into uncommitted files."""
        shard = ",".join(work.shard_ids.values())
        log_event("shard_started", shard=shard, attempt=work.attempt, worker=self.name())
        report = self.extractor.extract_shard(work)
        return replace(report, worker=self.name())


def _raise_open_files() -> None:
    """A head has an open file each: allow as many as the system does."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
