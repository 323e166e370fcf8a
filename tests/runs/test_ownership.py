"""A run takes only what is its own: a start replaces no foreign files, a resumed search no copy of its entry."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import pytest
import yaml
from helpers.commands import search
from helpers.tiny import SMALL, small_space
from hypothesis import given, settings
from hypothesis import strategies as some
from safetensors.torch import save_file
from torch import zeros

from nni_warmstart import ConfigError, Supernet, SupernetZoo, ZooError
from nni_warmstart.cli import main
from nni_warmstart.nni_adapter.mutation import mutate
from nni_warmstart.runs.folder import EXPORTS, KINDS, RunFolder
from nni_warmstart.runs.pretrain import may_replace
from nni_warmstart.runs.provenance import Provenance
from nni_warmstart.zoo.recognition import own_entry

ONCE = ['--set', 'evaluator.max_epochs=1']
ALWAYS = {'settings.json', 'run.json', 'checkpoints/last.ckpt', 'logs/metrics.csv'}
NAMES = sorted({*ALWAYS, *EXPORTS, *sum(KINDS.values(), ())})


def content(folder: Path) -> dict[str, bytes]:
    """All files that are no locks, by path."""
    files = (path for path in folder.rglob('*') if path.is_file() and not path.name.startswith('.run.'))
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def refused(capsys, command: list[str], *messages: str) -> None:
    """The command ends with status 2 and one line, which holds all messages."""
    capsys.readouterr()
    assert main(command) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith('error: ')
    assert all(message in error for message in messages), error


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    """search.yml, pretrain.yml, and a finished search in ``out``."""
    from helpers.tiny import save_npz

    folder = tmp_path_factory.mktemp('finished')
    save_npz(folder / 'shapes.npz', n=36)
    (folder / 'search.yml').write_text(yaml.safe_dump(SMALL))
    document = {'data': [SMALL['data']], 'space': SMALL['space'], 'evaluator': {'max_epochs': 1, 'steps_per_epoch': 2}}
    (folder / 'pretrain.yml').write_text(yaml.safe_dump(document))
    assert search(folder, *ONCE) == 0
    return folder


def commands(folder: Path, out: Path) -> dict[str, list[str]]:
    config = ['--config', str(folder / 'search.yml'), *ONCE]
    pretraining = ['--config', str(folder / 'pretrain.yml'), '--name', 'both', '--zoo', str(folder / 'zoo')]
    return {
        'search': ['search', *config, '--out', str(out)],
        'retraining': ['retrain', *config, '--run', str(folder / 'out'), '--out', str(out), '--export', 'pt2', 'onnx'],
        'pretraining': ['pretrain', *pretraining, '--out', str(out)],
        'pipeline': ['run', *config, '--out', str(out)],
    }


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('more', [[], ['--overwrite'], ['--resume']], ids=['', 'overwrite', 'resume'])
def test_foreign_files_are_refused_in_one_line_and_stay(finished, tmp_path, capsys, kind, more):
    foreign = 'settings.json' if kind == 'pretraining' else 'result.json'
    (tmp_path / foreign).write_text('{"score": 1}')
    (tmp_path / 'settings.json').write_text('{"editor": "dark"}')
    before = content(tmp_path)
    refused(capsys, [*commands(finished, tmp_path)[kind], *more], foreign, 'that no run of nni-warmstart has written')
    assert content(tmp_path) == before


@settings(max_examples=60, deadline=None)
@given(
    kind=some.sampled_from(sorted(KINDS)),
    names=some.sets(some.sampled_from([*NAMES, 'notes.txt', 'model.onnx'])),
    written=some.sampled_from(['', '{}', '[]', '{', '{"kind": "search"}', '{"kind": 3, "results": []}', '\x00']),
    resume=some.booleans(),
    overwrite=some.booleans(),
)
def test_no_start_touches_a_foreign_file(kind, names, written, resume, overwrite):
    """Whatever lies in a folder that no run has written to."""
    with tempfile.TemporaryDirectory() as place:
        folder = RunFolder(Path(place), kind, EXPORTS if kind == 'retraining' else ())
        for name in names:
            (folder.path / name).parent.mkdir(exist_ok=True)
            (folder.path / name).write_text(written)
        before = content(folder.path)
        mine = {*ALWAYS, *folder.results}
        try:
            with folder.claimed(resume=resume, overwrite=overwrite and not resume):
                assert not names & mine or (resume and folder.has_checkpoint())
        except ConfigError as error:
            assert names & mine and '\n' not in str(error)
            assert not (folder.path / '.run.lock').exists()
        assert content(folder.path) == before


def test_what_a_run_did_not_write_stays_in_its_own_folder(tmp_path):
    """A user's network.onnx beside the results of a search, and a retraining's own."""
    provenance = Provenance.of({'data': {}, 'space': {}, 'evaluator': {}, 'strategy': {}}, {})
    exported = RunFolder(tmp_path, 'retraining', ('network.pt2',))
    exported.begin(provenance, resume=False)
    for name in EXPORTS:
        (tmp_path / name).write_text('something')
    with exported.claimed(resume=False, overwrite=True):
        exported.begin(provenance, resume=False)
    assert not (tmp_path / 'network.pt2').exists() and (tmp_path / 'network.onnx').exists()
    both = RunFolder(tmp_path, 'retraining', EXPORTS)
    with pytest.raises(ConfigError, match=r'has network.onnx that no run'), both.claimed(resume=False, overwrite=True):
        pass


def test_a_folder_in_the_place_of_a_file_is_named(finished, tmp_path, capsys):
    (tmp_path / 'checkpoints' / 'last.ckpt').mkdir(parents=True)
    for more in ([], ['--resume']):
        refused(capsys, [*commands(finished, tmp_path)['search'], *more], 'last.ckpt is a folder, where a file')


def test_a_finished_search_is_refused_without_a_flag_and_stays(finished, capsys):
    before, command = content(finished / 'out'), commands(finished, finished / 'out')
    refused(capsys, command['search'], 'holds a finished search; add --resume to go on with it or --overwrite to replace it')
    for kind in ('retraining', 'pretraining'):
        for more in ([], ['--overwrite'], ['--resume']):
            refused(
                capsys, [*command[kind], *more], 'the folder of the search' if kind == 'retraining' else 'holds a search'
            )
    assert content(finished / 'out') == before
    with pytest.raises(SystemExit):
        main([*command['search'], '--resume', '--overwrite'])
    assert 'not allowed with argument' in capsys.readouterr().err


def test_an_unfinished_search_is_refused_without_a_flag_and_stays(finished, tmp_path, capsys):
    shutil.copytree(finished / 'out', tmp_path / 'out')
    for name in KINDS['search']:
        (tmp_path / 'out' / name).unlink()
    before = content(tmp_path / 'out')
    refused(capsys, commands(finished, tmp_path / 'out')['search'], 'holds an unfinished search; add --resume')
    assert content(tmp_path / 'out') == before


@pytest.mark.slow
def test_a_resumed_search_replaces_its_own_entry_and_no_copy(finished, tmp_path):
    zoo = SupernetZoo(tmp_path / 'zoo')
    command = [*commands(finished, tmp_path / 'out')['search'], '--set', f'strategy.save_to={zoo.root}']
    assert main(command) == 0
    (own,) = zoo.names()
    entry = str(tmp_path / 'zoo' / f'{own}.safetensors')
    assert main(['zoo', 'add', '--zoo', zoo.root, entry, '--name', 'copy']) == 0
    shutil.copy(entry, tmp_path / 'zoo' / 'a-1.safetensors')
    zoo.add_numbered(zoo[own], own.rpartition('-')[0])  # a copy under the next number
    copies = {name: (tmp_path / 'zoo' / f'{name}.safetensors').read_bytes() for name in zoo.names() if name != own}
    assert len(copies) == 3
    assert main([*command, '--resume', '--set', 'evaluator.max_epochs=2']) == 0
    assert all((tmp_path / 'zoo' / f'{name}.safetensors').read_bytes() == data for name, data in copies.items())
    assert set(zoo.names()) == {own, *copies}
    assert len(zoo[own].history['curve']) == 2


def test_own_entries_are_known_by_run_and_name(tmp_path):
    zoo, model = SupernetZoo(tmp_path), mutate(small_space(), 'DARTS')
    first = Supernet.from_model(model, name='x', history={'run': 'r'})
    assert zoo.add_numbered(first, 'net') == 'net-1'
    zoo.add(zoo['net-1'].renamed('net-0'))
    assert own_entry(zoo, 'r', 'net') == 'net-1'
    assert own_entry(zoo, 'other', 'net') is None
    zoo.remove('net-1')
    assert own_entry(zoo, 'r', 'net') is None
    zoo.add(first.renamed('net-7'))  # of an older version
    (tmp_path / 'net-3.safetensors').write_bytes(b'damaged')
    assert own_entry(zoo, 'r', 'net') == 'net-7'


@pytest.mark.slow
def test_a_pretraining_replaces_its_own_entry_only(finished, tmp_path, capsys):
    shutil.copytree(finished, tmp_path / 'f')
    folder = tmp_path / 'f'
    command = commands(folder, folder / 'p')['pretraining']
    assert main(command) == 0
    path = folder / 'zoo' / 'both.safetensors'
    before = path.read_bytes()
    another = commands(folder, folder / 'other')['pretraining']
    refused(capsys, another, "has an entry 'both' already", '--overwrite')
    refused(capsys, [*another, '--resume'], "has an entry 'both' already")
    assert path.read_bytes() == before
    assert main([*command, '--resume', '--set', 'evaluator.max_epochs=2']) == 0
    assert Supernet.load(path).history['evaluator']['max_epochs'] == 2
    assert main([*another, '--overwrite', '--seed', '3']) == 0
    assert Supernet.load(path).history['seed'] == 3
    refused(capsys, [*command, '--resume', '--set', 'evaluator.max_epochs=2'], "has an entry 'both' already")


def test_zoo_add_and_remove_touch_nothing_foreign(finished, tmp_path, capsys):
    zoo = str(tmp_path / 'zoo')
    add = ['zoo', 'add', '--zoo', zoo, str(finished / 'out' / 'supernet.safetensors'), '--name']
    assert main([*add, 'mine']) == 0
    before = content(tmp_path / 'zoo')
    refused(capsys, [*add, 'mine'], "has an entry 'mine' already", '--overwrite')
    assert content(tmp_path / 'zoo') == before
    assert main([*add, 'mine', '--overwrite']) == 0
    save_file({'weight': zeros(3)}, tmp_path / 'zoo' / 'theirs.safetensors')
    before = content(tmp_path / 'zoo')
    for command in (['zoo', 'remove', '--zoo', zoo, 'theirs'], [*add, 'theirs'], [*add, 'theirs', '--overwrite']):
        refused(capsys, command, 'theirs')
    with pytest.raises(ZooError, match='of another program'):
        SupernetZoo(zoo).add(Supernet.load(finished / 'out' / 'supernet.safetensors').renamed('theirs'))
    assert content(tmp_path / 'zoo') == before
    (tmp_path / 'zoo' / 'broken.safetensors').write_bytes(b'half')
    assert main(['zoo', 'remove', '--zoo', zoo, 'broken']) == 0


@pytest.mark.slow
def test_pages_and_pictures_replace_their_own_kind_only(finished, tmp_path, capsys):
    zoo = ['--zoo', str(tmp_path / 'zoo')]
    rank = ['zoo', 'rank', *zoo, '--data', str(finished / 'shapes.npz'), '--by', 'static', '--heatmap']
    onto = ['zoo', 'show', 'mine', *zoo, '--onto', str(finished / 'search.yml'), '--picture']
    entry = str(finished / 'out' / 'supernet.safetensors')
    assert main(['zoo', 'add', *zoo, entry, '--name', 'mine']) == 0
    for command, name in ((['report', str(finished / 'out'), '--out'], 'page.html'), (rank, 'map.png'), (onto, 'map.png')):
        path = tmp_path / name
        path.write_text('of somebody')
        refused(capsys, [*command, str(path)], 'nni-warmstart has not written it')
        assert path.read_text() == 'of somebody'
        path.unlink()
        for _ in range(2):
            assert main([*command, str(path)]) == 0
        path.unlink()


def test_a_run_of_an_older_version_is_known_by_its_settings(finished, tmp_path, capsys):
    shutil.copytree(finished / 'out', tmp_path / 'out')
    (tmp_path / 'out' / 'run.json').unlink()
    refused(capsys, commands(finished, tmp_path / 'out')['search'], 'holds a finished search')
    refused(capsys, commands(finished, tmp_path / 'out')['pretraining'], 'holds a search, and this is a pretraining')
    assert json.loads((tmp_path / 'out' / 'result.json').read_text())['run']['id']


def test_an_entry_of_no_dataset_is_of_no_pretraining(tmp_path):
    """Not even where neither has a run, as in older versions."""
    zoo, out = SupernetZoo(tmp_path / 'zoo'), tmp_path / 'old'
    zoo.add(Supernet.from_model(mutate(small_space(), 'DARTS'), name='foreign'))
    out.mkdir()
    settings = {'data': [], 'space': {}, 'evaluator': {}, 'strategy': {}}
    (out / 'settings.json').write_text(json.dumps(settings))
    assert RunFolder(out, 'pretraining').earlier() is not None
    assert not may_replace(zoo, 'foreign', out)


@pytest.mark.slow
def test_a_pretraining_that_replaces_an_entry_does_so_when_it_is_resumed(finished, tmp_path, capsys, monkeypatch):
    """Another entry, or one that was put there since, it does not replace."""
    zoo = SupernetZoo(tmp_path / 'zoo')
    for name in ('mine', 'other'):
        zoo.add(Supernet.load(finished / 'out' / 'supernet.safetensors').renamed(name))
    command = ['pretrain', '--config', str(finished / 'pretrain.yml'), '--zoo', zoo.root, '--out', str(tmp_path / 'out')]

    def killed(*_, **__) -> None:
        raise KeyboardInterrupt

    for more in ('--overwrite', '--resume'):
        with monkeypatch.context() as patch:
            patch.setattr(SupernetZoo, 'add', killed)
            assert main([*command, '--name', 'mine', more]) == 130
    earlier = content(tmp_path / 'zoo')
    refused(capsys, [*command, '--name', 'other', '--resume'], "has an entry 'other' already")
    zoo.add(Supernet.from_model(mutate(small_space(), 'DARTS'), name='mine'))
    refused(capsys, [*command, '--name', 'mine', '--resume'], "has an entry 'mine' already")
    (tmp_path / 'zoo' / 'mine.safetensors').write_bytes(earlier['mine.safetensors'])
    assert content(tmp_path / 'zoo') == earlier
    assert main([*command, '--name', 'mine', '--resume']) == 0
    assert zoo['mine'].run == json.loads((tmp_path / 'out' / 'run.json').read_text())['id']


def test_a_pretraining_among_its_images_is_refused(finished, tmp_path, capsys):
    """Of any of its datasets, before anything is made."""
    (tmp_path / 'images' / 'one').mkdir(parents=True)
    command = commands(finished, tmp_path / 'images' / 'run')['pretraining']
    data = f'data=[{{npz: {{path: shapes.npz}}}}, {{folder: {{path: {tmp_path / "images"}}}}}]'
    refused(capsys, [*command, '--set', data], f'images/run is inside the folder of the images, {tmp_path / "images"};')
    assert not (tmp_path / 'images' / 'run').exists()
