"""Absent persons and padded tails: the results of computing everything, from less work."""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import stgcn_fast
from stgcn_fast import _native, data, ops
from stgcn_fast.models import STGCN, _reuse

Network = Callable[..., STGCN]
NATIVE = _native.load().loaded


class Frames(TorchDispatchMode):
    """Counts samples times output frames that the block operator computes."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.__name__.startswith("st_block."):
            x, weight, stride, frames = args[0], args[6], args[13], args[15]
            steps = -(-x.shape[2] // stride)
            if frames is None:
                self.count += x.shape[0] * steps
            else:
                reached = ops.st_block_frames(frames, x.shape[2], weight.shape[2], stride, x.dtype)
                self.count += int(reached.sum())
        if func.__name__.startswith("st_blocks."):
            steps = args[0].shape[2]
            for stride in args[2]:
                steps = -(-steps // stride)
                self.count += args[0].shape[0] * steps
        return func(*args, **(kwargs or {}))


def compare(fast: nn.Module, x: Tensor) -> tuple[int, int]:
    """Checks that reusing changes nothing; returns the frames computed with and without."""
    counts = []
    results = []
    for reuse in (True, False):
        fast.reuse = reuse
        with torch.no_grad(), Frames() as frames:
            results.append(fast(x))
        counts.append(frames.count)
    fast.reuse = True
    if NATIVE:
        assert torch.equal(*results)
    else:
        torch.testing.assert_close(*results, rtol=1e-4, atol=1e-4)
    return counts[0], counts[1]


def clip(n: int, t: int, m: int = 2, v: int = 21) -> Tensor:
    return torch.randn(n, 3, t, v, m)


def cut(x: Tensor, lengths: list[list[int]]) -> Tensor:
    """Zeros behind these lengths of each sample's persons."""
    for n, persons in enumerate(lengths):
        for m, length in enumerate(persons):
            x[n, :, length:, :, m] = 0
    return x


@pytest.mark.parametrize("pooling", ["all", "present"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_a_mixed_batch(dtype: torch.dtype, pooling: str, network: Network) -> None:
    model = network(person_pooling=pooling)
    fast = stgcn_fast.optimize(model, dtype=dtype)
    lengths = [[100, 0], [17, 3], [0, 0], [0, 61], [99, 100], [1, 0]]
    x = cut(clip(6, 100), lengths)
    x[4, :, 10:20] = 0  # zeros in the middle are no tail
    reused, everything = compare(fast, x)
    if NATIVE:
        reused, _ = compare(fast, x)  # the clip of zeros is there now
        assert reused < 0.6 * everything
    with torch.no_grad(), ops.options(fused_blocks=False):
        expected = model.double()(x.double())
    with torch.no_grad():
        found = fast(x).double()
    limit = {torch.float32: 1e-4, torch.float64: 1e-9, torch.bfloat16: 0.03}[dtype]
    torch.testing.assert_close(found, expected, rtol=0, atol=limit * float(expected.abs().max()))


@pytest.mark.parametrize("pooling", ["all", "present"])
@pytest.mark.parametrize("frames", [1, 2, 3, 7, 50])
def test_edges(frames: int, pooling: str, network: Network) -> None:
    fast = stgcn_fast.optimize(network(person_pooling=pooling))
    full = clip(2, frames)
    compare(fast, full)
    compare(fast, torch.zeros_like(full))
    compare(fast, cut(full.clone(), [[frames, 0], [0, frames]]))
    compare(fast, cut(full.clone(), [[frames - 1, 1], [(frames + 1) // 2, frames]]))


@pytest.mark.parametrize(
    "options",
    [
        {"strides": (1, 1, 1, 1)},
        {"strides": (2, 2, 1, 3)},
        {"temporal_kernel": 3, "strides": (1, 3, 1, 2)},
        {"temporal_kernel": 1},
        {"channels": (5, 33), "temporal_kernel": 5},
    ],
    ids=str,
)
@pytest.mark.parametrize("fast_temporal", [True, False])
def test_every_geometry(options: dict[str, Any], fast_temporal: bool, network: Network) -> None:
    fast = stgcn_fast.optimize(network(**options), fast_temporal=fast_temporal)
    for lengths in ([[90, 30], [29, 0]], [[4, 0], [7, 50]], [[89, 88], [0, 0]]):
        compare(fast, cut(clip(2, 91), lengths))


@pytest.mark.skipif(not NATIVE, reason="the compiled kernels are not built")
def test_results_do_not_depend_on_threads(network: Network) -> None:
    fast = stgcn_fast.optimize(network())
    x = cut(clip(4, 120), [[120, 0], [40, 30], [0, 0], [80, 100]])
    threads = torch.get_num_threads()
    results = []
    try:
        for count, reuse in product((1, 2, 3), (True, False)):
            torch.set_num_threads(count)
            fast.reuse = reuse
            with torch.no_grad():
                results.append(fast(x))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(result, results[0]) for result in results[1:])


@pytest.mark.skipif(not NATIVE, reason="the compiled kernels are not built")
def test_what_is_skipped(network: Network) -> None:
    fast = stgcn_fast.optimize(network())
    x = cut(clip(4, 200), [[200, 0]] * 4)
    compare(fast, x)
    reused, everything = compare(fast, x)
    assert 2 * reused == everything
    reused, _ = compare(fast, torch.zeros_like(x))
    assert reused == 0
    reused, _ = compare(fast, cut(x, [[30, 0]] * 4))
    assert reused < 0.2 * everything
    reused, everything = compare(fast, clip(2, 200))
    assert reused == everything
    late = cut(clip(4, 200), [[200, 0]] * 4)
    late[0, 0, 199, 3, 1] = float("nan")  # not nothing
    with torch.no_grad():
        assert fast(late)[0].isnan().all()


@pytest.mark.skipif(not NATIVE, reason="the compiled kernels are not built")
def test_a_clip_of_zeros_is_computed_when_it_pays(network: Network) -> None:
    fast = stgcn_fast.optimize(network())
    few = cut(clip(1, 60), [[60, 50]])
    first = compare(fast, few)
    second = compare(fast, few)
    third = compare(fast, few)
    assert first[0] == first[1]  # 10 frames once are not worth 60
    assert second[0] > second[1]  # but they come again: now the clip of zeros is made
    assert third[0] < third[1]
    many = cut(clip(3, 61), [[61, 0]] * 3)
    reused, everything = compare(fast, many)
    assert reused < everything
    for frames in range(62, 80):
        compare(fast, cut(clip(2, frames), [[frames, 0]] * 2))
    assert len(fast._zeros._clips) == _reuse.CLIPS
    assert len(fast._zeros._seen) <= _reuse.CLIPS


def test_what_changes_the_network_is_seen(network: Network) -> None:
    fast = stgcn_fast.optimize(network())
    x = cut(clip(2, 30), [[30, 0], [30, 0]])
    compare(fast, x)
    with torch.no_grad():
        fast.blocks[1].shift1.add_(1)
    compare(fast, x)
    other = stgcn_fast.optimize(network())
    fast.load_state_dict(other.state_dict())
    compare(fast, x)
    fast.blocks[0].graph_weight = nn.Parameter(2 * fast.blocks[0].graph_weight, requires_grad=False)
    compare(fast, x)
    with torch.inference_mode():
        fast.blocks[0].graph_weight.mul_(0.5)
    compare(fast, x)
    doubled = copy.deepcopy(fast).double()
    doubled.dtype = torch.float64
    compare(doubled, x)
    with ops.options(fast_temporal=not ops.get_options().fast_temporal):
        compare(fast, x)


def test_tensors_made_in_inference_mode_are_computed_in_full(network: Network) -> None:
    with torch.inference_mode():
        fast = stgcn_fast.optimize(network())
        x = cut(clip(2, 30), [[30, 0], [30, 0]])
        assert not any(p.is_inference() for p in fast.parameters())
        compare(fast, x)
        fast.head_weight = nn.Parameter(fast.head_weight * 2, requires_grad=False)
        reused, everything = compare(fast, x)
    assert reused == everything


def test_gradients_of_the_input_are_those_of_everything(network: Network) -> None:
    model = network().double()
    fast = stgcn_fast.optimize(model)
    x = cut(clip(2, 30).double(), [[20, 0], [30, 0]]).requires_grad_()
    (found,) = torch.autograd.grad(fast(x).square().sum(), x)
    (expected,) = torch.autograd.grad(model(x).square().sum(), x)
    torch.testing.assert_close(found, expected)
    assert found[0, :, 25:].any()


def test_reach_is_the_operators() -> None:
    dtypes = (torch.float32, torch.bfloat16)
    for taps, stride, length, dtype in product((1, 3, 9), (1, 2, 3), (1, 7, 30), dtypes):
        frames = torch.arange(1, length + 1)
        found = [_reuse.reach(int(f), length, _reuse.Step(taps, stride), dtype) for f in frames]
        assert found == ops.st_block_frames(frames, length, taps, stride, dtype).tolist()


def test_groups_hold_similar_lengths() -> None:
    groups = _reuse.groups_of([10, 0, 300, 200, 290, 11, 0, 150])
    assert sorted(i for group in groups for i in group) == [0, 2, 3, 4, 5, 7]
    assert groups[0] == [2, 4, 3]
    assert groups[-1] == [5, 0]


def test_real_clips_as_the_public_pipeline_pads_them(test_data: Path, network: Network) -> None:
    clips = []
    for skeleton in data.read_dataset(test_data / "ntu_rgbd", "ntu"):
        keypoints = torch.zeros(3, 300, 25, 2)
        for person in range(min(2, skeleton.keypoints.shape[0])):
            values = torch.as_tensor(skeleton.keypoints[person][:300]).permute(2, 0, 1)
            keypoints[:, : values.shape[1], :, person] = values.nan_to_num()
        clips.append(keypoints)
    fast = stgcn_fast.optimize(network(layout="ntu25", strides=(1, 2, 2, 1)))
    x = torch.stack(clips)
    compare(fast, x)
    reused, everything = compare(fast, x)
    if NATIVE:
        assert reused < 0.5 * everything
