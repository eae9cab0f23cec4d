"""Exponential and logarithm as vector instructions."""

from __future__ import annotations

import math
from typing import Any

import llvmlite.ir as ir

from stgcn_fast.dtw._vectors import Vectors

_LN2 = math.log(2)
# (e^r - 1 - r) / r^2 on |r| <= ln(2) / 2, interpolated at Chebyshev's points: errors 1e-8 and 2e-17 of e^r.
_EXP_SINGLE = [0.5, 0.16666576989698775, 0.041666554617204574, 0.008363179052722575, 0.0013926183587713488]
_EXP_DOUBLE = [
    0.5000000000000001, 0.16666666666666669, 0.04166666666662411, 0.00833333333332992, 0.0013888888917219133,
    0.00019841269863455098, 2.4801521289521757e-05, 2.755726802386926e-06, 2.7620090982121963e-07,
    2.5100546156814093e-08,
]  # fmt: skip
# 2 artanh(t) / t in powers of t^2 for |t| <= 2 - 3^(1/2), in the same way: errors 1e-8 and 3e-19 of artanh.
_ARTANH_SINGLE = [1.9999999479602695, 0.6666898181510361, 0.3984037488902425, 0.32039988425510285]
_ARTANH_DOUBLE = [
    2.0, 0.6666666666666664, 0.4000000000000763, 0.28571428570365226, 0.2222222232707627, 0.18181811438266682,
    0.15384887079341197, 0.1332648500035494, 0.11871890577326262, 0.0952594569181031, 0.14478838920030818,
]  # fmt: skip


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
        """The constant term first in the list; by halves, which waits for less than Horner's rule."""
        terms = [self.constant(c) for c in coefficients]
        while len(terms) > 1:
            pairs = zip(terms[::2], terms[1::2])
            odd = terms[-1:] if len(terms) % 2 else []
            terms = [self.fused(high, x, low) for low, high in pairs] + odd
            x = self.builder.fmul(x, x)
        return terms[0]

    def exp(self, x: Any) -> Any:
        """e^x for x <= 0; below the range of the type its smallest numbers."""
        builder = self.builder
        x = self.maximum(x, self.constant(self.least))
        magic = self.constant(self._magic)
        shifted = self.fused(x, self.constant(1 / _LN2), magic)
        whole = builder.fsub(shifted, magic)
        rest = self.fused(whole, self.constant(-self._high), x)
        rest = self.fused(whole, self.constant(-self._low), rest)
        square = builder.fmul(rest, rest)
        beyond = self.polynomial(rest, _EXP_SINGLE if self.single else _EXP_DOUBLE)
        value = builder.fadd(self.fused(square, beyond, rest), self.constant(1.0))
        integer = ir.VectorType(ir.IntType(32 if self.single else 64), self.lanes)
        fraction = 23 if self.single else 52
        bits = builder.shl(builder.bitcast(shifted, integer), ir.Constant(integer, [fraction] * self.lanes))
        return builder.bitcast(builder.add(builder.bitcast(value, integer), bits), self.type)

    def log(self, x: Any) -> Any:
        """Natural logarithm for 1 <= x <= 3: ln c + 2 artanh((x - c) / (x + c)) with c^2 = 3."""
        builder, middle = self.builder, self.constant(math.sqrt(3))
        t = builder.fdiv(builder.fsub(x, middle), builder.fadd(x, middle))
        slope = self.polynomial(builder.fmul(t, t), _ARTANH_SINGLE if self.single else _ARTANH_DOUBLE)
        return self.fused(t, slope, self.constant(math.log(3) / 2))
