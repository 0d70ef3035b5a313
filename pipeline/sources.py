"""What one file of a corpus is: its name, format and compression, told from the name alone.

Separate from `corpus`, which looks for files, so that the readers need not know how they are found.
"""

import os
from dataclasses import dataclass
from typing import Literal

from pipeline.streams import Compression

SourceKind = Literal["text", "jsonl", "csv", "parquet", "image", "hub"]

_EXTENSIONS: dict[SourceKind, str] = {
    "text": ".txt .text .md .log",
    "jsonl": ".jsonl .ndjson .json",
    "csv": ".csv .tsv",
    "parquet": ".parquet",
    "image": ".png .jpg .jpeg .webp .bmp .gif .tif .tiff",
}
_KIND_OF = {ending: kind for kind, endings in _EXTENSIONS.items() for ending in endings.split()}
_COMPRESSIONS: dict[str, Compression] = {".gz": "gzip", ".zst": "zstd", ".zstd": "zstd"}
_COMPRESSIBLE: tuple[SourceKind, ...] = ("text", "jsonl", "csv")

KNOWN_EXTENSIONS = (
    f"{' '.join(_EXTENSIONS.values())}, and {' '.join(_COMPRESSIONS)} behind those of text"
)
"""The extensions that can be read, for messages."""


@dataclass(frozen=True)
class SourceFile:
    """A file of a corpus, or a data set of the hub."""

    source: str
    """Name stored in the atlas: absolute path of a local file, else the URI."""
    kind: SourceKind
    """Format."""
    bytes: int
    """Size as it lies, compressed where it is; 0 for the hub."""
    labels: tuple[tuple[str, str], ...] = ()
    """For images in a subfolder: (("folder", path of the folder below the source),)."""

    @property
    def compression(self) -> Compression | None:
        """How the file is compressed, as its name says."""
        ending = os.path.splitext(extension_name(self.source))[1]
        return _COMPRESSIONS.get(ending) if self.kind in _COMPRESSIBLE else None


def extension_name(source: str) -> str:
    """The file name of a path or URI in lower case, without a web address's query."""
    name = source.split("?")[0] if source.startswith(("http://", "https://")) else source
    return name.rsplit("/", 1)[-1].lower()


def kind_of(source: str) -> SourceKind | None:
    """The format that a path or URI names; None when it is not one that can be read."""
    stem, ending = os.path.splitext(extension_name(source))
    if ending not in _COMPRESSIONS:
        return _KIND_OF.get(ending)
    kind = _KIND_OF.get(os.path.splitext(stem)[1])
    return kind if kind in _COMPRESSIBLE else None
