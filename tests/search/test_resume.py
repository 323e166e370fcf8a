"""A search is resumed from a checkpoint of any kind, saved at any moment: it ends as one that was not interrupted."""

from __future__ import annotations

import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import resumed
from helpers.resumed import Augmented, Module, differences, outcome, search
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pytorch_lightning import Callback
from pytorch_lightning.callbacks import EarlyStopping, EMAWeightAveraging, ModelCheckpoint, OnExceptionCheckpoint

from nni_warmstart import WarmStartDARTS, WarmStartGumbelDARTS, WarmStartProxyless

EVERY_BATCH = {'every_n_train_steps': 1, 'save_top_k': -1, 'filename': '{epoch}-{step}'}
"""A batch has two steps of optimizers, so that this saves behind each."""


class Everywhere(Callback):
    """Saves a checkpoint in hooks of its own, of which ModelCheckpoint uses some only."""

    HOOKS = (
        'on_train_start', 'on_train_epoch_start', 'on_train_batch_start', 'on_train_batch_end', 'on_validation_start',
        'on_validation_epoch_end', 'on_validation_end', 'on_train_epoch_end', 'on_train_end',
    )  # fmt: skip

    def __init__(self, folder: Path) -> None:
        self.folder, self.count = folder, 0

    def save(self, trainer: Any, hook: str) -> None:
        if not trainer.sanity_checking:
            trainer.save_checkpoint(self.folder / f'{self.count:03d}-{hook}.ckpt')
            self.count += 1


def _saves(hook: str) -> Any:
    return lambda self, trainer, *rest: self.save(trainer, hook)


for _hook in Everywhere.HOOKS:
    setattr(Everywhere, _hook, _saves(_hook))


def average() -> WarmStartDARTS:
    return WarmStartDARTS(average=1.0)


def resume_from_all(
    tmp_path: Path, callbacks: list[Callback], make=average, others=list, some=slice(None), **settings
) -> Any:
    """Search once, resume from each checkpoint that was saved, and compare; returns the one that was not interrupted."""
    whole = search(make(), tmp_path, *callbacks, *others(), **settings)
    expected, seen = outcome(whole), whole.oneshot_module.training_module.seen
    files = sorted(tmp_path.glob('**/*.ckpt'), key=lambda path: path.stat().st_mtime_ns)[some]
    assert files
    for file in files:
        again = search(make(), tmp_path / 'again', *others(), resume=file, **settings)
        assert differences(expected, outcome(again)) == [], file.name
        labels = again.oneshot_module.training_module.seen
        assert labels == seen[len(seen) - len(labels) :]
    return whole


@pytest.mark.parametrize(
    'settings',
    [
        {'save_on_train_epoch_end': False},
        {'every_n_train_steps': 6},
        {'save_last': True, 'save_on_train_epoch_end': True},
        {'save_last': True, 'train_time_interval': timedelta(0)},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_a_checkpoint_of_lightning(tmp_path, settings):
    whole = resume_from_all(tmp_path, [ModelCheckpoint(tmp_path, '{epoch}-{step}', save_top_k=-1, **settings)])
    assert len(whole.curve) == 2


def test_a_checkpoint_behind_the_last_batch_of_an_epoch(tmp_path):
    whole = resume_from_all(tmp_path, [ModelCheckpoint(tmp_path, **EVERY_BATCH)], some=slice(4, None, 5))
    assert whole.oneshot_module.trainer.num_training_batches == 5
    assert len(whole.curve) == 2


@pytest.mark.slow
@pytest.mark.parametrize('workers', [0, 2])
@pytest.mark.parametrize('kind', ['shuffled', 'of this package', 'lazy', 'generator', 'by epoch', 'stream'])
def test_the_batches_of_an_unfinished_epoch_come_in_the_same_order(tmp_path, caplog, kind, workers):
    some = slice(None) if workers == 0 else slice(2, None, 5)
    resume_from_all(tmp_path, [ModelCheckpoint(tmp_path, **EVERY_BATCH)], kind=kind, workers=workers, some=some)
    assert 'may differ' not in caplog.text


def test_loaders_with_a_state_of_their_own(tmp_path, caplog):
    resume_from_all(tmp_path, [ModelCheckpoint(tmp_path, **EVERY_BATCH)], kind='stateful')
    assert 'may differ' not in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize(
    'settings',
    [
        {},
        {'val_check_interval': 0.5},
        {'val_check_interval': 3, 'check_val_every_n_epoch': None},
        {'check_val_every_n_epoch': 2},
        {'limit_train_batches': 3},
        {'max_epochs': -1, 'max_steps': 20},
        {'max_epochs': -1, 'max_steps': 14},
        {'reload_dataloaders_every_n_epochs': 1},
    ],
    ids=str,
)
def test_a_checkpoint_that_is_saved_in_any_hook(tmp_path, monkeypatch, settings):
    monkeypatch.delattr(Module, 'on_train_batch_end')  # which the next test is about
    resume_from_all(tmp_path, [Everywhere(tmp_path)], some=slice(None, None, 2), **settings)


@pytest.mark.slow
@settings(max_examples=12, deadline=None)
@given(
    kind=st.sampled_from(['shuffled', 'lazy', 'generator', 'by epoch', 'stream']),
    n=st.integers(16, 40),
    validation=st.sampled_from([{}, {'val_check_interval': 0.5}, {'check_val_every_n_epoch': 2}, {'limit_val_batches': 1}]),
    steps=st.sampled_from([-1, 12, 17]),
    batch=st.integers(0, 100),
    makes=st.sampled_from([WarmStartDARTS, WarmStartGumbelDARTS, WarmStartProxyless]),
)
def test_any_batch_of_any_search(kind, n, validation, steps, batch, makes):
    if kind == 'stream':
        validation = {key: 2 if key == 'val_check_interval' else value for key, value in validation.items()}
    assume(steps < 0 or 'check_val_every_n_epoch' not in validation)  # it would never validate
    with tempfile.TemporaryDirectory() as folder:
        saves = ModelCheckpoint(folder, **EVERY_BATCH)
        options = {'kind': kind, 'n': n, 'max_steps': steps, **validation}
        whole = outcome(search(makes(average=1.0), Path(folder), saves, **options))
        files = sorted(Path(folder).glob('*.ckpt'), key=lambda path: path.stat().st_mtime_ns)
        again = search(makes(average=1.0), Path(folder, 'again'), resume=files[batch % len(files)], **options)
        assert differences(whole, outcome(again)) == []


def test_a_checkpoint_before_the_last_hook_of_the_evaluator(tmp_path, caplog):
    search(average(), tmp_path, Everywhere(tmp_path))
    for hook, warns in (('on_train_batch_end', True), ('on_train_batch_start', False)):
        caplog.clear()
        search(average(), tmp_path / 'again', resume=next(tmp_path.glob(f'*{hook}.ckpt')))
        assert ('before on_train_batch_end of the evaluator, which is left out' in caplog.text) == warns


def test_loaders_that_do_not_give_the_same_batches_again(tmp_path, caplog, monkeypatch):
    search(average(), tmp_path, ModelCheckpoint(tmp_path, **EVERY_BATCH))
    later = next(tmp_path.glob('epoch=1*.ckpt'))
    made = resumed.loaders
    monkeypatch.setattr(resumed, 'loaders', lambda kind, *rest: made('by epoch', *rest))
    search(average(), tmp_path / 'again', resume=later)
    assert 'its loaders do not give the batches of the unfinished epoch again' in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize(
    ('strategy', 'settings', 'others'),
    [
        (WarmStartGumbelDARTS, {'temperature': 2.0}, list),
        (WarmStartProxyless, {}, list),
        (WarmStartDARTS, {'warmup_epochs': 1, 'stop_on_eigenvalue': True}, list),
        (WarmStartDARTS, {'fast': True}, list),
        (WarmStartDARTS, {'average': 0.0}, lambda: [EMAWeightAveraging(decay=0.8)]),
    ],
    ids=['GumbelDARTS', 'Proxyless', 'warm-up and curvature', 'fast', 'Lightning averages'],
)
def test_every_strategy(tmp_path, strategy, settings, others):
    settings = {'average': 1.0, 'refit_head': True, 'arc_learning_rate': 0.1, **settings}
    after_validation = ModelCheckpoint(tmp_path / 'validation', save_on_train_epoch_end=False)
    at_the_end = ModelCheckpoint(tmp_path / 'end', save_on_train_epoch_end=True, mode='max')  # another key for its state
    saves = [ModelCheckpoint(tmp_path, **EVERY_BATCH), after_validation, at_the_end]
    resume_from_all(tmp_path, saves, lambda: strategy(**settings), others)


def test_a_search_that_was_stopped_stays_stopped(tmp_path):
    def stops() -> list[Callback]:
        return [EarlyStopping('val_loss', mode='max', min_delta=100, patience=2)]

    ends = [ModelCheckpoint(tmp_path / str(end), '{epoch}', save_top_k=-1, save_on_train_epoch_end=end, mode=mode)
            for end, mode in ((False, 'min'), (True, 'max'))]  # fmt: skip
    whole = resume_from_all(tmp_path, ends, others=stops, max_epochs=6)
    assert len(whole.curve) == 3


@pytest.mark.parametrize(
    'threshold', [{'stopping_threshold': 1e9}, {'divergence_threshold': 1e-9}, {'check_finite': True, 'monitor': 'odd'}]
)
def test_a_search_that_a_threshold_has_stopped_stays_stopped(tmp_path, monkeypatch, threshold):
    monkeypatch.setattr(Module, 'on_train_epoch_start', lambda self: self.log('odd', float('nan')))

    def stops() -> list[Callback]:
        return [EarlyStopping(**{'monitor': 'val_loss', 'patience': 9, **threshold})]

    ends = ModelCheckpoint(tmp_path, '{epoch}', save_top_k=-1, save_on_train_epoch_end=True)
    whole = resume_from_all(tmp_path, [ends], others=stops, max_epochs=4)
    assert len(whole.curve) == 1


def test_gradients_that_an_evaluator_accumulates_are_in_the_checkpoint(tmp_path, monkeypatch):
    def zero_grad(self, epoch, batch_idx, optimizer) -> None:
        if batch_idx % 2 == 0:
            optimizer.zero_grad()

    monkeypatch.setattr(Module, 'optimizer_zero_grad', zero_grad)
    resume_from_all(tmp_path, [ModelCheckpoint(tmp_path, **EVERY_BATCH)])


class Stop(Exception):
    """Ends a search."""


class User(Callback):
    """A user's own callback, in whose hooks exceptions are raised."""

    def on_train_epoch_start(self, *args) -> None: ...

    def on_train_batch_start(self, *args) -> None: ...

    def on_train_batch_end(self, *args) -> None: ...

    def on_validation_start(self, *args) -> None: ...

    def on_validation_batch_end(self, *args) -> None: ...

    def on_validation_epoch_end(self, *args) -> None: ...

    def on_validation_end(self, *args) -> None: ...

    def on_train_epoch_end(self, *args) -> None: ...

    def on_train_end(self, *args) -> None: ...


def raising(monkeypatch: pytest.MonkeyPatch, cls: type, name: str, call: int, after: bool = False) -> None:
    """Raise an exception at one call of a method, before or after it."""
    method, calls = getattr(cls, name), []

    def raises(*args, **kwargs):
        calls.append(name)
        if len(calls) == call and not after:
            raise Stop
        result = method(*args, **kwargs)
        if len(calls) == call:
            raise Stop
        return result

    monkeypatch.setattr(cls, name, raises)


PLACES = [
    *((Module, 'training_step', call, after) for call in (1, 2, 10, 11) for after in (False, True)),
    *((Module, 'on_validation_epoch_start', call, True) for call in (1, 2)),
    *((Module, name, 1, after) for name in ('on_train_epoch_start', 'on_train_epoch_end') for after in (False, True)),
    *((Module, 'on_train_batch_end', call, True) for call in (1, 5)),
    *((User, name, call, False) for name in vars(User) if name.startswith('on_') for call in (1, 2)),
    *((Augmented, '__getitem__', call, False) for call in (1, 5, 30, 70)),
    (torch.optim.SGD, 'step', 3, True),
    (torch.optim.Adam, 'step', 3, True),
]


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['OnExceptionCheckpoint', 'save_on_exception'])
def test_a_checkpoint_of_an_exception(tmp_path, kind):
    settings = {'val_check_interval': 0.5}
    expected = outcome(search(average(), tmp_path, **settings))
    places, resumed_from = PLACES if kind == 'OnExceptionCheckpoint' else PLACES[3::3], []
    for number, place in enumerate(places):
        folder = tmp_path / str(number)
        if kind == 'OnExceptionCheckpoint':
            saves: Callback = OnExceptionCheckpoint(folder)
        else:
            saves = ModelCheckpoint(folder, save_on_exception=True, every_n_epochs=100)
        with pytest.MonkeyPatch.context() as patched:
            raising(patched, *place)
            try:
                search(average(), folder, User(), saves, **settings)
            except Stop:
                pass
            else:
                assert place[:3] == (User, 'on_train_end', 2)
                continue
        files = list(folder.glob('*.ckpt'))
        assert files or kind == 'save_on_exception'  # which saves nothing before the first step
        for file in files:
            again = search(average(), folder / 'again', User(), resume=file, **settings)
            assert differences(expected, outcome(again)) == [], place
            resumed_from.append(place)
    assert len(resumed_from) >= len(places) - 5
