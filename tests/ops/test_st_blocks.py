"""st_blocks against st_block, block after block, on both backends."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from torch import Tensor

from stgcn_fast import ops

BACKENDS = ["reference", "native"]
# Inputs, outputs, taps, stride and residual of successive blocks.
CHAIN = [
    (3, 32, 9, 1, "none"),
    (32, 32, 5, 1, "identity"),
    (32, 40, 9, 2, "convolution"),
    (40, 7, 3, 3, "none"),
]


def make_blocks(
    dtype: torch.dtype = torch.float32, joints: int = 7, chain: list[Any] = CHAIN, seed: int = 0
) -> list[dict[str, Any]]:
    rng = torch.Generator().manual_seed(seed)

    def random(*shape: int, scale: float = 1.0) -> Tensor:
        return (torch.randn(shape, generator=rng, dtype=torch.float64) * scale).to(dtype)

    edges = torch.rand((3, joints, joints), generator=rng) < 0.3
    blocks = []
    for inputs, outputs, taps, stride, residual in chain:
        block: dict[str, Any] = {
            "graph_weight": random(3, outputs, inputs, scale=inputs**-0.5),
            "adjacency": random(3, joints, joints) * edges,
            "temporal_weight": random(outputs, outputs, taps, 1, scale=(outputs * taps) ** -0.5),
            "graph_bias": random(3, outputs),
            "shift1": random(outputs),
            "scale2": random(outputs),
            "stride": stride,
            "residual": residual != "none",
        }
        if residual == "convolution":
            block["residual_weight"] = random(outputs, inputs, scale=inputs**-0.5)
            block["residual_shift"] = random(outputs)
        blocks.append(block)
    return blocks


def one_by_one(x: Tensor, blocks: list[dict[str, Any]], fast: bool | None = None) -> Tensor:
    for block in blocks:
        x = ops.st_block(x, **block, fast=fast)
    return x


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_blocks_are_blocks_one_by_one(
    on_backend: Any, backend: str, layout: torch.memory_format, dtype: torch.dtype
) -> None:
    blocks = make_blocks(dtype)
    for batch, frames in ((1, 23), (4, 40), (3, 1), (0, 9), (2, 0)):
        x = torch.randn(batch, 3, frames, 7).to(dtype).contiguous(memory_format=layout)
        with on_backend(backend):
            for fast in (True, False):
                out, expected = ops.st_blocks(x, blocks, fast=fast), one_by_one(x, blocks, fast)
                assert torch.equal(out, expected)
                assert (out.dtype, out.stride()) == (expected.dtype, expected.stride())
                assert batch * frames == 0 or out.float().abs().max() > 0.1


def test_one_block_and_graphs_of_other_joints() -> None:
    x = torch.randn(2, 3, 12, 7)
    first, second = make_blocks(chain=[*CHAIN[:1], (32, 8, 3, 1, "none")])
    assert torch.equal(ops.st_blocks(x, [first]), ops.st_block(x, **first))
    first["adjacency"] = torch.randn(3, 7, 4)
    second["adjacency"] = torch.randn(1, 3, 1, 4, 9)
    out = ops.st_blocks(x, [first, second])
    assert out.shape == (2, 8, 12, 9)
    assert torch.equal(out, one_by_one(x, [first, second]))


@pytest.mark.usefixtures("native")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_threads_do_not_change_a_bit(dtype: torch.dtype) -> None:
    # Work enough for whole samples by thread, for batches that threads share evenly and for others.
    blocks = make_blocks(
        dtype, 25, [(3, 64, 9, 1, "none"), (64, 64, 9, 1, "identity"), (64, 64, 9, 1, "identity")]
    )
    x = torch.randn(6, 3, 60, 25).to(dtype).contiguous(memory_format=torch.channels_last)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3, 4, 7):
            torch.set_num_threads(threads)
            results.append(ops.st_blocks(x, blocks))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(results[0], one_by_one(x, blocks))
    assert all(torch.equal(result, results[0]) for result in results)


@pytest.mark.usefixtures("native")
def test_one_kernel_runs_all_blocks(calls: Any) -> None:
    blocks, x = make_blocks(), torch.randn(2, 3, 10, 7)
    with calls:
        ops.st_blocks(x, blocks)
    assert calls.count == {"st_blocks": 1}


def test_weights_that_change_are_seen() -> None:
    blocks, x = make_blocks(), torch.randn(2, 3, 10, 7)
    before = ops.st_blocks(x, blocks)
    blocks[1]["temporal_weight"].data[0, 0] += 1
    blocks[3]["graph_bias"].mul_(2)
    after = ops.st_blocks(x, blocks)
    assert not torch.equal(before, after)
    assert torch.equal(after, one_by_one(x, blocks))


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients(on_backend: Any, backend: str) -> None:
    blocks = make_blocks(torch.float64, 4, [(2, 3, 3, 2, "convolution"), (3, 3, 3, 1, "identity")])
    x = torch.randn(2, 2, 5, 4, dtype=torch.float64, requires_grad=True)
    weight = blocks[1]["temporal_weight"].requires_grad_()

    def public(x: Tensor, weight: Tensor) -> Tensor:
        return ops.st_blocks(x, [blocks[0], blocks[1] | {"temporal_weight": weight}])

    with on_backend(backend):
        assert torch.autograd.gradcheck(public, (x, weight), fast_mode=True)
        assert torch.autograd.gradgradcheck(public, (x, weight), fast_mode=True)
    rows = torch.func.vmap(lambda row: public(row[None], weight.detach())[0])(x.detach())
    torch.testing.assert_close(rows, public(x, weight))


def test_autocast_and_compile() -> None:
    blocks, x = make_blocks(), torch.randn(2, 3, 10, 7)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = ops.st_blocks(x, blocks)
        assert out.dtype == torch.bfloat16
        assert torch.equal(out, one_by_one(x, blocks))
    torch._dynamo.reset()
    compiled = torch.compile(
        lambda x: ops.st_blocks(x, blocks), fullgraph=True, backend="aot_eager", dynamic=True
    )
    for frames in (10, 13):
        x = torch.randn(2, 3, frames, 7)
        assert torch.equal(compiled(x), ops.st_blocks(x, blocks))
    torch._dynamo.reset()


def test_several_threads_may_call_at_once() -> None:
    blocks = make_blocks()
    inputs = [torch.randn(2, 3, 10 + i, 7) for i in range(4)]
    expected = [ops.st_blocks(x, blocks) for x in inputs]
    results: list[list[Tensor]] = [[] for _ in inputs]

    def work(i: int) -> None:
        results[i] = [ops.st_blocks(inputs[i], blocks) for _ in range(20)]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(inputs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for made, right in zip(results, expected):
        assert len(made) == 20
        assert all(torch.equal(one, right) for one in made)


def changed(i: int, **values: Any) -> list[dict[str, Any]]:
    blocks = make_blocks()
    blocks[i] |= values
    return blocks


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("x", "blocks", "error", "message"),
    [
        (torch.ones(2, 3, 4), make_blocks(), ValueError, r"x must be \[N, C, T, V\].*, got \[2, 3, 4\]"),
        (torch.ones(2, 3, 4, 7, dtype=torch.int64), make_blocks(), TypeError, "x must be .*, got .*int64"),
        (None, make_blocks(), TypeError, "x must be .*, got NoneType"),
        (torch.ones(2, 3, 4, 7), [], ValueError, "blocks must be at least one block, got none"),
        (
            torch.ones(2, 5, 4, 7),
            make_blocks(),
            ValueError,
            r"blocks\[0\]: graph_weight must be \[K, O, C\] with C = 5, got \[3, 32, 3\]",
        ),
        (
            torch.ones(2, 3, 4, 7),
            changed(2, stride=0),
            ValueError,
            r"blocks\[2\]: stride must be .*, got 0",
        ),
        (
            torch.ones(2, 3, 4, 7),
            changed(2, residual="yes"),
            TypeError,
            r"blocks\[2\]: residual must be a bool, got str",
        ),
        (
            torch.ones(2, 3, 4, 7),
            changed(1, shift1=torch.ones(31)),
            ValueError,
            r"blocks\[1\]: shift1 must be \[O\] with O = 32, got \[31\]",
        ),
        (
            torch.ones(2, 3, 4, 7),
            changed(1, adjacency=torch.ones(3, 6, 6)),
            ValueError,
            r"blocks\[1\]: adjacency must be .* V = 7, got \[3, 6, 6\]",
        ),
        (
            torch.ones(2, 3, 4, 7),
            changed(3, temporal_weight=None),
            TypeError,
            r"blocks\[3\]: temporal_weight must be .*, got NoneType",
        ),
        (
            torch.ones(2, 3, 4, 7),
            changed(0, frames=torch.ones(2)),
            ValueError,
            r"blocks\[0\] must be of graph_weight, .*, got 'frames'",
        ),
        (torch.ones(2, 3, 4, 7), [{}], ValueError, r"blocks\[0\] must be given graph_weight, got nothing"),
        (torch.ones(2, 3, 4, 7), [3], TypeError, r"blocks\[0\] must be arguments of st_block.*, got int"),
    ],
)
def test_says_what_is_wrong_in_one_line(
    on_backend: Any, backend: str, x: Any, blocks: Any, error: type[Exception], message: str
) -> None:
    with on_backend(backend), pytest.raises(error, match=f"^st_blocks: {message}") as raised:
        ops.st_blocks(x, blocks)
    assert "\n" not in str(raised.value)


@pytest.mark.usefixtures("native")
def test_the_operator_itself_checks_too() -> None:
    op, x = torch.ops.stgcn_fast.st_blocks, torch.ones(2, 3, 4, 7)
    block = make_blocks()[0]
    tensors = [
        block["graph_weight"],
        None,
        block["adjacency"][None, :, None],
        None,
        None,
        block["temporal_weight"],
    ]
    tensors += [None] * 5
    assert op(x, tensors, [1], [0], True).shape == (2, 32, 4, 7)
    for arguments, message in (
        ((x, tensors[:-1], [1], [0], True), "operands must be 11 tensors a block.*, got 10"),
        ((x, tensors, [1], [], True), "operands must be 11 tensors a block"),
        ((x, [], [], [], True), "blocks must be at least one block, got none"),
        ((x, [None, *tensors[1:]], [1], [0], True), "graph_weight must be a tensor, got None"),
        ((x, tensors, [0], [0], True), "stride must be between 1 and 2147483647, got 0"),
        ((x[:, :2], tensors, [1], [0], True), r"graph_weight must be \[K, O, C\] with C = 2"),
    ):
        with pytest.raises(RuntimeError, match=f"^st_blocks: {message}"):
            op(*arguments)
