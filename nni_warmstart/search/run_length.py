"""How long a search lasts, as its trainer says it: by epochs, optimizer steps and time, whichever ends first."""

from __future__ import annotations

from typing import Any

from pytorch_lightning.callbacks import Timer


def progress(trainer: Any, epochs: int) -> float:
    """Return the share of a run that is over after so many epochs, in [0, 1]; 0 where nothing limits it.

    Parameters
    ----------
    trainer
        Lightning's trainer.
    epochs
        Finished epochs, the one that is being validated included.
    """
    shares = [0.0]
    if (trainer.max_epochs or -1) > 0:
        shares.append(epochs / trainer.max_epochs)
    if trainer.max_steps > 0:
        shares.append(trainer.global_step / trainer.max_steps)
    for elapsed, duration in _clocks(trainer):
        shares.append(elapsed / duration)
    return min(1.0, max(shares))


def planned_batches(trainer: Any, warmup_epochs: int) -> float:
    """Return the number of training batches of a run in which alphas learn; infinity where nothing limits it.

    Parameters
    ----------
    trainer
        Lightning's trainer. Its steps are those of all optimizers: a batch has one of the weights and, after the warm-up,
        one of the alphas. Of a run that time limits, the batches are extrapolated from those so far; before the first one
        there is one epoch at least.
    warmup_epochs
        Epochs in which the alphas are frozen.
    """
    per_epoch = trainer.num_training_batches
    frozen = warmup_epochs * per_epoch if warmup_epochs else 0
    found = [float('inf')]
    if (trainer.max_epochs or -1) > 0:
        found.append(trainer.max_epochs * per_epoch - frozen)
    if trainer.max_steps > 0:
        found.append((trainer.max_steps - frozen) / 2)
    for elapsed, duration in _clocks(trainer):
        batches = trainer.fit_loop.epoch_loop.total_batch_idx + 1
        found.append((batches * duration / elapsed if batches and elapsed else per_epoch) - frozen)
    return min(found)


def _clocks(trainer: Any) -> list[tuple[float, float]]:
    """Return the elapsed seconds of every timer of a trainer, and its limit."""
    timers = [callback for callback in trainer.callbacks if isinstance(callback, Timer)]
    clocks = [(timer.time_elapsed(), timer.time_remaining()) for timer in timers]
    return [(elapsed, elapsed + remaining) for elapsed, remaining in clocks if remaining is not None]
