"""Model spaces whose ``forward`` is a random program of layers, cuts and rearrangements of channels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from hypothesis import strategies as st
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from torch import Tensor, nn

Step = tuple[str, int, int]
"""An operator, and two numbers from 0 to 5 that say on which tensors, into how many parts, in which order."""

LAYERS = ('conv', 'conv', 'fused', 'grouped', 'depthwise', 'batch norm', 'group norm')
CUTS = ('chunk', 'split', 'unbind', 'halve', 'strided', 'narrow')
JOINS = ('add', 'multiply', 'cat', 'stack', 'gate', 'write')
ORDERS = ('shuffle', 'unshuffle', 'permute', 'swap', 'roll', 'flip', 'grid norm', 'expand')
REDUCTIONS = ('group mean', 'group sum', 'group pool', 'max pool', 'channel mean', 'softmax')
ATTENTION = ('attention', 'channel attention', 'heads')

STEPS = LAYERS + CUTS + JOINS + ORDERS + REDUCTIONS + ATTENTION


def programs(most: int) -> st.SearchStrategy[tuple[Step, ...]]:
    """Programs of up to ``most`` steps."""
    step = st.tuples(st.sampled_from(STEPS), st.integers(0, 5), st.integers(0, 5))
    return st.lists(step, min_size=1, max_size=most).map(tuple)


class Program(ModelSpace):
    """A stem, a program, and a classifier of all that it leaves.

    The state of a program is a stack of images. Widths are multiples of ``unit``; a step does nothing where it would not
    divide the channels at the width ``unit``, so that a program is the same at any width.
    """

    def __init__(self, steps: tuple[Step, ...], width: int, unit: int = 4) -> None:
        super().__init__()
        self.steps, self.width, self.unit = steps, width, unit
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.layers = nn.ModuleDict()
        self.choice = LayerChoice({'conv': nn.Conv2d(width, width, 1), 'skip': nn.Identity()}, label='choice')
        self.join: nn.Module = nn.Identity()
        images = self.run(torch.zeros(1, 3, 4, 4))  # makes the layers
        self.join = nn.Conv2d(images.shape[1], width, 1)
        self.head = nn.Linear(width, 3)

    def layer(self, name: str, make: Callable[[], nn.Module]) -> Any:
        if name not in self.layers:
            self.layers[name] = make()
        return self.layers[name]

    def forward(self, images: Tensor) -> Tensor:
        return self.head(torch.relu(self.join(self.run(images))).mean((2, 3)))

    def run(self, images: Tensor) -> Tensor:
        stack = [torch.relu(self.choice(self.stem(images)))]
        for number, (kind, first, second) in enumerate(self.steps):
            x = stack.pop(first % len(stack))
            made = self.step(f'{kind.replace(" ", "_")}{number}', kind, x, stack, first, second)
            stack += [x] if made is None else made
            stack = stack[-6:]
        return torch.cat(stack, 1)

    def step(self, name: str, kind: str, x: Tensor, stack: list[Tensor], first: int, second: int) -> list[Tensor] | None:
        """Return what a step makes of ``x``; None if it does not apply."""
        c, w, n = x.shape[1], self.width, 2 + second % 3
        share = c * self.unit // w  # channels at the width of one unit
        assert share * w == c * self.unit
        other = next((i for i, each in enumerate(stack) if each.shape == x.shape), None)
        match kind:
            case 'conv':
                return [x, self.layer(name, lambda: nn.Conv2d(c, w, 1))(x)][second % 2 :]
            case 'fused':
                return [self.layer(name, lambda: nn.Conv2d(c, n * w, 1))(x)]
            case 'grouped' if share % n == 0 and self.unit % n == 0:
                return [self.layer(name, lambda: nn.Conv2d(c, w, 1, groups=n))(x)]
            case 'depthwise':
                return [self.layer(name, lambda: nn.Conv2d(c, c, 3, padding=1, groups=c))(x)]
            case 'batch norm':
                return [self.layer(name, lambda: nn.BatchNorm2d(c))(x)]
            case 'group norm' if share % n == 0 and share > n:
                return [self.layer(name, lambda: nn.GroupNorm(n, c))(x)]
            case 'chunk' if share % n == 0:
                return list(x.chunk(n, 1))
            case 'split' if share > self.unit // 2:
                return list(x.split([w // 2, c - w // 2], 1))
            case 'unbind' if share % n == 0:
                return list(x.unflatten(1, (n, c // n) if first % 2 else (c // n, n)).unbind(1 if first % 2 else 2))
            case 'halve' if share % 2 == 0:
                return [x[:, : c // 2]]
            case 'strided' if share % n == 0:
                return [x[:, second % n :: n]]
            case 'narrow' if c >= w:
                return [x.narrow(1, w // 4, w // 2)]
            case 'add' if other is not None:
                return [x + stack[other]]
            case 'multiply' if other is not None:
                return [x * torch.sigmoid(stack[other])]
            case 'cat' if stack:
                y = stack.pop(second % len(stack))
                return [torch.cat([x, y, x][first % 2 : 2 + second % 2], 1)]
            case 'stack' if other is not None:
                return [torch.stack([x, stack[other]], 1 + second % 2).flatten(1, 2)]
            case 'gate' if share % n == 0:
                gate = torch.sigmoid(self.layer(name, lambda: nn.Conv2d(c, n, 1))(x))
                return [(x.unflatten(1, (n, -1)) * gate.unsqueeze(2)).flatten(1, 2)]
            case 'write' if share % 2 == 0:
                x = x.clone()
                half = slice(None, c // 2) if second % 2 else slice(c // 2, None)
                x[:, half] = self.layer(name, lambda: nn.Conv2d(c // 2, c // 2, 1))(x[:, half])
                return [x]
            case 'shuffle' if share % n == 0:
                return [x.unflatten(1, (n, -1)).transpose(1, 2).flatten(1, 2)]
            case 'unshuffle' if share % n == 0:
                return [x.unflatten(1, (-1, n)).transpose(1, 2).flatten(1, 2)]
            case 'permute' if share % 4 == 0:
                orders = [(1, 2, 3), (1, 3, 2), (2, 1, 3), (2, 3, 1), (3, 1, 2), (3, 2, 1)]
                y = x.unflatten(1, [(2, 2, -1), (2, -1, 2), (-1, 2, 2)][first % 3])
                return [y.permute(0, *orders[second], 4, 5).flatten(1, 3)]
            case 'swap' if share % n == 0:
                return [torch.cat(x.chunk(n, 1)[::-1], 1)]
            case 'roll':
                return [x.roll(c // 2 if first % 2 else 1, 1)]
            case 'flip':
                return [x.flip(1)]
            case 'grid norm' if share % n == 0 and share > n:
                y = x.unflatten(1, (-1, n)).transpose(1, 2).flatten(1, 2) if first % 2 else x
                return [nn.functional.group_norm(y, n)]
            case 'expand':
                y = torch.stack([x] * n, 1 + first % 2).flatten(1, 2)
                return [y]
            case 'group mean' if share % n == 0:
                y = x.unflatten(1, (n, -1) if first % 2 else (-1, n))
                return [(y - y.mean(2, keepdim=True)).flatten(1, 2)]
            case 'group sum' if share % n == 0:
                y = x.unflatten(1, (n, -1) if first % 2 else (-1, n))
                return [(y * torch.sigmoid(y.sum(2, keepdim=True))).flatten(1, 2)]
            case 'group pool' if share % n == 0 and first % 2 == 0:
                return [x.unflatten(1, (-1, n)).sum(2), x]
            case 'max pool' if share % n == 0 and first % 2 == 0:
                return [x.unflatten(1, (n, -1)).amax(1)]
            case 'channel mean':
                return [x * torch.sigmoid(x.mean(1, keepdim=True))]
            case 'softmax':
                return [x.softmax(1)]
            case 'attention' if share % 3 == 0:
                parts = [each.flatten(2).transpose(1, 2) for each in x.chunk(3, 1)]
                q, k, v = parts[second % 3], parts[(second + 1) % 3], parts[(second + 2) % 3]
                y = nn.functional.scaled_dot_product_attention(q, k, v)
                return [y.transpose(1, 2).unflatten(2, x.shape[2:])]
            case 'channel attention' if share % 3 == 0:
                q, k, v = (each.flatten(2) for each in x.chunk(3, 1))
                y = (q @ k.transpose(1, 2) / 16).softmax(-1) @ v
                return [y.unflatten(2, x.shape[2:])]
            case 'heads' if share % 6 == 0:
                y = x.flatten(2).transpose(1, 2).unflatten(2, (3, 2, -1)).permute(2, 0, 3, 1, 4)
                y = nn.functional.scaled_dot_product_attention(y[0], y[1], y[2])
                return [y.transpose(1, 2).flatten(2).transpose(1, 2).unflatten(2, x.shape[2:])]
        return None
