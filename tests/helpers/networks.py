"""Small networks without choices, as users have them: made of torch's layers, under names of their own."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .tiny import Mixer


class Gate(nn.Module):
    """Squeeze and excite."""

    def __init__(self, width: int, reduced: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Conv2d(width, reduced, 1), nn.Conv2d(reduced, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.fc2(self.fc1(x.mean((2, 3), keepdim=True)).relu()).sigmoid()


class Block(nn.Module):
    """Inverted residual; ``same`` pads as TensorFlow does, on the right and below."""

    def __init__(
        self, read: int, made: int, expansion: int, kernel: int, stride: int = 1, *, gate: bool = False, same: bool = False
    ) -> None:
        super().__init__()
        hidden = read * expansion
        self.residual = read == made and stride == 1
        one_sided = same and stride == 2
        body: list[nn.Module] = []
        if expansion != 1:
            body += [nn.Conv2d(read, hidden, 1, bias=False), nn.BatchNorm2d(hidden), nn.ReLU6()]
        if one_sided:
            body.append(nn.ZeroPad2d(((kernel - 2) // 2, (kernel - 1) // 2, (kernel - 2) // 2, (kernel - 1) // 2)))
        padding = 0 if one_sided else kernel // 2
        body += [
            nn.Conv2d(hidden, hidden, kernel, stride, padding, groups=hidden, bias=False), nn.BatchNorm2d(hidden),
            nn.ReLU6(),
        ]  # fmt: skip
        body += [Gate(hidden, 8)] if gate else []
        body += [nn.Conv2d(hidden, made, 1, bias=False), nn.BatchNorm2d(made)]
        self.body = nn.Sequential(*body)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.residual else self.body(x)


class MobileLike(nn.Module):
    """Network with the stages of the hub's ProxylessNAS, under other names.

    Parameters
    ----------
    blocks
        Stage by stage: ``(expansion, kernel)`` of its blocks.
    widths
        Widths of the stem, of every stage, and of the head.
    """

    STRIDES = (1, 2, 2, 2, 1, 2, 1)

    def __init__(
        self, blocks: list[list[tuple[int, int]]], widths: tuple[int, ...], classes: int = 5, *, same: bool = False
    ) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, widths[0], 3, 2, 1, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU6())
        layers: list[nn.Module] = []
        for stage, (made, kinds) in enumerate(zip(widths[1:-1], blocks, strict=True)):
            for index, (expansion, kernel) in enumerate(kinds):
                read = made if index else widths[stage]
                stride = 1 if index else self.STRIDES[stage]
                layers.append(Block(read, made, expansion, kernel, stride, same=same))
        self.trunk = nn.Sequential(*layers)
        self.mix = nn.Sequential(nn.Conv2d(widths[-2], widths[-1], 1, bias=False), nn.BatchNorm2d(widths[-1]), nn.ReLU6())
        self.out = nn.Linear(widths[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.mix(self.trunk(self.first(x))).mean((2, 3)))


WIDTHS = (8, 8, 16, 16, 24, 24, 32, 40, 64)

BLOCKS = [[(1, 3)], [(6, 3), (3, 5)], [(6, 5)], [(6, 3), (6, 3), (3, 7)], [(6, 5), (6, 5)], [(6, 5)], [(6, 3)]]


def mobile_like(seed: int = 0, *, same: bool = False, blocks: list[list[tuple[int, int]]] | None = None) -> MobileLike:
    """Return such a network with random weights, whose norms have seen some images."""
    torch.manual_seed(seed)
    network = MobileLike(blocks or BLOCKS, WIDTHS, same=same)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.3, 0.3)
            module.momentum = 0.5
    network.train()
    with torch.no_grad():
        for _ in range(8):
            network(torch.randn(16, 3, 64, 64))
    return network.eval()


def plain(seed: int = 0, classes: int = 4) -> nn.Sequential:
    """Return the network that is the path with both convolutions of the tests' ``OwnSpace``, with random weights."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(),
        nn.Conv2d(6, 6, 3, padding=1), nn.Conv2d(6, 6, 1), nn.BatchNorm2d(6), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, classes),
    ).eval()  # fmt: skip


def perceptron() -> nn.Sequential:
    """Return a network without convolutions, which has nothing in common with a space of them."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(8), nn.Flatten(), nn.Linear(3 * 8 * 8, 8), nn.ReLU(), nn.Linear(8, 4))


def mixing() -> nn.Sequential:
    """Return a network with a module whose channels are not known."""
    return nn.Sequential(nn.Conv2d(3, 6, 3), Mixer(6), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4))


def of_nine_pixels() -> nn.Sequential:
    """Return a network that takes images of 9 x 9 pixels only."""
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 7 * 7, 4))


def unclassified() -> nn.Sequential:
    """Return a network that ends without a linear layer."""
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
