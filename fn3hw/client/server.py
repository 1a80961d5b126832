"""What a server has: jobs, what they ended in, devices, and who may use it."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import httpx

from fn3hw.client.connection import Connection
from fn3hw.client.downloading import download
from fn3hw.client.errors import JobCancelled, error_of, foreign
from fn3hw.client.models import (
    AtlasInfo,
    DeviceInfo,
    Job,
    JobFile,
    Me,
    NetworkInfo,
    ProfileInfo,
    RunDetails,
    RunInfo,
    SearchInfo,
    TokenInfo,
    WorkerInfo,
)
from fn3hw.client.watching import OnJob, watch
from fn3hw.errors import InputError, UnknownName

REPEATS = 10**6


class Server:
    """What `Client` is without the verbs: it lists, reads and watches what a server has, and stops jobs.

    Lists are iterators over all pages, the newest first.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        allow_plain: bool = False,
        timeout_s: float = 30.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._connection = Connection(url, token, allow_plain=allow_plain, timeout_s=timeout_s, transport=transport)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._connection.close()

    @property
    def url(self) -> str:
        """Where the server is."""
        return self._connection.url

    # What jobs end in

    def networks(self) -> Iterator[NetworkInfo]:
        """Supernets."""
        return self._connection.pages(NetworkInfo, "/networks")

    def network(self, network: str | NetworkInfo) -> NetworkInfo:
        """One supernet."""
        return self._connection.read(NetworkInfo, "GET", f"/networks/{path_of(network)}")

    def runs(self, *, network: str | NetworkInfo | None = None) -> Iterator[RunInfo]:
        """Trained runs, of one network or of all."""
        return self._connection.pages(RunInfo, "/runs", network=None if network is None else id_of(network))

    def run(self, run: str | RunInfo) -> RunDetails:
        """One run, with its files."""
        return self._connection.read(RunDetails, "GET", f"/runs/{path_of(run)}")

    def profiles(self, *, device: str | DeviceInfo | None = None) -> Iterator[ProfileInfo]:
        """Profiles, of one device or of all."""
        return self._connection.pages(ProfileInfo, "/profiles", device=None if device is None else name_of(device))

    def profile_info(self, profile: str | ProfileInfo) -> ProfileInfo:
        """One profile."""
        return self._connection.read(ProfileInfo, "GET", f"/profiles/{path_of(profile)}")

    def searches(self, *, run: str | RunInfo | None = None) -> Iterator[SearchInfo]:
        """Finished searches, of one run or of all."""
        return self._connection.pages(SearchInfo, "/searches", run=None if run is None else id_of(run))

    def search_info(self, search: str | SearchInfo) -> SearchInfo:
        """One search."""
        return self._connection.read(SearchInfo, "GET", f"/searches/{path_of(search)}")

    def atlas(self, search: str | SearchInfo, *, limit: int | None = None) -> AtlasInfo:
        """The front of a search: at most ``limit`` of its points, spread over it."""
        return self._connection.read(AtlasInfo, "GET", f"/atlases/{path_of(search)}", params={"limit": limit})

    def download(self, sha256: str, path: Path | str) -> Path:
        """Fetch a file by its SHA-256; what arrives is checked, and a download that was cut off is resumed.

        Raises:
            UnknownName: the server has no such file.
            ServerError: what it sends is another file.
            InputError: the file cannot be written.
        """
        return download(self._connection, sha256, Path(path))

    # Jobs

    def jobs(self, *, kind: str | None = None, state: str | None = None, device: str | None = None) -> Iterator[Job]:
        """Jobs, of one kind, state or device, or all."""
        return self._connection.pages(Job, "/jobs", kind=kind, state=state, device=device)

    def job(self, job: str | Job) -> Job:
        """One job, as it is now."""
        return self._connection.read(Job, "GET", f"/jobs/{path_of(job)}")

    def log(self, job: str | Job) -> str:
        """The last lines that a job said."""
        return self._connection.send("GET", f"/jobs/{path_of(job)}/log").text

    def files(self, job: str | Job) -> dict[str, JobFile]:
        """What a job ended in, by name."""
        found = self._connection.json("GET", f"/jobs/{path_of(job)}/files")
        if not isinstance(found, list):
            raise foreign(self.url, "a job has no list of files")
        files = [self._connection.value(JobFile, one) for one in found]
        return {file.name: file for file in files}

    def fetch(self, job: str | Job, name: str, path: Path | str) -> Path:
        """Fetch a file that a job ended in, by its name; see `download`."""
        files = self.files(job)
        if name not in files:
            raise UnknownName("file of this job", name, files)
        return self.download(files[name].sha256, path)

    def watch(self, job: str | Job, progress: OnJob | None = None) -> Job:
        """Follow a job until it is over, however it ends; ``progress`` is called with it whenever it has changed."""
        return watch(self._connection, self.job(job), progress or (lambda job: None))

    def wait(self, job: str | Job, progress: OnJob | None = None) -> Job:
        """Follow a job until it is done.

        Raises:
            Fn3hwError: it failed, as the verb would have in the shell.
            JobCancelled: it was cancelled.
        """
        found = self.watch(job, progress)
        if found.state == "cancelled":
            hint = f"To go on with it: fn3hw job retry {found.id} --server {self.url}"
            raise JobCancelled(f"Job {found.id} was cancelled.", hint=hint)
        if found.error is not None:
            raise error_of(found.error)
        return found

    def cancel(self, job: str | Job) -> Job:
        """Have a job stop, which it does within seconds; what it has done is found again by `retry`."""
        return self._connection.read(Job, "POST", f"/jobs/{path_of(job)}/cancel")

    def retry(self, job: str | Job) -> Job:
        """Ask once more for a job that failed or was cancelled."""
        return self._connection.read(Job, "POST", f"/jobs/{path_of(job)}/retry", again=False)

    # Devices

    def devices(self) -> Iterator[DeviceInfo]:
        """Devices, by descending name."""
        return self._connection.pages(DeviceInfo, "/devices")

    def device(self, device: str | DeviceInfo) -> DeviceInfo:
        """One device."""
        return self._connection.read(DeviceInfo, "GET", f"/devices/{path_of(device)}")

    def add_device(self, name: str, command: str, *, worker: str | None = None) -> DeviceInfo:
        """Add a device, or give a known one another command; needs a token of scope admin.

        Args:
            name: of the device.
            command: reaches a Python with numpy and onnxruntime, such as ``"ssh pi@pi5.local python3 -"``.
            worker: the one worker that it can be reached from; None for any.
        """
        body = {"command": command, "worker": worker}
        return self._connection.read(DeviceInfo, "PUT", f"/devices/{path_of(name)}", body=body)

    def remove_device(self, device: str | DeviceInfo) -> None:
        """Forget a device; its profiles stay."""
        self._connection.send("DELETE", f"/devices/{path_of(device)}", again=False)

    def ask_check(self, device: str | DeviceInfo) -> Job:
        """Have a device checked anew; the job."""
        params = {"repeat": secrets.randbelow(REPEATS)}
        return self._connection.read(Job, "POST", f"/devices/{path_of(device)}/checks", params=params)

    def check_device(self, device: str | DeviceInfo, *, progress: OnJob | None = None) -> DeviceInfo:
        """Have a device checked anew, and wait for it; what was found is its ``health``.

        Raises:
            DeviceError: it cannot be reached or used.
        """
        self.wait(self.ask_check(device), progress)
        return self.device(device)

    def workers(self) -> Iterator[WorkerInfo]:
        """The processes that take jobs."""
        return self._connection.pages(WorkerInfo, "/workers")

    # Access

    def me(self) -> Me:
        """Whom the token of this client belongs to."""
        return self._connection.read(Me, "GET", "/me")

    def tokens(self) -> Iterator[TokenInfo]:
        """All tokens, without their secrets; needs a token of scope admin."""
        return self._connection.pages(TokenInfo, "/tokens")

    def create_token(self, name: str, scope: str = "submit", *, days: float | None = None) -> str:
        """Make a token; it is shown this once."""
        body = {"name": name, "scope": scope, "days": days}
        made = self._connection.json("POST", "/tokens", body=body, again=False)
        if not isinstance(made, dict) or not isinstance(made.get("token"), str):
            raise foreign(self.url, "it made no token")
        return str(made["token"])

    def revoke_token(self, name: str) -> None:
        """End a token for good."""
        self._connection.send("DELETE", f"/tokens/{quote(name, safe='')}")


def id_of(value: Any) -> str:
    """The id of a value, or the id itself."""
    return value if isinstance(value, str) else str(value.id)


def name_of(device: str | DeviceInfo) -> str:
    """The name of a device, or the name itself."""
    return device if isinstance(device, str) else device.name


def path_of(value: Any) -> str:
    """An id or a device's name as a part of a path.

    Raises:
        InputError: it is none, so that it would be another path.
    """
    text = name_of(value) if isinstance(value, DeviceInfo) else id_of(value)
    if not text or text in (".", "..") or "/" in text:
        raise InputError(f"{text!r} is no id or name.", hint="Use letters, digits, dots, dashes and underscores.")
    return quote(text, safe="")
