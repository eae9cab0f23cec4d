"""ST-GCN frame by frame: each block keeps the frames that its next output needs."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from stgcn_fast.models.optimize import optimize
from stgcn_fast.models.st_gcn import STGCN, mean_over_persons
from stgcn_fast.models.st_gcn_inference import InferenceBlock, STGCNInference

_ROOM = 2
"""Length of a buffer in kernels: its last frames move to the front once a kernel, not once a frame."""


@dataclass
class BlockState:
    """What a block remembers of its clips.

    Attributes:
        graph: ``[N M, W K, V]``, the adjacency of each person.
        features: ``[slots, N M, V, O]``, rectified results of the graph convolution, frame by frame.
        slot: where in ``features`` the next frame goes.
        residual: what the residual connection will add to outputs to come, ``[N M, V, O']`` each, in turn.
        frames: number of frames seen, those of the padding included.
    """

    graph: Tensor
    features: Tensor
    slot: int
    residual: list[Tensor | None]
    frames: int = 0

    def copy(self) -> BlockState:
        """A state that goes on by itself."""
        return replace(self, features=self.features.clone(), residual=list(self.residual))


class StreamingBlock(nn.Module):
    """One block on single frames.

    The output frame j needs the frames ``stride j - p`` to ``stride j + p`` of the block's input, ``p`` being
    half of the temporal kernel: it comes p frames late. In front of the first frame and behind the last one
    there are zeros between the two convolutions, as in a clip.

    Args:
        block: with BatchNorm folded.
    """

    weight: Tensor

    def __init__(self, block: InferenceBlock) -> None:
        super().__init__()
        partitions, middle, channels = block.graph_weight.shape
        adjacency, dtype = block.adjacency, block.graph_weight.dtype  # [K, V, W]
        self.joints, self.inner = adjacency.shape[1], partitions * channels
        self.middle, self.outputs = middle, block.temporal_weight.shape[0]
        self.taps, self.stride = block.taps, block.stride
        self.padding = block.taps // 2
        self.slots = _ROOM * self.taps
        # Aggregation comes first: [W K, V] times [V, C], whose rows are each joint's K C values.
        self._keep("graph", adjacency.permute(2, 0, 1).flatten(0, 1).to(dtype))
        self._keep("graph_weight", block.graph_weight.transpose(0, 1).flatten(1)[:, :, None, None])
        shift = block.shift1.expand(self.joints, middle)
        if block.graph_bias is not None:
            shift = shift + adjacency.sum(1).T @ block.graph_bias
        self._keep("graph_shift", shift.to(dtype))  # [V, O]
        self._keep("weight", block.temporal_weight)  # [O', O, Γ, 1]
        shift = block.shift2
        if block.residual_shift is not None:
            shift = shift + block.residual_shift
        self._keep("shift", shift.to(dtype))
        self.residual = block.residual
        projection = block.residual_weight
        self._keep("projection", None if projection is None else projection[:, :, None, None])

    def _keep(self, name: str, tensor: Tensor | None) -> None:
        self.register_buffer(name, None if tensor is None else tensor.detach().clone().contiguous())

    def start(self, persons: int) -> BlockState:
        """The state in front of clips.

        Args:
            persons: N M.
        """
        parts = cast("dict[str, Tensor]", self._buffers)
        graph = parts["graph"].repeat(persons, 1, 1)
        features = graph.new_zeros(self.slots, persons, self.joints, self.middle)
        return BlockState(graph, features, self.taps - 1, [None] * (self.padding // self.stride + 1))

    def step(self, state: BlockState, x: Tensor | None) -> Tensor | None:
        """Takes one frame.

        Args:
            state: of the clips; it is updated.
            x: ``[N M, V, C]``, or None for a frame of the padding behind the clips.

        Returns:
            The output frame ``[N M, V, O']`` that is complete now, or None.
        """
        parts = cast("dict[str, Any]", self._buffers)
        features, taps = state.features, self.taps
        if state.slot == self.slots:
            state.slot = taps - 1
            features[: taps - 1] = features[self.slots - taps + 1 :]
        slot, place = state.slot, features[state.slot]
        if x is None:
            place.zero_()
        else:
            aggregated = torch.bmm(state.graph, x).view(*place.shape[:2], self.inner)
            y = _convolved(aggregated[None], parts["graph_weight"], None)
            torch.clamp_min(y.view(place.shape).add_(parts["graph_shift"]), 0, out=place)
            if self.residual and state.frames % self.stride == 0:
                turn = state.frames // self.stride % len(state.residual)
                if parts["projection"] is not None:
                    x = _convolved(x[None], parts["projection"], None).view(*place.shape[:2], self.outputs)
                state.residual[turn] = x
        frame, wait = divmod(state.frames - self.padding, self.stride)
        state.frames += 1
        state.slot += 1
        if frame < 0 or wait:
            return None
        window = features[slot - taps + 1 : slot + 1]
        out = _convolved(window, parts["weight"], parts["shift"]).view(*place.shape[:2], self.outputs)
        added = state.residual[frame % len(state.residual)]
        return (out if added is None else out.add_(added)).relu_()


def _convolved(frames: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Convolution of all frames: ``[Γ, N M, V, C]`` -> ``[1, 1, N M V, O]``.

    Persons lie beside each other like joints, so that a run of frames is one piece of memory in channels_last
    format.
    """
    x = frames.view(1, len(frames), -1, frames.shape[3]).permute(0, 3, 1, 2)
    y: Tensor = torch.ops.stgcn_fast.temporal_conv(x, weight, bias, 1, 0, 1, False)
    return y.permute(0, 2, 3, 1)


class StreamingSTGCN(nn.Module):
    """ST-GCN that takes one frame at a time, for live scores: a frame costs a frame's work, not a clip's.

    Call it with frame after frame of N clips; :meth:`finish` ends them. Features are those of the clip model:
    the blocks see the same zeros in front of the first frame and, in :meth:`finish`, behind the last one. A
    feature of the last block is complete when the frames of its receptive field that lie ahead are there,
    ``latency`` frames after the one it is centred on.

    - A call gives the classifier of the mean of the complete features, which no later frame changes.
    - :meth:`preview` and :meth:`finish` give what the clip model gives for the frames so far.

    Attributes:
        latency: frames between the one that a feature of the last block is centred on and its completion.
        stride: frames between two features of the last block.
        frames: number of frames seen.

    Args:
        model: an :class:`STGCN`, in whatever mode, or what :func:`stgcn_fast.optimize` makes of one; it is
            left as it is.
        window: if given, calls score the last so many frames (rounded up to whole features) instead of all.
        dtype: type of weights and features as for :func:`stgcn_fast.optimize`; None keeps the network's.

    Raises:
        TypeError: the model is another one, or the window is no integer.
        ValueError: the window is not positive, or the network was changed beyond what can be folded.

    Examples:
        >>> model = STGCN(4, layout="hand21", channels=(8, 8)).eval()
        >>> stream, clip = StreamingSTGCN(model), torch.randn(1, 3, 20, 21, 1)
        >>> for frame in clip.unbind(2):
        ...     live = stream(frame)
        >>> torch.allclose(stream.finish(), model(clip), atol=1e-5)
        True
    """

    def __init__(
        self,
        model: STGCN | STGCNInference,
        window: int | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(model, (STGCN, STGCNInference)):
            raise TypeError(
                f"StreamingSTGCN: model must be an STGCN or STGCNInference, got {type(model).__name__}"
            )
        if isinstance(window, bool) or not isinstance(window, (int, type(None))):
            raise TypeError(f"StreamingSTGCN: window must be an integer or None, got {window!r}")
        if window is not None and window < 1:
            raise ValueError(f"StreamingSTGCN: window must be positive, got {window}")
        if isinstance(model, STGCN) or (dtype is not None and dtype != model.dtype):
            if not isinstance(model, STGCN):
                raise TypeError(f"StreamingSTGCN: dtype must be the model's {model.dtype}, got {dtype}")
            model = cast(STGCNInference, optimize(model, dtype=dtype))
        self.in_channels, self.num_joints = model.in_channels, model.num_joints
        self.person_pooling, self.layout_name = model.person_pooling, model.layout_name
        self.window = window
        self.register_buffer("data_scale", model.data_scale.detach().view(self.num_joints, -1).clone())
        self.register_buffer("data_shift", model.data_shift.detach().view(self.num_joints, -1).clone())
        self.register_buffer("head_weight", model.head_weight.detach().clone())
        bias = model.head_bias
        self.register_buffer("head_bias", None if bias is None else bias.detach().clone())
        blocks = [StreamingBlock(block) for block in cast(Sequence[InferenceBlock], model.blocks)]
        self.blocks = nn.ModuleList(blocks)
        self.stride, self.latency = 1, 0
        for block in blocks:
            self.latency += self.stride * block.padding
            self.stride *= block.stride
        self.reset()

    @property
    def dtype(self) -> torch.dtype:
        """Type of weights and features."""
        return self._each()[0].weight.dtype

    def reset(self) -> None:
        """Forgets the clips."""
        self._states: list[BlockState] = []
        self._shape: tuple[int, ...] | None = None
        self._present: Tensor | None = None
        self._sums: Tensor | None = None
        self._count = 0
        self._last: Tensor | None = None
        kept = None if self.window is None else -(-self.window // self.stride)
        self._recent: deque[Tensor] = deque(maxlen=kept if kept is not None else 0)
        self.frames = 0

    def forward(self, frame: Tensor) -> Tensor | None:
        """Takes one frame of each clip.

        Args:
            frame: ``[N, C, V, M]`` of any floating point type; N and M are those of the clips' first frame.

        Returns:
            Logits ``[N, num_classes]`` of the features that are complete, in float32 (float64 for float64);
            None until there is one, for the first ``latency`` frames. They change every ``stride`` frames.

        Raises:
            TypeError: the frame is not a floating point tensor.
            ValueError: its shape does not fit the layout, the number of channels, or the clips' first frame.
        """
        self._check(frame)
        with torch.no_grad():
            self._last = self._advance(frame)
        return self._last

    def preview(self) -> Tensor:
        """Scores as if the clips ended here: the clip model's on the frames so far. The clips go on.

        It costs about as much as a clip of ``latency`` frames.

        Returns:
            Logits ``[N, num_classes]``.

        Raises:
            RuntimeError: no frame was given.
        """
        return self._end("preview", [state.copy() for state in self._states])

    def finish(self) -> Tensor:
        """Ends the clips and forgets them.

        Returns:
            Logits ``[N, num_classes]`` of the clip model on all frames since the start, whatever the window.

        Raises:
            RuntimeError: no frame was given.
        """
        scores = self._end("finish", self._states)
        self.reset()
        return scores

    def train(self, mode: bool = True) -> StreamingSTGCN:
        """Stays in evaluation mode.

        Raises:
            RuntimeError: training mode is asked for.
        """
        if mode:
            raise RuntimeError("StreamingSTGCN: mode must be evaluation; train the network it was made of")
        super().train(False)
        return self

    def extra_repr(self) -> str:
        """The times, for ``print``."""
        return f"stride={self.stride}, latency={self.latency}, window={self.window}, dtype={self.dtype}"

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        self.reset()  # what was remembered is of the old type or device
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call]

    def _check(self, frame: Tensor) -> None:
        if not isinstance(frame, Tensor):
            raise TypeError(f"StreamingSTGCN: frame must be a tensor, got {type(frame).__name__}")
        if not frame.is_floating_point():
            raise TypeError(f"StreamingSTGCN: frame must be of a floating point type, got {frame.dtype}")
        if frame.shape == self._shape:
            return
        n, m = "N", "M"
        if self._shape is not None:
            n, m = str(self._shape[0]), str(self._shape[3])
        fits = frame.dim() == 4 and (frame.shape[1], frame.shape[2]) == (self.in_channels, self.num_joints)
        if not fits or self._shape is not None or frame.shape[3] == 0:
            raise ValueError(
                f"StreamingSTGCN: frame must have shape [{n}, {self.in_channels}, {self.num_joints}, {m}] "
                f"for layout {self.layout_name!r}, got {list(frame.shape)}"
            )

    def _advance(self, frame: Tensor) -> Tensor | None:
        n, c, v, m = frame.shape
        if self._shape is None:
            self._shape = tuple(frame.shape)
            self._states = [block.start(n * m) for block in self._each()]
        self.frames += 1
        scale, shift = self._buffers["data_scale"], self._buffers["data_shift"]
        rows = frame.permute(0, 3, 2, 1).reshape(n * m, v, c)
        if self.person_pooling != "all":
            present = rows.flatten(1).abs().amax(1) != 0
            self._present = present if self._present is None else self._present | present
        assert scale is not None
        assert shift is not None
        y: Tensor | None = torch.addcmul(shift, rows.to(scale.dtype), scale).to(self.dtype)
        for block, state in zip(self._each(), self._states):
            y = block.step(state, y)
            if y is None:
                return self._last
        assert y is not None
        sums = self._pooled(y)
        self._sums = sums if self._sums is None else self._sums + sums
        self._count += 1
        if self.window is None:
            return self._scores(self._sums, self._count)
        self._recent.append(sums)
        return self._scores(torch.stack(tuple(self._recent)).sum(0), len(self._recent))

    def _end(self, caller: str, states: list[BlockState]) -> Tensor:
        if not states:
            raise RuntimeError(f"StreamingSTGCN.{caller}: clips must have at least one frame, got none")
        with torch.no_grad():
            pending: list[Tensor] = []
            for block, state in zip(self._each(), states):
                frames: list[Tensor | None] = [*pending, *[None] * block.padding]
                outputs = [block.step(state, x) for x in frames]
                pending = [y for y in outputs if y is not None]
            sums, count = self._sums, self._count
            for y in pending:
                sums = self._pooled(y) if sums is None else sums + self._pooled(y)
                count += 1
            assert sums is not None
            return self._scores(sums, count)

    def _each(self) -> list[StreamingBlock]:
        return cast("list[StreamingBlock]", list(self.blocks))

    def _pooled(self, y: Tensor) -> Tensor:
        """Sums over joints, in float64: a stream may be long. ``[N M, V, C]`` -> ``[N M, C]``."""
        return y.sum(1, dtype=torch.float32 if y.dtype != torch.float64 else torch.float64).double()

    def _scores(self, sums: Tensor, count: int) -> Tensor:
        weight, bias = self._buffers["head_weight"], self._buffers["head_bias"]
        assert weight is not None
        assert self._shape is not None
        n, m = self._shape[0], self._shape[3]
        persons = (sums / (count * self.num_joints)).view(n, m, -1).to(weight.dtype)
        if self._present is None:
            pooled = persons.mean(1)
        else:
            pooled = mean_over_persons(
                persons, self._present.view(n, 1, 1, 1, m).to(persons.dtype), "present"
            )
        return nn.functional.linear(pooled, weight, bias)
