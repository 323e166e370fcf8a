"""Rankings of candidate sources for a new dataset, and the controls that a good ranking has to beat."""

from __future__ import annotations

import functools
import logging
import math
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..data.labelled import image_shape
from ..data.stratified import stratified_part, stratified_split
from ..distance.embeddings import DIMENSIONS, Embedding, images_of
from ..distance.logme import logme
from ..distance.otdd import METHODS, dataset_distance
from ..distance.sketch import DatasetSketch
from ..errors import REFUSALS, DataError, WarmStartError, ZooError
from ..nni_adapter.model_spaces import create
from ..nni_adapter.mutation import mutate
from ..supernets.features import own_features
from ..supernets.supernet import Supernet
from ..utils.construction import Bounded
from ..utils.limits import Budget
from ..utils.random import quiet_randomness
from ..utils.text import enumerated
from ..warm_start.settings import TransferSettings
from ..warm_start.transfer import transfer
from .probe import STEPS, Labelled, Probe, successive_halving

_logger = logging.getLogger(__name__)

EMBEDDING = 'random_conv'
"""Default embedding in which datasets are compared."""

_ENLARGED = 256  # pixels to which images may be enlarged for a candidate, however small they are

MANY = 256
"""Number of classes above which rankings that run the candidates look at a random part of the classes and their images."""

SCORED, PROBED = (64, 512), (16, 64)
"""Classes and images of that part, for 'logme' and for 'probe'."""


class Ranked(NamedTuple):
    """Candidate source in a ranking.

    Attributes
    ----------
    name
        Name of the entry.
    distance
        Value to rank by, smaller is better: a dataset distance, minus a score (LogME), an error rate plus the number of
        rounds by which the candidate dropped out early (probe), or a random number.
    seconds
        Wall-clock time spent on this candidate.
    """

    name: str
    distance: float
    seconds: float


def inverse_square_weights(distances: Sequence[float]) -> list[float]:
    """Return weights of sources for a fusion: inverse squares of distances that sum to one (Shepard, *ACM* 1968)."""
    inverse = [1 / max(distance, 1e-6) ** 2 for distance in distances]
    return [value / sum(inverse) for value in inverse]


def rank(
    candidates: Sequence[Supernet],
    dataset: Any,
    *,
    by: str = 'otdd',
    embedding: str = EMBEDDING,
    seed: int = 0,
    make_target: Callable[[Supernet, int], nn.Module] | None = None,
) -> list[Ranked]:
    """Rank candidates as sources for a dataset, the best first.

    Parameters
    ----------
    candidates
        Supernets, with the sketches of their data.
    dataset
        A :class:`~nni_warmstart.DatasetSketch` (enough for rankings that do not run the candidates), or labelled data in any
        form that :meth:`DatasetSketch.from_dataset` takes.
    by
        Key of :data:`RANKINGS`.
    embedding
        Name of the embedding in which sketches are compared; ignored if ``dataset`` is a sketch, which has its own.
    seed
        Seed of all random numbers.
    make_target
        Function that makes a fresh, mutated model space for a candidate and a number of classes: for 'probe', and for
        'logme' of networks without choices, which have none of their own. None for the candidate's own space.

    Raises
    ------
    ZooError
        If there are no candidates, ``by`` is unknown, or none can be ranked.
    DataError
        If the ranking needs images and ``dataset`` is a sketch.
    """
    if by not in RANKINGS:
        raise ZooError(f'ranking by {by!r} is unknown; choose one of {", ".join(RANKINGS)}.')
    if not candidates:
        raise ZooError('there is nothing to rank: the zoo has no readable entry.')
    if RANKINGS[by].runs and isinstance(dataset, DatasetSketch):
        raise DataError(f'ranking by {by!r} runs the candidates on images, and a sketch has none; pass the dataset.')
    if isinstance(dataset, DatasetSketch):
        embedding = dataset.embedding
    with quiet_randomness():
        ranked = RANKINGS[by].function(
            candidates, dataset, embedding=embedding, seed=seed, make_target=make_target or own_space
        )
    return sorted(ranked, key=lambda entry: (entry.distance, entry.name))


def own_space(candidate: Supernet, num_classes: int) -> nn.Module:
    """Make a fresh supernet of a candidate's own space for another number of classes."""
    if candidate.is_network:
        raise ZooError(
            'a network without choices has no space of its own; give one to map it onto: zoo rank --config search.yml, or '
            'make_target= in Python.'
        )
    if 'name' not in candidate.space:
        raise ZooError(
            f'supernet {candidate.name!r} was trained on {candidate.space.get("class")}, which a file cannot choose to run; '
            'rank by otdd, or search with that space.'
        )
    with Bounded(candidate.tensors.values(), candidate.space['arguments']):
        space = create(candidate.space['name'], candidate.space['arguments'], num_classes)
    return mutate(space, candidate.strategy)


def sketched(candidates: Iterable[Supernet], embedding: str) -> list[Supernet]:
    """Return the candidates with a sketch in this embedding; the others are left out with a warning.

    So are those whose sketches cannot be compared with any other.

    Raises
    ------
    ZooError
        If no candidate has one.
    """
    candidates = list(candidates)
    found = [each for each in candidates if embedding in each.sketches]
    missing = [each.name for each in candidates if embedding not in each.sketches]
    if not found:
        raise ZooError(
            f'no entry has a sketch in the embedding {embedding!r} ({enumerated(missing)}); pretrain again, or rank by '
            'logme or probe.'
        )
    if missing:
        _logger.warning('Entries without a sketch in the embedding %r are not ranked: %s', embedding, enumerated(missing))
    return _results(found, lambda each: _comparable(each, embedding), _INCOMPARABLE)


def _comparable(candidate: Supernet, embedding: str) -> Supernet:
    """Return the candidate; raise an error if its sketch has other features, or more classes than the limit allows."""
    sketch = candidate.sketches[embedding]
    needed = DIMENSIONS.get(embedding, sketch.dimension)
    if sketch.dimension != needed:
        raise ZooError(f'its sketch in the embedding {embedding!r} has {sketch.dimension} features instead of {needed}.')
    of_covariances = 8 * sketch.num_classes * sketch.dimension**2
    Budget(f'its sketch of {sketch.num_classes} classes', ZooError).check(2 * of_covariances)  # and of their roots
    return candidate


_INCOMPARABLE = 'no entry can be compared with these data; the warnings above say why.'


def _by_distance(method: str) -> Callable[..., list[Ranked]]:
    def ranking(candidates: Sequence[Supernet], dataset: Any, *, embedding: str, **_: Any) -> list[Ranked]:
        target = sketch_like(dataset, embedding)

        def distance(candidate: Supernet) -> float:
            return dataset_distance(candidate.sketches[target.embedding], target, method=method).value

        return _results(
            sketched(candidates, target.embedding), lambda each: _timed(each.name, distance, each), _INCOMPARABLE
        )

    return ranking


def sketch_like(dataset: Any, embedding: str) -> DatasetSketch:
    """Sketch a target as compactly as the candidates, so that like is compared with like.

    Features are their own embedding, whatever ``embedding`` says.
    """
    sketch = dataset if isinstance(dataset, DatasetSketch) else DatasetSketch.from_dataset(dataset, embedding=embedding)
    return sketch.compact()


def pairwise(candidates: Sequence[Supernet], dataset: Any, *, embedding: str = EMBEDDING) -> tuple[list[str], Tensor]:
    """Compute all distances between the data of candidates and a dataset.

    Returns
    -------
    names
        Names of the candidates, then that of the dataset.
    distances
        Distances, shape ``(n + 1, n + 1)``, float64.
    """
    target = sketch_like(dataset, embedding)
    sketches = {each.name: each.sketches[target.embedding] for each in sketched(candidates, target.embedding)}
    return [*sketches, target.name], _distances([*sketches.values(), target])


def _distances(sketches: Sequence[DatasetSketch]) -> Tensor:
    """Compute the distances of all pairs, each once, shape ``(n, n)``."""
    distances = torch.zeros(len(sketches), len(sketches), dtype=torch.float64)
    for i, a in enumerate(sketches):
        for j in range(i):
            distances[i, j] = distances[j, i] = dataset_distance(a, sketches[j]).value
    return distances


def _static(candidates: Sequence[Supernet], dataset: Any, *, embedding: str, **_: Any) -> list[Ranked]:
    """Rank by the mean distance to the other entries, without looking at the target."""
    start = time.perf_counter()
    found = sketched(candidates, embedding)
    means = _distances([each.sketches[embedding] for each in found]).sum(1) / max(len(found) - 1, 1)
    seconds = (time.perf_counter() - start) / len(found)
    return [Ranked(each.name, float(value), seconds) for each, value in zip(found, means, strict=True)]


def _random(candidates: Sequence[Supernet], dataset: Any, *, seed: int, **_: Any) -> list[Ranked]:
    values = torch.rand(len(candidates), generator=torch.Generator().manual_seed(seed)).tolist()
    return [Ranked(each.name, value, 0.0) for each, value in zip(candidates, values, strict=True)]


def _logme(
    candidates: Sequence[Supernet], dataset: Any, *, make_target: Callable[[Supernet, int], nn.Module], **_: Any
) -> list[Ranked]:
    """Rank by the evidence of the labels given each candidate's features."""
    data = functools.cache(lambda channels, image_size: _shown(dataset, channels, image_size, SCORED))

    def score(candidate: Supernet) -> float:
        x, y, _ = data(*_image_shape(candidate, dataset))
        return -logme(_features(candidate, x, y, make_target).function(x), y)

    return _results(candidates, lambda each: _timed(each.name, score, each))


def _features(candidate: Supernet, x: Tensor, y: Tensor, make_target: Callable[[Supernet, int], nn.Module]) -> Embedding:
    """Return the features of a candidate; those of a network without choices are of the space that it is mapped onto."""
    if not candidate.is_network:
        return candidate.features()
    model = make_target(candidate, int(y.max()) + 1)
    transfer(candidate, model, head='random', keep=1.0, noise=0.0, data=(x, y))
    return own_features(model, candidate.key, 0, 0, keeps_statistics=True)


def _results(
    candidates: Sequence[Supernet],
    function: Callable[[Supernet], Any],
    none: str = 'no entry can be run on these images; the warnings above say why. Rank by otdd instead.',
) -> list[Any]:
    """Return the results of ``function``; a candidate for which there is none is left out with a warning.

    Raises
    ------
    ZooError
        If there is none for any candidate, with the message ``none``.
    """
    results = []
    for candidate in candidates:
        try:
            result = function(candidate)
        except (WarmStartError, *REFUSALS) as error:  # errors of torch, weights that diverged, or a user's model
            _logger.warning('Entry %s is not ranked: %s', candidate.name, error)
            continue
        if isinstance(result, Ranked) and not math.isfinite(result.distance):
            _logger.warning('Entry %s is not ranked: its score is %s.', candidate.name, result.distance)
            continue
        results.append(result)
    if not results:
        raise ZooError(none)
    return results


def _probe(
    candidates: Sequence[Supernet],
    dataset: Any,
    *,
    seed: int,
    make_target: Callable[[Supernet, int], nn.Module],
    **_: Any,
) -> list[Ranked]:
    """Rank by the error rate after mapping and some steps of training; the better half continues with twice as many steps.

    For a candidate that dropped out, the number of rounds it missed is added to its error rate. The first round has
    :data:`~nni_warmstart.zoo.probe.STEPS` steps, or one if there are very many classes.
    """
    data = functools.cache(lambda channels, image_size: _halves(dataset, channels, image_size, seed))
    parts: set[bool] = set()

    def probe(candidate: Supernet) -> Probe:
        train, val, is_part = data(*_image_shape(candidate, dataset))
        parts.add(is_part)
        torch.manual_seed(seed)
        model = make_target(candidate, int(train[1].max()) + 1)
        return Probe(candidate.name, [(candidate, 1.0)], model, train, val, TransferSettings(seed=seed))

    probes = _results(candidates, probe)
    probes = successive_halving(probes, 1 if True in parts else STEPS)
    return [Ranked(probe.name, probes[0].rounds - probe.rounds + probe.error, probe.seconds) for probe in probes]


def _image_shape(candidate: Supernet, dataset: Any) -> tuple[int, int]:
    """Return channels and size (pixels) of the images that a candidate takes; (0, 0) for a network, which takes any.

    Raises
    ------
    ZooError
        If they are far larger than those of the dataset, which would have to be enlarged.
    """
    if candidate.is_network:
        return 0, 0
    channels, image_size = candidate.pictures
    if image_size > _ENLARGED and image_size > 2 * (image_shape(dataset) or (0, 0))[1]:
        raise ZooError(f'it takes images of {image_size} pixels, to which those of the data are not enlarged.')
    return channels, image_size


def _shown(dataset: Any, channels: int, image_size: int, part: tuple[int, int]) -> tuple[Tensor, Tensor, bool]:
    """Return the images and classes on which candidates are run, and whether they are a ``part`` of very many classes."""
    x, y = images_of(dataset, channels, image_size)
    count = int(y.max()) + 1
    if count <= MANY:
        return x, y, False
    classes = torch.randperm(count, generator=torch.Generator().manual_seed(0))[: part[0]].sort().values
    among = torch.isin(y, classes).nonzero().squeeze(1)
    numbered = torch.searchsorted(classes, y[among])
    chosen = stratified_part(numbered, part[1], seed=0)
    return x[among[chosen]], numbered[chosen], True


def _halves(dataset: Any, channels: int, image_size: int, seed: int) -> tuple[Labelled, list[Labelled], bool]:
    """Return images and classes to train on, batches to measure on, and whether these are a part of the classes."""
    x, y, is_part = _shown(dataset, channels, image_size, PROBED)
    held_out, kept = stratified_split(y, 0.5, seed)
    if not len(held_out):
        raise DataError('the images to rank by have one of each class, and the probe needs one more to measure on.')
    return (x[kept], y[kept]), list(zip(x[held_out].split(256), y[held_out].split(256), strict=True)), is_part


def _timed(name: str, function: Callable[[Any], float], argument: Any) -> Ranked:
    start = time.perf_counter()
    value = function(argument)
    return Ranked(name, value, time.perf_counter() - start)


class Ranking(NamedTuple):
    """Ranking of candidate sources.

    Attributes
    ----------
    function
        Function of candidates and a dataset, with the keyword arguments ``embedding``, ``seed`` and ``make_target``.
    text
        Short description.
    runs
        Whether candidates are run on images, so that a sketch is not enough.
    """

    function: Callable[..., list[Ranked]]
    text: str
    runs: bool = False


RANKINGS: dict[str, Ranking] = {
    **{method.ranking: Ranking(_by_distance(name), method.text) for name, method in METHODS.items() if method.ranking},
    'logme': Ranking(_logme, "evidence of the labels given an entry's features", runs=True),
    'probe': Ranking(_probe, 'accuracy after mapping and some steps', runs=True),
    'static': Ranking(_static, 'a control that ignores the data: mean distance to the other entries'),
    'random': Ranking(_random, 'a control that ignores the data'),
}
"""Rankings by name: by dataset distances, and others."""
