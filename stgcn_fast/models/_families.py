"""Which network a public checkpoint belongs to, read off the names of its tensors."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from stgcn_fast.graph import Layout
from stgcn_fast.models import _public_keys
from stgcn_fast.models.agcn import AAGCN, AGCN
from stgcn_fast.models.ctr_gcn import CTRGCN
from stgcn_fast.models.efficient_gcn import EfficientGCN
from stgcn_fast.models.ms_g3d import MSG3D
from stgcn_fast.models.st_gcn import STGCN
from stgcn_fast.models.st_gcn_pp import LAYOUTS, STGCNPlusPlus

_WRAPPERS = ("state_dict", "model_state_dict", "model", "net")  # under which trainers keep the tensors
_SAME = 1e-6

Build = Callable[[Mapping[str, Tensor], "str | Layout | None"], nn.Module]


class Family(NamedTuple):
    """One scheme of names.

    Attributes:
        name: of the network.
        mark: matches one of its keys, behind any prefix, and no key of the families that stand behind it.
        build: makes the network from the tensors and a layout; None where the package has none.
    """

    name: str
    mark: re.Pattern[str]
    build: Build | None


def tensors_in(content: Any) -> Any:
    """What a file holds, without the dictionaries that trainers put around the tensors."""
    for name in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
    return content


def load(content: Any, layout: str | Layout | None) -> nn.Module:
    """The network that the content of a public checkpoint belongs to, loaded.

    Args:
        content: as ``torch.load`` gives it.
        layout: layout of the joints, where the tensors do not tell.

    Raises:
        TypeError: the content is no mapping of names to tensors.
        ValueError: the names are those of no network, of one that the package does not have, or do not all
            fit; the error names the network that was recognised.
    """
    tensors = tensors_in(content)
    _public_keys.check_tensors("state_dict", tensors)
    family, found = recognise(tensors)
    if family is None:
        raise ValueError(
            f"state_dict must have the keys of a known network ({', '.join(_BUILT)}), "
            f"got {_public_keys.listed(list(tensors))}"
        )
    if family.build is None:
        raise ValueError(
            f"{family.name}: network must be one that can be built ({', '.join(_BUILT)}), "
            f"got the keys {_public_keys.listed(found)}"
        )
    try:
        return family.build(tensors, layout)
    except (TypeError, ValueError) as error:
        rule = re.sub(r"^\w+\.from_state_dict: ", "", str(error))
        raise type(error)(f"{family.name}: {rule}") from None


def recognise(tensors: Mapping[str, Tensor]) -> tuple[Family | None, list[str]]:
    """The family that some names belong to, and the keys that say so."""
    for family in FAMILIES:
        found = [key for key in tensors if family.mark.search(key)]
        if found:
            return family, found
    return None, []


def _old_mmaction(tensors: Mapping[str, Tensor], layout: str | Layout | None) -> nn.Module:
    """mmaction2 0.x: the public names under ``backbone.``, the classifier under ``cls_head.``."""
    renamed = {}
    for key, value in tensors.items():
        key = re.sub(r"^(.*)backbone\.", r"\1", key)
        renamed[re.sub(r"^(.*)cls_head\.fc\.", r"\1fcn.", key)] = value
    return STGCN.from_state_dict(renamed, layout)


_RENAMED = (
    (r"backbone\.data_bn\.", "data_bn."),
    (r"backbone\.gcn\.(\d+)\.gcn\.conv\.", r"st_gcn_networks.\1.gcn.conv."),
    (r"backbone\.gcn\.(\d+)\.gcn\.bn\.", r"st_gcn_networks.\1.tcn.0."),
    (r"backbone\.gcn\.(\d+)\.tcn\.conv\.", r"st_gcn_networks.\1.tcn.2."),
    (r"backbone\.gcn\.(\d+)\.tcn\.bn\.", r"st_gcn_networks.\1.tcn.3."),
    (r"backbone\.gcn\.(\d+)\.residual\.conv\.", r"st_gcn_networks.\1.residual.0."),
    (r"backbone\.gcn\.(\d+)\.residual\.bn\.", r"st_gcn_networks.\1.residual.1."),
    (r"cls_head\.fc(_cls)?\.", "fcn."),
)


def _pyskl_st_gcn(tensors: Mapping[str, Tensor], layout: str | Layout | None) -> nn.Module:
    """Checkpoints of pyskl and mmaction2 1.x: each block has an adjacency, learnt or times learnt factors."""
    where = "STGCN.from_state_dict: state_dict"
    given = _public_keys.common_prefix_dropped(where, tensors, "backbone.data_bn.weight")
    renamed: dict[str, Tensor] = {}
    static: list[Tensor] = []
    factors: list[Tensor | None] = []
    for key, value in given.items():
        match = re.fullmatch(r"backbone\.gcn\.(\d+)\.gcn\.(A|PA)", key)
        if match is None:
            for pattern, name in _RENAMED:
                key = re.sub("^" + pattern, name, key)
            renamed[key] = value[:, :, None, None] if key == "fcn.weight" and value.ndim == 2 else value
        elif match[2] == "A":
            static.append(value)
            factors.append(given.get(key.removesuffix("A") + "PA"))
    if any(A.ndim != 3 or A.shape != static[0].shape for A in static):
        raise ValueError(
            f"{where} must have A [K, V, V] in each block, got {[list(A.shape) for A in static]}"
        )
    shared = static[0]
    if all(PA is not None for PA in factors) and all((A - shared).abs().max() <= _SAME for A in static):
        masks = [PA for PA in factors if PA is not None]
    else:
        # Learnt adjacencies: the graph is full, and each block's are the factors of its entries.
        shared = torch.ones_like(shared)
        masks = [A if PA is None else A * PA for A, PA in zip(static, factors)]
    renamed["A"] = shared
    renamed.update({f"edge_importance.{i}": mask for i, mask in enumerate(masks)})
    joints = shared.shape[1]
    if layout is None and joints in LAYOUTS:
        layout = LAYOUTS[joints]
    return STGCN.from_state_dict(renamed, layout)


def _family(name: str, mark: str, build: Build | None = None) -> Family:
    return Family(name, re.compile(r"(?:^|\.)" + mark), build)


# A mark may match keys of later families, so the order matters.
FAMILIES = (
    _family("two-stream ST-GCN", r"(?:origin|motion)_stream\.st_gcn_networks\.0\."),
    _family("ST-GCN (mmaction2 0.x)", r"backbone\.st_gcn_networks\.0\.gcn\.conv\.weight$", _old_mmaction),
    _family("ST-GCN", r"st_gcn_networks\.0\.gcn\.conv\.weight$", STGCN.from_state_dict),
    _family("DG-STGCN (pyskl)", r"backbone\.gcn\.\d+\.gcn\.(?:pre|post)\."),
    _family("AAGCN (pyskl)", r"backbone\.gcn\.\d+\.gcn\.conv_d\."),
    _family("CTR-GCN (pyskl)", r"backbone\.net\.\d+\.gcn1\.convs\."),
    _family("MS-G3D (pyskl)", r"backbone\.(?:sgcn1|gcn3d1)\."),
    _family("ST-GCN++ (pyskl)", r"backbone\.gcn\.0\.tcn\.transform\.", STGCNPlusPlus.from_state_dict),
    _family("ST-GCN (pyskl)", r"backbone\.gcn\.0\.gcn\.conv\.weight$", _pyskl_st_gcn),
    _family("MS-G3D", r"(?:sgcn1|gcn3d1)\.", MSG3D.from_state_dict),
    _family("CTR-GCN", r"l1\.gcn1\.convs\.\d+\.conv4\.", CTRGCN.from_state_dict),
    _family("MS-AAGCN", r"l1\.gcn1\.(?:alpha|conv_sa\..*)$", AAGCN.from_state_dict),
    _family("2s-AGCN", r"l1\.gcn1\.conv_a\.", AGCN.from_state_dict),
    _family(
        "EfficientGCN",
        r"(?:input_branches|main_stream)\..*(?:init_bn|stem_scn|_scn|_tcn-\d+)\.",
        EfficientGCN.from_state_dict,
    ),
    _family("PA-ResGCN", r"(?:input_branches|main_branch)\."),
    _family("Shift-GCN", r"l1\.gcn1\.Linear_weight$"),
)
_BUILT = tuple(family.name for family in FAMILIES if family.build is not None)
