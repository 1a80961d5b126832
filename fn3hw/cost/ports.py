"""What the cost model reads of a profile: `fn3hw.profiler.Profile` is one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from fn3hw.space.subnet import SearchSpace


class Measured(Protocol):
    """What was measured of one subnet."""

    @property
    def subnet(self) -> str:
        """Id of the subnet."""

    @property
    def size_bytes(self) -> int:
        """Bytes of its ONNX file."""

    @property
    def ratio(self) -> float:
        """Time relative to the reference subnet."""

    @property
    def ratio_low(self) -> float:
        """Lower end of its 90% interval, by the bootstrap over its rounds."""

    @property
    def ratio_high(self) -> float:
        """Upper end of its 90% interval."""

    @property
    def rounds(self) -> Sequence[Any]:
        """The rounds that it was taken from."""

    @property
    def kernels(self) -> Mapping[str, float]:
        """Microseconds per node, and per inserted node under ``~OPERATOR@NODE_BEFORE``; may be empty."""

    @property
    def operators(self) -> Mapping[str, Sequence[str]]:
        """Operators of the kernels whose time each entry of `kernels` is; nodes may be missing."""

    @property
    def peak_mib(self) -> float:
        """Peak resident memory."""


class Network(Protocol):
    """The network whose subnets were measured."""

    @property
    def units(self) -> Mapping[str, Sequence[str]]:
        """Per node, in order, its gates: ``"NAME"`` decides its shape, ``"NAME[M]"`` whether it exists."""

    @property
    def parameters(self) -> Sequence[Mapping[str, Any]]:
        """Per initializer ``fixed_bytes``, ``gates`` that multiply it, ``branches`` that it needs."""


class Noise(Protocol):
    """How well measurements repeat."""

    @property
    def repeat_mape(self) -> float:
        """Mean relative difference between two rounds of a subnet, a fraction."""


class MeasuredProfile(Protocol):
    """A device, and the raw measurements of subnets of one network taken there."""

    @property
    def space(self) -> SearchSpace:
        """The network's search space."""

    @property
    def network(self) -> Network:
        """The network."""

    @property
    def full_cost(self) -> float:
        """Latency in ms of the full network, which ratios are relative to; 1 where costs stay relative."""

    @property
    def noise(self) -> Noise:
        """How well its measurements repeat."""

    @property
    def fitted(self) -> Sequence[Measured]:
        """The measurements that may be fitted on."""

    @property
    def held_out(self) -> Sequence[Measured]:
        """The measurements kept to test on."""

    @property
    def origin(self) -> MeasuredProfile | None:
        """Another device's profile of the network that this one started from."""
