"""The verdict of a report: known answers for searches with made-up curves."""

from __future__ import annotations

import base64
import csv
import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nni_warmstart.report.downloads import downloads
from nni_warmstart.report.runs import Retrained, Search
from nni_warmstart.report.verdict import verdicts

COLD = [0.2, 0.4, 0.6, 0.8, 0.9, 0.9, 0.9, 0.9]
WARM = [0.7, 0.9, 0.9, 0.9, 0.94, 0.94, 0.94, 0.94]


def made(name: str, curve: list[float], source: str = '', seed: int = 0, **changes: Any) -> Search:
    """A finished search of two seconds an epoch, to which choosing and mapping add three."""
    warm = {'source': source, 'zero_shot_accuracy': 0.5, 'seconds': {'choosing': 1.0, 'mapping': 2.0}} if source else None
    result = {'data': 'digits', 'seed': seed, 'source': source or None, 'warm_start': warm, 'seconds': 20.0, **changes}
    figures = [{'default': value, 'epoch_seconds': 2.0} for value in curve]
    settings = {'space': {'name': 'nasbench201', 'arguments': {'width': 8}}}
    return Search(Path(name), name, settings, result, figures, [], {'cell/0_1': 'skip'}, '')


def facts(verdict: dict) -> dict[str, str]:
    return dict(verdict['facts'])


def test_a_warm_search_against_a_cold_one():
    (verdict,) = verdicts([made('cold', COLD), made('warm', WARM, 'letters')], [])
    assert verdict['headline'].startswith('2.5 times fewer epochs, 1.4 times less time: the search from letters')
    assert facts(verdict) == {
        'To the same accuracy': (
            '0.9000 after 2 epochs and 7.0 s instead of 5 and 10.0 s, choosing and mapping the source included.'
        ),
        'Final validation accuracy': '+0.0400 compared with the cold one, for one seed; its spread takes several (--seed).',
        'Cost': 'cold: 8 epochs in 20.0 s; warm: 8 epochs in 20.0 s.',
    }


def test_several_seeds_have_a_spread():
    cold = [made(f'cold{seed}', COLD, seed=seed) for seed in range(3)]
    warm = [made(f'warm{seed}', [*WARM[:5], *([0.92 + seed / 50] * 3)], 'letters', seed=seed) for seed in range(3)]
    (verdict,) = verdicts([*warm, *cold], [])
    assert verdict['headline'].startswith('2.5 times fewer epochs')
    assert facts(verdict)['Final validation accuracy'] == (
        '+0.0400 compared with the cold one, on average, with a standard deviation of 0.0200 over 3 seeds.'
    )
    assert 'To the same accuracy, seed 2' in facts(verdict)


def test_an_accuracy_that_is_not_reached():
    (verdict,) = verdicts([made('cold', COLD), made('warm', COLD[:4], 'letters')], [])
    assert verdict['headline'] == 'The search from letters did not become as accurate as the cold one.'
    assert facts(verdict)['To the same accuracy'] == '0.9000 was not reached and held.'


def test_a_search_that_stopped_where_it_was_told():
    """At the last accuracy of the cold search, which is below the mean of its last three."""
    cold = made('cold', [0.5, 0.9, 0.9, 0.8])
    warm = made('warm', [0.8, 0.82, 0.81], 'letters', stop_at={'accuracy': 0.8, 'epoch': 1})
    (verdict,) = verdicts([cold, warm], [])
    assert facts(verdict)['To the same accuracy'].startswith('0.8000 after 1 epoch and 5.0 s instead of 2 and 4.0 s')


def test_two_sources_without_a_cold_search():
    (verdict,) = verdicts([made('a', COLD, 'near'), made('b', WARM, 'far')], [])
    assert 'the search from far against that from near' in verdict['headline']


def test_searches_on_other_data_are_not_compared():
    (verdict,) = verdicts([made('cold', COLD), made('warm', WARM, 'letters', data='other')], [])
    assert verdict['headline'] == 'Validation accuracy 0.9000, mean of the last 3 epochs.'
    assert 'report it together' in facts(verdict)['Compared with']


def test_the_retrained_network():
    cold, warm = made('cold', COLD), made('warm', WARM, 'letters')
    result = {'data': 'digits', 'architecture': cold.architecture, 'curve': [0.5], 'final': 0.75, 'measured_on': 'test'}
    networks = [Retrained(Path('net'), 'net', {**result, 'parameters': 1234, 'weights': 'scratch'})]
    (verdict,) = verdicts([cold], networks)
    assert facts(verdict)['Network, retrained'] == 'cold: 0.7500 on test images, 1,234 parameters, from scratch.'
    assert len(facts(verdicts([cold, warm], networks)[0])['Network, retrained'].split(';')) == 2  # the same architecture
    networks[0].result['architecture'] = {'cell/0_1': 'conv'}
    assert 'Network, retrained' not in facts(verdicts([cold], networks)[0])


_ANY = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.lists(st.integers(), max_size=2)
)
_CURVE = st.lists(st.fixed_dictionaries({'default': _ANY}, optional={'epoch_seconds': _ANY}), max_size=4)


@settings(max_examples=100, deadline=None)
@given(_CURVE, _CURVE, _ANY, _ANY)
def test_whatever_results_hold(one, other, seed, source):
    for curve, start in ((one, None), (other, {'source': 'x', 'seconds': {'a': None}})):
        result = {'data': seed, 'seed': seed, 'source': source, 'warm_start': start}
        search = Search(Path('a'), 'a', {}, result, curve, [], {}, '')
        for found in verdicts([search, made('cold', COLD, data=seed), search], []):
            assert isinstance(found['headline'], str)


def content(file: dict[str, str]) -> list[list[str]]:
    kind, _, data = file['uri'].partition(',')
    assert kind == 'data:text/csv;base64'
    return list(csv.reader(io.StringIO(base64.b64decode(data).decode())))


@pytest.mark.parametrize('name', ['=1+1', '@SUM(A1)', '+1', '-1'])
def test_numbers_as_files_that_no_spreadsheet_runs(name):
    searches = [made('cold', COLD[:2]), made(name, WARM[:2], 'letters')]
    overview = {'columns': [{'name': 'test accuracy'}], 'rows': [['-'], ['0.5']]}
    files = {file['name']: content(file) for file in downloads(searches, [], overview)}
    assert files['curves.csv'] == [
        ['search', 'epoch', 'default', 'epoch_seconds'], ['cold', '1', '0.2', '2.0'], ['cold', '2', '0.4', '2.0'],
        [f"'{name}", '1', '0.7', '2.0'], [f"'{name}", '2', '0.9', '2.0'],
    ]  # fmt: skip
    assert files['searches.csv'] == [['search', 'test accuracy'], ['cold', ''], [f"'{name}", '0.5']]


def test_searches_on_other_data_of_the_same_name_are_not_compared():
    runs = [
        made(name, curve, source, run={'id': name, 'data': {'training images': digest}})
        for name, curve, source, digest in (('cold', COLD, '', 'a'), ('warm', WARM, 'letters', 'b'))
    ]
    (verdict,) = verdicts(runs, [])
    assert facts(verdict)['Compared with'].startswith('nothing')


def test_searches_with_other_settings_are_no_seeds():
    searches = [made('cold', COLD), made('slow cold', COLD[:2] * 4), made('warm', WARM, 'letters')]
    searches += [made('slow', [0.1] * 8, 'letters'), made('bold', WARM, 'letters')]
    for search, rate, keep in zip(searches, (0.1, 0.01, 0.1, 0.01, 0.1), (None, None, 0.8, 0.8, 0.0), strict=True):
        search.settings.update(evaluator={'learning_rate': rate, 'num_workers': len(search.name)}, strategy={'keep': keep})
    found = verdicts(searches, [])
    assert [verdict['headline'].partition('letters ')[2][:6] for verdict in found] == ['(warm)', '(slow)', '(bold)']
    assert all('for one seed' in facts(verdict)['Final validation accuracy'] for verdict in found)
    assert 'slow cold: ' in facts(found[1])['Cost'] and 'slow cold' not in facts(found[0])['Cost']


def with_settings(search: Search, **sections: Any) -> Search:
    search.settings.update(sections)
    return search


@pytest.mark.parametrize(
    'sections',
    [
        {'data': {'flip': True}},
        {'evaluator': {'jitter': 0.1}},
        {'strategy': {'name': 'WarmStartDARTS', 'arguments': {'source': 'letters', 'head': 'copy'}}},
    ],
    ids=lambda sections: next(iter(sections)),
)
def test_searches_that_train_otherwise_are_no_seeds(sections):
    plain = {'data': {'flip': False}, 'evaluator': {}, 'strategy': {'name': 'WarmStartDARTS', 'arguments': {}}}
    searches = [made('cold', COLD), made('one', WARM, 'letters'), made('two', COLD[:3], 'letters', seed=1)]
    for search in searches:
        with_settings(search, **plain)
    assert len(verdicts(searches, [])) == 1
    assert len(verdicts([*searches[:2], with_settings(searches[2], **sections)], [])) == 2


def test_searches_from_other_weights_of_one_name_are_no_seeds():
    searches = [made('cold', COLD)]
    searches += [made(key, WARM, 'letters', seed, run={'sources': {'letters': key}}) for seed, key in enumerate('ab')]
    assert len(verdicts(searches, [])) == 2


def test_where_a_source_is_found_and_a_search_is_kept_is_no_other_setting():
    searches = [
        with_settings(
            made(f'{name}{seed}', curve, source, seed), strategy={'name': 'WarmStartDARTS', 'arguments': arguments}
        )
        for name, curve, source, seed, arguments in (
            ('cold', COLD, '', 0, {'source': None}),
            ('cold', [0.5] * 8, '', 1, {}),
            ('warm', WARM, 'letters', 0, {'source': 'letters'}),
            ('warm', WARM, 'letters', 1, {'source': 'auto', 'zoo': 'zoo', 'save_to': 'zoo', 'download': True}),
        )
    ]
    (verdict,) = verdicts(searches, [])
    assert facts(verdict)['To the same accuracy, seed 1'].startswith('0.5000 after 1 epoch and 5.0 s instead of 1 and 2.0 s')
    assert 'over 2 seeds.' in facts(verdict)['Final validation accuracy']


def test_a_search_is_compared_on_the_same_validation_images():
    """An older search, which notes no share of them, had the default."""
    searches = [
        with_settings(made(name, curve, source), evaluator=evaluator)
        for name, curve, source, evaluator in (
            ('cold', COLD, '', {'val_share': 0.5}), ('warm', WARM, 'letters', {}), ('other', WARM, 'far', {'val_share': 0.1})
        )
    ]  # fmt: skip
    (verdict,) = verdicts(searches, [])
    assert 'the search from letters against the cold one' in verdict['headline']


def test_a_search_is_compared_with_those_of_its_strategy_or_the_difference_is_said():
    cold, other = (
        with_settings(made(name, curve), strategy={'name': name})
        for name, curve in (('DARTS', COLD), ('Proxyless', [0.6] * 8))
    )
    warm = with_settings(made('warm', WARM, 'letters'), strategy={'name': 'WarmStartProxyless'})
    (verdict,) = verdicts([cold, other, warm], [])
    assert facts(verdict)['To the same accuracy'].startswith('0.6000') and verdict['headline'].endswith('the cold one.')
    (verdict,) = verdicts([cold, warm], [])
    assert verdict['headline'].endswith('against the cold one. Their strategies differ: Proxyless and DARTS.')


def test_runs_of_one_seed_are_counted_once():
    searches = [made('cold', COLD), made('warm', WARM, 'letters'), made('copy of warm', WARM, 'letters')]
    assert verdicts(searches, []) == verdicts(searches[:2], [])


def test_a_seed_without_a_counterpart_is_said():
    cold = [made(f'cold{seed}', COLD, seed=seed) for seed in (0, 1)]
    warm = [made(f'warm{seed}', WARM, 'letters', seed=seed) for seed in (1, 5)]
    found = facts(verdicts([*cold, *warm], [])[0])
    assert list(found)[:2] == ['To the same accuracy, seed 1', 'To the same accuracy, seed 5 against seed 0']
    assert found['Final validation accuracy'].endswith('over 2 seeds, 1 of them compared with another seed.')
    assert 'To the same accuracy, seed 5 against seed 0' in facts(verdicts([*cold, warm[1]], [])[0])
