"""Small model spaces onto which networks without choices are mapped."""

from __future__ import annotations

import copy
from unittest.mock import patch

import torch
from nni.nas.hub.pytorch import MobileNetV3Space
from nni.nas.hub.pytorch.modules.nasbench201 import NasBench201Cell
from nni.nas.hub.pytorch.nasbench201 import OPS_WITH_STRIDE, PRIMITIVES
from nni.nas.hub.pytorch.shufflenet import ShuffleNetBlock, ShuffleXceptionBlock
from nni.nas.nn.pytorch import LayerChoice, ModelSpace, Repeat
from nni.nas.strategy import DARTS
from torch import Tensor, nn

from nni_warmstart import Supernet, TransferReport, transfer
from nni_warmstart.nni_adapter.choices import choices
from nni_warmstart.warm_start import match

from .networks import plain_block


def started(
    network: nn.Module, space: ModelSpace, size: int = 32, margin: float = match.MARGIN, **settings
) -> tuple[nn.Module, TransferReport]:
    """Return the supernet that starts from a network, with all of its weights, and the report.

    With a ``margin``, its path has so much larger alphas from the start.
    """
    source = Supernet.from_network(network, name='network', input_shape=(3, size, size))
    torch.manual_seed(0)
    target = DARTS().mutate_model(space).eval()
    with patch.object(match, 'MARGIN', margin):
        return target, transfer(source, target, **{'head': 'copy', 'keep': 1.0, 'noise': 0.0} | settings)


def best(target: nn.Module) -> dict[str, str]:
    """Return the most probable candidate of every choice that the network decides."""
    found = choices(target).items()
    return {label: choice.candidates[int(choice.alpha.argmax())] for label, choice in found if float(choice.alpha.max()) > 1}


def selected(target: nn.Module, part: str = '') -> nn.Module:
    """Return the supernet with the most probable candidates alone, of choices whose labels contain ``part``."""
    target = copy.deepcopy(target)
    with torch.no_grad():
        for label, choice in choices(target).items():
            if part in label:
                choice.alpha.copy_(100.0 * (choice.alpha == choice.alpha.max()))
    return target.eval()


def change(network: nn.Module, target: nn.Module, size: int = 32) -> float:
    """Return the largest change of the logits on some noise."""
    x = torch.randn(8, 3, size, size)
    with torch.no_grad():
        return float((target(x) - network(x)).abs().max())


def agreement(network: nn.Module, target: nn.Module, size: int = 32) -> float:
    """Return the correlation of the logits on some noise, without the means of the classes."""
    x = torch.randn(32, 3, size, size)
    with torch.no_grad():
        logits = torch.stack([(y - y.mean(0)).flatten() for y in (network(x), target(x))])
    return float(torch.corrcoef(logits)[0, 1])


class Cells(ModelSpace):
    """Stem, cells of NAS-Bench-201, classifier, without a reduction."""

    def __init__(self, count: int, width: int = 8, classes: int = 5) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width))
        ops = {name: lambda read, made, name=name: OPS_WITH_STRIDE[name](read, made, 1) for name in PRIMITIVES}
        self.cells = nn.Sequential(*(NasBench201Cell(ops, width, width, label='cell') for _ in range(count)))
        self.last, self.fc = nn.Sequential(nn.BatchNorm2d(width), nn.ReLU()), nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.last(self.cells(self.stem(x))).mean((2, 3)))


class Own(ModelSpace):
    """A user's own space of plain choices, in repeated blocks of one and of two choices, with and without norms."""

    def __init__(self, width: int = 8, classes: int = 5, *, norm: bool = True, bias: bool = False) -> None:
        super().__init__()
        form = {'norm': norm, 'bias': bias}

        def choice(label: str, read: int, kernels: tuple[int, ...], stride: int = 1, **others: nn.Module) -> LayerChoice:
            blocks = {f'k{kernel}': plain_block(read, 2 * width, kernel, stride, **form) for kernel in kernels}
            return LayerChoice({**blocks, **others}, label=label)

        def two(index: int) -> nn.Sequential:
            return nn.Sequential(choice(f't{index}', 2 * width, (3, 5)), choice(f'u{index}', 2 * width, (3, 1)))

        def one(index: int) -> LayerChoice:
            return choice(f'r{index}', 2 * width, (3, 5), skip=nn.Identity(), pool=nn.MaxPool2d(3, 1, 1))

        self.stem, self.first = plain_block(3, width, 3, 2, **form), choice('a', width, (3, 5), 2)
        self.ones, self.twos = Repeat(one, (1, 3), label='ones'), Repeat(two, (1, 2), label='twos')
        self.fc = nn.Linear(2 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.twos(self.ones(self.first(self.stem(x)))).mean((2, 3)))


class Shuffles(ModelSpace):
    """Choices of NNI's ShuffleNetSpace, with a max pool after the stem; parameters as of ``ShuffleLike``."""

    def __init__(self, widths: tuple[int, ...], repeats: tuple[int, ...], classes: int = 5, *, affine: bool = True) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        for read, made, count in zip(widths, widths[1:-1], repeats, strict=False):
            for index in range(count):
                form = (made if index else read, made, made // 2)
                facts = {'stride': 1 if index else 2, 'affine': affine}
                kernels = {f'k{kernel}': ShuffleNetBlock(*form, kernel_size=kernel, **facts) for kernel in (3, 5, 7)}
                label = f'layer_{len(blocks)}'
                blocks.append(LayerChoice({**kernels, 'xcep': ShuffleXceptionBlock(*form, **facts)}, label=label))
        self.stem, self.blocks = plain_block(3, widths[0], 3, 2), nn.Sequential(nn.MaxPool2d(3, 2, 1), *blocks)
        self.last, self.fc = plain_block(*widths[-2:], 1), nn.Linear(widths[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.last(self.blocks(self.stem(x))).mean((2, 3)))


def mobile_space(
    widths: tuple[int, ...], *, multipliers=1.0, gates: str = 'none', activation: str = 'relu'
) -> MobileNetV3Space:
    """Return a MobileNetV3Space with the stages of :class:`~helpers.networks.MobileLike`."""
    count = len(widths)
    return MobileNetV3Space(
        5, base_widths=widths, width_multipliers=multipliers, expand_ratios=(3.0, 6.0), depth_range=(1, 3),
        squeeze_excite=(gates,) * (count - 3), activation=(activation,) * count, stride=(2, 1, 2, 2, 2, 1, 2, 1, 1, 1),
    )  # fmt: skip
