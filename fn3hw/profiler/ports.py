"""What the profiler needs of a network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import onnx

from fn3hw.space.subnet import SearchSpace, Subnet


class Sliceable(Protocol):
    """What is needed of a supernet; `fn3hw.deploy.Supernet` is one."""

    @property
    def space(self) -> SearchSpace:
        """The search space."""

    @property
    def architecture(self) -> str:
        """What identifies the network, but for its weights' values."""

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input, without the batch axis."""

    def deployed(self, subnet: Subnet) -> onnx.ModelProto:
        """The subnet as a file of its own, as it runs on a device."""

    def blockwise_layers(self) -> Sequence[str]:
        """Linear layers that may compute on integers in blocks; what is faster is up to the device."""

    def with_blockwise(self, layers: Iterable[str]) -> Sliceable:
        """The network with these layers on blocks."""

    def units(self) -> Mapping[str, Sequence[str]]:
        """Per node the gates that decide its shape or existence."""

    def parameters(self) -> Sequence[Any]:
        """How the bytes of each initializer follow from the counts."""
