"""Whether a deployed file says what the network says."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
import torch

from fn3hw.deploy.runtime import FloatArray, open_session
from fn3hw.space.nested import Nested
from fn3hw.space.subnet import Subnet


@dataclass(frozen=True)
class Parity:
    """How far two outputs lie apart.

    Args:
        max_abs_diff: the largest absolute difference of a logit.
        relative: that difference relative to the largest logit; 0 where both outputs are 0 everywhere.
        same_predictions: share of images with the same highest logit.
    """

    max_abs_diff: float
    relative: float
    same_predictions: float


def compare_outputs(ours: FloatArray, reference: FloatArray) -> Parity:
    """Compare two batches of logits of shape (N, classes)."""
    difference = float(np.abs(ours - reference).max())
    largest = float(np.abs(reference).max())
    same = float((ours.argmax(axis=1) == reference.argmax(axis=1)).mean())
    return Parity(difference, difference / largest if largest else float(difference > 0), same)


def masked_output(net: Nested, subnet: Subnet, images: FloatArray) -> FloatArray:
    """Logits of the masked torch network in evaluation mode for images (N, C, H, W)."""
    was_training = net.training
    net.eval()
    try:
        with torch.no_grad(), net.active(subnet, sliced=False):
            return net(torch.from_numpy(images)).numpy()  # type: ignore[no-any-return]
    finally:
        net.train(was_training)


def check_parity(net: Nested, subnet: Subnet, model: onnx.ModelProto, images: FloatArray) -> Parity:
    """Compare a sliced ONNX model with the masked torch network on ``images`` (N, C, H, W)."""
    (output,) = open_session(model).run(None, {model.graph.input[0].name: images})
    return compare_outputs(np.asarray(output), masked_output(net, subnet, images))
