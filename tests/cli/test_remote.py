"""Verbs with ``--server``: the same documents, errors and exit statuses as without it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fn3hw.client import Client, Job
from fn3hw.profiler import Profile
from tests.cli.conftest import check_error
from tests.client.serving import Ending, Served, served
from tests.conftest import TINY

TRAINED = ("run.toml", "supernet.onnx", "supernet.safetensors", "space.json", "history.jsonl")
NOISY = {"code": "noisy", "message": "The clock was busy.", "hint": "Close programs.", "exit_status": 5}
MISSED = {**NOISY, "code": "infeasible-budget", "exit_status": 3, "limit": "latency_ms", "best": 2.0}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, made: Path) -> Iterator[Served]:
    """A server that has the run, its profile and its search; jobs end in what the verbs here ended in."""
    with served(tmp_path_factory.mktemp("server")) as found:
        document = {"evaluations": 8, "seconds": 1.0, "plot": "run/front.png", "points": [{"subnet": "s"}]}
        (atlas,) = made.glob("atlas-*.json")
        kept = (atlas, made / "evaluators.json", made / "archive.jsonl", made / "front.png")
        files = {f"run/{path.name}": path.read_bytes() for path in kept}
        found.endings.of["search"] = Ending(document=document, files=files)
        with Client(found.url, found.token) as client:
            run = client.push(made)
            client.search(run, client.push_profile(made / "profile.json", "local"))
        yield found


@pytest.fixture(autouse=True)
def environment(server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FN3HW_TOKEN", server.token)
    monkeypatch.setattr("fn3hw.client.connection.PAUSES_S", (0.01,))
    monkeypatch.setattr("fn3hw.client.watching.POLL_S", 0.1)


@pytest.fixture
def ids(server: Served) -> tuple[str, str, str]:
    """Of the run, its profile and its search."""
    with Client(server.url) as client:
        (search,) = client.searches()
        return search.run_id, search.profile_id, search.id


def lookup_here(call: Any, made: Path, *budget: object) -> Any:
    return call("lookup", made, "--profile", made / "profile.json", *budget, "--json")


@pytest.mark.parametrize("named", ["id", "name", "folder"])
def test_lookup_says_the_same(call: Any, server: Served, made: Path, ids: tuple[str, str, str], named: str) -> None:
    run = {"id": ids[0], "name": made.name, "folder": made}[named]
    profile = made / "profile.json" if named == "folder" else ids[1]
    there = call("lookup", run, "--profile", profile, "--latency-ms", 1000, "--json", "--server", server.url)
    assert there.status == 0, there.err
    assert there.document == lookup_here(call, made, "--latency-ms", 1000).document
    again = call("lookup", run, "--search", ids[2], "--latency-ms", 1000, "--json", "--server", server.url)
    assert again.document == there.document
    assert "accuracy" in call("lookup", run, "--profile", profile, "--size-mib", 9, "--server", server.url).out
    with Client(server.url) as client:
        assert len(list(client.runs())) == 1


def test_a_budget_that_cannot_be_met(call: Any, server: Served, made: Path, ids: tuple[str, str, str]) -> None:
    here = check_error(lookup_here(call, made, "--latency-ms", "1e-9"), 3)
    asked = ("lookup", ids[0], "--profile", ids[1], "--latency-ms", "1e-9", "--json", "--server", server.url)
    there = check_error(call(*asked), 3)
    assert {k: there[k] for k in ("code", "limit", "best")} == {k: here[k] for k in ("code", "limit", "best")}
    check_error(call("lookup", ids[0], "--profile", ids[1], "--json", "--server", server.url), 2, "--latency-ms")


def test_servers_that_cannot_be_used(call: Any, server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = ("lookup", "run-1", "--profile", "profile-1", "--latency-ms", 1, "--json", "--server")
    assert check_error(call(*asked, "http://127.0.0.1:9"), 2, "127.0.0.1:9", "fn3hw serve")["code"] == "server"
    check_error(call(*asked, "nonsense"), 2, "nonsense")
    check_error(call(*asked, "http://fn3hw.example.org"), 2, "plain text", "https", "FN3HW_ALLOW_PLAIN")
    monkeypatch.setenv("FN3HW_TOKEN", "fn3hw_wrong_Token")
    result = call(*asked, server.url)
    assert check_error(result, 2, "token", "FN3HW_TOKEN")["code"] == "server"
    assert "wrong_Token" not in result.out + result.err


def test_what_the_server_does_not_have(call: Any, server: Served, ids: tuple[str, str, str], tmp_path: Path) -> None:
    run, profile, _ = ids
    rest = ("--latency-ms", 1, "--json", "--server", server.url)
    check_error(call("lookup", "nothing", "--profile", profile, *rest), 2, "No run is called 'nothing'", "run")
    check_error(call("lookup", "run-0123", "--profile", profile, *rest), 2, "run-0123")
    check_error(call("lookup", run, "--profile", "nothing", *rest), 2, "nothing", "fn3hw profile")
    check_error(call("lookup", run, "--search", "nothing", *rest), 2, "nothing")
    check_error(call("lookup", run, *rest), 2, "--profile")
    check_error(call("lookup", tmp_path, "--profile", profile, *rest), 2, "run.toml")


def test_a_search_that_is_lacking(call: Any, server: Served, made: Path, tmp_path: Path) -> None:
    other = tmp_path / "profile-pi5.json"
    Profile.read(made / "profile.json").model_copy(update={"created": "2020-01-01T00:00:00+00:00"}).write(other)
    asked = ("lookup", made, "--profile", other, "--latency-ms", 1, "--json", "--server", server.url)
    assert check_error(call(*asked), 2, "was not searched", "fn3hw search")["code"] == "run"
    with Client(server.url) as client:
        assert [profile.device for profile in client.profiles(device="pi5")] == ["pi5"]


def test_options_without_a_meaning_there(call: Any, server: Served, made: Path) -> None:
    given = (made, "--profile", made / "profile.json", "--json", "--server", server.url)
    check_error(call("search", *given, "--executor", "ray"), 2, "--executor", "--server")
    check_error(call("compare", *given, "--address", "here:1"), 2, "--address")
    check_error(call("lookup", *given, "--latency-ms", 1, "--plot", "p.png"), 2, "--plot")
    check_error(call("profile", made, "--provider", "XNNPACK", "--json", "--server", server.url), 2, "--provider")
    recipe = ("--recipe", made / "run.toml", "--json", "--server", server.url)
    check_error(call("train", *recipe), 2, "is a file")
    here = ("lookup", made, "--profile", made / "profile.json", "--latency-ms", 1, "--json")
    check_error(call(*here, "--search", "search-1"), 2, "--server")
    check_error(call("device", "add", "pi5", "--command", "x", "--worker", "w", "--json"), 2, "--server")


def test_push_finds_what_is_there(call: Any, server: Served, made: Path, own: Path) -> None:
    result = call("push", made, "--server", server.url, "--json")
    with Client(server.url) as client:
        (run,) = [run for run in client.runs() if run.name == made.name]
        assert result.status == 0 and result.document == {"run": run.id, "name": run.name, "network": run.network_id}
        files = client.run(run).files
    assert set(TRAINED) <= files.keys()
    (own / "supernet.onnx").unlink()
    assert check_error(call("push", own, "--server", server.url, "--json"), 2, "not trained")["code"] == "run"
    check_error(call("push", made, "--json"), 2, "--server")


def test_push_takes_the_server_from_the_environment(
    call: Any, server: Served, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FN3HW_SERVER", server.url)
    assert call("push", made).status == 0 and call("job", "list").status == 0


def test_train_there(call: Any, server: Served, made: Path, tmp_path: Path) -> None:
    document = {"run": "run", "epochs": 1, "blocks": 5, "gates": 2, "test_accuracy": 90.0}
    files = {f"run/{name}": (made / name).read_bytes() for name in TRAINED}
    server.endings.of["train"] = Ending(document=document, files=files)
    output = tmp_path / "fetched"
    asked = ("train", "--recipe", "digits", *TINY, "--server", server.url, "--output", output, "--json")
    result = call(*asked)
    assert result.status == 0, result.err
    assert result.document == {**document, "run": str(output)}
    assert {path.name: path.read_bytes() for path in output.iterdir()}.items() >= {
        name: (made / name).read_bytes() for name in TRAINED
    }.items()
    with Client(server.url) as client:
        (job,) = client.jobs(kind="train")
    options = {"stem": 8, "stages": [[8, 2, 2], [12, 2, 1]], "expand": 2, "head": 16}
    assert job.parameters["settings"] == {"network": {"options": options}, "epochs": 1, "warm_up": 0.0}
    assert call(*asked[:-3], "--json").document["run"] == job.run_id


def test_profile_there(call: Any, server: Served, made: Path, tmp_path: Path) -> None:
    here = call("profile", "--show", made / "profile.json", "--json").document
    files = {"profile.json": (made / "profile.json").read_bytes()}
    server.endings.of["profile"] = Ending(document={**here, "path": "profile.json"}, files=files)
    output = tmp_path / "there.json"
    asked = ("profile", made, "--subnets", 5, "--server", server.url)
    result = call(*asked, "--output", output, "--json")
    assert result.status == 0, result.err
    assert result.document == {**here, "path": str(output)}
    assert output.read_bytes() == files["profile.json"]
    assert "fn3hw search" in call(*asked).out
    assert call(*asked, "--json").document["path"].startswith("profile-")


def test_a_network_without_a_run_is_profiled_there(call: Any, server: Served, made: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bare"
    folder.mkdir()
    for name in ("supernet.onnx", "space.json"):
        shutil.copy(made / name, folder)
    here = call("profile", "--show", made / "profile.json", "--json").document
    files = {"profile.json": (made / "profile.json").read_bytes()}
    server.endings.of["profile"] = Ending(document={**here, "path": "profile.json"}, files=files)
    pushed = call("push", folder, "--server", server.url, "--json")
    assert pushed.status == 0 and pushed.document["network"].startswith("network-"), pushed.err
    for named in (folder, pushed.document["network"]):
        result = call("profile", named, "--server", server.url)
        assert result.status == 0 and "fn3hw search RUN" in result.out, result.err
    with Client(server.url) as client:
        assert next(iter(client.jobs(kind="profile"))).parameters["network"] == pushed.document["network"]
    check_error(call("search", folder, "--profile", made / "profile.json", "--server", server.url, "--json"), 2, "run")


def test_a_noisy_profile_is_told_of(call: Any, server: Served, made: Path, tmp_path: Path) -> None:
    here = call("profile", "--show", made / "profile.json", "--json").document
    noisy = tmp_path / "made.json"
    Profile.read(made / "profile.json").model_copy(update={"created": "2021-01-01T00:00:00+00:00"}).write(noisy)
    files = {"profile.json": noisy.read_bytes()}
    server.endings.of["profile"] = Ending(document=here, files=files, error=NOISY)
    asked = ("profile", made, "--subnets", 6, "--server", server.url, "--json")
    result = call(*asked, "--output", tmp_path / "noisy.json")
    assert check_error(result, 5, "busy")["code"] == "noisy"
    assert result.document["holdout"] == here["holdout"] and (tmp_path / "noisy.json").is_file()
    server.endings.of["profile"] = Ending(document=None, files={}, error=NOISY)
    check_error(call("profile", made, "--subnets", 8, "--server", server.url, "--json"), 5, "busy")


def test_several_devices_there(call: Any, server: Served, made: Path) -> None:
    with Client(server.url) as client:
        client.add_device("board", "ssh board python3 -")
    here = call("profile", "--show", made / "profile.json", "--json").document
    files = {"profile.json": (made / "profile.json").read_bytes()}
    asked = ("profile", made, "--device", "local", "--subnets", 7, "--server", server.url, "--json")
    check_error(call(*asked, "--device", "local"), 2, "twice")
    check_error(call(*asked, "--device", "board", "--output", "x"), 2, "--output")
    server.endings.of["profile"] = Ending(document=here, files=files)
    result = call(*asked, "--device", "board")
    assert result.status == 0, result.err
    assert [one["name"] for one in result.document["profiles"]] == ["local", "board"]
    assert all(one["holdout"] == here["holdout"] for one in result.document["profiles"])
    server.endings.of["profile"] = Ending(error={**NOISY, "code": "device", "exit_status": 4})
    failed = call(*asked, "--device", "board", "--seed", 2)
    assert check_error(failed, 4, "busy") and [one["error"]["code"] for one in failed.document["profiles"]]


def test_search_there(call: Any, server: Served, made: Path, ids: tuple[str, str, str], tmp_path: Path) -> None:
    asked = ("search", ids[0], "--profile", ids[1], "--server", server.url)
    result = call(*asked, "--plot", tmp_path / "front.png", "--json")
    assert result.status == 0, result.err
    assert {"evaluations", "seconds", "points"} <= result.document.keys()
    assert result.document["plot"] == str(tmp_path / "front.png")
    assert (tmp_path / "front.png").read_bytes() == (made / "front.png").read_bytes()
    assert "fn3hw lookup" in call(*asked).out


def exported(call: Any, made: Path, path: Path) -> dict[str, Any]:
    asked = ("--latency-ms", 1000, "--verify-on", "none", "--output", path, "--json")
    found = call("export", made, "--profile", made / "profile.json", *asked)
    assert found.status == 0, found.err
    return found.document  # type: ignore[no-any-return]


def test_export_there(call: Any, server: Served, made: Path, ids: tuple[str, str, str], tmp_path: Path) -> None:
    here = exported(call, made, tmp_path / "here.onnx")
    files = {"model.onnx": (tmp_path / "here.onnx").read_bytes()}
    server.endings.of["export"] = Ending(document={**here, "path": "model.onnx"}, files=files)
    output = tmp_path / "there.onnx"
    asked = ("export", ids[0], "--profile", ids[1], "--output", output, "--latency-ms", 1000, "--server", server.url)
    result = call(*asked, "--verify-on", "none", "--json")
    assert result.status == 0, result.err
    assert result.document == {**here, "path": str(output)}
    assert output.read_bytes() == files["model.onnx"]
    assert "not measured" in " ".join(call(*asked, "--verify-on", "none").out.split())
    with Client(server.url) as client:
        made_there = client.export(ids[2], tmp_path / "api.onnx", latency_ms=1000, verify_on=None)
    assert made_there.path.read_bytes() == files["model.onnx"] and made_there.sha256 == here["sha256"]
    server.endings.of["export"] = Ending(document=here, files={"model.onnx": b"onnx"}, error=MISSED)
    error = check_error(call(*asked, "--percentile", 90, "--json"), 3, "busy")
    assert (error["limit"], error["best"]) == ("latency_ms", 2.0)
    assert output.read_bytes() == b"onnx"


def test_compare_there(call: Any, server: Served, ids: tuple[str, str, str], tmp_path: Path) -> None:
    document = {"methods": [{"name": "fn3hw"}], "report": {"html": "report/report.html"}, "seconds": 1.0}
    server.endings.of["compare"] = Ending(document=document, files={"report/report.html": b"<html>"})
    asked = ("compare", ids[0], "--profile", ids[1], "--server", server.url, "--json")
    assert call(*asked).document == document
    result = call(*asked, "--output", tmp_path / "report")
    assert result.document["report"] == {"html": str(tmp_path / "report" / "report.html")}
    assert (tmp_path / "report" / "report.html").read_bytes() == b"<html>"


def test_devices_there(call: Any, server: Served, made: Path) -> None:
    there = ("--server", server.url, "--json")
    added = call("device", "add", "pi5", "--command", "ssh pi@pi5.local python3 -", *there)
    assert added.document == {"name": "pi5", "command": "ssh pi@pi5.local python3 -"}
    check_error(call("device", "add", "pi5", "--command", "x", *there), 2, "known already", "--replace")
    assert call("device", "add", "pi5", "--command", "ssh x python3 -", "--replace", *there).status == 0
    assert {"local", "pi5"} <= {device["name"] for device in call("device", "list", *there).document["devices"]}
    assert "pi5" in call("device", "list", "--server", server.url).out
    assert call("device", "remove", "pi5", *there).document == {"name": "pi5"}
    check_error(call("device", "remove", "pi5", *there), 2, "pi5")


def test_check_says_the_same(call: Any, server: Served) -> None:
    here = call("device", "check", "--json").document
    server.endings.of["check"] = Ending(document=here)
    found = call("device", "check", "--server", server.url, "--json").document
    assert found == {name: value for name, value in here.items() if name != "command"}
    assert "cores" in call("device", "check", "local", "--server", server.url).out


def test_jobs(call: Any, server: Served, ids: tuple[str, str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    there = ("--server", server.url, "--json")
    server.endings.of.pop("compare", None)
    with Client(server.url) as client:
        job = client.compare(ids[0], ids[1], wait=False, seeds=3)
    listed = call("job", "list", "--kind", "compare", "--state", "queued", *there).document["jobs"]
    assert [one["id"] for one in listed] == [job.id]
    assert call("job", "show", job.id, *there).document["state"] == "queued"
    check_error(call("job", "show", "nothing", *there), 2, "nothing")

    def interrupted(*_: object) -> Job:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("fn3hw.client.server.watch", interrupted)
        left = call("compare", ids[0], "--profile", ids[1], "--seeds", 3, "--server", server.url)
    said = re.sub(r"\s+", " ", left.err)
    assert left.status == 130 and f"fn3hw job watch {job.id}" in said and f"fn3hw job cancel {job.id}" in said
    assert call("job", "cancel", job.id, *there).document["state"] == "cancelled"
    check_error(call("job", "watch", job.id, *there), 130, "was cancelled", "fn3hw job retry")
    server.endings.of["compare"] = Ending(document={"methods": []})
    assert call("job", "retry", job.id, *there).status == 0
    watched = call("job", "watch", job.id, *there)
    assert (watched.status, watched.document) == (0, {"methods": []})
    assert "compare" in call("job", "list", "--server", server.url).out
    assert "succeeded" in call("job", "show", job.id, "--server", server.url).out


def test_a_copy_of_a_run_of_another_name_is_the_same_run(
    call: Any, server: Served, made: Path, ids: tuple[str, str, str], tmp_path: Path
) -> None:
    shutil.copytree(made, tmp_path / "copy")
    assert call("push", tmp_path / "copy", "--server", server.url, "--json").document["run"] == ids[0]
