"""From a network and a subnet to an ONNX model, exporting the network at most once."""

from __future__ import annotations

import hashlib
from weakref import WeakKeyDictionary

import onnx

from fn3hw.deploy.export import export
from fn3hw.deploy.supernet import Statistics, Supernet
from fn3hw.space.nested import Nested
from fn3hw.space.subnet import Subnet

_EXPORTED: WeakKeyDictionary[Nested, tuple[str, Supernet]] = WeakKeyDictionary()


def as_supernet(net: Nested | Supernet) -> Supernet:
    """The ONNX supernet of a network; exported again only when its weights have changed since the last time."""
    if isinstance(net, Supernet):
        return net
    state = _state_digest(net)
    cached = _EXPORTED.get(net)
    if cached is None or cached[0] != state:
        cached = (state, export(net))
        _EXPORTED[net] = cached
    return cached[1]


def materialize(net: Nested | Supernet, subnet: Subnet, statistics: Statistics | None = None) -> onnx.ModelProto:
    """A subnet as a really smaller ONNX model. The torch exporter runs once per network, never per subnet.

    Args:
        net: a nested network, or its supernet.
        subnet: which blocks are kept.
        statistics: batch-norm statistics of the subnet, from `recalibrate` or `Moments.statistics`.

    Raises:
        InputError: the subnet is of another space, or the network cannot be exported.
    """
    return as_supernet(net).slice(subnet, statistics)


def _state_digest(net: Nested) -> str:
    total = hashlib.sha256()
    for name, tensor in net.state_dict().items():
        total.update(name.encode())
        total.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return total.hexdigest()
