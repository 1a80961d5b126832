from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import threading
from pathlib import Path
from typing import Any, NoReturn

import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fn3hw.service.api.app import JSON_BYTES
from fn3hw.service.api.shared import Parts
from fn3hw.service.models import Job, now
from tests.service.api.conftest import Callers
from tests.service.conftest import Hands
from tests.service.rows import Ids, run_tar, tar_of

PROFILES = Path(__file__).parents[3] / "profiles" / "amd-epyc-x86-64"
RELAXED = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None)


def error_of(answer: Any, status: int, *said: str) -> dict[str, Any]:
    """The error of an answer, which says some things."""
    assert answer.status_code == status, answer.text
    error: dict[str, Any] = answer.json()["error"]
    assert {"code", "message", "hint", "exit_status", "job_id"} <= error.keys()
    text = f"{error['message']} {error['hint']}"
    assert all(part in text for part in said), text
    return error


def test_a_pushed_run_is_found_again(callers: Callers, parts: Parts) -> None:
    first = callers["submit"].post("/v1/runs?name=mine", content=run_tar())
    assert first.status_code == 201, first.text
    again = callers["submit"].post("/v1/runs?name=other", content=run_tar())
    assert again.json() == first.json() and first.json()["name"] == "mine"
    found = callers["read"].get(f"/v1/runs/{first.json()['id']}").json()
    assert {"run.toml", "supernet.onnx", "space.json"} <= found["files"].keys() and found["evaluations"] == 0
    network = callers["read"].get(f"/v1/networks/{found['network_id']}").json()
    assert network["n_blocks"] == sum(gate["size"] for gate in network["gates"])
    content = callers["read"].get(f"/v1/artifacts/{found['files']['supernet.onnx']}").content
    assert hashlib.sha256(content).hexdigest() == found["files"]["supernet.onnx"]
    assert list(parts.storage._local.iterdir()) == []


def spoiled(**changes: bytes | None) -> bytes:
    files = members()
    for name, content in changes.items():
        path = name.replace("__", ".")
        files.pop(path, None)
        if content is not None:
            files[path] = content
    return tar_of(files)


def external() -> bytes:
    """An ONNX file that wants another file of the server."""
    tensor = onnx.TensorProto(name="x", data_type=1, dims=[1], data_location=onnx.TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="/etc/passwd")
    return bytes(onnx.ModelProto(graph=onnx.GraphProto(initializer=[tensor])).SerializeToString())


def members() -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(run_tar())) as archive:
        return {m.name: archive.extractfile(m).read() for m in archive if m.isreg()}  # type: ignore[union-attr]


def respaced(**changes: object) -> bytes:
    """A run whose first gate is another one."""
    space = json.loads(members()["space.json"])
    space["gates"][0] |= changes
    return spoiled(space__json=json.dumps(space).encode())


def outputless() -> bytes:
    """A run whose network gives nothing."""
    model = onnx.load_from_string(members()["supernet.onnx"])
    del model.graph.output[:]
    content = bytes(model.SerializeToString())
    space = {**json.loads(members()["space.json"]), "onnx_sha256": hashlib.sha256(content).hexdigest()}
    return spoiled(supernet__onnx=content, space__json=json.dumps(space).encode())


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "tar"),
        (b"no tar at all" * 100, "tar"),
        (run_tar()[:2000], "lacks"),
        (tar_of({"../../etc/passwd": b"x", "notes.txt": b"x"}), "run.toml"),
        (spoiled(supernet__onnx=None), "supernet.onnx"),
        (spoiled(supernet__onnx=b"no model"), "supernet.onnx"),
        (spoiled(supernet__onnx=external()), "other files"),
        (spoiled(run__toml=b"epochs = 'many'"), "run.toml"),
        (spoiled(space__json=b"{}"), "space.json"),
        (spoiled(run__toml=b"speed = 3\n" + members()["run.toml"]), "speed"),
        (respaced(level="colour"), "colour"),
        (respaced(size="many"), "search space"),
        (outputless(), "cannot be read"),
        (tar_of({f"{number}.txt": b"" for number in range(100)}), "more than"),
    ],
)
@pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
def test_bad_uploads_are_refused_and_leave_no_run(content: bytes, said: str, callers: Callers, kind: str) -> None:
    error_of(callers["submit"].post("/v1/runs?name=bad", content=content), 422, said)
    assert callers["read"].get("/v1/runs").json()["items"] == []


def test_a_network_without_a_run_is_the_one_of_the_run(callers: Callers) -> None:
    bare = spoiled(run__toml=None)
    first = callers["submit"].post("/v1/networks?name=mine", content=bare)
    assert first.status_code == 201 and first.json()["name"] == "mine", first.text
    assert callers["read"].get("/v1/runs").json()["items"] == []
    run = callers["submit"].post("/v1/runs?name=run", content=run_tar()).json()
    assert run["network_id"] == first.json()["id"]
    assert callers["submit"].post("/v1/networks?name=other", content=bare).json() == first.json()
    error_of(callers["submit"].post("/v1/networks?name=a", content=spoiled(space__json=None)), 422, "space.json")
    error_of(callers["submit"].post("/v1/networks?name=a", content=spoiled(supernet__onnx=external())), 422, "other")


def test_what_is_profiled_is_a_run_or_a_network(callers: Callers, ids: Ids) -> None:
    made = callers["submit"].post("/v1/profiles", json={"network": ids.network})
    assert made.status_code == 202 and made.json()["run_id"] is None, made.text
    for body in ({}, {"network": ids.network, "run": ids.run}):
        error_of(callers["submit"].post("/v1/profiles", json=body), 422, "run or network")
    error_of(callers["submit"].post("/v1/profiles", json={"network": "network-0"}), 404, "network")


def test_uploads_and_bodies_are_bounded(callers: Callers, parts: Parts) -> None:
    large = b"x" * (parts.settings.upload_mib * 2**20 + 1)
    assert error_of(callers["submit"].post("/v1/runs?name=a", content=large), 413, "8 MiB")["code"] == "too-large"
    body = json.dumps({"recipe": "x" * JSON_BYTES})
    headers = {"Content-Type": "application/json"}
    error_of(callers["submit"].post("/v1/trainings", content=body, headers=headers), 413, "1 MiB")


def test_what_unpacks_to_too_much_is_too_large(callers: Callers, parts: Parts) -> None:
    sparse = tarfile.TarInfo("supernet.onnx")
    sparse.type, sparse.size = tarfile.REGTYPE, parts.settings.upload_mib * 2**20 + 1
    error_of(callers["submit"].post("/v1/runs?name=a", content=sparse.tobuf() + bytes(1024)), 413, "larger")
    packed = gzip.compress(run_tar())
    error_of(callers["submit"].post("/v1/runs?name=a", content=packed), 422, "tar")
    assert list(parts.storage._local.iterdir()) == []


def test_uploads_at_the_same_time_make_one_run(callers: Callers) -> None:
    answers: list[Any] = []

    def push() -> None:
        answers.append(callers["submit"].post("/v1/runs?name=mine", content=run_tar()))

    threads = [threading.Thread(target=push) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["id"] for answer in answers}) == 1


def test_a_profile_of_something_else_is_refused(callers: Callers) -> None:
    error_of(callers["submit"].put("/v1/profiles?device=pi5", content=b"{}"), 422, "no profile")
    spoilt = json.loads((PROFILES / "mlp-1-thread.json").read_text())
    spoilt["created"] = float("nan")
    error_of(callers["submit"].put("/v1/profiles?device=pi5", content=json.dumps(spoilt).encode()), 422, "profile")
    error_of(callers["submit"].put("/v1/profiles?device=a%20b", content=b"{}"), 422, "no name")


def test_the_same_work_is_the_same_job(callers: Callers, ids: Ids, hands: Hands) -> None:
    body = {"run": ids.run, "device": "local", "subnets": 5}
    first = callers["submit"].post("/v1/profiles", json=body)
    assert first.status_code == 202 and first.headers["Location"] == f"/v1/jobs/{first.json()['id']}"
    again = callers["submit"].post("/v1/profiles", json={**body, "seed": 0})
    assert again.json()["id"] == first.json()["id"]
    other = callers["submit"].post("/v1/profiles", json={**body, "repeat": 1})
    assert other.json()["id"] != first.json()["id"]
    assert {job for job, *_ in hands.put_jobs} == {first.json()["id"], other.json()["id"]}
    assert {queue for _, _, queue, _ in hands.put_jobs} == {"devices"}


def test_an_idempotency_key_is_one_job_and_one_request(callers: Callers, ids: Ids) -> None:
    body, headers = {"run": ids.run, "profile": ids.profile}, {"Idempotency-Key": "once"}
    first = callers["submit"].post("/v1/searches", json=body, headers=headers).json()
    assert callers["submit"].post("/v1/searches", json=body, headers=headers).json()["id"] == first["id"]
    other = callers["submit"].post("/v1/searches", json={**body, "seed": 7}, headers=headers)
    assert error_of(other, 409, "once")["code"] == "conflict"
    assert callers["admin"].post("/v1/searches", json={**body, "seed": 7}, headers=headers).status_code == 202


def test_requests_at_the_same_time_make_one_job(callers: Callers, ids: Ids, hands: Hands) -> None:
    body = {"run": ids.run, "profile": ids.profile, "seed": 3}
    answers: list[Any] = []
    threads = [
        threading.Thread(
            target=lambda: answers.append(
                callers["submit"].post("/v1/searches", json=body, headers={"Idempotency-Key": "k"})
            )
        )
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == 1


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("/v1/profiles", {"run": "nothing"}, 404, "nothing"),
        ("/v1/profiles", {"run": "{run}", "device": "mars"}, 404, "mars"),
        ("/v1/profiles", {"run": "{run}", "subnets": 1}, 422, "subnets"),
        ("/v1/profiles", {"run": "{run}", "command": "rm -rf /"}, 422, "command"),
        ("/v1/searches", {"run": "{run}", "profile": "nothing"}, 404, "nothing"),
        ("/v1/searches", {"run": "{run}", "profile": "other"}, 409, "another network"),
        ("/v1/searches", {"run": "{run}"}, 422, "profile"),
        ("/v1/exports", {"search": "search-1"}, 422, "latency_ms"),
        ("/v1/exports", {"search": "search-1", "latency_ms": -1}, 422, "latency_ms"),
        ("/v1/exports", {"search": "nothing", "latency_ms": 1}, 404, "nothing"),
        ("/v1/trainings", {"recipe": "nothing"}, 422, "Known"),
        ("/v1/trainings", {"recipe": "/etc/passwd"}, 422, "Known"),
        ("/v1/trainings", {"recipe": "digits", "settings": {"epoch": 1}}, 422, "epoch"),
        ("/v1/trainings", {"recipe": "digits", "settings": {"data": {"root": "/etc"}}}, 422, "path of the server"),
        ("/v1/trainings", {"recipe": "digits", "settings": {"network": {"start_from": "/etc"}}}, 422, "path"),
        ("/v1/comparisons", {"run": "{run}", "profile": "profile-1", "seeds": 0}, 422, "seeds"),
        ("/v1/devices/mars/checks", {}, 404, "mars"),
        ("/v1/jobs/nothing/cancel", {}, 404, "nothing"),
        ("/v1/jobs/check-succeeded/retry", {}, 409, "succeeded"),
        ("/v1/nothing", {}, 404, "nothing at this address"),
    ],
)
@pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
def test_bad_requests(
    path: str, body: dict[str, Any], status: int, said: str, callers: Callers, ids: Ids, parts: Parts, kind: str
) -> None:
    from sqlalchemy import update

    from fn3hw.service.models import Profile

    if body.get("profile") == "other":
        with parts.database.session() as session:
            session.execute(update(Profile).values(architecture="0" * 64))
        body["profile"] = ids.profile
    body = {key: value.format(run=ids.run) if isinstance(value, str) else value for key, value in body.items()}
    error_of(callers["submit"].post(path, json=body), status, said)
    with parts.database.session() as session:
        assert session.query(Job).count() == len(ids.jobs)


def test_a_lookup_never_exceeds_its_budget_and_says_what_can_be_reached(callers: Callers, ids: Ids) -> None:
    points = callers["read"].get(f"/v1/atlases/{ids.search}").json()["points"]
    assert points == sorted(points, key=lambda point: point["latency_ms"])
    path = f"/v1/atlases/{ids.search}/lookup"

    @RELAXED
    @given(st.floats(0.5, 6.0), st.floats(50, 61))
    def check(latency_ms: float, peak_mib: float) -> None:
        answer = callers["read"].get(path, params={"latency_ms": latency_ms, "peak_mib": peak_mib})
        fitting = [p for p in points if p["latency_ms_high"] <= latency_ms and p["peak_mib"] <= peak_mib]
        if not fitting:
            error = error_of(answer, 422, "at least")
            assert error["code"] == "infeasible-budget" and error["exit_status"] == 3 and error["best"] > 0
        else:
            assert answer.json()["accuracy"] == max(p["accuracy"] for p in fitting)
            assert answer.json()["counts"] and answer.json()["binding"] in ("latency_ms", "peak_mib")

    check()
    error_of(callers["read"].get(path), 422, "latency_ms")
    error_of(callers["read"].get(path, params={"latency_ms": "nan"}), 422, "latency_ms")
    error_of(callers["read"].get(path, params={"relative_cost": 0.5}), 422, "latency")
    assert len(callers["read"].get(f"/v1/atlases/{ids.search}?limit=3").json()["points"]) == 3


def test_pages_hold_every_row_once_newest_first(callers: Callers, ids: Ids, parts: Parts) -> None:
    moment = now()
    with parts.database.session() as session:
        for number in range(17):  # some at the same time
            session.add(
                Job(
                    id=f"job-{number}", kind="train", parameters={}, state="queued", queue="q", attempt=1, cancel=False,
                    log="", created_at=moment,
                )
            )  # fmt: skip

    @RELAXED
    @given(st.integers(1, 30))
    def check(limit: int) -> None:
        seen: list[dict[str, Any]] = []
        after = None
        while True:
            page = (
                callers["read"].get("/v1/jobs", params={"limit": limit, **({"after": after} if after else {})}).json()
            )
            assert len(page["items"]) <= limit
            seen += page["items"]
            after = page["next"]
            if after is None:
                break
        names = [job["id"] for job in seen]
        assert len(names) == len(set(names)) == 17 + len(ids.jobs)
        assert [job["created_at"] for job in seen] == sorted((job["created_at"] for job in seen), reverse=True)

    check()
    failed = callers["read"].get("/v1/jobs?state=failed").json()["items"]
    assert [job["id"] for job in failed] == ["check-failed"] and failed[0]["error"]["job_id"] == "check-failed"
    assert len(callers["read"].get("/v1/jobs?kind=train").json()["items"]) == 17


@pytest.mark.parametrize(
    "after",
    [
        *("x", "W10=", "WzEsMl0=", "WyJhIiwiYiJd", "bnVsbA==", "é", "%00"),
        "WyIwMDAxLTAxLTAxVDAwOjAwOjAwKzIzOjU5IiwgIngiXQ==",  # a moment before the first year
        "WyIyMDI2LTAxLTAxVDAwOjAwOjAwKzAwOjAwIiwgIlx1ZDgwMCJd",  # half a character
    ],
)
def test_pages_begin_where_a_page_ended_and_nowhere_else(after: str, callers: Callers, ids: Ids) -> None:
    for path in ("jobs", "runs", "devices", "searches"):
        error_of(callers["read"].get(f"/v1/{path}", params={"after": after}), 422, "next")
    error_of(callers["admin"].get("/v1/audit", params={"after": after}), 422, "next")


def test_ranges_of_a_file(callers: Callers, ids: Ids) -> None:
    path = f"/v1/artifacts/{ids.artifact}"
    whole = callers["read"].get(path).content

    @RELAXED
    @given(st.integers(0, 2 * len(whole)), st.integers(0, 2 * len(whole)) | st.none())
    def check(start: int, end: int | None) -> None:
        answer = callers["read"].get(path, headers={"Range": f"bytes={start}-{'' if end is None else end}"})
        expected = whole[start:] if end is None else whole[start : end + 1]
        if expected:
            assert answer.status_code == 206 and answer.content == expected
            assert answer.headers["Content-Range"] == f"bytes {start}-{start + len(expected) - 1}/{len(whole)}"
        else:
            assert answer.status_code == 416 and answer.headers["Content-Range"] == f"bytes */{len(whole)}"

    check()
    assert callers["read"].get(path, headers={"Range": "bytes=-7"}).content == whole[-7:]
    assert callers["read"].get(path, headers={"Range": "lines=1-2"}).content == whole


def test_events_of_a_job_end_with_it(callers: Callers, ids: Ids, parts: Parts) -> None:
    def end() -> None:
        with parts.database.session() as session:
            job = session.get(Job, ids.jobs["running"])
            assert job is not None
            job.state, job.finished_at = "succeeded", now()

    timer = threading.Timer(1.5, end)
    timer.start()
    with callers["read"].stream("GET", f"/v1/jobs/{ids.jobs['running']}/events") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        text = "".join(answer.iter_text())
    timer.join()
    states = [json.loads(line.removeprefix("data: "))["state"] for line in text.splitlines() if line.startswith("data")]
    assert states == ["running", "succeeded"]


def test_operations_answer_without_a_token(callers: Callers, ids: Ids) -> None:
    assert callers["none"].get("/healthz").text == "ok\n"
    assert callers["none"].get("/readyz").text == "ready\n"
    callers["read"].get("/v1/jobs")
    metrics = callers["none"].get("/metrics").text
    assert 'fn3hw_jobs{state="failed"} 1.0' in metrics and 'route="/v1/jobs"' in metrics


def test_a_database_that_is_gone(callers: Callers, parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    from sqlalchemy.exc import OperationalError

    class Gone:
        def begin(self) -> Any:
            raise OperationalError("SELECT 1", {}, Exception("password=secret"))

    callers["read"].get("/v1/jobs")
    for name in ("_sessions", "_readers"):
        monkeypatch.setattr(parts.database, name, Gone())
    answer = callers["read"].get("/v1/jobs")
    assert error_of(answer, 503, "database")["code"] == "unavailable" and "secret" not in answer.text
    error_of(callers["none"].get("/readyz"), 503, "database")


def test_a_bug_is_told_with_the_number_of_its_request(
    callers: Callers, ids: Ids, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(*_: object) -> NoReturn:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr("fn3hw.service.catalog.network", wrong)
    answer = callers["read"].get(f"/v1/networks/{ids.network}")
    error_of(answer, 500, answer.headers["X-Request-Id"])
    assert answer.headers["X-Frame-Options"] == "DENY" and "secret" not in answer.text


def test_a_stored_file_that_is_gone_is_unavailable(callers: Callers, ids: Ids, parts: Parts) -> None:
    Path(parts.storage._path(ids.artifact)).unlink()
    error_of(callers["read"].get(f"/v1/artifacts/{ids.artifact}"), 503, "cannot be read")


def test_headers_of_every_answer(callers: Callers) -> None:
    for path in ("/v1/jobs", "/healthz", "/v1/nothing", "/v1/openapi.json"):
        headers = callers["none"].get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"] and "unsafe" not in str(headers)
        assert headers["x-content-type-options"] == "nosniff" and headers["x-request-id"]
