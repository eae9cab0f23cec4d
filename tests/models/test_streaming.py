"""Frame by frame as in one clip."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import stgcn_fast
from stgcn_fast.models import MSG3D, STGCN, StreamingSTGCN

Network = Callable[..., STGCN]
SHAPES = {
    "three strides": {"channels": (16, 16, 32, 24), "strides": (1, 2, 1, 2)},
    "stride of three": {"channels": (8, 8, 8), "strides": (3, 1, 2), "temporal_kernel": 5},
    "short kernel": {"channels": (8, 16), "strides": (1, 2), "temporal_kernel": 3},
    "no taps": {"channels": (8, 8), "strides": (1, 2), "temporal_kernel": 1},
}


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def play(stream: StreamingSTGCN, clip: Tensor) -> list[Tensor | None]:
    return [stream(frame) for frame in clip.unbind(2)]


@torch.no_grad()
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("n", "m"), [(1, 1), (2, 2)])
def test_a_whole_clip(network: Network, shape: str, n: int, m: int) -> None:
    model = network(**SHAPES[shape])
    stream = StreamingSTGCN(model)
    for frames in (1, 2, 3, 4, 5, 8, 13, 24, 47):
        clip = torch.randn(n, 3, frames, 21, m)
        play(stream, clip)
        assert stream.frames == frames
        close(stream.finish(), model(clip))
        assert stream.frames == 0


@torch.no_grad()
@pytest.mark.parametrize("shape", SHAPES)
def test_scores_on_the_way(network: Network, shape: str) -> None:
    """Each call: the complete features of the last block, which are those of the whole clip."""
    model = network(**SHAPES[shape])
    stream = StreamingSTGCN(model)
    clip = torch.randn(2, 3, 50, 21, 2)
    last = f"block{len(model.channels)}"
    features = model.extract_features(clip, last)[last].mean(4)  # [N, M, C, T']
    for t, live in enumerate(play(stream, clip)):
        complete = (t - stream.latency) // stream.stride + 1
        assert (live is None) == (complete < 1)
        if live is not None:
            pooled = features[..., :complete].mean(3).mean(1)
            close(live, model._classify(pooled))


@torch.no_grad()
def test_preview(network: Network) -> None:
    model = network(strides=(1, 2, 1, 2))
    stream = StreamingSTGCN(model)
    clip = torch.randn(1, 3, 40, 21, 2)
    for t, frame in enumerate(clip.unbind(2)):
        stream(frame)
        close(stream.preview(), model(clip[:, :, : t + 1]))
    close(stream.finish(), model(clip))


@torch.no_grad()
def test_window(network: Network) -> None:
    model = network(strides=(1, 2, 1, 2))
    stream = StreamingSTGCN(model, window=10)  # three features of four frames
    clip = torch.randn(2, 3, 60, 21, 1)
    features = model.extract_features(clip, "block4")["block4"].mean(4)
    seen = 0
    for t, live in enumerate(play(stream, clip)):
        complete = (t - stream.latency) // stream.stride + 1
        if live is not None:
            pooled = features[..., max(0, complete - 3) : complete].mean(3).mean(1)
            close(live, model._classify(pooled))
            seen += 1
    assert seen == 60 - stream.latency
    close(stream.finish(), model(clip))


@torch.no_grad()
def test_present_persons(network: Network) -> None:
    model = network(person_pooling="present")
    clip = torch.randn(3, 3, 12, 21, 2)
    clip[0, ..., 1] = 0
    clip[1, :, :7, :, 0] = 0  # comes later
    clip[2] = 0
    stream = StreamingSTGCN(model)
    play(stream, clip)
    close(stream.finish(), model(clip))


def test_official_sizes() -> None:
    stream = StreamingSTGCN(STGCN(60))
    assert (stream.latency, stream.stride) == (76, 4)
    assert stgcn_fast.StreamingSTGCN is StreamingSTGCN


@torch.no_grad()
def test_types(network: Network) -> None:
    model = network()
    clip = torch.randn(2, 3, 24, 21, 2)
    expected = model(clip)
    small = StreamingSTGCN(model, dtype=torch.bfloat16)
    play(small, clip)
    scores = small.finish()
    assert scores.dtype == torch.float32
    assert float((scores - expected).abs().max()) < 0.05 * float(expected.abs().max())
    wide = StreamingSTGCN(copy.deepcopy(model).double())
    play(wide, clip.double())
    torch.testing.assert_close(wide.finish(), copy.deepcopy(model).double()(clip.double()))
    moved = StreamingSTGCN(model)
    moved(clip[:, :, 0])
    moved.double()
    assert moved.frames == 0
    play(moved, clip)
    scores = moved.finish()
    assert scores.dtype == torch.float64
    close(scores.float(), expected)


@torch.no_grad()
def test_of_an_optimized_model(network: Network) -> None:
    model = network(edge_importance=False)
    clip = torch.randn(1, 3, 30, 21, 1)
    stream = StreamingSTGCN(stgcn_fast.optimize(model))
    play(stream, clip)
    close(stream.finish(), model(clip))


@torch.no_grad()
def test_the_model_is_left_alone(network: Network) -> None:
    model = network().train()
    before = copy.deepcopy(model.state_dict())
    stream = StreamingSTGCN(model)
    clip = torch.randn(1, 3, 20, 21, 1)
    play(stream, clip)
    scores = stream.finish()
    assert model.training
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), before.values()))
    for parameter in model.parameters():
        parameter.zero_()
    play(stream, clip)
    assert torch.equal(stream.finish(), scores)


@torch.no_grad()
def test_clips_apart(network: Network) -> None:
    """A copy goes on by itself, a reset forgets, a new clip may have other sizes."""
    model = network()
    stream = StreamingSTGCN(model)
    clip = torch.randn(1, 3, 30, 21, 2)
    play(stream, clip[:, :, :20])
    other = copy.deepcopy(stream)
    play(stream, clip[:, :, 20:])
    play(other, clip[:, :, :20])
    close(stream.finish(), model(clip))
    close(other.finish(), model(torch.cat([clip[:, :, :20], clip[:, :, :20]], 2)))
    play(stream, clip)
    stream.reset()
    three = torch.randn(3, 3, 9, 21, 1)
    play(stream, three)
    close(stream.finish(), model(three))


def test_no_gradients(network: Network) -> None:
    stream = StreamingSTGCN(network(channels=(8,)))
    frame = torch.randn(1, 3, 21, 1, requires_grad=True)
    for _ in range(6):
        scores = stream(frame)
    assert scores is not None
    assert not scores.requires_grad
    assert not list(stream.parameters())


def test_bad_input(network: Network) -> None:
    model = network(channels=(8, 8))
    for other in (MSG3D(3, width=12), torch.nn.Linear(2, 2), None):
        with pytest.raises(TypeError, match="StreamingSTGCN: model must be an STGCN or STGCNInference, got"):
            StreamingSTGCN(other)
    with pytest.raises(TypeError, match=r"StreamingSTGCN: window must be an integer or None, got 2\.5"):
        StreamingSTGCN(model, window=2.5)
    with pytest.raises(ValueError, match="StreamingSTGCN: window must be positive, got 0"):
        StreamingSTGCN(model, window=0)
    with pytest.raises(TypeError, match=r"dtype must be the model's torch.float32, got torch.float64"):
        StreamingSTGCN(stgcn_fast.optimize(model), dtype=torch.float64)
    stream = StreamingSTGCN(model)
    for call in (stream.preview, stream.finish):
        with pytest.raises(RuntimeError, match="clips must have at least one frame, got none"):
            call()
    with pytest.raises(TypeError, match="StreamingSTGCN: frame must be a tensor, got list"):
        stream([1.0])
    with pytest.raises(TypeError, match=r"frame must be of a floating point type, got torch\.int64"):
        stream(torch.zeros(1, 3, 21, 1, dtype=torch.int64))
    for shape in ((3, 21, 1), (1, 2, 21, 1), (1, 3, 20, 1), (1, 3, 21, 0), (1, 3, 5, 21, 1)):
        with pytest.raises(
            ValueError, match=r"frame must have shape \[N, 3, 21, M\] for layout 'hand21', got"
        ):
            stream(torch.zeros(shape))
    assert stream.frames == 0
    stream(torch.zeros(2, 3, 21, 1))
    with pytest.raises(ValueError, match=r"frame must have shape \[2, 3, 21, 1\] .*, got \[1, 3, 21, 1\]"):
        stream(torch.zeros(1, 3, 21, 1))
    assert stream.frames == 1
    with pytest.raises(RuntimeError, match="mode must be evaluation"):
        stream.train()
    stream.eval()
