from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from fn3hw.service.jobs.child import is_locked, locked


def test_a_lock_is_seen_while_it_is_held_and_can_be_taken_after_looking(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert not is_locked(path) and not path.exists()
    for _ in range(2):
        with locked([path], lambda: True, lambda: None) as held:
            assert held is not None and is_locked(path)
        assert not is_locked(path)


def test_who_waits_for_a_lock_stops_when_told_to(tmp_path: Path) -> None:
    path, stop, told = tmp_path / "lock", threading.Event(), list[int]()

    def wait() -> None:
        told.append(1)
        stop.set()

    with (
        locked([path], lambda: False, lambda: None),
        locked([tmp_path / "free", path], stop.is_set, wait) as second,
    ):
        assert second is None and told


@pytest.mark.skipif(len(getattr(os, "sched_getaffinity", lambda _: {0})(0)) < 2, reason="needs two cores")
def test_a_server_leaves_the_last_core_and_its_children_have_all() -> None:
    program = """
import json, os, subprocess, sys, threading
from fn3hw.service.jobs import cores
before = sorted(os.sched_getaffinity(0))
ready, end = threading.Event(), threading.Event()
thread = threading.Thread(target=lambda: (ready.set(), end.wait()))
thread.start(); ready.wait()
cores.leave_last()
cores.leave_last()
child = subprocess.Popen(["sleep", "60"])
cores.give_all(child.pid)
print(json.dumps([before, sorted(os.sched_getaffinity(0)), sorted(os.sched_getaffinity(thread.native_id)),
                  sorted(os.sched_getaffinity(child.pid))]))
child.kill(); end.set()
"""
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    before, server, thread, child = json.loads(output)
    assert server == thread == before[:-1] and child == before
