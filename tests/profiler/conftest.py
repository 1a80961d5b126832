from __future__ import annotations

from collections.abc import Iterator

import pytest

from fn3hw.profiler.device import Session, connect
from fn3hw.profiler.measuring import Effort
from tests.profiler.fake import FakeSupernet


@pytest.fixture(scope="session")
def local() -> Iterator[Session]:
    with connect() as session:
        yield session


@pytest.fixture(scope="session")
def network() -> FakeSupernet:
    return FakeSupernet()


@pytest.fixture(scope="session")
def quick() -> Effort:
    return Effort(
        rounds=2,
        extra_rounds=0,
        retries=0,
        warmup_runs=3,
        warmup_s=0,
        seconds=0,
        min_samples=12,
        max_samples=12,
        kernel_runs=10,
        kernel_s=0,
    )
