"""One ST-GCN block: inference and training, at the network's shapes and at odd ones."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from side_by_side import floor, peers
from side_by_side.measure import Contender, Context, autocast, compare, no_grad, within
from stgcn_fast import nn as fast_nn
from stgcn_fast import ops
from stgcn_fast.cli.timing import difference, eager_block, gradient, gradient_difference
from stgcn_fast.graph import Graph

AGREEMENT = 1e-4
# Of norms, one block, float32: a ReLU's input within rounding of zero may fall on either side, and one of a
# million is a thousandth of the norm. Float64, where that does not happen, is compared to 1e-10 first.
GRADIENT_AGREEMENT = 3e-3
# Beside it, as such an input moves few entries of the gradient by x (those of some frames' neighbouring
# joints) and those of the parameters by little: the largest share of entries that are off by more than so
# many of their root mean squares. (Seen in 16 clips: 2e-3 and 2e-4.)
STRAY, STRAY_SHARE = 1e-4, 5e-3
STRAY_PARAMETER, STRAY_PARAMETERS = 1e-2, 1e-3
BFLOAT16_AGREEMENT = 3e-2
LAYOUTS = {
    8: "natops8",
    17: "coco17",
    18: "openpose18",
    20: "kinect20",
    21: "hand21",
    25: "ntu25",
    33: "mediapipe33",
}


class Block(nn.Module):
    """An ST-GCN block with its adjacency and mask.

    Args:
        block: The block, whose modules are shared.
        adjacency: [K, V, V].
        mask: Edge importance [K, V, V].
        ours: Whether it runs itself, or as eager's composition.
    """

    adjacency: Tensor

    def __init__(self, block: fast_nn.STGCNBlock, adjacency: Tensor, mask: nn.Parameter, ours: bool) -> None:
        super().__init__()
        self.block, self.mask, self.ours = block, mask, ours
        self.register_buffer("adjacency", adjacency)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, T, V] -> [N, O, T_out, V]."""
        if self.ours:
            return self.block(x, self.adjacency, self.mask)
        return eager_block(self.block, x, self.adjacency * self.mask)


def make(c: int, o: int, stride: int, joints: int, residual: bool = True) -> tuple[Block, Block]:
    """A block as ours runs it and as eager does, on the same parameters, as if they had been trained."""
    torch.manual_seed(0)
    graph = Graph(LAYOUTS[joints], partition="spatial", normalization="column", hop_cap=True)
    block = fast_nn.STGCNBlock(c, o, graph.num_partitions, 9, stride, residual=residual)
    adjacency = graph.adjacency()
    mask = nn.Parameter(torch.rand_like(adjacency) + 0.5)
    with torch.no_grad():
        for module in block.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.1)
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
    return Block(block, adjacency, mask, True), Block(block, adjacency, mask, False)


def inputs(batch: int, c: int, frames: int, joints: int) -> dict[str, Tensor]:
    """Random features [N, C, T, V] in both memory formats."""
    torch.manual_seed(1)
    x = torch.randn(batch, c, frames, joints).relu_()  # as behind another block
    return {form: x.clone(memory_format=memory) for form, memory in peers.FORMATS.items()}


def inference(
    context: Context,
    *,
    c: int,
    o: int,
    frames: int,
    stride: int,
    joints: int,
    batch: int,
    dtype: str,
    thorough: bool,
) -> dict[str, Any]:
    """A block in evaluation mode; ours on channels_last input, which is what it gets inside a network.

    Args:
        context: Settings.
        c: C.
        o: O.
        frames: T of the input.
        stride: Along time.
        joints: V, a key of LAYOUTS.
        batch: N * M.
        dtype: "float32" or "bfloat16".
        thorough: Every peer that was asked for; else eager alone.
    """
    name = f"block {c} to {o}"
    ours, eager = (block.eval() for block in make(c, o, stride, joints, residual=c != 3))
    x = inputs(batch, c, frames, joints)
    with torch.no_grad():
        reference = copy.deepcopy(eager).double()(x["contiguous"].double())
    limit = AGREEMENT if dtype == "float32" else BFLOAT16_AGREEMENT
    plain = {form: (eager, [x[form]]) for form in peers.FORMATS}
    with tempfile.TemporaryDirectory() as folder:
        if thorough:
            found = peers.inference(plain, dtype, context, Path(folder), thorough=True)
        else:
            alone = Context(context.threads, context.seconds, ("eager",), context.peak)
            found = peers.inference(plain, dtype, alone, Path(folder), thorough=False)
        if dtype == "float32":
            run = no_grad(lambda: ours(x["channels_last"]))

            def direct() -> Tensor:
                with ops.options(fast_temporal=False):
                    return run()

            found += [Contender("ours", run), Contender("ours direct", direct)]
            found.append(Contender("ours contiguous", no_grad(lambda: ours(x["contiguous"]))))
        else:
            half, y = copy.deepcopy(ours).bfloat16(), x["channels_last"].bfloat16()
            found.append(Contender("ours", no_grad(lambda: half(y)), "bfloat16 module"))
            call = no_grad(autocast(lambda: ours(x["channels_last"])))
            found.append(Contender("ours autocast", call))
        flop = floor.block_flop(ours.block, ours.adjacency, batch, frames)
        return compare(name, found, context, reference=reference, limit=limit, flop=flop, dtype=dtype)


def training(
    context: Context, *, c: int, o: int, frames: int, stride: int, joints: int, batch: int, dtype: str
) -> dict[str, Any]:
    """Forward and backward of a block without dropout; arguments as of :func:`inference`."""
    name = f"block {c} to {o} training"
    ours, eager = (block.train() for block in make(c, o, stride, joints))
    x = {form: value.requires_grad_() for form, value in inputs(batch, c, frames, joints).items()}
    calls = {
        "eager": ("contiguous", eager),
        "eager channels_last": ("channels_last", eager),
        "torch.compile": ("contiguous", peers.compiled(copy.deepcopy(eager))),
        "ours": ("channels_last", ours),
    }
    errors = _check_training(name, eager, ours, x["contiguous"], dtype)
    torch.manual_seed(2)
    found = []
    for title, (form, module) in calls.items():
        if title.split()[0].removeprefix("torch.") not in (*context.peers, "ours"):
            continue

        run = step(module, x[form], dtype == "bfloat16")
        found.append(Contender(title, run, "" if dtype == "float32" else "autocast"))
        if title == "ours" and dtype == "float32":

            def direct(run: Any = run) -> None:
                with ops.options(fast_temporal=False):
                    run()

            found.append(Contender("ours direct", direct))
    flop = 3 * floor.block_flop(ours.block, ours.adjacency, batch, frames)
    return compare(name, found, context, errors=errors, flop=flop, dtype=dtype)


def step(module: nn.Module, x: Tensor, half: bool) -> Callable[[], None]:
    """Forward and backward, from a fixed gradient in the output's own format."""
    leaves = [x, *module.parameters()]

    def forward() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            y: Tensor = module(x)
        return y

    upstream = torch.randn_like(forward())

    def run() -> None:
        torch.autograd.grad(forward(), leaves, upstream)

    return run


def _check_training(name: str, eager: Block, ours: Block, x: Tensor, dtype: str) -> dict[str, float]:
    """Output and gradients of ours beside eager's: two samples in float64, all in what is timed."""

    def found(block: Block, x: Tensor, half: bool = False) -> tuple[Tensor, list[Tensor]]:
        x = x.detach().requires_grad_()

        def call() -> Tensor:
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                return block(x)

        y = call().detach()
        torch.manual_seed(3)
        upstream = torch.randn(y.shape).to(y.dtype)
        return y, gradient(call, [x, *block.parameters()], upstream)

    both = []
    for block in (copy.deepcopy(eager), copy.deepcopy(ours)):
        both.append(found(block.double(), x[:2].double()))
    within(f"{name}, float64", difference(both[1][0], both[0][0]), 1e-10)
    within(f"{name}, gradients in float64", gradient_difference(both[1][1], both[0][1]), 1e-10)
    half = dtype == "bfloat16"
    y, wanted = found(eager, x)
    limit, limit_of_gradient = AGREEMENT, GRADIENT_AGREEMENT
    if half:
        z, gradients = found(eager, x, True)
        limit = max(BFLOAT16_AGREEMENT, 2 * difference(z, y))
        limit_of_gradient = max(BFLOAT16_AGREEMENT, 2 * gradient_difference(gradients, wanted))
    z, gradients = found(ours, x, half)
    within(f"{name}, output", difference(z, y), limit)
    error = within(f"{name}, gradients", gradient_difference(gradients, wanted), limit_of_gradient)
    if not half:
        found_share = strays(gradients[:1], wanted[:1], STRAY)
        within(f"{name}, share of entries of the gradient by x that are off", found_share, STRAY_SHARE)
        far = strays(gradients[1:], wanted[1:], STRAY_PARAMETER)
        within(f"{name}, share of entries of the parameters' gradients that are off", far, STRAY_PARAMETERS)
    return {"ours": error}


def strays(a: list[Tensor], b: list[Tensor], tolerance: float) -> float:
    """Share of the entries of `a` that are further from `b` than a tolerance.

    Args:
        a: Tensors.
        b: Others of the same shapes.
        tolerance: In units of the root mean square of each tensor of `b`, or of a thousandth of the largest
            of them: some gradients are zero but for rounding, as that by a bias before a BatchNorm is.
    """
    sizes = [float(y.square().mean()) ** 0.5 for y in b]
    least = 1e-3 * max(sizes)
    off = sum(int(((x - y).abs() > tolerance * max(size, least)).sum()) for x, y, size in zip(a, b, sizes))
    bad = sum(int(x.isnan().sum()) for x in a)
    return (off + bad) / sum(x.numel() for x in a)
