from __future__ import annotations

import pytest

from fn3hw.cli.runtime import runtime_of
from fn3hw.errors import InputError
from fn3hw.profiler import Runtime


def test_settings_come_from_the_command_line() -> None:
    found = runtime_of(2, ["xnnpack", "CPU"], ["spinning=true", "graph_optimization=enable_basic"])
    providers = ("XnnpackExecutionProvider", "CPUExecutionProvider")
    assert found == Runtime(intra_op_threads=2, spinning=True, graph_optimization="enable_basic", providers=providers)
    assert runtime_of(1, None, None) == Runtime()
    assert Runtime.from_json(found.to_json()) == found


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("spining=true", "spinning"),
        ("spinning", "bool"),
        ("inter_op_threads=many", "int"),
        ("inter_op_threads=0", "at least one thread"),
        ("graph_optimization=all", "enable_all"),
        ("execution_mode=both", "parallel"),
    ],
)
def test_a_setting_that_makes_no_sense(setting: str, says: str) -> None:
    with pytest.raises(InputError) as caught:
        runtime_of(1, None, [setting])
    assert says in caught.value.message + caught.value.hint
