from __future__ import annotations

import re
from pathlib import Path

import pytest

import fn3hw.baselines.methods as methods
from fn3hw.baselines.methods import find_method, method_names

from .methods.toy import play

README = Path(methods.__file__).parent.parent / "README.md"


def test_the_method_of_the_readme_plays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (source,) = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    (tmp_path / "my_method.py").write_text(source)
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(tmp_path)])
    assert "my-method" in method_names()
    assert find_method("my-method").__name__ == "MyMethod"
    assert play("my-method", 200).regret < play("random", 200).regret
