"""A session with a device: what the agent can do, as typed methods with time-outs."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Any, Final, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from fn3hw.errors import DeviceError, InputError, UnknownName
from fn3hw.profiler.agent import Header
from fn3hw.profiler.devices import command_of
from fn3hw.profiler.link import Link, LinkLost

CHUNK_BYTES = 1 << 20
STORED_BYTES = 512 << 20
"""Models kept on the device at a time; its temporary folder may be memory. The oldest are sent again when needed."""
RECONNECT_AFTER_S = (0.0, 2.0, 5.0, 15.0, 40.0)
"""Seconds to wait before each attempt to reach a device again: a board needs about a minute to start anew."""

_LOG = logging.getLogger(__name__)
_T = TypeVar("_T")
_NO_MODELS: Final[Mapping[str, bytes]] = {}


_KNOWN: Final = {
    "execution_mode": ("sequential", "parallel"),
    "graph_optimization": ("disable_all", "enable_basic", "enable_extended", "enable_all"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """How ONNX Runtime is used: all that a session is opened with, and on which core.

    Args:
        intra_op_threads: threads within an operator.
        inter_op_threads: threads across operators.
        execution_mode: ``"sequential"`` or ``"parallel"``.
        graph_optimization: ``"disable_all"``, ``"enable_basic"``, ``"enable_extended"`` or ``"enable_all"``.
        arena: keep freed memory in ONNX Runtime's arena.
        memory_pattern: plan allocations ahead.
        spinning: threads of a pool wait in a busy loop.
        providers: execution providers, the most preferred first.
        pin: keep the measuring process on as many cores as it has threads.
        count_instructions: samples are executed instructions instead of times; some emulated devices count them.

    Raises:
        InputError: a value is none of those that ONNX Runtime knows.
    """

    intra_op_threads: int = 1
    inter_op_threads: int = 1
    execution_mode: str = "sequential"
    graph_optimization: str = "enable_all"
    arena: bool = True
    memory_pattern: bool = True
    spinning: bool = False
    providers: tuple[str, ...] = ("CPUExecutionProvider",)
    pin: bool = False
    count_instructions: bool = False

    def __post_init__(self) -> None:
        for name, known in _KNOWN.items():
            if getattr(self, name) not in known:
                raise UnknownName(f"value of {name}", str(getattr(self, name)), known)
        if self.intra_op_threads < 1 or self.inter_op_threads < 1 or not self.providers:
            raise InputError("ONNX Runtime needs at least one thread and one execution provider.")

    @property
    def clock(self) -> Literal["cpu", "wall", "instructions"]:
        """The clock that counts: the thread's own where all the work is done on one thread, else the wall's.

        With a competing load, ratios of wall times are not only noisier but biased, because the scheduler hands out
        slices of milliseconds; times on the thread's clock do not see it.
        """
        if self.count_instructions:
            return "instructions"
        one_thread = self.intra_op_threads == 1 and self.execution_mode == "sequential"
        return "cpu" if one_thread and self.providers == ("CPUExecutionProvider",) else "wall"

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; `from_json` reads them back."""
        return {**asdict(self), "providers": list(self.providers)}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Runtime:
        """Read `to_json` back."""
        return cls(**{**document, "providers": tuple(document["providers"])})


DEFAULT_RUNTIME: Final = Runtime()


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """What a device said of itself.

    Args:
        command: the command it was reached by.
        key: what a measurement depends on; two profiles can be mixed only where this is the same.
        state: what it is like just now: versions, free memory, frequency, temperature.
    """

    command: str
    key: dict[str, Any]
    state: dict[str, Any]

    @property
    def id(self) -> str:
        """Short digest of the key."""
        return device_id(self.key)


def device_id(key: Mapping[str, Any]) -> str:
    """Short digest of a device key: equal keys, equal ids."""
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]


def differing(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """The entries in which two device keys, or other settings, are not the same."""
    return sorted(name for name in a.keys() | b.keys() if a.get(name) != b.get(name))


def connect(
    device: str = "local",
    *,
    connect_s: float = 60.0,
    silence_s: float = 60.0,
    work_s: float = 600.0,
    reconnects: int = 5,
) -> Session:
    """Start the agent on a device and greet it.

    Args:
        device: ``"local"``, a name (``fn3hw device add``), or a command whose standard input and output reach a Python
            on the device, such as ``"ssh pi@board python3 -"`` (see `fn3hw.profiler.link.resolve`).
        connect_s: how long the first answer may take.
        silence_s: how long the device may be silent later on (it sends a sign of life every 2 s while it works).
        work_s: how long one piece of work may take: one round of one subnet, for example.
        reconnects: how often one piece of work is begun anew when the link is lost meanwhile.

    Raises:
        InputError: the command cannot be read, or no device has the name.
        DeviceError: the device cannot be reached, or lacks numpy or onnxruntime.
    """
    return Session(device, connect_s=connect_s, silence_s=silence_s, work_s=work_s, reconnects=reconnects)


class Session:
    """A device that answers. Made by `connect`; use it as a context manager. Not safe for use by several threads.

    Where the link is lost, it connects again and begins the piece of work anew, which is at most one round.
    Every method raises `DeviceError` when the device refuses, is lost for good, or comes back as another one.
    """

    def __init__(self, device: str, *, connect_s: float, silence_s: float, work_s: float, reconnects: int) -> None:
        self._command = device
        self._connect_s, self._silence_s, self._work_s = connect_s, silence_s, work_s
        self._reconnects = reconnects
        self._requests = 0
        self._sent: dict[str, int] = {}
        self._link, self.device = self._connected()

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the agent; it removes what it stored."""
        self._link.close()

    def put(self, model: bytes) -> str:
        """Send an ONNX file in chunks; returns its SHA-256. A model that is there already is not sent again."""
        return self._persist(lambda: self._put(model))

    def measure(
        self,
        *,
        reference: bytes,
        candidate: bytes,
        plan: Mapping[str, Any],
        runtime: Runtime,
        candidate_runtime: Runtime | None = None,
        seed: int = 0,
    ) -> dict[str, Any]:
        """Time two models in alternation in a fresh process.

        Args:
            reference: the ONNX file that every candidate is compared with.
            candidate: the ONNX file to time.
            plan: how much is enough: `fn3hw.profiler.measuring.Effort.to_json`.
            runtime: how ONNX Runtime is used.
            candidate_runtime: how it is used for the candidate, where that is another way.
            seed: of the random inputs.

        Returns:
            ``reference_ns`` and ``candidate_ns`` (wall time of samples, ns per run, alternating), ``reference_cpu_ns``
            and ``candidate_cpu_ns`` (the same on the thread's own clock), ``reference_instructions`` and
            ``candidate_instructions`` (where they are counted), ``batches`` (runs per sample), ``load_ms``, ``core``,
            ``conditions`` (what may have disturbed).
        """
        own = candidate_runtime or runtime
        request = {
            "plan": {**plan, "clock": runtime.clock if own.clock == runtime.clock else "wall"},
            "runtime": runtime.to_json(),
            "candidate_runtime": own.to_json(),
            "seed": seed,
        }
        return self._ask("measure", request, {"reference": reference, "candidate": candidate})[0]

    def peak_memory(self, model: bytes, *, runtime: Runtime, arena: bool = True, seed: int = 0) -> dict[str, Any]:
        """Memory of a fresh process that opens the model and runs it.

        Returns:
            ``peak_mib`` (the process's peak resident memory), ``runtime_mib`` (before the model was opened),
            ``increment_mib`` (the peak above that), ``load_ms``, ``first_run_ms``.
        """
        request = {"runtime": runtime.to_json(), "arena": arena, "seed": seed}
        return self._ask("peak_memory", request, {"candidate": model})[0]

    def probe(self, *, seconds: float = 1.0) -> dict[str, Any]:
        """Time a fixed matrix product, to see how quiet the device is just now.

        Returns:
            ``wall_ns`` (samples of about 1 ms, ns each) and ``conditions`` (what may have disturbed).
        """
        return self._ask("probe", {"seconds": seconds})[0]

    def run(
        self, model: bytes, inputs: Mapping[str, NDArray[Any]], *, runtime: Runtime = DEFAULT_RUNTIME
    ) -> dict[str, NDArray[Any]]:
        """The outputs of a model on the device, by name."""
        arrays = {
            name: np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")) for name, array in inputs.items()
        }
        described = [{"name": name, "dtype": a.dtype.str, "shape": list(a.shape)} for name, a in arrays.items()]
        request = {"runtime": runtime.to_json(), "inputs": described}
        answer, data = self._ask("run", request, {"candidate": model}, b"".join(a.tobytes() for a in arrays.values()))
        outputs, offset = {}, 0
        for tensor in answer["outputs"]:
            dtype, shape = np.dtype(tensor["dtype"]), tuple(tensor["shape"])
            array = np.frombuffer(data, dtype=dtype, count=int(np.prod(shape, dtype=np.int64)), offset=offset)
            offset += array.nbytes
            outputs[tensor["name"]] = array.reshape(shape)
        return outputs

    def _ask(
        self, op: str, request: Header, models: Mapping[str, bytes] = _NO_MODELS, payload: bytes = b""
    ) -> tuple[Header, bytes]:
        """The answer of the device to a request that needs these models there."""

        def work() -> tuple[Header, bytes]:
            there = {role: self._put(model) for role, model in models.items()}
            return self._exchange(self._link, op, {**request, "models": there}, payload)

        return self._persist(work)

    def _put(self, model: bytes) -> str:
        sha = hashlib.sha256(model).hexdigest()
        if sha in self._sent:
            self._sent[sha] = self._sent.pop(sha)  # now the most recently used
            return sha
        self._make_room(len(model))
        for offset in range(0, max(1, len(model)), CHUNK_BYTES):
            chunk = model[offset : offset + CHUNK_BYTES]
            self._exchange(self._link, "put", {"sha256": sha, "offset": offset, "size": len(model)}, chunk)
        self._sent[sha] = len(model)
        return sha

    def _make_room(self, size: int) -> None:
        """Remove the models used longest ago; the last one, a reference perhaps, stays."""
        while len(self._sent) > 1 and sum(self._sent.values()) + size > STORED_BYTES:
            oldest = next(iter(self._sent))
            self._exchange(self._link, "drop", {"sha256": oldest})
            del self._sent[oldest]

    def _exchange(
        self, link: Link, op: str, request: Header, payload: bytes = b"", *, silence_s: float | None = None
    ) -> tuple[Header, bytes]:
        silence_s = silence_s if silence_s is not None else self._silence_s
        self._requests += 1
        header = {"timeout_s": self._work_s, **request, "op": op, "id": self._requests}
        link.send(header, payload, silence_s=silence_s)
        while True:
            answer, data = link.receive(silence_s=silence_s)
            if answer["kind"] == "error":
                raise self._refused(op, answer)
            if answer["kind"] == "result" and answer.get("id") == self._requests:
                return answer, data

    def _connected(self) -> tuple[Link, Device]:
        link = Link(self._command)
        try:
            answer, _ = self._exchange(link, "hello", {}, silence_s=self._connect_s)
        except BaseException:
            link.close(patience_s=0.2)
            raise
        return link, Device(command=command_of(self._command), key=answer["device"], state=answer["state"])

    def _persist(self, work: Callable[[], _T]) -> _T:
        """Do the work; where the link is lost, connect again and do it anew."""
        losses = 0
        while True:
            try:
                return work()
            except LinkLost as lost:
                losses += 1
                if losses > self._reconnects:
                    raise
                self._reconnect(lost)

    def _reconnect(self, lost: LinkLost) -> None:
        _LOG.warning("%s Connecting again.", lost.message)
        self._link.close(patience_s=0.2)
        self._sent.clear()
        for wait in RECONNECT_AFTER_S:
            time.sleep(wait)
            try:
                self._link, device = self._connected()
            except DeviceError:
                continue
            if odd := differing(device.key, self.device.key):
                raise DeviceError(
                    f"Device {self._command!r} came back as another one: {', '.join(odd)} changed.",
                    hint="What was measured is kept. Bring the device back to what it was, and repeat the command.",
                )
            return
        raise lost

    def _refused(self, op: str, answer: Header) -> DeviceError:
        code, message = answer["code"], answer["message"]
        return DeviceRefusal(
            f"Device {self._command!r} refused ({op}): {message}.", reason=code, hint=_HINTS.get(code, "")
        )


class DeviceRefusal(DeviceError):
    """The device answers, but cannot do what was asked.

    Args:
        message: what happened.
        reason: for programs: ``missing-module``, ``model-rejected``, ``out-of-memory``, ``timeout``, ``disk``, ...
    """

    def __init__(self, message: str, *, reason: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.reason = reason


_HINTS: Final = {
    "missing-module": "Install it there: python3 -m pip install numpy onnxruntime; or name the Python that has it.",
    "model-rejected": "Check the ONNX Runtime version of the device, and the operator set the model was exported with.",
    "out-of-memory": "Close other programs on the device, or profile with the arena off.",
    "timeout": "Check what else runs on the device, or allow more time.",
    "no-provider": "Choose one that is there, or install the onnxruntime package that has it.",
    "busy": "Wait until the other program has ended, or stop it.",
    "disk": "Free some space in the device's temporary folder (TMPDIR).",
    "version": "Run the same version of fn3hw on both sides.",
    "checksum": "The link corrupts data: check the cable or the connection.",
}
