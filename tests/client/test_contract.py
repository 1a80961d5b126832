"""The client against the real server: they have to mean the same."""

from __future__ import annotations

import threading
import time
from hashlib import sha256
from pathlib import Path

import pytest

from fn3hw.client import Client, JobCancelled
from fn3hw.errors import DeviceError, InputError, ProfileError, RunError, ServerError, UnknownName
from tests.client.serving import Ending, Served, served

HEALTH = {"name": "local", "command": "local", "id": "abc", "findings": []}


def test_who_one_is(server: Served, admin: Client) -> None:
    assert admin.me().scope == "admin"
    for token in ("fn3hw_no_token", None):
        with Client(server.url, token) as other, pytest.raises(ServerError) as raised:
            other.me()
        assert "FN3HW_TOKEN" in raised.value.hint and "no_token" not in str(raised.value)
    with Client(server.url, server.reader) as reader, pytest.raises(ServerError, match="scope admin"):
        reader.add_device("pi5", "local")


def test_tokens(server: Served, admin: Client) -> None:
    made = admin.create_token("mine", "read", days=1)
    with Client(server.url, made) as mine:
        assert mine.me().scope == "read"
        admin.revoke_token("mine")
        with pytest.raises(ServerError):
            mine.me()
    assert {token.name for token in admin.tokens()} == {"a", "r", "mine"}
    with pytest.raises(InputError, match="mine"):
        admin.create_token("mine")


def test_devices_over_several_pages(admin: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fn3hw.client.connection.ITEMS_A_PAGE", 2)
    for number in range(5):
        admin.add_device(f"d{number}", "ssh there python3 -", worker="w")
    assert [device.name for device in admin.devices()] == ["local", "d4", "d3", "d2", "d1", "d0"]
    admin.remove_device("d0")
    with pytest.raises(UnknownName, match="d0"):
        admin.device("d0")
    with pytest.raises(InputError, match="meaning of its own"):
        admin.add_device("none", "local")


def test_a_check_is_done_anew_each_time(server: Served, admin: Client) -> None:
    server.endings.of["check"] = Ending(document=HEALTH)
    assert admin.check_device("local").health is not None
    admin.check_device("local")
    assert len(list(admin.jobs(kind="check", state="succeeded"))) == 2
    body = {"code": "device", "message": "It is off.", "hint": "Turn it on.", "exit_status": 4}
    server.endings.of["check"] = Ending(error=body)
    with pytest.raises(DeviceError, match="It is off") as raised:
        admin.check_device("local")
    assert raised.value.exit_status == 4


def test_a_job_is_followed_to_its_end(server: Served, admin: Client) -> None:
    job = admin.ask_check("local")
    assert job.state == "queued" and not job.is_over
    desk = server.parts.desk
    states: list[str] = []

    def work() -> None:
        time.sleep(0.3)
        desk.begin(job.id, 1, "worker")
        told = {"progress": "checking", "done": 1, "total": 2, "seconds_left": 1.0, "note": "n", "at": "2026-01-01"}
        desk.report(job.id, progress={**told, "at": "2026-01-01T00:00:00+00:00"}, log="hello\n")
        time.sleep(1.5)
        server.endings.end(job.id, 1, Ending(document=HEALTH, files={"log.txt": b"hello\n"}))

    thread = threading.Thread(target=work)
    thread.start()
    ended = admin.wait(job, lambda now: states.append(now.state))
    thread.join()
    assert states[0] == "queued" and states[-1] == "succeeded"
    assert ended.result == {name: value for name, value in HEALTH.items() if name != "command"}
    assert admin.log(job) == "hello\n" and admin.files(job)["log.txt"].size == 6


def test_a_job_is_stopped_and_asked_for_again(server: Served, admin: Client) -> None:
    job = admin.train("digits", {"epochs": 1}, wait=False)
    assert admin.train("digits", {"epochs": 1}, wait=False).id == job.id
    assert admin.cancel(job).state == "cancelled"
    with pytest.raises(JobCancelled):
        admin.wait(job)
    again = admin.train("digits", {"epochs": 1}, wait=False)
    assert (again.id, again.attempt, again.state) == (job.id, 2, "queued")
    with pytest.raises(InputError, match="only one that failed"):
        admin.retry(job)
    with pytest.raises(UnknownName, match="nothing"):
        admin.job("nothing")


def test_what_a_request_lacks(admin: Client) -> None:
    with pytest.raises(UnknownName, match="digits"):
        admin.train("digit", wait=False)
    with pytest.raises(InputError, match="epochs"):
        admin.train("digits", {"epoch": 1}, wait=False)
    with pytest.raises(UnknownName, match="run-1"):
        admin.search("run-1", "profile-1", wait=False)
    with pytest.raises(InputError, match="subnets"):
        admin.profile("run-1", wait=False, subnets=1)


def test_uploads_that_are_refused(admin: Client, tmp_path: Path) -> None:
    for name, content in (("run.toml", b"format = 1\n"), ("supernet.onnx", b"o"), ("space.json", b"[]")):
        (tmp_path / name).write_bytes(content)
    with pytest.raises(RunError, match=r"supernet\.onnx"):
        admin.push(tmp_path)
    with pytest.raises(ProfileError):
        admin.push_profile(tmp_path / "space.json", "pi5")
    with pytest.raises(InputError, match="nowhere"):
        admin.push_profile(tmp_path / "nowhere", "pi5")


def test_files_come_whole_and_go_on(server: Served, admin: Client, tmp_path: Path) -> None:
    content = bytes(range(256)) * 20_000
    digest = server.keep("model.onnx", content)
    part = tmp_path / f".m.onnx.{digest[:16]}.part"
    for begun in (0, 1000, len(content)):
        part.write_bytes(content[:begun])
        assert admin.download(digest, tmp_path / "m.onnx").read_bytes() == content
        (tmp_path / "m.onnx").unlink()
    assert admin.download(server.keep("empty", b""), tmp_path / "empty").read_bytes() == b""
    with pytest.raises(UnknownName, match="artifact"):
        admin.download(sha256(b"other").hexdigest(), tmp_path / "other")


def test_a_request_that_the_server_does_not_know(admin: Client) -> None:
    with pytest.raises(ServerError, match="do not go together"):
        admin._connection.json("GET", "/teapots")


def test_an_upload_that_is_too_large_is_said_to_be(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for name, content in (("run.toml", b"format = 1\n"), ("supernet.onnx", bytes(30 << 20)), ("space.json", b"[]")):
        (run / name).write_bytes(content)
    with (
        served(tmp_path / "server", upload_mib=1) as small,
        Client(small.url, small.token) as client,
        pytest.raises(InputError, match="larger than the 1 MiB"),
    ):
        client.push(run)
