"""ST-GCN whole: inference and training steps, random clips and padded recordings."""

from __future__ import annotations

import copy
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

import stgcn_fast
from side_by_side import floor, peers
from side_by_side.measure import (
    Contender,
    Context,
    Disagreement,
    Unavailable,
    autocast,
    check,
    compare,
    no_grad,
    within,
)
from stgcn_fast import ops
from stgcn_fast.cli.timing import (
    EagerSTGCN,
    check_network_gradient,
    difference,
    gradient,
    gradient_difference,
)
from stgcn_fast.graph import Graph
from stgcn_fast.models import STGCN

AGREEMENT = 2e-4  # float32 logits, over the largest
# Float32 gradients of norms, of ten blocks with BatchNorm: rounding alone moves eager's by some 2e-3.
GRADIENT_AGREEMENT = 1e-2
# In bfloat16 ours may be twice as far from float32 as eager's bfloat16 is, or so far in any case.
BFLOAT16_AGREEMENT = 2e-2
BFLOAT16_LIMIT = 0.1  # whatever eager does

PERSONS = 2
DROPOUT = 0.5


@dataclass(frozen=True)
class Shape:
    """A network and its clips: layout, classes, T, and channels if not ST-GCN's."""

    layout: str
    classes: int
    frames: int
    channels: tuple[int, ...] | None = None


SHAPES = {
    "ntu": Shape("ntu25", 60, 300),
    "kinetics": Shape("openpose18", 400, 150),
    "tiny": Shape("natops8", 3, 24, (16, 16, 32)),
}
# Where the test data hold recordings, and their joints.
RECORDINGS = {"ntu": ("ntu_rgbd/*.skeleton", 25), "kinetics": ("kinetics_skeleton/clip_*.json", 18)}
CHECKED_CLIPS, CHECKED_FRAMES = 2, 60  # of a training step in float64


def network(shape: Shape, dropout: float = 0.0) -> STGCN:
    """ST-GCN on the graph of the public code, with parameters and statistics as if it had been trained."""
    torch.manual_seed(0)
    graph = Graph(shape.layout, partition="spatial", normalization="column", hop_cap=True)
    model = STGCN(shape.classes, graph=graph, dropout=dropout, channels=shape.channels)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.1)
                module.momentum = None  # the statistics become those of the clip below
        for mask in model.edge_importance or ():
            mask.uniform_(0.5, 1.5)
        quiet = copy.deepcopy(model)
        for module in quiet.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        EagerSTGCN(quiet.train())(torch.randn(2, model.in_channels, 32, graph.num_joints, PERSONS))
        model.load_state_dict(quiet.state_dict())
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                module.momentum = 0.1
    return model


def clips(model: STGCN, batch: int, frames: int) -> Tensor:
    """Random clips [N, C, T, V, M] without absent bodies."""
    torch.manual_seed(1)
    return torch.randn(batch, model.in_channels, frames, model.graph.num_joints, PERSONS)


def optimise(model: STGCN, dtype: str, *, reuse: bool = True) -> Any:
    """The network as users run it for inference."""
    return stgcn_fast.optimize(model, dtype=getattr(torch, dtype), reuse=reuse)


def _ours(model: STGCN, x: Tensor, dtype: str) -> list[Contender]:
    """The optimised network, the same without the fast temporal algorithm, and the model as it is."""
    optimised = optimise(model, dtype)
    run = no_grad(lambda: optimised(x))
    found = [Contender("ours", run)]
    if dtype == "float32":

        def direct() -> Tensor:
            with ops.options(fast_temporal=False):
                return run()

        found.append(Contender("ours direct", direct))
        found.append(Contender("ours unoptimised", no_grad(lambda: model(x))))
    else:
        found.append(Contender("ours unoptimised", no_grad(autocast(lambda: model(x)))))
    return found


def inference(context: Context, *, shape: str, batch: int, dtype: str, users: bool = False) -> dict[str, Any]:
    """A batch of random clips through the network.

    Args:
        context: Settings.
        shape: Key of SHAPES.
        batch: N.
        dtype: "float32" or "bfloat16".
        users: Only what users run today: eager.
    """
    sizes = SHAPES[shape]
    model = network(sizes).eval()
    x = clips(model, batch, sizes.frames)
    flop = floor.network_flop(model, batch * PERSONS, x.shape[2])
    return _inference(f"{shape} N {batch}", context, model, x, dtype, flop, users)


def _inference(
    name: str, context: Context, model: STGCN, x: Tensor, dtype: str, flop: float, users: bool = False
) -> dict[str, Any]:
    plain = {form: (EagerSTGCN(model, memory).eval(), [x]) for form, memory in peers.FORMATS.items()}
    reference = reference_logits(model, x)
    limit = AGREEMENT
    if dtype != "float32":
        half = copy.deepcopy(plain["contiguous"][0]).bfloat16()
        with torch.no_grad():
            limit = max(BFLOAT16_AGREEMENT, 2 * difference(half(x.bfloat16()).to(reference.dtype), reference))
    with tempfile.TemporaryDirectory() as folder:
        if users:
            found = [Contender("eager", no_grad(partial(plain["contiguous"][0], x)))]
        else:
            found = peers.inference(plain, dtype, context, Path(folder), thorough=True)
        found += _ours(model, x, dtype)
        row = compare(name, found, context, reference=reference, limit=limit, flop=flop, dtype=dtype)
    plainly = row["values"]["ours unoptimised"]["median"] / row["values"]["ours"]["median"]
    row["note"] = f"the model as it is takes {plainly:.2f} times as long as optimised"
    return row


def reference_logits(model: STGCN, x: Tensor) -> Tensor:
    """Eager's logits: in float64 for up to two clips, beyond that in float32."""
    with torch.no_grad():
        if x.shape[0] <= 2:
            return EagerSTGCN(copy.deepcopy(model).double()).eval()(x.double())
        return EagerSTGCN(model).eval()(x)


class Step:
    """One training step: zeroed gradients, loss, backward, SGD with momentum as in the public recipe."""

    def __init__(
        self, model: STGCN, wrap: Callable[[STGCN], Any], x: Tensor, labels: Tensor, dtype: str
    ) -> None:
        model = copy.deepcopy(model).train()
        self.network = wrap(model)
        # Weights move, so nothing that was derived from them may be kept from step to step.
        self.optimiser = torch.optim.SGD(model.parameters(), 1e-3, 0.9, weight_decay=1e-4, nesterov=True)
        self.x, self.labels, self.dtype = x, labels, dtype

    def __call__(self) -> Tensor:
        """Do it; returns the loss."""
        self.optimiser.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.dtype == "bfloat16"):
            logits = self.network(self.x)
        loss = functional.cross_entropy(logits.float(), self.labels)
        torch.autograd.backward(loss)
        self.optimiser.step()
        return loss.detach()


def training(context: Context, *, shape: str, batch: int, dtype: str) -> dict[str, Any]:
    """A training step with dropout, float32 or bfloat16 autocast; arguments of :func:`inference`."""
    sizes = SHAPES[shape]
    model = network(sizes, DROPOUT)
    x = clips(model, batch, sizes.frames)
    labels = torch.arange(batch) % sizes.classes
    name = f"{shape} N {batch} training"
    errors = check_training(name, model, x[:CHECKED_CLIPS], labels[:CHECKED_CLIPS], dtype)
    variant = "" if dtype == "float32" else "autocast"
    found = []
    if "eager" in context.peers:
        for form, memory in peers.FORMATS.items():
            step = Step(model, lambda m, f=memory: EagerSTGCN(m, f), x, labels, dtype)
            found.append(Contender(peers.COLUMNS[form], step, variant))
    if "compile" in context.peers:
        step = Step(model, lambda m: peers.compiled(EagerSTGCN(m)), x, labels, dtype)
        found.append(Contender("torch.compile", step, variant))
    ours = Step(model, lambda m: m, x, labels, dtype)
    found.append(Contender("ours", ours, variant))
    if dtype == "float32":

        def direct() -> Tensor:
            with ops.options(fast_temporal=False):
                return ours()

        found.append(Contender("ours direct", direct))
    flop = 3 * floor.network_flop(model, batch * PERSONS, x.shape[2])
    return compare(name, found, context, errors=errors, flop=flop, dtype=dtype)


def check_training(name: str, model: STGCN, x: Tensor, labels: Tensor, dtype: str) -> dict[str, float]:
    """Loss and gradient of ours beside eager's, dropout off; and that dropout is on where it should be.

    Raises:
        Disagreement: They differ.
    """
    quiet = copy.deepcopy(model).train()
    for module in quiet.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    try:
        check_network_gradient(name, quiet, x[:, :, :CHECKED_FRAMES], labels)
    except RuntimeError as error:
        raise Disagreement(str(error)) from error

    def found(network: Any, half: bool) -> tuple[Tensor, list[Tensor]]:
        def loss() -> Tensor:
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                return functional.cross_entropy(network(x).float(), labels)

        return loss().detach(), gradient(loss, list(quiet.parameters()))

    loss, wanted = found(EagerSTGCN(quiet), False)
    limit, limit_of_loss = GRADIENT_AGREEMENT, AGREEMENT
    if dtype == "bfloat16":
        half_loss, half = found(EagerSTGCN(quiet), True)
        limit = max(BFLOAT16_AGREEMENT, 2 * gradient_difference(half, wanted))
        limit_of_loss = max(BFLOAT16_AGREEMENT, 2 * difference(half_loss, loss))
    our_loss, ours = found(quiet, dtype == "bfloat16")
    check(f"{name}, loss", {"ours": our_loss}, loss, limit_of_loss)
    error = within(f"{name}, gradients", gradient_difference(ours, wanted), limit)
    _check_dropout(name, model, x)
    return {"ours": error}


def _check_dropout(name: str, model: STGCN, x: Tensor) -> None:
    """Same seed, same logits; another seed, others: what is timed draws its random numbers."""
    model = copy.deepcopy(model).train()
    logits = []
    with torch.no_grad():
        for seed in (3, 3, 4):
            torch.manual_seed(seed)
            logits.append(model(x[:, :, :CHECKED_FRAMES]))
    within(f"{name}, dropout by one seed", difference(logits[1], logits[0]), AGREEMENT)
    if model.dropout and difference(logits[2], logits[0]) < 10 * AGREEMENT:
        raise Disagreement(f"{name}: dropout must depend on torch's seed, got the same logits from two")


def recordings(frames: int = 300, persons: int = PERSONS, kind: str = "ntu") -> Tensor:
    """Recordings of the test data as the public pipelines pad them, with zeros: [N, 3, T, V, M].

    Args:
        frames: T.
        persons: M.
        kind: "ntu", three coordinates, or "kinetics", two and the score, or whether the joint is there.

    Raises:
        Unavailable: There are none.
    """
    from stgcn_fast import data

    checkout = Path(__file__).resolve().parents[2]
    root = Path(os.environ.get("STGCN_FAST_TEST_DATA") or checkout.parent / "shared" / "data")
    folder, joints = RECORDINGS[kind]
    files = sorted(root.glob(folder))
    if not files:
        raise Unavailable(f"no {kind} recordings: set STGCN_FAST_TEST_DATA")
    found = torch.zeros(len(files), 3, frames, joints, persons)
    for i, path in enumerate(files):
        skeleton = data.read(str(path))
        values = torch.from_numpy(skeleton.keypoints)[:persons, :frames]  # [M, T, V, C]
        if values.shape[3] == 2:
            score = (values != 0).any(3).to(values.dtype)  # where a file has none
            if skeleton.confidence is not None:
                score = torch.from_numpy(skeleton.confidence)[:persons, :frames]
            values = torch.cat([values, score[..., None]], 3)
        found[i, :, : values.shape[1], :, : values.shape[0]] = values.permute(3, 1, 2, 0)
    return found


def padded(context: Context, *, dtype: str, batch: int) -> dict[str, Any]:
    """Padded recordings, repeated to a batch, through the network."""
    found = recordings()
    x = found[torch.arange(batch) % len(found)].contiguous()
    model = network(SHAPES["ntu"]).eval()
    name = "padded recordings"
    with torch.no_grad():
        whole = optimise(model, dtype, reuse=False)(x)
        if not torch.equal(optimise(model, dtype)(x), whole):
            raise Disagreement(f"{name}: logits must be the same bits with and without reuse, got others")
    row = _inference(name, context, model, x, dtype, floor.network_flop(model, batch * PERSONS, x.shape[2]))
    present = (x != 0).any(3).any(1)  # [N, T, M]
    held = f"{float(present.float().mean()):.0%} of the (frame, person) pairs hold a body"
    row["note"] = f"{held}; {row['note']}"
    return row
