"""Crash-safe files: replaced as a whole or not at all, appended to by whole records, locked once."""

import errno
import stat
from pathlib import Path

import pytest

from learner.storage.files import AppendFile, remove_partial, try_lock, write_durably


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def full_disk() -> None:
    raise OSError(errno.ENOSPC, "no space")


def test_a_durable_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    write_durably(path, b"one")
    write_durably(path, b"two")
    assert contents(path.parent) == {"file": b"two"}


def test_a_file_that_could_not_be_written_leaves_the_old_one_and_no_other(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"before")
    with pytest.raises(OSError, match="no space"):
        write_durably(tmp_path / "file", b"after", before_rename=full_disk)
    assert contents(tmp_path) == {"file": b"before"}


def test_before_the_rename_the_new_content_is_complete_under_another_name(tmp_path: Path) -> None:
    seen: dict[str, bytes] = {}
    write_durably(
        tmp_path / "file", b"data", writer="w1", before_rename=lambda: seen.update(contents(tmp_path))
    )
    assert seen == {".file.w1.partial": b"data"}


def test_a_secret_is_never_readable_by_others(tmp_path: Path) -> None:
    modes: list[int] = []
    left_behind = tmp_path / ".token.partial"
    left_behind.write_bytes(b"of a crash")
    left_behind.chmod(0o666)

    def look() -> None:
        modes.append(stat.S_IMODE(left_behind.stat().st_mode))

    write_durably(tmp_path / "token", b"secret", mode=0o600, before_rename=look)
    modes.append(stat.S_IMODE((tmp_path / "token").stat().st_mode))
    assert modes == [0o600, 0o600]


def test_unfinished_files_are_removed_one_level_deep(tmp_path: Path) -> None:
    (tmp_path / "lane").mkdir()
    for path in (tmp_path / ".a.partial", tmp_path / "lane" / "b.partial", tmp_path / "lane" / "kept"):
        path.write_bytes(b"")
    remove_partial(tmp_path)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["kept"]


def test_a_lock_is_held_once_until_its_file_is_closed(tmp_path: Path) -> None:
    with (tmp_path / "LOCK").open("wb") as other:
        with (tmp_path / "LOCK").open("wb") as holder:
            assert try_lock(holder)
            assert not try_lock(other)
        assert try_lock(other)


def test_shared_locks_exclude_only_an_exclusive_one(tmp_path: Path) -> None:
    path = tmp_path / "LOCK"
    with path.open("wb") as first, path.open("wb") as second, path.open("wb") as third:
        assert try_lock(first, shared=True)
        assert try_lock(second, shared=True)
        assert not try_lock(third)


def test_records_are_appended_after_those_of_an_earlier_process(tmp_path: Path) -> None:
    for record in (b"one\n", b"two\n"):
        file = AppendFile(tmp_path / "logs" / "file")
        file.append(record)
        file.close()
    assert (tmp_path / "logs" / "file").read_bytes() == b"one\ntwo\n"


def test_a_closed_file_takes_no_record(tmp_path: Path) -> None:
    file = AppendFile(tmp_path / "file")
    file.close()
    with pytest.raises(ValueError, match="closed"):
        file.append(b"late")
