"""The record of a supernet: keys that later decisions depend on, and their values; all other keys are free."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_LARGEST = 4096  # number of channels, and image size in pixels


def record(
    *,
    pictures: Sequence[int] | None = None,
    datasets: Mapping[str, Mapping[str, Any]] | None = None,
    dataset: str | None = None,
    classes: int | None = None,
    run: str | None = None,
    licence: str | None = None,
    created: str | None = None,
    **others: Any,
) -> dict[str, Any]:
    """Make a record; values of None are left out.

    Parameters
    ----------
    pictures
        Channels and size (pixels) of the images.
    datasets
        Dataset -> facts about it (classes, accuracy, licence, ...), where each has a head of its own.
    dataset
        Name of the dataset, where there is one.
    classes
        Number of classes, where their names are not known.
    run
        Identifier of the search, which a resumed search keeps.
    licence
        Licence of the data.
    created
        Time of creation, as ISO 8601.
    **others
        Any other entries, as plain data.
    """
    known = {
        'pictures': pictures, 'datasets': datasets, 'dataset': dataset, 'classes': classes, 'run': run, 'licence': licence,
        'created': created,
    }  # fmt: skip
    return {**{key: value for key, value in known.items() if value is not None}, **others}


def malformed(history: Mapping[str, Any]) -> str | None:
    """Return the fault of a record that was read from a file or given by a user; None if it has none."""
    wrong = malformed_pictures(history.get('pictures', [0, 0]))
    if wrong is not None:
        return f'history.{wrong}'
    if not isinstance(history.get('datasets', {}), dict):
        return 'history.datasets is not a dict'
    return None


def malformed_pictures(pictures: Any) -> str | None:
    """Return what is wrong with the channels and the image size of a file; None if nothing is."""
    known = isinstance(pictures, list) and [type(number) for number in pictures] == [int, int]
    if not known or not 0 <= min(pictures) <= max(pictures) <= _LARGEST:
        return f'pictures = {repr(pictures)[:60]}, which is not [channels, side], from 0 to {_LARGEST}'
    return None


_NO_NAMES = ('TensorDataset', 'DataLoader', 'list', 'tuple')
"""Names that earlier versions recorded of data without a name."""


class Recorded:
    """Access to the record of a supernet, by the names that :func:`record` takes.

    Attributes
    ----------
    history
        The record.
    class_names
        Names of the classes; empty when unknown.
    """

    history: dict[str, Any]
    class_names: list[str]

    @property
    def datasets(self) -> dict[str, dict[str, Any]]:
        """Facts about every dataset that has a head of its own, by name; empty where there is a single classifier."""
        return self.history.get('datasets', {})

    @property
    def is_joint(self) -> bool:
        """Whether the supernet was trained on several datasets."""
        return len(self.datasets) > 1

    @property
    def dataset(self) -> str | None:
        """Name of the dataset of a single classifier, if it is known."""
        name = self.history.get('dataset')
        return None if name is None or name in _NO_NAMES else str(name)

    @property
    def num_classes(self) -> int | None:
        """Number of classes, if it is known."""
        count = len(self.class_names) or self.history.get('classes')
        return count if isinstance(count, int) else None

    @property
    def run(self) -> str | None:
        """Identifier of the search that trained the supernet, which a resumed search keeps; None if unknown."""
        return self.history.get('run')

    @property
    def entry(self) -> str | None:
        """Name under which the search itself has remembered the supernet, which copies keep; None if unknown."""
        return self.history.get('entry')

    @property
    def licence(self) -> str | None:
        """Licence of the data; those of several datasets are among the facts of :attr:`datasets`."""
        return self.history.get('licence')

    @property
    def created(self) -> str | None:
        """Time at which the supernet was remembered, as ISO 8601."""
        date = self.history.get('created')
        return None if date is None else str(date)

    @property
    def recorded_pictures(self) -> tuple[int, int] | None:
        """Channels and size (pixels) of the images that the supernet was trained on, if they are known."""
        if 'pictures' not in self.history:
            return None
        channels, image_size = self.history['pictures']
        return channels, image_size


def with_licences(history: Mapping[str, Any], licences: Mapping[str, str | None]) -> dict[str, Any]:
    """Return the record with the licence of every dataset among the facts about it."""
    facts = {name: {**each, 'licence': licences[name]} for name, each in history.get('datasets', {}).items()}
    return {**history, 'datasets': facts}
