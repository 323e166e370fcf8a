"""Random state of a search: validation does not change it, and a resumed search draws the numbers that came next."""

from __future__ import annotations

import logging
from typing import Any

import torch
from lightning_fabric.utilities.data import sized_len
from pytorch_lightning import Callback
from pytorch_lightning.utilities.model_helpers import is_overridden
from torch.utils._pytree import tree_map_only
from torch.utils.data import DataLoader

from ..utils.random import random_state, set_random_state
from . import loops
from .refetching import are_restored, checksum, fetch_again

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
        self._limits: tuple[int | None, int] | None = None  # epochs and steps of the run, while the loops are to be entered

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
        elif 'place' in self._loaded:
            self._limits = loops.let_in(self._trainer, self._loaded['place'], self._loaded['steps'])
            if loops.in_first_epoch(self._loaded['place']):
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
        if not trainer.sanity_checking:
            self._limit()

    def end_epoch(self) -> None:
        """Note the random state after the last hook of an epoch."""
        self._limit()
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
            'steps': self._trainer.global_step,
            'metrics': {name: float(value) for name, value in self._trainer._logger_connector._callback_metrics.items()},
            'unfinished': 'step' if step else 'hooks' if hooks else '',
            'iterator': self._iterator if over else state['random'],
            'before': {index: known for index, known in self._before.items() if index < over},
            'labels': checksum(self._batch) if over and not hooks else '',
        }

    def put_loops(self, checkpoint: dict[str, Any]) -> None:
        """Put the loops of a checkpoint where the search was, before Lightning restores them."""
        place = checkpoint.get('callbacks', {}).get(KEY, {}).get('place')
        if place is not None:
            loops.put(checkpoint['loops']['fit_loop'], place)

    def _limit(self) -> None:
        if self._limits is not None:
            loops.limit(self._trainer, *self._limits)
            self._limits = None

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
        trainer.callback_metrics.update(
            {name: torch.tensor(value, device=pl_module.device) for name, value in loaded['metrics'].items()}
        )
        nothing_left = loops.stopped(trainer, place) or self._limits is not None
        self._state = {'random': loaded['random'], 'place': place}
        if place['between_epochs'] and nothing_left and not loops.in_first_epoch(place):
            with loops.last_epoch(trainer):
                pl_module.on_train_epoch_start()  # what it sets is in use until the end
        if loops.batches_over(place):
            pl_module.on_train_epoch_start()  # which Lightning leaves out within an epoch
            self._iterator, self._before = loaded['iterator'], loaded['before']
            if not are_restored(trainer):
                self._batch = fetch_again(pl_module, loops.batches_over(place), self._iterator, self._before, self._set)
                same = loaded['labels'] in ('', checksum(self._batch))
        loops.enter(trainer, place, no_batch_left=nothing_left)
        if place['between_epochs']:
            self._limit()
        if loaded['unfinished'] == 'hooks':
            pl_module.evaluation.update()
        if not loops.in_first_epoch(place) or loops.batches_over(place):
            self._set(loaded['random'])
        _warn(pl_module, loaded['unfinished'], same)

    def catch_up(self) -> None:
        """Restore the random state of a checkpoint of an earlier version that was saved after the last epoch."""
        if self._loaded:
            self._set(self._loaded['random'])

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
