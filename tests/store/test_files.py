"""What is refused before it reaches a Delta log, and how files are named."""

from dataclasses import replace
from pathlib import Path

from store.files import (
    WrittenFile,
    add_action,
    delete_files,
    filesystem,
    join,
    map_file_name,
    partition_folder,
    shard_file_name,
)
from store.snapshot import parse_file_name

PARTITION = (("model", "tiny"), ("layer", "0"), ("head", "1"))


def make_file(root: Path, name: str = "s-a-1-0f.parquet") -> WrittenFile:
    path = partition_folder(PARTITION) + name
    target = root / "queries" / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(b"12345")
    return WrittenFile("queries", path, PARTITION, 3, 5, 7, 9)


def test_names_tell_their_owner() -> None:
    shard = parse_file_name("model=a/" + shard_file_name("4f2a", 3))
    assert (shard.kind, shard.owner, shard.number) == ("shard", "4f2a", 3)
    made = parse_file_name(map_file_name("81cc", 2))
    assert (made.kind, made.owner, made.number) == ("map", "81cc", 2)
    assert shard_file_name("4f2a", 3) != shard_file_name("4f2a", 3)


def test_partition_folder_is_hive_style() -> None:
    assert partition_folder(PARTITION) == "model=tiny/layer=0/head=1/"
    assert partition_folder(()) == ""


def test_add_action_carries_statistics() -> None:
    file = WrittenFile("queries", "p", PARTITION, 3, 5, 7, 9)
    action = add_action(file)
    assert (action.path, action.size, action.partition_values) == ("p", 5, dict(PARTITION))
    assert '"minValues": {"sequence_id": 7}' in action.stats
    assert "minValues" not in add_action(replace(file, first_sequence_id=None)).stats


def test_deleting_twice_is_no_error(tmp_path: Path) -> None:
    file = make_file(tmp_path)
    delete_files(str(tmp_path), [file])
    delete_files(str(tmp_path), [file])
    assert not (tmp_path / "queries" / file.path).exists()


def test_filesystems_of_paths_and_uris_agree(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    for uri in (str(tmp_path), tmp_path.as_uri()):
        where, root = filesystem(uri)
        assert where.get_file_info(join(root, "a")).size == 3
