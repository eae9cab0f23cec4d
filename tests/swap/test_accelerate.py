"""What accelerate and restore leave as it was, and what they report."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import stgcn_fast
from stgcn_fast.nn import _fusion
from stgcn_fast.swap import (
    Adapter,
    accelerate,
    accelerated,
    list_adapters,
    register_adapter,
    restore,
    unregister_adapter,
)
from twins import agcn, partitioned, pyskl, st_gcn
from twins.common import adjacency, lively

Network = Callable[..., nn.Module]


def step(model: nn.Module, clips: Tensor) -> list[Tensor]:
    """Outputs, gradients and buffers of a training step."""
    model.zero_grad()
    out = model(clips)
    F.cross_entropy(out, torch.arange(len(clips))).backward()
    return [
        out.detach(),
        *(p.grad.clone() for p in model.parameters()),
        *(b.clone() for b in model.buffers()),
    ]


def test_names_at_the_top() -> None:
    assert stgcn_fast.accelerate is accelerate
    assert stgcn_fast.restore is restore
    assert stgcn_fast.accelerated is accelerated


def test_restored_is_bit_identical(network: Network, clips: Tensor) -> None:
    model = network()
    twin = copy.deepcopy(model)
    kinds = [type(module) for module in model.modules()]
    assert accelerate(model).taken
    assert restore(model) > 0
    assert [type(module) for module in model.modules()] == kinds
    assert restore(model) == 0
    for ours, theirs in zip(step(model, clips), step(twin, clips)):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_parameters_and_buffers_stay_the_same_objects(network: Network) -> None:
    model = network()
    before = {name: id(t) for name, t in [*model.named_parameters(), *model.named_buffers()]}
    modules = [id(module) for module in model.modules()]
    keys = list(model.state_dict())
    accelerate(model)
    assert {name: id(t) for name, t in [*model.named_parameters(), *model.named_buffers()]} == before
    assert [id(module) for module in model.modules()] == modules
    assert list(model.state_dict()) == keys
    model.load_state_dict(network().state_dict())
    assert repr(model) == repr(network())
    assert isinstance(model, st_gcn.Model)
    assert isinstance(model.st_gcn_networks[0].tcn[2], nn.Conv2d)


def test_an_optimiser_made_before_goes_on(network: Network, clips: Tensor) -> None:
    plain = network()
    fast = copy.deepcopy(plain)
    losses: list[list[float]] = []
    for model in (plain, fast):
        optimiser = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
        if model is fast:
            accelerate(model)
        losses.append([])
        for _ in range(4):
            optimiser.zero_grad()
            loss = F.cross_entropy(model(clips), torch.arange(3))
            loss.backward()
            optimiser.step()
            losses[-1].append(loss.item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_twice_changes_nothing(network: Network) -> None:
    model = network()
    first = accelerate(model)
    kinds = [type(module) for module in model.modules()]
    second = accelerate(model)
    assert [type(module) for module in model.modules()] == kinds
    assert len(second.taken) == len(first.taken)
    assert all("before" in row.reason for row in second.taken)
    restore(model)
    assert restore(model) == 0


def test_layers_added_later_are_taken_the_second_time(network: Network) -> None:
    model = network()
    accelerate(model)
    model.st_gcn_networks.append(st_gcn.st_gcn(24, 24, (5, 3)))
    report = accelerate(model)
    rows = {row.name: row.reason for row in report.taken}
    assert rows["st_gcn_networks.3"] == "st_gcn.block"
    assert "before" in rows["st_gcn_networks.0"]


def test_copies_and_pickles_are_accelerated(network: Network, clips: Tensor) -> None:
    model = network().eval()
    accelerate(model)
    expected = model(clips)
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    copies = [
        copy.deepcopy(model),
        pickle.loads(pickle.dumps(model)),
        torch.load(buffer, weights_only=False),
    ]
    for other in copies:
        torch.testing.assert_close(other(clips), expected, rtol=0, atol=0)
        assert [type(m) for m in other.modules()] == [type(m) for m in model.modules()]
        assert restore(other) == restore(copy.deepcopy(model))
        torch.testing.assert_close(other(clips), expected, rtol=1e-4, atol=1e-4)
    assert accelerate(model).taken  # the copies' restoration did not touch it


def test_a_pickle_without_its_adapter_runs_plain(clips: Tensor) -> None:
    model = Mine()
    register_adapter(MINE)
    accelerate(model)
    data = pickle.dumps(model)
    unregister_adapter(MINE.name)
    with pytest.warns(UserWarning, match="no adapter 'mine.layer' is registered: its layers run plain"):
        other = pickle.loads(data)
    assert type(other) is Mine
    with pytest.raises(ValueError, match="unregister_adapter: name must be one of"):
        unregister_adapter(MINE.name)


def test_a_block_of_code(network: Network) -> None:
    model = network()
    accelerate(model.st_gcn_networks[0])
    kinds = [type(module) for module in model.modules()]
    with accelerated(model) as report:
        assert len(report.taken) > 10
        assert [type(module) for module in model.modules()] != kinds
    assert [type(module) for module in model.modules()] == kinds
    with pytest.raises(RuntimeError, match="inside"), accelerated(model):
        raise RuntimeError("inside")
    assert [type(module) for module in model.modules()] == kinds


def test_the_report(network: Network, capsys: pytest.CaptureFixture[str]) -> None:
    model = network()
    model.st_gcn_networks[1].tcn[2] = nn.Conv2d(16, 16, (5, 1), padding=(2, 0), groups=2)
    report = accelerate(model, verbose=True)
    text = capsys.readouterr().out
    assert text.strip() == str(report)
    rows = {row.name: row for row in report.rows}
    assert rows["st_gcn_networks.0"].taken
    assert rows["st_gcn_networks.0"].layer == "st_gcn"
    assert not rows["st_gcn_networks.1"].taken
    assert rows["st_gcn_networks.1"].reason == "its layers are not those of the public block"
    assert rows["st_gcn_networks.1.gcn"].taken
    assert not rows[""].taken  # the network is not quite the public one
    assert {row.name for row in report.left} == {"", "st_gcn_networks.1"}
    assert report.families[0] == "ST-GCN"
    assert "st_gcn_networks.1" in text
    assert "convolutions)" in text


def test_unknown_models_are_left_alone() -> None:
    model = nn.Sequential(nn.Conv2d(32, 32, 1), nn.BatchNorm2d(32), nn.Conv2d(32, 32, (9, 1)))
    report = accelerate(model)
    assert report.rows == ()
    assert str(report) == "Sequential: no layer of a known family, nothing changed (train)"
    assert restore(model) == 0


def test_layers_of_the_package_need_nothing() -> None:
    model = stgcn_fast.models.STGCN(3, layout="openpose18", channels=(16, 16))
    assert accelerate(model).rows == ()


class Transposed(st_gcn.ConvTemporalGraphical):
    """Same attributes, another mathematics."""

    def forward(self, x: Tensor, A: Tensor) -> tuple[Tensor, Tensor]:
        return super().forward(x, A.mT)[0], A


class Scaled(partitioned.SpatialGraphConv):
    """An addition that is zero in the beginning."""

    def __init__(self) -> None:
        super().__init__(4, 4, 2, adjacency(7))
        self.adaptive = nn.Parameter(torch.zeros(3, 7, 7))

    def forward(self, x: Tensor) -> Tensor:
        copies = self.gcn(x).unflatten(1, (3, -1))
        return torch.einsum("nkotv,kvw->notw", copies, self.A * self.edge + self.adaptive)


class OnlyInTraining(pyskl.unit_gcn):
    """Another mathematics in training."""

    def forward(self, x: Tensor, A: Tensor | None = None) -> Tensor:
        return super().forward(x, A) * (0.5 if self.training else 1.0)


@pytest.mark.parametrize(
    "layer",
    [
        lambda: Transposed(4, 5, 3),
        Scaled,
        lambda: OnlyInTraining(4, 5, adjacency(7)),
    ],
)
def test_edited_forwards_are_found_out(layer: Callable[[], nn.Module]) -> None:
    model = layer()
    # As a user who edits the file has it: the public name, another forward.
    model.__class__ = type(type(model).__mro__[1].__name__, (type(model),), {})
    report = accelerate(model)
    (row,) = [row for row in report.rows if row.name == ""]
    assert row.reason == "its forward is not the one that is known by this name"
    assert restore(model) == 0


def test_a_forward_that_was_replaced_is_left(network: Network) -> None:
    model = network()
    gcn = model.st_gcn_networks[0].gcn
    gcn.forward = lambda x, A: (x, A)
    rows = {row.name: row for row in accelerate(model).rows}
    assert rows["st_gcn_networks.0.gcn"].reason == "its forward was replaced"
    assert not rows["st_gcn_networks.0"].taken
    assert rows["st_gcn_networks.1"].taken


def test_half_known_layers_are_left() -> None:
    layer = pyskl.unit_gcn(4, 5, adjacency(7))
    layer.adaptive = "other"
    (row,) = accelerate(layer).rows
    assert row.reason == "its options are unknown"
    layer = agcn.unit_aagcn(4, 8, adjacency(7))
    del layer.fc1c
    (row,) = [row for row in accelerate(layer).rows if row.name == ""]
    assert "fc1c" in row.reason
    layer = partitioned.SpatialConv(4, 5, adjacency(7))
    layer.W = nn.Identity()
    assert not [row for row in accelerate(layer).rows if row.taken]


def test_the_comparison_leaves_no_trace(network: Network) -> None:
    model = network(dropout=0.5)
    seen: list[str] = []
    model.st_gcn_networks[0].gcn.register_forward_hook(lambda *_: seen.append("hook"))
    state = {name: t.clone() for name, t in model.state_dict().items()}
    generator = torch.get_rng_state()
    accelerate(model)
    assert torch.equal(torch.get_rng_state(), generator)
    assert seen == []
    assert model.training
    assert model.st_gcn_networks[1].tcn[4].p == 0.5
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, state[name]), name


def test_old_code_that_sends_tensors_to_a_device_by_number() -> None:
    class unit_gcn(agcn.unit_gcn):
        def adjacency(self, k: int, x: Tensor) -> Tensor:
            static = self.A.cuda(x.get_device()) + self.PA
            return self.soft(agcn.similarity(self.conv_a[k], self.conv_b[k], x)) + static[k]

    layer = unit_gcn(4, 8, adjacency(7))
    assert accelerate(layer).taken[0].reason == "agcn.unit_gcn"
    assert layer(torch.randn(2, 4, 5, 7)).shape == (2, 8, 5, 7)  # the plain one cannot on a CPU
    assert "cuda" not in layer.A.__dict__


class Mine(nn.Module):
    """A layer of one's own."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight[:, None, None]


def match_mine(module: nn.Module) -> bool:
    return type(module).__name__ == "Mine"


def run_mine(module: Mine, plain: Callable[..., Tensor], x: Tensor) -> Tensor:
    return plain(module, x) if x.dim() != 4 else torch.einsum("nctv,c->nctv", x, module.weight)


def example_mine(module: Mine) -> tuple[Tensor, ...]:
    return (torch.randn(2, 3, 4, 5),)


MINE = Adapter("mine.layer", "Mine", match_mine, run_mine, example_mine)


@pytest.fixture
def mine() -> Iterator[Adapter]:
    register_adapter(MINE)
    yield MINE
    unregister_adapter(MINE.name)


def test_an_adapter_of_ones_own(mine: Adapter) -> None:
    assert list_adapters()[0] is mine
    model = nn.Sequential(lively(Mine()), nn.ReLU())
    x = torch.randn(2, 3, 4, 5)
    expected = model(x)
    report = accelerate(model)
    assert [(row.name, row.family, row.reason) for row in report.taken] == [("0", "Mine", "mine.layer")]
    torch.testing.assert_close(model(x), expected)
    torch.testing.assert_close(model(x[0]), expected[0])
    assert type(model[0]).__name__ == "Mine"
    with pytest.raises(TypeError, match="register_adapter: adapter must be an Adapter, got str"):
        register_adapter("mine")
    with pytest.raises(ValueError, match=r"register_adapter: adapter\.modes must be among"):
        register_adapter(Adapter("a", "b", match_mine, run_mine, example_mine, modes=("test",)))


def test_an_adapter_for_inference_only(mine: Adapter) -> None:
    register_adapter(Adapter(mine.name, "Mine", match_mine, run_mine, example_mine, modes=("inference",)))
    model = Mine().eval()
    (row,) = accelerate(model).rows
    assert row.reason == "gains nothing in mode 'train'"
    assert accelerate(model, "inference").taken


def test_never_half_swapped(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    from stgcn_fast.swap import core

    model = network()
    kinds = [type(module) for module in model.modules()]
    real, calls = core.swap, []

    def failing(module: nn.Module, adapter: Adapter) -> None:
        calls.append(module)
        if len(calls) == 5:
            raise KeyboardInterrupt
        real(module, adapter)

    monkeypatch.setattr(core, "swap", failing)
    with pytest.raises(KeyboardInterrupt):
        accelerate(model)
    assert len(calls) == 5
    assert [type(module) for module in model.modules()] == kinds


def test_bad_input(network: Network) -> None:
    model = network()
    with pytest.raises(TypeError, match=r"accelerate: model must be a torch\.nn\.Module, got str"):
        accelerate("model")
    with pytest.raises(TypeError, match=r"restore: model must be a torch\.nn.Module, got int"):
        restore(3)
    with pytest.raises(ValueError, match="accelerate: mode must be 'train' or 'inference', got 'fast'"):
        accelerate(model, "fast")
    with pytest.raises(ValueError, match="accelerate: model must be in evaluation mode for mode='inference'"):
        accelerate(model, "inference")
    with pytest.raises(ValueError, match=r"must hold its tensors, got .* on the meta device"):
        accelerate(st_gcn.Model(3, 4, 11, (8,)).to("meta"))
    assert restore(model) == 0


def test_without_kernels_nothing_is_taken(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_fusion, "compiled", lambda op, device: False)
    model = network()
    report = accelerate(model)
    assert report.taken == ()
    assert {row.reason for row in report.left} == {"there is no compiled kernel for cpu"}


def test_weights_and_inputs_of_another_layout_fail_as_before(network: Network, clips: Tensor) -> None:
    model = network().eval()
    wrong = torch.randn(3, 3, 13, 18, 2)
    with pytest.raises(RuntimeError) as before:
        model(wrong)
    accelerate(model)
    with pytest.raises(RuntimeError) as after:
        model(wrong)
    assert str(after.value) == str(before.value)
    other = network(joints=18).state_dict()
    with pytest.raises(RuntimeError, match="size mismatch for A"):
        model.load_state_dict(other)
    model(clips)
