"""Embeddings by name: images of any size, channels and contrast become vectors of equal length."""

from __future__ import annotations

import inspect
import itertools
import os
import weakref
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data.labelled import Labelled, read_sample
from ..errors import DataError
from ..utils.modules import modes_kept
from ..utils.random import quiet_randomness

EMBEDDINGS = ('pixels', 'random_conv')
"""Embeddings in which the data of every supernet are sketched."""

NAMES = ('pixels', 'random_conv', 'resnet18')
"""Names of embeddings; a :class:`~nni_warmstart.Supernet` or a function can serve as an embedding as well."""

DIMENSIONS = {'pixels': 64, 'random_conv': 64, 'resnet18': 512}
"""Number of features of the embeddings that have a name."""


class Embedding(NamedTuple):
    """Function from images to vectors, and the form of images that it takes.

    Attributes
    ----------
    name
        Name of the embedding; two sketches can be compared if their embeddings have the same name.
    channels, image_size
        Shape to which images are brought before ``function`` is called; 0 leaves them unchanged.
    function
        Function from images to features ``(n, d)``.
    standardised
        Whether images are converted to float32 and standardised per channel over the dataset.
    whole
        Whether ``function`` needs all images at once; otherwise it is called on batches.
    """

    name: str
    channels: int
    image_size: int
    function: Callable[[Tensor], Tensor]
    standardised: bool = True
    whole: bool = False


@runtime_checkable
class HasFeatures(Protocol):
    """Object with features of its own, such as a :class:`~nni_warmstart.Supernet`."""

    @property
    def key(self) -> str:
        """Identifier of the weights."""
        ...

    def features(self) -> Embedding:
        """Return the features as an embedding."""
        ...


_unused = itertools.count(1)

_nameless: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()


def resolve(embedding: str | Embedding | HasFeatures | Callable[[Tensor], Tensor]) -> Embedding:
    """Return the embedding meant by an argument: an embedding, its name, a supernet (its features), or a function of images.

    Raises
    ------
    DataError
        If the name is unknown, or the weights of 'resnet18' are not on disk.
    """
    if isinstance(embedding, str):
        if embedding == 'pixels':
            return Embedding('pixels', 1, 8, lambda x: x.flatten(1))
        if embedding == 'random_conv':
            return Embedding('random_conv', 3, 32, _random_conv())
        if embedding == 'resnet18':
            return Embedding('resnet18', 3, 64, _resnet18())
        raise DataError(
            f'embedding {embedding!r} is unknown; choose one of {", ".join(NAMES)}, or pass a Supernet or a function.'
        )
    if isinstance(embedding, Embedding):
        return embedding
    if isinstance(embedding, HasFeatures):
        return embedding.features()
    if callable(embedding):
        name = getattr(embedding, '__name__', '<object>')
        if name.startswith('<'):  # two lambdas, or two networks of one class, are not one embedding
            name = f'{type(embedding).__name__} {_nameless.setdefault(embedding, next(_unused))}'
        elif inspect.ismethod(embedding) and not inspect.isclass(embedding.__self__):  # nor is a method of two of them
            name = f'{embedding.__qualname__} {_nameless.setdefault(embedding.__self__, next(_unused))}'
        elif inspect.isfunction(embedding) and embedding.__closure__ and '<locals>' in embedding.__qualname__:
            # nor are two functions of one factory; one that is decorated is one
            name = f'{name} {_nameless.setdefault(embedding, next(_unused))}'
        return Embedding(name, 0, 0, embedding, standardised=False)
    raise DataError(f'embedding is a {type(embedding).__name__}; it must be a name, a Supernet or a function of images.')


def _random_conv(width: int = 32) -> Callable[[Tensor], Tensor]:
    """Make a fixed convolutional network with random weights.

    Features are the means and standard deviations of its last feature maps, shape ``(n, 2 * width)``.
    """
    generator = torch.Generator().manual_seed(0)
    weights = []
    for source, target in ((3, width), (width, width), (width, width)):
        weight = torch.randn(target, source * 9, generator=generator)
        weights.append((weight * (2 / weight.shape[1]) ** 0.5).view(target, source, 3, 3))

    def features(x: Tensor) -> Tensor:
        for weight in weights:
            x = F.max_pool2d(F.conv2d(x, weight.to(x), padding=1).relu(), 2)
        return torch.cat([x.mean((2, 3)), x.std((2, 3), correction=0)], 1)

    return features


def _resnet18() -> Callable[[Tensor], Tensor]:
    """Load torchvision's ResNet-18 pretrained on ImageNet, features ``(n, 512)``, if its weights are in torch's cache."""
    from torchvision.models import ResNet18_Weights, resnet18

    weights = ResNet18_Weights.DEFAULT
    path = os.path.join(torch.hub.get_dir(), 'checkpoints', os.path.basename(weights.url))
    if not os.path.isfile(path):
        raise DataError(
            f"embedding 'resnet18' needs torchvision's weights at {path}, and they are not there; fetch them with "
            "torchvision.models.resnet18(weights='DEFAULT'), or choose another embedding."
        )
    model = resnet18()
    model.load_state_dict(torch.load(path, map_location='cpu', weights_only=True))
    model.fc = nn.Identity()  # type: ignore[assignment]
    model.eval()
    # Standardisation per channel stands in for ImageNet's normalisation, which is one as well.
    return lambda x: model(F.interpolate(x, 64, mode='bilinear', antialias=True))


EMBEDDED = 5000
"""Largest number of images that are embedded: enough for means and covariances, and fast for a large dataset."""


def images_of(dataset: Labelled, channels: int, image_size: int, name: str = 'dataset') -> tuple[Tensor, Tensor]:
    """Return at most 5,000 images, stratified and standardised per channel, and their classes, numbered from 0 without gaps.

    Shapes are ``(n, channels, image_size, image_size)`` and ``(n,)``.
    """
    x, y, population = read_sample(dataset, name, channels, image_size, EMBEDDED, seed=0)
    classes = torch.searchsorted(population.unique(), y)
    return embed(x, Embedding('images', channels, image_size, lambda x: x), name), classes


def embed(x: Tensor, embedding: Embedding, name: str) -> Tensor:
    """Return the features ``(n, d)`` of images; ``name``, that of the dataset, is used in errors.

    Raises
    ------
    DataError
        If some pixels are not finite, or the embedding gives no tensor.
    """
    if not torch.isfinite(x.float()).all():
        raise DataError(f'{name} has NaN or infinite pixels; remove or repair those images.')
    if embedding.standardised and x.ndim == 4:
        x = x.float()
        deviation = x.std((0, 2, 3), keepdim=True).clamp_min(1e-6)
        x = (x - x.mean((0, 2, 3), keepdim=True)).div_(deviation)
    parts, function = [], embedding.function
    with torch.no_grad(), quiet_randomness(), modes_kept(function) if isinstance(function, nn.Module) else nullcontext():
        if isinstance(function, nn.Module):
            function.eval()
        for batch in [x] if embedding.whole else x.split(256):
            part = function(batch)
            if not isinstance(part, Tensor):
                raise DataError(f'embedding {embedding.name!r} gave a {type(part).__name__}; it must give a tensor (n, d).')
            parts.append(part.detach().cpu())
    return torch.cat(parts)
