"""What :func:`stgcn_fast.accelerate` did, layer by layer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One layer.

    Attributes:
        name: of the module inside the model; empty for the model itself.
        layer: its class.
        family: of networks that it was recognised as.
        taken: whether it is accelerated now.
        reason: why, in a few words.
    """

    name: str
    layer: str
    family: str
    taken: bool
    reason: str


@dataclass(frozen=True)
class Report:
    """What was done with each known layer of a model; ``print`` shows a table.

    Attributes:
        mode: "train" or "inference".
        rows: one for each layer that looks like a known one, in the order of ``named_modules``.
        model: class of the model.
    """

    mode: str
    rows: tuple[Row, ...]
    model: str

    @property
    def taken(self) -> tuple[Row, ...]:
        """Layers that are accelerated."""
        return tuple(row for row in self.rows if row.taken)

    @property
    def left(self) -> tuple[Row, ...]:
        """Layers that run as before."""
        return tuple(row for row in self.rows if not row.taken)

    @property
    def families(self) -> tuple[str, ...]:
        """Families of the accelerated layers, in the order of their first layer."""
        return tuple(dict.fromkeys(row.family for row in self.taken))

    def __str__(self) -> str:
        head = f"{self.model}: {len(self.taken)} of {len(self.rows)} known layers accelerated ({self.mode})"
        if not self.rows:
            return f"{self.model}: no layer of a known family, nothing changed ({self.mode})"
        cells = [("layer", "class", "family", "", "why")]
        convolutions = [row for row in self.rows if row.family == "any"]
        for row in self.rows:
            if row.family == "any":
                continue
            state = "taken" if row.taken else "left"
            cells.append((row.name or "(model)", row.layer, row.family, state, row.reason))
        if convolutions:
            layer, reason = convolutions[0].layer, convolutions[0].reason
            cells.append((f"({len(convolutions)} convolutions)", layer, "any", "taken", reason))
        widths = [max(len(line[i]) for line in cells) for i in range(4)]
        lines = []
        for line in cells:
            padded = [cell.ljust(width) for cell, width in zip(line, widths)]
            lines.append("  ".join([*padded, line[4]]).rstrip())
        return "\n".join([head, *lines])
