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
        self,
        blocks: list[list[tuple[int, int]]],
        widths: tuple[int, ...],
        classes: int = 5,
        *,
        same: bool = False,
        gate: bool = False,
    ) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, widths[0], 3, 2, 1, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU6())
        layers: list[nn.Module] = []
        for stage, (made, kinds) in enumerate(zip(widths[1:-1], blocks, strict=True)):
            for index, (expansion, kernel) in enumerate(kinds):
                read = made if index else widths[stage]
                stride = 1 if index else self.STRIDES[stage]
                layers.append(Block(read, made, expansion, kernel, stride, same=same, gate=gate))
        self.trunk = nn.Sequential(*layers)
        self.mix = nn.Sequential(nn.Conv2d(widths[-2], widths[-1], 1, bias=False), nn.BatchNorm2d(widths[-1]), nn.ReLU6())
        self.out = nn.Linear(widths[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.mix(self.trunk(self.first(x))).mean((2, 3)))


class Shuffle(nn.Module):
    """Block of a ShuffleNet V2: one half of the channels passes it, or all are halved in size by both branches."""

    def __init__(self, read: int, made: int, stride: int) -> None:
        super().__init__()
        self.stride, half = stride, made // 2
        beside = [*self._depthwise(read, 2), *self._pointwise(read, half)] if stride == 2 else []
        self.beside = nn.Sequential(*beside)
        self.branch = nn.Sequential(
            *self._pointwise(read if stride == 2 else half, half),
            *self._depthwise(half, stride),
            *self._pointwise(half, half),
        )

    @staticmethod
    def _depthwise(width: int, stride: int) -> list[nn.Module]:
        return [nn.Conv2d(width, width, 3, stride, 1, groups=width, bias=False), nn.BatchNorm2d(width)]

    @staticmethod
    def _pointwise(read: int, made: int) -> list[nn.Module]:
        return [nn.Conv2d(read, made, 1, bias=False), nn.BatchNorm2d(made), nn.ReLU()]

    def forward(self, x: Tensor) -> Tensor:
        kept, read = (x, x) if self.stride == 2 else x.chunk(2, 1)
        return nn.functional.channel_shuffle(torch.cat([self.beside(kept), self.branch(read)], 1), 2)


class ShuffleLike(nn.Sequential):
    """ShuffleNet V2 as torchvision has it, under other names.

    Parameters
    ----------
    widths
        Widths of the stem, of every stage, and of the last convolution.
    repeats
        Blocks of every stage.
    pool
        Size of the kernel of the max pool after the stem.
    """

    def __init__(
        self, widths: tuple[int, ...], repeats: tuple[int, ...], classes: int = 5, *, pool: int = 3, bias: bool = True
    ) -> None:
        blocks = [
            Shuffle(made if index else read, made, 1 if index else 2)
            for read, made, count in zip(widths, widths[1:-1], repeats, strict=False) for index in range(count)
        ]  # fmt: skip
        super().__init__(
            plain_block(3, widths[0], 3, 2), nn.MaxPool2d(pool, 2, pool // 2), *blocks, plain_block(*widths[-2:], 1),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], classes, bias=bias),
        )  # fmt: skip


WIDTHS = (8, 8, 16, 16, 24, 24, 32, 40, 64)

BLOCKS = [[(1, 3)], [(6, 3), (3, 5)], [(6, 5)], [(6, 3), (6, 3), (3, 7)], [(6, 5), (6, 5)], [(6, 5)], [(6, 3)]]


def mobile_like(
    seed: int = 0,
    *,
    same: bool = False,
    blocks: list[list[tuple[int, int]]] | None = None,
    widths: tuple[int, ...] = WIDTHS,
    gate: bool = False,
) -> MobileLike:
    """Return such a network with random weights, whose norms have seen some images."""
    torch.manual_seed(seed)
    return randomised(MobileLike(blocks or BLOCKS, widths, same=same, gate=gate), 64)


def randomised(network: nn.Module, size: int = 32) -> nn.Module:
    """Draw the affine parameters of norms and the linear layers, and let the norms see some images of noise."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.3, 0.3)
            module.momentum = 0.5
        elif isinstance(module, nn.Linear):
            nn.init.kaiming_normal_(module.weight)
    network.train()
    with torch.no_grad():
        for _ in range(8):
            network(torch.randn(16, 3, size, size))
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


def with_activations(network: nn.Module, kind: type[nn.Module]) -> nn.Module:
    """Replace every ReLU6 in place."""
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.ReLU6):
                setattr(module, name, kind())
    return network


class Residual(nn.Module):
    """Residual block of two 3 x 3 convolutions.

    ``before`` puts the ReLUs before the convolutions, and ``norm`` a norm on a shortcut with an average pool.
    """

    def __init__(self, read: int, made: int, stride: int = 1, *, before: bool = False, norm: bool = False) -> None:
        super().__init__()
        self.before = before
        self.conv1, self.bn1 = nn.Conv2d(read, made, 3, stride, 1, bias=False), nn.BatchNorm2d(made)
        self.conv2, self.bn2 = nn.Conv2d(made, made, 3, 1, 1, bias=False), nn.BatchNorm2d(made)
        self.down: nn.Module = nn.Identity()
        if stride > 1:
            point = nn.Conv2d(read, made, 1, 1 if before else stride, bias=False)
            norms = [nn.BatchNorm2d(made)] if norm or not before else []
            self.down = nn.Sequential(*([nn.AvgPool2d(2)] if before else []), point, *norms)

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn1(self.conv1(x.relu() if self.before else x)).relu()
        out = self.bn2(self.conv2(out)) + self.down(x)
        return out if self.before else out.relu()


class ResNetLike(nn.Module):
    """ResNet for small images: ``stages`` of ``count`` blocks; from the second stage on a block that halves the image first.

    With ``before``, the ReLUs come before the convolutions, and the halving blocks are additional ones.
    """

    def __init__(
        self, count: int = 2, stages: int = 1, width: int = 8, classes: int = 5, *, before: bool = False, norm: bool = False
    ) -> None:
        super().__init__()
        self.before = before
        self.stem, self.bn = nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        blocks: list[nn.Module] = []
        for stage in range(stages):
            if stage:
                blocks.append(Residual(width, 2 * width, 2, before=before, norm=norm))
                width *= 2
            plain = count if before or not stage else count - 1
            blocks += [Residual(width, width, before=before) for _ in range(plain)]
        self.blocks, self.fc = nn.Sequential(*blocks), nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(self.stem(x))
        x = self.blocks(x if self.before else x.relu())
        return self.fc((x.relu() if self.before else x).mean((2, 3)))


def plain_block(
    read: int, made: int, kernel: int, stride: int = 1, *, norm: bool = True, bias: bool = False
) -> nn.Sequential:
    """Return a convolution, a norm if wanted, and a ReLU."""
    norms = [nn.BatchNorm2d(made)] if norm else []
    return nn.Sequential(nn.Conv2d(read, made, kernel, stride, kernel // 2, bias=bias), *norms, nn.ReLU())


class Plain(nn.Module):
    """Chain of convolutions of given kernels after two that halve the image."""

    def __init__(self, kernels: tuple[int, ...], width: int = 8, classes: int = 5, *, norm: bool = True, bias: bool = False):
        super().__init__()
        form = {'norm': norm, 'bias': bias}
        blocks = [plain_block(3, width, 3, 2, **form), plain_block(width, 2 * width, 3, 2, **form)]
        self.blocks = nn.Sequential(*blocks, *(plain_block(2 * width, 2 * width, kernel, **form) for kernel in kernels))
        self.fc = nn.Linear(2 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.blocks(x).mean((2, 3)))
