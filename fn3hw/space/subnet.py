"""Subnets and the search space they live in: immutable values, with a canonical id that reads back.

A subnet's id has one field per gate, in the order of the search space: the number of blocks kept where they are the
first ones (``24``), and otherwise the kept blocks as a hexadecimal bit set, block 0 in the lowest bit (``x0f3``).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fn3hw.errors import InputError, UnknownName
from fn3hw.space.gate import Gate

BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Subnet:
    """Which blocks of each gate are kept. Made by a `SearchSpace`, which checks it.

    Args:
        kept: per gate its name and the kept blocks as a bit set (bit m is block m).
    """

    kept: tuple[tuple[str, int], ...]

    @property
    def counts(self) -> dict[str, int]:
        """Number of blocks kept per gate."""
        return {name: bits.bit_count() for name, bits in self.kept}

    @property
    def is_prefix(self) -> bool:
        """Whether every gate keeps its first blocks, as ordered dropout trains it."""
        return all(_is_prefix(bits) for _, bits in self.kept)

    @property
    def id(self) -> str:
        """Canonical text, which `SearchSpace.parse` reads back."""
        return "-".join(str(bits.bit_count()) if _is_prefix(bits) else f"x{bits:x}" for _, bits in self.kept)

    def blocks(self, gate: str) -> tuple[int, ...]:
        """Indices of the blocks that ``gate`` keeps, ascending."""
        bits = dict(self.kept)[gate]
        return tuple(m for m in range(bits.bit_length()) if bits >> m & 1)

    def __str__(self) -> str:
        return self.id


class SearchSpace:
    """All gates of a network, in the order in which data flows through them.

    Args:
        gates: the gates; names must differ.
    """

    def __init__(self, gates: Iterable[Gate]) -> None:
        self.gates: tuple[Gate, ...] = tuple(gates)
        self._by_name = {gate.name: gate for gate in self.gates}
        if len(self._by_name) != len(self.gates):
            names = [gate.name for gate in self.gates]
            twice = sorted({name for name in names if names.count(name) > 1})
            raise InputError(f"Gate names must differ; used twice: {', '.join(twice)}.")

    def __iter__(self) -> Iterator[Gate]:
        return iter(self.gates)

    def __len__(self) -> int:
        return len(self.gates)

    def __getitem__(self, name: str) -> Gate:
        if name not in self._by_name:
            raise UnknownName("gate", name, self._by_name)
        return self._by_name[name]

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SearchSpace) and self.gates == other.gates

    def __hash__(self) -> int:
        return hash(self.gates)

    def __repr__(self) -> str:
        return f"SearchSpace({len(self)} gates, {self.n_blocks} blocks)"

    @property
    def n_blocks(self) -> int:
        """Number of blocks of all gates together: the paper's N."""
        return sum(gate.size for gate in self.gates)

    @property
    def levels(self) -> tuple[str, ...]:
        """The levels that occur, each once, in order of first occurrence."""
        return tuple(dict.fromkeys(gate.level for gate in self.gates))

    def full(self) -> Subnet:
        """The subnet that keeps every block."""
        return self.from_counts({})

    def smallest(self) -> Subnet:
        """The subnet that keeps only what every subnet keeps."""
        return self.from_counts({gate.name: gate.min_kept for gate in self.gates})

    def from_counts(self, counts: Mapping[str, int]) -> Subnet:
        """The subnet that keeps the first ``counts[name]`` blocks of each gate; gates not named are kept whole.

        Raises:
            UnknownName: a name is no gate of this space.
            InputError: a count is not a whole number within ``min_kept..size``.
        """
        for name, count in counts.items():
            gate = self[name]
            if int(count) != count or not gate.min_kept <= count <= gate.size:
                raise InputError(
                    f"Gate {name!r} cannot keep {count} blocks: allowed are whole numbers from "
                    f"{gate.min_kept} to {gate.size}."
                )
        return Subnet(tuple((g.name, _prefix(int(counts.get(g.name, g.size)))) for g in self.gates))

    def from_blocks(self, blocks: Mapping[str, Iterable[int]]) -> Subnet:
        """The subnet that keeps exactly the given blocks (indices from 0) of the named gates; other gates stay whole.

        Raises:
            UnknownName: a name is no gate of this space.
            InputError: an index is out of range, or fewer than ``min_kept`` blocks are kept.
        """
        kept = {gate.name: _prefix(gate.size) for gate in self.gates}
        for name, indices in blocks.items():
            gate = self[name]
            chosen = set(indices)
            if any(not 0 <= m < gate.size for m in chosen):
                raise InputError(f"Gate {name!r} has blocks 0 to {gate.size - 1}, not {sorted(chosen)}.")
            if len(chosen) < gate.min_kept:
                raise InputError(f"Gate {name!r} keeps at least {gate.min_kept} blocks, not {len(chosen)}.")
            kept[name] = sum(1 << m for m in chosen)
        return Subnet(tuple(kept.items()))

    def parse(self, subnet_id: str) -> Subnet:
        """Read a `Subnet.id` back.

        Raises:
            InputError: the text is not the canonical id of a subnet of this space.
        """
        fields = subnet_id.split("-")
        if len(fields) != len(self.gates):
            raise InputError(
                f"A subnet id of this space has {len(self.gates)} fields, {subnet_id!r} has {len(fields)}."
            )
        kept = []
        for gate, field in zip(self.gates, fields, strict=True):
            try:
                bits = int(field[1:], 16) if field.startswith("x") else _prefix(min(int(field), gate.size + 1))
            except ValueError:
                raise InputError(
                    f"Field {field!r} of subnet id {subnet_id!r} is neither a count nor a bit set."
                ) from None
            if bits < 0 or bits >> gate.size or bits.bit_count() < gate.min_kept:
                raise InputError(
                    f"Field {field!r} of subnet id {subnet_id!r} does not fit gate {gate.name!r}, which keeps at least "
                    f"{gate.min_kept} of its {gate.size} blocks."
                )
            kept.append((gate.name, bits))
        subnet = Subnet(tuple(kept))
        if subnet.id != subnet_id:
            raise InputError(f"Subnet id {subnet_id!r} is not canonical; it would be {subnet.id!r}.")
        return subnet

    def random(self, rng: np.random.Generator, *, prefix: bool = False) -> Subnet:
        """A random subnet: per gate a count uniform over the allowed range, then which blocks.

        Args:
            rng: source of randomness.
            prefix: keep the first blocks, as ordered dropout does, instead of any.
        """
        blocks: dict[str, Iterable[int]] = {}
        for gate in self.gates:
            count = int(rng.integers(gate.min_kept, gate.size + 1))
            free = count if prefix else 0
            blocks[gate.name] = (
                range(free) if prefix else (int(m) for m in rng.choice(gate.size, size=count, replace=False))
            )
        return self.from_blocks(blocks)

    def masks(self, subnet: Subnet) -> dict[str, BoolArray]:
        """Per gate a boolean array of shape (M,), true where a block is kept.

        Raises:
            InputError: the subnet belongs to another space.
        """
        self.check(subnet)
        return {
            gate.name: np.array([bits >> m & 1 for m in range(gate.size)], dtype=bool)
            for gate, (_, bits) in zip(self.gates, subnet.kept, strict=True)
        }

    def check(self, subnet: Subnet) -> None:
        """Raise `InputError` unless the subnet was made for the gates of this space."""
        names = tuple(name for name, _ in subnet.kept)
        if names != tuple(gate.name for gate in self.gates):
            raise InputError("The subnet belongs to another search space: its gates differ.")
        for gate, (_, bits) in zip(self.gates, subnet.kept, strict=True):
            if bits >> gate.size:
                raise InputError(f"The subnet belongs to another search space: gate {gate.name!r} is larger there.")

    def to_json(self) -> list[dict[str, Any]]:
        """The gates as plain JSON values; `from_json` reads them back."""
        return [{"name": g.name, "level": g.level, "size": g.size, "min_kept": g.min_kept} for g in self.gates]

    @classmethod
    def from_json(cls, document: Iterable[Mapping[str, Any]]) -> SearchSpace:
        """Read `to_json` back.

        Raises:
            InputError: a field is missing or of the wrong kind.
        """
        try:
            return cls(Gate(str(g["name"]), str(g["level"]), int(g["size"]), int(g["min_kept"])) for g in document)
        except InputError:
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"Not a search space: {error}.") from error

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON: equal spaces, equal digests."""
        text = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def _prefix(count: int) -> int:
    return (1 << count) - 1


def _is_prefix(bits: int) -> bool:
    return bits & (bits + 1) == 0
