"""The verbs of fn3hw on a server."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Unpack, overload

from fn3hw.client.connection import Value
from fn3hw.client.errors import foreign
from fn3hw.client.models import DeviceInfo, ExportedFile, FoundPoint, Job, NetworkInfo, ProfileInfo, RunInfo, SearchInfo
from fn3hw.client.options import Budgets, CompareOptions, ExportOptions, ProfileOptions, SearchOptions
from fn3hw.client.packing import OnBytes, Packed
from fn3hw.client.server import Server, id_of, name_of, path_of
from fn3hw.client.watching import OnJob
from fn3hw.errors import InputError, UnknownName

Made = TypeVar("Made")


class Client(Server):
    """A server of fn3hw.

    What a server makes is named by its id, or by the value that tells of it. Verbs that take a while are jobs of the
    server: they are waited for, or with ``wait=False`` the job is returned at once. A verb that was asked for before is
    found again, and goes on where it stopped if it failed or was cancelled.

    Args:
        url: where the server is.
        token: who asks; by default ``$FN3HW_TOKEN``.
        allow_plain: send the token over unencrypted HTTP to another machine, too.
        timeout_s: the longest silence of the server.
        transport: of httpx, instead of the network.

    Raises:
        InputError: the address or the token is none.
        ServerError: the token would be sent in plain text. All methods raise it too, where the server cannot be used.
    """

    def push(self, folder: Path | str, name: str | None = None, *, sent: OnBytes = lambda done, total: None) -> RunInfo:
        """Give the server a trained run; one that it has is found, and not sent again.

        Args:
            folder: of the run.
            name: what it is called; by default as its folder. One that the server has keeps its name.
            sent: called with the bytes so far and all of them.

        Raises:
            RunError: it is none, or not trained to its end.
        """
        packed, name = Packed.run(folder), name or Path(folder).resolve().name
        digests = packed.digests()
        network = self._known_network(digests)
        for run in self.runs(network=network) if network is not None else ():
            if digests.items() <= self.run(run.id).files.items():
                return run
        return self._sent(RunInfo, "/runs", packed, name, sent)

    def push_network(
        self, folder: Path | str, name: str | None = None, *, sent: OnBytes = lambda done, total: None
    ) -> NetworkInfo:
        """Give the server a network that was exported without a run, by ``fn3hw.deploy.export(net).save(folder)``.

        One that it has is found, and not sent again. It can be profiled. To search it, push a run: a search needs the
        data that its recipe names.

        Args:
            folder: of the network.
            name: what it is called; by default as its folder. A network that the server has keeps its name.
            sent: called with the bytes so far and all of them.

        Raises:
            RunError: it is none.
        """
        packed = Packed.network(folder)
        known = self._known_network(packed.digests())
        return known or self._sent(NetworkInfo, "/networks", packed, name or Path(folder).resolve().name, sent)

    def push_profile(self, path: Path | str, device: str) -> ProfileInfo:
        """Give the server a profile file that was measured elsewhere, on a device of that name."""
        try:
            text = Path(path).read_bytes()
        except OSError as error:
            raise InputError(f"Cannot read {path}: {error.strerror}.") from error
        headers = {"Content-Type": "application/json"}
        request = {"params": {"device": device}, "content": lambda: text, "headers": headers}
        return self._connection.read(ProfileInfo, "PUT", "/profiles", **request)

    @overload
    def train(
        self,
        recipe: str,
        settings: Mapping[str, Any] | None = None,
        *,
        name: str = "",
        repeat: int = 0,
        wait: Literal[True] = True,
        progress: OnJob | None = None,
    ) -> RunInfo: ...
    @overload
    def train(
        self,
        recipe: str,
        settings: Mapping[str, Any] | None = None,
        *,
        name: str = "",
        repeat: int = 0,
        wait: Literal[False],
    ) -> Job: ...
    def train(
        self,
        recipe: str,
        settings: Mapping[str, Any] | None = None,
        *,
        name: str = "",
        repeat: int = 0,
        wait: bool = True,
        progress: OnJob | None = None,
    ) -> RunInfo | Job:
        """Train a network by a packaged recipe.

        Args:
            recipe: its name.
            settings: fields that differ from it, as ``{"epochs": 5, "network": {"levels": ["channel"]}}``.
            name: of the run; by default that of the recipe.
            repeat: another number trains the same once more.
            wait: for the run.
            progress: called with the job whenever it has changed.
        """
        body = {"recipe": recipe, "settings": dict(settings or {}), "name": name, "repeat": repeat}
        return self._done(self._ask("/trainings", body), self._trained, wait, progress)

    @overload
    def profile(
        self,
        run: str | RunInfo | NetworkInfo,
        device: str | DeviceInfo = "local",
        *,
        wait: Literal[True] = True,
        progress: OnJob | None = None,
        **options: Unpack[ProfileOptions],
    ) -> ProfileInfo: ...
    @overload
    def profile(
        self,
        run: str | RunInfo | NetworkInfo,
        device: str | DeviceInfo = "local",
        *,
        wait: Literal[False],
        **options: Unpack[ProfileOptions],
    ) -> Job: ...
    def profile(
        self,
        run: str | RunInfo | NetworkInfo,
        device: str | DeviceInfo = "local",
        *,
        wait: bool = True,
        progress: OnJob | None = None,
        **options: Unpack[ProfileOptions],
    ) -> ProfileInfo | Job:
        """Measure subnets of a run, or of a network without one, on a device of the server.

        Raises:
            NoisyMeasurement: it is too noisy to trust; the profile is kept all the same.
            DeviceError: the device cannot be reached or used.
        """
        what = "network" if id_of(run).startswith("network-") else "run"
        job = self._ask("/profiles", {what: id_of(run), "device": name_of(device), **options})
        return self._done(job, self.profile_of, wait, progress)

    @overload
    def search(
        self,
        run: str | RunInfo,
        profile: str | ProfileInfo,
        *,
        wait: Literal[True] = True,
        progress: OnJob | None = None,
        **options: Unpack[SearchOptions],
    ) -> SearchInfo: ...
    @overload
    def search(
        self,
        run: str | RunInfo,
        profile: str | ProfileInfo,
        *,
        wait: Literal[False],
        **options: Unpack[SearchOptions],
    ) -> Job: ...
    def search(
        self,
        run: str | RunInfo,
        profile: str | ProfileInfo,
        *,
        wait: bool = True,
        progress: OnJob | None = None,
        **options: Unpack[SearchOptions],
    ) -> SearchInfo | Job:
        """Search under measured cost, once for all budgets."""
        job = self._ask("/searches", {"run": id_of(run), "profile": id_of(profile), **options})
        return self._done(job, lambda job: self.search_info(job.id), wait, progress)

    def lookup(self, search: str | SearchInfo, **budgets: Unpack[Budgets]) -> FoundPoint:
        """The most accurate subnet that meets all budgets. Needs no measurement and no evaluation.

        Raises:
            InfeasibleBudget: none does; it says which limit binds, and what can be reached.
        """
        return self._connection.read(FoundPoint, "GET", f"/atlases/{path_of(search)}/lookup", params=budgets)

    @overload
    def export(
        self,
        search: str | SearchInfo,
        output: Path | str,
        *,
        wait: Literal[True] = True,
        progress: OnJob | None = None,
        **options: Unpack[ExportOptions],
    ) -> ExportedFile: ...
    @overload
    def export(
        self,
        search: str | SearchInfo,
        output: Path | str | None = None,
        *,
        wait: Literal[False],
        **options: Unpack[ExportOptions],
    ) -> Job: ...
    def export(
        self,
        search: str | SearchInfo,
        output: Path | str | None = None,
        *,
        wait: bool = True,
        progress: OnJob | None = None,
        **options: Unpack[ExportOptions],
    ) -> ExportedFile | Job:
        """Write the ONNX file for a budget, measure it on a device of the server, and fetch it to ``output``.

        Raises:
            InfeasibleBudget: no subnet meets it, or no file was measured to.
        """

        def made(job: Job) -> ExportedFile:
            if output is None:
                raise InputError("Where should the file be written?", hint='Give output="model.onnx".')
            path = self.fetch(job, "model.onnx", output)
            try:
                return ExportedFile.model_validate({**(job.result or {}), "path": path})
            except ValueError:
                raise foreign(self.url, "an export has another document") from None

        return self._done(self._ask("/exports", {"search": id_of(search), **options}), made, wait, progress)

    @overload
    def compare(
        self,
        run: str | RunInfo,
        profile: str | ProfileInfo,
        *,
        wait: Literal[True] = True,
        progress: OnJob | None = None,
        **options: Unpack[CompareOptions],
    ) -> dict[str, Any]: ...
    @overload
    def compare(
        self,
        run: str | RunInfo,
        profile: str | ProfileInfo,
        *,
        wait: Literal[False],
        **options: Unpack[CompareOptions],
    ) -> Job: ...
    def compare(
        self,
        run: str | RunInfo,
        profile: str | ProfileInfo,
        *,
        wait: bool = True,
        progress: OnJob | None = None,
        **options: Unpack[CompareOptions],
    ) -> dict[str, Any] | Job:
        """Compare ways to search; the document of the verb. The report is among the files of the job."""
        job = self._ask("/comparisons", {"run": id_of(run), "profile": id_of(profile), **options})
        return self._done(job, lambda job: dict(job.result or {}), wait, progress)

    def profile_of(self, job: Job) -> ProfileInfo:
        """The profile that a job made, though it failed because it is noisy.

        Raises:
            UnknownName: it made none.
        """
        if job.made is None:
            raise UnknownName("profile", f"that of {job.id}", ())
        return self.profile_info(job.made)

    def _trained(self, job: Job) -> RunInfo:
        if job.made is None:
            raise foreign(self.url, "a training has no run")
        return self.run(job.made)

    def _known_network(self, digests: Mapping[str, str]) -> NetworkInfo | None:
        """The network of the server whose files are among these."""
        for network in self.networks():
            if {"supernet.onnx": network.onnx_sha256, "space.json": network.space_sha256}.items() <= digests.items():
                return network
        return None

    def _sent(self, kind: type[Value], path: str, packed: Packed, name: str, sent: OnBytes) -> Value:
        return self._connection.read(
            kind,
            "POST",
            path,
            params={"name": name},
            content=lambda: packed.chunks(sent),
            headers={"Content-Type": "application/x-tar", "Content-Length": str(packed.size)},
        )

    def _ask(self, path: str, body: Mapping[str, Any]) -> Job:
        """Ask for a job: however often the request has to be sent, it is one job."""
        job = self._connection.read(Job, "POST", path, body=body, headers={"Idempotency-Key": uuid.uuid4().hex})
        if job.state not in ("failed", "cancelled"):
            return job
        try:
            return self.retry(job)
        except InputError:  # somebody else has just done so
            return self.job(job)

    def _done(self, job: Job, made: Callable[[Job], Made], wait: bool, progress: OnJob | None) -> Made | Job:
        return made(self.wait(job, progress)) if wait else job
