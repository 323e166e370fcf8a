"""Selection of the supernets that ``source=`` stands for."""

from __future__ import annotations

import copy
import functools
import logging
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from ..data.labelled import first_batches
from ..errors import DataError, TransferError, WarmStartError, ZooError
from ..supernets.pretrained import registry
from ..supernets.supernet import Supernet
from ..utils.modules import unwrapped
from ..utils.text import enumerated
from ..warm_start.compatibility import is_same, share_in_common
from ..warm_start.plan import Plan
from ..warm_start.settings import TransferSettings
from .probe import Probe
from .ranking import EMBEDDING, Ranked, inverse_square_weights, rank
from .zoo import SupernetZoo, open_zoo, resolve_source

_logger = logging.getLogger(__name__)

Source = Supernet | nn.Module | ExportedProgram | str | os.PathLike[str]

Weighted = list[tuple[Supernet, float]]

FUSED = 2
"""Number of supernets that 'fused' takes."""

NETWORKS = 2
"""Number of networks without choices that 'auto' tries out, those with the largest share of the target in common first."""

LEAST = 0.5
"""Least share of the target's weights with a partner in an entry that a rule takes."""

PROBED = 512
"""Number of images of either half that 'auto' uses."""


MOST_PROBED = 2**26
"""Bytes of float32 images that a network gets at once when sources are tried out."""


class Choice(NamedTuple):
    """Sources of a warm start.

    Attributes
    ----------
    sources
        Supernets with their weights.
    ranking
        Candidates that the sources were chosen from, the best first; empty for sources that were named.
    plan
        Warm start from the sources, if it was prepared to try them out.
    """

    sources: Weighted
    ranking: Sequence[Ranked] = ()
    plan: Plan | None = None


@dataclass(frozen=True)
class SourceSelector:
    """Selects the sources of one warm start.

    Attributes
    ----------
    zoo
        Zoo in which names are looked up.
    target
        Mutated model space.
    loader
        Returns the loader of a half, 'train' or 'val'.
    settings
        Settings of the warm start.
    download
        Whether published weights of a network that is named may be fetched.
    """

    zoo: SupernetZoo | str | os.PathLike[str] | None
    target: nn.Module
    loader: Callable[[str], Any]
    settings: TransferSettings
    download: bool = False

    def choose(self, source: Source | Sequence[Source]) -> Choice:
        """Find the supernets that a source stands for.

        Raises
        ------
        ZooError
            If there is no such source, or none that fits.
        """
        if isinstance(source, str) and source in self.by_rule:
            try:
                return self.by_rule[source](self)
            except ZooError as error:
                raise ZooError(f'source {source!r}: {error}') from error
        if isinstance(source, nn.Module | ExportedProgram) or registry.is_named(source):
            return Choice([(self._network(source), 1.0)])
        if not isinstance(source, list | tuple):
            return Choice([(resolve_source(cast(Any, source), self.zoo), 1.0)])
        if not source:
            raise ZooError('source is an empty list; name at least one supernet.')
        return Choice(self._weighted([each for item in source for each, _ in self.choose(item).sources]))

    def _network(self, source: nn.Module | ExportedProgram | str) -> Supernet:
        """Return a network as a source, for images of the target's shape."""
        shape = [int(size) for size in self._some.shape[1:]]
        if isinstance(source, str):
            return registry.named_network(source, input_shape=shape, download=self.download)
        return Supernet.from_network(source, name=type(unwrapped(source)).__name__, input_shape=shape)

    def nearest(self) -> Choice:
        """Take the entry whose data are nearest by optimal transport."""
        return self._nearest(1)

    def fused(self) -> Choice:
        """Take the nearest supernets, to be fused."""
        return self._nearest(FUSED)

    def joint(self) -> Choice:
        """Take the entry trained on most datasets, preferably one of the target's own shape."""
        found = [each for each in self.candidates.values() if each.is_joint and not each.is_network]
        if not found:
            raise ZooError(
                f'zoo {open_zoo(self.zoo).root} has no supernet of several datasets that fits this model space; '
                'make one with `nni-warmstart pretrain`.'
            )
        best = max(found, key=lambda each: (is_same(each, self.target, self._some), len(each.datasets), each.name))
        return Choice([(best, 1.0)])

    def auto(self) -> Choice:
        """Take the joint entry, unless the nearest has a clearly lower error, or the two nearest fused a clearly lower one.

        Networks without choices have no data to be near to, as a rule, so those that fit best are tried out as well.
        Error rates are measured before any training: a few steps of training help less than more images do
        (benchmarks/NOTES.md). "Clearly" is by more than a standard error, as in Breiman et al., *Classification and
        Regression Trees*, 1984, section 3.4. Fusion takes longest, and hardly ever wins where the nearest alone has lost.
        """
        if len(self.candidates) == 1:
            return Choice([(each, 1.0) for each in self.candidates.values()])
        # Find the joint and the nearest entry; the zoo may lack either.
        found: dict[str, Weighted] = {}
        trouble: WarmStartError | None = None
        for rule in ('joint', 'nearest'):
            try:
                found[rule] = self.by_rule[rule](self).sources
            except (ZooError, DataError) as error:  # no joint entry, or the nearest cannot be found
                trouble = error
        if len({sources[0][0].name for sources in found.values()}) < len(found):
            del found['joint']  # the same entry
        taken = [sources[0][0].name for sources in found.values()]
        found |= {f'network {each.name}': [(each, 1.0)] for each in self._networks if each.name not in taken}
        if trouble is not None and not found:
            raise trouble
        # Try them out, and their fusion if the nearest has won.
        may_fuse = 'nearest' in found and not found['nearest'][0][0].is_network and len(self._ranked(FUSED)) > 1
        if len(found) == 1 and not may_fuse:
            return Choice(next(iter(found.values())))
        tried: dict[str, Probe] = {}
        for rule, sources in found.items():
            probe = self._tried(sources, must=not tried and rule == list(found)[-1])
            if probe is not None:
                tried[rule] = probe
        if may_fuse and self._best(tried) == 'nearest':
            found['fused'] = self.fused().sources
            probe = self._tried(found['fused'])
            if probe is not None:
                tried['fused'] = probe
        best = self._best(tried)
        order = sorted(tried, key=lambda rule: (rule != best, tried[rule].error))
        ranking = [Ranked(tried[rule].name, tried[rule].error, tried[rule].seconds) for rule in order]
        return Choice(found[best], ranking, tried[best].plan)

    def _tried(self, sources: Weighted, *, must: bool = False) -> Probe | None:
        """Try sources out; return None if they cannot be mapped, or raise the error if they ``must`` be."""
        try:
            return self._probe(sources)
        except TransferError as failure:
            if must:
                raise
            _logger.warning('%s is left out: %s', _names(sources), failure)
            return None

    def _probe(self, sources: Weighted) -> Probe:
        train, val = self._halves['train'], self._halves['val']
        train = train[0] if len(train) == 1 else train
        return Probe(_names(sources), sources, copy.deepcopy(self.target), train, val, self.settings)

    def _best(self, tried: dict[str, Probe]) -> str:
        """Return the rule of the first probe within a standard error of the best."""
        least = min(probe.error for probe in tried.values())
        most = least + math.sqrt(least * (1 - least) / sum(len(y) for _, y in self._halves['val']))
        return next(rule for rule, probe in tried.items() if probe.error <= most)

    by_rule: ClassVar = {'nearest': nearest, 'fused': fused, 'joint': joint, 'auto': auto}

    def _nearest(self, number: int) -> Choice:
        chosen = self._ranked(number)
        weights = inverse_square_weights([each.distance for each in chosen])
        sources = [(self.candidates[each.name], w) for each, w in zip(chosen, weights, strict=True)]
        return Choice(sources, self._ranking)

    def _ranked(self, number: int) -> list[Ranked]:
        """Return the nearest entries; more than one have to be supernets, since a network cannot be fused."""
        fit = [each for each in self._ranking if number == 1 or not self.candidates[each.name].is_network]
        if not fit:
            raise ZooError(
                f'networks without choices cannot be fused, and there are only {enumerated(list(self.candidates))}.'
            )
        return fit[:number]

    @property
    def _networks(self) -> list[Supernet]:
        """Return the networks that 'auto' tries out."""
        found = [each for each in self.candidates.values() if each.is_network]
        return sorted(found, key=lambda each: -self._shares[each.name])[:NETWORKS]

    @functools.cached_property
    def candidates(self) -> dict[str, Supernet]:
        """Return the zoo's entries that fit the target best.

        These are the supernets of its own space, if there are any; among supernets trained on the same data, those of its
        own shape; and all networks without choices that fit it.
        """
        zoo, shares = open_zoo(self.zoo), self._shares
        supernets = [shares[entry.name] for entry in self._entries if not entry.is_network]
        least = max(LEAST, 0.9 * max(supernets, default=0.0))
        fitting = [entry for entry in self._entries if shares[entry.name] >= (LEAST if entry.is_network else least)]
        own = {entry.name: entry for entry in fitting if is_same(entry, self.target, self._some)}
        found = {
            entry.name: entry
            for entry in fitting
            if entry.name in own or not any(_have_same_data(entry, each) for each in own.values())
        }
        if not found:
            raise ZooError(
                f'zoo {zoo.root} has no entry that fits this model space with head {self.settings.head!r}; it has '
                f'{enumerated(zoo.names())}. Pretrain one on a similar space.'
            )
        return found

    @functools.cached_property
    def _entries(self) -> list[Supernet]:
        zoo = open_zoo(self.zoo)
        zoo.check_exists()
        return list(zoo.entries())

    @functools.cached_property
    def _shares(self) -> dict[str, float]:
        """Return the share of the target's weights with a partner in each entry."""
        settings = self.settings
        shares = share_in_common(
            self._entries, self.target, settings.head, settings.untraceable, self._some, settings.class_names or ()
        )
        return {entry.name: share for entry, share in zip(self._entries, shares, strict=True)}

    @functools.cached_property
    def _some(self) -> Tensor:
        """Return a batch of the target's images."""
        return first_batches(self.loader('train'), 1)[0][0]

    @functools.cached_property
    def _ranking(self) -> list[Ranked]:
        entries = [each for each in self.candidates.values() if not each.is_network or EMBEDDING in each.sketches]
        if not entries:
            raise ZooError(
                f'no data are known of {enumerated(list(self.candidates))}, to which yours could be near; name one of these '
                "networks, or take 'auto', which tries them out."
            )
        return rank(entries, self.loader('train'))

    @functools.cached_property
    def _halves(self) -> dict[str, Sequence[tuple[Tensor, Tensor]]]:
        """Return some images of each half, in one batch unless they are large."""
        return {part: _joined(first_batches(self.loader(part), PROBED)) for part in ('train', 'val')}

    def _weighted(self, found: list[Supernet]) -> Weighted:
        """Weight sources by distance if all of them and the target's data can be sketched, else equally."""
        equally = [(each, 1 / len(found)) for each in found]
        if len(found) == 1 or not all(EMBEDDING in each.sketches for each in found):
            return equally
        numbered = {f'{index}': each.renamed(f'{index}') for index, each in enumerate(found)}
        try:
            distances = {each.name: each.distance for each in rank(list(numbered.values()), self.loader('train'))}
        except (DataError, ZooError) as error:
            _logger.warning('The sources are weighted equally: %s', error)
            return equally
        if len(distances) < len(found):
            _logger.warning('The sources are weighted equally, since not all of them can be ranked.')
            return equally
        return list(zip(found, inverse_square_weights([distances[name] for name in numbered]), strict=True))


def _joined(batches: Sequence[tuple[Tensor, Tensor]]) -> Sequence[tuple[Tensor, Tensor]]:
    if batches[0][0].nbytes * len(batches) > MOST_PROBED:
        return batches
    return [(torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches]))]


def _names(sources: Weighted) -> str:
    return ' + '.join(each.name for each, _ in sources)


def _have_same_data(one: Supernet, other: Supernet) -> bool:
    """Check whether two entries were trained on the same data, whose names alone may be those of any folder or class.

    The classes have the same names and numbers of images. Their means differ by sampling only, by halves drawn by another
    seed, say; they are not comparable where images have another size.
    """
    if not _data_of(one) or (_data_of(one), one.class_names) != (_data_of(other), other.class_names):
        return False
    a, b = one.sketches.get(EMBEDDING), other.sketches.get(EMBEDDING)
    if a is None or b is None or not torch.equal(a.counts, b.counts):
        return False
    if one.recorded_pictures != other.recorded_pictures:
        return True
    return float((a.means - b.means).square().sum()) <= 4 * (a.variance_of_means() + b.variance_of_means())


def _data_of(entry: Supernet) -> frozenset[str]:
    """Return the names of the datasets that an entry was trained on; empty if unknown."""
    return frozenset(entry.datasets or ([entry.dataset] if entry.dataset else []))
