"""Which channels of a network belong together: the one analysis behind finding gates and behind eliminating them.

A tensor carries a *channel axis*. Operations either hand the channels on one by one (activations, pooling, batch norm,
a depthwise convolution), join those of several tensors (a sum, a product), or *mix* them into new ones (a dense
convolution, a linear layer). A grouped convolution hands them on in *blocks*: its groups, the paper's paths, of which
each mixes its own channels only. Channels that are handed on or joined form one *group*: to remove a channel is to
remove it from every tensor and every parameter of its group, and that changes nothing else exactly where each mixing
operation that reads the group sees a zero in its place. So a gate on a group multiplies what its mixing readers read
(its *sites*), and elimination slices what the group touches (its *slices*).

The front ends (`fn3hw.space.tracing` for torch, `fn3hw.deploy.graph` for ONNX) translate their operations into the
five methods of `ChannelFlow`; everything else about channels is written here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import lcm, prod
from typing import Any


@dataclass(frozen=True, slots=True)
class Slice:
    """An axis of a parameter whose entries belong to a group: ``repeat`` consecutive entries per channel."""

    parameter: str
    axis: int
    repeat: int = 1


@dataclass(frozen=True, slots=True)
class Site:
    """A value whose channels a mixing operation reads: ``repeat`` consecutive entries per channel."""

    value: str
    repeat: int = 1


@dataclass
class Group:
    """Channels that can only be removed together.

    Args:
        width: number of channels.
        block: consecutive channels that come and go together, because a grouped convolution mixes them.
        producers: names of the operations that make the channels, in order of execution.
        kinds: the kinds of the producers, such as ``{"conv"}``.
        values: names of the tensors that carry the channels.
        slices: the axes of parameters that shrink with the group.
        sites: where a gate's mask belongs.
        readers: names of the mixing operations that read the group.
        carriers: names of the operations that hand the channels on.
        pins: reasons why the group has to stay whole; empty where it can be gated.
    """

    width: int
    block: int = 1
    producers: list[str] = field(default_factory=list)
    kinds: set[str] = field(default_factory=set)
    values: list[str] = field(default_factory=list)
    slices: list[Slice] = field(default_factory=list)
    sites: list[Site] = field(default_factory=list)
    readers: list[str] = field(default_factory=list)
    carriers: list[str] = field(default_factory=list)
    pins: list[str] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Number of blocks."""
        return self.width // self.block

    def cuts(self) -> list[Slice]:
        """The slices, with the entries per block."""
        return [Slice(piece.parameter, piece.axis, piece.repeat * self.block) for piece in self.slices]

    def absorb(self, other: Group) -> None:
        """Take over all that another group touches."""
        self.kinds |= other.kinds
        self.block = lcm(self.block, other.block)
        pairs: tuple[tuple[list[Any], list[Any]], ...] = (
            (self.producers, other.producers),
            (self.values, other.values),
            (self.slices, other.slices),
            (self.sites, other.sites),
            (self.readers, other.readers),
            (self.carriers, other.carriers),
            (self.pins, other.pins),
        )
        for mine, theirs in pairs:
            mine.extend(item for item in theirs if item not in mine)


class ChannelFlow:
    """Builds the groups of a graph, one operation at a time, in order of execution.

    Values and operations are named by strings; ``shape`` is a tensor's shape with its batch axis first. The channel
    axis is axis 1 of images and features, and the last axis where a front end says so.
    """

    def __init__(self) -> None:
        self._span: dict[str, tuple[Group, int]] = {}
        self._order: list[Group] = []
        self._redirect: dict[int, Group] = {}

    def make(self, out: str, width: int, *, operation: str, kind: str, slices: tuple[Slice, ...] = ()) -> None:
        """``operation`` makes ``width`` new channels and writes them to ``out``."""
        group = Group(width, producers=[operation], kinds={kind}, values=[out], slices=list(slices))
        self._order.append(group)
        self._span[out] = (group, 1)

    def mix(self, value: str, *, operation: str, weight: str, axis: int) -> None:
        """``operation`` mixes the channels of ``value`` with the entries of ``weight`` along ``axis``."""
        if (span := self.span(value)) is not None:
            group, repeat = span
            self._add(group.sites, Site(value, repeat))
            self._add(group.slices, Slice(weight, axis, repeat))
            self._add(group.readers, operation)

    def carry(
        self, out: str, values: list[str], *, operation: str, parameters: tuple[str, ...] = (), block: int = 1
    ) -> None:
        """``operation`` hands the channels of ``values`` on to ``out``, each with its own entry of the parameters.

        It may mix the channels within blocks of ``block`` channels, as a grouped convolution does.
        """
        spans = [span for value in values if (span := self.span(value)) is not None]
        if not spans:
            return
        group, repeat = spans[0]
        for other, other_repeat in spans[1:]:
            if (other.width, other_repeat) != (group.width, repeat):
                reason = f"channels of different layouts meet in {operation}"
                self._add(group.pins, reason)
                self._add(other.pins, reason)
                continue
            group = self._union(group, other)
        group.block = lcm(group.block, block)
        for parameter in parameters:
            self._add(group.slices, Slice(parameter, 0, repeat))
        self._add(group.carriers, operation)
        self._add(group.values, out)
        self._span[out] = (group, repeat)

    def flatten(self, out: str, value: str, *, shape: tuple[int, ...], operation: str) -> None:
        """``operation`` flattens ``value`` of ``shape`` (N, C, ...) to (N, C·...)."""
        if (span := self.span(value)) is not None:
            group, repeat = span
            self._add(group.carriers, operation)
            self._add(group.values, out)
            self._span[out] = (group, repeat * prod(shape[2:]))

    def pin(self, value: str, reason: str) -> None:
        """The channels of ``value`` have to stay whole."""
        if (span := self.span(value)) is not None:
            self._add(span[0].pins, reason)

    def span(self, value: str) -> tuple[Group, int] | None:
        """The group whose channels ``value`` carries and how many entries each channel has there."""
        if value not in self._span:
            return None
        group, repeat = self._span[value]
        return self._resolve(group), repeat

    def groups(self) -> list[Group]:
        """All groups, in order of their first producer."""
        return [group for group in self._order if id(group) not in self._redirect]

    def _resolve(self, group: Group) -> Group:
        while id(group) in self._redirect:
            group = self._redirect[id(group)]
        return group

    def _union(self, one: Group, two: Group) -> Group:
        if one is two:
            return one
        first, second = sorted((one, two), key=self._index)
        first.absorb(second)
        self._redirect[id(second)] = first
        return first

    def _index(self, group: Group) -> int:
        return next(i for i, candidate in enumerate(self._order) if candidate is group)

    @staticmethod
    def _add(items: list[Any], item: Any) -> None:
        if item not in items:
            items.append(item)
