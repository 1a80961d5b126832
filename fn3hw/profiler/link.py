"""The one transport: a command whose standard input and output carry the agent's frames."""

from __future__ import annotations

import os
import select
import shlex
import subprocess
import sys
import threading
import time
from collections import deque
from pathlib import Path

from fn3hw.errors import DeviceError
from fn3hw.profiler import agent
from fn3hw.profiler.agent import FrameError, Header
from fn3hw.profiler.devices import LOCAL, command_of, parse

AGENT = Path(agent.__file__)
GREETING_BYTES = 64 << 10
"""How much a login may print before the first frame: banners and messages of the day are passed over."""

_SHELLS = {"ssh", "autossh", "rsh", "dbclient"}
_BOOTSTRAP = "import sys;f=sys.stdin.buffer;exec(compile(f.read(int(f.readline())),'fn3hw-agent','exec'))"


def resolve(device: str) -> tuple[list[str], bytes]:
    """The arguments of the command for ``device`` and the bytes it has to be sent first.

    A name stands for its command (`fn3hw.profiler.devices`). ``"local"`` is this interpreter. A command that ends in
    ``-``, as in ``ssh pi@board python3 -``, is an interpreter that reads its program from standard input; since Python
    would read that to its end, it is started with a small program that reads just the agent's source. ssh hands its
    arguments to a shell, so there that program is quoted once more. Any other command has to speak the agent's frames
    by itself.

    Raises:
        InputError: the command is empty, its quotes do not match, or a name is not known.
    """
    command = command_of(device)
    if command == LOCAL:
        return [sys.executable, "-u", str(AGENT)], b""
    words = parse(command)
    if words[-1] != "-":
        return words, b""
    through_shell = any(os.path.basename(word) in _SHELLS for word in words)
    program = shlex.quote(_BOOTSTRAP) if through_shell else _BOOTSTRAP
    source = AGENT.read_bytes()
    return [*words[:-1], "-u", "-c", program], b"%d\n" % len(source) + source


class LinkLost(DeviceError):
    """The command ended, fell silent or sent what is no frame: starting it again may help."""


class Link:
    """A running command and the frames that go to and from it.

    Args:
        device: as for `resolve`.
    """

    def __init__(self, device: str) -> None:
        self.device = device
        arguments, first = resolve(device)
        try:
            self._process = subprocess.Popen(
                arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
            )
        except FileNotFoundError as error:
            raise self._error(f"command not found: {arguments[0]}", hint="Check the spelling and the PATH.") from error
        except OSError as error:
            raise self._error(f"cannot start {arguments[0]}: {error.strerror}") from error
        assert self._process.stdin and self._process.stdout
        self._to, self._from = self._process.stdin.fileno(), self._process.stdout.fileno()
        os.set_blocking(self._to, False)
        self._first = first
        self._stderr: deque[bytes] = deque(maxlen=64)
        self._drain = threading.Thread(target=self._collect_stderr, daemon=True)
        self._drain.start()
        self._buffer = bytearray()
        self._greeted = False

    def send(self, header: Header, payload: bytes = b"", *, silence_s: float) -> None:
        """Send one frame.

        Raises:
            LinkLost: the command ended, or took nothing for ``silence_s`` seconds.
        """
        data = memoryview(self._first + agent.pack_frame(header, payload))
        self._first = b""
        while data:
            if not select.select([], [self._to], [], silence_s)[1]:
                raise self._lost(f"nothing was read for {silence_s:g} s: it hangs", hint=_HANGS)
            try:
                data = data[os.write(self._to, data) :]
            except BlockingIOError:
                continue
            except BrokenPipeError:
                if self._greeted:
                    raise self._ended() from None
                return  # what it printed before it ended says more: `receive` reports it

    def receive(self, *, silence_s: float) -> tuple[Header, bytes]:
        """Receive one frame.

        Raises:
            LinkLost: the command ended, printed something else, corrupts data, or was silent for ``silence_s`` seconds.
            DeviceError: it speaks another version.
        """
        if not self._greeted:
            self._pass_over_greeting(silence_s)
        try:
            frame = agent.read_frame(lambda size: self._read(size, silence_s))
        except FrameError as error:
            if error.reason == "end":
                raise self._ended() from error
            hint = {
                "garbage": "The command must leave standard output to the agent.",
                "version": "Run the same version of fn3hw on both sides, or let it send the agent: python3 -",
            }.get(error.reason, "")
            raised = self._error if error.reason == "version" else self._lost
            raise raised(str(error), hint=hint) from error
        self._greeted = True
        return frame

    def close(self, *, patience_s: float = 3.0) -> None:
        """End the command: its standard input is closed, and it is killed if it does not end by itself in time."""
        if self._process.stdin:
            self._process.stdin.close()
        try:
            self._process.wait(timeout=patience_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._drain.join(timeout=1)
        for stream in (self._process.stdout, self._process.stderr):
            if stream:
                stream.close()

    def _read(self, size: int, silence_s: float) -> bytes:
        while len(self._buffer) < size:
            if not self._fill(silence_s):
                break
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    def _fill(self, silence_s: float) -> bool:
        """Read what there is into the buffer; false at the end of the stream."""
        if not select.select([self._from], [], [], silence_s)[0]:
            seen = f" after {bytes(self._buffer[:80])!r}" if self._buffer and not self._greeted else ""
            raise self._lost(f"no answer for {silence_s:g} s{seen}: it hangs", hint=_HANGS)
        chunk = os.read(self._from, 1 << 20)
        self._buffer += chunk
        return bool(chunk)

    def _pass_over_greeting(self, silence_s: float) -> None:
        end = time.monotonic() + silence_s
        while (start := self._buffer.find(agent.MAGIC)) < 0:
            more = self._fill(max(0.0, end - time.monotonic()))
            if not more and not self._buffer:
                raise self._ended()
            if not more or len(self._buffer) > GREETING_BYTES:
                raise self._lost(
                    f"it prints something else than the agent's frames: {bytes(self._buffer[:80])!r}{self._tail()}",
                    hint='The command must start a Python that reads from standard input, such as "python3 -".',
                )
        del self._buffer[:start]

    def _ended(self) -> LinkLost:
        try:
            status = self._process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            return self._lost(f"it closed its output without ending{self._tail()}")
        self._drain.join(timeout=1)
        ends = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
        hint = {
            126: "The interpreter named in the command cannot be executed on the device.",
            127: "The interpreter named in the command does not exist on the device.",
            255: "ssh could not connect: try the same command by hand.",
        }.get(status, "Run the command by hand to see what it does.")
        return self._lost(f"the command {ends}{self._tail()}", hint=hint)

    def _tail(self) -> str:
        text = b"".join(self._stderr).decode(errors="replace").strip()
        return f"; its last words: {text[-600:]}" if text else ""

    def _error(self, what: str, *, hint: str = "") -> DeviceError:
        return DeviceError(f"Device {self.device!r}: {what}.", hint=hint)

    def _lost(self, what: str, *, hint: str = "") -> LinkLost:
        return LinkLost(f"Device {self.device!r}: {what}.", hint=hint)

    def _collect_stderr(self) -> None:
        assert self._process.stderr
        while chunk := self._process.stderr.read(1024):
            self._stderr.append(chunk)


_HANGS = "Run the command by hand; if the device is only slow, allow more time."
