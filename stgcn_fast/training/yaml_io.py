"""YAML in and out: safe, with duplicate keys refused and ``1e-4`` read as a number."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from stgcn_fast.training.errors import ConfigError

__all__ = ["dump_yaml", "load_yaml", "parse_scalar"]

# YAML 1.1 reads 1e-4 as text because it has no dot; everyone who writes it means a number.
_FLOAT = re.compile(r"^[-+]?(?:[0-9][0-9_]*)(?:\.[0-9_]*)?[eE][-+]?[0-9]+$")


def _loader() -> Any:
    try:
        import yaml
    except ImportError as error:
        raise ImportError('reading YAML needs PyYAML: pip install "stgcn_fast[train]"') from error

    class Loader(yaml.SafeLoader):
        pass

    def mapping(loader: Any, node: Any) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = loader.construct_object(key_node, deep=True)
            if isinstance(key, (list, dict)) or key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"keys must be plain and unique, got {key!r} again", key_node.start_mark
                )
            seen.add(key)
        result: dict[Any, Any] = yaml.SafeLoader.construct_mapping(loader, node, deep=True)
        return result

    Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789"))
    return Loader


def _parse(text: str, where: str) -> Any:
    loader = _loader()
    import yaml

    try:
        return yaml.load(text, Loader=loader)  # a SafeLoader
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        at = f" at line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or str(error)
        raise ConfigError(f"{where}: text must be valid YAML, got {' '.join(problem.split())}{at}") from error


def load_yaml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read one YAML mapping.

    Args:
        path: File to read.

    Returns:
        The mapping; an empty file gives ``{}``.

    Raises:
        FileNotFoundError: There is no such file.
        ConfigError: The file is not UTF-8, not YAML, or not a mapping.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"{file}: must be an existing YAML file, got none")
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: must be UTF-8 text, got byte {error.start} that is not") from error
    value = _parse(text, str(file))
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(f"{file}: must be a mapping of sections, got {type(value).__name__}")
    return value


def parse_scalar(text: str, where: str) -> Any:
    """Read the value of a ``key=value`` override as YAML (``3``, ``1e-4``, ``[1, 2]``, ``null``...)."""
    return _parse(text, where)


def dump_yaml(value: dict[str, Any]) -> str:
    """Write a mapping as YAML, keys in the order given."""
    import yaml

    return str(yaml.safe_dump(value, sort_keys=False, allow_unicode=True, default_flow_style=None, width=110))
