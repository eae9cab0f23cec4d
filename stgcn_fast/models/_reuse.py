"""Features that do not depend on the sample: those of zeros, from one clip of zeros."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from stgcn_fast.ops.st_block import frame_group

CLIPS = 4
"""Lengths whose clip of zeros is kept: 19 MB each for ST-GCN at T = 300 in float32."""

_RATIO = 0.6  # of the longest clip of a group: shorter ones are better off in the next group


@dataclass(frozen=True)
class Step:
    """Geometry of one block along frames."""

    taps: int
    stride: int


@dataclass(frozen=True)
class Zeros:
    """What the network makes of a clip of zeros.

    Attributes:
        outputs: of each block, ``[1, O, T, V]``.
        sums: of the last one over joints, ``[T, O]``.
    """

    outputs: list[Tensor]
    sums: Tensor


class ZeroClips:
    """Keeps what a network makes of zeros, for a few lengths, as long as no tensor of it changes."""

    def __init__(self) -> None:
        self._clips: OrderedDict[tuple[int, Hashable], Zeros] = OrderedDict()
        self._seen: OrderedDict[tuple[int, Hashable], None] = OrderedDict()
        self._tensors: Hashable = None

    def find(
        self, frames: int, key: Hashable, tensors: Sequence[Tensor], skipped: int, make: Callable[[], Zeros]
    ) -> Zeros | None:
        """The features of a clip of zeros, if they are there or worth making.

        Args:
            frames: T.
            key: whatever else the features depend on.
            tensors: all tensors of the network.
            skipped: frames that need not be computed this time with the features at hand.
            make: computes them.
        """
        state = tuple((tensor.data_ptr(), tensor._version) for tensor in tensors)
        if state != self._tensors:
            self._clips.clear()
            self._seen.clear()
            self._tensors = state
        entry = (frames, key)
        found = self._clips.get(entry)
        if found is None:
            # Making them costs T frames: worth it if they save as many now or the length comes again.
            if skipped < frames and entry not in self._seen:
                self._seen[entry] = None
                while len(self._seen) > CLIPS:
                    self._seen.popitem(last=False)
                return None
            found = self._clips[entry] = make()
            while len(self._clips) > CLIPS:
                self._clips.popitem(last=False)
        self._clips.move_to_end(entry)
        return found


def may_reuse(x: Tensor, tensors: Sequence[Tensor]) -> bool:
    """Whether a call runs without gradients and tracing, on tensors whose changes are seen."""
    return not (
        torch.compiler.is_compiling()
        or (torch.is_grad_enabled() and (x.requires_grad or any(t.requires_grad for t in tensors)))
        or any(tensor.is_inference() for tensor in tensors)
        or type(x) is not Tensor  # a stand-in without values
    )


def length_of(rows: Tensor) -> Tensor:
    """Frames up to the last that is not all zeros: ``[N, T, D]`` -> int64 ``[N]``."""
    filled = rows.abs().amax(2) != 0  # NaN counts
    frames = rows.shape[1]
    return torch.where(filled, torch.arange(1, frames + 1, device=rows.device), 0).amax(1)


def all_filled(rows: Tensor) -> bool:
    """Whether no clip of ``[N, T, D]`` ends in a frame that is all zeros, so that nothing can be skipped."""
    if type(rows) is not Tensor or rows.numel() == 0:  # a stand-in without values
        return True
    return bool((rows[:, -1] != 0).any(1).all())


def groups_of(lengths: Sequence[int]) -> list[list[int]]:
    """Samples that hold something, longest first, in groups of similar lengths."""
    order = sorted((i for i, length in enumerate(lengths) if length > 0), key=lambda i: -lengths[i])
    groups: list[list[int]] = []
    for i in order:
        if groups and lengths[i] >= _RATIO * lengths[groups[-1][0]]:
            groups[-1].append(i)
        else:
            groups.append([i])
    return groups


def reach(frames: int, length: int, step: Step, dtype: torch.dtype) -> int:
    """Output frames of a block that may differ where the first ``frames`` of its input do.

    As :func:`stgcn_fast.ops.st_block_frames` for one sample; ``dtype`` is that of the features.
    """
    whole = (frames + step.taps // 2 + step.stride - 1) // step.stride
    group = frame_group(step.taps, step.stride, dtype)
    return min(-(-whole // group) * group, -(-length // step.stride))


def windows(frames: int, length: int, steps: Sequence[Step], dtype: torch.dtype) -> list[int]:
    """Frames of each block's input that a clip with ``frames`` filled ones needs; at the end, of the output.

    A window holds all frames that the outputs which may differ read, and is the same for blocks between which
    the number of frames stays.
    """
    needs, lengths = [], []
    for step in steps:
        frames = reach(frames, length, step, dtype)
        # Outputs are computed in whole groups, whose last one reads as far as this.
        group = frame_group(step.taps, step.stride, dtype)
        needs.append(min(length, (frames + group) * step.stride + step.taps // 2))
        lengths.append(length)
        length = -(-length // step.stride)
    found = [frames]
    for i in reversed(range(len(steps))):
        joined = i + 1 < len(steps) and steps[i].stride == 1
        found.insert(0, max(needs[i], found[0]) if joined else needs[i])
    return found


def extended(y: Tensor, rest: Tensor, frames: int) -> Tensor:
    """``[N, C, T', V]``, continued with the frames of ``rest [1, C, T, V]`` to ``frames``; channels_last."""
    present = y.shape[2]
    if present >= frames:
        return y
    rows = y.new_empty((y.shape[0], frames, y.shape[3], y.shape[1]))
    rows[:, :present] = y.permute(0, 2, 3, 1)
    rows[:, present:] = rest.permute(0, 2, 3, 1)[:, present:frames]
    return rows.permute(0, 3, 1, 2)


def run(
    y: Tensor, lengths: Sequence[int], zeros: Zeros, blocks: Sequence[nn.Module], steps: Sequence[Step]
) -> Tensor:
    """Runs blocks on samples whose frames are zeros behind their lengths.

    Args:
        y: ``[N, C, T, V]``, normalised, channels_last.
        lengths: of each sample, positive.
        zeros: features of a clip of zeros.
        blocks: take the features, the frames that may differ, and the output for zeros.
        steps: their geometry.

    Returns:
        The first frames of the output, ``[N, O, T', V]``; those behind are the features of zeros.
    """
    length = y.shape[2]
    device = y.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else y.dtype
    sizes = windows(max(lengths), length, steps, dtype)
    frames = list(lengths)
    y = y[:, :, : sizes[0]].contiguous(memory_format=torch.channels_last)
    previous: Tensor | None = None
    for block, step, rest, size in zip(blocks, steps, zeros.outputs, sizes):
        if previous is not None:
            y = extended(y, previous, size)
        kept = rest[:, :, : -(-y.shape[2] // step.stride)]
        y = block(y, torch.tensor(frames, device=y.device), kept)
        frames = [reach(count, length, step, dtype) for count in frames]
        length = -(-length // step.stride)
        previous = rest
    return y
