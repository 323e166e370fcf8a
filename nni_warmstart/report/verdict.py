"""Verdict of a report: how much sooner a search was as accurate as another one on the same data, and what that cost."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, geometric_mean, stdev
from typing import Any, NamedTuple

from ..runs.provenance import completed
from ..utils.metrics import HELD, epochs_to, final_accuracy
from .runs import Retrained, Search
from .values import finite, listed, number, short

_MOST = 10
"""Comparisons that are shown."""

_NO_EFFECT = ('logger', 'num_workers', 'prefetch', 'accelerator')
"""Settings of the evaluator that change no figure, or only its last digits."""

_SAME_WEIGHTS = ('arguments', 'source', 'zoo', 'save_to', 'download')
"""Settings of the strategy that change no figure if the weights of the source are the same, and their section."""


@dataclass(frozen=True)
class Pair:
    """Two searches with the same data and space: a reference, and one that is compared with it."""

    reference: Search
    other: Search

    @property
    def target(self) -> float:
        """Accuracy to reach: the final one of the reference, or that at which the other was told to stop, if it is less."""
        stop = self.other.result.get('stop_at') or {}
        accuracy = final_accuracy(_accuracies(self.reference))
        return min(accuracy, stop['accuracy']) if stop.get('epoch') else accuracy

    def costs(self) -> tuple[tuple[int, float], tuple[int, float]] | None:
        """Return epochs and seconds to the target, of the reference and of the other; None if it was not reached."""
        found = [(search, epochs_to(_accuracies(search), self.target)) for search in (self.reference, self.other)]
        (one, epochs), (two, others) = found
        if epochs is None or others is None:
            return None
        return (epochs, _seconds(one, epochs)), (others, _seconds(two, others))

    @property
    def is_of_one_seed(self) -> bool:
        """Whether both searches have the same seed."""
        return _seed(self.reference) == _seed(self.other)

    @property
    def difference(self) -> float:
        """Final accuracy of the other less that of the reference."""
        return final_accuracy(_accuracies(self.other)) - final_accuracy(_accuracies(self.reference))


def verdicts(searches: Sequence[Search], networks: Sequence[Retrained]) -> list[dict[str, Any]]:
    """Return the verdicts: a headline, and facts with their names.

    Searches on the same data in the same space are compared, over all seeds that there are: those from one source with the
    cold ones, or with the first one where none is cold.
    """
    found = [_compared(name, pairs, networks) for name, pairs in _comparisons([s for s in searches if _is_whole(s)])]
    return found[:_MOST] or [_alone(search, networks) for search in searches if _is_whole(search)][:1]


def _comparisons(searches: Sequence[Search]) -> Iterator[tuple[str, list[Pair]]]:
    problems: dict[str, dict[_Key, dict[str, Search]]] = {}
    for search in searches:
        runs = problems.setdefault(_problem(search), {})
        runs.setdefault(_key(search), {}).setdefault(_seed(search), search)  # a copy, or the same again, is no other seed
    for runs in problems.values():
        sources = Counter(key.source for key in runs)
        first = next((key for key in runs if not key.source), next(iter(runs)))
        for key, by_seed in runs.items():
            if key == first or not (key.source or first.source):
                continue
            references = runs[_reference(runs, first, key)]
            instead, other = next(iter(references.values())), next(iter(by_seed.values()))
            name = f'{key.source} ({other.name})' if sources[key.source] > 1 else key.source
            yield name, [Pair(references.get(seed, instead), each) for seed, each in by_seed.items()]


class _Key(NamedTuple):
    """What searches have in common that differ by their seeds alone: source, and settings that change figures."""

    source: str
    strategy: str
    training: str
    arguments: str


def _key(search: Search) -> _Key:
    data, evaluator, strategy = _sections(search, 'data', 'evaluator', 'strategy')
    weights = (search.result.get('run') or {}).get('sources') or {}
    return _Key(
        _source(search),
        _strategy(search),
        _text_of({**evaluator, 'flip': data.get('flip')}, _NO_EFFECT),
        _text_of({**strategy, **strategy.get('arguments', {}), 'weights': weights}, _SAME_WEIGHTS),
    )


def _problem(search: Search) -> str:
    """Return the data of a search, the share of them that it is validated on, and its space, as text."""
    space, evaluator = _sections(search, 'space', 'evaluator')
    data = (search.result.get('run') or {}).get('data') or search.result.get('data')  # fingerprints, or else the name
    arguments = sorted(space.get('arguments', {}).items(), key=repr)
    return repr((data, evaluator.get('val_share'), space.get('name'), arguments))


def _reference(runs: Mapping[_Key, Any], first: _Key, key: _Key) -> _Key:
    """Return the key of the searches to compare with: of those of the source of ``first``, the first that are most alike.

    It counts first that the strategy is the same, then that the training is.
    """
    others = [each for each in runs if each != key and each.source == first.source]
    return max(others, key=lambda each: (each.strategy == key.strategy, each.training == key.training))


def _sections(search: Search, *names: str) -> Iterator[Mapping[str, Any]]:
    """Return sections of the settings, with the defaults of those that an earlier version did not have."""
    settings = completed(search.settings)
    return (settings.get(name) or {} for name in names)


def _text_of(settings: Mapping[str, Any], without: Sequence[str]) -> str:
    return repr(sorted((str(key), repr(value)) for key, value in settings.items() if key not in without))


def _compared(source: str, pairs: Sequence[Pair], networks: Sequence[Retrained]) -> dict[str, Any]:
    one, costs = pairs[0], [pair.costs() for pair in pairs]
    cold = not _source(one.reference)
    other = f'the search from {short(source)}' if source else 'the cold search'
    than = 'the cold one' if cold else f'that from {short(_source(one.reference))}'
    reached = [cost for cost in costs if cost is not None]
    facts = []
    if len(reached) < len(costs):
        headline = f'{other[0].upper()}{other[1:]} did not become as accurate as {than}'
        headline += f' in {len(costs) - len(reached)} of {len(costs)} runs.' if len(costs) > 1 else '.'
    else:
        fewer = geometric_mean(theirs[0] / max(own[0], 1) for theirs, own in reached)
        less = geometric_mean(max(theirs[1], 1e-9) / max(own[1], 1e-9) for theirs, own in reached)
        headline = f'{_times(fewer, "fewer", "as many", "epochs")}, {_times(less, "less", "as much", "time")}: '
        headline += f'{other} against {than}.'
    strategies = [short(_strategy(search)) for search in (one.other, one.reference)]
    if strategies[0] != strategies[1]:
        headline += f' Their strategies differ: {" and ".join(strategies)}.'
    for pair, cost in zip(pairs, costs, strict=True):
        instead = '' if pair.is_of_one_seed else f' against seed {short(_seed(pair.reference))}'
        seed = f', seed {short(_seed(pair.other))}{instead}' if len(pairs) > 1 or instead else ''
        text = f'{number(pair.target)} was not reached and held.'
        if cost is not None:
            (theirs, slow), (own, quick) = cost
            text = f'{number(pair.target)} after {_epochs(own)} and {quick:.1f} s instead of {theirs} and {slow:.1f} s'
            text += f'{", choosing and mapping the source included" if source else ""}.'
        facts.append((f'To the same accuracy{seed}', text))
    facts.append(('Final validation accuracy', _differences(pairs, than)))
    facts += _networks([*{id(p.reference): p.reference for p in pairs}.values(), *(p.other for p in pairs)], networks)
    facts.append(('Cost', '; '.join(f'{short(s.name)}: {_cost(s)}' for s in (one.reference, one.other)) + '.'))
    return {'headline': headline, 'facts': facts}


def _alone(search: Search, networks: Sequence[Retrained]) -> dict[str, Any]:
    accuracies, source = _accuracies(search), _source(search)
    facts = [('Cost', f'{_cost(search)}.'), *_networks([search], networks)]
    if source:
        before = finite((search.result.get('warm_start') or {}).get('zero_shot_accuracy'))
        facts.insert(0, ('Before training', f'{number(before)}, from {short(source)}.'))
    facts.append((
        'Compared with',
        'nothing: report it together with a search on the same data from another source, '
        + ('such as a cold one (--set strategy.source=null).' if source else 'such as strategy.source = auto.'),
    ))  # fmt: skip
    last = min(HELD, len(accuracies))
    headline = f'Validation accuracy {number(final_accuracy(accuracies))}, mean of the last {_epochs(last)}.'
    return {'headline': headline, 'facts': facts}


def _differences(pairs: Sequence[Pair], than: str) -> str:
    values = [pair.difference for pair in pairs]
    text = f'{fmean(values):+.4f} compared with {than}'
    if len(values) == 1:
        return f'{text}, for one seed; its spread takes several (--seed).'
    text += f', on average, with a standard deviation of {stdev(values):.4f} over {len(values)} seeds'
    alone = sum(not pair.is_of_one_seed for pair in pairs)
    return f'{text}, {alone} of them compared with another seed.' if alone else f'{text}.'


def _networks(searches: Sequence[Search], networks: Sequence[Retrained]) -> list[tuple[str, str]]:
    found = [
        f'{short(search.name)}: {number(net.accuracy)} on {short(net.result["measured_on"])} images, '
        f'{net.result["parameters"]:,} parameters, from {short(net.result["weights"])}'
        for search in searches
        for net in networks
        if net.is_of(search)
    ]
    return [('Network, retrained', '; '.join(found) + '.')] if found else []


def _times(factor: float, less: str, same: str, unit: str) -> str:
    if 0.95 < factor < 1.05:
        return f'{same} {unit}'
    return f'{factor:.1f} times {less} {unit}' if factor > 1 else f'{1 / factor:.1f} times more {unit}'


def _cost(search: Search) -> str:
    return f'{_epochs(len(search.curve))} in {number(search.result.get("seconds"), ".1f")} s'


def _epochs(count: int) -> str:
    return '1 epoch' if count == 1 else f'{count} epochs'


def _source(search: Search) -> str:
    """Return the name of what a search started from, '' for a cold one."""
    return listed(search.result.get('source') or '') if search.result.get('warm_start') else ''


def _strategy(search: Search) -> str:
    """Return the name of the strategy of a search, which warm and cold ones have in common."""
    return str((search.settings.get('strategy') or {}).get('name')).removeprefix('WarmStart')


def _seed(search: Search) -> str:
    return str(search.result.get('seed', '?'))


def _is_whole(search: Search) -> bool:
    accuracies = [finite(figures.get('default')) for figures in search.curve]
    return not search.note and bool(accuracies) and None not in accuracies


def _accuracies(search: Search) -> list[float]:
    return [float(figures['default']) for figures in search.curve]


def _seconds(search: Search, epochs: int) -> float:
    """Return the seconds of the first epochs, and of what came before them."""
    warm: Mapping[str, Any] = search.result.get('warm_start') or {}
    parts = [*warm.get('seconds', {}).values(), *(figures.get('epoch_seconds') for figures in search.curve[:epochs])]
    return math.fsum(value for part in parts if (value := finite(part)) is not None)
