"""What it costs: subnets measured on a device, written down raw.

A device is a command whose standard input and output speak the agent's frames (`link`); the agent (`agent`, one file)
measures ONNX files in fresh processes and knows nothing else. `devices` gives commands names, and `trust` says what
limits trust in a device. `plan` chooses a few subnets that teach most, `measuring` times them in rounds against a fixed
reference subnet, `kernels` says whose time it is, `verdict` says whether to trust it, and `writing` makes of that a
`record`, the file it ends in. `profiling` puts them together; `meter` times one more file later. `sweep` finds how a
network is run fastest, where that is asked for.
"""

from fn3hw.profiler.device import DEFAULT_RUNTIME, Device, DeviceRefusal, Runtime, Session, connect
from fn3hw.profiler.devices import Registry, command_of
from fn3hw.profiler.measuring import Effort
from fn3hw.profiler.meter import Meter, Reading, Timing
from fn3hw.profiler.plan import holdout, plan
from fn3hw.profiler.ports import Sliceable
from fn3hw.profiler.profiling import Progress, profile, sliceable
from fn3hw.profiler.quantity import Quantity, cost_text
from fn3hw.profiler.record import Measurement, Profile
from fn3hw.profiler.trust import Finding, findings, unrest

__all__ = [
    "DEFAULT_RUNTIME",
    "Device",
    "DeviceRefusal",
    "Effort",
    "Finding",
    "Measurement",
    "Meter",
    "Profile",
    "Progress",
    "Quantity",
    "Reading",
    "Registry",
    "Runtime",
    "Session",
    "Sliceable",
    "Timing",
    "command_of",
    "connect",
    "cost_text",
    "findings",
    "holdout",
    "plan",
    "profile",
    "sliceable",
    "unrest",
]
