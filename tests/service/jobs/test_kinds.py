from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fn3hw.service.api.shared import Parts
from fn3hw.service.jobs.kinds import KINDS, Export, FindFront, Measure, Train
from fn3hw.service.models import Device, now
from tests.service.rows import fill

measures = st.builds(
    Measure,
    run=st.sampled_from(["a", "b"]),
    device=st.sampled_from(["local", "pi5"]),
    subnets=st.none() | st.integers(4, 6),
    seed=st.integers(0, 2),
    repeat=st.integers(0, 1),
)


@given(measures, measures)
def test_equal_work_and_it_alone_has_the_same_id(a: Measure, b: Measure) -> None:
    assert (a.job_id == b.job_id) == (a == b)
    assert Measure.model_validate(a.model_dump(mode="json")).job_id == a.job_id


def test_each_kind_has_its_own_ids() -> None:
    assert all(kind.kind == name for name, kind in KINDS.items())
    assert FindFront(run="a", profile="b").job_id.startswith("search-")


def test_a_command_reaches_a_job_by_the_name_of_the_device_alone(parts: Parts) -> None:
    ids = fill(parts)
    with parts.database.session() as session:
        session.add(Device(name="pi5", command="ssh secret@pi5 python3 -", created_at=now()))
        session.flush()
        work = Measure(run=ids.run, device="pi5", threads=2, sweep=True).work(session)
        assert work.command == "ssh secret@pi5 python3 -" and not work.needs_quiet
        assert "secret" not in " ".join(work.arguments)
        assert work.arguments[:4] == ("profile", "run", "--device", "pi5") and "--sweep" in work.arguments
        here = Measure(run=ids.run).work(session)
        assert here.needs_quiet and here.measures_here and not work.measures_here


def test_what_computes_needs_quiet_but_does_not_slow_the_server_down(parts: Parts) -> None:
    ids = fill(parts)
    with parts.database.reading() as session:
        search = FindFront(run=ids.run, profile=ids.profile).work(session)
        assert search.needs_quiet and not search.measures_here


def test_a_network_is_profiled_as_its_run_is_but_for_the_recipe(parts: Parts) -> None:
    ids = fill(parts)
    with parts.database.reading() as session:
        bare, of_run = Measure(network=ids.network).work(session), Measure(run=ids.run).work(session)
    assert {path.rpartition("/")[2] for path in bare.files} == {"supernet.onnx", "space.json"}
    assert set(bare.files.values()) < set(of_run.files.values()) and bare.run_id is None
    assert bare.arguments[2:] == of_run.arguments[2:]
    assert {str(Path(path).parent) for path in bare.files} == {bare.arguments[1]} == {"networks/mobilenet_small"}


@pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
def test_each_kinds_arguments_are_options_of_its_verb(parts: Parts, kind: str) -> None:
    import typer

    from fn3hw.cli.main import app

    ids = fill(parts)
    every = (
        Train(recipe="digits", settings={"epochs": 1}),
        Measure(run=ids.run, subnets=5, minutes=1, target_mape=0.1, origin=ids.profile, allow_noisy=True),
        FindFront(run=ids.run, profile=ids.profile, level=("channel",), race=False),
        Export(search=ids.search, latency_ms=1.5, peak_mib=60, verify_on=None),
        KINDS["compare"](run=ids.run, profile=ids.profile, methods=("random",), latency_ms=(1.0,), final_images=10),
        KINDS["check"](device="local"),
    )
    assert {type(one) for one in every} == set(KINDS.values())
    verbs = typer.main.get_command(app)
    with parts.database.session() as session:
        for one in every:
            arguments = list(one.work(session).arguments)
            command = verbs.commands[arguments.pop(0)]  # type: ignore[attr-defined]
            if hasattr(command, "commands"):
                command = command.commands[arguments.pop(0)]
            parsed = command.make_context("verb", [*arguments, "--json"])
            assert parsed.params["as_json"] is True
