"""The public names. A change here is a change of the API: it belongs in CHANGELOG.md."""

from __future__ import annotations

import subprocess
import sys

import fn3hw


def test_public_names_are_pinned() -> None:
    classes = ["Atlas", "Client", "CostModel", "Data", "Gate", "Nested", "Point", "Profile", "Recipe", "Run"]
    functions = ["fit_cost", "load_data", "nest", "profile", "search", "train"]
    assert sorted(fn3hw.__all__) == sorted(
        [*classes, "SearchSpace", "Subnet", *functions, "cost", "deploy", "errors", "space"]
    )


def test_public_names_exist() -> None:
    assert [name for name in fn3hw.__all__ if not hasattr(fn3hw, name)] == []


def test_a_client_does_not_wait_for_torch() -> None:
    program = "import sys, fn3hw; fn3hw.Client; print({'torch', 'onnxruntime', 'fn3hw.service'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"
