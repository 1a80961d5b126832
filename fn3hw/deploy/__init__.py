"""A real file: the supernet as ONNX, and any subnet of it as a really smaller one."""

from fn3hw.deploy.export import export
from fn3hw.deploy.supernet import Parameter, Statistics, Supernet

__all__ = ["Parameter", "Statistics", "Supernet", "export"]
