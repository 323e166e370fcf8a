"""The command line: real searches, and one clear line for wrong input."""

from __future__ import annotations

import inspect
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from helpers.commands import run_killed_and_resumed, search
from helpers.tiny import SMALL, OwnSpace, save_npz

from nni_warmstart import Supernet, SupernetZoo
from nni_warmstart.cli import main
from nni_warmstart.cli.common import document
from nni_warmstart.cli.main import make_parser
from nni_warmstart.evaluators.optimisation import Cosine
from nni_warmstart.nni_adapter.freezing import freeze
from nni_warmstart.search import collapse
from nni_warmstart.search.oneshot_module import DartsSearchModule
from nni_warmstart.search_spaces import NasBench201Space


def test_a_search_leaves_its_results(folder, capsys):
    assert search(folder, '--seed', '3') == 0
    printed = capsys.readouterr().out
    out = folder / 'out'
    result = json.loads((out / 'result.json').read_text())
    architecture = json.loads((out / 'architecture.json').read_text())
    assert len(result['curve']) == 2
    assert result['seed'] == 3
    assert 'test_accuracy' in result['final']
    assert result['architecture'] == architecture['sample']
    for label, op in architecture['sample'].items():
        assert architecture['probabilities'][label][op] == max(architecture['probabilities'][label].values())
    costs = result['costs']
    assert costs == architecture['costs']
    network = freeze(NasBench201Space(4, 1, num_classes=3), result['architecture'])
    assert costs['parameters'] == sum(parameter.numel() for parameter in network.parameters())
    assert 0 < costs['latency_ms_quartiles'][0] <= costs['latency_ms'] <= costs['latency_ms_quartiles'][1]
    assert 'Found network' in printed and f'{costs["multiply_adds"]:,}' in printed
    supernet = Supernet.load(out / 'supernet.safetensors')
    assert supernet.class_names == ['class 0', 'class 1', 'class 2']
    assert supernet.history['licence'] == 'CC0-1.0'
    assert [p.name for p in (out / 'checkpoints').iterdir()] == ['last.ckpt']


@pytest.mark.slow
def test_a_supernet_is_the_source_of_the_next_search(folder):
    assert search(folder) == 0
    source = folder / 'out' / 'supernet.safetensors'
    assert search(folder, '--set', 'strategy.name=WarmStartDARTS', '--set', f'strategy.source={source}') == 0
    result = json.loads((folder / 'out' / 'result.json').read_text())
    assert result['source'] == 'nasbench201-shapes'
    assert result['warm_start']['share_inherited'] == 1.0


@pytest.mark.slow
def test_pictures_are_changed_at_random_where_asked_for(folder):
    losses = []
    for settings in ([], ['evaluator.crop=0.25'], ['evaluator.jitter=0.2'], ['evaluator.cutout=0.5'], ['data.flip=true']):
        assert search(folder, '--seed', '1', *(word for each in settings for word in ('--set', each))) == 0
        losses.append(json.loads((folder / 'out' / 'result.json').read_text())['curve'][0]['train_loss'])
    assert len(set(losses)) == len(losses)


@pytest.mark.slow
def test_same_seed_same_result(folder):
    curves = []
    for _ in range(2):
        assert search(folder, '--seed', '1') == 0
        result = json.loads((folder / 'out' / 'result.json').read_text())
        curves.append([[f[key] for key in ('default', 'train_loss', 'alpha_entropy')] for f in result['curve']])
    assert curves[0] == curves[1]


@pytest.mark.slow
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
    assert json.loads((folder / 'killed' / 'result.json').read_text())['architecture'] == results[0]['architecture']


@pytest.mark.slow
def test_a_new_run_in_an_old_folder_forgets_the_old_one(folder, monkeypatch):
    """Killed in its first epoch, it must not go on from the older run's checkpoint."""

    def killed(self, *_):
        raise KeyboardInterrupt

    other = ['--seed', '2', '--set', 'evaluator.learning_rate=0.01']
    assert search(folder, '--seed', '1') == 0
    with monkeypatch.context() as patched:
        patched.setattr(DartsSearchModule, 'training_step', killed)
        assert search(folder, *other) == 130
    assert not (folder / 'out' / 'result.json').exists()
    assert search(folder, *other, '--resume') == 0
    resumed = json.loads((folder / 'out' / 'result.json').read_text())
    shutil.rmtree(folder / 'out')
    assert search(folder, *other) == 0
    fresh = json.loads((folder / 'out' / 'result.json').read_text())
    assert [each['train_loss'] for each in resumed['curve']] == [each['train_loss'] for each in fresh['curve']]


@pytest.mark.slow
def test_a_run_that_cannot_start_leaves_the_old_one_alone(folder):
    assert search(folder) == 0
    assert search(folder, '--set', 'strategy={name: WarmStartDARTS, source: typo}') == 2
    assert search(folder, '--set', 'evaluator.max_epochs=3', '--resume') == 0
    assert len(json.loads((folder / 'out' / 'result.json').read_text())['curve']) == 3


@pytest.mark.slow
def test_a_stopped_search_does_not_go_on(folder, monkeypatch):
    """Killed between its last checkpoint and its results."""
    values = iter([1.0] * 6 + [3.0] * 4 + [0.5] * 10)
    monkeypatch.setattr(collapse, 'dominant_eigenvalue', lambda loss, alphas: next(values))
    guarded = ['--set', 'strategy.stop_on_eigenvalue=true', '--set', 'evaluator.max_epochs=12']
    guarded += ['--set', 'strategy.arc_learning_rate=0.5']
    assert search(folder, *guarded) == 0
    before = json.loads((folder / 'out' / 'result.json').read_text())
    weights = Supernet.load(folder / 'out' / 'supernet.safetensors')
    for name in ('result.json', 'architecture.json', 'supernet.safetensors'):
        (folder / 'out' / name).unlink()
    assert search(folder, *guarded, '--resume') == 0
    after = json.loads((folder / 'out' / 'result.json').read_text())
    assert len(after['curve']) == len(before['curve']) == 10
    assert after['architecture'] == before['architecture']
    assert Supernet.load(folder / 'out' / 'supernet.safetensors').key == weights.key


@pytest.mark.slow
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
    assert len(zoo) == 1  # the same search is not remembered twice
    assert search(folder, *settings, '--resume', '--set', 'evaluator.max_epochs=3') == 0
    assert len(zoo) == 1
    (entry,) = zoo.entries()
    assert len(entry.history['curve']) == 3
    assert search(folder, '--out', str(folder / 'again'), '--set', 'strategy.name=WarmStartDARTS', '--set',
                  f'strategy.save_to={zoo.root}') == 0  # fmt: skip
    assert len(zoo) == 2


@pytest.mark.slow
def test_a_killed_pretraining_resumes_to_the_same_supernet(folder, capsys):
    save_npz(folder / 'others.npz', n=30, classes=2)
    document = {
        'data': [{'npz': {'path': 'shapes.npz'}, 'flip': True}, {'npz': {'path': 'others.npz'}, 'weight': 2}],
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


@pytest.mark.slow
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


def test_the_page_of_a_report_has_a_name():
    assert make_parser().parse_args(['report', 'out']).out == Path('report.html')


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
    grey = (folder / 'my_spaces.py').read_text().replace('nn.Conv2d(3, 6', 'nn.Conv2d(1, 6').replace('OwnSpace', 'Grey')
    (folder / 'grey_spaces.py').write_text(grey)
    space = 'space={name: "grey_spaces:Grey", image_size: 8, in_channels: 1}'
    assert search(folder, '--set', space) == 0
    assert main(['retrain', '--config', str(folder / 'search.yml'), '--run', str(folder / 'out'), '--out',
                 str(folder / 'net'), '--set', space]) == 0  # fmt: skip


@pytest.mark.slow
def test_help_teaches():
    shown = subprocess.run(
        [sys.executable, '-m', 'nni_warmstart.cli', 'search', '--help'], capture_output=True, text=True, check=True
    ).stdout
    assert '--resume' in shown
    assert 'strategy.head=prototype' in shown


def test_exports_may_be_repeated_and_what_is_set_counts_beside_the_seed(tmp_path):
    (tmp_path / 'search.yml').write_text('seed: 1')
    command = ['run', '--config', str(tmp_path / 'search.yml'), '--out', 'out']
    arguments = make_parser().parse_args(
        [*command, '--export', 'pt2', '--export', 'onnx', '--seed', '3', '--set-network', 'seed=5']
    )
    assert arguments.export == ['pt2', 'onnx'] and make_parser().parse_args(command).export == []
    assert (document(arguments)['seed'], document(arguments, '--set-network')['seed']) == (3, 5)
