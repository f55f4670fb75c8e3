"""The emulated CUDA graph of the tests keeps the rules of the real one."""

from __future__ import annotations

import pytest
import torch
from comfyui_creps.kernels.graphs import may_read_values, static_shapes
from fake_graph import FakeGraph, HostRead, counted


def test_a_replay_follows_its_inputs_and_changes_what_the_function_changes():
    x, weight, total = torch.randn(3, 4), torch.randn(4, 4, requires_grad=True), torch.zeros(4)
    optimizer = torch.optim.Adam([weight], lr=0.1, fused=True)

    def step() -> torch.Tensor:
        loss = (x @ weight).tanh().square().mean()
        (weight.grad,) = torch.autograd.grad(loss, [weight])
        optimizer.step()
        total.add_(x.sum(0))
        return loss.detach() * 2

    step()
    saved = [t.detach().clone() for t in (weight, total, *optimizer.state[weight].values())]
    graph = FakeGraph()
    found = graph.capture(step)
    now = (weight, total, *optimizer.state[weight].values())
    assert all(torch.equal(a, b) for a, b in zip(saved, now, strict=True)), "a capture changes nothing"
    assert found.isnan()
    assert graph.launched > 5
    x.copy_(torch.randn(3, 4))
    graph.replay()
    results = [t.detach().clone() for t in (found, weight, total)]
    with torch.no_grad():
        for tensor, value in zip(now, saved, strict=True):
            tensor.copy_(value)
    wanted = [step(), weight.detach(), total]
    assert all(torch.equal(a, b) for a, b in zip(results, wanted, strict=True))


@pytest.mark.parametrize(
    "read",
    [
        lambda x: x.sum().item(),
        lambda x: bool(x.isfinite().all()),
        lambda x: x.tolist(),
        lambda x: x.nonzero(),
        lambda x: torch.tensor([1.0, 2.0]) + x[0],
        lambda x: torch.randn(3),
        lambda x: x[x > 0],
    ],
)
def test_operations_that_no_graph_can_hold_are_refused(read):
    x = torch.randn(2, 2)
    before = x.clone()

    def function():
        x.add_(1)
        return read(x)

    with pytest.raises(HostRead):
        FakeGraph().capture(function)
    assert torch.equal(x, before)


def test_operations_are_counted_without_views():
    x = torch.randn(4, 4)
    with counted() as count:
        (x.T.reshape(2, 8) + 1).view(16).mul_(2)
    assert count[0] == 3  # a copy, a sum, a product


def test_values_are_read_on_a_cpu_only_and_not_within_static_shapes():
    x = torch.zeros(1)
    assert may_read_values(x)
    assert not may_read_values(x.to("meta"))
    with static_shapes():
        assert not may_read_values(x)
    assert may_read_values(x)
