"""Import, load, save and a warm search of two epochs: run by ``make test-all`` and ``make test-oldest``."""

from __future__ import annotations

import json
import platform
import tempfile
from importlib.metadata import version
from pathlib import Path

import torch
import yaml

from nni_warmstart import Supernet
from nni_warmstart.cli import main
from nni_warmstart.zoo.zoo import open_zoo

SETTINGS = {
    'data': {'name': 'digits'},
    'space': {'name': 'nasbench201', 'width': 8, 'depth': 1, 'image_size': 16},
    'evaluator': {'max_epochs': 2, 'batch_size': 64, 'learning_rate': 0.05},
    'strategy': {'name': 'WarmStartDARTS', 'source': 'nasbench201-w8-braille'},
}


def smoke(folder: Path) -> None:
    entry = open_zoo(None)['nasbench201-w8-braille']
    entry.save(folder / 'copy.safetensors')
    copy = Supernet.load(folder / 'copy.safetensors')
    assert all(torch.equal(tensor, copy.tensors[name]) for name, tensor in entry.tensors.items())
    (folder / 'search.yml').write_text(yaml.safe_dump(SETTINGS))
    command = ['search', '--config', str(folder / 'search.yml'), '--out', str(folder / 'out')]
    assert main([*command, '--set', 'evaluator.max_epochs=1']) == 0
    assert main([*command, '--resume']) == 0  # reads a Lightning checkpoint as data
    result = json.loads((folder / 'out' / 'result.json').read_text())
    assert len(result['curve']) == 2
    assert result['warm_start']['share_inherited'] == 1.0
    assert result['final']['test_accuracy'] > 0.8, result['final']
    assert main(['zoo', 'list']) == 0


if __name__ == '__main__':
    with tempfile.TemporaryDirectory() as out:
        smoke(Path(out))
    packages = ('torch', 'torchvision', 'pytorch-lightning', 'torchmetrics', 'nni', 'numpy')
    print(f'Python {platform.python_version()}: works with {", ".join(f"{name} {version(name)}" for name in packages)}')
