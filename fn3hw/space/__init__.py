"""What may vary in a network: gates, subnets, and how they are found in a torch module.

The one idea is the *gate*: an ordered set of blocks at one place of the network, multiplied by a 0/1 mask. A `Subnet`
says which blocks of each gate are kept; it is a value, checked and named by its `SearchSpace`. `nest` finds the gates
of a torch module: `tracing` makes a graph of it, in which `attention` lays the heads open; `channels` reads from the
graph which channels belong together, in the terms of `flow`, and `branches` what adds to a residual stream; `placing`
puts the masks where channels are mixed, `quantizer` makes weights a sum of steps. The `nested` network itself never
holds a subnet: ``with net.active(subnet)`` lends one to it for a forward pass.
"""

from fn3hw.space.gate import LEVELS, Gate
from fn3hw.space.nested import Nested, Ungated
from fn3hw.space.placing import Bits, nest
from fn3hw.space.quantizer import Quantizer, Schedule
from fn3hw.space.subnet import SearchSpace, Subnet

__all__ = [
    "LEVELS",
    "Bits",
    "Gate",
    "Nested",
    "Quantizer",
    "Schedule",
    "SearchSpace",
    "Subnet",
    "Ungated",
    "nest",
]
