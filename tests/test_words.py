"""What no file of the repository says: one machine's folders, and where its packages come from.

The forbidden words are put together from pieces, so that this file does not hold them.
"""

import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = tuple(
    f"/{first}{second}/" for first, second in [("wo", "rk"), ("ro", "ot"), ("ho", "me")]
)
HOSTS = ("pypi" + ".org", "npmjs" + ".org", "files.python" + "hosted")
WORDS = (*FOLDERS, "/Us" + "ers/", *HOSTS)


def list_tracked(root: Path) -> list[Path]:
    """List the files that git tracks and that are there."""
    command = ["git", "-C", str(root), "ls-files", "-z"]
    names = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    return [root / name for name in names.split("\0") if name and (root / name).is_file()]


def find_words(paths: Iterable[Path], words: Iterable[str]) -> list[str]:
    """List the files that hold a word, with the line of each."""
    return [
        f"{path.name}:{number}: {word}"
        for path in paths
        for number, line in enumerate(path.read_bytes().splitlines(), start=1)
        for word in words
        if word.encode() in line
    ]


def test_no_file_names_a_machine() -> None:
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("needs git and a clone")
    tracked = list_tracked(ROOT)
    assert tracked
    assert find_words(tracked, WORDS) == []


@pytest.mark.parametrize("word", WORDS)
def test_checker_finds_a_word(tmp_path: Path, word: str) -> None:
    (tmp_path / "a.txt").write_bytes(b"fine\n\xff at " + word.encode() + b"x")
    (tmp_path / "b.txt").write_text("fine", "utf-8")
    assert find_words(sorted(tmp_path.iterdir()), WORDS) == [f"a.txt:2: {word}"]


def test_this_file_holds_none_of_the_words() -> None:
    assert find_words([Path(__file__)], WORDS) == []
