"""Initial weights."""

from __future__ import annotations

from torch import nn

CONV_STD = 0.02  # standard deviations of the public ST-GCN's training code
NORM_STD = 0.02


def init_as_public(module: nn.Module) -> None:
    """Draws the initial weights of one module as the public ST-GCN does; use with ``Module.apply``.

    Convolutions: weights N(0, 0.02), biases 0. BatchNorm: weights N(1, 0.02), biases 0. Anything else is left
    alone.
    """
    if isinstance(module, (nn.Conv1d, nn.Conv2d)):
        nn.init.normal_(module.weight, 0.0, CONV_STD)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
        nn.init.normal_(module.weight, 1.0, NORM_STD)
        nn.init.zeros_(module.bias)
