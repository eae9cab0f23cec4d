"""What the demo times: both sides compute the same, and are not timed if they do not."""

from __future__ import annotations

import pytest
import torch

from stgcn_fast.cli import timing
from stgcn_fast.models import STGCN


@pytest.fixture
def model() -> STGCN:
    torch.manual_seed(0)
    network = STGCN(5, in_channels=2, layout="coco17", channels=[4, 4, 8], temporal_kernel=3)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_the_eager_network_is_the_same_function(model: STGCN, memory_format: torch.memory_format) -> None:
    x = torch.randn(3, 2, 9, 17, 2)
    eager = timing.EagerSTGCN(model, memory_format)
    gradients = []
    for network in (model, eager):
        model.zero_grad()
        output = network(x)
        output.square().sum().backward()
        gradients.append(
            [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]
        )
    torch.testing.assert_close(eager(x), model(x), rtol=1e-4, atol=1e-5)
    assert len(gradients[0]) == len(list(model.parameters()))
    for left, right in zip(*gradients):
        torch.testing.assert_close(left, right, rtol=1e-3, atol=1e-4)


def test_a_network_is_timed_and_left_as_it_was(model: STGCN) -> None:
    before = {key: value.clone() for key, value in model.state_dict().items()}
    results = timing.time_network(model.train(), (2, 2, 9, 17, 1), "small", repeats=1)
    assert [result.name for result in results] == ["small, inference", "small, training step"]
    assert all(
        result.eager > 0 and result.ours > 0 and result.difference < timing.AGREEMENT for result in results
    )
    assert results[0].ratio == results[0].eager / results[0].ours
    assert model.training
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_layers_are_timed_at_every_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "LAYER_SHAPES", ((3, 4, 12, 1), (4, 8, 12, 2)))
    seen: list[int] = []
    results = timing.time_layers(repeats=1, progress=lambda done, total: seen.append(total - done))
    assert len(results) == 8
    assert seen == list(range(7, -1, -1))
    assert len({result.name for result in results}) == 8


def test_what_disagrees_is_not_timed(model: STGCN, monkeypatch: pytest.MonkeyPatch) -> None:
    class Wrong(timing.EagerSTGCN):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) + 0.01

    monkeypatch.setattr(timing, "EagerSTGCN", Wrong)
    with pytest.raises(RuntimeError, match=r"results must agree within 0\.0001 before they are timed, got"):
        timing.time_network(model, (2, 2, 9, 17, 1), "small", repeats=1)


def test_the_backend_is_named() -> None:
    line = timing.backend_line()
    assert line.startswith(("compiled CPU kernels", "the pure-PyTorch reference"))
    assert f"{torch.get_num_threads()} threads" in line


def test_alternating_calls_each_side_equally_often() -> None:
    calls: list[str] = []
    timing.alternate([lambda: calls.append("a"), lambda: calls.append("b")], 3)
    assert "".join(calls) == "ab" + "ab" + "ba" + "ab"


def test_a_wrong_gradient_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x, labels = (
        STGCN(3, layout="natops8", channels=(4,)),
        torch.randn(2, 3, 8, 8, 1),
        torch.tensor([0, 1]),
    )
    assert timing.check_network_gradient("net", model, x, labels) < 1e-9
    right = timing.EagerSTGCN.forward
    # The same value, twice the gradient.
    monkeypatch.setattr(
        timing.EagerSTGCN, "forward", lambda self, x: 2 * right(self, x) - right(self, x).detach()
    )
    with pytest.raises(RuntimeError, match="net, gradients: results must agree within 1e-09"):
        timing.check_network_gradient("net", model, x, labels)
