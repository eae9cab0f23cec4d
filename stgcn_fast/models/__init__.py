"""Networks, their register, and checkpoints."""

from stgcn_fast.models.agcn import AAGCN, AGCN
from stgcn_fast.models.checkpoint import load_checkpoint, save_checkpoint
from stgcn_fast.models.ctr_gcn import CTRGCN
from stgcn_fast.models.efficient_gcn import EfficientGCN
from stgcn_fast.models.ms_g3d import MSG3D
from stgcn_fast.models.registry import build, list_models, register
from stgcn_fast.models.st_gcn import STGCN
from stgcn_fast.models.st_gcn_inference import STGCNInference
from stgcn_fast.models.st_gcn_pp import STGCNPlusPlus
from stgcn_fast.models.stf import STF
from stgcn_fast.models.streaming import StreamingSTGCN

__all__ = [
    "AAGCN",
    "AGCN",
    "CTRGCN",
    "EfficientGCN",
    "MSG3D",
    "STF",
    "STGCN",
    "STGCNInference",
    "STGCNPlusPlus",
    "StreamingSTGCN",
    "build",
    "list_models",
    "load_checkpoint",
    "register",
    "save_checkpoint",
]
