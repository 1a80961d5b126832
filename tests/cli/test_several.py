"""`fn3hw profile` on several devices at once: none stops the others."""

from __future__ import annotations

import itertools
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fn3hw.cli.console import Console
from fn3hw.cli.several import at_once, gravest
from fn3hw.cost import CostModel, fit_cost
from fn3hw.errors import DeviceError, Fn3hwError, InputError, NoisyMeasurement
from fn3hw.profiler import Profile, Progress, Registry
from tests.cli.conftest import check_error


@pytest.fixture(autouse=True)
def boards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names of devices; what would be measured there is up to each test."""
    monkeypatch.setenv("FN3HW_HOME", str(tmp_path / "home"))
    for name in ("pi5", "jetson"):
        Registry().add(name, f"ssh {name} python3 -")


@pytest.fixture(scope="module")
def cost(made: Path) -> CostModel:
    return fit_cost(Profile.read(made / "profile.json"))


@pytest.fixture
def measure_by(
    own: Path, cost: CostModel, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Callable[[str], None]], Profile]:
    """Let a device 'measure' the run's own profile, after a round in the journal and what the test does for it."""
    measured = Profile.read(own / "profile.json")
    monkeypatch.setattr("fn3hw.cli.reporting.fit_cost", lambda profile: cost)

    def install(happens: Callable[[str], None]) -> Profile:
        def fake(net: Any, device: str, subnets: int, *, journal: Path, progress: Any, **rest: Any) -> Profile:
            net.deployed(net.space.full())
            journal.write_text("a round")
            progress(Progress(stage="rounds", done=1, total=2, elapsed_s=1.0, remaining_s=1.0))
            happens(device)
            return measured

        monkeypatch.setattr("fn3hw.cli.measuring.measure", fake)
        return measured

    return install


BOTH = ("--device", "local", "--device", "pi5")


def test_devices_are_measured_at_once_each_into_its_file(
    call: Any, own: Path, measure_by: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fn3hw.cli.console.time", SimpleNamespace(monotonic=itertools.count(0, 60).__next__))
    meeting = threading.Barrier(2)  # both have to be measuring before either goes on
    measured = measure_by(lambda device: meeting.wait(20))
    result = call("profile", own, *BOTH, "--json", "--allow-noisy")
    assert result.status == 0, result.err
    assert result.document.keys() == {"profiles"}
    local, pi5 = result.document["profiles"]
    assert (local["name"], pi5["name"]) == ("local", "pi5")
    for document in (local, pi5):
        path = own / f"profile-{document['name']}.json"
        assert document["path"] == str(path) and Profile.read(path) == measured
        assert document["device"] == measured.device and "error" not in document
        assert f"measuring {document['name']}: 1/2" in result.err
    assert not list(own.glob("*.journal"))


def test_a_profile_of_several_has_the_keys_of_one(call: Any, own: Path, measure_by: Any) -> None:
    measure_by(lambda device: None)
    alone = call("profile", own, "--device", "pi5", "--json", "--allow-noisy").document
    several = call("profile", own, *BOTH, "--json", "--allow-noisy").document["profiles"]
    assert alone["path"] == str(own / "profile.json")
    assert all(document.keys() == alone.keys() | {"name"} for document in several)


def test_a_device_that_fails_keeps_its_journal_and_stops_no_other(call: Any, own: Path, measure_by: Any) -> None:
    def happens(device: str) -> None:
        if device == "pi5":
            raise DeviceError("The link was cut.", hint="Plug it in.")
        if device == "jetson":
            raise ZeroDivisionError("by zero")

    measure_by(happens)
    result = call("profile", own, *BOTH, "--json", "--allow-noisy")
    assert check_error(result, 4, "pi5: The link was cut.", "Plug it in.")["code"] == "device"
    local, pi5 = result.document["profiles"]
    assert "error" not in local and local["n_measured"] > 0
    assert pi5["error"]["code"] == "device" and "n_measured" not in pi5
    assert (own / "profile-local.json").is_file() and not (own / "profile-pi5.json").exists()
    assert [path.name for path in own.glob("*.journal")] == ["profile-pi5.json.journal"]
    text = call("profile", own, *BOTH, "--allow-noisy")
    assert text.status == 4
    assert f"--device pi5 --output {own}/profile-pi5.json" in text.out.replace("\n", "")
    worse = call("profile", own, *BOTH, "--device", "jetson", "--json", "--allow-noisy")
    check_error(worse, 1, "pi5: The link was cut.", "jetson: ZeroDivisionError")


def test_a_cost_model_that_cannot_be_fitted_is_the_error_of_its_device(
    call: Any, own: Path, measure_by: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(profile: Profile) -> CostModel:
        raise InputError("Too few subnets.")

    measure_by(lambda device: None)
    monkeypatch.setattr("fn3hw.cli.reporting.fit_cost", refuse)
    result = call("profile", own, *BOTH, "--json")
    check_error(result, 2, "local: Too few", "pi5: Too few")
    assert len(result.document["profiles"]) == 2 and (own / "profile-pi5.json").is_file()


def test_a_noisy_profile_is_kept_beside_its_error(
    call: Any, own: Path, measure_by: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Profile) -> None:
        raise NoisyMeasurement("The clock was busy.", hint="Close other programs.")

    measure_by(lambda device: None)
    monkeypatch.setattr(Profile, "require_stable", refuse)
    result = call("profile", own, *BOTH, "--json")
    check_error(result, 5, "local: The clock", "pi5: The clock")
    assert all(d["error"]["code"] == "noisy" and "holdout" in d for d in result.document["profiles"])
    assert (own / "profile-pi5.json").is_file()
    assert call("profile", own, *BOTH, "--json", "--allow-noisy").status == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((*BOTH, "--output", "one.json"), "profile-NAME.json"),
        ((*BOTH, "--device", "pi5"), "twice"),
        ((*BOTH, "--device", "ssh pi5 python3 -"), "twice"),
        (("--device", "ssh a@b -", "--device", "ssh a-b -"), "fn3hw device add"),
        ((*BOTH, "--device", "pi6"), "'pi6'"),
    ],
)
def test_wrong_devices_are_refused_before_anything_is_measured(
    call: Any, own: Path, measure_by: Any, arguments: tuple[str, ...], said: str
) -> None:
    seen: list[str] = []
    measure_by(seen.append)
    check_error(call("profile", own, *arguments, "--json"), 2, said)
    assert not seen


def test_an_interrupt_does_not_wait_for_the_devices() -> None:
    free = threading.Event()

    def work(name: str, ticker: object) -> None:
        if name == "b":
            os.kill(os.getpid(), signal.SIGINT)
        free.wait(60)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    try:
        with pytest.raises(KeyboardInterrupt):
            at_once(Console(as_json=True), "measuring", ["a", "b"], work)
    finally:
        signal.signal(signal.SIGINT, before)
        free.set()


def test_the_gravest_error_decides_and_all_are_told() -> None:
    assert gravest({}) is None
    errors: dict[str, Fn3hwError] = {"a": NoisyMeasurement("x", hint="h"), "b": DeviceError("y", hint="h")}
    found = gravest(errors)
    assert found and (found.exit_status, found.code) == (4, "device")
    assert (found.message, found.hint) == ("a: x\nb: y", "h")
    found = gravest({**errors, "c": InputError("z")})
    assert found and found.exit_status == 2
