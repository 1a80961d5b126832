from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto

from fn3hw.deploy import Supernet, activation_ranges, export, recalibrate
from fn3hw.deploy.runtime import open_session
from fn3hw.deploy.supernet import Parameter
from fn3hw.errors import InputError, RunError
from fn3hw.space import Gate, SearchSpace, Subnet, nest
from tests.networks import (
    IMAGE,
    Zoo,
    images,
    quantized,
    randomise,
    resnext,
    resnext_supernet,
    subnets,
    zoo,
    zoo_supernet,
)


@settings(deadline=None, max_examples=40)
@given(st.data(), st.booleans())
def test_masked_forward_equals_the_sliced_file(data: st.DataObject, beta: bool) -> None:
    net, supernet, x = zoo(beta), zoo_supernet(beta), images()
    subnet = data.draw(subnets(net.space))
    with torch.no_grad(), net.active(subnet, sliced=False):
        masked = net(torch.from_numpy(x)).numpy()
    (output,) = open_session(supernet.slice(subnet)).run(None, {"input": x})
    assert np.abs(output - masked).max() <= 1e-4 * np.abs(masked).max()


@settings(deadline=None, max_examples=30)
@given(st.data(), st.booleans(), st.sampled_from((2, 4, 16)))
def test_padding_changes_widths_and_not_the_output(data: st.DataObject, beta: bool, pad: int) -> None:
    supernet, x = zoo_supernet(beta), images()
    subnet = data.draw(subnets(supernet.space))
    statistics = recalibrate(supernet, subnet, images(64))
    plain, padded = supernet.slice(subnet, statistics), supernet.slice(subnet, statistics, pad=pad)
    expected, output = (open_session(model).run(None, {"input": x})[0] for model in (plain, padded))
    assert np.abs(output - expected).max() <= 1e-4 * np.abs(expected).max()
    _assert_padded(padded, supernet.space, pad)


@settings(deadline=None, max_examples=20)
@given(st.data(), st.sampled_from((4, 16)))
def test_padding_rounded_weights_does_not_change_the_output(data: st.DataObject, pad: int) -> None:
    (_, supernet), x = quantized(), images()
    subnet = data.draw(subnets(supernet.space))
    plain, padded = (supernet.slice(subnet, packed=False, pad=width) for width in (1, pad))
    expected, output = (open_session(model).run(None, {"input": x})[0] for model in (plain, padded))
    assert np.abs(output - expected).max() <= 1e-4 * np.abs(expected).max()
    _assert_padded(padded, supernet.space, pad)


def _assert_padded(model: onnx.ModelProto, space: SearchSpace, pad: int) -> None:
    widths = {tensor.name: tensor.dims[0] for tensor in model.graph.initializer}
    channels = [(gate, widths.get(f"{gate.name}.weight")) for gate in space if gate.level == "channel"]
    assert all(width is None or width % pad == 0 or width == gate.size for gate, width in channels)


def test_architecture_depends_on_shapes_and_space_but_not_on_weights() -> None:
    example, levels = torch.zeros(2, *IMAGE), ("channel", "neuron", "layer")
    one = export(nest(randomise(Zoo(), seed=1), example, levels))
    other = export(nest(randomise(Zoo(), seed=2), example, levels))
    narrower = export(nest(randomise(Zoo(), seed=1), example, levels, keep={"channel": 0.5}))
    assert one.architecture == other.architecture and one.digest != other.digest
    assert one.architecture != narrower.architecture


@settings(deadline=None, max_examples=25)
@given(st.data())
def test_masked_paths_equal_the_sliced_file(data: st.DataObject) -> None:
    net, supernet, x = resnext(), resnext_supernet(), images()
    subnet = data.draw(subnets(net.space))
    with torch.no_grad(), net.active(subnet, sliced=False):
        masked = net(torch.from_numpy(x)).numpy()
    model = supernet.slice(subnet)
    (output,) = open_session(model).run(None, {"input": x})
    assert np.abs(output - masked).max() <= 1e-4 * np.abs(masked).max()
    weights = {t.name: t for t in model.graph.initializer}
    for gate, count in subnet.counts.items():
        grouped = gate.replace("reduce", "paths") + ".weight"
        assert supernet.space[gate].level == "layer" or grouped not in weights or weights[grouped].dims[0] % count == 0


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_masked_quantized_forward_equals_the_file_of_integers(data: st.DataObject) -> None:
    (net, supernet), x = quantized(), images()
    subnet = data.draw(subnets(net.space))
    with torch.no_grad(), net.active(subnet, sliced=False):
        masked = net(torch.from_numpy(x)).numpy()
    model = supernet.slice(subnet)
    (output,) = open_session(model).run(None, {"input": x})
    assert np.abs(output - masked).max() <= 1e-4 * max(np.abs(masked).max(), 1e-3)
    kinds = {t.name: t.data_type for t in model.graph.initializer}
    for gate in (gate for gate in supernet.space if gate.level == "bit"):
        blocks = subnet.blocks(gate.name)
        for name, quantizer in supernet.quantizers.items():
            if quantizer.gate == gate.name and quantizer.is_float(blocks):
                assert kinds.get(name, TensorProto.FLOAT) == TensorProto.FLOAT
            elif quantizer.gate == gate.name:
                packed = (TensorProto.INT2, TensorProto.INT4, TensorProto.UINT4)
                assert name not in kinds and kinds.get(f"{name}/packed", TensorProto.INT4) in packed


def test_fewer_bits_make_a_smaller_file() -> None:
    _, supernet = quantized()
    bits = [gate.name for gate in supernet.space if gate.level == "bit"]
    sizes = [supernet.slice(supernet.space.from_counts(dict.fromkeys(bits, count))).ByteSize() for count in (1, 4, 5)]
    assert sizes == sorted(sizes) and len(set(sizes)) == 3


@pytest.mark.parametrize("seed", range(4))
def test_integer_kernels_agree_with_integer_weights(seed: int, tmp_path: Path) -> None:
    _, supernet = quantized()
    counts = {g.name: np.random.default_rng(seed).integers(1, 5) for g in supernet.space if g.level == "bit"}
    subnet, x = supernet.space.from_counts(counts), images(64)
    floating = supernet.slice(subnet)
    model = supernet.slice(subnet, ranges=activation_ranges(floating, x))
    onnx.checker.check_model(model, full_check=True)
    expected, found = (open_session(one).run(None, {"input": x})[0] for one in (floating, model))
    assert np.abs(found - expected).max() <= 0.1 * np.abs(expected).max()
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    kernels = [node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node]
    assert "Conv" not in kernels and kernels.count("QLinearConv") == 12 and "BatchNormalization" not in kernels
    assert "Gemm" not in kernels and kernels.count("QGemm") == 2
    assert model.ByteSize() < floating.ByteSize() + 20_000


def test_ranges_of_another_subnet_are_refused() -> None:
    _, supernet = quantized()
    bits = dict.fromkeys((g.name for g in supernet.space if g.level == "bit"), 2)
    smaller = supernet.space.from_counts({**bits, "a..b": 0})
    ranges = activation_ranges(supernet.slice(smaller), images())
    with pytest.raises(InputError, match="another subnet"):
        supernet.slice(supernet.space.from_counts(bits), ranges=ranges)
    with pytest.raises(InputError, match="calibration images have shape"):
        activation_ranges(supernet.slice(smaller), np.zeros((4, 1, 5, 5), np.float32))


@settings(deadline=None, max_examples=20)
@given(st.data())
def test_integers_and_the_numbers_that_they_stand_for_are_one_network(data: st.DataObject) -> None:
    _, supernet = quantized()
    subnet, x = data.draw(subnets(supernet.space)), images(16)
    packed, plain = supernet.slice(subnet), supernet.slice(subnet, packed=False)
    expected, found = (open_session(model).run(None, {"input": x})[0] for model in (packed, plain))
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()
    assert {node.op_type for node in plain.graph.node}.isdisjoint({"DequantizeLinear", "Gather"})
    ranges, again = (
        activation_ranges(model, x, integers=integers)
        for model, integers in ((packed, None), (plain, supernet.integer_weights(subnet)))
    )
    assert ranges.keys() == again.keys()
    assert all(again[name] == pytest.approx(ends, rel=1e-4, abs=1e-5) for name, ends in ranges.items())


@settings(deadline=None, max_examples=20)
@given(st.data())
def test_the_bytes_of_a_subnet_follow_from_its_counts(data: st.DataObject) -> None:
    supernet = data.draw(st.sampled_from((zoo_supernet(), resnext_supernet(), quantized()[1])))
    subnet = supernet.space.random(np.random.default_rng(data.draw(st.integers(0, 2**32 - 1))), prefix=True)
    kept = {name: set(subnet.blocks(name)) for name in subnet.counts}
    expected = sum(
        -(-p.fixed_bytes * int(np.prod([subnet.counts[g] for g in p.gates])) * bits_of(p, subnet) // 32)
        for p in supernet.parameters()
        if all(block in kept[gate] for gate, block in p.branches)
    )
    model = supernet.slice(subnet)
    weights = [t for t in model.graph.initializer if not t.name.endswith(("/scale", "/zero", "/levels"))]
    assert sum(len(t.raw_data) for t in weights) == expected


def bits_of(parameter: Parameter, subnet: Subnet) -> int:
    if parameter.precision is None:
        return 32
    gate, bits = parameter.precision
    return bits[subnet.counts[gate] - 1]


def test_a_sliced_file_is_really_smaller_and_has_no_gates() -> None:
    supernet = zoo_supernet()
    full, smallest = (supernet.slice(s) for s in (supernet.space.full(), supernet.space.smallest()))
    onnx.checker.check_model(smallest, full_check=True)
    assert smallest.ByteSize() < 0.5 * full.ByteSize()
    assert len(smallest.graph.node) < len(full.graph.node)
    assert not any("gate/" in name for m in (full, smallest) for node in m.graph.node for name in node.input)


def test_what_a_removed_branch_leaves_behind_is_one_activation() -> None:
    supernet = resnext_supernet()
    none = {gate.name: 0 for gate in supernet.space if gate.level == "layer" and not gate.min_kept}
    removed = supernet.slice(supernet.space.from_counts(none))
    activations = {node.output[0] for node in removed.graph.node if node.op_type == "Relu"}
    assert activations
    assert not [node.name for node in removed.graph.node if node.op_type == "Relu" and node.input[0] in activations]


@pytest.mark.parametrize("supernet", [lambda: zoo_supernet(True), lambda: quantized()[1]], ids=["fp32", "quantized"])
def test_slices_taken_by_several_threads_are_those_of_one(supernet: Callable[[], Supernet]) -> None:
    net, rng = supernet(), np.random.default_rng(0)
    drawn = [net.space.random(rng) for _ in range(4)] * 2
    expected = [net.deployed(subnet) for subnet in drawn]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(net.deployed, drawn)) == expected
    finally:
        sys.setswitchinterval(before)


def test_node_names_are_those_of_the_supernet_and_of_the_users_modules() -> None:
    supernet = zoo_supernet()
    names = {node.name for node in supernet.slice(supernet.space.smallest()).graph.node}
    assert names <= supernet.units().keys()
    assert {"stem.0", "down.0", "hidden", "classifier"} <= names


def test_units_name_what_decides_a_node() -> None:
    units = zoo_supernet().units()
    assert set(units["a.0"]) == {"a.0", "a..b[0]"}
    assert set(units["b.6"]) == {"b.0", "a..b[1]"}
    assert units["stem.0"] == ()
    assert set(units["hidden"]) == {"down.0", "hidden"}


def test_a_supernet_reads_back(tmp_path: Path) -> None:
    supernet = zoo_supernet()
    supernet.save(tmp_path)
    again = Supernet.load(tmp_path)
    assert again.digest == supernet.digest and again.space == supernet.space
    assert again.input_shape == (1, 12, 12) and again.n_classes == 5


def test_channels_last_weights_export_like_others() -> None:
    net = nest(randomise(Zoo()), torch.zeros(2, 1, 12, 12), ("channel", "neuron", "layer"))
    before = export(net).slice(net.space.smallest())
    after = export(net.to(memory_format=torch.channels_last)).slice(net.space.smallest())
    x = images()
    one, two = (open_session(model).run(None, {"input": x})[0] for model in (before, after))
    assert np.abs(one - two).max() <= 1e-5 * np.abs(one).max()


def test_damaged_run_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="does not exist"):
        Supernet.load(tmp_path)
    zoo_supernet().save(tmp_path)
    original = (tmp_path / "supernet.onnx").read_bytes()
    (tmp_path / "supernet.onnx").write_bytes(original[:-100])
    with pytest.raises(RunError, match="half written or edited"):
        Supernet.load(tmp_path)
    (tmp_path / "supernet.onnx").write_bytes(original)
    space = (tmp_path / "space.json").read_text()
    (tmp_path / "space.json").write_text(space[:40])
    with pytest.raises(RunError, match="damaged"):
        Supernet.load(tmp_path)
    (tmp_path / "space.json").write_text(space.replace('"format": 1', '"format": 99'))
    with pytest.raises(RunError, match="format 99"):
        Supernet.load(tmp_path)


def test_a_space_that_does_not_fit_is_refused() -> None:
    with pytest.raises(InputError, match="different gates"):
        Supernet(zoo_supernet().model, SearchSpace([Gate("other", "channel", 4)]))


@pytest.mark.parametrize(("field", "value", "said"), [("size", 10007, "entries"), ("min_kept", 0, "all of its blocks")])
def test_gates_that_do_not_fit_the_graph_are_refused(field: str, value: int, said: str) -> None:
    supernet = zoo_supernet()
    for gate in supernet.space:
        space = [{**one, field: value} if one["name"] == gate.name else one for one in supernet.space.to_json()]
        if field == "min_kept" and gate.level == "layer":
            Supernet(supernet.model, SearchSpace.from_json(space))
            continue
        with pytest.raises(InputError, match=said):
            Supernet(supernet.model, SearchSpace.from_json(space))


def test_a_file_that_is_no_network_is_refused(tmp_path: Path) -> None:
    zoo_supernet().save(tmp_path)
    document = json.loads((tmp_path / "space.json").read_text())
    (tmp_path / "supernet.onnx").write_bytes(b"no network")
    document["onnx_sha256"] = hashlib.sha256(b"no network").hexdigest()
    (tmp_path / "space.json").write_text(json.dumps(document))
    with pytest.raises(RunError, match="no ONNX file"):
        Supernet.load(tmp_path)


def test_statistics_of_wrong_widths_are_refused() -> None:
    supernet = zoo_supernet()
    wrong = {"stem.1": (np.zeros(3, np.float32), np.ones(3, np.float32))}
    with pytest.raises(InputError, match=r"shape \(3,\), the subnet needs \(6,\)"):
        supernet.slice(supernet.space.full(), wrong)
