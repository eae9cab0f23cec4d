"""One file of adapters for each family of networks; each registers its own when it is imported."""

__all__: list[str] = []
