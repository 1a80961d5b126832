"""A real file: the supernet as ONNX, and any subnet of it as a really smaller one.

The torch exporter runs once per trained network (`export`). From then on a subnet is a matter of slicing arrays:
`Supernet.slice` removes what a zero gate makes dead. Batch norm stays a node of its own until ONNX Runtime loads the
file, so that each subnet can be given its statistics: exactly, by a pass of data through the subnet (`recalibrate`),
or in closed form from moments collected once (`Moments`). Nothing after the export needs torch.
"""

from fn3hw.deploy.activations import Ranges, activation_ranges
from fn3hw.deploy.export import export
from fn3hw.deploy.finish import calibrated, finish
from fn3hw.deploy.materialize import as_supernet, materialize
from fn3hw.deploy.moments import Moments
from fn3hw.deploy.parity import Parity, check_parity, compare_outputs
from fn3hw.deploy.recalibrate import recalibrate
from fn3hw.deploy.supernet import Parameter, Statistics, Supernet

__all__ = [
    "Moments",
    "Parameter",
    "Parity",
    "Ranges",
    "Statistics",
    "Supernet",
    "activation_ranges",
    "as_supernet",
    "calibrated",
    "check_parity",
    "compare_outputs",
    "export",
    "finish",
    "materialize",
    "recalibrate",
]
