"""ONNX Runtime's settings on the command line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Annotated, Any, Final

import onnxruntime
import typer
from pydantic import TypeAdapter, ValidationError

from fn3hw.errors import InputError, UnknownName
from fn3hw.profiler import Runtime

Threads = Annotated[int, typer.Option(min=1, help="Threads of ONNX Runtime within an operator.")]
Providers = Annotated[
    list[str] | None, typer.Option("--provider", help="Execution provider, such as XNNPACK; repeat it for fallbacks.")
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--runtime", metavar="KEY=VALUE", help="Another setting of ONNX Runtime, such as spinning=true."),
]
Sweep = Annotated[bool, typer.Option("--sweep", help="First find the settings that run the network fastest.")]

_KINDS: Final = {"int": int, "bool": bool, "str": str}
_SUFFIX: Final = "ExecutionProvider"


def runtime_of(threads: int, providers: Sequence[str] | None, settings: Sequence[str] | None) -> Runtime:
    """The settings that these options name; the rest is as usual.

    Raises:
        InputError: a setting is unknown, or its value is of another kind.
    """
    kinds = {field.name: str(field.type) for field in fields(Runtime) if field.type in _KINDS}
    values: dict[str, Any] = {"intra_op_threads": threads}
    if providers:
        values["providers"] = tuple(_full_name(name) for name in providers)
    for setting in settings or ():
        key, _, value = setting.partition("=")
        if key not in kinds:
            raise UnknownName("setting of ONNX Runtime", key, kinds)
        try:
            values[key] = TypeAdapter(_KINDS[kinds[key]]).validate_python(value)
        except ValidationError as error:
            raise InputError(
                f"--runtime {key} takes a value of kind {kinds[key]}, not {value!r}.",
                hint=f"As it is by default: --runtime {key}={getattr(Runtime(), key)}",
            ) from error
    return Runtime(**values)


def _full_name(provider: str) -> str:
    """``xnnpack`` is XnnpackExecutionProvider; what ONNX Runtime does not know stays as it is."""
    known: dict[str, str] = {name.removesuffix(_SUFFIX).lower(): name for name in onnxruntime.get_all_providers()}
    return known.get(provider.removesuffix(_SUFFIX).lower(), provider)
