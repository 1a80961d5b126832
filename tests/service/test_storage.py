from __future__ import annotations

import errno
import hashlib
import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fn3hw.service.errors import TooLarge, Unavailable
from fn3hw.service.storage import Incoming, Storage


@pytest.fixture(params=["folder", "memory"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    url = str(tmp_path / "files") if request.param == "folder" else f"memory://{tmp_path}"
    return Storage(url, tmp_path / "local")


def test_what_is_stored_comes_back_whole_and_in_ranges(storage: Storage, tmp_path: Path) -> None:
    @given(st.binary(max_size=300), st.integers(0, 300), st.integers(0, 300))
    def check(content: bytes, start: int, size: int) -> None:
        stored = storage.put(io.BytesIO(content))
        assert stored.sha256 == hashlib.sha256(content).hexdigest() and stored.size == len(content)
        assert storage.put(io.BytesIO(content)) == stored
        assert storage.read(stored.sha256) == content
        assert b"".join(storage.chunks(stored.sha256, start, size)) == content[start : start + size]
        storage.copy(stored.sha256, tmp_path / "copies" / "one")
        assert (tmp_path / "copies" / "one").read_bytes() == content

    check()


def test_too_much_leaves_nothing(storage: Storage, tmp_path: Path) -> None:
    with pytest.raises(TooLarge, match="MiB"):
        storage.put(io.BytesIO(b"12345"), limit=4)
    assert list((tmp_path / "local").iterdir()) == []
    with pytest.raises(Unavailable):
        storage.read(hashlib.sha256(b"12345").hexdigest())


def test_an_upload_that_stops_leaves_nothing(storage: Storage, tmp_path: Path) -> None:
    with pytest.raises(KeyError), Incoming(storage, limit=None) as incoming:
        incoming.write(b"1234")
        raise KeyError
    assert list((tmp_path / "local").iterdir()) == []


def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = Storage(str(tmp_path / "files"), tmp_path / "local")

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("fn3hw.service.storage.shutil.copyfile", full)
    with pytest.raises(Unavailable, match="No space left"):
        storage.put(io.BytesIO(b"1"))
    with pytest.raises(Unavailable, match="No space left"):
        storage.copy("0" * 64, tmp_path / "copy")
    with pytest.raises(Unavailable, match="No space left"):
        storage.save("job/file", tmp_path / "file")
    assert not list(tmp_path.rglob("*1*")) and list((tmp_path / "local").iterdir()) == []


def test_a_storage_of_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="cannot be used"):
        Storage("nowhere://bucket", tmp_path)
