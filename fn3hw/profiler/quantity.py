"""What the cost of a subnet is: latency in ms, or on an emulated device a share of the full network's.

An emulator's time says nothing about a real processor's. So that no number of it is taken for a latency, none is given
in milliseconds: in documents ``latency_ms`` is null there and ``relative_cost`` stands beside it, with the full network
at 1, and ``"emulated": true``; texts give the same number, and say of what; a budget is one for ``relative_cost``.
Executed instructions, where the emulator counts them, are a cost that repeats.
"""

from __future__ import annotations

from typing import Literal

Quantity = Literal["latency", "instructions", "emulated time"]


def cost_text(cost: float, quantity: Quantity) -> str:
    """A cost for people.

    Args:
        cost: in ms where the quantity is latency, else relative to the full network's.
        quantity: what it is.
    """
    return f"{cost:.3f} ms" if quantity == "latency" else f"{cost:.3f} of the full network's {quantity}"
