from __future__ import annotations

import fcntl
import os
import shlex
import stat
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from fn3hw.errors import DeviceError, Fn3hwError, InputError
from fn3hw.profiler import agent
from fn3hw.profiler.device import DEFAULT_RUNTIME, DeviceRefusal, Runtime, Session, connect
from fn3hw.profiler.link import AGENT
from fn3hw.profiler.measuring import Candidate, Effort, measure_rounds
from tests.profiler.fake import FakeSupernet

PYTHON = shlex.quote(sys.executable)


def python(program: str) -> str:
    """A device command that runs a program of one's own instead of the agent."""
    return f"{PYTHON} -c {shlex.quote(program)}"


def test_the_device_key_names_what_a_measurement_depends_on(local: Session) -> None:
    key = local.device.key
    assert key["onnxruntime"] == ort.__version__
    assert key["cores"] == sorted(os.sched_getaffinity(0))
    assert not key["emulated"]
    assert all(key[name] for name in ("machine", "cpu_model", "memory_mib", "os"))
    with connect() as again:
        assert again.device.id == local.device.id


def test_samples_alternate_and_carry_their_conditions(local: Session, network: FakeSupernet, quick: Effort) -> None:
    small = network.deployed(network.space.smallest()).SerializeToString()
    plan = quick.to_json()
    raw = local.measure(reference=network.model(), candidate=small, plan=plan, runtime=DEFAULT_RUNTIME)
    names = ("reference_ns", "candidate_ns", "reference_cpu_ns", "candidate_cpu_ns")
    assert all(len(raw[name]) == 12 and min(raw[name]) > 0 for name in names)
    assert np.median(raw["candidate_ns"]) < np.median(raw["reference_ns"])
    assert raw["conditions"]["wall_s"] > 0
    assert raw["load_ms"] > 0


def test_short_runs_are_batched(local: Session, network: FakeSupernet, quick: Effort) -> None:
    plan = quick.to_json() | {"min_sample_us": 5000.0}
    raw = local.measure(reference=network.model(), candidate=network.model(), plan=plan, runtime=DEFAULT_RUNTIME)
    assert min(raw["batches"]) > 1
    assert np.median(raw["reference_ns"]) < 5_000_000


def test_pinning_is_done_where_asked(local: Session, network: FakeSupernet, quick: Effort) -> None:
    raw = local.measure(
        reference=network.model(), candidate=network.model(), plan=quick.to_json(), runtime=Runtime(pin=True)
    )
    assert raw["core"] == max(os.sched_getaffinity(0))


def test_outputs_are_those_of_the_runtime_here(local: Session, network: FakeSupernet) -> None:
    x = np.random.default_rng(0).standard_normal((2, *network.input_shape)).astype(np.float32)
    session = ort.InferenceSession(network.model(), providers=["CPUExecutionProvider"])
    expected = session.run(None, {"input": x})[0]
    np.testing.assert_allclose(local.run(network.model(), {"input": x})["output"], expected, rtol=1e-5, atol=1e-6)


def test_memory_counts_what_the_model_adds(local: Session) -> None:
    def square(width: int) -> bytes:
        weights = np.ones((width, width), dtype=np.float32)
        graph = helper.make_graph(
            [helper.make_node("MatMul", ["input", "w"], ["output"], "m")], "g",
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", width])],
            [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["N", width])],
            [onnx.numpy_helper.from_array(weights, "w")],
        )  # fmt: skip
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        data: bytes = model.SerializeToString()
        return data

    little = local.peak_memory(square(16), runtime=DEFAULT_RUNTIME)
    much = local.peak_memory(square(2048), runtime=DEFAULT_RUNTIME)  # 16 MiB, sent in 17 chunks
    assert much["increment_mib"] - little["increment_mib"] > 12
    assert much["peak_mib"] > much["runtime_mib"] > 5


def test_what_the_runtime_prints_does_not_reach_the_frames(network: FakeSupernet) -> None:
    chatty = f"import os, runpy; os.environ['ORT_LOG'] = '1'; runpy.run_path({str(AGENT)!r}, run_name='__main__')"
    with connect(python(chatty)) as session:
        assert (
            session.run(network.model(), {"input": np.ones((1, *network.input_shape), np.float32)})["output"].size == 10
        )


# ------------------------------------------------------------------------------------- ways to reach a device


def fake_ssh(folder: Path) -> str:
    """Does what ssh does with its arguments: joins them with spaces and hands them to a shell."""
    script = folder / "ssh"
    script.write_text('#!/bin/sh\necho "Welcome to the board" \nshift\nexec sh -c "$*"\n')
    script.chmod(script.stat().st_mode | stat.S_IEXEC)
    return str(script)


def test_the_source_is_sent_to_an_interpreter_that_reads_from_standard_input(network: FakeSupernet) -> None:
    with connect(f"{PYTHON} -") as session:
        assert session.peak_memory(network.model(), runtime=DEFAULT_RUNTIME)["peak_mib"] > 1


def test_the_program_survives_the_shell_of_ssh_and_a_greeting(tmp_path: Path, network: FakeSupernet) -> None:
    with connect(f"{fake_ssh(tmp_path)} pi@board {PYTHON} -") as session:
        out = session.run(network.model(), {"input": np.zeros((1, *network.input_shape), np.float32)})
    assert out["output"].shape == (1, 10)


def test_the_agent_runs_as_a_module_and_forgets_the_package() -> None:
    with connect(f"{PYTHON} -m fn3hw.profiler.agent") as session:
        assert session.device.key["onnxruntime"] == ort.__version__


def test_the_agent_uses_nothing_but_the_standard_library_numpy_and_onnxruntime() -> None:
    import ast

    names = set()
    for node in ast.walk(ast.parse(AGENT.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").split(".")[0])
    assert names - set(sys.stdlib_module_names) == {"numpy", "onnxruntime"}


def test_models_are_removed_when_the_session_ends(
    tmp_path: Path, network: FakeSupernet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with connect() as session:
        session.put(network.model())
        assert list(tmp_path.glob("fn3hw-agent-*/*.onnx"))
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------------------------------------- bad devices


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("/nowhere/python3 -", "command not found"),
        (python("print('Hello from a program that is no agent')"), "Hello from a program"),
        (python("import sys; sys.stderr.write('the reason is here'); sys.exit(7)"), "the reason is here"),
        (python("import sys; sys.exit(7)"), "status 7"),
        ("sh -c 'exec 2>&1; echo /bin/sh: nopython: not found; exit 127'", "not found"),
        (python("import os; os.kill(os.getpid(), 15)"), "signal 15"),
        (python("import sys; sys.stdout.write('x' * 200000); sys.stdin.read()"), "something else"),
        (f"{PYTHON} -S {shlex.quote(str(AGENT))}", "cannot import"),
    ],
)
def test_a_command_that_is_no_device_says_what_happened(command: str, says: str) -> None:
    with pytest.raises(DeviceError, match=says) as caught:
        connect(command, connect_s=10)
    assert caught.value.exit_status == 4
    assert caught.value.hint


def test_a_command_that_hangs_is_given_up(local: Session) -> None:
    start = time.monotonic()
    with pytest.raises(DeviceError, match="hangs"):
        connect(python("import time; time.sleep(60)"), connect_s=0.3)
    assert time.monotonic() - start < 10


def test_another_version_is_named() -> None:
    frame = agent.pack_frame({"kind": "result", "id": 1}, version=2)
    program = f"import sys; sys.stdout.buffer.write({frame!r}); sys.stdout.flush(); sys.stdin.read()"
    with pytest.raises(DeviceError, match="version 2") as caught:
        connect(python(program), connect_s=5)
    assert "same version" in caught.value.hint


def test_a_link_that_corrupts_data_is_named() -> None:
    frame = bytearray(agent.pack_frame({"kind": "result", "id": 1}))
    frame[-1] ^= 1
    program = f"import sys; sys.stdout.buffer.write({bytes(frame)!r}); sys.stdout.flush(); sys.stdin.read()"
    with pytest.raises(DeviceError, match="checksum"):
        connect(python(program), connect_s=5)


def cut_link(folder: Path, cuts: int) -> str:
    """The agent behind a link that is cut ``cuts`` times, each after some thousand bytes of answers."""
    relay = f"""
import os, pathlib, random, subprocess, sys
done = pathlib.Path({str(folder / "cuts")!r})
number = int(done.read_text()) if done.exists() else 0
left = float("inf") if number >= {cuts} else random.Random(number).randrange(300, 4500) if number else 3000
agent = subprocess.Popen([sys.executable, "-u", {str(AGENT)!r}], stdout=subprocess.PIPE)
while chunk := agent.stdout.read1(256):
    left -= len(chunk)
    if left < 0:
        done.write_text(str(number + 1))
        agent.kill()
        sys.exit(1)
    os.write(1, chunk)
"""
    return python(relay)


def test_a_link_that_is_cut_again_and_again_loses_no_finished_round(
    tmp_path: Path, network: FakeSupernet, quick: Effort, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fn3hw.profiler.device.RECONNECT_AFTER_S", (0.0,) * 6)
    candidates = [Candidate(subnet=str(hidden), model=FakeSupernet(hidden=hidden).model) for hidden in (3, 4)]
    with connect(cut_link(tmp_path, 4)) as session:
        rounds = list(
            measure_rounds(session, network.model(), candidates, effort=quick, runtime=DEFAULT_RUNTIME, seed=0)
        )
    assert (tmp_path / "cuts").read_text() == "4"
    assert sorted((one.subnet, one.number) for one in rounds) == [("3", 0), ("3", 1), ("4", 0), ("4", 1)]


def test_a_device_that_dies_is_started_again_and_given_up_when_it_dies_every_time(
    network: FakeSupernet, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("fn3hw.profiler.device.RECONNECT_AFTER_S", (0.0,))
    with connect(reconnects=1) as session:
        session._link._process.kill()
        assert session.peak_memory(network.model(), runtime=DEFAULT_RUNTIME)["peak_mib"] > 1
        assert "signal 9" in caplog.text
        session._link._process.kill()
        monkeypatch.setattr("fn3hw.profiler.link.resolve", lambda _: (["sh", "-c", "exit 7"], b""))
        with pytest.raises(DeviceError, match="signal 9"):
            session.put(FakeSupernet(hidden=3).model())


def test_a_device_that_comes_back_as_another_one_is_refused(
    network: FakeSupernet, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connect() as session:
        session.device.key["governor"] = "performance"
        session._link._process.kill()
        with pytest.raises(DeviceError, match="governor"):
            session.put(network.model())


def test_two_programs_take_turns_and_none_waits_forever(
    network: FakeSupernet, quick: Effort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # a device of its own: other tests measure meanwhile
    plan = {**quick.to_json(), "clock": "wall"}
    request = {"plan": plan, "runtime": DEFAULT_RUNTIME.to_json(), "busy_s": 0.1}
    models = {"reference": network.model(), "candidate": network.model()}
    with connect() as session, open(tmp_path / "fn3hw-agent.lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(DeviceRefusal) as caught:
            session._ask("measure", request, models)
        assert caught.value.reason == "busy" and caught.value.hint
        fcntl.flock(lock, fcntl.LOCK_UN)
        assert len(session._ask("measure", request, models)[0]["kernels_reference_ns"]) >= quick.kernel_runs


def test_a_model_that_the_runtime_rejects_is_a_refusal(local: Session, network: FakeSupernet, quick: Effort) -> None:
    broken = network.deployed(network.space.full())
    broken.graph.node[0].op_type = "Convolute"
    for model in (b"no model at all", broken.SerializeToString()):
        with pytest.raises(DeviceRefusal) as caught:
            local.measure(reference=model, candidate=model, plan=quick.to_json(), runtime=DEFAULT_RUNTIME)
        assert caught.value.reason == "model-rejected"
        assert caught.value.hint
    assert local.peak_memory(network.model(), runtime=DEFAULT_RUNTIME)["peak_mib"] > 1


def test_work_that_takes_too_long_is_refused_and_the_session_lives_on(network: FakeSupernet, quick: Effort) -> None:
    with connect(work_s=0.5) as session:
        plan = quick.to_json() | {"warmup_s": 60.0}
        with pytest.raises(DeviceRefusal) as caught:
            session.measure(reference=network.model(), candidate=network.model(), plan=plan, runtime=DEFAULT_RUNTIME)
        assert caught.value.reason == "timeout"
        assert session.put(network.model())


@pytest.mark.parametrize("command", ["", "ssh 'unbalanced"])
def test_a_command_that_cannot_be_read_is_bad_input(command: str) -> None:
    with pytest.raises(InputError):
        connect(command)


def test_all_device_errors_are_ours() -> None:
    assert issubclass(DeviceRefusal, Fn3hwError)


def test_the_device_keeps_only_so_much_and_is_sent_the_rest_again(
    local: Session, network: FakeSupernet, quick: Effort, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = [FakeSupernet(hidden=h).model() for h in (3, 4, 5)]
    with connect() as session:
        monkeypatch.setattr("fn3hw.profiler.device.STORED_BYTES", len(models[0]) + len(models[1]) + 10)
        for model in [*models, models[0]]:
            session.put(model)
        raw = session.measure(reference=models[1], candidate=models[2], plan=quick.to_json(), runtime=DEFAULT_RUNTIME)
        assert len(raw["reference_ns"]) == 12
