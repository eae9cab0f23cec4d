"""Convolutions over frames and 1x1 convolutions, in models of every family."""

from stgcn_fast.swap.adapter import register_adapter
from stgcn_fast.swap.parts import CONVOLUTION

register_adapter(CONVOLUTION)
