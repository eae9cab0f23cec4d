"""Argument checks that the constructors of networks share."""

from __future__ import annotations


def check_positive(network: str, **numbers: object) -> None:
    """Raises unless every number is an integer of at least 1.

    Args:
        network: Name in front of the sentence.
        **numbers: Arguments by name.

    Raises:
        TypeError: One is no integer.
        ValueError: One is below 1.
    """
    for name, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{network}: {name} must be an integer, got {value!r}")
        if value < 1:
            raise ValueError(f"{network}: {name} must be positive, got {value}")
