from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from fn3hw.errors import InputError, RunError
from fn3hw.space.files import append_line, only_writer, sha256, write_bytes, write_text


def test_a_write_replaces_the_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    write_text(path, "old and long")
    write_bytes(path, b"new")
    assert path.read_bytes() == b"new" and [p.name for p in path.parent.iterdir()] == ["file"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    path = tmp_path / "file"
    write_text(path, "old")

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(InputError, match="No space left") as caught:
            write_text(path, "new")
    assert "df -h" in caught.value.hint
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["file"]


def test_only_one_program_writes_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with only_writer(path):
        with pytest.raises(RunError, match=f"process {os.getpid()} writes to it"), only_writer(path):
            raise AssertionError("not reached")
        with only_writer(tmp_path / "other"):
            pass
    with only_writer(path):
        assert not path.exists()


def test_a_folder_that_cannot_be_made_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="Cannot write"):
        write_text(tmp_path / "file" / "below", "y")


def test_lines_are_appended_and_a_torn_one_is_closed_off(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    append_line(path, "one")
    with path.open("a") as file:
        file.write('{"tor')
    append_line(path, "two")
    assert path.read_text().splitlines() == ["one", '{"tor', "two"]


def test_sha256_is_the_standard_one() -> None:
    assert sha256(b"") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_a_kill_before_the_rename_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_text(path, "old")

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_text(path, "new")
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["file"]


def test_contents_are_synced_before_the_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (calls.append("fsync"), fsync(handle))[1])
    monkeypatch.setattr(os, "replace", lambda a, b: (calls.append("replace"), replace(a, b))[1])
    write_text(tmp_path / "file", "x")
    assert calls == ["fsync", "replace"]


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    write_text(tmp_path / "file", "x")
    mask = os.umask(0)
    os.umask(mask)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o666 & ~mask


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_line_that_does_not_fit_on_the_disk_is_an_input_error() -> None:
    with pytest.raises(InputError, match="No space left"):
        append_line("/dev/full", "line")
