"""The command line of zoos and of pretraining."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
import yaml
from helpers.commands import search
from helpers.tiny import SMALL, OwnSpace, make_task, save_npz, small_space
from PIL import Image

from nni_warmstart import Supernet, SupernetZoo
from nni_warmstart.cli import main
from nni_warmstart.errors import DataError
from nni_warmstart.nni_adapter.mutation import mutate


def test_a_list_says_what_is_known_and_nothing_else(tmp_path, capsys):
    """Tensors have no name, and a space of one's own has no names for its classes."""
    x, y = torch.rand(12, 3, 8, 8), torch.arange(12) % 3
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=4)
    zoo, model = SupernetZoo(tmp_path), mutate(OwnSpace(), 'DARTS')
    for name, data in (('own', loader), ('pair', (x, y)), ('pets', Pets(x, y)), ('nothing', None)):
        zoo.add(Supernet.from_model(model, name=name, dataset=data))
    old = Supernet.from_model(model, name='old', history={'dataset': 'TensorDataset'})
    zoo.add(replace(old, history={key: value for key, value in old.history.items() if key != 'classes'}))
    assert main(['zoo', 'list', '--zoo', str(tmp_path)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    rows = {line[0]: line[-4:-2] for line in lines if len(line) > 4}
    assert rows['own'] == rows['pair'] == rows['nothing'] == ['?', '3']
    assert rows['pets'] == ['Pets', '3']
    assert rows['old'] == ['?', '?']


class Pets(torch.utils.data.TensorDataset):
    """Data of a class of its own."""


@pytest.mark.slow
def test_pretrain_and_zoo(folder, capsys):
    save_npz(folder / 'others.npz', n=30, classes=2)
    document = {
        'data': [{'npz': {'path': 'shapes.npz'}, 'licence': 'CC0'}, {'npz': {'path': 'others.npz'}, 'licence': 'MIT'}],
        'space': SMALL['space'],
        'evaluator': {'max_epochs': 2, 'steps_per_epoch': 3, 'batch_size': 8},
    }
    (folder / 'pretrain.yml').write_text(yaml.safe_dump(document))
    zoo = str(folder / 'zoo')
    assert (
        main(
            [
                'pretrain',
                '--config',
                str(folder / 'pretrain.yml'),
                '--name',
                'both',
                '--zoo',
                zoo,
                '--out',
                str(folder / 'p'),
            ]
        )
        == 0
    )
    supernet = Supernet.load(folder / 'zoo' / 'both.safetensors')
    assert supernet.class_names == ['shapes/class 0', 'shapes/class 1', 'shapes/class 2', 'others/class 0', 'others/class 1']
    assert supernet.history['datasets']['others']['licence'] == 'MIT'
    assert main(['zoo', 'list', '--zoo', zoo]) == 0
    assert main(['zoo', 'show', '--zoo', zoo, 'both']) == 0
    shown = capsys.readouterr().out
    assert 'both' in shown
    assert 'CC0' in shown
    assert 'conv_3x3' in shown
    assert search(folder, '--set', 'strategy={name: WarmStartDARTS, source: both, zoo: zoo}') == 0
    assert search(folder, '--set', 'strategy={name: WarmStartDARTS, source: nearest, zoo: zoo, head: ot}') == 0
    assert json.loads((folder / 'out' / 'result.json').read_text())['warm_start']['ranking'][0][0] == 'both'
    assert main(['zoo', 'add', '--zoo', zoo, str(folder / 'out' / 'supernet.safetensors'), '--name', 'mine']) == 0
    assert main(['zoo', 'remove', '--zoo', zoo, 'both']) == 0
    assert [path.name for path in (folder / 'zoo').iterdir()] == ['mine.safetensors']


def test_datasets_of_one_name_need_labels(folder, capsys):
    data = [{'npz': {'path': 'shapes.npz'}}, {'npz': {'path': 'shapes.npz'}}]
    document = {'space': SMALL['space'], 'evaluator': {'max_epochs': 1, 'steps_per_epoch': 2, 'batch_size': 8}}
    config = folder / 'pretrain.yml'
    command = [
        'pretrain',
        '--config',
        str(config),
        '--name',
        'both',
        '--zoo',
        str(folder / 'zoo'),
        '--out',
        str(folder / 'p'),
    ]
    config.write_text(yaml.safe_dump({**document, 'data': data}))
    assert main(command) == 2
    assert "dataset 'shapes' is named twice in data; give one a label" in capsys.readouterr().err
    config.write_text(yaml.safe_dump({**document, 'data': [data[0], {**data[1], 'label': 'again'}]}))
    assert main(command) == 0
    assert Supernet.load(folder / 'zoo' / 'both.safetensors').history['datasets'].keys() == {'shapes', 'again'}


@pytest.mark.slow
def test_zoo_rank(folder, capsys):
    assert search(folder) == 0
    zoo = str(folder / 'zoo')
    for name in ('first', 'second'):
        assert main(['zoo', 'add', '--zoo', zoo, str(folder / 'out' / 'supernet.safetensors'), '--name', name]) == 0
    command = ['zoo', 'rank', '--zoo', zoo, '--data', str(folder / 'shapes.npz')]
    capsys.readouterr()
    assert main([*command, '--heatmap', str(folder / 'map.png')]) == 0
    shown = capsys.readouterr().out
    assert 'first' in shown and 'second' in shown and '━' in shown
    with Image.open(folder / 'map.png') as picture:
        assert min(picture.size) > 300
    for by in ('sliced', 'static', 'random', 'logme', 'probe'):
        assert main([*command, '--by', by]) == 0
    capsys.readouterr()
    assert main([*command, '--by', 'help']) == 0
    assert 'otdd: optimal transport' in capsys.readouterr().out
    assert main(['zoo', 'rank', '--zoo', zoo, '--data', 'digits']) == 0
    assert main(['zoo', 'rank', '--zoo', zoo, '--data', 'digits', '--set', 'data.flip=true']) == 2
    assert main(['zoo', 'rank', '--zoo', zoo, '--config', str(folder / 'search.yml'), '--set', 'data.flip=true']) == 0


@pytest.mark.slow
def test_a_search_ranks_the_entries_of_its_zoo_that_fit_its_space(folder, capsys):
    assert search(folder) == 0
    small = 'space={name: darts, width: 4, num_cells: 3, image_size: 8}'
    for name, space in (('cells', small), ('grid', 'space.width=4')):
        assert search(folder, '--set', space) == 0
        supernet = str(folder / 'out' / 'supernet.safetensors')
        assert main(['zoo', 'add', '--zoo', str(folder / 'zoo'), supernet, '--name', name]) == 0
    capsys.readouterr()
    command = ['zoo', 'rank', '--config', str(folder / 'search.yml'), '--set', small]
    assert main([*command, '--set', 'strategy={name: WarmStartDARTS, source: nearest, zoo: zoo}']) == 0
    shown = capsys.readouterr().out
    assert 'cells' in shown and 'grid' not in shown


def test_the_seed_of_a_search_ranks_its_entries(folder, monkeypatch, capsys):
    seeds = []
    monkeypatch.setattr('nni_warmstart.zoo.ranking.rank', lambda *_, seed, **__: seeds.append(seed) or [])
    monkeypatch.setattr('nni_warmstart.runs.search.fitting', lambda *_: ['some'])
    command = ['zoo', 'rank', '--config', str(folder / 'search.yml'), '--set', 'seed=3']
    for further in ([], ['--seed', '4'], ['--seed', '0']):
        assert main([*command, *further]) == 0
    assert seeds == [3, 4, 0]


def test_zoo_rank_errors(folder, capsys):
    (folder / 'none').mkdir()
    (folder / 'images' / 'a').mkdir(parents=True)
    (folder / 'images' / 'a' / 'bad.png').touch()
    command = ['zoo', 'rank', '--zoo', str(folder / 'none'), '--data']
    for extra, message in (
        ([str(folder / 'shapes.npz')], 'has no readable entry to rank'),
        ([str(folder / 'missing.npz')], 'does not exist'),
        (['digits', '--zoo', 'nosuch'], 'zoo nosuch does not exist'),
        ([str(folder / 'images')], 'or set data.on_error: skip. This setting is one of search.yml: give --config'),
        (['digits', '--by', 'best'], "--by 'best' is unknown; choose one of otdd (optimal transport"),
        (['digits', '--heatmap', 'map.gif'], '--heatmap map.gif must end in .png'),
        (['digits', '--config', 'search.yml'], 'give one of --data and --config'),
        (['digits', '--seed', '99999999999999999999'], 'must be from 0 to'),
        (['digits', '--zoo', 'nowhere://zoo'], 'cannot be opened: Protocol not known'),
    ):
        assert main([*command, *extra]) == 2
        assert message in capsys.readouterr().err


@pytest.mark.slow
def test_names_with_square_brackets_are_shown_as_they_are(folder, capsys):
    save_npz(folder / 'usps[v2].npz', n=36)
    assert search(folder, '--set', 'data.npz.path=usps[v2].npz') == 0
    zoo = str(folder / 'zoo')
    assert main(['zoo', 'add', '--zoo', zoo, str(folder / 'out' / 'supernet.safetensors'), '--name', 'mine']) == 0
    assert main(['zoo', 'list', '--zoo', zoo]) == 0
    os.rename(folder / 'usps[v2].npz', folder / 'usps[v2] $1 to $2.npz')
    data = ['--data', str(folder / 'usps[v2] $1 to $2.npz'), '--heatmap', str(folder / 'map.png')]
    assert main(['zoo', 'rank', '--zoo', zoo, *data]) == 0
    assert capsys.readouterr().out.count('usps[v2]') >= 3


@pytest.mark.parametrize('action', ['add', 'remove'])
def test_the_shipped_zoo_is_not_changed_by_an_oversight(action, capsys):
    before = SupernetZoo.shipped().names()
    with pytest.raises(SystemExit):
        main(['zoo', action, before[0]])
    assert 'the following arguments are required: --zoo' in capsys.readouterr().err
    assert SupernetZoo.shipped().names() == before


@pytest.mark.slow
def test_three_hundred_entries_are_listed_in_three_seconds(tmp_path):
    """Of the processor, the start of the command included; torch and NNI, which take longer, are not needed."""
    shipped = SupernetZoo.shipped()
    for number in range(300):
        (tmp_path / f'entry-{number}.safetensors').symlink_to(shipped.path(shipped.names()[number % len(shipped)]))
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, '-m', 'nni_warmstart.cli', 'zoo', 'list', '--zoo', str(tmp_path)]
    shown = subprocess.run(command, check=True, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert (shown.stdout.count('entry-'), shown.stderr) == (300, '')
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 3


def test_a_list_needs_no_torch(tmp_path):
    code = (
        "import sys; from nni_warmstart.cli import main; main(['zoo', 'list']); assert not {'torch', 'nni'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, '-c', code], check=True, capture_output=True)


def test_zoo_errors(tmp_path, capsys):
    assert main(['zoo', 'show', '--zoo', str(tmp_path), 'nobody']) == 2
    assert "has no entry 'nobody'; it has none" in capsys.readouterr().err


def test_images_are_ranked_for_in_the_size_of_the_entries(monkeypatch, capsys):
    sizes = []

    def noting(word, image_size):
        sizes.append(image_size)
        raise DataError('enough.')

    monkeypatch.setattr('nni_warmstart.data.sources.from_word', noting)
    assert main(['zoo', 'rank', '--data', 'photographs']) == 2
    assert sizes == [64] and 'enough.' in capsys.readouterr().err  # that of the shipped zoo


def test_an_entry_of_an_unknown_space_is_ranked_by_its_sketches(tmp_path, capsys):
    supernet = Supernet.from_model(mutate(small_space(), 'DARTS'), name='known', dataset=make_task())
    history = {key: value for key, value in supernet.history.items() if key != 'pictures'}
    future = {'name': 'space_of_2030', 'arguments': {}}
    zoo = SupernetZoo(tmp_path / 'zoo')
    zoo.add(supernet)
    zoo.add(replace(supernet, name='future', space=future, structure=None, history=history))
    assert main(['zoo', 'rank', '--zoo', str(tmp_path / 'zoo'), '--data', 'digits']) == 0
    assert {'known', 'future'} <= set(capsys.readouterr().out.split())
