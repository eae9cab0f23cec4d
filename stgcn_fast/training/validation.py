"""One-line errors for configurations, and ``section.field=value`` overrides."""

from __future__ import annotations

import difflib
from typing import Any

from pydantic import BaseModel, ValidationError

from stgcn_fast.training.errors import ConfigError
from stgcn_fast.training.yaml_io import parse_scalar

__all__ = ["apply_override", "describe", "put"]


def apply_override(values: dict[str, Any], override: str) -> None:
    """Put one ``section.field=value`` into nested mappings and lists, in place.

    Args:
        values: What a YAML file held.
        override: Path and value; the value is YAML.

    Raises:
        ConfigError: The text has another form, or the path leads nowhere.
    """
    key, equals, text = override.partition("=")
    if not equals or not all(key.strip().split(".")):
        raise ConfigError(f"command line: override must look like section.field=value, got {override!r}")
    put(values, key, parse_scalar(text, f"command line: {key}"), "command line")


def put(values: dict[str, Any], key: str, value: Any, where: str) -> None:
    """Put a value at ``section.field`` of nested mappings and lists, in place.

    Args:
        values: What a YAML file held.
        key: The path; numbers count in lists.
        value: What to put there.
        where: Source of the change, which begins a message.

    Raises:
        ConfigError: The path leads nowhere.
    """
    names = key.strip().split(".")
    if not all(names):
        raise ConfigError(f"{where}: field must look like section.field, got {key!r}")
    here: Any = values
    for depth, name in enumerate(names):
        last = depth == len(names) - 1
        if isinstance(here, list):
            if not name.isdigit() or int(name) >= len(here):
                raise ConfigError(f"{where}: {key} must index a list of {len(here)} entries, got {name!r}")
            if last:
                here[int(name)] = value
            else:
                here = here[int(name)]
        elif isinstance(here, dict):
            if last:
                here[name] = value
            else:
                if here.get(name) is None:
                    here[name] = {}
                here = here[name]
        else:
            raise ConfigError(
                f"{where}: {key} must lead to a section or a list, got {here!r} before {name!r}"
            )


def _known_fields(root: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    section: Any = root
    for name in location[:-1]:
        field = getattr(section, "model_fields", {}).get(name)
        annotation = getattr(field, "annotation", None)
        options = [annotation, *getattr(annotation, "__args__", ())]
        section = next((o for o in options if isinstance(o, type) and issubclass(o, BaseModel)), None)
        if section is None:
            return []
    return list(section.model_fields)


def describe(error: ValidationError, root: type[BaseModel], where: str) -> str:
    """One line for the first problem of a validation, and how many more there are.

    Args:
        error: What pydantic found.
        root: The model that was validated.
        where: File or other source, which begins the line.
    """
    problems = error.errors(include_url=False)
    first = problems[0]
    location = first["loc"]
    field = ".".join(str(part) for part in location) or "config"
    got = repr(first["input"])
    got = got if len(got) <= 80 else got[:77] + "..."
    kind, message = first["type"], str(first["msg"])
    if kind == "extra_forbidden":
        known = _known_fields(root, location)
        close = difflib.get_close_matches(str(location[-1]), known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else "one of " + ", ".join(known)
        line = f"{field} must be a known field ({hint}), got {got}"
    elif kind == "value_error":
        inner = str(first["ctx"]["error"]) if "ctx" in first else message
        glue = " " if inner.startswith("must ") else "" if inner.startswith("[") else "."
        line = f"{field}{glue}{inner}" if location else inner  # a rule over several fields names its own
    elif kind == "missing":
        line = f"{field} must be given, got nothing"
    elif kind == "model_type":
        line = f"{field} must be a section with fields, got {got}"
    elif message.startswith("Input should be "):
        # Drop the second half of texts such as "a valid number, unable to parse string as a number".
        rule = message.removeprefix("Input should be ")
        if kind.endswith(("_type", "_parsing", "_from_float")):
            rule = rule.partition(", ")[0]
        line = f"{field} must be {rule}, got {got}"
    else:
        line = f"{field} must be valid: {message[:1].lower()}{message[1:]}, got {got}"
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return " ".join(f"{where}: {line}{more}".split())
