"""The agent: measures ONNX files on the device it runs on, and answers over its standard input and output.

One file that needs the standard library, numpy and onnxruntime: its source is sent to a board as it is, and nothing is
installed there. It knows ONNX files and nothing of the rest of fn3hw. Reading order: frames, the serving loop,
fresh processes, then what is done in one (`measure`, `peak_memory`, `run`, `probe`), then the device key.

Frames, both ways::

    magic "FN3A" | version u16 | header bytes u32 | payload bytes u64 | CRC-32 of the rest u32 | header | payload

The header is JSON, the payload raw bytes, numbers are big-endian. A request has an ``id`` and an ``op``; its answer has
the same ``id`` and ``"kind": "result"`` or ``"error"``; while work is going on, ``"heartbeat"`` frames come in between.

Each piece of work is done in a fresh process, forked before onnxruntime is ever imported in this one, so that no state
of one measurement reaches the next. Forking, because an emulated interpreter cannot start itself again.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import glob
import hashlib
import json
import os
import platform
import select
import shutil
import signal
import struct
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from typing import Any, BinaryIO

VERSION = 1
MAGIC = b"FN3A"
PREFIX = struct.Struct(">4sHIQI")
MAX_HEADER, MAX_PAYLOAD = 64 << 20, 1 << 34
HEARTBEAT_S = 2.0
BUSY_S = 120.0
"""How long one program waits for its turn to measure."""
QUIET_RUNS, QUIET_NAP_S = 5, 0.05
"""A moment is quiet where the fastest of so many runs of the reference is; between moments the agent sleeps."""
COUNTER = "FN3HW_INSTRUCTIONS_FD"
"""The variable that an emulator sets which counts instructions: the descriptor that the count is read from."""

Header = dict[str, Any]
Answer = tuple[Header, bytes]


class FrameError(Exception):
    """The bytes that came are no frame: ``reason`` is garbage, version, checksum or end."""

    def __init__(self, reason: str, message: str, seen: bytes = b"") -> None:
        super().__init__(message)
        self.reason = reason
        self.seen = seen


class Refusal(Exception):
    """A request that cannot be met; ``code`` is for programs."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


# ---------------------------------------------------------------------------------------------------- frames


def pack_frame(header: Header, payload: bytes = b"", *, version: int = VERSION) -> bytes:
    """One frame as bytes."""
    text = json.dumps(header, separators=(",", ":")).encode()
    checksum = zlib.crc32(payload, zlib.crc32(text))
    return PREFIX.pack(MAGIC, version, len(text), len(payload), checksum) + text + payload


def read_frame(read: Callable[[int], bytes]) -> Answer:
    """Read one frame; ``read(n)`` returns exactly n bytes, or fewer at the end of the stream.

    Raises:
        FrameError: no frame of this version came.
    """
    prefix = read(PREFIX.size)
    if not prefix:
        raise FrameError("end", "the stream ended")
    if prefix[:4] != MAGIC[: len(prefix[:4])]:
        raise FrameError("garbage", f"expected a frame, got {prefix[:60]!r}", prefix)
    if len(prefix) < PREFIX.size:
        raise FrameError("end", "the stream ended inside a frame", prefix)
    _, version, header_size, payload_size, checksum = PREFIX.unpack(prefix)
    if version != VERSION:
        raise FrameError("version", f"it speaks version {version} of the protocol, this is version {VERSION}")
    if header_size > MAX_HEADER or payload_size > MAX_PAYLOAD:
        raise FrameError("garbage", f"a frame of {header_size} and {payload_size} bytes", prefix)
    text, payload = read(header_size), read(payload_size)
    if len(text) < header_size or len(payload) < payload_size:
        raise FrameError("end", "the stream ended inside a frame")
    if zlib.crc32(payload, zlib.crc32(text)) != checksum:
        raise FrameError("checksum", "a frame came with a wrong checksum: the link corrupts data")
    header: Header = json.loads(text)
    return header, payload


# ---------------------------------------------------------------------------------------------- serving loop


def main() -> None:
    """Serve requests until standard input ends."""
    if "fn3hw" in sys.modules and "__file__" in globals():
        # Started as a module of the package: whatever that imported would be in every fresh process.
        os.execv(sys.executable, [sys.executable, "-u", os.path.abspath(__file__)])
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # What a library prints must not end up between frames: frames go to a private descriptor, fd 1 to standard error.
    frames = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    folder = tempfile.mkdtemp(prefix="fn3hw-agent-")
    os.environ["TMPDIR"] = folder  # onnxruntime leaves a file there
    try:
        Agent(sys.stdin.buffer, frames, folder).serve()
    except BrokenPipeError:
        pass
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Agent:
    """Reads requests, works in fresh processes, writes answers.

    Args:
        requests: where frames come from.
        frames: where frames go to.
        folder: holds the models while the agent runs.
    """

    def __init__(self, requests: BinaryIO, frames: BinaryIO, folder: str) -> None:
        self._requests = requests
        self._frames = frames
        self._folder = folder
        with contextlib.suppress(Exception):
            import numpy  # noqa: F401  it starts no thread with one BLAS thread, and saves each fresh process 60 ms

    def serve(self) -> None:
        """Answer until the stream of requests ends."""
        while True:
            try:
                header, payload = read_frame(self._requests.read)
            except FrameError as error:
                if error.reason != "end":
                    self._send({"kind": "error", "id": None, "code": error.reason, "message": str(error)})
                return
            try:
                answer, data = self._answer(header, payload)
                self._send({**answer, "kind": "result", "id": header.get("id")}, data)
            except Refusal as refusal:
                self._send({"kind": "error", "id": header.get("id"), "code": refusal.code, "message": str(refusal)})

    def _send(self, header: Header, payload: bytes = b"") -> None:
        data = memoryview(pack_frame(header, payload))
        while data:
            data = data[self._frames.write(data) :]

    def _answer(self, request: Header, payload: bytes) -> Answer:
        op = request.get("op")
        if op == "put":
            return self._put(request, payload), b""
        if op == "drop":
            with contextlib.suppress(OSError):
                os.unlink(self._path(request["sha256"]))
            return {}, b""
        if op not in WORK:
            raise Refusal("bad-request", f"no operation is called {op!r}; known: {', '.join(sorted(WORK))}, put, drop")
        models = {role: self._model(sha) for role, sha in request.get("models", {}).items()}
        return fresh_process(
            lambda: WORK[op](request, models, payload), request.get("timeout_s", 600.0), self._beat(request)
        )

    def _beat(self, request: Header) -> Callable[[], None]:
        def beat() -> None:
            self._send({"kind": "heartbeat", "id": request.get("id")})
            if select.select([self._requests], [], [], 0)[0] and not self._requests.peek(1):  # type: ignore[attr-defined]
                sys.exit(0)  # nobody is left to answer to

        return beat

    def _path(self, sha: str) -> str:
        return os.path.join(self._folder, f"{sha[:64]}.onnx")

    def _model(self, sha: str) -> str:
        path = self._path(sha)
        if not os.path.exists(path):
            raise Refusal("no-model", f"the model {sha[:12]} was not sent")
        return path

    def _put(self, request: Header, chunk: bytes) -> Header:
        """Store one chunk of a model; the last one is checked against the digest."""
        sha, offset, size = request["sha256"], request["offset"], request["size"]
        path = self._path(sha)
        if os.path.exists(path):
            return {"have": True}
        part = f"{path}.part"
        try:
            with open(part, "r+b" if offset else "wb") as file:
                file.seek(offset)
                file.write(chunk)
            if offset + len(chunk) < size:
                return {"have": False}
            with open(part, "rb") as file:
                if hashlib.sha256(file.read()).hexdigest() != sha:
                    os.unlink(part)
                    raise Refusal("checksum", "the model that arrived is not the one that was sent")
            os.replace(part, path)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.unlink(part)
            raise Refusal("disk", f"cannot store the model in {self._folder}: {error.strerror}") from error
        return {"have": True}


# -------------------------------------------------------------------------------------------- fresh processes


def fresh_process(work: Callable[[], Answer], timeout_s: float, beat: Callable[[], None]) -> Answer:
    """Do ``work`` in a process of its own and return what it returns.

    Raises:
        Refusal: the work refused, crashed, was killed, or took longer than ``timeout_s`` seconds.
    """
    receive, give = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(receive)
        _do(work, give)
    os.close(give)
    data = bytearray()
    end, next_beat = time.monotonic() + timeout_s, time.monotonic() + HEARTBEAT_S
    try:
        while True:
            now = time.monotonic()
            if now >= end:
                raise Refusal("timeout", f"the work was not done within {timeout_s:g} s")
            if now >= next_beat:
                beat()
                next_beat = now + HEARTBEAT_S
            if select.select([receive], [], [], min(end, next_beat) - now if min(end, next_beat) > now else 0)[0]:
                chunk = os.read(receive, 1 << 20)
                if not chunk:
                    break
                data += chunk
    finally:
        os.close(receive)
        with contextlib.suppress(ProcessLookupError):
            if sys.exc_info()[0] is not None:
                os.kill(child, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return _unwrap(bytes(data), status)


def _do(work: Callable[[], Answer], give: int) -> None:
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        try:
            header, payload = work()
            frame = pack_frame(header, payload)
        except Refusal as refusal:
            frame = pack_frame({"refusal": refusal.code, "message": str(refusal)})
        except MemoryError:
            frame = pack_frame({"refusal": "out-of-memory", "message": "the device ran out of memory"})
        except Exception as error:
            full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
            frame = pack_frame({"refusal": "disk" if full else "failed", "message": f"{type(error).__name__}: {error}"})
        with os.fdopen(give, "wb") as pipe:
            pipe.write(frame)
    finally:
        os._exit(0)


def _unwrap(data: bytes, status: int) -> Answer:
    if status == -signal.SIGKILL:
        raise Refusal("out-of-memory", "the measuring process was killed, most likely for want of memory")
    if status or not data:
        raise Refusal("crashed", f"the measuring process ended with status {status}")
    stream = memoryview(data)
    position = 0

    def read(size: int) -> bytes:
        nonlocal position
        position += size
        return bytes(stream[position - size : position])

    header, payload = read_frame(read)
    if "refusal" in header:
        raise Refusal(header["refusal"], header["message"])
    return header, payload


# ------------------------------------------------------------------------------------------- work: the runtime


def open_session(path: str, runtime: Header, **overrides: Any) -> tuple[Any, float]:
    """An ONNX Runtime session and the milliseconds that it took to open.

    Args:
        path: the ONNX file.
        runtime: threads, optimisation level, providers, spinning, arena: all that `default_runtime` of the caller sets.
        overrides: entries of ``runtime`` to replace.
    """
    ort = import_runtime()
    chosen = {**runtime, **overrides}
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = chosen["intra_op_threads"]
    options.inter_op_num_threads = chosen["inter_op_threads"]
    options.execution_mode = getattr(ort.ExecutionMode, f"ORT_{chosen['execution_mode'].upper()}")
    options.graph_optimization_level = getattr(
        ort.GraphOptimizationLevel, f"ORT_{chosen['graph_optimization'].upper()}"
    )
    options.enable_cpu_mem_arena = chosen["arena"]
    options.enable_mem_pattern = chosen["memory_pattern"]
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if chosen["spinning"] else "0")
    if chosen.get("profile_prefix"):
        options.enable_profiling = True
        options.profile_file_prefix = chosen["profile_prefix"]
    wanted = list(chosen["providers"])
    if absent := sorted(set(wanted) - set(ort.get_available_providers())):
        there = ", ".join(ort.get_available_providers())
        raise Refusal("no-provider", f"onnxruntime has no {', '.join(absent)} there; it has {there}")
    start = time.perf_counter_ns()
    try:
        session = ort.InferenceSession(path, options, providers=[provider(name, chosen) for name in wanted])
    except Exception as error:
        text = str(error)
        if "bad_alloc" in text or "Failed to allocate" in text:
            raise Refusal("out-of-memory", f"the device has too little memory for the model: {text}") from error
        raise Refusal("model-rejected", text) from error
    if session.get_providers()[0] != wanted[0]:
        raise Refusal("no-provider", f"{wanted[0]} is installed there, but does not start")
    return session, (time.perf_counter_ns() - start) / 1e6


def provider(name: str, runtime: Header) -> Any:
    """An execution provider with its options: XNNPACK has threads of its own, the others have what they need."""
    if name == "XnnpackExecutionProvider":
        return name, {"intra_op_num_threads": str(runtime["intra_op_threads"])}
    return name


def import_runtime() -> Any:
    """The onnxruntime module, or a refusal that says what the device lacks."""
    try:
        import numpy  # noqa: F401
        import onnxruntime
    except ImportError as error:
        raise Refusal("missing-module", f"{sys.executable} cannot import {error.name or error}") from error
    with contextlib.suppress(AttributeError):
        onnxruntime.disable_telemetry_events()
    return onnxruntime


def random_feeds(session: Any, seed: int) -> dict[str, Any]:
    """Inputs drawn from a seed; axes without a fixed size are 1."""
    import numpy as np

    kinds = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}
    whole = {"tensor(int64)": np.int64, "tensor(int32)": np.int32, "tensor(uint8)": np.uint8, "tensor(int8)": np.int8}
    rng = np.random.default_rng(seed)
    feeds = {}
    for node in session.get_inputs():
        shape = [size if isinstance(size, int) and size > 0 else 1 for size in node.shape]
        if node.type in kinds:
            feeds[node.name] = rng.standard_normal(shape).astype(kinds[node.type])
        elif node.type in whole:
            feeds[node.name] = rng.integers(0, 2, shape).astype(whole[node.type])
        else:
            raise Refusal(
                "model-rejected", f"input {node.name!r} is of type {node.type}, for which no input can be made"
            )
    return feeds


def runner(session: Any, seed: int) -> Callable[[], Any]:
    """A call without arguments that runs the session once on random inputs.

    Raises:
        Refusal: the first run fails.
    """
    feeds = random_feeds(session, seed)
    run = session.run
    try:
        run(None, feeds)
    except Exception as error:
        raise Refusal("model-rejected", f"the model opens, but does not run: {error}") from error
    return lambda: run(None, feeds)


# ------------------------------------------------------------------------------------------------ work: measure


def measure(request: Header, models: dict[str, str], _: bytes) -> Answer:
    """Time the candidate in alternation with the reference; raw samples in nanoseconds per run, on two clocks.

    A sample is one run, or as many as it takes to fill ``min_sample_us``: reading both clocks takes some hundred
    nanoseconds, which would be seen in shorter ones. The wall clock counts the time that the scheduler gives to other
    programs, the clock of the thread does not. Where the plan's clock is ``"instructions"``, they are counted besides.
    Where the plan has ``kernel_runs``, kernels are timed afterwards: see `_time_kernels`.
    """
    plan, runtime, seed = request["plan"], request["runtime"], request.get("seed", 0)
    own = request.get("candidate_runtime") or runtime
    waited_s = wait_for_turn(request.get("busy_s", BUSY_S))
    core = pin(runtime)
    reference_session, _ms = open_session(models["reference"], runtime)
    candidate_session, load_ms = open_session(models["candidate"], own)
    runs = runner(reference_session, seed), runner(candidate_session, seed)
    gc.disable()
    estimates = _warm_up(runs, plan)
    batches = [min(1000, int(plan["min_sample_us"] * 1e3 / max(estimate, 1.0)) + 1) for estimate in estimates]
    slept_s = _wait_for_quiet(runs[0], plan)
    before = observe(core)
    samples = _alternate(runs, batches, plan)
    after = observe(core)
    between = runs[0]
    del runs, candidate_session  # a board may be short of memory for three sessions
    timed = _time_kernels(models["candidate"], own, plan, seed, between) if plan["kernel_runs"] else {}
    return {
        "reference_ns": samples["wall"][0],
        "candidate_ns": samples["wall"][1],
        "reference_cpu_ns": samples["cpu"][0],
        "candidate_cpu_ns": samples["cpu"][1],
        "reference_instructions": samples["instructions"][0],
        "candidate_instructions": samples["instructions"][1],
        "batches": batches,
        "load_ms": load_ms,
        "core": core,
        "conditions": {**compare(before, after), "waited_s": round(waited_s, 3), "slept_s": round(slept_s, 3)},
        **timed,
    }, b""


def _wait_for_quiet(run: Callable[[], Any], plan: Header) -> float:
    """Sleep while a model takes longer than ``quiet_ns``, for ``quiet_wait_s`` at most; the seconds slept."""
    limit_ns, slept_s, clock = plan.get("quiet_ns"), 0.0, _clock(plan)
    while limit_ns and slept_s < plan["quiet_wait_s"]:
        if min(_duration(run, clock) for _ in range(QUIET_RUNS)) <= limit_ns:
            break
        time.sleep(QUIET_NAP_S)
        slept_s += QUIET_NAP_S
    return slept_s


def _clock(plan: Header) -> Callable[[], int]:
    """The clock that counts; nanoseconds."""
    return time.thread_time_ns if plan["clock"] == "cpu" else time.perf_counter_ns


def _duration(run: Callable[[], Any], clock: Callable[[], int]) -> int:
    start = clock()
    run()
    return clock() - start


def _warm_up(runs: tuple[Callable[[], Any], ...], plan: Header) -> list[float]:
    """Alternate for at least ``warmup_runs`` runs and ``warmup_s`` seconds; the fastest run of each, in ns."""
    clock = time.perf_counter_ns
    fastest = [float("inf")] * len(runs)
    start, done = clock(), 0
    while done < plan["warmup_runs"] or (clock() - start) < plan["warmup_s"] * 1e9:
        for i, run in enumerate(runs):
            fastest[i] = min(fastest[i], _duration(run, clock))
        done += 1
    return fastest


def _alternate(runs: tuple[Callable[[], Any], ...], batches: list[int], plan: Header) -> dict[str, list[list[int]]]:
    """Samples of each run by clock, without pairs where the clock that counts did not move (steal can do that)."""
    clock, cpu_clock = time.perf_counter_ns, time.thread_time_ns
    counting = plan["clock"] == "instructions"
    samples: dict[str, list[list[int]]] = {name: [[] for _ in runs] for name in ("wall", "cpu", "instructions")}
    judged = samples[plan["clock"]]
    spent = [0, 0]
    check = plan["min_samples"]
    while True:
        pair: list[dict[str, int]] = []
        for i, run in enumerate(runs):
            repeat = batches[i]
            count = executed_instructions() if counting else 0
            cpu, wall = cpu_clock(), clock()
            for _ in range(repeat):
                run()
            wall, cpu = clock() - wall, cpu_clock() - cpu
            taken = {"wall": wall // repeat, "cpu": cpu // repeat}
            if counting:
                taken["instructions"] = (executed_instructions() - count) // repeat
            spent[i] += wall
            pair.append(taken)
        if all(taken[plan["clock"]] > 0 for taken in pair):
            for i, taken in enumerate(pair):
                for name, value in taken.items():
                    samples[name][i].append(value)
        n = len(judged[0])
        if n >= plan["max_samples"] or (n and sum(spent) >= plan["max_s"] * 2e9):
            return samples
        if n >= check and min(spent) >= plan["seconds"] * 1e9:
            check = n + max(5, n // 4)
            if max(unsettled(samples) for samples in judged) <= plan["settled"]:
                return samples


def executed_instructions() -> int:
    """Instructions that this process has executed, on an emulator that counts them: see ``.ci/setup-emulated``."""
    return int.from_bytes(os.pread(int(os.environ[COUNTER]), 8, 0), "little")


def unsettled(samples: list[int]) -> float:
    """How far the third fastest sample is above the fastest, relative to that.

    What disturbs a sample makes it slower, never faster: where the fastest ones agree, they were not disturbed.
    """
    if len(samples) < 3:
        return float("inf")
    first, _, third = sorted(samples)[:3]
    return third / first - 1


def wait_for_turn(limit_s: float) -> float:
    """Wait until no other program measures on this device, and keep the turn until this process ends.

    Returns:
        The seconds that it took.

    Raises:
        Refusal: it took longer than ``limit_s``.
    """
    try:
        import fcntl
    except ImportError:
        return 0.0
    path = os.path.join(tempfile.gettempdir(), "fn3hw-agent.lock")
    try:
        lock = os.open(path, os.O_RDONLY)  # asking to create it is refused where it is another user's
    except FileNotFoundError:
        lock = os.open(path, os.O_RDONLY | os.O_CREAT, 0o644)
    start = time.monotonic()
    while True:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return time.monotonic() - start
        if time.monotonic() - start > limit_s:
            raise Refusal("busy", f"another program has been measuring on the device for {limit_s:g} s")
        time.sleep(0.02)


def pin(runtime: Header) -> int | None:
    """Keep this process on as many cores as it has threads, the last ones; one of them, or None without pinning."""
    if not runtime.get("pin") or not hasattr(os, "sched_setaffinity"):
        return None
    cores = sorted(os.sched_getaffinity(0))[-runtime["intra_op_threads"] :]
    os.sched_setaffinity(0, cores)
    return cores[-1]


# --------------------------------------------------------------------------------------- work: kernels and memory


def _time_kernels(model: str, runtime: Header, plan: Header, seed: int, between: Callable[[], Any]) -> Header:
    """Time per kernel from ONNX Runtime's own profile, in order of execution: names, operators and microseconds.

    The answer has the times of the reference besides, in nanoseconds on the plan's clock: it runs ``between`` as it did
    before, so that a kernel finds the caches as it did there. Every kernel has its own fastest runs, since a
    disturbance seldom spares a whole run: see `undisturbed`.
    """
    with tempfile.TemporaryDirectory(prefix="fn3hw-kernels-") as folder:
        session, _ms = open_session(model, runtime, profile_prefix=os.path.join(folder, "trace"))
        run = runner(session, seed)
        for _ in range(plan["warmup_runs"]):
            between()
            run()
        reference_ns: list[int] = []
        start, clock = time.perf_counter(), _clock(plan)
        while len(reference_ns) < plan["kernel_runs"] or (
            time.perf_counter() - start < plan["kernel_s"] and len(reference_ns) < plan["max_kernel_runs"]
        ):
            reference_ns.append(_duration(between, clock))
            run()
        path = session.end_profiling()
        with open(path, encoding="utf-8") as file:
            events = json.load(file)
    return {"kernels": summarise(events, 1 + plan["warmup_runs"]), "kernels_reference_ns": reference_ns}


def summarise(events: list[Header], warm: int) -> list[list[Any]]:
    """``[name, operator, provider, microseconds]`` per kernel in order of execution, after ``warm`` runs."""
    durations: dict[tuple[str, str, str], list[int]] = {}
    for event in events:
        name = event["name"]
        if event.get("cat") != "Node" or not name.endswith("_kernel_time"):
            continue
        arguments = event.get("args", {})
        key = (name[: -len("_kernel_time")], arguments.get("op_name", ""), arguments.get("provider", ""))
        durations.setdefault(key, []).append(event["dur"])
    return [[*key, round(undisturbed(values[warm:]), 3)] for key, values in durations.items()]


def undisturbed(durations: list[int]) -> float:
    """Mean of the durations that are at most a microsecond, or 2%, above the shortest one.

    What disturbs a kernel makes it slower, never faster. Durations are whole microseconds: where the time lies between
    two of them is seen in how often each occurs.
    """
    limit = max(min(durations) + 1, 1.02 * min(durations))
    fast = [duration for duration in durations if duration <= limit]
    return sum(fast) / len(fast)


def peak_memory(request: Header, models: dict[str, str], _: bytes) -> Answer:
    """Peak resident memory of a process that opens and runs the model, and the part above the runtime alone."""
    import_runtime()
    before = status_mib()
    resettable = True
    try:
        with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
            file.write("5")
    except OSError:
        resettable = False
    session, load_ms = open_session(models["candidate"], request["runtime"], arena=request["arena"])
    start = time.perf_counter_ns()
    run = runner(session, request.get("seed", 0))
    first_run_ms = (time.perf_counter_ns() - start) / 1e6
    for _i in range(request.get("runs", 3)):
        run()
    after = status_mib()
    return {
        "peak_mib": max(before["peak"], after["peak"]),
        "runtime_mib": before["now"],
        "increment_mib": max(0.0, after["peak"] - before["now"]),
        "resettable": resettable,
        "load_ms": load_ms,
        "first_run_ms": first_run_ms,
    }, b""


def status_mib() -> dict[str, float]:
    """Resident memory of this process now and at its peak, in MiB."""
    fields = {"VmHWM": "peak", "VmRSS": "now"}
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as file:
            lines = dict(line.split(":", 1) for line in file if ":" in line)
        return {name: int(lines[field].split()[0]) / 1024 for field, name in fields.items()}
    except (OSError, KeyError):
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1024)
        return {"peak": peak, "now": peak}


def run_model(request: Header, models: dict[str, str], payload: bytes) -> Answer:
    """Run the model on given inputs; tensors travel as raw little-endian bytes, described by name, type and shape."""
    import_runtime()
    import numpy as np

    session, _ms = open_session(models["candidate"], request["runtime"])
    feeds, offset = {}, 0
    for tensor in request["inputs"]:
        dtype = np.dtype(tensor["dtype"])
        count = int(np.prod(tensor["shape"], dtype=np.int64))
        array = np.frombuffer(payload, dtype=dtype, count=count, offset=offset)
        offset += array.nbytes
        feeds[tensor["name"]] = array.reshape(tensor["shape"]).astype(dtype.newbyteorder("="))
    try:
        outputs = session.run(None, feeds)
    except Exception as error:
        raise Refusal("model-rejected", f"the model opens, but does not run: {error}") from error
    described, data = [], []
    for node, output in zip(session.get_outputs(), outputs):  # noqa: B905  Python 3.9 has no strict
        array = np.ascontiguousarray(output, dtype=output.dtype.newbyteorder("<"))
        described.append({"name": node.name, "dtype": array.dtype.str, "shape": list(array.shape)})
        data.append(array.tobytes())
    return {"outputs": described}, b"".join(data)


# -------------------------------------------------------------------------------- probe, conditions, device key


def probe(request: Header, _models: dict[str, str], _payload: bytes) -> Answer:
    """Time a fixed matrix product for ``seconds``: raw samples of about 1 ms each, wall time in ns, and conditions."""
    import numpy as np

    matrix = np.ones((64, 64), np.float32)
    run = matrix.dot
    clock = time.perf_counter_ns
    gc.disable()
    (fastest,) = _warm_up((lambda: run(matrix),), {"warmup_runs": 10, "warmup_s": 0.1})
    repeat = int(1e6 / fastest) + 1
    samples: list[int] = []
    before = observe(None)
    end = clock() + request["seconds"] * 1e9
    while clock() < end or len(samples) < 20:
        start = clock()
        for _ in range(repeat):
            run(matrix)
        samples.append(clock() - start)
    return {"wall_ns": samples, "conditions": compare(before, observe(None))}, b""


def observe(core: int | None) -> Header:
    """What may disturb a measurement, as counters and readings; entries that cannot be read are left out."""
    seen: Header = {"wall_s": time.perf_counter(), "cpu_s": time.process_time(), "date_s": time.time()}
    with contextlib.suppress(Exception):
        import resource

        seen["involuntary_switches"] = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
    with contextlib.suppress(Exception):
        wanted = "cpu" if core is None else f"cpu{core}"
        for line in read("/proc/stat").splitlines():
            fields = line.split()
            if fields[0] == wanted:
                seen["steal_s"] = int(fields[8]) / os.sysconf("SC_CLK_TCK")
    index = core or 0
    with contextlib.suppress(Exception):
        seen["frequency_mhz"] = int(read(f"/sys/devices/system/cpu/cpu{index}/cpufreq/scaling_cur_freq")) / 1000
    with contextlib.suppress(Exception):
        seen["throttle_count"] = int(read(f"/sys/devices/system/cpu/cpu{index}/thermal_throttle/core_throttle_count"))
    with contextlib.suppress(Exception):
        seen["throttled_flags"] = int(read("/sys/devices/platform/soc/soc:firmware/get_throttled"), 16)
    with contextlib.suppress(Exception):
        zones = [int(read(path)) / 1000 for path in glob.glob("/sys/class/thermal/thermal_zone*/temp")]
        if zones:
            seen["temperature_c"] = max(zones)
    return seen


def compare(before: Header, after: Header) -> Header:
    """The conditions of a measurement: what the counters counted, and both readings of the rest."""
    both = [name for name in before if name in after]
    counters = ("wall_s", "cpu_s", "date_s", "involuntary_switches", "steal_s", "throttle_count")
    result: Header = {name: round(after[name] - before[name], 6) for name in both if name in counters}
    result |= {name: [before[name], after[name]] for name in both if name not in counters}
    with contextlib.suppress(OSError, AttributeError):
        result["load_average"] = os.getloadavg()[0]
    return result


def hello(request: Header, _models: dict[str, str], _payload: bytes) -> Answer:
    """The version of the agent, the device key, and what the device is like just now."""
    ort = import_runtime()
    import numpy

    return {
        "agent": VERSION,
        "device": device_key(ort),
        "state": {
            "python": platform.python_version(),
            "numpy": numpy.__version__,
            "providers": ort.get_available_providers(),
            "cpu_count": os.cpu_count(),
            "free_mib": free_mib(),
            **surroundings(),
            "now": observe(None),
        },
    }, b""


def surroundings() -> Header:
    """Load average, turbo and the disk that models are kept on; entries that cannot be read are left out."""
    seen: Header = {"folder": tempfile.gettempdir()}
    with contextlib.suppress(OSError):
        seen["free_disk_mib"] = shutil.disk_usage(seen["folder"]).free >> 20
    with contextlib.suppress(OSError, AttributeError):
        seen["load_average"] = round(os.getloadavg()[0], 2)
    for file, on in (("cpufreq/boost", "1"), ("intel_pstate/no_turbo", "0")):
        with contextlib.suppress(OSError):
            seen["turbo"] = read(f"/sys/devices/system/cpu/{file}").strip() == on
    return seen


def device_key(ort: Any) -> Header:
    """What a measurement depends on; two profiles can be mixed only where this is the same."""
    allowed = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    model, features = cpu_model()
    key: Header = {
        "machine": platform.machine(),
        "cpu_model": model,
        "cpu_features": features,
        "cores": allowed,
        "memory_mib": memory_mib(),
        "os": f"{platform.system()} {platform.release()}",
        "onnxruntime": ort.__version__,
        "emulated": emulated(),
    }
    if key["emulated"] and COUNTER in os.environ:
        key["counts_instructions"] = True
    base = f"/sys/devices/system/cpu/cpu{allowed[-1]}/cpufreq"
    for name, file in (
        ("governor", "scaling_governor"),
        ("min_khz", "scaling_min_freq"),
        ("max_khz", "scaling_max_freq"),
    ):
        with contextlib.suppress(OSError):
            key[name] = read(f"{base}/{file}").strip()
    return key


def cpu_model() -> tuple[str, list[str]]:
    """Name and instruction-set features of the processor."""
    fields: dict[str, str] = {}
    with contextlib.suppress(OSError):
        for line in read("/proc/cpuinfo").splitlines():
            name, _, value = line.partition(":")
            fields.setdefault(name.strip().lower(), value.strip())
    name = fields.get("model name") or fields.get("hardware") or fields.get("model") or ""
    if not name:
        parts = [fields.get(f"cpu {part}", "") for part in ("implementer", "part", "variant", "revision")]
        name = "ARM " + " ".join(parts) if any(parts) else platform.processor() or platform.machine()
    return name, sorted((fields.get("flags") or fields.get("features") or "").split())


def emulated() -> bool:
    """Whether the processor is emulated: the parent's executable is for another machine than this process sees."""
    arm = ("aarch64", "arm64", "armv8l", "armv7l", "armv6l", "arm")  # a 32-bit program may run under a 64-bit system
    machines = {62: ("x86_64", "amd64"), 183: arm, 40: arm, 243: ("riscv64",)}
    try:
        with open(f"/proc/{os.getppid()}/exe", "rb") as file:
            head = file.read(20)
    except OSError:
        return False
    known = machines.get(int.from_bytes(head[18:20], "little"))
    return head[:4] == b"\x7fELF" and known is not None and platform.machine().lower() not in known


def memory_mib() -> int:
    """Memory of the device in MiB, 0 where it cannot be read."""
    with contextlib.suppress(Exception):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20
    return 0


def free_mib() -> int:
    """Memory that can be had just now in MiB, 0 where it cannot be read."""
    with contextlib.suppress(Exception):
        for line in read("/proc/meminfo").splitlines():
            if line.startswith("MemAvailable"):
                return int(line.split()[1]) >> 10
    return 0


def read(path: str) -> str:
    """The text of a file."""
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


WORK: dict[str, Callable[[Header, dict[str, str], bytes], Answer]] = {
    "hello": hello,
    "measure": measure,
    "peak_memory": peak_memory,
    "run": run_model,
    "probe": probe,
}

if __name__ == "__main__":
    main()
