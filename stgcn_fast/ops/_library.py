"""The `stgcn_fast` operator namespace and the rules that every operator shares."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

NAMESPACE = "stgcn_fast"
LIBRARY: Any = torch.library.Library(NAMESPACE, "FRAGMENT")  # type: ignore[no-untyped-call]

AUTOCAST_DEVICES = ("cpu", "cuda")

_references: dict[torch._ops.OpOverload, Callable[..., Any]] = {}


def define(
    schema: str, reference: Callable[..., Any], fake: Callable[..., Any], *, plain: bool = True
) -> torch._ops.OpOverload:
    """Define one operator with its pure-PyTorch reference and its fake kernel.

    The reference is registered for every device. A compiled kernel, where one exists, is
    registered for its own device only and is then preferred there.

    Args:
        schema: operator schema without the namespace.
        reference: runs the operator with plain PyTorch.
        fake: returns an empty output of the right shape, dtype and strides.
        plain: the reference is made of PyTorch's own operators, so a graph may be decomposed into it.

    Returns:
        The operator's default overload.
    """
    name = schema.split("(", 1)[0]
    LIBRARY.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    LIBRARY.impl(name, reference, "CompositeExplicitAutograd")
    torch.library.register_fake(f"{NAMESPACE}::{name}", fake, lib=LIBRARY)
    overload: torch._ops.OpOverload = getattr(getattr(torch.ops, NAMESPACE), name).default
    if plain:
        _references[overload] = reference
    return overload


def decompositions() -> dict[torch._ops.OpOverload, Callable[..., Any]]:
    """Every operator that has a pure-PyTorch reference, with it.

    Pass it to `torch.export.ExportedProgram.run_decompositions` to obtain a graph of plain
    PyTorch operators, for example for ONNX.
    """
    return dict(_references)


def register_derivative(
    op: torch._ops.OpOverload, backward: Callable[..., Any], setup_context: Callable[..., None]
) -> None:
    """What `torch.library.register_autograd` does, for operators whose arguments have no defaults.

    torch's own looks for defaults argument by argument on every call, which for an operator of many arguments
    takes longer than everything else around the kernel.

    Args:
        op: operator overload.
        backward: `(ctx, *gradients of the outputs) -> gradients of the inputs`, one for each argument.
        setup_context: `(ctx, inputs, output)`; saves what `backward` needs.
    """

    def below(keyset: torch._C.DispatchKeySet, *args: object) -> Any:
        with torch._C._AutoDispatchBelowAutograd():
            return op.redispatch(keyset & torch._C._after_autograd_keyset, *args)

    def forward(ctx: Any, keyset: torch._C.DispatchKeySet, *args: object) -> Any:
        output = below(keyset, *args)
        with torch._C._AutoDispatchBelowAutograd():
            setup_context(ctx, args, output)
        return output

    def run_backward(ctx: Any, *gradients: Tensor | None) -> tuple[Any, ...]:
        return (None, *backward(ctx, *gradients))

    members = {"forward": staticmethod(forward), "backward": staticmethod(run_backward)}
    function: Any = type(f"{op._opname}_derivative", (torch.autograd.Function,), members)

    def kernel(keyset: torch._C.DispatchKeySet, *args: Any) -> Any:
        if torch.is_grad_enabled() and torch._C._any_requires_grad(*args):
            return function.apply(keyset, *args)
        return below(keyset, *args)

    LIBRARY.impl(op, kernel, "Autograd", with_keyset=True)


def asked(ctx: Any, count: int) -> tuple[bool, ...]:
    """Which of an operator's first inputs this backward pass needs the gradient of.

    `ctx.needs_input_grad` alone says which could have one: `torch.autograd.grad` by features would pay for
    the gradient of every weight on its way. The pass itself knows where it goes.

    Args:
        ctx: context of the derivative, for which :func:`remember` was called.
        count: number of inputs to tell about.
    """
    needed = list(ctx.needs_input_grad[:count])
    nodes = getattr(ctx, "next_functions", None)
    if nodes is None or len(nodes) != len(ctx.tensors) or torch.compiler.is_compiling():
        return tuple(needed)
    for position, (node, _) in zip(ctx.tensors, nodes):
        if position < count and needed[position] and node is not None:
            try:
                needed[position] = torch._C._will_engine_execute_node(node)
            except RuntimeError:  # a leaf that autograd.grad may have been asked for
                needed[position] = True
    return tuple(needed)


def remember(ctx: Any, inputs: tuple[Any, ...]) -> None:
    """Keep the positions of the tensors among an operator's inputs, for :func:`asked`."""
    ctx.tensors = tuple(i for i, value in enumerate(inputs) if isinstance(value, Tensor))


def register_autocast(op: torch._ops.OpOverload, keep: tuple[int, ...] = ()) -> None:
    """Make an operator follow the dtype that the user's autocast region asks for.

    Inputs are cast as `torch.nn.functional.conv2d` casts them: every floating-point tensor
    on the region's device, except float64.

    Args:
        op: operator overload.
        keep: positions of arguments that are left as they are.
    """
    for device in AUTOCAST_DEVICES:
        key = f"Autocast{device.upper()}"
        excluded = torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, key))
        LIBRARY.impl(op, _autocast_kernel(op, device, excluded, keep), key)


def _autocast_kernel(
    op: torch._ops.OpOverload,
    device: str,
    excluded: torch._C.DispatchKeySet,
    keep: tuple[int, ...],
) -> Callable[..., Any]:
    def kernel(*args: object, **kwargs: object) -> Any:
        dtype = torch.get_autocast_dtype(device)
        values = [value if i in keep else _cast(value, device, dtype) for i, value in enumerate(args)]
        named = {name: _cast(value, device, dtype) for name, value in kwargs.items()}
        with torch._C._ExcludeDispatchKeyGuard(excluded):
            return op(*values, **named)

    return kernel


def _cast(value: object, device: str, dtype: torch.dtype) -> object:
    if not isinstance(value, Tensor) or not value.is_floating_point():
        return value
    if value.device.type != device or value.dtype == torch.float64:
        return value
    return value.to(dtype)


def transformed() -> bool:
    """Whether a `torch.func` transform or forward-mode differentiation is under way.

    Both act on PyTorch's own operators only: they would refuse an operator of this package, or drop its
    tangent without a word, so public functions then compute with plain PyTorch.
    """
    return torch._C._functorch.peek_interpreter_stack() is not None or forward_ad._current_level >= 0


# torch.compile asks once, while tracing, and guards on both: `torch.compiler.assume_constant_result` without
# importing the compiler.
transformed._dynamo_marked_constant = True  # type: ignore[attr-defined]


def contiguous(out: Tensor) -> Tensor:
    """A contiguous tensor; unlike `Tensor.contiguous`, axes of one element have the usual stride too.

    A parameter's gradient should have the parameter's strides: distributed training warns otherwise.
    """
    return out.contiguous().flatten().view(out.shape)


def format_of(x: Tensor) -> torch.memory_format:
    """Memory format of an output that follows `x`: channels_last only if `x` is that and nothing else."""
    if x.is_contiguous():
        return torch.contiguous_format
    if x.is_contiguous(memory_format=torch.channels_last):
        return torch.channels_last
    return torch.contiguous_format


def empty(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Empty four-dimensional output with the dtype and device of `x`, in the format that follows it."""
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=format_of(x))
