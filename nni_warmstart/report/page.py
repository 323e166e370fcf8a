"""Self-contained HTML page about one or several searches."""

from __future__ import annotations

import logging
import os
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jinja2

from ..data.sources import title_of
from ..errors import ConfigError
from ..runs.settings import flat
from ..utils.files import write_atomic
from ..utils.text import visible
from . import figures
from .charts import charts
from .downloads import downloads
from .runs import Retrained, Search, find, natural, read_retrained, read_search
from .scripts import policy, scripts, style
from .values import finite, listed, number, share, table
from .verdict import verdicts

_logger = logging.getLogger(__name__)

_MOST_CHOICES, _MOST_CANDIDATES = 100, 50
"""Choices whose probabilities are drawn, and candidates of each."""

_MOST_CELLS, _MOST_EDGES = 20, 100
"""Cells that are drawn, and ops of each."""

_MOST_BARS = 300
"""Sources that are drawn."""


def write_report(where: Sequence[str], out: str | os.PathLike[str]) -> int:
    """Write the page about all searches in ``where``; those that cannot be read are left out with a warning.

    Parameters
    ----------
    where
        Folders of searches, folders above such folders, or ids of NNI's experiments.
    out
        Path of the file, which is replaced if it exists.

    Returns
    -------
    int
        Number of searches.

    Raises
    ------
    ConfigError
        If there is nothing to report, or no search can be read.
    """
    found = [find(each) for each in where]
    folders = list(dict.fromkeys(folder for searches, _ in found for folder in searches))
    others = list(dict.fromkeys(folder for _, retrained in found for folder in retrained))
    if not folders:
        raise ConfigError(f'{others[0]} holds no search: it is a retraining; give the --out of its search, too.')
    every = [*folders, *others]
    above = Path(os.path.commonpath(every)) if len(every) > 1 else folders[0].parent
    searches, networks, errors = [], [], []
    for folder in every:
        name = folder.name if folder == above else folder.relative_to(above).as_posix()
        try:
            if folder in others:
                networks.append(read_retrained(folder, name))
            else:
                searches.append(read_search(folder, name))
        except ConfigError as error:
            errors.append(error)
    if not searches:
        raise errors[0]
    for error in errors:
        _logger.warning('A search is left out: %s', error)
    text = visible(page(searches, networks, [str(error) for error in errors]))
    write_atomic(out, text.encode('utf-8', 'replace'))
    return len(searches)


def page(searches: Sequence[Search], networks: Sequence[Retrained] = (), left_out: Sequence[str] = ()) -> str:
    """Return the page as HTML, with all figures and scripts embedded and all text escaped.

    Parameters
    ----------
    searches
        Searches, one at least.
    networks
        Retrained networks.
    left_out
        Reasons why other folders are not on the page.
    """
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(resources.files('nni_warmstart.report').joinpath('page.html').read_text('utf-8'))
    return template.render(
        title=f'Search {searches[0].name}' if len(searches) == 1 else f'{len(searches)} searches',
        left_out=left_out,
        verdicts=verdicts(searches, networks),
        overview=(overview := _overview(searches)),
        downloads=downloads(searches, networks, overview),
        differing=_differing(searches),
        networks=_networks(searches, networks),
        curves=charts(searches, networks),
        searches=[_section(search) for search in searches],
        version=version('nni-warmstart'),
        policy=policy(code := scripts()),
        scripts=code,
        style=style(),
    )


def _overview(searches: Sequence[Search]) -> dict[str, Any]:
    columns = ('data', 'space', 'strategy', 'source', 'epochs', 'validation accuracy', 'test accuracy', 'seconds', *_COSTS)
    rows = []
    for search in searches:
        settings, result, last = search.settings, search.result, search.curve[-1] if search.curve else {}
        space, strategy = settings.get('space', {}), settings.get('strategy', {})
        arguments = ', '.join(f'{key}={value}' for key, value in space.get('arguments', {}).items())
        final, warm = result.get('final') or {}, result.get('warm_start') or {}
        source = result.get('source') or strategy.get('arguments', {}).get('source') or 'none (cold)'
        chosen = f' ({warm.get("chosen") or "named"})' if warm else ''
        epochs = flat(settings).get('evaluator.max_epochs')
        rows.append((
            result.get('data') or _data(settings), f'{space.get("name", "?")} {arguments and f"({arguments})"}'.strip(),
            result.get('strategy') or strategy.get('name', '?'), f'{listed(source)}{chosen}',
            f'{len(search.curve)}{"" if epochs is None else f" of {epochs}"}{", unfinished" if search.note else ""}',
            number(last.get('default')), number(final.get('test_accuracy')), number(result.get('seconds'), '.1f'),
            *_costs(result),
        ))  # fmt: skip
    return table(columns, rows)


_COSTS = ('parameters', 'multiply-adds', 'ms per image')
"""Costs of the network that a search found."""


def _costs(result: Mapping[str, Any]) -> tuple[str, str, str]:
    costs = result.get('costs')
    if costs is None:  # of an earlier version, or of a network that could not be measured
        return '-', '-', '-'
    return f'{costs["parameters"]:,}', f'{costs["multiply_adds"]:,}', number(costs['latency_ms'], '.2f')


def _networks(searches: Sequence[Search], networks: Sequence[Retrained]) -> dict[str, Any] | None:
    """Return a table of the retrained networks, with the searches that found them."""
    rows = []
    for each in networks:
        found = [search.name for search in searches if each.is_of(search)]
        result = each.result
        rows.append((
            each.name, ', '.join(found) or '-', result['weights'], len(result['curve']), number(each.accuracy),
            result['measured_on'], f'{result["parameters"]:,}', *_costs(result)[1:],
            number(result.get('seconds'), '.1f'),
        ))  # fmt: skip
    columns = ('network', 'found by', 'weights', 'epochs', 'accuracy', 'measured on', *_COSTS, 'seconds')
    return table(columns, rows) if rows else None


def _data(settings: Mapping[str, Any]) -> str:
    """Return the name of the data in settings."""
    data = settings.get('data', {})
    return str(data.get('label') or title_of(data) or '?')


def _differing(searches: Sequence[Search]) -> dict[str, Any] | None:
    """Return a table of the settings that differ between searches, with the shorter side across."""
    settings = [_settings(search) for search in searches]
    keys = dict.fromkeys(key for each in settings for key in each)
    rows = [('setting', *(f'{place}. {search.name}' for place, search in enumerate(searches, 1)))]
    rows += [(key, *values) for key in keys if len(set(values := [each.get(key, '-') for each in settings])) > 1]
    if len(rows) == 1:
        return None
    if len(searches) >= len(rows):
        rows = [('search', *(row[0] for row in rows[1:])), *list(zip(*rows, strict=True))[1:]]
    return table(rows[0], rows[1:])


def _settings(search: Search) -> dict[str, str]:
    """Return the settings of a search by the dotted names of ``search.yml``."""
    given = flat(search.settings).items()
    return {key.replace('.arguments.', '.', 1): listed(value) for key, value in given if value is not None}


def _section(search: Search) -> dict[str, Any]:
    warm = search.result.get('warm_start') or {}
    settings, versions = list(_settings(search).items()), list(search.result.get('versions', {}).items())
    return {
        'name': search.name,
        'folder': search.folder,
        'note': search.note,
        'cells': list(_cells(search.architecture)),
        'choices': _choices(search),
        'heat_maps': list(_heat_maps(search.alphas)),
        'transfer': _transfer(warm) if warm else None,
        'ranking': _ranking(warm) if warm.get('ranking') else None,
        'settings': table(('setting', 'value'), settings) if settings else None,
        'versions': table(('package', 'version'), versions) if versions else None,
    }


def _choices(search: Search) -> dict[str, Any] | None:
    last = search.alphas[-1] if search.alphas else {}
    rows = []
    for label in sorted(search.architecture, key=natural):
        chosen = search.architecture[label]
        rows.append((label, listed(chosen), number(last.get(label, {}).get(str(chosen)))))
    return table(('choice', 'chosen', 'probability'), rows) if rows else None


def _cells(architecture: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    drawn = [(name, edges) for name, edges in found_cells(architecture).items() if len(edges) <= _MOST_EDGES]
    for name, edges in drawn[:_MOST_CELLS]:
        ends = {edge.source for edge in edges} | {edge.target for edge in edges}
        inputs = min(edge.target for edge in edges)
        nodes = {node: str(node) for node in range(max(ends) + 1)}
        caption = f'{name}: grey ops have no parameters, dotted is none.'
        if f'{name}/op_{inputs}_0' not in architecture:
            nodes |= {0: 'in', max(ends): 'out'}
        elif inputs == 2:
            nodes |= {0: 'k-2', 1: 'k-1'}
            caption += ' Its inputs are the outputs of the two cells before.'
        text = '; '.join(f'{nodes[e.source]} to {nodes[e.target]}: {e.op}' for e in edges)
        yield _figure(figures.cell(edges, nodes), text, caption, drawing=True)


def found_cells(architecture: Mapping[str, Any]) -> dict[str, list[figures.Edge]]:
    """Find the cells whose labels tell which nodes an op connects.

    These are ``cell/i_j`` (an op from node i to node j, for all pairs), and ``cell/op_j_k`` with ``cell/input_j_k`` (the
    k-th op into node j, and the node that it comes from).

    Parameters
    ----------
    architecture
        Label of a choice -> chosen candidate or value.

    Returns
    -------
    dict
        Name of a cell -> its edges; empty for spaces of other kinds.
    """
    pairs: dict[str, list[figures.Edge]] = defaultdict(list)
    named: dict[str, list[figures.Edge]] = defaultdict(list)
    spoilt: set[str] = set()
    for label in sorted(architecture, key=natural):
        chosen = architecture[label]
        if (match := re.fullmatch(r'(.+)/(\d{1,3})_(\d{1,3})', label)) and isinstance(chosen, str):
            pairs[match[1]].append(figures.Edge(int(match[2]), int(match[3]), chosen))
        elif (match := re.fullmatch(r'(.+)/op_(\d{1,3})_(\d{1,3})', label)) and isinstance(chosen, str):
            source = architecture.get(f'{match[1]}/input_{match[2]}_{match[3]}')
            if isinstance(source, list) and len(source) == 1 and source[0] in range(int(match[2])):
                named[match[1]].append(figures.Edge(source[0], int(match[2]), chosen))
            else:
                spoilt.add(match[1])
    cells = {name: edges for name, edges in named.items() if name not in spoilt}
    for name, edges in pairs.items():
        ends = {(edge.source, edge.target) for edge in edges}
        nodes = max(max(ends)) + 1
        if name not in cells and all(i < j for i, j in ends) and 2 * len(ends) == nodes * (nodes - 1):  # all of them
            cells[name] = edges
    return cells


def _heat_maps(alphas: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    groups: dict[str, list[str]] = defaultdict(list)
    candidates: dict[str, set[str]] = defaultdict(set)
    for label, choice in (item for each in alphas for item in each.items()):
        candidates[label].update(choice)
    drawn = [label for label in sorted(candidates, key=natural) if len(candidates[label]) <= _MOST_CANDIDATES]
    for label in drawn[:_MOST_CHOICES]:
        groups[label.rpartition('/')[0]].append(label)
    more = len(candidates) - len(drawn[:_MOST_CHOICES])
    if min(map(len, groups.values()), default=0) < 3:
        groups = {'': [label for labels in groups.values() for label in labels]}
    values = [p for each in alphas for choice in each.values() for p in choice.values() if p is not None]
    scale = min(values, default=0.0), max(values, default=1.0)
    for name, labels in groups.items():
        if labels:
            uri = figures.heat_maps(alphas, labels, scale)
            caption = f'Candidates against epochs, dark {scale[0]:.2f}, light {scale[1]:.2f}; beside, the last probability.'
            sums = [sum(p or 0 for p in each[label].values()) for each in alphas for label in labels if label in each]
            if min(sums) < 0.98:
                caption += ' The rest up to 1 is that of leaving the edge out.'
            if more:
                caption += f' Further choices, {more} of them, are not drawn.'
            text = f'probabilities of {", ".join(labels)} over epochs'
            yield _figure(uri, text, f'{name}. {caption}' if name else caption)


def _transfer(warm: Mapping[str, Any]) -> dict[str, Any]:
    accuracy = warm.get('zero_shot_accuracy')
    parts = [
        f'From {warm["source"]}{warm.get("chosen") and ", " + warm["chosen"]}: '
        f'{share(warm["share_inherited"])} of the parameters inherited, head {warm["head"]}',
        *([] if accuracy is None else [f'accuracy before training {number(accuracy)}']),
        'seconds: ' + ', '.join(f'{step} {number(seconds, ".2f")}' for step, seconds in warm['seconds'].items()),
    ]
    tables = []
    if 'cells' in warm:
        shares = warm.get('share_by_cell', {})
        rows = [(cell, share(shares.get(cell, 0)), kind, count, f'{size:,}') for cell, kind, count, size in warm['cells']]
        tables.append(table(('cell', 'inherited', 'how', 'tensors', 'numbers'), rows))
    if warm.get('share_by_op'):
        tables.append(table(('op', 'inherited'), [(op, share(each)) for op, each in warm['share_by_op'].items()]))
    sizes: dict[str, list[int]] = defaultdict(list)
    for _, kind, _, size, _ in warm['tensors']:
        sizes[kind].append(size)
    rows = [(kind, len(each), f'{sum(each):,}') for kind, each in sizes.items()]
    tables.append(table(('how', 'tensors', 'numbers'), rows))
    if warm.get('blocks'):
        tables.append(table(('block', 'from'), list(warm['blocks'].items())))
    return {'summary': '; '.join(parts) + '.', 'tables': tables}


def _ranking(warm: Mapping[str, Any]) -> dict[str, Any]:
    label = 'error rate when tried' if 'tried' in warm.get('chosen', '') else 'distance of the data'
    values = [(str(name), finite(value)) for name, value in warm['ranking'][:_MOST_BARS]]
    text = '; '.join(f'{name}: {number(value)}' for name, value in values)
    caption = f'Candidates for the source, by {label}; less is better.'
    return _figure(figures.bars(values, label, warm['source']), text, caption, drawing=True)


def _figure(uri: str, text: str, caption: str, *, drawing: bool = False) -> dict[str, Any]:
    """Return an image with its text; a drawing, whose colours have no meaning, is inverted on a dark page."""
    return {'uri': uri, 'text': text, 'caption': caption, 'drawing': drawing}
