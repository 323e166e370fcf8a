"""Trained supernets to be mapped, and how far two networks differ."""

from __future__ import annotations

import copy

import torch
from nni.nas.hub.pytorch import MobileNetV3Space
from nni.nas.hub.pytorch.nasnet import NDS
from nni.nas.nn.pytorch import ModelSpace
from torch import nn

from nni_warmstart import Supernet, transfer
from nni_warmstart.nni_adapter.choices import choices
from nni_warmstart.nni_adapter.mutation import mutate
from nni_warmstart.nni_adapter.paths import every_path


def difference(source: ModelSpace, target: ModelSpace, side: int, channels: int = 3, **options) -> tuple[float, object]:
    """Largest difference of the logits, relative to the largest logit, after a transfer that perturbs nothing."""
    supernet = Supernet.from_bytes(
        Supernet.from_model(source, name='source', history={'pictures': [channels, side]}).to_bytes()
    )
    report = transfer(supernet, target, head='copy', keep=1, noise=0, **options)
    source, target = copy.deepcopy(source).double(), copy.deepcopy(target).double()
    x = torch.randn(2, channels, side, side, dtype=torch.double)
    with torch.no_grad(), every_path(source), every_path(target):
        mine, theirs = target.eval()(x), source.eval()(x)
    return float((mine - theirs).abs().max() / theirs.abs().max()), report


def mobile(widths: int, depth: tuple[int, int] = (1, 2)) -> ModelSpace:
    """Two widths, two expansions, three kernels, mutable depth; rounding to multiples of 8 leaves them in proportion."""
    widths_of_stages = tuple(widths * factor for factor in (1, 1, 1, 2, 2, 2, 2, 2, 2))
    return MobileNetV3Space(3, widths_of_stages, (0.5, 1.0), (4.0, 8.0), depth_range=depth)


def trained(space: ModelSpace, seed: int = 0, kind: str = 'DARTS') -> ModelSpace:
    """A supernet whose every parameter, statistic and alpha counts."""
    torch.manual_seed(seed)
    model = mutate(space, kind)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, 0, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 2)
            if module.affine:
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, 0, 0.2)
    for choice in choices(model).values():
        nn.init.normal_(choice.alpha)
    return model


def darts(
    width: int, ops: tuple[str, ...] = ('skip_connect', 'max_pool_3x3', 'sep_conv_3x3', 'conv_1x1'), cells: int = 3
) -> ModelSpace:
    return NDS(list(ops), width=width, num_cells=cells, num_nodes_per_cell=2, dataset='cifar')
