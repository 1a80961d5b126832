"""A torch network with gates: any subnet of it runs forward and backward."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from fn3hw.errors import InputError
from fn3hw.space.flow import Layout
from fn3hw.space.gate import Gate
from fn3hw.space.quantizer import Quantizer
from fn3hw.space.sliced import Cuts, SlicedForward
from fn3hw.space.subnet import SearchSpace, Subnet

GATE_PREFIX = "fn3hw_gates"


@dataclass(frozen=True)
class Ungated:
    """Blocks that were left whole, and why."""

    name: str
    level: str
    size: int
    reason: str


class GateSite(nn.Module):
    """One place where a gate multiplies: ``y = x * value``.

    Args:
        gate: the gate.
        blocks: which of its blocks this place sees; all of them for channels and neurons, one for a residual branch.
        layout: where the blocks lie in x; None for a residual branch, which is multiplied as a whole.
        ndim: number of axes of x.
        beta: multiply by the keep probability in evaluation, as the paper does (sec. 2.2).
    """

    value: torch.Tensor

    def __init__(self, gate: Gate, blocks: range, *, layout: Layout | None, ndim: int, beta: bool) -> None:
        super().__init__()
        self.gate, self.blocks, self.layout, self.ndim, self.beta = gate, blocks, layout, ndim, beta
        scale = torch.tensor([gate.keep_probability(m) if beta else 1.0 for m in blocks])
        self.register_buffer("scale", scale, persistent=False)
        self.register_buffer("value", self.expand(scale), persistent=False)
        self.scale: torch.Tensor

    def expand(self, per_block: torch.Tensor) -> torch.Tensor:
        """One number per block, shape (M,), to the shape that multiplies x."""
        if self.layout is None:
            return per_block
        entries = per_block.repeat_interleave(self.layout.repeat)
        return entries.reshape([-1 if axis == self.layout.axis else 1 for axis in range(self.ndim)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Multiply x, shape (N, C, ...), by the gate."""
        return x * self.value

    def scaled(self, x: torch.Tensor) -> torch.Tensor:
        """Multiply x, which holds only the first kept channels, by their β; without β that is x itself."""
        if self.training or not self.beta:
            return x
        if self.layout is None:
            return x * self.scale
        kept = x.shape[self.layout.axis] // self.layout.repeat
        return x * self.expand(self.scale[:kept])

    def extra_repr(self) -> str:
        """The gate's name and size."""
        return f"{self.gate.name}, {self.gate.level}, blocks={len(self.blocks)}"


class Nested(nn.Module):
    """A network with gates. Made by `nest`; shares its parameters with the user's module.

    Called outside of `active` it is the full network.
    """

    def __init__(
        self,
        module: fx.GraphModule,
        space: SearchSpace,
        cuts: Cuts,
        report: Sequence[Ungated],
        example: torch.Tensor,
        quantized: Mapping[str, str] | None = None,
        carrying: frozenset[str] = frozenset(),
    ) -> None:
        super().__init__()
        self.module = module
        self.space = space
        self.report = tuple(report)
        self._cuts, self._carrying = cuts, carrying
        self._gate_of_weight = dict(quantized or {})
        self.example_input = example
        sites = [m for m in module.modules() if isinstance(m, GateSite)]
        self._sites = {gate.name: [s for s in sites if s.gate == gate] for gate in space}
        blocks = {
            path: (m.gate.name, m.blocks.start if m.gate.level == "layer" else None)
            for path, m in module.named_modules()
            if isinstance(m, GateSite)
        }
        self._sliced = SlicedForward(module, cuts, blocks, self.quantizers, carrying)
        self._ordered: Subnet | None = None
        self._steps = self._steps_of(space.full())
        self.register_load_state_dict_pre_hook(_as_part)  # type: ignore[no-untyped-call]

    @property
    def quantizers(self) -> dict[str, tuple[str, Quantizer]]:
        """Per quantized weight its bit gate and the quantizer."""
        found = {}
        for weight, gate in self._gate_of_weight.items():
            quantizer = self.module.get_submodule(quantizer_path(gate))
            assert isinstance(quantizer, Quantizer)
            found[weight] = (gate, quantizer)
        return found

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The active subnet's output for a batch x."""
        if self._ordered is not None:
            return self._sliced.run(self._ordered, x)
        if not self._steps:
            return self.module(x)  # type: ignore[no-any-return]
        weights = {
            name: quantizer(self.module.get_parameter(name), self._steps[gate])
            for name, (gate, quantizer) in self.quantizers.items()
        }
        return torch.func.functional_call(self.module, weights, (x,))  # type: ignore[no-any-return]

    @contextmanager
    def unquantized(self) -> Iterator[Nested]:
        """Within the context the full network runs with its weights as they are, whatever its bit gates."""
        outer, self._steps = self._steps, {}
        try:
            yield self
        finally:
            self._steps = outer

    def _steps_of(self, subnet: Subnet) -> dict[str, tuple[int, ...]]:
        return {gate.name: subnet.blocks(gate.name) for gate in self.space if gate.level == "bit"}

    @contextmanager
    def active(self, subnet: Subnet, *, sliced: bool = True) -> Iterator[Nested]:
        """Within the context, forward passes use only the blocks that ``subnet`` keeps.

        In evaluation the kept blocks are scaled by β where the network was nested with ``beta=True``; in training they
        are not (paper, sec. 2.2).

        Args:
            subnet: which blocks are kept.
            sliced: run an ordered subnet at its real size (`fn3hw.space.sliced`) where the network allows it, which
                gives the same result in less time; False multiplies by masks whatever the subnet.
        """
        self.space.check(subnet)
        if sliced and subnet.is_prefix and self._sliced.supported:
            outer, self._ordered = self._ordered, subnet
            try:
                yield self
            finally:
                self._ordered = outer
            return
        with self._masked(subnet):
            yield self

    @contextmanager
    def _masked(self, subnet: Subnet) -> Iterator[None]:
        outer, self._ordered = self._ordered, None
        outer_steps, self._steps = self._steps, self._steps_of(subnet)
        before = [(site, site.value) for sites in self._sites.values() for site in sites]
        try:
            for gate, (name, bits) in zip(self.space, subnet.kept, strict=True):
                for site in self._sites[name]:
                    site.value = self._value(site, gate, bits)
            yield
        finally:
            self._ordered, self._steps = outer, outer_steps
            for site, value in before:
                site.value = value

    def _value(self, site: GateSite, gate: Gate, bits: int) -> torch.Tensor:
        kept = torch.tensor([float(bits >> m & 1) for m in site.blocks], device=site.scale.device)
        return site.expand(kept if self.training else kept * site.scale)

    def __deepcopy__(self, memo: dict[int, Any]) -> Nested:
        """A copy with parameters of its own. Copied by its graph: field by field the nodes would nest too deep."""
        twin = Nested(
            copy.deepcopy(self.module, memo),
            self.space,
            self._cuts,
            self.report,
            self.example_input,
            self._gate_of_weight,
            self._carrying,
        )
        return twin.train(self.training)

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """The parameters and buffers of the user's module under their own names, and the step sizes of quantizers."""
        return self.module.state_dict(*args, **kwargs)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load what `state_dict` gave.

        Raises:
            InputError: names or shapes do not fit this network.
        """
        try:
            return self.module.load_state_dict(state_dict, strict=strict, assign=assign)
        except RuntimeError as error:
            raise InputError(f"The weights do not fit this network: {error}") from error

    def __repr__(self) -> str:
        gates = "\n".join(f"  {gate.level:8} {gate.name}: {gate.size} blocks" for gate in self.space)
        return f"Nested({self.space.n_blocks} blocks in {len(self.space)} gates\n{gates}\n)"


def _as_part(net: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """Loaded as part of another module, too, a nested network's weights go by the names that `state_dict` gives."""
    for name in [name for name in state_dict if name.startswith(prefix)]:
        state_dict[f"{prefix}module.{name.removeprefix(prefix)}"] = state_dict.pop(name)


def quantizer_path(gate: str) -> str:
    """Where the quantizer of a bit gate lies in the graph module."""
    return f"{GATE_PREFIX}.{identifier(gate)}"


def identifier(text: str) -> str:
    """A text as part of a name of a submodule."""
    return "".join(c if c.isalnum() else "_" for c in text)
