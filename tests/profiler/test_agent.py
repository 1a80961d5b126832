from __future__ import annotations

import errno
import io
import itertools
import operator
import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fn3hw.profiler import agent
from fn3hw.profiler.agent import FrameError, Refusal
from fn3hw.profiler.measuring import COUNTED, Effort

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
headers = st.dictionaries(st.text(), json_values, max_size=4)


def nothing() -> None:
    pass


@given(headers, st.binary(max_size=200))
def test_a_frame_reads_back(header: dict[str, object], payload: bytes) -> None:
    assert agent.read_frame(io.BytesIO(agent.pack_frame(header, payload)).read) == (header, payload)


@given(st.binary(min_size=1, max_size=50), st.data())
def test_a_frame_with_any_bit_flipped_or_cut_is_refused(payload: bytes, data: st.DataObject) -> None:
    frame = bytearray(agent.pack_frame({"op": "x"}, payload))
    position = data.draw(st.integers(0, len(frame) - 1))
    flipped = bytearray(frame)
    flipped[position] ^= 1 << data.draw(st.integers(0, 7))
    for damaged in (flipped, frame[:position]):
        with pytest.raises(FrameError):
            agent.read_frame(io.BytesIO(bytes(damaged)).read)


def test_a_frame_of_another_version_is_named_as_such() -> None:
    with pytest.raises(FrameError) as caught:
        agent.read_frame(io.BytesIO(agent.pack_frame({}, version=99)).read)
    assert caught.value.reason == "version"
    assert "99" in str(caught.value)


@pytest.mark.parametrize(
    ("executable", "machine", "emulated"),
    [
        (62, "aarch64", True),
        (62, "x86_64", False),
        (183, "x86_64", True),
        (183, "aarch64", False),
        (40, "aarch64", False),
    ],
)
def test_a_processor_is_emulated_where_the_parent_runs_on_another_kind(
    monkeypatch: pytest.MonkeyPatch, executable: int, machine: str, emulated: bool
) -> None:
    head = b"\x7fELF".ljust(18, b"\0") + executable.to_bytes(2, "little")
    monkeypatch.setattr(agent, "open", lambda *_: io.BytesIO(head), raising=False)
    monkeypatch.setattr("platform.machine", lambda: machine)
    assert agent.emulated() is emulated


def test_instructions_are_counted_by_runs_where_the_plan_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    counter, counted = os.open(tmp_path / "counter", os.O_RDWR | os.O_CREAT), [0]

    def run(instructions: int) -> None:
        counted[0] += instructions
        os.pwrite(counter, counted[0].to_bytes(8, "little"), 0)

    monkeypatch.setenv(agent.COUNTER, str(counter))
    os.pwrite(counter, bytes(8), 0)
    plan = COUNTED.to_json() | {"clock": "instructions"}
    samples = agent._alternate((lambda: run(1000), lambda: run(600)), [1, 3], plan)
    assert samples["instructions"] == [[1000] * 8, [600] * 8]
    assert agent._alternate((lambda: run(1), lambda: run(1)), [1, 1], plan | {"clock": "cpu"})["instructions"] == [
        [],
        [],
    ]
    os.close(counter)


@given(st.integers(1000, 10**9), st.integers(0, 2), st.lists(st.floats(1.2, 50), max_size=40))
def test_samples_have_settled_where_the_three_fastest_agree(floor: int, lucky: int, slower: list[float]) -> None:
    disturbed = [int(floor * factor) for factor in itertools.accumulate(slower, operator.mul)]
    assert agent.unsettled([*disturbed, floor, floor, floor]) == 0
    assert agent.unsettled([*disturbed, *[floor] * lucky]) > 0.09


def test_a_round_goes_on_until_its_samples_have_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0]
    times = itertools.chain([400, 350, 330, 310, 290, 270, 250, 230, 200, 200], itertools.repeat(200))

    def run() -> None:
        now[0] += next(times)

    def other() -> None:
        now[0] += 100

    monkeypatch.setattr(agent.time, "perf_counter_ns", lambda: now[0])
    plan = Effort(min_samples=5, seconds=0.0, settled=0.01).to_json() | {"clock": "wall"}
    samples = agent._alternate((run, other), [1, 1], plan)["wall"]
    assert len(samples[0]) == 15 and min(samples[0]) == 200  # looked at after 5 and 10 samples, too
    unsteady = agent._alternate((lambda: run() or run(), other), [1, 1], plan | {"settled": -1.0, "max_samples": 40})
    assert len(unsteady["wall"][0]) == 40


def test_work_is_done_in_another_process() -> None:
    answer, payload = agent.fresh_process(lambda: ({"pid": os.getpid()}, b"x" * 300_000), 10, nothing)
    assert answer["pid"] != os.getpid()
    assert payload == b"x" * 300_000


def test_work_that_crashes_hangs_or_raises_is_refused() -> None:
    def raises() -> agent.Answer:
        raise ValueError("no such thing")

    def hangs() -> agent.Answer:
        time.sleep(60)
        return {}, b""

    def no_memory() -> agent.Answer:
        raise MemoryError

    for work, code in ((lambda: os._exit(3), "crashed"), (raises, "failed"), (no_memory, "out-of-memory"),
                       (lambda: os.kill(os.getpid(), 9), "out-of-memory")):  # fmt: skip
        with pytest.raises(Refusal) as caught:
            agent.fresh_process(work, 10, nothing)  # type: ignore[arg-type]
        assert caught.value.code == code
    start = time.monotonic()
    with pytest.raises(Refusal) as caught:
        agent.fresh_process(hangs, 0.2, nothing)
    assert caught.value.code == "timeout"
    assert time.monotonic() - start < 5


def test_a_sign_of_life_comes_while_work_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent, "HEARTBEAT_S", 0.05)
    beats: list[float] = []

    def work() -> agent.Answer:
        time.sleep(0.3)
        return {}, b""

    agent.fresh_process(work, 10, lambda: beats.append(time.monotonic()))
    assert len(beats) >= 2


def test_kernel_times_are_those_of_the_runs_after_warming_up_in_order_of_execution() -> None:
    def event(name: str, duration: int) -> dict[str, object]:
        args = {"op_name": "Conv", "provider": "CPU"}
        return {"cat": "Node", "name": f"{name}_kernel_time", "dur": duration, "args": args}

    events = [{"cat": "Session", "name": "model_run", "dur": 5}]
    events += [event("a", 1000), event("b", 1000)] + [event("a", 10), event("b", 20)] * 5
    assert agent.summarise(events, 1) == [["a", "Conv", "CPU", 10], ["b", "Conv", "CPU", 20]]
    assert agent.summarise([], 1) == []


def test_kernel_times_are_those_of_the_fastest_runs() -> None:
    def event(name: str, duration: int) -> dict[str, object]:
        return {"cat": "Node", "name": f"{name}_kernel_time", "dur": duration, "args": {}}

    runs = [(30, 50)] * 6 + [(3, 5), (4, 5)]  # a neighbour was busy most of the time
    events = [event(name, duration) for run in runs for name, duration in zip("ab", run, strict=True)]
    assert [kernel[-1] for kernel in agent.summarise(events, 0)] == [3.5, 5.0]


def test_a_full_disk_is_named_as_such() -> None:
    def full() -> agent.Answer:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(Refusal, match="No space left") as caught:
        agent.fresh_process(full, 10, nothing)
    assert caught.value.code == "disk"


def test_a_clock_that_does_not_move_gives_no_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = iter([0, 0, 0, 7] + [5] * 10_000)  # before and after each run: the first one takes no time at all
    now = 0

    def thread_time_ns() -> int:
        nonlocal now
        now += next(steps)
        return now

    monkeypatch.setattr(agent.time, "thread_time_ns", thread_time_ns)
    plan = {"clock": "cpu", "min_samples": 4, "max_samples": 4, "seconds": 0.0, "max_s": 10.0, "settled": 0.01}
    samples = agent._alternate((lambda: None, lambda: None), [1, 1], plan)
    assert samples["cpu"] == [[5] * 4] * 2
    assert [len(one) for one in samples["wall"]] == [4, 4]
