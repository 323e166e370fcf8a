"""Test images of a data module, set up together with the images of training, so that none of them was trained on."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from pytorch_lightning import LightningDataModule
from pytorch_lightning.utilities.model_helpers import is_overridden
from torch import Tensor
from torch.utils._pytree import tree_flatten
from torch.utils.data import DataLoader

from ..errors import REFUSALS, DataError
from ..nni_adapter.oneshot import undo_patches
from ..utils.copies import FAILURES, copied
from ..utils.random import quiet_randomness, random_state, set_random_state
from .loaders import apart

_GENERATORS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)


class HeldOutImages:
    """Finds the test images of a data module, which is set up once, by the trainer.

    A data module may split its images anew whenever it is set up. Where it has test images once it is set up for training,
    they are taken. Where it makes them in ``setup('test')``, this is called on a copy of it, with the random numbers of the
    set-up for training: a permutation is then the same. If it is not, there are no test images.

    Parameters
    ----------
    data
        Data module; None for an evaluator with loaders, which has no test images.
    """

    def __init__(self, data: Any = None) -> None:
        self.data = data if data is not None and is_overridden('test_dataloader', data, LightningDataModule) else None
        self._before: tuple[dict[str, Any], dict[str, Any]] | None = None

    def __deepcopy__(self, memo: Any) -> HeldOutImages:
        return self  # as Loaders: a copy of the module of a search takes no data along

    def before_set_up(self) -> None:
        """Keep the random numbers with which the data module is about to be set up."""
        own = vars(self.data) if self.data is not None else {}
        self._before = random_state([]), _own_generators(own)

    def loader(self) -> DataLoader | None:
        """Return a loader of the test images; None if there are none.

        Raises
        ------
        DataError
            If the data module makes other test images whenever it is set up.
        Exception
            Whatever the data module raises, or one of :data:`~nni_warmstart.utils.copies.FAILURES` if it has no copy.
        """
        if self.data is None:
            return None
        with quiet_randomness():
            if self._before is None:
                return _readable(self.data.test_dataloader())
            try:
                found = _readable(self.data.test_dataloader())
            except REFUSALS:  # set up for training only
                found = None
            return self._of_a_copy() if found is None else found

    def _of_a_copy(self) -> DataLoader | None:
        loader, other = (_readable(self._set_up_again().test_dataloader()) for _ in range(2))
        if loader is None or other is None:
            return None
        if not _begin_alike(loader, other):
            raise DataError(
                f"{type(self.data).__name__}.setup('test') makes other test images each time, which may have been trained "
                "on; let it make them in setup('fit') as well, or seed what it draws."
            )
        return loader

    def _set_up_again(self) -> Any:
        assert self._before is not None
        own = _without_patches(self.data)
        twin = copied(own, shared=[own.trainer])
        state, generators = self._before
        vars(twin).update(copied(generators))
        set_random_state(state, [])
        twin.setup('test')
        return twin


def _own_generators(attributes: dict[str, Any]) -> dict[str, Any]:
    return copied({name: value for name, value in attributes.items() if isinstance(value, _GENERATORS)})


def _begin_alike(*loaders: DataLoader) -> bool:
    firsts = []
    for loader in loaders:
        with quiet_randomness():
            firsts.append([leaf for leaf in tree_flatten(next(iter(loader), None))[0] if isinstance(leaf, Tensor)])
    return all(torch.equal(*pair) for pair in zip(*firsts, strict=True))


def _readable(loader: Any) -> DataLoader | None:
    if not isinstance(loader, DataLoader) or loader.dataset is None:
        return None
    try:
        return apart(loader)
    except FAILURES:
        return loader  # the training is over


def _without_patches(data: Any) -> Any:
    own = object.__new__(type(data))
    vars(own).update(vars(data))
    undo_patches(own)
    return own
