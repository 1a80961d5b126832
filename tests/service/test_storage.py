from __future__ import annotations

import errno
import hashlib
import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fn3hw.service.errors import TooLarge, Unavailable
from fn3hw.service.storage import Incoming, Storage


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """A bucket of a server that speaks S3."""
    server_of = pytest.importorskip("moto.server")
    s3fs = pytest.importorskip("s3fs")
    server = server_of.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_ENDPOINT_URL", "http://{}:{}".format(*server.get_host_and_port()))
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            environment.setenv(name, "test")
        s3fs.S3FileSystem(skip_instance_cache=True).mkdir("bucket")
        yield "s3://bucket"
    server.stop()


@pytest.fixture(params=["folder", "memory", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "s3":
        return f"{request.getfixturevalue('s3')}/{tmp_path.name}"
    return str(tmp_path / "files") if request.param == "folder" else f"memory://{tmp_path}"


@pytest.fixture
def storage(url: str, tmp_path: Path) -> Storage:
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


def test_what_another_process_writes_is_seen_at_once(url: str, storage: Storage, tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(b"1")
    storage.save("job/one", tmp_path / "one")
    assert storage.saved("job") == ["one"]
    program = (
        "import sys, pathlib, io; from fn3hw.service.storage import Storage; "
        "storage = Storage(sys.argv[1], pathlib.Path(sys.argv[2]) / 'other'); "
        "storage.save('job/two', pathlib.Path(sys.argv[2]) / 'one'); print(storage.put(io.BytesIO(b'2')).sha256)"
    )
    if url.startswith("memory"):
        pytest.skip("of one process alone")
    told = subprocess.run([sys.executable, "-c", program, url, str(tmp_path)], capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    assert storage.saved("job") == ["one", "two"] and storage.read(told.stdout.strip()) == b"2"
    storage.forget("job")
    assert storage.saved("job") == []


@pytest.mark.usefixtures("s3")
def test_a_storage_that_does_not_answer_is_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    storage = Storage("s3://elsewhere/x", tmp_path)
    with pytest.raises(Unavailable, match="cannot be read"):
        storage.read("0" * 64)


def test_too_much_leaves_nothing(storage: Storage, tmp_path: Path) -> None:
    with pytest.raises(TooLarge, match="MiB"), Incoming(storage, limit=4) as incoming:
        incoming.write(b"1234")
        incoming.write(b"5")
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


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a file whose disk is always full")
def test_a_disk_that_is_full_when_a_file_is_finished_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = Storage(str(tmp_path / "files"), tmp_path / "local")

    def full(handle: int, mode: str) -> IO[bytes]:
        os.close(handle)
        return Path("/dev/full").open("wb")

    monkeypatch.setattr("fn3hw.service.storage.os.fdopen", full)
    with pytest.raises(Unavailable, match="No space left"):
        storage.put(io.BytesIO(b"1"))
    assert list((tmp_path / "local").iterdir()) == []


def test_what_was_on_its_way_long_ago_is_removed(tmp_path: Path) -> None:
    old, new = tmp_path / "incoming-old", tmp_path / "incoming-new"
    (tmp_path / "folder-old").mkdir()
    for path in (old, new, tmp_path / "folder-old" / "x"):
        path.write_bytes(b"x")
    for path in (old, tmp_path / "folder-old"):
        os.utime(path, (1, 1))
    Storage(str(tmp_path / "files"), tmp_path)
    assert new.exists() and not old.exists() and not (tmp_path / "folder-old").exists()


def test_a_storage_of_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="cannot be used"):
        Storage("nowhere://bucket", tmp_path)
