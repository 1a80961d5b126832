from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from fn3hw.errors import InputError, NoisyMeasurement, ProfileError
from fn3hw.profiler.device import Session
from fn3hw.profiler.measuring import Effort
from fn3hw.profiler.profiling import profile
from fn3hw.profiler.record import Profile
from fn3hw.profiler.schema import PUBLISHED, json_schema
from tests.profiler.fake import FakeSupernet


@pytest.fixture(scope="module")
def measured(local: Session, network: FakeSupernet, quick: Effort) -> Profile:
    return profile(network, local, 3, holdout=1, effort=quick, name="fake")


def signed(document: dict[str, Any]) -> str:
    """A document as a file with a checksum of its own."""
    document.pop("sha256", None)
    canonical = {"sort_keys": True, "separators": (",", ":"), "ensure_ascii": False}
    checksum = hashlib.sha256(json.dumps(document, **canonical).encode()).hexdigest()
    return json.dumps({**document, "sha256": checksum}, **canonical) + "\n"


def test_a_profile_reads_back_the_same(measured: Profile, tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    measured.write(path)
    assert Profile.read(path) == measured
    assert Profile.read(path).to_text() == path.read_text()
    assert Profile.read(path).space == FakeSupernet().space


def test_a_file_from_before_an_entry_existed_stays_as_it_is(measured: Profile) -> None:
    document = json.loads(measured.to_text())
    for one in document["measurements"][0]["rounds"]:
        assert one.pop("at_s") > 1e9
    text = signed(document)
    older = Profile.from_text(text)
    assert older.measurements[0].rounds[0].at_s is None
    assert json.loads(older.to_text()) == json.loads(text)


def test_the_order_of_the_nodes_is_kept_and_a_file_in_another_order_is_read(measured: Profile, tmp_path: Path) -> None:
    measured.write(tmp_path / "p.json")
    assert list(Profile.read(tmp_path / "p.json").network.units) == list(measured.network.units)
    rearranged = json.dumps(json.loads(measured.to_text()), sort_keys=True)
    assert Profile.from_text(rearranged) == measured


def test_the_published_schema_is_fresh_and_profiles_follow_it(measured: Profile) -> None:
    assert json.loads(PUBLISHED.read_text()) == json_schema(), "write it anew: python -m fn3hw.profiler.schema"
    jsonschema.Draft202012Validator.check_schema(json_schema())
    document = json.loads(measured.to_text())
    jsonschema.validate(document, json_schema())
    for wrong in ({"surprise": 1}, {"verdict": "fine"}, {"sha256": "no"}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(document | wrong, json_schema())


@pytest.mark.parametrize("cut", [0, 1, 100, 5000])
def test_a_truncated_file_is_refused(measured: Profile, tmp_path: Path, cut: int) -> None:
    path = tmp_path / "p.json"
    path.write_text(measured.to_text()[:cut])
    with pytest.raises(ProfileError, match="truncated") as caught:
        Profile.read(path)
    assert caught.value.hint
    assert caught.value.exit_status == 2


def test_an_edited_file_is_refused(measured: Profile) -> None:
    document = json.loads(measured.to_text())
    document["reference"]["latency_ms"] /= 2
    with pytest.raises(ProfileError, match="edited"):
        Profile.from_text(json.dumps(document))


@pytest.mark.parametrize(
    ("change", "says"),
    [({"schema": "fn3hw.profile/9"}, "schema fn3hw.profile/9"), ({"schema": "pickle"}, "no profile"),
     ({"verdict": "fine"}, "verdict"), ({"measurements": []}, "measurements")],
)  # fmt: skip
def test_another_schema_is_named(measured: Profile, change: dict[str, object], says: str) -> None:
    with pytest.raises(ProfileError, match=says):
        Profile.from_text(signed(json.loads(measured.to_text()) | change))


@pytest.mark.parametrize("text", ["[]", "3", "null", "NaN", "[" * 100_000])
def test_what_is_no_profile_is_refused(text: str) -> None:
    with pytest.raises(ProfileError):
        Profile.from_text(text)


def test_a_missing_or_binary_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(b"\xff\xfe\x00")
    for name in ("nowhere", "b"):
        with pytest.raises(ProfileError, match="Cannot read"):
            Profile.read(tmp_path / name)


def test_a_profile_of_another_network_is_refused(measured: Profile) -> None:
    measured.check_network(FakeSupernet().architecture)
    with pytest.raises(ProfileError, match="another network"):
        measured.check_network("0" * 64)


def test_a_noisy_profile_says_why_and_what_to_do(measured: Profile) -> None:
    noisy = measured.model_copy(update={"verdict": "noisy", "reasons": ("Wide.",), "advice": ("Close programs.",)})
    with pytest.raises(NoisyMeasurement, match="Wide") as caught:
        noisy.require_stable()
    assert caught.value.hint == "Close programs."
    assert caught.value.exit_status == 5


def test_a_profile_that_cannot_be_written_is_bad_input(measured: Profile) -> None:
    with pytest.raises(InputError):
        measured.write("/proc/nowhere/p.json")
