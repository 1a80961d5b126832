"""What it costs: subnets measured on a device, written down raw.

A device is a command whose standard input and output speak the agent's frames (`link`); the agent (`agent`, one file)
measures ONNX files in fresh processes and knows nothing else. `plan` chooses a few subnets that teach most,
`measuring` times them in rounds against a fixed reference subnet, `kernels` says whose time it is, `verdict` says
whether to trust it, and `record` is the file it ends in. `profiling` puts them together; `meter` times one more file
later.
"""

from fn3hw.profiler.device import Device, DeviceRefusal, Runtime, Session, connect
from fn3hw.profiler.measuring import Effort
from fn3hw.profiler.meter import Meter, Timing
from fn3hw.profiler.plan import holdout, plan
from fn3hw.profiler.profiling import Progress, Sliceable, profile
from fn3hw.profiler.quantity import Quantity, cost_text
from fn3hw.profiler.record import Measurement, Profile

__all__ = [
    "Device",
    "DeviceRefusal",
    "Effort",
    "Measurement",
    "Meter",
    "Profile",
    "Progress",
    "Quantity",
    "Runtime",
    "Session",
    "Sliceable",
    "Timing",
    "connect",
    "cost_text",
    "holdout",
    "plan",
    "profile",
]
