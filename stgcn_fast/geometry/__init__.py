"""The geometry of a network's layers: NNK graphs of clips, label smoothness, studies of depth and noise."""

from stgcn_fast.geometry.depth import DepthStudy, smoothness_by_depth, spearman
from stgcn_fast.geometry.ds_graph import DSGraph, ds_graph, embed_plane, windows_for
from stgcn_fast.geometry.edges import NNKGraph
from stgcn_fast.geometry.features import LayerFeatures, Predicted, layer_features
from stgcn_fast.geometry.nnk import Settings, nnk_graph
from stgcn_fast.geometry.noise import NoiseStudy, noise_study
from stgcn_fast.geometry.smoothness import KINDS, Smoothness, label_smoothness
from stgcn_fast.geometry.transfer import Recipe, TransferStudy, freeze, stages, transfer_study, with_classes

__all__ = [
    "KINDS",
    "DSGraph",
    "DepthStudy",
    "LayerFeatures",
    "NNKGraph",
    "NoiseStudy",
    "Predicted",
    "Recipe",
    "Settings",
    "Smoothness",
    "TransferStudy",
    "ds_graph",
    "embed_plane",
    "freeze",
    "label_smoothness",
    "layer_features",
    "nnk_graph",
    "noise_study",
    "smoothness_by_depth",
    "spearman",
    "stages",
    "transfer_study",
    "windows_for",
    "with_classes",
]
