"""Which channels of a network belong together: the one analysis behind finding gates and behind eliminating them.

A tensor carries a *channel axis*. Operations either hand the channels on one by one (activations, pooling, batch norm,
a depthwise convolution), join those of several tensors (a sum, a product), or *mix* them into new ones (a dense
convolution, a linear layer). A grouped convolution hands them on in *blocks*: its groups, the paper's paths, of which
each mixes its own channels only. So does attention: its blocks are the heads, whose queries, keys and values are joined
and never leave the head. Channels that are handed on or joined form one *group*: to remove a channel is to
remove it from every tensor and every parameter of its group, and that changes nothing else exactly where each mixing
operation that reads the group sees a zero in its place. So a gate on a group multiplies what its mixing readers read
(its *sites*), and elimination slices what the group touches (its *slices*).

The front ends (`fn3hw.space.channels` for torch, `fn3hw.deploy.graph` for ONNX) translate their operations into the
methods of `ChannelFlow`; everything else about channels is written here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import lcm, prod
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Layout:
    """Where along an axis the channels of a group lie.

    The axis holds ``parts`` copies of the channels one after the other (queries, keys and values made by one layer),
    and in each copy ``repeat`` consecutive entries per channel.
    """

    axis: int
    repeat: int = 1
    parts: int = 1

    def entries(self, blocks: NDArray[np.intp], count: int) -> NDArray[np.intp]:
        """Indices along the axis that some of ``count`` blocks occupy; ``repeat`` is per block here."""
        starts = np.arange(self.parts)[:, None] * count + blocks
        return (starts.reshape(-1, 1) * self.repeat + np.arange(self.repeat)).ravel()


@dataclass(frozen=True, slots=True)
class Slice:
    """An axis of a parameter whose entries belong to a group.

    Args:
        parameter: its name.
        axis: the axis.
        repeat: consecutive entries per channel, or per block.
        parts: how often the channels follow one another, see `Layout`.
        per_block: a block has ``repeat`` entries whatever its number of channels, such as a head's position bias.
    """

    parameter: str
    axis: int
    repeat: int = 1
    parts: int = 1
    per_block: bool = False

    @property
    def layout(self) -> Layout:
        """Where the entries lie."""
        return Layout(self.axis, self.repeat, self.parts)


@dataclass(frozen=True, slots=True)
class Site:
    """A value whose channels a mixing operation reads, and where they lie in it."""

    value: str
    layout: Layout


@dataclass(frozen=True, slots=True)
class Operand:
    """What an operation reads.

    Args:
        name: of the value.
        shape: its shape.
        parameter: it is a constant that nothing else reads.
    """

    name: str
    shape: tuple[int, ...]
    parameter: bool = False


@dataclass
class Group:
    """Channels that can only be removed together.

    Args:
        width: number of channels.
        block: consecutive channels that come and go together, because an operation mixes them.
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
        return [
            piece if piece.per_block else replace(piece, repeat=piece.repeat * self.block, per_block=True)
            for piece in self.slices
        ]

    def places(self) -> list[Site]:
        """The sites, with the entries per block."""
        return [Site(s.value, replace(s.layout, repeat=s.layout.repeat * self.block)) for s in self.sites]

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
    axis is axis 1 of images and features, the last one of sequences.
    """

    def __init__(self) -> None:
        self._span: dict[str, tuple[Group, Layout]] = {}
        self._order: list[Group] = []
        self._redirect: dict[int, Group] = {}

    def make(
        self, out: str, width: int, *, operation: str, kind: str, slices: tuple[Slice, ...] = (), axis: int = 1
    ) -> None:
        """``operation`` makes ``width`` new channels and writes them to ``out``."""
        group = Group(width, producers=[operation], kinds={kind}, values=[out], slices=list(slices))
        self._order.append(group)
        self._span[out] = (group, Layout(axis))

    def mix(self, value: str, *, operation: str, weight: str, axis: int) -> None:
        """``operation`` mixes the channels of ``value`` with the entries of ``weight`` along ``axis``."""
        if (span := self.span(value)) is not None:
            group, layout = span
            if layout.parts != 1:
                self._add(group.pins, f"{operation} mixes its {layout.parts} parts")
            self._add(group.sites, Site(value, layout))
            self._add(group.slices, Slice(weight, axis, layout.repeat))
            self._add(group.readers, operation)

    def carry(
        self,
        out: str,
        values: list[str],
        *,
        operation: str,
        parameters: tuple[tuple[str, int], ...] = (),
        block: int = 1,
        axis: int | None = None,
    ) -> None:
        """``operation`` hands the channels of ``values`` on to ``out``, along ``axis`` or the axis that they have.

        Each channel has its own entry of the parameters, which are given with the axis of these entries. The operation
        may mix the channels within blocks of ``block`` channels, as a grouped convolution does.
        """
        spans = [span for value in values if (span := self.span(value)) is not None]
        if not spans:
            return
        group, layout = spans[0]
        for other, other_layout in spans[1:]:
            if (other.width, other_layout) != (group.width, layout):
                reason = f"channels of different layouts meet in {operation}"
                self._add(group.pins, reason)
                self._add(other.pins, reason)
                continue
            group = self._union(group, other)
        group.block = lcm(group.block, block)
        for parameter, entries in parameters:
            self._add(group.slices, Slice(parameter, entries, layout.repeat, layout.parts))
        self._hand_on(group, out, layout if axis is None else replace(layout, axis=axis), operation)

    def pointwise(self, out: str, shape: tuple[int, ...], operands: Sequence[Operand], *, operation: str) -> None:
        """``operation`` works entry by entry on operands that broadcast to ``shape``.

        Operands that broadcast along the channel axis take no part in it; a parameter has one entry per channel.
        """
        lead, axis = self._lead(shape, operands)
        if lead is None:
            self.leave_whole({out: shape}, operands, operation=operation, reason=f"{operation} broadcasts it")
            return
        joined, parameters = [lead.name], []
        for one in operands:
            at = axis - (len(shape) - len(one.shape))
            if one is lead or at < 0 or one.shape[at] == 1:
                continue
            if one.parameter:
                parameters.append((one.name, at))
            elif self.axis(one.name) == at and len(one.shape) == len(shape):
                joined.append(one.name)
            else:
                for name in (lead.name, one.name):
                    self.pin(name, f"{operation} meets it with what shrinks another way")
        self.carry(out, joined, operation=operation, parameters=tuple(parameters))

    def leave_whole(
        self, outs: Mapping[str, tuple[int, ...]], operands: Sequence[Operand], *, operation: str, reason: str
    ) -> None:
        """An operation of which nothing is known: what it reads stays whole, and so do the values that it gives."""
        for one in operands:
            self.pin(one.name, reason)
        for out, shape in outs.items():
            if len(shape) > 1:
                known = [axis for o in operands if len(o.shape) == len(shape) and (axis := self.axis(o.name))]
                axis = known[0] if known else (2 if len(shape) == 3 else 1)
                self.make(out, shape[axis], operation=operation, kind="whole", axis=axis)
                self.pin(out, reason)

    def split(self, outs: list[str], value: str, *, parts: int, operation: str) -> None:
        """``operation`` cuts ``value`` into equal parts, whose channels with the same number come and go together."""
        if (span := self.span(value)) is None:
            return
        group, layout = span
        others = [self._span[name][1] for name in group.values]
        plain = all(other.repeat == other.parts == 1 for other in others)
        if not plain or group.sites or group.block != 1 or group.width % parts:
            self._add(group.pins, f"{operation} splits it")
        else:
            group.width //= parts
            group.slices = [replace(piece, parts=parts) for piece in group.slices]
            for name, other in zip(group.values, others, strict=True):
                self._span[name] = (group, replace(other, parts=parts))
        for out in outs:
            self._hand_on(group, out, layout, operation)

    def flatten(self, out: str, value: str, *, shape: tuple[int, ...], operation: str) -> None:
        """``operation`` flattens ``value`` of ``shape`` (N, ...) to (N, entries)."""
        if (span := self.span(value)) is not None:
            group, layout = span
            if layout.axis != 1:
                self._add(group.pins, f"{operation} flattens a sequence")
            self._hand_on(group, out, replace(layout, axis=1, repeat=layout.repeat * prod(shape[2:])), operation)

    def own(self, value: str, parameter: str, *, axis: int) -> None:
        """A parameter has one entry along ``axis`` for each block of channels of ``value``."""
        if (span := self.span(value)) is not None:
            self._add(span[0].slices, Slice(parameter, axis, per_block=True))

    def pin(self, value: str, reason: str) -> None:
        """The channels of ``value`` have to stay whole."""
        if (span := self.span(value)) is not None:
            self._add(span[0].pins, reason)

    def span(self, value: str) -> tuple[Group, Layout] | None:
        """The group whose channels ``value`` carries and where they lie in it."""
        if value not in self._span:
            return None
        group, layout = self._span[value]
        return self._resolve(group), layout

    def axis(self, value: str) -> int | None:
        """The channel axis of a value, or None where nothing is known of it."""
        return None if value not in self._span else self._span[value][1].axis

    def groups(self) -> list[Group]:
        """All groups, in order of their first producer."""
        return [group for group in self._order if id(group) not in self._redirect]

    def _lead(self, shape: tuple[int, ...], operands: Sequence[Operand]) -> tuple[Operand | None, int]:
        """The first operand that has all channels of the result, and their axis."""
        for one in operands:
            axis = self.axis(one.name)
            if axis is not None and len(one.shape) == len(shape) and one.shape[axis] == shape[axis]:
                return one, axis
        return None, 0

    def _hand_on(self, group: Group, out: str, layout: Layout, operation: str) -> None:
        self._add(group.carriers, operation)
        self._add(group.values, out)
        self._span[out] = (group, layout)

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
