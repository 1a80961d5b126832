"""The command line in process: JSON documents, exit statuses, and what is still there after an error."""

from __future__ import annotations

import json
import re
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fn3hw.cli import main as command_line
from fn3hw.cli.console import Console
from fn3hw.cli.export import missed
from fn3hw.errors import NoisyMeasurement
from fn3hw.profiler import Profile
from fn3hw.searcher import Budget
from fn3hw.training import Run
from tests.cli.conftest import check_error
from tests.conftest import TINY

BITS = ("--set", 'network.levels=["channel", "bit"]')
VERBS = ("quickstart", "train", "profile", "search", "lookup", "export")


def budgets(run: Path) -> tuple[float, float]:
    """The smallest and the largest latency of the run's front, upper ends, in ms."""
    (atlas,) = run.glob("atlas-*.json")
    found = [point["latency_ms_high"] for point in json.loads(atlas.read_text())["points"]]
    return min(found), max(found)


def test_help_lists_the_verbs(call: Any) -> None:
    result = call("--help")
    assert result.status == 0
    assert set(VERBS) <= set(re.findall(r"^\s+([a-z]+)\s", result.out, re.MULTILINE))


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_and_json(call: Any, verb: str) -> None:
    result = call(verb, "--help")
    assert result.status == 0 and "--json" in result.out


def test_train_again_gives_its_document_without_training(call: Any, own: Path) -> None:
    weights = own / "supernet.safetensors"
    before = weights.read_bytes(), weights.stat().st_mtime_ns
    result = call("train", "--output", own, "--json")
    assert result.status == 0
    assert {"run", "epochs", "seconds", "gates", "blocks", "test_accuracy"} <= result.document.keys()
    assert result.document["epochs"] == 1 and result.document["gates"] == 8
    assert (weights.read_bytes(), weights.stat().st_mtime_ns) == before


def test_profile_document(call: Any, own: Path, tmp_path: Path) -> None:
    output, picture = tmp_path / "again.json", tmp_path / "again.png"
    sizes = ("--subnets", 4, "--holdout", 0)
    result = call("profile", own, *sizes, "--output", output, "--plot", picture, "--json", "--allow-noisy")
    assert result.status == 0, result.err
    document = result.document
    assert {"device", "verdict", "n_measured", "holdout", "noise"} <= document.keys()
    assert {"mape", "within_10pct", "spearman", "n"} <= document["holdout"].keys()
    assert document["verdict"] in ("stable", "noisy") and document["n_measured"] >= 4
    assert document["noise"]["repeat_mape"] >= 0
    assert json.loads(output.read_text())["schema"] == "fn3hw.profile/1"
    assert not list(tmp_path.glob("*.journal"))
    assert picture.read_bytes().startswith(b"\x89PNG")
    shown = call("profile", "--show", output, "--json")
    assert shown.status == 0, shown.err
    again = shown.document
    assert again.pop("holdout") == pytest.approx(document.pop("holdout"))
    found, before = again.pop("audit"), document.pop("audit")
    assert found.keys() == before.keys() and found["error"] == pytest.approx(before["error"])
    assert again == document


def test_search_again_evaluates_nothing(call: Any, own: Path) -> None:
    archive = (own / "archive.jsonl").read_bytes()
    arguments = ("search", own, "--profile", own / "profile.json", "--evaluations", 8, "--images", 60, "--json")
    result = call(*arguments)
    assert result.status == 0, result.err
    assert {"evaluations", "seconds", "points"} <= result.document.keys()
    keys = {"subnet", "latency_ms", "peak_mib", "size_mib", "accuracy"}
    assert result.document["points"] and all(keys <= point.keys() for point in result.document["points"])
    assert (own / "archive.jsonl").read_bytes() == archive
    assert (own / "front.png").read_bytes().startswith(b"\x89PNG")


def test_another_profile_has_an_atlas_of_all_that_was_evaluated(call: Any, own: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    Profile.read(own / "profile.json").model_copy(update={"created": "2020-01-01T00:00:00+00:00"}).write(other)
    archive = (own / "archive.jsonl").read_bytes()
    (atlas,) = own.glob("atlas-*.json")
    verified = atlas.read_bytes()
    found = call("search", own, "--profile", other, "--evaluations", 0, "--json")
    assert found.status == 0, found.err
    assert found.document["evaluations"] == 0 and (own / "archive.jsonl").read_bytes() == archive
    assert atlas.read_bytes() == verified
    keys = json.loads((own / "evaluators.json").read_text())
    searched = [one for one in map(json.loads, archive.decode().splitlines()) if one["key"] == keys["search"]]
    assert {point["subnet"] for point in found.document["points"]} <= {one["subnet"] for one in searched}
    assert found.document["points"]


def test_wishes_of_a_search_that_cannot_be_met(call: Any, own: Path) -> None:
    before = (own / "archive.jsonl").read_bytes()
    asked = ("search", own, "--profile", own / "profile.json", "--json")
    check_error(call(*asked, "--executor", "slurm"), 2, "slurm", "local")
    check_error(call(*asked, "--address", "here:1"), 2, "address", "--executor ray")
    check_error(call(*asked, "--evaluations", 1), 2, "at least 2")
    assert (own / "archive.jsonl").read_bytes() == before


def test_lookup_document(call: Any, made: Path) -> None:
    _, largest = budgets(made)
    result = call("lookup", made, "--profile", made / "profile.json", "--latency-ms", 2 * largest, "--json")
    assert result.status == 0, result.err
    keys = {"subnet", "counts", "latency_ms", "latency_ms_high", "peak_mib", "size_mib", "accuracy"}
    assert keys <= result.document.keys()
    assert result.document["latency_ms_high"] <= 2 * largest


def test_lookup_makes_a_lost_atlas_anew(call: Any, own: Path) -> None:
    (atlas,) = own.glob("atlas-*.json")
    arguments = ("lookup", own, "--profile", own / "profile.json", "--size-mib", 1.0, "--json")
    before = call(*arguments).document
    archive = (own / "archive.jsonl").read_bytes()
    atlas.unlink()
    assert call(*arguments).document == before
    assert atlas.is_file() and (own / "archive.jsonl").read_bytes() == archive


def test_export_document(call: Any, own: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    arguments = ("--profile", own / "profile.json", "--latency-ms", 1000.0, "--output", path, "--json")
    result = call("export", own, *arguments)
    assert result.status == 0, result.err
    document = result.document
    keys = {"subnet", "counts", "latency_ms", "latency_ms_high", "peak_mib", "size_mib", "accuracy"}
    assert keys | {"path", "sha256", "measured_latency_ms", "budget_met", "max_abs_diff"} <= document.keys()
    assert document["budget_met"] is True and 0 < document["measured_latency_ms"] <= 1000
    assert document["sha256"] == sha256(path.read_bytes()).hexdigest()
    assert document["max_abs_diff"] < 1e-3


@pytest.fixture
def emulated(own: Path) -> Path:
    """The profile of the run as an emulated device would have it."""
    measured = Profile.read(own / "profile.json").model_dump(by_alias=True)
    for part in (measured["reference"], *measured["measurements"]):
        part |= {name: None for name in part if name.startswith("latency")}
    measured["device"]["emulated"] = True
    Profile.model_validate(measured).write(own / "emulated.json")
    return own / "emulated.json"


def test_an_emulated_device_has_no_latency(call: Any, own: Path, emulated: Path, tmp_path: Path) -> None:
    given = (own, "--profile", emulated)
    searched = call("search", *given, "--evaluations", 8, "--images", 60, "--json")
    assert searched.status == 0, searched.err
    for point in searched.document["points"]:
        assert point["emulated"] is True and point["latency_ms"] is point["latency_ms_high"] is None
        assert point["relative_cost_low"] <= point["relative_cost"] <= point["relative_cost_high"]
    assert max(point["relative_cost"] for point in searched.document["points"]) < 1.5  # the full network is at 1
    check_error(call("lookup", *given, "--latency-ms", 5, "--json"), 2, "emulated", "--relative-cost")
    check_error(
        call("lookup", own, "--profile", own / "profile.json", "--relative-cost", 1, "--json"), 2, "--latency-ms"
    )
    assert check_error(call("lookup", *given, "--relative-cost", 1e-6, "--json"), 3)["limit"] == "relative_cost"
    assert call("lookup", *given, "--relative-cost", 2, "--json").document["binding"] == "relative_cost"
    rest = ("--output", tmp_path / "m.onnx", "--verify-on", "none")
    exported = call("export", *given, "--relative-cost", 2, *rest, "--json").document
    assert exported["measured_latency_ms"] is None and exported["emulated"] is True
    said = [call("lookup", *given, "--relative-cost", 2).out, call("export", *given, "--relative-cost", 2, *rest).out]
    said += [call("search", *given, "--evaluations", 8, "--images", 60).out]
    assert "emulated time" in said[0] and not re.search(r"\bms\b", " ".join(said))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("train", "--recipe", "digit"), "'digits'"),
        (("train", "--recipe", "digits", "--set", "epoch=3"), "epochs"),
        (("train", "--recipe", "digits", "--set", "epochs"), "FIELD=VALUE"),
        (("train", "--recipe", "digits", "--set", "epochs.x=3"), "no section"),
        (("train", "--recipe", "digits", "--set", 'network.levels=["chanel"]'), "'channel'"),
        (("train", "--recipe", "digits", "--set", "data.name=digit"), "'digits'"),
        (("train", "--recipe", "digits", "--set", "network.name=mobilenet_smal"), "'mobilenet_small'"),
        (("train", "--recipe", "digits", "--set", 'network.levels=["path"]'), "level path"),
        (("train", "--recipe", "digits", "--set", "network.bits={levels=[1, 2]}"), "level"),
        (("train", "--recipe", "digits", *BITS, "--set", "network.bits={levels=[2, 1]}"), "not nested"),
        (("train", "--recipe", "digits", *BITS, "--set", "network.beta=true"), "beta"),
        (("train", "--recipe", "digits", "--set", "network.start_from=nowhere"), "run.toml"),
        (("train",), "--recipe"),
        (("quickstart", "--share", "0"), "--share"),
        (("quickstart", "--share", "nan"), "--share"),
        (("serch",), "serch"),
        (("lookup",), "RUN"),
        (("profile",), "RUN is missing"),
        (("profile", "run", "--show", "p.json"), "exclude each other"),
        (("profile", "--show", "p.json", "--diff", "p.json", "q.json"), "exclude each other"),
        (("profile", "--diff", "p.json", "q.json", "--plot", "p.png"), "--plot"),
        (("profile", "--diff", "p.json", "q.json"), "p.json"),
        (("profile", "--show", "p.json"), "p.json"),
        (("lookup", "missing", "--profile", "p.json", "--latency-ms", "fast"), "--latency-ms"),
    ],
)
def test_wrong_input_ends_with_2(
    call: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    check_error(call(*arguments, "--json"), 2, said)


@pytest.mark.parametrize("folder", ["missing", "empty"])
@pytest.mark.parametrize("verb", ["train", "profile", "search", "lookup", "export"])
def test_a_missing_run_folder_ends_with_2(call: Any, made: Path, tmp_path: Path, verb: str, folder: str) -> None:
    (tmp_path / "empty").mkdir()
    run, profile = tmp_path / folder, made / "profile.json"
    rest = {
        "train": ("train", "--output", run),
        "profile": ("profile", run),
        "search": ("search", run, "--profile", profile),
        "lookup": ("lookup", run, "--profile", profile, "--latency-ms", 1),
        "export": ("export", run, "--profile", profile, "--latency-ms", 1, "--output", tmp_path / "m.onnx"),
    }[verb]
    assert check_error(call(*rest, "--json"), 2, "run.toml", "fn3hw train")["code"] == "run"
    assert not (tmp_path / "missing").exists() and not list((tmp_path / "empty").iterdir())


@pytest.mark.parametrize("option", ["--latency-ms", "--peak-mib", "--size-mib"])
@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf"])
def test_a_budget_must_be_a_positive_number(call: Any, made: Path, option: str, value: str) -> None:
    for verb in (("lookup",), ("export", "--output", made / "never.onnx")):
        check_error(call(*verb, made, "--profile", made / "profile.json", option, value, "--json"), 2, "positive")
    assert not (made / "never.onnx").exists()


def test_no_budget_ends_with_2(call: Any, made: Path) -> None:
    check_error(call("lookup", made, "--profile", made / "profile.json", "--json"), 2, "--latency-ms")


def test_an_unknown_cost_names_the_nearest(call: Any, made: Path) -> None:
    result = call("search", made, "--profile", made / "profile.json", "--cost", "latencies", "--json")
    check_error(result, 2, "'latency'")


def test_a_run_that_is_not_trained_to_its_end(call: Any, own: Path) -> None:
    (own / "supernet.onnx").unlink()
    check_error(call("profile", own, "--json"), 2, "not trained", "fn3hw train")


def test_a_search_without_evaluations_has_nothing_to_search(call: Any, made: Path) -> None:
    asked = ("search", made, "--profile", made / "profile.json", "--evaluations", 0, "--json")
    for option in (("--cost", "size"), ("--level", "channel"), ("--executor", "ray")):
        check_error(call(*asked, *option), 2, option[0], "evaluations")


def test_a_run_that_was_not_searched(call: Any, own: Path) -> None:
    asked = ("lookup", own, "--profile", own / "profile.json", "--size-mib", 1, "--json")
    (own / "evaluators.json").write_text('{"search": 1')
    check_error(call(*asked), 2, "evaluators.json", "fn3hw search")
    (own / "evaluators.json").unlink()
    check_error(call(*asked), 2, "not searched", "fn3hw search")


def test_a_run_of_other_settings_is_not_trained_over(call: Any, own: Path) -> None:
    result = call("train", "--recipe", "digits", "--output", own, *TINY, "--set", "seed=5", "--json")
    check_error(result, 2, "seed was 0, now 5")


def test_a_run_of_other_levels_is_not_trained_over(call: Any, own: Path) -> None:
    before = {path.name: path.read_bytes() for path in own.iterdir()}
    result = call("train", "--recipe", "digits", "--output", own, *TINY, *BITS, "--json")
    check_error(result, 2, "levels")
    assert before == {path.name: path.read_bytes() for path in own.iterdir()}


def test_a_run_from_a_newer_version(call: Any, own: Path) -> None:
    settings = own / "run.toml"
    settings.write_text(settings.read_text().replace("format = 1", "format = 99"))
    check_error(call("profile", own, "--json"), 2, "format 99", "Upgrade")


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "",
        lambda text: re.sub(r'("latency_ms":\s*)\d', r"\g<1>9", text, count=1),
        lambda text: text.replace("fn3hw.profile/1", "fn3hw.profile/9"),
    ],
    ids=["truncated", "empty", "edited", "newer"],
)
def test_a_damaged_profile_is_refused(call: Any, own: Path, damage: Any) -> None:
    path = own / "profile.json"
    before = path.read_text()
    path.write_text(damage(before))
    assert path.read_text() != before
    archive = (own / "archive.jsonl").read_bytes()
    assert check_error(call("lookup", own, "--profile", path, "--size-mib", 1, "--json"), 2)["code"] == "profile"
    assert check_error(call("search", own, "--profile", path, "--json"), 2)["code"] == "profile"
    assert (own / "archive.jsonl").read_bytes() == archive


def test_a_missing_profile_is_refused(call: Any, made: Path) -> None:
    check_error(call("lookup", made, "--profile", made / "none.json", "--size-mib", 1, "--json"), 2, "none.json")


def test_a_profile_of_another_network_is_refused(call: Any, made: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    assert call("train", "--recipe", "digits", "--output", other, *TINY, "--set", "network.options.head=24").status == 0
    result = call("search", other, "--profile", made / "profile.json", "--json")
    assert check_error(result, 2, "network")["code"] == "profile"


@pytest.mark.parametrize("option", ["--latency-ms", "--peak-mib", "--size-mib"])
def test_a_budget_below_the_smallest_subnet_ends_with_3(call: Any, made: Path, option: str) -> None:
    result = call("lookup", made, "--profile", made / "profile.json", option, "1e-9", "--json")
    error = check_error(result, 3)
    assert error["limit"] == option.removeprefix("--").replace("-", "_") and error["best"] > 1e-9
    again = call("lookup", made, "--profile", made / "profile.json", option, repr(error["best"]), "--json")
    assert again.status == 0


def test_a_budget_missed_when_measured_ends_with_3(call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    exported = SimpleNamespace(
        missed="latency_ms", measured_latency_ms=2.0, measured_peak_mib=9.0, size_mib=1.0, tries=[1, 2], path="m.onnx"
    )
    met = SimpleNamespace(**{**vars(exported), "missed": None})
    assert missed(met, Budget()) is None  # type: ignore[arg-type]
    emulated = SimpleNamespace(**{**vars(exported), "missed": "relative_cost"})
    elsewhere = missed(emulated, Budget(relative_cost=0.5))  # type: ignore[arg-type]
    assert elsewhere is not None and elsewhere.limit == "relative_cost" and " ms" not in elsewhere.message
    large = SimpleNamespace(**{**vars(exported), "missed": "peak_mib"})
    memory = missed(large, Budget(latency_ms=2.0, peak_mib=6.0))  # type: ignore[arg-type]
    assert memory is not None and (memory.limit, memory.best) == ("peak_mib", 9.0)

    def miss(args: object, standalone_mode: bool) -> None:
        Console(as_json=True).result({"path": "m.onnx"}, "text", error=missed(exported, Budget(latency_ms=1.0)))  # type: ignore[arg-type]

    monkeypatch.setattr(command_line, "app", miss)
    result = call("export", "--json")
    error = check_error(result, 3, "2 files")
    assert result.document["path"] == "m.onnx" and (error["limit"], error["best"]) == ("latency_ms", 2.0)


def test_a_noisy_profile_is_kept_and_ends_with_5(
    call: Any, own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = Profile.read(own / "profile.json")
    monkeypatch.setattr("fn3hw.cli.measuring.measure", lambda *args, **kwargs: measured)

    def refuse(self: Profile) -> None:
        raise NoisyMeasurement("The clock was busy.", hint="Close other programs.")

    monkeypatch.setattr(Profile, "require_stable", refuse)
    output = tmp_path / "noisy.json"
    result = call("profile", own, "--output", output, "--json")
    assert check_error(result, 5, "busy")["code"] == "noisy"
    assert "holdout" in result.document and Profile.read(output) == measured


def ending_in(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def fail(args: object, standalone_mode: bool) -> None:
        raise error

    monkeypatch.setattr(command_line, "app", fail)


def test_an_interrupt_ends_with_130(call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ending_in(monkeypatch, KeyboardInterrupt())
    result = call("search", "--json")
    assert result.status == 130 and "go on" in result.err and result.out == ""


def test_an_interrupted_training_goes_on(call: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ("train", "--recipe", "digits", "--output", tmp_path / "run", *TINY, "--set", "epochs=2", "--json")
    replace = Run.replace_history

    def stop_after_an_epoch(self: Run, entries: list[dict[str, Any]]) -> None:
        replace(self, entries)
        if entries:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Run, "replace_history", stop_after_an_epoch)
        assert call(*arguments).status == 130
    (first,) = Run.open(tmp_path / "run").history()
    check_error(call("profile", tmp_path / "run", "--json"), 2, "not trained")
    result = call(*arguments)
    assert result.status == 0 and result.document["epochs"] == 2
    assert Run.open(tmp_path / "run").history()[0] == first


def test_a_bug_ends_with_1_and_shows_its_place_only_when_asked(call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ending_in(monkeypatch, ZeroDivisionError("by zero"))
    check_error(call("search", "--json"), 1, "ZeroDivisionError", "-vv")
    assert "Traceback" in call("search", "--json", "-vv").err


def test_no_color_is_respected(call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    colour = re.compile(r"\x1b\[(?:\d+;)*(?:3[0-8]|9[0-7])(?:;|m)")
    assert colour.search(call("train").err)
    monkeypatch.setenv("NO_COLOR", "1")
    assert not colour.search(call("train").err)
