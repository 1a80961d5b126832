"""The final file of a subnet: batch norm set by data, and activations calibrated where weights are integers."""

from __future__ import annotations

import onnx

from fn3hw.deploy.activations import activation_ranges
from fn3hw.deploy.recalibrate import recalibrate
from fn3hw.deploy.runtime import FloatArray
from fn3hw.deploy.supernet import Statistics, Supernet
from fn3hw.space.subnet import Subnet

CALIBRATION_IMAGES = 512


def finish(supernet: Supernet, subnet: Subnet, images: FloatArray) -> tuple[onnx.ModelProto, Statistics]:
    """The file of a subnet with exact batch norm, and its statistics.

    Args:
        supernet: the trained network.
        subnet: which blocks are kept.
        images: training images (N, C, H, W): all set batch norm, the first ones calibrate activations.

    Raises:
        InputError: the images do not fit the network's input.
    """
    statistics = recalibrate(supernet, subnet, images)
    return calibrated(supernet, subnet, statistics, images[:CALIBRATION_IMAGES]), statistics


def calibrated(
    supernet: Supernet, subnet: Subnet, statistics: Statistics | None, images: FloatArray
) -> onnx.ModelProto:
    """The file of a subnet with given batch norm; its quantized layers compute on integers."""
    if not supernet.quantizers:
        return supernet.slice(subnet, statistics)
    twin = supernet.slice(subnet, statistics, packed=False)
    ranges = activation_ranges(twin, images, integers=supernet.integer_weights(subnet))
    return supernet.slice(subnet, statistics, ranges=ranges)
