"""The last core of the machine is for the jobs alone, so that a server that is asked a lot does not disturb them.

It is the one that a measurement keeps to where it keeps to any. A machine with one core is shared as it is.
"""

from __future__ import annotations

import contextlib
import os
import sys

_all: set[int] = set()


def leave_last() -> None:
    """Keep this process, with all threads that it has, off the last of its cores."""
    if sys.platform != "linux" or _all:
        return
    _all.update(os.sched_getaffinity(0))
    if len(_all) > 1:
        for thread in os.listdir("/proc/self/task"):
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(int(thread), _all - {max(_all)})


def give_all(pid: int) -> None:
    """Let a child that was just started use all cores that this process had."""
    if _all:
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(pid, _all)
