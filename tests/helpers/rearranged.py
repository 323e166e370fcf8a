"""Small model spaces that cut, concatenate and rearrange channels in their own ``forward``, drawn at random."""

from __future__ import annotations

from collections.abc import Callable

import torch
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from torch import Tensor, nn

Block = Callable[['Rearranged', str, int], int]

FOLLOWED = (
    'plain', 'chunk and add', 'gate', 'chunk to layers', 'split and swap', 'unbind', 'interleaved', 'slice', 'fixed slice',
    'in place', 'shuffle', 'groups', 'group norm', 'spatial gate', 'head gate', 'concatenated', 'every second',
    'flip halves', 'shared', 'pixel shuffle', 'constant factor',
)  # fmt: skip
"""Blocks whose function is kept in a wider network."""

OTHERS = (
    'residual shuffle', 'roll', 'flip', 'group mean', 'group sum', 'sum of channels', 'differences', 'softmax', 'attention',
    'heads', 'fused parameter', 'sorted', 'neighbours', 'local response', 'channel gate', 'ramp', 'places',
)  # fmt: skip
"""Blocks that cannot be followed to another width, or only in part."""


class Rearranged(ModelSpace):
    """Blocks in a row, each of which takes and gives ``width`` channels."""

    def __init__(self, blocks: tuple[str, ...], width: int) -> None:
        super().__init__()
        self.blocks, self.width = blocks, width
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        for index, block in enumerate(blocks):
            self.add(block, index, width)
        self.choice = LayerChoice({'conv': nn.Conv2d(width, width, 1), 'skip': nn.Identity()}, label='choice')
        self.norm, self.head = nn.BatchNorm2d(width), nn.Linear(width, 3)

    def add(self, block: str, index: int, w: int) -> None:
        made = {
            'chunk and add': 3 * w, 'gate': 2 * w, 'chunk to layers': 2 * w, 'unbind': 3 * w, 'interleaved': 3 * w,
            'attention': 3 * w, 'heads': 3 * w, 'spatial gate': 1, 'head gate': 2, 'slice': w // 2, 'in place': w // 2,
            'pixel shuffle': 4 * w,
        }.get(block, w)  # fmt: skip
        reads = {'slice': w // 2, 'in place': w // 2, 'concatenated': 2 * w, 'fixed slice': 2, 'every second': w // 2}
        read = reads.get(block, w - (block == 'differences'))
        self.set(index, 'conv', nn.Conv2d(read, made, 1))
        if block in ('chunk to layers', 'unbind', 'interleaved'):
            self.set(index, 'a', nn.Conv2d(w, w, 3, padding=1))
            self.set(index, 'b', nn.Conv2d(w, w, 1))
        if block == 'groups':
            self.set(index, 'conv', nn.Conv2d(w, w, 3, padding=1, groups=2))
        if block == 'group norm':
            self.set(index, 'a', nn.GroupNorm(2, w))
        if block == 'pixel shuffle':
            self.set(index, 'a', nn.Conv2d(w, w, 3, stride=2, padding=1))
        if block == 'channel gate':
            self.set(index, 'a', nn.Conv1d(1, 1, 3, padding=1))
        if block == 'places':
            self.register_buffer(f'places{index}', torch.linspace(-1, 1, w)[:, None, None], persistent=False)
        if block == 'fused parameter':
            self.register_parameter(f'fused{index}', nn.Parameter(torch.randn(3 * w, w) / w**0.5))

    def set(self, index: int, name: str, module: nn.Module) -> None:
        setattr(self, f'{name}{index}', module)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for index, block in enumerate(self.blocks):
            x = self.run(block, index, torch.relu(x))
        return self.head(self.norm(self.choice(x)).mean((2, 3)))

    def run(self, block: str, index: int, x: Tensor) -> Tensor:
        conv, a, b = (getattr(self, f'{name}{index}', None) for name in ('conv', 'a', 'b'))
        w, half = self.width, self.width // 2
        match block:
            case 'plain':
                return x + conv(x)
            case 'chunk and add':
                q, k, v = conv(x).chunk(3, 1)
                return q * torch.sigmoid(k) + v
            case 'gate':
                return nn.functional.glu(conv(x), 1)
            case 'chunk to layers':
                q, k = conv(x).chunk(2, 1)
                return a(q) + b(k)
            case 'split and swap':
                p, q = conv(x).split([half, w - half], 1)
                return torch.cat([q, p], 1)
            case 'unbind':
                q, k, v = conv(x).unflatten(1, (3, w)).unbind(1)
                return a(q) + b(k) * v
            case 'interleaved':
                y = conv(x).unflatten(1, (w, 3))
                return a(y[:, :, 0]) - b(y[:, :, 1]) * y[:, :, 2]
            case 'slice':
                return torch.cat([x[:, half:], conv(x[:, :half])], 1)
            case 'fixed slice':
                return x + conv(x[:, :2])
            case 'in place':
                x = x.clone()
                x[:, :half] = conv(x[:, :half])
                return x
            case 'shuffle':
                return conv(nn.functional.channel_shuffle(x, 2))
            case 'groups':
                return nn.functional.channel_shuffle(conv(x), 2)
            case 'group norm':
                return a(conv(x))
            case 'spatial gate':
                return x * torch.sigmoid(conv(x))
            case 'head gate':
                gate = torch.sigmoid(conv(x)).unsqueeze(2)
                return (x.unflatten(1, (2, half)) * gate).flatten(1, 2)
            case 'concatenated':
                return conv(torch.cat([x, 2 * x], 1))
            case 'every second':
                return torch.cat([conv(x[:, ::2]), x[:, 1::2]], 1)[:, :w] if w % 2 == 0 else x
            case 'flip halves':
                p, q = conv(x).chunk(2, 1)
                return torch.cat([p + q.flip(1), q], 1)
            case 'shared':
                return conv(conv(x))
            case 'pixel shuffle':
                return a(nn.functional.pixel_shuffle(conv(x), 2))
            case 'constant factor':
                return conv(x) * torch.full((w, 1, 1), 0.5).to(x) + torch.linspace(0, 1, x.shape[-1]).to(x)
            case 'neighbours':
                return conv(nn.functional.avg_pool3d(x[:, None], (3, 1, 1), 1, (1, 0, 0))[:, 0])
            case 'local response':
                return nn.functional.local_response_norm(conv(x), 3, alpha=3.0, k=0.1)
            case 'channel gate':
                return x * torch.sigmoid(a(conv(x).mean((2, 3))[:, None]))[:, 0, :, None, None]
            case 'ramp':
                return conv(x * torch.linspace(0.5, 1.5, w, device=x.device)[:, None, None])
            case 'places':
                return conv(x) + getattr(self, f'places{index}')
            case 'residual shuffle':
                return conv(x + nn.functional.channel_shuffle(x, 2))
            case 'roll':
                return conv(x + x.roll(1, 1))
            case 'flip':
                return conv(x * x.flip(1))
            case 'group mean':
                y = conv(x).unflatten(1, (2, half))
                return (y - y.mean(2, keepdim=True)).flatten(1, 2)
            case 'group sum':
                y = conv(x).unflatten(1, (2, half))
                return (y - y.sum(2, keepdim=True)).flatten(1, 2)
            case 'sum of channels':
                return conv(x) * x.sum(1, keepdim=True)
            case 'differences':
                return x + torch.nn.functional.pad(conv(x[:, 1:] - x[:, :-1]), (0, 0, 0, 0, 0, 0))
            case 'softmax':
                return x + conv(x).softmax(1)
            case 'attention':
                q, k, v = conv(x).chunk(3, 1)
                q, k, v = (each.flatten(2).transpose(1, 2) for each in (q, k, v))
                y = (q @ k.transpose(1, 2)).softmax(-1) @ v
                return x + y.transpose(1, 2).unflatten(2, x.shape[2:])
            case 'heads':
                q, k, v = conv(x).flatten(2).transpose(1, 2).unflatten(2, (3, 2, half)).permute(2, 0, 3, 1, 4)
                y = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
                return x + y.transpose(1, 2).unflatten(2, x.shape[2:])
            case 'fused parameter':
                weight = getattr(self, f'fused{index}')
                q, k = (nn.functional.conv2d(x, weight[i * w : (i + 1) * w, :, None, None]) for i in (0, 1))
                return conv(q) + (q * k).sum(1, keepdim=True)
            case 'sorted':
                return conv(x.sort(1).values)
        raise ValueError(block)
