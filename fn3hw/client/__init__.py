"""The client of a server: the verbs of fn3hw on other machines.

`Client` has the verbs (`client`) and what the server has (`server`). Below it are `connection`, which is HTTP with
tries again and errors as ours, `watching`, which follows a job, `downloading` and `packing`, which move files, and
`models`, which are the values that a server tells. Nothing here needs torch, ONNX Runtime or the server's own code.
"""

from fn3hw.client.client import Client
from fn3hw.client.errors import JobCancelled, Unreachable
from fn3hw.client.models import (
    AtlasInfo,
    DeviceInfo,
    ExportedFile,
    FoundPoint,
    Job,
    JobFile,
    Me,
    NetworkInfo,
    PointInfo,
    ProfileInfo,
    Progress,
    RunDetails,
    RunInfo,
    SearchInfo,
    TokenInfo,
    WorkerInfo,
)

__all__ = [
    "AtlasInfo",
    "Client",
    "DeviceInfo",
    "ExportedFile",
    "FoundPoint",
    "Job",
    "JobCancelled",
    "JobFile",
    "Me",
    "NetworkInfo",
    "PointInfo",
    "ProfileInfo",
    "Progress",
    "RunDetails",
    "RunInfo",
    "SearchInfo",
    "TokenInfo",
    "Unreachable",
    "WorkerInfo",
]
