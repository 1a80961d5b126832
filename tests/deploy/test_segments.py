from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fn3hw.deploy import Supernet
from fn3hw.deploy.runtime import open_session
from fn3hw.deploy.segments import Segment, cuts, even_cuts, segments
from fn3hw.space.subnet import Subnet
from tests.networks import images, resnext_supernet, subnets, zoo_supernet

CUTS = 3


def chain_of(supernet: Supernet, subnet: Subnet) -> list[Segment]:
    at = even_cuts(supernet.slice(supernet.space.full()), CUTS)
    return segments(supernet.slice(subnet), at)


def run(chain: Sequence[Segment], x: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    values = [x]
    for segment in chain:
        session = open_session(segment.model)
        values.append(session.run(None, {session.get_inputs()[0].name: values[-1]})[0])
    return values[1:]


@settings(deadline=None, max_examples=25)
@given(st.data(), st.booleans())
def test_a_chain_computes_what_the_file_does(data: st.DataObject, beta: bool) -> None:
    supernet, x = zoo_supernet(beta), images()
    subnet = data.draw(subnets(supernet.space))
    (expected,) = open_session(supernet.slice(subnet)).run(None, {"input": x})
    assert np.abs(run(chain_of(supernet, subnet), x)[-1] - expected).max() <= 1e-4 * np.abs(expected).max()


@settings(deadline=None, max_examples=25)
@given(st.data())
def test_equal_digests_are_equal_values(data: st.DataObject) -> None:
    supernet, x = resnext_supernet(), images()
    first = data.draw(subnets(supernet.space))
    gate = data.draw(st.sampled_from(supernet.space.gates))
    counts = {**first.counts, gate.name: data.draw(st.integers(gate.min_kept, gate.size))}
    both = (supernet.space.from_counts(one) for one in (first.counts, counts))
    chains = [chain_of(supernet, subnet) for subnet in both]
    known = {one.digest: value for one, value in zip(chains[0], run(chains[0], x), strict=True)}
    for one, value in zip(chains[1], run(chains[1], x), strict=True):
        if one.digest in known:
            np.testing.assert_array_equal(value, known[one.digest])


def test_a_gate_leaves_the_segments_before_it_as_they_are() -> None:
    supernet = zoo_supernet(False)
    space = supernet.space
    whole = [one.digest for one in chain_of(supernet, space.full())]
    assert len(set(whole)) == CUTS + 1
    shared = []
    for gate in space:
        smaller = [one.digest for one in chain_of(supernet, space.from_counts({gate.name: gate.size - 1}))]
        assert smaller[-1] != whole[-1]
        shared.append(len(set(smaller) & set(whole)))
    assert max(shared) == CUTS and min(shared) < CUTS


def test_a_value_can_be_cut_at_where_nothing_else_is_used_later() -> None:
    model = resnext_supernet().slice(resnext_supernet().space.full())
    found = cuts(model)
    nodes = model.graph.node
    assert found and list(found.values()) == sorted(found.values())
    for name, index in found.items():
        before = {output for node in nodes[: index + 1] for output in node.output} | {"input"}
        assert {value for node in nodes[index + 1 :] for value in node.input} & before == {name}
