"""Wrong input at the command line: one clear line, and status 2."""

from __future__ import annotations

import json
import os

import pytest
import torch
import yaml
from helpers.commands import search
from helpers.tiny import SMALL

from nni_warmstart.cli import main
from nni_warmstart.runs.config import parse_search


@pytest.mark.slow
@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ('data.nmae=digits', 'key data.nmae is unknown; did you mean name?'),
        ('data={name: letters}', "data.name = 'letters' is unknown; the embedded task is 'digits'"),
        (
            'data={}',
            'data must have exactly one of name, npz, folder, torchvision, huggingface, webdataset, python; it has none',
        ),
        ('data={name: digits, npz: {path: a}}', 'it has name, npz'),
        ('data.npz.path=nowhere.npz', 'nowhere.npz does not exist'),
        ('data.weight=2', 'key data.weight is unknown'),
        ('data.npz.path=3', 'data.npz.path = 3, but it must be a path'),
        ('data={torchvision: {root: x}}', 'data.torchvision.name is missing'),
        ('evaluator.epochs=3', 'key evaluator.epochs is unknown; did you mean max_epochs?'),
        ('space.name=nasbench20', 'or give your own as package.module:Class. Did you mean nasbench201?'),
        ('space.name=MobilNetV3Space', 'Did you mean MobileNetV3Space?'),
        ('data.npz.path=search.yml', 'search.yml cannot be read as npz: File is not a zip file; write it with numpy.savez.'),
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
        ('space.widht=4', 'Did you mean width?'),
        ('space.width=wide', 'space nasbench201 cannot be built'),
        ('space={name: DARTS, width: 4, num_cells: 3}', 'always has 10 classes, and the data have 3; use the space "darts"'),
        ('space.image_size=1', 'images of 3 channels and 1 x 1 pixels do not go through NasBench201Space'),
        ('strategy.name=ENAS', "strategy.name = 'ENAS' is unknown; known are DARTS, GumbelDARTS"),
        ('strategy.souce=x', 'key strategy.souce is unknown; did you mean source?'),
        ('strategy={name: WarmStartDARTS, source: nothing}', "source = 'nothing' is neither a file nor an entry of"),
        ('strategy={name: WarmStartDARTS, source: nerest}', 'Did you mean nearest?'),
        ('strategy={name: WarmStartDARTS, source: auto, zoo: nowhere}', 'nowhere does not exist; zoos are folders or URLs'),
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
        ('evaluator.max_epochs=2024-13-45', 'the value is not YAML'),
        ('seed=!!bool x', 'the value is not YAML'),
        ('evaluator.weight_decay=3-e4', "evaluator.weight_decay = '3-e4', but it must be a number"),
        ('space.image_size=0', 'space.image_size = 0, but it must be a whole number, 1 or more'),
        ('space.image_size=[64, 48]', '[64, 48], but it must be a whole number, 1 or more, at most'),
        ('space.image_size=[64, 48]', 'Images become squares of that size, whatever shape they have.'),
        ('space.image_size=big', "space.image_size = 'big', but it must be a whole number"),
        ('space.in_channels=x', "space.in_channels = 'x', but it must be a whole number"),
        ('space.width=-8', 'space.width = -8, but it must not be negative'),
        ('space.width=0', 'has layers without any weights; make its width 1 or more'),
        ('space.depth=0', 'has nothing to choose'),
        ('space.num_classes=7', 'space.num_classes = 7, but the data tell how many classes; leave it out'),
        (
            'space={name: darts, width: 4, num_cells: 3, image_size: 8, drop_path_prob: 2}',
            'images do not go through the supernet of DartsSpace in training (bernoulli_',
        ),
        ('space.name=:C', "space.name = ':C' cannot be imported"),
        ('evaluator.max_epochs=.inf', 'evaluator.max_epochs = inf, but it must be a whole number'),
        ('strategy={name: WarmStartDARTS, noise: null}', 'strategy.noise = None, but it must be a number'),
        ('strategy={name: WarmStartDARTS, alpha: [1]}', 'alpha = [1], but it must be from 0 to 1'),
        ('strategy={name: WarmStartDARTS, zoo: 5}', 'strategy.zoo = 5, but it must be text'),
        ('strategy={name: DARTS, log_prob_every_n_step: 0}', 'strategy.log_prob_every_n_step = 0, but it must be 1 or more'),
        ('strategy={name: DARTS, penalty: {}}', 'strategy.penalty = {}, but it must be {cost: parameters | multiply_adds'),
        ('strategy={name: DARTS, penalty: 5}', 'strategy.penalty = 5, but it must be {cost: parameters | multiply_adds'),
        (
            'strategy={name: DARTS, penalty: {cost: flops, target: 1}}',
            "strategy.penalty.cost = 'flops' is unknown; choose one",
        ),
        ('strategy={name: DARTS, penalty: {cost: latency, target: 0}}', 'strategy.penalty.target = 0'),
        ('strategy={name: DARTS, penalty: {cost: latency, target: 1, weight: -1}}', 'strategy.penalty.weight = -1'),
        ('strategy={name: DARTS, penalty: {cost: latency, target: 1, scale: 1}}', 'key strategy.penalty.scale is unknown'),
        ('data={torchvision: {name: MNIST, root: 5}}', 'data.torchvision.root = 5, but it must be text'),
    ],
)
def test_wrong_settings_give_one_line(folder, capsys, change, message):
    assert search(folder, '--set', change) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert error[-1].startswith('error: ')
    assert message in error[-1]
    assert error[-1].endswith(('.', '?')) and not error[-1].endswith('?.')


@pytest.mark.slow
def test_numbers_may_be_written_as_the_field_does(folder):
    """YAML 1.1 takes 3e-4 for text."""
    assert search(folder, '--set', 'evaluator.weight_decay=3e-4') == 0
    settings = json.loads((folder / 'out' / 'settings.json').read_text())
    assert settings['evaluator']['weight_decay'] == 3e-4
    of_strategy = {'arc_learning_rate': '3e-4', 'noise': '1e-3', 'average': '5e-1', 'warmup_epochs': 2.0, 'alpha': '5e-1'}
    document = {'data': {'name': 'digits'}, 'strategy': {'name': 'WarmStartDARTS', **of_strategy}}
    arguments = parse_search(document, folder).strategy.arguments
    assert arguments == {'arc_learning_rate': 3e-4, 'noise': 1e-3, 'average': 0.5, 'warmup_epochs': 2, 'alpha': 0.5}
    assert isinstance(arguments['warmup_epochs'], int)


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


@pytest.mark.slow
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


@pytest.mark.slow
def test_checkpoints_that_do_not_fit(folder, capsys):
    assert search(folder) == 0
    assert search(folder, '--resume', '--set', 'space.width=8') == 2
    assert 'has space.width = 4 and should go on with 8' in capsys.readouterr().err
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
