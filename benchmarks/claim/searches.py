"""Searches of the claim, cold and warm: one run, what all share, and which sources it may start from."""

from __future__ import annotations

import functools
import hashlib
import random
import shutil
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.space import RawFormatModelSpace
from nni.nas.strategy import DARTS
from pytorch_lightning import seed_everything

from benchmarks.common.searches import arguments_of, part
from nni_warmstart import SupernetZoo, WarmStartDARTS
from nni_warmstart.data import Splits, Task, split
from nni_warmstart.errors import ZooError
from nni_warmstart.evaluators.classification import classification
from nni_warmstart.evaluators.trainer import make_trainer
from nni_warmstart.nni_adapter.model_spaces import create, input_of, resolve
from nni_warmstart.search import alpha_rate
from nni_warmstart.zoo.ranking import rank
from nni_warmstart.zoo.zoo import open_zoo

SPACE = {'name': 'nasbench201', 'width': 16, 'depth': 1, 'image_size': 32, 'stem_stride': 2}
PICTURES = 1000
EPOCHS = 20
"""Epochs of every search, cold or warm."""
SETTINGS = {'batch_size': 32, 'learning_rate': 0.05, 'weight_decay': 3e-4, 'crop': 0.125}
CLIP = 5.0
"""Gradients are clipped to it in every search, cold or warm; the rest is as in DARTS: SGD, cosine rate, random crops."""
TUNING = ['kannada_digits', 'plant_seedlings', 'sign_digits', 'chest_xray3']
"""Tasks on which rates and recipes were tried; not reported unless they are named."""
FAMILIES = {
    'handwritten digits': ['mnist', 'usps', 'digits8x8', 'kannada_digits'],
    'Omniglot': ['omniglot_greek', 'omniglot_katakana', 'omniglot_korean', 'omniglot_latin', 'omniglot_sanskrit'],
    'CIFAR-10': ['cifar10', 'cifar10_16k'],
    'Tiny ImageNet': ['tinyimagenet_animals', 'tinyimagenet_things'],
    'clothing': ['fashion_mnist', 'clothing'],
    'blood cells': ['blood_cells', 'white_cells'],
}
"""Datasets that are kin; the strict table starts from sources without any of the target's."""
SAME = {'cifar10_16k': 'cifar10'}
"""Datasets of which another is a part."""


@dataclass(frozen=True)
class Run:
    """One search: ``side`` says from what, ``source`` what was chosen before."""

    task: str
    seed: int
    side: str
    source: str | None = None

    key: ClassVar = ('task', 'seed', 'side')


@dataclass(frozen=True)
class Setting:
    """What all runs share."""

    data: Path
    zoo: str | None
    space: dict[str, Any]
    pictures: int
    out: Path
    controls: str | None = None
    series: str | None = None
    epochs: int = EPOCHS

    @property
    def names(self) -> list[str]:
        """Tasks in the folder of the data."""
        return [path.stem for path in self.data.glob('*.npz')]

    @property
    def is_claim(self) -> bool:
        """Whether epochs and images are those of the claim."""
        return (self.epochs, self.pictures) == (EPOCHS, PICTURES)

    @functools.cached_property
    def recipe(self) -> str:
        """Identity of what is measured; runs of another one are left alone."""
        zoo = sorted((entry.name, entry.key) for entry in open_zoo(self.zoo).entries())
        parts = (zoo, self.space, self.pictures, self.epochs, SETTINGS, CLIP, alpha_rate.TRAVEL, alpha_rate.LARGEST)
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:12]


SIDES: dict[str, dict[str, Any]] = {
    'cold': {},
    'warm': {'source': 'auto'},
    'strict': {'source': 'auto'},
    'cold, no crops': {},
    'cold, averaged': {'average': 1.0},
    'not averaged': {'average': 0.0},
    'plain copy': {'keep': 1.0, 'head': 'random', 'average': 0.0, 'arc_learning_rate': alpha_rate.NNIS},
    'random source': {},
    'farthest source': {},
    'alphas only': {'keep': 0.0, 'head': 'random'},
    'weights only': {'alpha': 'reset'},
}
"""Arguments of the strategy. Without a source it is NNI's DARTS; the controls after the strict side take the source that the
warm side took, but for those named after theirs."""
OWN_SOURCE = ('random source', 'farthest source')
"""Controls that choose theirs among the zoo of the controls."""
CHANGES = {'cold, no crops': {'crop': 0.0}}
"""Settings of the evaluator that differ: without crops some cold searches end higher."""
FIRST = list(SIDES)[:5]


def search(run: Run, setting: Setting) -> dict[str, Any]:
    """One search; the row that goes into the file."""
    task = load(setting, run.task)
    seed_everything(run.seed, workers=True, verbose=False)
    space, splits = space_of(setting, task), split(task)
    row: dict[str, Any] = {**asdict(run), 'classes': task.num_classes, 'pictures': len(task.train_y)}
    if setting.series is not None:
        row['series'] = setting.series
    if run.side.startswith('cold'):
        strategy = WarmStartDARTS(gradient_clip_val=CLIP, **SIDES[run.side])
    else:
        of = replace(setting, zoo=setting.controls or setting.zoo) if run.side in OWN_SOURCE else setting
        zoo = zoo_of(of, sources(of, run.task, strict=run.side == 'strict'))
        arguments = {'source': chosen(run, zoo, splits.train), **SIDES[run.side]}
        strategy = WarmStartDARTS(gradient_clip_val=CLIP, zoo=zoo, **arguments)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as out:
        strategy(
            RawFormatModelSpace(space, evaluator(task, splits, out, setting.epochs, **CHANGES.get(run.side, {}))),
            SequentialExecutionEngine(),
        )
    row |= {
        'curve': [round(figures['default'], 5) for figures in strategy.curve],
        'epoch_seconds': [round(figures['epoch_seconds'], 3) for figures in strategy.curve],
        'seconds': round(time.perf_counter() - start, 2),
        'test_accuracy': strategy.oneshot_module.final.get('test_accuracy'),
        'architecture': strategy.oneshot_module.samples[-1],
        'architecture_quarter': strategy.oneshot_module.samples[setting.epochs // 4 - 1],
    }
    if strategy.report is not None:
        row |= {
            'source': strategy.report.source,
            'zero_shot': strategy.report.zero_shot_accuracy,
            'start_seconds': {key: round(value, 3) for key, value in strategy.report.seconds.items()},
        }
    elif run.side == 'cold' and setting.is_claim and run.seed == 0 and run.task == min(setting.names):
        row['equals_upstream'] = equals_upstream(run, setting, strategy.supernet)
    return row


def equals_upstream(run: Run, setting: Setting, supernet: torch.nn.Module) -> bool:
    """Whether NNI's own, untouched DARTS ends with the same weights and alphas, to the bit."""
    task = load(setting, run.task)
    seed_everything(run.seed, workers=True, verbose=False)
    space = space_of(setting, task)
    theirs = DARTS(gradient_clip_val=CLIP)
    with tempfile.TemporaryDirectory() as out:
        theirs(RawFormatModelSpace(space, evaluator(task, split(task), out, setting.epochs)), SequentialExecutionEngine())
    mine = supernet.state_dict()
    return all(torch.equal(tensor, mine[name]) for name, tensor in theirs.supernet.state_dict().items())


def space_of(setting: Setting, task: Task) -> Any:
    return create(setting.space['name'], arguments_of(setting.space), task.num_classes)


def evaluator(task: Task, splits: Splits, out: str, epochs: int = EPOCHS, **changes: Any) -> Any:
    trainer = make_trainer(epochs, out, progress=False)
    return classification(splits, task.num_classes, trainer, **{**SETTINGS, **changes})


def load(setting: Setting, name: str) -> Task:
    """A part of a task, in the form that the space takes."""
    form = input_of(resolve(setting.space['name']), arguments_of(setting.space))
    return part(setting.data, name, setting.pictures).adapted(*form)


def kin(name: str) -> set[str]:
    """Datasets of a name's family."""
    return {name}.union(*(members for members in FAMILIES.values() if name in members))


def sources(setting: Setting, target: str, *, strict: bool) -> list[str]:
    """Supernets of the zoo that have not seen the target's dataset, or, strictly, any of its family."""
    forbidden = kin(target) if strict else {target, *(name for name, part in SAME.items() if part == target)}
    return [name for name, seen in trained_on(setting.zoo, setting.space['name']).items() if not forbidden & seen]


@functools.cache
def trained_on(zoo: str | None, space: str) -> dict[str, set[str]]:
    """Supernets of a space -> the datasets that they were trained on."""
    entries = [entry for entry in open_zoo(zoo).entries() if entry.space.get('name') == space]
    return {entry.name: {*entry.datasets, entry.dataset or ''} for entry in entries}


def zoo_of(setting: Setting, names: list[str]) -> SupernetZoo:
    """A zoo of these entries only."""
    if not names:
        raise ZooError(f'{open_zoo(setting.zoo).root} has no supernet of {setting.space["name"]} that may be its source.')
    folder = setting.out / '.zoos' / hashlib.sha256(repr((setting.recipe, names)).encode()).hexdigest()[:12]
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        copy = Path(tempfile.mkdtemp(dir=folder.parent))
        for name in names:
            shutil.copy(open_zoo(setting.zoo).path(name), copy)
        try:
            copy.rename(folder)
        except OSError:  # another process was faster
            shutil.rmtree(copy)
    return SupernetZoo(folder)


def chosen(run: Run, zoo: SupernetZoo, pictures: Any) -> Any:
    """Source of a control."""
    if run.side == 'random source':
        return random.Random(run.seed).choice(zoo.names())
    if run.side == 'farthest source':
        return rank(list(zoo.entries()), pictures)[-1].name
    return run.source.split(' + ') if run.source else None
