"""DatasetSketch: a summary of a labelled dataset in tens of kilobytes, enough to compare it with others."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..data.labelled import MOST_BYTES, Labelled, name_and_classes, read_sample
from ..data.stratified import stratified_part
from ..errors import REFUSALS, DataError, WarmStartError
from .embeddings import EMBEDDED, Embedding, HasFeatures, embed, resolve
from .label_distances import Spread, leading

_logger = logging.getLogger(__name__)

_PARTS = ('classes', 'counts', 'means', 'factors', 'remainders', 'samples', 'labels')


@dataclass(frozen=True)
class DatasetSketch:
    """Summary of a labelled dataset: classes as Gaussians and a sample of each, in an embedding of ``d`` dimensions.

    Create one with :meth:`from_dataset`.

    Attributes
    ----------
    name
        Name of the dataset.
    embedding
        Name of the embedding; only sketches in the same embedding can be compared.
    classes
        Label values, shape ``(n_classes,)``, int64, sorted; all other attributes are in this order.
    counts
        Number of samples of each class in the whole dataset, shape ``(n_classes,)``, int64.
    means
        Means of the classes, shape ``(n_classes, d)``.
    factors
        Factors of the unbiased covariances, shape ``(n_classes, d, r)``: a covariance is ``factor @ factor.T`` plus
        ``remainder`` times the identity. A class with one sample has covariance 0.
    remainders
        Isotropic variance that the few columns of a compact sketch leave out, shape ``(n_classes,)``; 0 otherwise.
    samples
        Embedded samples, stratified, shape ``(n, d)``.
    labels
        Positions of the samples' classes in ``classes``, shape ``(n,)``, int64.
    """

    name: str
    embedding: str
    classes: Tensor = field(repr=False)
    counts: Tensor = field(repr=False)
    means: Tensor = field(repr=False)
    factors: Tensor = field(repr=False)
    remainders: Tensor = field(repr=False)
    samples: Tensor = field(repr=False)
    labels: Tensor = field(repr=False)

    @classmethod
    def from_dataset(
        cls,
        dataset: Labelled,
        *,
        embedding: str | Embedding | HasFeatures | Callable[[Tensor], Tensor] = 'random_conv',
        max_samples: int | None = 1000,
        seed: int = 0,
        name: str | None = None,
    ) -> DatasetSketch:
        """Sketch a labelled dataset.

        Parameters
        ----------
        dataset
            A task (its training part), a torch dataset, a loader of batches ``(x, y)``, or two arrays. ``x`` holds images
            of 1 or 3 channels, or features ``(n, d)``, which are not embedded again. Labels are whole numbers.
        embedding
            'pixels' (8 x 8, grey), 'random_conv' (a fixed random network), 'resnet18' (requires torchvision's weights on
            disk), a supernet (its own features), or a function of unchanged images. For the first four, images are brought
            to one size and number of channels and standardised per channel.
        max_samples
            Largest number of samples to keep, with at least one of each class; None keeps all. Counts are taken over the
            whole dataset, means and covariances over all features, or over 5,000 images.
        seed
            Seed for the choice of samples.
        name
            Name of the dataset; None takes the name that ``dataset`` has.

        Raises
        ------
        DataError
            If there are no labels, no samples, features that are not finite, or shapes that do not fit.
        """
        name = name or name_and_classes(dataset)[0]
        resolved = resolve(embedding)
        pixels = resolved.channels * resolved.image_size**2
        at_most = None if max_samples is None else min(max(max_samples, EMBEDDED), MOST_BYTES // (4 * pixels or 1))
        x, y, population = read_sample(dataset, name, resolved.channels, resolved.image_size, at_most, seed)
        if x.ndim == 2:
            resolved = Embedding(f'features{x.shape[1]}', 0, 0, lambda given: given, standardised=False)
            features = x if x.is_floating_point() else x.float()
        else:
            features = embed(x, resolved, name)
        if features.ndim != 2 or len(features) != len(y):
            raise DataError(
                f'embedding {resolved.name!r} of {name} has shape {tuple(features.shape)}; needed is one row for each of '
                f'its {len(y)} samples.'
            )
        finite = torch.isfinite(features).all(1)
        if not finite.all():
            raise DataError(f'{name} has NaN or infinite features in {int((~finite).sum())} of {len(finite)} samples.')
        sketch = _summary(name, resolved.name, features, y, max_samples, seed)
        return replace(sketch, counts=population.unique(return_counts=True)[1])

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    @property
    def dimension(self) -> int:
        """Number of features of a sample."""
        return self.means.shape[1]

    def covariances(self) -> Tensor:
        """Return class covariances, shape ``(n_classes, d, d)``, float64."""
        factors = self.factors.double()
        identity = torch.eye(self.dimension, dtype=torch.float64)
        return factors @ factors.mT + self.remainders.double()[:, None, None] * identity

    def full_factors(self) -> Tensor:
        """Return factors of :meth:`covariances`, remainders included, shape ``(n_classes, d, r)``, float64."""
        if not self.remainders.any():
            return self.factors.double()
        values, vectors = torch.linalg.eigh(self.covariances())
        return vectors * values.clamp_min(0).sqrt()[:, None, :]

    def variance_of_means(self) -> float:
        """Return the squared standard errors of the means of all classes, summed over classes and dimensions."""
        variances = self.factors.double().square().sum((1, 2)) + self.dimension * self.remainders.double()
        embedded = self.counts * min(1.0, EMBEDDED / int(self.counts.sum()))
        return float((variances / embedded).sum())

    def spread(self) -> Spread:
        """Return the leading directions of :meth:`covariances`, and the variances in these and in all directions."""
        return leading(self.factors, self.remainders)

    def compact(self, *, kilobytes: float = 40, seed: int = 0) -> DatasetSketch:
        """Return a smaller sketch for storage: fewer samples, the leading directions of each covariance, half precision.

        About a third of the budget goes to the covariances and the rest, after the means, to the samples. Every class
        keeps at least one sample, so that very many classes exceed the budget.
        """
        num_values = int(kilobytes * 1000 / 2)
        d, c = self.dimension, self.num_classes
        rank = max(1, min(d, self.factors.shape[2], num_values // (3 * c * d)))
        keep = max(c, (num_values - c * d * (rank + 2)) // d)
        vectors, roots, _ = torch.linalg.svd(self.factors.double(), full_matrices=False)  # d x d matrices may be too many
        remainders = self.remainders.double()
        rest = (roots[:, rank:].square().sum(1) + (d - rank) * remainders) / max(d - rank, 1)
        leading = (roots[:, :rank].square() + (remainders - rest)[:, None]).clamp_min(0)
        chosen = stratified_part(self.labels, keep, seed)
        return replace(
            self,
            means=self.means.float(),
            factors=_half(vectors[:, :, :rank] * leading.sqrt()[:, None, :]),
            remainders=rest.float(),
            samples=_half(self.samples[chosen]) if self._is_centred() else self.samples[chosen].float(),
            labels=self.labels[chosen],
        )

    def _is_centred(self) -> bool:
        """Check whether samples are close enough to zero for half precision to tell them apart."""
        return len(self.samples) < 2 or bool(self.samples.abs().max() / 2048 <= 0.05 * self.samples.std(0).max())

    def to_tensors(self) -> dict[str, Tensor]:
        """Return the tensors by attribute, for a file."""
        return {part: getattr(self, part) for part in _PARTS}

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor], *, name: str, embedding: str) -> DatasetSketch:
        """Create a sketch from the tensors that :meth:`to_tensors` returned.

        Raises
        ------
        DataError
            If a tensor is missing or the shapes do not fit together.
        """
        missing = set(_PARTS) - tensors.keys()
        if missing:
            raise DataError(f'the sketch of {name} has no {", ".join(sorted(missing))}.')
        sketch = cls(name=name, embedding=embedding, **{part: tensors[part] for part in _PARTS})
        shapes = [tuple(tensors[part].shape) for part in _PARTS]
        (c,), (d,), (r,) = shapes[0], shapes[2][1:], shapes[3][2:]
        n = len(sketch.samples)
        if shapes != [(c,), (c,), (c, d), (c, d, r), (c,), (n, d), (n,)] or (n and int(sketch.labels.max()) >= c):
            raise DataError(f'the sketch of {name} has tensors that do not fit together: {shapes}.')
        return sketch


def merged(sketches: Iterable[DatasetSketch], name: str) -> DatasetSketch:
    """Merge sketches in one embedding, classes numbered one after the other: the data of a joint supernet."""
    parts = list(sketches)
    rank = max(part.factors.shape[2] for part in parts)
    first_class = first_position = 0
    classes, labels = [], []
    for part in parts:
        classes.append(part.classes + first_class)
        labels.append(part.labels + first_position)
        first_class += int(part.classes.max()) + 1
        first_position += part.num_classes
    return DatasetSketch(
        name,
        parts[0].embedding,
        torch.cat(classes),
        torch.cat([part.counts for part in parts]),
        torch.cat([part.means for part in parts]),
        torch.cat([F.pad(part.factors, (0, rank - part.factors.shape[2])) for part in parts]),
        torch.cat([part.remainders for part in parts]),
        torch.cat([part.samples for part in parts]),
        torch.cat(labels),
    )


def sketches_of(datasets: Iterable[Labelled], embeddings: Iterable[str | Embedding], name: str) -> Iterator[DatasetSketch]:
    """Yield a compact sketch of all datasets together for each embedding that works; a warning names the others."""
    datasets = list(datasets)
    for embedding in embeddings:
        try:
            parts = [DatasetSketch.from_dataset(dataset, embedding=embedding) for dataset in datasets]
            sketch = (parts[0] if len(parts) == 1 else merged(parts, name)).compact()
        except (WarmStartError, *REFUSALS) as error:  # whatever a user's model may raise
            _logger.warning('No sketch of %s by %s: %s', name, getattr(embedding, 'name', embedding), error)
        else:
            yield sketch


def as_sketch(given: Any) -> DatasetSketch:
    """Return ``given`` if it is a sketch, else a sketch of it with all of its samples."""
    return given if isinstance(given, DatasetSketch) else DatasetSketch.from_dataset(given, max_samples=None)


def _half(tensor: Tensor) -> Tensor:
    """Return a tensor in half precision, or in single precision if half would overflow, or lose small values."""
    largest = float(tensor.abs().max())
    return tensor.half() if largest == 0 or 1e-3 < largest < 6e4 else tensor.float()


def _summary(name: str, embedding: str, features: Tensor, y: Tensor, max_samples: int | None, seed: int) -> DatasetSketch:
    classes, labels, counts = y.unique(return_inverse=True, return_counts=True)
    d, largest = features.shape[1], int(counts.max())
    rank = min(d, largest)
    means = torch.zeros(len(classes), d, dtype=torch.float64)
    factors = torch.zeros(len(classes), d, rank, dtype=torch.float64)
    for index in range(len(classes)):
        members = features[labels == index].double()
        means[index] = members.mean(0)
        if len(members) > 1:
            root = (members - means[index]) / (len(members) - 1) ** 0.5
            if len(root) > d:
                root = torch.linalg.qr(root, mode='r').R
            factors[index, :, : len(root)] = root.T
    chosen = torch.arange(len(y)) if max_samples is None else stratified_part(labels, max_samples, seed)
    return DatasetSketch(
        name, embedding, classes, counts, means, factors, torch.zeros(len(classes), dtype=torch.float64),
        features[chosen], labels[chosen],
    )  # fmt: skip
