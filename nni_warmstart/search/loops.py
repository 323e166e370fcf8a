"""Lightning's loops when a search is resumed: between two epochs, or behind a batch whose hooks are all over.

Lightning saves checkpoints in the middle of its hooks, and its loops then go on in their own way: the validation behind a
last batch is left out, the end of an epoch comes twice under ``max_steps``, and a validation that was interrupted counts the
rest of its batches only. So each checkpoint of a search holds the place where it was, and the loops are put there.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pytorch_lightning.callbacks import EarlyStopping


def place_of(trainer: Any, *, between_epochs: bool) -> dict[str, Any]:
    """Return the place of a search as plain data, when the hooks of a batch, of a validation or of an epoch are over.

    Parameters
    ----------
    trainer
        Lightning's trainer.
    between_epochs
        Whether the epoch is over.
    """
    loop = trainer.fit_loop
    loaded = loop._last_train_dl_reload_epoch
    return {
        'between_epochs': between_epochs,
        'validated': False,  # until the validation that may follow a batch is over
        'epochs': loop.epoch_progress.state_dict(),
        'batches': loop.epoch_loop.batch_progress.state_dict(),
        'loaders_of_epoch': int(loaded) if loaded >= 0 else None,
    }


def batches_over(place: Mapping[str, Any]) -> int:
    """Return the number of batches of the unfinished epoch that are over."""
    return 0 if place['between_epochs'] else place['batches']['current']['ready']


def in_first_epoch(place: Mapping[str, Any]) -> bool:
    """Check whether no epoch is over."""
    return batches_over(place) == place['batches']['total']['ready']


def unfinished(trainer: Any, place: Mapping[str, Any]) -> tuple[bool, bool]:
    """Check whether a training step has begun since a place, and whether it is over and hooks of its batch are left."""
    now, then = trainer.fit_loop.epoch_loop.batch_progress.total, place['batches']['total']
    begun, over = now.started > then['started'], now.processed > then['processed']
    return begun and not over, begun and over


def put(loops: dict[str, Any], place: Mapping[str, Any]) -> None:
    """Put the loops of a checkpoint to a place.

    Parameters
    ----------
    loops
        State of Lightning's ``fit_loop`` in a checkpoint, changed in place.
    place
        Where the search was, see :func:`place_of`.
    """
    epochs, batches = copy.deepcopy(place['epochs']), copy.deepcopy(place['batches'])
    for counted in epochs['total'], epochs['current']:
        over = counted['started'] if place['between_epochs'] else counted['started'] - 1
        counted.update(processed=over, completed=over)
    for counted in batches['total'], batches['current']:
        counted.update(dict.fromkeys(counted, counted['ready']))
    # Lightning goes back to a validation with one unfinished batch, and takes one with none for over
    begun = int(not place['validated'])
    counted = {'ready': begun, 'started': begun, 'processed': 0, 'completed': 0}
    validation = {'total': counted, 'current': dict(counted), 'is_last_batch': False}
    loops |= {
        'epoch_progress': epochs,
        'epoch_loop.batch_progress': batches,
        'epoch_loop.val_loop.batch_progress': validation,
    }


def let_in(trainer: Any, place: Mapping[str, Any], steps: int) -> tuple[int | None, int] | None:
    """Have Lightning enter the loops of a run of which no batch is left, but hooks are, with an epoch or a step more.

    Parameters
    ----------
    trainer
        Lightning's trainer, whose loops are not restored yet.
    place
        Where the search was, see :func:`place_of`.
    steps
        Number of optimizer steps of the checkpoint.

    Returns
    -------
    tuple or None
        Numbers of epochs and steps of the run, for :func:`limit`; None if batches are left.
    """
    loop, over = trainer.fit_loop, place['epochs']['current']['started'] - (not place['between_epochs'])
    epochs, most = loop.max_epochs, loop.epoch_loop.max_steps
    no_epoch, no_step = epochs is not None and 0 <= epochs <= over, 0 < most <= steps
    if no_epoch or no_step:
        limit(trainer, over + 1 if no_epoch else epochs, steps + 1 if no_step else most)
        return epochs, most
    return None


def limit(trainer: Any, epochs: int | None, steps: int) -> None:
    """Set the numbers of epochs and of optimizer steps of a run."""
    trainer.fit_loop.max_epochs, trainer.fit_loop.epoch_loop.max_steps = epochs, steps


def stopped(trainer: Any, place: Mapping[str, Any]) -> bool:
    """Stop a run that one of Lightning's callbacks had stopped when its checkpoint was saved; return whether it is over.

    Parameters
    ----------
    trainer
        Lightning's trainer, with the figures of the checkpoint.
    place
        Where the search was, see :func:`place_of`.
    """
    callbacks = (each for each in trainer.callbacks if isinstance(each, EarlyStopping))
    trainer.should_stop |= any(_has_stopped(each, trainer.callback_metrics, place) for each in callbacks)
    return trainer.should_stop


def _has_stopped(callback: EarlyStopping, figures: Mapping[str, Any], place: Mapping[str, Any]) -> bool:
    """Check whether a callback has stopped the run: its state tells how long it has waited, and no other reason."""
    has_waited, figure = callback.wait_count >= max(1, callback.patience), figures.get(callback.monitor)
    has_looked = place['between_epochs'] or not callback._check_on_train_epoch_end
    if has_waited or figure is None or not has_looked:
        return has_waited
    best, worst = callback.stopping_threshold, callback.divergence_threshold
    return (
        (callback.check_finite and not math.isfinite(figure))
        or (best is not None and bool(callback.monitor_op(figure, best)))
        or (worst is not None and bool(callback.monitor_op(-figure, -worst)))
    )


@contextmanager
def last_epoch(trainer: Any) -> Iterator[None]:
    """Show the last epoch as the current one, which Lightning has counted as over."""
    counted = trainer.fit_loop.epoch_progress.current
    counted.completed -= 1
    try:
        yield
    finally:
        counted.completed += 1


def enter(trainer: Any, place: Mapping[str, Any], *, no_batch_left: bool) -> None:
    """Enter the loops at the place of a checkpoint.

    Parameters
    ----------
    trainer
        Lightning's trainer, at the end of ``on_train_start``, where the loops are restored and the loaders are those of the
        unfinished epoch.
    place
        Where the search was, see :func:`place_of`.
    no_batch_left
        Whether nothing but hooks is left of the run.
    """
    loop = trainer.fit_loop
    inner, fetcher = loop.epoch_loop, loop._data_fetcher
    if place['loaders_of_epoch'] is not None:
        loop._last_train_dl_reload_epoch = place['loaders_of_epoch']
    inner._batches_that_stepped = inner.batch_progress.total.ready
    if place['between_epochs']:
        begin_epoch(trainer)
        return
    if inner._should_check_val_fx(fetcher) and not trainer.should_stop:
        inner._batches_that_stepped -= 1  # until validation is over, or left out
    if no_batch_left:
        fetcher.batches, fetcher.done = [], True


def begin_epoch(trainer: Any) -> None:
    """Go on with a new epoch, as if the last one had ended in this process."""
    loop = trainer.fit_loop
    for each in loop, loop.epoch_loop, loop.epoch_loop.val_loop:
        each.on_iteration_done()
