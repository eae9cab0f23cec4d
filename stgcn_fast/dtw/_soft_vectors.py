"""Exponential and logarithm as vector instructions.

Numba's cache does not see this file: after a change here, touch `_soft_kernels.py`.
"""

from __future__ import annotations

import math
from typing import Any

import llvmlite.ir as ir

from stgcn_fast.dtw._vectors import Vectors

_LN2 = math.log(2)


class SoftVectors(Vectors):
    """Exponential and logarithm, of the accuracy of the element type."""

    def __init__(self, context: Any, builder: Any, dtype: Any) -> None:
        super().__init__(context, builder, dtype)
        self.single = dtype.bitwidth == 32
        # Adding and taking off 1.5 x 2^(bits of the fraction) rounds to an integer.
        self._magic = 1.5 * 2.0 ** (23 if self.single else 52)
        self.least = -86.0 if self.single else -708.0
        # ln 2 in two parts, the first with so few digits that a small multiple of it is exact.
        self._high = 0.693359375 if self.single else 0.6931471803691238
        self._low = -2.1219444005469057e-4 if self.single else 1.9082149292705877e-10

    def fused(self, a: Any, b: Any, c: Any) -> Any:
        """The sum of a * b and c."""
        return self.builder.call(self._fma, [a, b, c])

    def maximum(self, a: Any, b: Any) -> Any:
        """Lane by lane, the larger."""
        return self.builder.select(self.builder.fcmp_ordered(">", a, b), a, b)

    def polynomial(self, x: Any, coefficients: list[float]) -> Any:
        """Horner's rule, the constant term first in the list."""
        total = self.constant(coefficients[-1])
        for c in coefficients[-2::-1]:
            total = self.fused(total, x, self.constant(c))
        return total

    def exp(self, x: Any) -> Any:
        """e^x for x <= 0; below the range of the type its smallest numbers."""
        builder = self.builder
        x = self.maximum(x, self.constant(self.least))
        magic = self.constant(self._magic)
        shifted = self.fused(x, self.constant(1 / _LN2), magic)
        whole = builder.fsub(shifted, magic)
        rest = self.fused(whole, self.constant(-self._high), x)
        rest = self.fused(whole, self.constant(-self._low), rest)
        # |rest| <= ln(2) / 2: the next term is below the last digit.
        value = self.polynomial(rest, [1 / math.factorial(k) for k in range(8 if self.single else 13)])
        integer = ir.VectorType(ir.IntType(32 if self.single else 64), self.lanes)
        fraction = 23 if self.single else 52
        bits = builder.shl(builder.bitcast(shifted, integer), ir.Constant(integer, [fraction] * self.lanes))
        return builder.bitcast(builder.add(builder.bitcast(value, integer), bits), self.type)

    def log(self, x: Any) -> Any:
        """Natural logarithm for 1 <= x <= 3: 2 artanh((m - 1) / (m + 1)) with m = x or x / 2."""
        builder, one = self.builder, self.constant(1.0)
        large = builder.fcmp_ordered(">", x, self.constant(math.sqrt(2)))
        m = builder.select(large, builder.fmul(x, self.constant(0.5)), x)
        base = builder.select(large, self.constant(_LN2), self.constant(0.0))
        t = builder.fdiv(builder.fsub(m, one), builder.fadd(m, one))
        square = builder.fmul(t, t)
        terms = [2 / (2 * k + 1) for k in range(5 if self.single else 11)]
        return self.fused(t, self.polynomial(square, terms), base)
