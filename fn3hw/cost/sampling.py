"""Sampling by need: measure what the cost model is least sure about, until it is good enough.

Each subnet that was measured is left out of a fit in turn anyway, to learn how far off predictions are. Where these
fits disagree most about a subnet, measuring it teaches most. Of several to measure at once, each has to be disputed in
a way of its own: they are the first columns of a QR decomposition with column pivoting.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from scipy.linalg import qr

from fn3hw.cost.fitting import fit_cost
from fn3hw.cost.model import CostModel
from fn3hw.errors import InputError
from fn3hw.profiler import Profile, Session, connect, holdout, plan, profile, sliceable
from fn3hw.space.subnet import Subnet

START = 10
"""Subnets of the plan that everything starts from."""
AT_MOST = 160
"""Subnets, unless told otherwise."""
_ROUNDS = 3
"""Rounds per subnet where time is measured: after these, another subnet teaches more than another round."""
_POOL = 400
_GROWTH = 8
"""Between two fits, the measured subnets grow by one in so many."""


def profile_until(
    net: Any,
    device: str | Session = "local",
    *,
    target_mape: float | None = None,
    minutes: float | None = None,
    at_most: int = AT_MOST,
    held_out: int = 0,
    seed: int = 0,
    journal: Path | str | None = None,
    **options: Any,
) -> Profile:
    """Measure subnets, the one that the cost model is least sure about next, until a target is reached.

    Args:
        net: a supernet or a nested module, as for `fn3hw.profile`.
        device: as there.
        target_mape: stop when subnets left out of the fit are predicted this well on average, as a fraction, by two
            fits in a row: one of few subnets may be so by luck.
        minutes: stop after so many minutes.
        at_most: stop after so many subnets.
        held_out: random subnets to measure besides, at the end.
        seed: of the first subnets and of those to choose from.
        journal: as there; an interrupted call goes on with the same subnets.
        options: further arguments of `fn3hw.profile`.

    Returns:
        The profile; its ``settings["sampling"]`` tells what ended it (``stopped_by``: target, time or subnets), the
        mean relative ``error`` on subnets left out of the fit, and the ``seconds`` that it took.

    Raises:
        InputError: a target is out of range.
        DeviceError: the device cannot be reached or used; what was measured is in the journal.
    """
    if target_mape is not None and not 0 < target_mape < 1:
        raise InputError(f"A target error is a fraction, such as 0.02 for 2%, not {target_mape:g}.")
    if minutes is not None and minutes <= 0:
        raise InputError(f"A time budget is some minutes, not {minutes:g}.")
    started, network = time.monotonic(), sliceable(net)
    session = device if isinstance(device, Session) else connect(device)
    try:
        with tempfile.TemporaryDirectory() as folder:
            options |= {"seed": seed, "journal": journal or Path(folder) / "journal"}
            if not session.device.key.get("emulated"):
                options.setdefault("rounds", _ROUNDS)
            chosen = plan(network.space, min(START, at_most), seed=seed)
            errors: list[float] = []
            while True:
                measured = profile(network, session, subnets=chosen, **options)
                cost = fit_cost(measured)
                errors.append(cost.holdout.mape)
                stopped_by = _stop(errors, target_mape, minutes, len(chosen) >= at_most, time.monotonic() - started)
                more = _next(cost, chosen, min(max(1, len(chosen) // _GROWTH), at_most - len(chosen)), seed)
                if stopped_by or not more:
                    break
                chosen += more
            if held_out:
                measured = profile(network, session, subnets=chosen, holdout=held_out, **options)
    finally:
        if session is not device:
            session.close()
    noted = {
        "target_mape": target_mape,
        "minutes": minutes,
        "stopped_by": stopped_by or "subnets",
        "error": cost.holdout.mape,
        "seconds": round(time.monotonic() - started, 1),
    }
    return measured.model_copy(update={"settings": {**measured.settings, "sampling": noted}})


def _stop(
    errors: Sequence[float], target_mape: float | None, minutes: float | None, full: bool, seconds: float
) -> Literal["target", "time", "subnets"] | None:
    """What ends the measuring, if anything: ``errors`` are those of all fits so far."""
    if target_mape is not None and len(errors) > 1 and max(errors[-2:]) <= target_mape:
        return "target"
    if minutes is not None and seconds >= 60 * minutes:
        return "time"
    return "subnets" if full else None


def _next(cost: CostModel, measured: Sequence[Subnet], n: int, seed: int) -> list[Subnet]:
    """The subnets that the fits disagree most about, each in a way of its own."""
    pool = holdout(cost.space, _POOL, seed=seed + len(measured), exclude=measured)
    if n < 1 or not pool:
        return []
    order = qr(cost.disagreement(pool), mode="r", pivoting=True)[1]
    return [pool[i] for i in order[:n]]
