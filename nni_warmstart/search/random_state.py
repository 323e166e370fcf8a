"""Random state of a search: validation does not change it, and a resumed search draws the numbers that came next."""

from __future__ import annotations

import hashlib
import logging
import warnings
from typing import Any

import torch
from lightning_fabric.utilities.data import _set_sampler_epoch, sized_len
from lightning_fabric.utilities.types import _Stateful
from pytorch_lightning import Callback
from pytorch_lightning.utilities.model_helpers import is_overridden
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.data import DataLoader

from ..utils.random import random_state, set_random_state
from . import loops

_logger = logging.getLogger(__name__)

KEY = 'nni_warmstart.random'
"""Key of the random state in a checkpoint."""


def generators_of(trainer: Any) -> list[torch.Generator]:
    """Return the generators that users have passed to the data loaders of a trainer."""
    loaders: list[Any] = []
    for combined in (trainer.train_dataloader, trainer.val_dataloaders):
        tree_map_only(DataLoader, loaders.append, combined)
    found = [getattr(part, 'generator', None) for x in loaders for part in (x, x.sampler, x.batch_sampler)]
    return list({id(g): g for g in found if isinstance(g, torch.Generator)}.values())


class RandomState(Callback):
    """Restores the random generators after validation, and resumes a search where its checkpoint was saved.

    A checkpoint holds the place of the search (:mod:`nni_warmstart.search.loops`), the random state there, and what it takes
    to fetch the batches of an unfinished epoch again: the random states when its iterator was created, before the batches at
    which loaders draw an order, and before the last batches, some of which workers have fetched in advance.
    """

    @property
    def state_key(self) -> str:
        return KEY

    def __init__(self) -> None:
        self._trainer: Any = None
        self._forget()

    def _forget(self) -> None:
        self._state: dict[str, Any] = {}  # random state and place after the last hook of a batch, a validation or an epoch
        self._iterator: Any = None  # random state before the iterator of the epoch was created
        self._before: dict[int, Any] = {}  # random states before batches of the epoch were fetched
        self._batch: Any = None  # the last one
        self._sane: Any = None  # random state before the sanity check
        self._lengths: list[int] = []
        self._ahead = 0  # batches that are fetched in advance
        self._loaded: dict[str, Any] = {}  # state of the checkpoint, until the search is there
        self._max_steps: int | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), '_trainer': None}  # a copy of a module takes no trainer with it

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        self._forget()
        self._trainer = trainer

    # -- during a search ---------------------------------------------------------------------------------------------

    def begin_fit(self) -> None:
        """Note the random state with which loaders are made; in a resumed first epoch, restore it."""
        if not self._loaded:
            self._note(between_epochs=True)
        elif 'place' in self._loaded and loops.in_first_epoch(self._loaded['place']):
            self._set(self._loaded['iterator'])

    def on_sanity_check_start(self, trainer: Any, pl_module: Any) -> None:
        trainer.fit_loop.epoch_loop.val_loop.setup_data()  # which has the generators, and would follow now
        self._sane = self._now()

    def on_sanity_check_end(self, trainer: Any, pl_module: Any) -> None:
        self._set(self._sane)  # Lightning restores the global ones

    def begin_epoch(self) -> None:
        """Note the random state before Lightning creates the iterator of an epoch; it creates the first one earlier."""
        state, first = self._now(), self._trainer.current_epoch == 0
        self._iterator = self._state['random'] if first else state
        self._before = {0: state} if first else {}
        loaders = self._trainer.fit_loop._combined_loader.flattened
        lengths = [sized_len(loader) for loader in loaders]
        self._lengths = [length for length in lengths if length]
        workers = [(getattr(x, 'num_workers', 0) or 0) * (getattr(x, 'prefetch_factor', 0) or 0) for x in loaders]
        self._ahead = max(workers) + (None in lengths)  # Lightning fetches one in advance if it knows no length

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self._note(between_epochs=False)
        self._batch = batch
        over = loops.batches_over(self._state['place'])
        self._before[over] = self._state['random']
        gone = over - self._ahead - 2
        if gone > 0 and not any(gone % length == 0 for length in self._lengths):
            self._before.pop(gone, None)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        if not self._state or trainer.sanity_checking:
            return
        self._set(self._state['random'])
        self._state['place']['validated'] = True

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        self._limit_steps()

    def end_epoch(self) -> None:
        """Note the random state after the last hook of an epoch."""
        self._limit_steps()
        self._note(between_epochs=True)

    # -- checkpoints -------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        if not self._state:
            return {}
        state = self._state
        step, hooks = self.unfinished()
        if hooks:  # of a batch: they are not repeated
            state = {'random': self._now(), 'place': loops.place_of(self._trainer, between_epochs=False)}
        over = loops.batches_over(state['place'])
        return {
            'random': state['random'],
            'place': dict(state['place']),  # which changes after validation
            'unfinished': 'step' if step else 'hooks' if hooks else '',
            'iterator': self._iterator if over else state['random'],
            'before': {index: known for index, known in self._before.items() if index < over},
            'labels': _digest(self._batch) if over and not hooks else '',
        }

    def put_loops(self, checkpoint: dict[str, Any]) -> None:
        """Put the loops of a checkpoint where the search was, before Lightning restores them."""
        place = checkpoint.get('callbacks', {}).get(KEY, {}).get('place')
        if place is None:
            return
        loops.put(checkpoint['loops']['fit_loop'], place)
        max_steps = self._trainer.max_steps
        if 0 < max_steps <= checkpoint['global_step'] and not place['between_epochs']:
            self._max_steps = max_steps  # Lightning would leave out the end of the epoch
            self._trainer.fit_loop.epoch_loop.max_steps = checkpoint['global_step'] + 1

    def _limit_steps(self) -> None:
        if self._max_steps is not None:
            self._trainer.fit_loop.epoch_loop.max_steps = self._max_steps
            self._max_steps = None

    def unfinished(self) -> tuple[bool, bool]:
        """Check whether a training step is unfinished, and whether hooks of its batch are."""
        return loops.unfinished(self._trainer, self._state['place'])

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._loaded = dict(state_dict)

    def resume(self, pl_module: Any) -> None:
        """Go to where the checkpoint was saved, at the end of ``on_train_start``."""
        loaded, self._loaded = self._loaded, {}
        if not loaded:
            return
        trainer = self._trainer
        if 'place' not in loaded:  # earlier versions resumed between epochs only
            loops.begin_epoch(trainer)
            self._set(loaded['random'])
            self._note(between_epochs=True)
            return
        place, same = loaded['place'], True
        self._state = {'random': loaded['random'], 'place': place}
        if loops.batches_over(place):
            pl_module.on_train_epoch_start()  # which Lightning leaves out within an epoch
            self._iterator, self._before = loaded['iterator'], loaded['before']
            # of the loaders of torch, which give the same batches again
            warnings.filterwarnings('ignore', "You're resuming from a checkpoint that ended before the epoch ended")
            same = self._fetch_again(pl_module, loops.batches_over(place), loaded['labels'])
        loops.enter(trainer, place, no_step_left=self._max_steps is not None)
        if loaded['unfinished'] == 'hooks':
            pl_module.evaluation.update()
        if not loops.in_first_epoch(place) or loops.batches_over(place):
            self._set(loaded['random'])
        _warn(pl_module, loaded['unfinished'], same)

    def catch_up(self) -> None:
        """Restore the random state of a checkpoint that was saved after the last epoch, so that nothing was trained."""
        if self._loaded:
            self._set(self._loaded['random'])

    def _fetch_again(self, pl_module: Any, over: int, labels: str) -> bool:
        """Fetch the batches of the unfinished epoch that are over; return whether the last one has the labels of then."""
        trainer, loop = self._trainer, self._trainer.fit_loop
        fetcher, loaders, batch = loop._data_fetcher, loop._combined_loader.flattened, None
        if any(isinstance(loader, _Stateful) for loader in loaders):
            return True  # Lightning has restored them
        if trainer.current_epoch > 0:
            for loader in loaders:
                _set_sampler_epoch(loader, trainer.current_epoch)
            self._set(self._iterator)
            iter(fetcher)
        for index in range(over):
            if index in self._before:
                self._set(self._before[index])
            batch, *_ = next(fetcher, (None,))
        fetcher.fetched = 0  # Lightning adds those of the checkpoint
        if not labels:
            return True
        batch = trainer.precision_plugin.convert_input(batch)
        batch = pl_module._on_before_batch_transfer(batch, dataloader_idx=0)
        self._batch = trainer.strategy.batch_to_device(batch, dataloader_idx=0)
        return _digest(self._batch) == labels

    def _now(self) -> Any:
        return random_state(generators_of(self._trainer))

    def _set(self, state: Any) -> None:
        set_random_state(state, generators_of(self._trainer))

    def _note(self, *, between_epochs: bool) -> None:
        self._state = {'random': self._now(), 'place': loops.place_of(self._trainer, between_epochs=between_epochs)}


def _warn(pl_module: Any, unfinished: str, same: bool) -> None:
    """Say why a resumed search may not be equal to the bit."""
    reasons = []
    if unfinished == 'step':
        reasons.append('its checkpoint was saved within a training step, which is repeated')
    if unfinished == 'hooks' and is_overridden('on_train_batch_end', pl_module.training_module):
        reasons.append('its checkpoint was saved before on_train_batch_end of the evaluator, which is left out')
    if not same:
        reasons.append('its loaders do not give the batches of the unfinished epoch again')
    if reasons:
        _logger.warning('The resumed search may differ from one that was not interrupted: %s.', '; '.join(reasons))


def _digest(batch: Any) -> str:
    """Return a checksum of the integers in a batch: labels and indices, which no augmentation changes; '' without any."""
    whole = [x for x in tree_leaves(batch) if isinstance(x, Tensor) and not x.is_floating_point() and not x.is_complex()]
    content = hashlib.sha256()
    for tensor in whole:
        content.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return content.hexdigest() if whole else ''
