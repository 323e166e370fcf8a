"""Function that supernets keep of networks with random weights: every pair of a torchvision network and a space of the hub.

Needs torchvision, and no data::

    python benchmarks/networks/structure.py

A row tells the largest change of the logits where the alphas select the network's path (``path``), and the standard
deviation of the network's logits over images (``spread``), both for images of noise; the correlation of the logits of the
network with those of that path and of the mixture that a search starts with; the share of the space's weights that come
from the network or start without effect; and the processor time of the mapping in seconds.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torchvision
from nni.nas.hub.pytorch import MobileNetV3Space, NasBench201, ProxylessNAS
from nni.nas.strategy import DARTS
from torch import nn

from nni_warmstart import Supernet, transfer
from nni_warmstart.warm_start import match

LARGE = {
    'base_widths': (16, 16, 24, 40, 80, 112, 160, 960, 1280), 'expand_ratios': (1.0, 2.0, 2.3, 2.5, 3.0, 4.0, 6.0),
    'squeeze_excite': ('none', 'none', 'force', 'none', 'force', 'force'),
    'activation': ('hswish', 'relu', 'relu', 'relu', 'hswish', 'hswish', 'hswish', 'hswish', 'hswish'),
}  # fmt: skip

SMALL = {
    'base_widths': (16, 16, 24, 40, 48, 96, 576, 1024), 'expand_ratios': (3.0, 3.67, 4.0, 4.5, 6.0),
    'squeeze_excite': ('force', 'optional', 'force', 'force', 'force'), 'stride': (2, 2, 2, 2, 1, 2, 1, 1),
    'activation': ('hswish', 'relu', 'relu', *['hswish'] * 5), 'depth_range': (1, 3),
}  # fmt: skip

V2 = (32, 16, 24, 32, 64, 96, 160, 320, 1280)

PAIRS: dict[str, tuple[str, Callable[[], Any]]] = {
    'mobilenet_v2 -> ProxylessNAS': ('mobilenet_v2', lambda: ProxylessNAS(10, base_widths=V2)),
    'mobilenet_v2 -> ProxylessNAS, width 0.5': ('mobilenet_v2', lambda: ProxylessNAS(10, base_widths=V2, width_mult=0.5)),
    'mobilenet_v3_large -> MobileNetV3Space': (
        'mobilenet_v3_large', lambda: MobileNetV3Space(10, width_multipliers=1.0, bn_eps=1e-3, **LARGE)),
    'mobilenet_v3_large -> MobileNetV3Space, searched widths': (
        'mobilenet_v3_large', lambda: MobileNetV3Space(10, width_multipliers=(0.5, 0.75, 1.0, 1.25), **LARGE)),
    'mobilenet_v3_small -> MobileNetV3Space, optional gates, searched widths': (
        'mobilenet_v3_small', lambda: MobileNetV3Space(10, width_multipliers=(0.5, 0.75, 1.0, 1.25), **SMALL)),
    'resnet18 -> NasBench201': ('resnet18', lambda: NasBench201(64, 2, 10)),
}  # fmt: skip
"""Name of a pair -> name of a network of torchvision, and the space."""


def images(count: int, size: int) -> torch.Tensor:
    """Return images of noise with colours and contrasts of their own, so that networks tell them apart."""
    return torch.randn(count, 3, 1, 1) + torch.rand(count, 1, 1, 1) * torch.randn(count, 3, size, size)


def network(name: str, size: int) -> nn.Module:
    """Return a network with random weights, whose norms have seen some images of noise."""
    torch.manual_seed(0)
    model = getattr(torchvision.models, name)(num_classes=10)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.3, 0.3)
            module.momentum = 0.5
        elif isinstance(module, nn.Linear):
            nn.init.kaiming_normal_(module.weight)
    model.train()
    with torch.no_grad():
        for _ in range(4):
            model(images(16, size))
    return model.eval()


def measured(model: nn.Module, space: Callable[[], Any], size: int) -> dict[str, float]:
    """Return one row."""
    source = Supernet.from_network(model, name='network', input_shape=(3, size, size))
    torch.manual_seed(1)
    x = images(32, size)
    with torch.no_grad():
        logits = model(x)
    row: dict[str, float] = {}
    for margin in (50.0, match.MARGIN):
        torch.manual_seed(0)
        target = DARTS().mutate_model(space()).eval()
        start = time.process_time()
        with patch.object(match, 'MARGIN', margin):
            report = transfer(source, target, head='copy', keep=1.0, noise=0.0)
        seconds = time.process_time() - start
        with torch.no_grad():
            own = target(x)
        pair = torch.stack([(each - each.mean(0)).flatten() for each in (logits, own)])
        agreement = float(torch.corrcoef(pair)[0, 1])
        if margin == 50.0:
            row = {
                'path': float((own - logits).abs().max()),
                'spread': float(logits.std(0).mean()),
                'path agrees': agreement,
            }
        else:
            inherited = sum(origin.numel for origin in report.origins if origin.how != 'fresh')
            share = inherited / sum(origin.numel for origin in report.origins)
            row |= {'mixture agrees': agreement, 'share': share, 'seconds': seconds}
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--pairs', nargs='*', default=list(PAIRS))
    parser.add_argument('--size', type=int, default=32, help='image size in pixels')
    parser.add_argument('--out', type=Path, default=Path(__file__).with_name('structure.json'))
    options = parser.parse_args()
    result = {}
    for name in options.pairs:
        model, space = PAIRS[name]
        row = measured(network(model, options.size), space, options.size)
        result[name] = {key: float(f'{value:.3g}') for key, value in row.items()}
        print(name, result[name], flush=True)
    options.out.write_text(json.dumps(result, indent=1) + '\n')


if __name__ == '__main__':
    main()
