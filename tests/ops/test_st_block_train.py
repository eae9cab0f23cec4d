"""st_block_train against the block written with torch's own modules, on both backends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from stgcn_fast import ops
from stgcn_fast.ops import _dropout

BACKENDS = ["native", "reference"]
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4}


class Block:
    """One call: tensors by name, and numbers."""

    def __init__(
        self,
        sizes: tuple[int, int, int, int] = (2, 4, 7, 5),
        outputs: int = 4,
        taps: int = 3,
        stride: int = 1,
        residual: str = "identity",
        dropout: float = 0.0,
        dtype: torch.dtype = torch.float64,
        layout: str = "contiguous",
        bias: bool = True,
        partitions: int = 2,
        seed: int = 0,
        mean: float = 0.0,
    ) -> None:
        rng = torch.Generator().manual_seed(seed)

        def random(*shape: int) -> Tensor:
            return torch.randn(shape, generator=rng, dtype=torch.float64).to(dtype)

        _, channels, _, joints = sizes
        self.stride, self.dropout, self.dtype = stride, dropout, dtype
        self.residual = residual
        self.numbers = {"eps1": 1e-3, "eps2": 1e-4, "eps_r": 1e-5}
        self.seed = torch.tensor(seed * 7919 + 2**40 + 3)
        kept = (torch.rand(partitions, joints, joints, generator=rng) < 0.3).to(dtype)
        adjacency = kept * (0.5 + random(partitions, joints, joints).abs())
        self.support = kept
        t: dict[str, Tensor | None] = {
            "x": laid_out(random(*sizes) + mean, layout),
            "graph_weight": random(partitions, outputs, channels) / channels**0.5,
            "graph_bias": random(partitions, outputs) if bias else None,
            "adjacency": adjacency,
            "weight1": 0.5 + random(outputs).abs(),
            "bias1": random(outputs),
            "temporal_weight": random(outputs, outputs, taps, 1) / (outputs * taps) ** 0.5,
            "temporal_bias": random(outputs) if bias else None,
            "weight2": random(outputs),
            "bias2": random(outputs),
        }
        if residual == "conv":
            t |= {
                "residual_weight": random(outputs, channels) / channels**0.5,
                "residual_bias": random(outputs) if bias else None,
                "weight_r": random(outputs),
                "bias_r": random(outputs),
            }
        self.tensors = {name: value for name, value in t.items() if value is not None}

    def run(self, tensors: dict[str, Tensor], **changes: Any) -> tuple[Tensor, Tensor]:
        arguments: dict[str, Any] = {"graph_bias": None, "temporal_bias": None, "support": self.support}
        arguments |= {"stride": self.stride, "dropout": self.dropout, "residual": self.residual != "none"}
        arguments |= {"seed": self.seed, **self.numbers, **tensors, **changes}
        return ops.st_block_train(**arguments)

    def plain(self, t: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The same from einsum, conv2d and batch_norm."""
        inside = torch.einsum("koc,nctv->nkotv", t["graph_weight"], t["x"])
        if "graph_bias" in t:
            inside = inside + t["graph_bias"][:, :, None, None]
        y = torch.einsum("nkotv,kvw->notw", inside, t["adjacency"])
        first = F.batch_norm(y, None, None, t["weight1"], t["bias1"], True, eps=self.numbers["eps1"])
        kernel = t["temporal_weight"]
        padding = (kernel.shape[2] - 1) // 2
        z = F.conv2d(first.relu(), kernel, t.get("temporal_bias"), (self.stride, 1), (padding, 0))
        total = F.batch_norm(z, None, None, t["weight2"], t["bias2"], True, eps=self.numbers["eps2"])
        if self.dropout:
            total = total * _dropout.factors(tuple(z.shape), self.dropout, self.seed, z.dtype)  # type: ignore[arg-type]
        statistics = [moments(y), moments(z), torch.zeros_like(moments(z))]
        if self.residual == "conv":
            kernel_r = t["residual_weight"][:, :, None, None]
            r = F.conv2d(t["x"], kernel_r, t.get("residual_bias"), (self.stride, 1))
            statistics[2] = moments(r)
            total = total + F.batch_norm(r, None, None, t["weight_r"], t["bias_r"], True, eps=1e-5)
        elif self.residual == "identity":
            total = total + t["x"]
        return total.relu(), torch.stack(statistics)


def moments(x: Tensor) -> Tensor:
    return torch.stack([x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)])


def laid_out(x: Tensor, layout: str) -> Tensor:
    if layout == "channels_last":
        return x.contiguous(memory_format=torch.channels_last)
    if layout == "strided":
        return x.new_empty([2 * size for size in x.shape])[::2, 1::2, ::2, ::2].copy_(x)
    return x


def assert_near(name: str, actual: Tensor, expected: Tensor, tolerance: float) -> None:
    assert actual.shape == expected.shape, name
    scale = 1.0 + expected.abs().max().item() if expected.numel() else 1.0
    error = (actual.double() - expected).abs().max().item() if expected.numel() else 0.0
    assert error <= tolerance * scale, f"{name}: {error} of {scale}"


def compare(block: Block, tolerance: float) -> None:
    exact = {name: t.detach().double().requires_grad_() for name, t in block.tensors.items()}
    expected, statistics = block.plain(exact)
    upstream = torch.randn(expected.shape, dtype=torch.float64).to(block.dtype)
    # Where the sum is near zero, rounding decides which side of the ReLU it is on.
    upstream = torch.where(expected.abs() < 30 * tolerance, 0.0, upstream).to(block.dtype)
    wanted = torch.autograd.grad(expected, list(exact.values()), upstream.double())

    leaves = {name: t.detach().requires_grad_() for name, t in block.tensors.items()}
    out, found = block.run(leaves)
    grads = torch.autograd.grad(out, list(leaves.values()), upstream)
    assert out.dtype == block.dtype
    assert_near("out", out, expected, tolerance)
    assert_near("statistics", found, statistics, tolerance)
    for name, grad, want in zip(leaves, grads, wanted):
        if name in ("temporal_bias", "residual_bias"):
            assert not grad.any()
            continue
        if name == "adjacency":
            want = want * block.support.double()
        assert_near(name, grad, want, tolerance * 100)


blocks = st.builds(
    Block,
    st.tuples(
        st.integers(1, 3),
        st.sampled_from([16, 17, 32]),
        st.sampled_from([2, 3, 5, 13]),
        st.sampled_from([2, 5, 18]),
    ),
    st.sampled_from([3, 16, 20, 33]),
    st.sampled_from([1, 3, 9]),
    st.integers(1, 3),
    st.sampled_from(["conv", "none"]),
    st.sampled_from([0.0, 0.3]),
    st.sampled_from([torch.float64]),
    st.sampled_from(["contiguous", "channels_last", "strided"]),
    st.booleans(),
    st.integers(1, 3),
    st.integers(0, 1000),
)


@pytest.mark.parametrize("backend", BACKENDS)
@given(block=blocks)
@settings(max_examples=40)
def test_values_and_gradients_follow_the_definition(on_backend: Any, backend: str, block: Block) -> None:
    with on_backend(backend):
        compare(block, 1e-9)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize(
    ("channels", "outputs", "stride", "residual", "dropout"),
    [
        (32, 32, 1, "identity", 0.0),
        (32, 32, 1, "identity", 0.5),
        (20, 20, 1, "identity", 0.5),
        (3, 48, 1, "none", 0.25),
        (16, 32, 2, "conv", 0.5),
        (33, 20, 2, "conv", 0.0),
        (32, 64, 3, "conv", 0.1),
    ],
)
def test_real_sizes(
    on_backend: Any,
    backend: str,
    dtype: torch.dtype,
    layout: str,
    channels: int,
    outputs: int,
    stride: int,
    residual: str,
    dropout: float,
) -> None:
    block = Block((2, channels, 40, 25), outputs, 9, stride, residual, dropout, dtype, layout, True, 3)
    with on_backend(backend):
        compare(block, 1e-9 if dtype == torch.float64 else 2e-5)
        out, _ = block.run(block.tensors)
    assert out.is_contiguous(memory_format=torch.channels_last) == (layout == "channels_last")
    assert out.is_contiguous() == (layout == "contiguous")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("residual", "stride", "dropout"), [("identity", 1, 0.3), ("conv", 2, 0.3), ("none", 1, 0.0)]
)
def test_first_and_second_derivatives(
    on_backend: Any, backend: str, residual: str, stride: int, dropout: float
) -> None:
    block = Block((2, 3, 5, 2), 3, 3, stride, residual, dropout, partitions=1)
    block.support = torch.ones_like(block.support)
    names = [name for name in block.tensors if name not in ("temporal_bias", "residual_bias")]
    leaves = [block.tensors[name].requires_grad_() for name in names]

    def run(*tensors: Tensor) -> Tensor:
        return block.run(block.tensors | dict(zip(names, tensors)))[0]

    with on_backend(backend):
        assert torch.autograd.gradcheck(run, leaves)
        assert torch.autograd.gradgradcheck(run, leaves, fast_mode=True)

        def penalty(*tensors: Tensor) -> tuple[Tensor, ...]:
            first = torch.autograd.grad(run(*tensors).pow(2).sum(), tensors, create_graph=True)
            return torch.autograd.grad(sum(g.pow(2).sum() for g in first), tensors, create_graph=True)

        assert torch.autograd.gradcheck(penalty, leaves, fast_mode=True)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dropout", [0.0, 0.1, 0.5, 0.9, 1.0, 1e-7])
def test_dropout_drops_the_share_it_says_and_keeps_the_mean(
    on_backend: Any, backend: str, dropout: float
) -> None:
    block = Block((4, 16, 30, 25), 16, 1, 1, "none", dropout, torch.float32, "channels_last")
    ones = {"weight2": torch.zeros(16), "bias2": torch.ones(16)}
    with on_backend(backend):
        out, _ = block.run(block.tensors | ones)
        again, _ = block.run(block.tensors | ones)
        other, _ = block.run(block.tensors | ones, seed=torch.tensor(5))
    assert torch.equal(out, again)
    share = (out == 0).float().mean().item()
    assert abs(share - dropout) <= 4 * (dropout * (1 - dropout) / out.numel()) ** 0.5 + 1e-6
    if 0.01 < dropout < 1:
        torch.testing.assert_close(out.max(), torch.tensor(1 / (1 - dropout)), rtol=1e-4, atol=0)
        assert not torch.equal(out, other)
        # Neither the same channels nor the same frames in every sample.
        kept = (out != 0).float()
        assert abs(torch.corrcoef(torch.stack([kept[0].flatten(), kept[1].flatten()]))[0, 1]) < 0.05
        assert abs(torch.corrcoef(torch.stack([kept[:, 0].flatten(), kept[:, 1].flatten()]))[0, 1]) < 0.05
    wanted = _dropout.factors(tuple(out.shape), dropout, block.seed, torch.float32)  # type: ignore[arg-type]
    assert torch.equal(out != 0, wanted != 0)


def test_philox_has_the_published_values() -> None:
    words = _dropout.philox(torch.tensor(0), torch.tensor(0))
    assert [int(w) for w in words] == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    # Any 128 consecutive elements start anywhere: a longer tensor begins with the shorter one's draws.
    seed = torch.tensor(-(2**62) + 12345)
    short = _dropout.factors((1, 3, 5, 7), 0.5, seed, torch.float32).permute(0, 2, 3, 1).flatten()
    long = _dropout.factors((2, 3, 11, 7), 0.5, seed, torch.float32).permute(0, 2, 3, 1).flatten()
    assert torch.equal(short, long[: short.numel()])


def test_torchs_seed_governs_when_none_is_given() -> None:
    block = Block((2, 8, 9, 5), 8, 3, 1, "identity", 0.5, torch.float32)
    results = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        results.append((block.run(block.tensors, seed=None)[0], block.run(block.tensors, seed=None)[0]))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])
    assert not torch.equal(results[0][0], results[2][0])
    assert not torch.equal(results[0][0], results[0][1])


@pytest.mark.parametrize("backend", BACKENDS)
def test_statistics_are_exact_when_the_mean_is_large(on_backend: Any, backend: str) -> None:
    block = Block((8, 1, 60, 25), 16, 3, 1, "conv", 0.0, torch.float32, "channels_last", False, 1, mean=1e3)
    block.tensors["graph_weight"] = torch.ones(1, 16, 1)
    block.tensors["adjacency"] = torch.eye(25)[None]
    block.tensors["residual_weight"] = torch.ones(16, 1)
    exact = {name: t.double() for name, t in block.tensors.items()}
    expected, statistics = block.plain(exact)
    with on_backend(backend):
        out, found = block.run(block.tensors, support=None)
    torch.testing.assert_close(found[[0, 2], 0].double(), statistics[[0, 2], 0], rtol=1e-6, atol=0)
    # float32 has a spacing of 6e-5 at 1,000; the deviation is 1.
    torch.testing.assert_close(found[[0, 2], 1].double(), statistics[[0, 2], 1], rtol=1e-5, atol=0)
    torch.testing.assert_close(out.double(), expected, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("backend", BACKENDS)
def test_not_a_number_spreads_as_in_torch(on_backend: Any, backend: str) -> None:
    block = Block((2, 16, 6, 5), 16, 3, 1, "identity", 0.0, torch.float32, "channels_last")
    block.tensors["x"][1, 2, 3, 4] = torch.nan
    with on_backend(backend):
        out, statistics = block.run(block.tensors)
    # One value spoils its channels' mean, and so the whole batch.
    assert out.isnan().all()
    assert statistics[:2].isnan().all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("sizes", [(0, 4, 6, 5), (2, 4, 0, 5)])
def test_a_batch_without_elements(on_backend: Any, backend: str, sizes: tuple[int, int, int, int]) -> None:
    block = Block(sizes, 4, 3, 1, "identity", 0.5)
    del block.tensors["temporal_bias"]
    leaves = {name: t.requires_grad_() for name, t in block.tensors.items()}
    with on_backend(backend):
        out, statistics = block.run(leaves)
        grads = torch.autograd.grad(out.sum(), list(leaves.values()))
    assert out.shape == sizes
    assert not statistics.any()
    assert all(g.shape == t.shape and not g.any() for g, t in zip(grads, leaves.values()))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_lower_precision_stays_near(on_backend: Any, backend: str, dtype: torch.dtype) -> None:
    block = Block((2, 32, 40, 25), 32, 9, 1, "identity", 0.5, dtype, "channels_last", True, 3)
    exact = {name: t.detach().double().requires_grad_() for name, t in block.tensors.items()}
    expected, statistics = block.plain(exact)
    upstream = torch.randn(expected.shape).to(dtype)
    wanted = torch.autograd.grad(expected, list(exact.values()), upstream.double())
    leaves = {name: t.detach().requires_grad_() for name, t in block.tensors.items()}
    with on_backend(backend):
        out, found = block.run(leaves)
        grads = torch.autograd.grad(out, list(leaves.values()), upstream)
    assert out.dtype == dtype
    assert found.dtype == torch.float32
    assert_near("out", out, expected, 0.02 if dtype == torch.bfloat16 else 0.004)
    assert_near("statistics", found, statistics, 0.02)
    # torch's own layers in this dtype, which round every intermediate, are what the limit may follow.
    rounded = {name: t.detach().requires_grad_() for name, t in block.tensors.items()}
    usual = torch.autograd.grad(block.plain(rounded)[0], list(rounded.values()), upstream)
    for name, grad, want, other in zip(leaves, grads, wanted, usual):
        if name not in ("temporal_bias", "residual_bias"):
            if name == "adjacency":
                want, other = want * block.support.double(), other * block.support
            apart, theirs = ((g.double() - want).norm() / want.norm() for g in (grad, other))
            limit = 0.1 if dtype == torch.bfloat16 else 0.05
            assert apart < limit or apart <= 1.5 * theirs, (name, apart, theirs)


@pytest.mark.parametrize("needed", [("graph_weight", "weight2"), ("x",), ("adjacency",), ("bias2",)])
def test_only_some_gradients(needed: tuple[str, ...]) -> None:
    block = Block((2, 8, 9, 5), 8, 3, 1, "identity", 0.5, torch.float64)
    everything = {name: t.detach().requires_grad_() for name, t in block.tensors.items()}
    out, _ = block.run(everything)
    wanted = torch.autograd.grad(out.square().sum(), [everything[name] for name in needed])
    some = block.tensors | {name: block.tensors[name].detach().requires_grad_() for name in needed}
    out, _ = block.run(some)
    out.square().sum().backward()
    for name, want in zip(needed, wanted):
        torch.testing.assert_close(some[name].grad, want)


def on_threads(run: Callable[[], list[Tensor]]) -> list[list[Tensor]]:
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(run())
    finally:
        torch.set_num_threads(before)
    return results


@pytest.mark.parametrize(("residual", "stride"), [("identity", 1), ("conv", 2)])
def test_results_do_not_depend_on_the_number_of_threads(residual: str, stride: int) -> None:
    if not ops._native.load().loaded:
        pytest.skip("the reference leaves its threads to torch")
    block = Block((3, 32, 61, 25), 32, 9, stride, residual, 0.5, torch.float32, "channels_last", True, 3)
    leaves = {name: t.detach().requires_grad_() for name, t in block.tensors.items()}

    def run() -> list[Tensor]:
        out, statistics = block.run(leaves)
        return [out, statistics, *torch.autograd.grad(out.square().sum(), list(leaves.values()))]

    first, *others = on_threads(run)
    for other in others:
        assert all(torch.equal(a, b) for a, b in zip(first, other))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_keeps_normalisation_in_float32(dtype: torch.dtype) -> None:
    block = Block((2, 16, 20, 25), 16, 9, 1, "identity", 0.5, torch.float32, "channels_last", True, 3)
    leaves = {name: t.detach().requires_grad_() for name, t in block.tensors.items()}
    expected, exact = block.run(leaves)
    with torch.autocast("cpu", dtype=dtype):
        out, statistics = block.run(leaves)
    assert out.dtype == dtype
    assert statistics.dtype == torch.float32
    torch.testing.assert_close(out.float(), expected, rtol=0.1, atol=0.1)
    torch.testing.assert_close(statistics, exact, rtol=0.02, atol=0.02)
    grads = torch.autograd.grad(out.float().sum(), list(leaves.values()))
    assert all(g.dtype == torch.float32 and g.isfinite().all() for g in grads)


@pytest.mark.parametrize("backend", BACKENDS)
def test_checkpointing_drops_the_same_again(on_backend: Any, backend: str) -> None:
    block = Block((2, 16, 9, 5), 16, 3, 1, "identity", 0.5, torch.float64)
    leaves = {name: t.detach().requires_grad_() for name, t in block.tensors.items()}
    results = []
    with on_backend(backend):
        for again in (None, False, True):
            torch.manual_seed(3)

            def run(x: Tensor) -> Tensor:
                return block.run(leaves | {"x": x}, seed=None)[0]

            x = leaves["x"]
            out = run(x) if again is None else checkpoint(run, x, use_reentrant=again)
            leaves["x"].grad = None
            out.square().sum().backward()
            results.append([out, leaves["x"].grad])
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other))


def test_compiled_with_dynamic_batch_and_frames() -> None:
    block = Block((2, 16, 9, 5), 16, 3, 1, "identity", 0.5, torch.float32, "channels_last")

    def run(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        return block.run(block.tensors | {"x": x, "temporal_weight": weight})

    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    weight = block.tensors["temporal_weight"].requires_grad_()
    torch._dynamo.reset()
    with torch._dynamo.config.patch(error_on_recompile=True):
        for n, t in [(2, 9), (3, 10), (4, 21)]:
            x = torch.randn(n, 16, t, 5).contiguous(memory_format=torch.channels_last).requires_grad_()
            torch._dynamo.mark_dynamic(x, 0)
            torch._dynamo.mark_dynamic(x, 2)
            results = []
            for way in (run, compiled):
                out, statistics = way(x, weight)
                results.append([out, statistics, *torch.autograd.grad(out.square().sum(), [x, weight])])
            for plain, traced in zip(*results):
                torch.testing.assert_close(plain, traced)
    torch._dynamo.reset()
