"""The command line: real searches, and one clear line for wrong input."""

from __future__ import annotations

import inspect
import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
import yaml
from conftest import OwnSpace
from PIL import Image
from test_data import save_npz

from nni_warmstart import Supernet, SupernetZoo
from nni_warmstart.cli import main
from nni_warmstart.evaluator import Cosine

SMALL = {
    'data': {'npz': {'path': 'shapes.npz'}, 'licence': 'CC0-1.0'},
    'space': {'name': 'nasbench201', 'width': 4, 'depth': 1, 'image_size': 8},
    'evaluator': {'max_epochs': 2, 'batch_size': 4, 'learning_rate': 0.05},
    'strategy': {'name': 'DARTS', 'arc_learning_rate': 0.01},
}


@pytest.fixture
def folder(tmp_path):
    save_npz(tmp_path / 'shapes.npz', n=36)
    (tmp_path / 'search.yml').write_text(yaml.safe_dump(SMALL))
    return tmp_path


def search(folder, *arguments: str) -> int:
    return main(['search', '--config', str(folder / 'search.yml'), '--out', str(folder / 'out'), *arguments])


def test_a_search_leaves_its_results(folder):
    assert search(folder, '--seed', '3') == 0
    out = folder / 'out'
    result = json.loads((out / 'result.json').read_text())
    architecture = json.loads((out / 'architecture.json').read_text())
    assert len(result['curve']) == 2
    assert result['seed'] == 3
    assert 'test_accuracy' in result['final']
    assert result['architecture'] == architecture['sample']
    for label, op in architecture['sample'].items():
        assert architecture['probabilities'][label][op] == max(architecture['probabilities'][label].values())
    supernet = Supernet.load(out / 'supernet.safetensors')
    assert supernet.class_names == ['class 0', 'class 1', 'class 2']
    assert supernet.history['licence'] == 'CC0-1.0'
    assert [p.name for p in (out / 'checkpoints').iterdir()] == ['last.ckpt']


def test_a_supernet_is_the_source_of_the_next_search(folder):
    assert search(folder) == 0
    source = folder / 'out' / 'supernet.safetensors'
    assert search(folder, '--set', 'strategy.name=WarmStartDARTS', '--set', f'strategy.source={source}') == 0
    result = json.loads((folder / 'out' / 'result.json').read_text())
    assert result['source'] == 'nasbench201-shapes'
    assert result['warm_start']['share_inherited'] == 1.0


def test_pictures_are_changed_at_random_where_asked_for(folder):
    losses = []
    for settings in ([], ['evaluator.crop=0.25'], ['evaluator.jitter=0.2'], ['evaluator.cutout=0.5'], ['data.flip=true']):
        assert search(folder, '--seed', '1', *(word for each in settings for word in ('--set', each))) == 0
        losses.append(json.loads((folder / 'out' / 'result.json').read_text())['curve'][0]['train_loss'])
    assert len(set(losses)) == len(losses)


def test_same_seed_same_result(folder):
    curves = []
    for _ in range(2):
        assert search(folder, '--seed', '1') == 0
        result = json.loads((folder / 'out' / 'result.json').read_text())
        curves.append([[f[key] for key in ('default', 'train_loss', 'alpha_entropy')] for f in result['curve']])
    assert curves[0] == curves[1]


def run_killed_and_resumed(folder, command, last: str) -> None:
    """Once in one go, and once killed with SIGKILL after the first checkpoint and resumed, in processes of their own.

    ``command`` makes the command for a folder of results, in which the file ``last`` is written at the end.
    """
    whole, killed = ([sys.executable, '-m', 'nni_warmstart.cli', *command(folder / name)] for name in ('whole', 'killed'))
    subprocess.run(whole, check=True, capture_output=True)
    process = subprocess.Popen(killed, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    checkpoint = folder / 'killed' / 'checkpoints' / 'last.ckpt'
    deadline = time.time() + 60
    while not checkpoint.is_file() and time.time() < deadline:
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (folder / 'killed' / last).exists(), 'killed too late to test anything'
    subprocess.run([*killed, '--resume'], check=True, capture_output=True)


@pytest.mark.parametrize(
    ('strategy', 'settings'),
    [
        ('WarmStartDARTS', {}), ('WarmStartGumbelDARTS', {}), ('WarmStartProxyless', {}),
        ('WarmStartDARTS', {'average': 1.5, 'stop_on_eigenvalue': True, 'parameter_free_cap': 1}),
    ],
)  # fmt: skip
def test_a_killed_search_resumes_to_the_same_result(folder, strategy, settings):
    document = {**SMALL, 'strategy': {'name': strategy, 'arc_learning_rate': 0.01, **settings}}
    document['evaluator'] = {**SMALL['evaluator'], 'max_epochs': 6}
    (folder / 'search.yml').write_text(yaml.safe_dump(document))
    command = ['search', '--config', str(folder / 'search.yml'), '--seed', '5']
    run_killed_and_resumed(folder, lambda out: [*command, '--out', str(out)], 'result.json')
    whole, resumed = (Supernet.load(folder / name / 'supernet.safetensors') for name in ('whole', 'killed'))
    assert all(torch.equal(tensor, resumed.tensors[name]) for name, tensor in whole.tensors.items())
    results = [json.loads((folder / name / 'result.json').read_text()) for name in ('whole', 'killed')]
    assert results[0]['architecture'] == results[1]['architecture']
    assert results[1]['seconds'] > sum(figures['epoch_seconds'] for figures in results[1]['curve'])
    for figure in ('default', 'alpha_eigenvalue'):
        assert [f.get(figure) for f in results[0]['curve']] == [f.get(figure) for f in results[1]['curve']]
    assert main([*command, '--out', str(folder / 'killed'), '--resume']) == 0  # already at its end
    again = Supernet.load(folder / 'killed' / 'supernet.safetensors')
    assert all(torch.equal(tensor, again.tensors[name]) for name, tensor in whole.tensors.items())


def test_a_resumed_search_keeps_its_source(folder):
    """What it has remembered since would be nearer."""
    zoo = SupernetZoo(folder / 'zoo')
    assert search(folder) == 0
    zoo.add(Supernet.load(folder / 'out' / 'supernet.safetensors').renamed('first'))
    warm = [f'strategy.{key}' for key in ('name=WarmStartDARTS', 'source=nearest', f'zoo={zoo.root}', f'save_to={zoo.root}')]
    settings = [word for each in warm for word in ('--set', each)]
    assert search(folder, *settings) == 0
    before = json.loads((folder / 'out' / 'result.json').read_text())
    assert zoo.names() != ['first']
    zoo.remove('first')
    assert search(folder, *settings, '--resume') == 0
    after = json.loads((folder / 'out' / 'result.json').read_text())
    assert (after['source'], after['warm_start']) == (before['source'], before['warm_start'])
    assert after['source'] == 'first'


def test_a_killed_pretraining_resumes_to_the_same_supernet(folder, capsys):
    save_npz(folder / 'others.npz', n=30, classes=2)
    document = {
        'data': [{'npz': {'path': 'shapes.npz'}, 'flip': True}, {'npz': {'path': 'others.npz'}}],
        'space': SMALL['space'],
        'evaluator': {'max_epochs': 6, 'steps_per_epoch': 3, 'batch_size': 8, 'batch_norm': 'per_dataset'},
    }
    document['evaluator'] |= {'crop': 0.1, 'cutout': 0.3, 'label_smoothing': 0.1, 'drop_path': 0.2}
    (folder / 'pretrain.yml').write_text(yaml.safe_dump(document))

    def command(out) -> list[str]:
        settings = ['--config', str(folder / 'pretrain.yml'), '--name', 'both']
        return ['pretrain', *settings, '--zoo', str(out / 'zoo'), '--out', str(out)]

    run_killed_and_resumed(folder, command, 'zoo/both.safetensors')
    whole, resumed = (Supernet.load(folder / name / 'zoo' / 'both.safetensors') for name in ('whole', 'killed'))
    assert all(torch.equal(tensor, resumed.tensors[name]) for name, tensor in whole.tensors.items())
    assert whole.history['datasets'] == resumed.history['datasets']
    assert main([*command(folder / 'killed'), '--resume']) == 0  # already at its end
    capsys.readouterr()
    for change, message in (('evaluator.jitter=0.5', 'has evaluator.jitter = 0.15 and'), ('seed=1', 'has seed = 0 and')):
        assert main([*command(folder / 'killed'), '--resume', '--set', change]) == 2
        assert message in capsys.readouterr().err


def test_a_budget_of_seconds_ends_a_search_after_an_epoch(folder):
    budget = ['--set', 'evaluator.max_epochs=500', '--set', 'evaluator.max_seconds=2']
    start = time.time()
    assert search(folder, *budget) == 0
    assert time.time() - start < 60
    curve = json.loads((folder / 'out' / 'result.json').read_text())['curve']
    assert 0 < len(curve) < 500
    assert all('default' in figures for figures in curve)
    more = ['--resume', '--set', f'evaluator.max_epochs={len(curve) + 2}', '--set', 'evaluator.max_seconds=1000']
    assert search(folder, *more) == 0  # a larger budget goes on
    longer = json.loads((folder / 'out' / 'result.json').read_text())['curve']
    assert len(longer) == len(curve) + 2
    assert longer[: len(curve)] == curve


def test_a_longer_run_goes_on_along_the_longer_curve():
    def steps(length: int, number: int, earlier: Cosine | None = None) -> Cosine:
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.2)
        cosine = Cosine(optimizer, length)
        if earlier is not None:
            optimizer.load_state_dict(earlier.optimizer.state_dict())
            cosine.load_state_dict(earlier.state_dict())
        for _ in range(number):
            optimizer.step()
            cosine.step()
        return cosine

    def rate(cosine: Cosine) -> float:
        assert cosine.get_last_lr() == [group['lr'] for group in cosine.optimizer.param_groups]
        return cosine.get_last_lr()[0]

    done = steps(4, 4)
    assert rate(done) == pytest.approx(0, abs=1e-12)
    for more in range(5):
        assert rate(steps(8, more, done)) == pytest.approx(rate(steps(8, 4 + more)), abs=1e-12)
    assert rate(steps(4, 1, steps(4, 2))) == rate(steps(4, 3))  # to the bit, where the length is the same


def test_resume_without_a_checkpoint_starts_anew(folder):
    assert search(folder, '--resume') == 0


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
    assert main(['zoo', 'rank', '--zoo', zoo, '--data', 'digits']) == 0
    assert main(['zoo', 'rank', '--zoo', zoo, '--config', str(folder / 'search.yml'), '--set', 'data.flip=true']) == 0


def test_zoo_rank_errors(folder, capsys):
    command = ['zoo', 'rank', '--zoo', str(folder / 'none'), '--data']
    for extra, message in (
        ([str(folder / 'shapes.npz')], 'has no readable entry to rank'),
        ([str(folder / 'missing.npz')], 'does not exist'),
        (['digits', '--by', 'best'], "--by 'best' is unknown; choose one of otdd"),
        (['digits', '--heatmap', 'map.gif'], '--heatmap map.gif must end in .png'),
        (['digits', '--config', 'search.yml'], 'give one of --data and --config'),
        (['digits', '--seed', '99999999999999999999'], 'must be from 0 to'),
        (['digits', '--zoo', 'nowhere://zoo'], 'cannot be opened: Protocol not known'),
    ):
        assert main([*command, *extra]) == 2
        assert message in capsys.readouterr().err


def test_spaces_are_listed(capsys):
    assert main(['spaces']) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in ('nasbench201', 'darts', 'MobileNetV3Space', 'width='))


def test_own_space_by_module_and_class(folder, monkeypatch):
    (folder / 'my_spaces.py').write_text(
        'import torch\nfrom nni.nas.nn.pytorch import LayerChoice, ModelSpace\nfrom torch import nn\n\n'
        + inspect.getsource(OwnSpace)
    )
    monkeypatch.chdir(folder)
    assert search(folder, '--set', 'space={name: "my_spaces:OwnSpace", image_size: 8}') == 0


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ('data.nmae=digits', 'key data.nmae is unknown; did you mean name?'),
        ('data={name: letters}', "data.name = 'letters' is unknown; the embedded task is 'digits'"),
        ('data={}', 'data must have exactly one of name, npz, folder, torchvision; it has none'),
        ('data={name: digits, npz: {path: a}}', 'it has name, npz'),
        ('data.npz.path=nowhere.npz', 'nowhere.npz does not exist'),
        ('data.npz.path=3', 'data.npz.path = 3, but it must be a path'),
        ('data={torchvision: {root: x}}', 'data.torchvision.name is missing'),
        ('evaluator.epochs=3', 'key evaluator.epochs is unknown; did you mean max_epochs?'),
        ('evaluator.max_epochs=many', "evaluator.max_epochs = 'many', but it must be a whole number"),
        ('evaluator.max_epochs=2.5', 'evaluator.max_epochs = 2.5, but it must be a whole number'),
        ('evaluator.max_epochs=0', 'evaluator.max_epochs = 0, but it must be 1 or more'),
        ('evaluator.learning_rate=-1', 'evaluator.learning_rate = -1.0, but it must be 0 or more'),
        ('evaluator.learning_rate=.nan', 'evaluator.learning_rate = nan, but it must be 0 or more'),
        ('evaluator.val_share=1', 'evaluator.val_share = 1.0, but it must be from 0.01 to 0.99'),
        ('evaluator=fast', "evaluator = 'fast', but it must be a section with keys"),
        ('space.name=nasbench', "space.name = 'nasbench' is unknown; choose one of nasbench201, darts"),
        ('space.name=no_module:Space', "space.name = 'no_module:Space' cannot be imported"),
        ('space.name=json:JSONDecoder', 'is not a subclass of nni.nas.nn.pytorch.ModelSpace'),
        ('space.widht=4', 'space.widht is unknown to nasbench201; it takes width'),
        ('space.width=wide', 'space nasbench201 cannot be built'),
        ('space={name: DARTS, width: 4, num_cells: 3}', 'always has 10 classes, and the data have 3; use the space "darts"'),
        ('space.image_size=1', 'pictures of 3 channels and 1 x 1 pixels do not go through NasBench201Space'),
        ('strategy.name=ENAS', "strategy.name = 'ENAS' is unknown; known are DARTS, GumbelDARTS"),
        ('strategy.souce=x', 'key strategy.souce is unknown; did you mean source?'),
        ('strategy={name: WarmStartDARTS, source: nothing}', "source = 'nothing' is neither a file nor an entry of"),
        ('strategy={name: WarmStartDARTS, keep: 2}', 'keep = 2, but it must be from 0 to 1'),
        ('strategy={name: WarmStartDARTS, head: best}', "strategy.head = 'best' is unknown"),
        ('strategy={name: DARTS, keep: 5}', 'strategy.keep = 5, but it must be from 0 to 1'),
        ('strategy={name: DARTS, alpha: true}', 'strategy.alpha = True, but it must be from 0 to 1'),
        ('strategy={name: DARTS, head: foo}', "strategy.head = 'foo' is unknown"),
        ('seed=-1', 'seed = -1, but it must be from 0 to 4294967295'),
        ('sed=1', 'key sed is unknown; did you mean seed?'),
        ('seed', '--set \'seed\' has no "="'),
        ('seed=5000000000', 'seed = 5000000000, but it must be from 0 to 4294967295'),
        ('strategy.head=[', 'the value is not YAML'),
        ('space.image_size=0', 'space.image_size = 0, but it must be a whole number, 1 or more'),
        ('space.image_size=big', "space.image_size = 'big', but it must be a whole number"),
        ('space.in_channels=x', "space.in_channels = 'x', but it must be a whole number"),
        ('space.width=-8', 'space nasbench201 cannot be built'),
        ('space.depth=0', 'has nothing to choose'),
        ('space.name=:C', "space.name = ':C' cannot be imported"),
        ('evaluator.max_epochs=.inf', 'evaluator.max_epochs = inf, but it must be a whole number'),
        ('strategy={name: WarmStartDARTS, keep: null}', 'strategy.keep = None, but it must be a number'),
        ('strategy={name: WarmStartDARTS, alpha: [1]}', 'alpha = [1], but it must be from 0 to 1'),
        ('strategy={name: WarmStartDARTS, zoo: 5}', 'strategy.zoo = 5, but it must be text'),
        ('strategy={name: DARTS, log_prob_every_n_step: 0}', 'strategy.log_prob_every_n_step = 0, but it must be 1 or more'),
        ('strategy={name: DARTS, penalty: {}}', 'strategy DARTS cannot be made with'),
        ('data={torchvision: {name: MNIST, root: 5}}', 'data.torchvision.root = 5, but it must be text'),
    ],
)
def test_wrong_settings_give_one_line(folder, capsys, change, message):
    assert search(folder, '--set', change) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert error[-1].startswith('error: ')
    assert message in error[-1]


def test_wrong_files_give_one_line(folder, capsys):
    for text, message in ((': [', 'is not YAML'), ('', 'holds no keys'), ('- a', 'holds no keys')):
        (folder / 'search.yml').write_text(text)
        assert search(folder) == 2
        assert message in capsys.readouterr().err
    (folder / 'search.yml').unlink()
    assert search(folder) == 2
    assert 'cannot be read: No such file or directory' in capsys.readouterr().err


def test_a_file_of_another_kind_is_no_source(folder, capsys):
    torch.save({}, folder / 'weights.pt')
    assert search(folder, '--set', 'strategy={name: WarmStartDARTS, source: weights.pt}') == 2
    assert 'weights.pt' in capsys.readouterr().err


def test_a_foreign_checkpoint_is_not_unpickled(folder, capsys):
    """A resumed search reads tensors only."""
    assert search(folder) == 0

    class Evil:
        def __reduce__(self):
            return os.system, (f'touch {folder}/executed',)

    torch.save({'state_dict': Evil()}, folder / 'out' / 'checkpoints' / 'last.ckpt')
    assert search(folder, '--resume') == 2
    assert 'last.ckpt is damaged or of another kind; delete it to start anew' in capsys.readouterr().err
    assert not (folder / 'executed').exists()


def test_checkpoints_that_do_not_fit(folder, capsys):
    assert search(folder) == 0
    assert search(folder, '--resume', '--set', 'space.width=8') == 2
    assert 'has space.arguments.width = 4 and should go on with 8' in capsys.readouterr().err
    assert search(folder, '--resume', '--set', 'evaluator.max_epochs=1') == 2
    assert 'has 2 epochs and evaluator.max_epochs = 1' in capsys.readouterr().err
    checkpoint = folder / 'out' / 'checkpoints' / 'last.ckpt'
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    assert search(folder, '--resume') == 2
    assert 'is damaged or of another kind' in capsys.readouterr().err


def test_folders_that_cannot_be_written(folder, capsys):
    (folder / 'out').write_text('a file')
    assert search(folder) == 2
    assert 'output folder' in capsys.readouterr().err
    (folder / 'pretrain.yml').write_text(yaml.safe_dump({'data': [SMALL['data']], 'space': SMALL['space']}))
    command = ['pretrain', '--config', str(folder / 'pretrain.yml'), '--name']
    for name, zoo, out in (('my source', 'zoo', 'log'), ('mine', 'out', 'log'), ('mine', 'zoo', 'out')):
        assert main([*command, name, '--zoo', str(folder / zoo), '--out', str(folder / out)]) == 2
    shown = capsys.readouterr().err
    assert 'output folder' in shown
    assert "zoo entry name 'my source' may hold" in shown
    assert 'cannot be made' in shown


def test_zoo_errors(tmp_path, capsys):
    assert main(['zoo', 'show', '--zoo', str(tmp_path), 'nobody']) == 2
    assert "has no entry 'nobody'; it has none" in capsys.readouterr().err


def test_help_teaches():
    shown = subprocess.run(
        [sys.executable, '-m', 'nni_warmstart.cli', 'search', '--help'], capture_output=True, text=True, check=True
    ).stdout
    assert '--resume' in shown
    assert 'strategy.head=prototype' in shown
