"""Vector instructions for numba intrinsics: the few that the DTW kernels need, written as LLVM code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import llvmlite.ir as ir
from numba.core import cgutils
from numba.np import arrayobj

from stgcn_fast.dtw._jit import vector_bytes

VECTOR_BYTES = vector_bytes()
INDEX = ir.IntType(64)


class Vectors:
    """Emits vector instructions for one element type at the builder's position."""

    def __init__(self, context: Any, builder: Any, dtype: Any) -> None:
        self.builder = builder
        self.scalar = context.get_data_type(dtype)
        self.lanes = VECTOR_BYTES // (dtype.bitwidth // 8)
        self.align = dtype.bitwidth // 8
        self.type = ir.VectorType(self.scalar, self.lanes)
        shape = ir.FunctionType(self.type, [self.type] * 3)
        name = f"llvm.fmuladd.v{self.lanes}f{dtype.bitwidth}"
        self._fma = cast(Any, cgutils).get_or_insert_function(builder.module, shape, name)

    def constant(self, value: float) -> Any:
        """A vector of one constant."""
        return ir.Constant(self.type, [value] * self.lanes)

    def splat(self, value: Any) -> Any:
        """A vector of one value."""
        undefined = ir.Constant(self.type, ir.Undefined)
        first = self.builder.insert_element(undefined, value, ir.Constant(ir.IntType(32), 0))
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), self.lanes), [0] * self.lanes)
        return self.builder.shuffle_vector(first, undefined, zeros)

    def number(self, pointer: Any, at: Any) -> Any:
        """One number at pointer[at]."""
        return self.builder.load(self.builder.gep(pointer, [at]), align=self.align)

    def _address(self, pointer: Any, at: Any) -> Any:
        return self.builder.bitcast(self.builder.gep(pointer, [at]), self.type.as_pointer())

    def load(self, pointer: Any, at: Any) -> Any:
        """The vector that starts at pointer[at]."""
        return self.builder.load(self._address(pointer, at), align=self.align)

    def store(self, value: Any, pointer: Any, at: Any) -> None:
        """Writes a vector to pointer[at]."""
        self.builder.store(value, self._address(pointer, at), align=self.align)

    def square_add(self, difference: Any, total: Any) -> Any:
        """difference^2 + total, fused where the processor can."""
        return self.builder.call(self._fma, [difference, difference, total])

    def minimum(self, a: Any, b: Any) -> Any:
        """Lane by lane, the smaller."""
        return self.builder.select(self.builder.fcmp_ordered("<", a, b), a, b)

    def minimum_of_sums(self, a: Any, b: Any) -> Any:
        """Lane by lane, the smaller of numbers that are not negative.

        Their bits are ordered as integers are, whose minimum leaves the ports of the additions free.
        """
        if not (VECTOR_BYTES == 64 or (VECTOR_BYTES == 32 and self.align == 4)):
            return self.minimum(a, b)
        integer = ir.VectorType(ir.IntType(8 * self.align), self.lanes)
        whole = [self.builder.bitcast(v, integer) for v in (a, b)]
        less = self.builder.icmp_signed("<", *whole)
        return self.builder.bitcast(self.builder.select(less, *whole), self.type)


def plus(builder: Any, at: Any, step: int) -> Any:
    """The sum of an index and a constant."""
    return builder.add(at, ir.Constant(INDEX, step)) if step else at


def data(context: Any, builder: Any, array_type: Any, array: Any) -> Any:
    """Pointer to the first number of an array argument."""
    return cast(Any, arrayobj).make_array(array_type)(context, builder, array).data


def fetch(builder: Any, pointer: Any, at: Any) -> None:
    """Asks for the cache line of pointer[at], which may lie outside the array."""
    byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)
    shape = ir.FunctionType(ir.VoidType(), [byte, word, word, word])
    function = cast(Any, cgutils).get_or_insert_function(builder.module, shape, "llvm.prefetch.p0i8")
    address = builder.bitcast(builder.gep(pointer, [at]), byte)
    # For reading, into the caches of data, to stay there.
    builder.call(function, [address, *(ir.Constant(word, value) for value in (0, 3, 1))])


def loop(builder: Any, first: Any, end: Any, carried: list[Any], body: Callable[..., list[Any]]) -> list[Any]:
    """`for i in range(first, end)` with values carried in registers; at least one round is made."""
    before = builder.block
    head = builder.append_basic_block("round")
    after = builder.append_basic_block("after")
    builder.branch(head)
    builder.position_at_end(head)
    index = builder.phi(INDEX)
    index.add_incoming(first, before)
    state = []
    for value in carried:
        phi = builder.phi(value.type)
        phi.add_incoming(value, before)
        state.append(phi)
    result = body(index, state)
    following = plus(builder, index, 1)
    index.add_incoming(following, builder.block)
    for phi, value in zip(state, result):
        phi.add_incoming(value, builder.block)
    builder.cbranch(builder.icmp_signed("<", following, end), head, after)
    builder.position_at_end(after)
    return result
