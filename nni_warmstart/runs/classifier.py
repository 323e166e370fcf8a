"""WarmStartClassifier: the pipeline from images to a trained network as an estimator of scikit-learn."""

from __future__ import annotations

import logging
import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from ..data.given import as_classes, as_images, with_held_out
from ..data.image_folder import from_folder
from ..data.lazy import AnyImages
from ..data.resizing import resize_images
from ..data.splits import Images
from ..data.task import Task, checked_task
from ..errors import ConfigError, DataError, SupernetFileError
from ..nni_adapter.model_spaces import CLASS_ARGUMENTS, resolve
from ..supernets.network import Network
from ..utils.checks import Expected, Range, check
from ..utils.random import quiet_randomness
from .config import SearchConfig, parse_search
from .pipeline import run_pipeline
from .session import interruptible, quiet_libraries, seeds_kept
from .settings import NamedConfig, flat, overridden
from .setup import input_shape, make_space

_logger = logging.getLogger(__name__)

_BRIGHTER, _DARKER = 8.0, 100.0
"""Ratios of the largest pixels of the fit and of other images from which on they seem to have other units."""

_AT_ONCE = 256
"""Number of images that go through the network at once."""

_BOTH = 'y is given beside a folder, whose classes are the names of its folders; leave it out.'
_NO_LABELS = 'y is missing; give one label per image, or a folder with one folder of images per class.'


class WarmStartClassifier(ClassifierMixin, BaseEstimator):
    """Image classifier whose network is found by a warm-started search; follows the conventions of scikit-learn.

    ``fit`` does what ``nni-warmstart run`` does: it searches, trains the network that was found, and tests it.

    Parameters
    ----------
    space
        Name of the model space: 'nasbench201', 'darts', a class of NNI's hub, or your own as 'package.module:Class'.
    space_arguments
        Arguments of the space, such as ``{'width': 8, 'image_size': 16}``; None for its defaults. Images are brought to its
        ``image_size`` (32 pixels) and ``in_channels`` (3).
    source
        What the search starts from: 'auto' chooses a supernet of the zoo; a rule, the name of an entry, a path, a pretrained
        network by its name, or None for a cold start.
    max_epochs
        Epochs of the search.
    network_epochs
        Epochs of the training of the network; None for as many as those of the search.
    max_seconds
        Time limit of the search, and of the training of the network, each checked after an epoch; 0 for no limit.
    batch_size
        Images per step.
    learning_rate
        Initial rate of the weights, in both trainings.
    weights
        Initial weights of the network: 'inherited' for those of the supernet, or 'scratch'.
    validation_share
        Share of the images on which the network is measured and not trained, unless a folder has test images. With 0, it
        is trained on the half of the images that the weights of the search learn from, and measured on the other.
    settings
        Further settings by their dotted name in ``search.yml``: ``{'evaluator.jitter': 0.1, 'strategy.zoo': 'my-zoo'}``; or
        in sections as there: ``{'evaluator': {'jitter': 0.1}}``.
    random_state
        Seed of all random generators; None for another one each time.
    out
        Folder of the run. A fit that was interrupted goes on there, one that is finished is only read (or goes on for more
        epochs); one of other images or settings is refused. None for a temporary folder, as cross-validation needs.
    verbose
        Whether to print stages, and to show progress bars.

    Attributes
    ----------
    classes_
        Labels, sorted, shape ``(n_classes,)``.
    n_features_in_
        Number of values of an image, as it was given or read; not after a fit on a folder that is read while it is used.
    network_
        The :class:`~nni_warmstart.supernets.network.Network`, as data; ``network_.build()`` is the module of torch.
    result_
        Accuracies, seconds and what the network was made of, as in ``result.json`` of ``nni-warmstart run``; only after a
        fit.

    Examples
    --------
    >>> from sklearn.base import clone
    >>> clone(WarmStartClassifier(max_epochs=5, source=None))
    WarmStartClassifier(max_epochs=5, source=None)
    """

    def __init__(
        self,
        space: str = 'nasbench201',
        *,
        space_arguments: dict[str, Any] | None = None,
        source: str | os.PathLike[str] | list[str] | None = 'auto',
        max_epochs: int = 20,
        network_epochs: int | None = None,
        max_seconds: float = 0.0,
        batch_size: int = 64,
        learning_rate: float = 0.05,
        weights: str = 'inherited',
        validation_share: float = 0.1,
        settings: dict[str, Any] | None = None,
        random_state: Any = 0,
        out: str | os.PathLike[str] | None = None,
        verbose: bool = False,
    ) -> None:
        self.space = space
        self.space_arguments = space_arguments
        self.source = source
        self.max_epochs = max_epochs
        self.network_epochs = network_epochs
        self.max_seconds = max_seconds
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weights = weights
        self.validation_share = validation_share
        self.settings = settings
        self.random_state = random_state
        self.out = out
        self.verbose = verbose

    def fit(self, X: Any, y: Any = None) -> WarmStartClassifier:
        """Search for a network, and train it.

        Parameters
        ----------
        X
            Images: numbers of shape ``(n, height, width)``, ``(n, height, width, channels)`` or ``(n, channels, height,
            width)``, uint8 or others, with 1 or 3 channels; or paths of image files; or a folder with one folder of images
            per class, or with ``train/`` and ``test/`` of such folders.
        y
            Labels of any type, shape ``(n,)``; None for a folder, whose classes are the names of its folders.

        Returns
        -------
        WarmStartClassifier
            Itself.

        Raises
        ------
        WarmStartError
            If images, labels or parameters do not work, ``out`` holds another run or is in use, or training diverges.
        """
        check(self.validation_share, 'validation_share', Expected(float, Range(0, 0.9)), ConfigError)
        document = self._document(self._seed())
        config = _checked(document)
        longer = {} if self.network_epochs is None else {'evaluator.max_epochs': self.network_epochs}
        network_config = _checked(overridden(document, longer))
        task, classes = self._task(X, y, config)
        with quiet_randomness(), seeds_kept(), quiet_libraries(not self.verbose), interruptible(), _folder(self.out) as out:
            result = run_pipeline(
                config, out=out, network_config=network_config, weights=self.weights, resume=self.out is not None,
                task=with_held_out(task, self.validation_share), progress=self.verbose,
                tell=print if self.verbose else _logger.info,
            )  # fmt: skip
            network = Network.load(out / 'network' / 'network.safetensors')
        self.network_ = replace(network, history={**network.history, 'largest_pixel': _largest(task.train_x)})
        self.result_, self.classes_ = result, classes
        if isinstance(task.train_x, Tensor):
            self.n_features_in_ = task.train_x[0].numel()
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the probabilities of the classes.

        Parameters
        ----------
        X
            Images as in :meth:`fit`, in the same units, of any size; or image files.

        Returns
        -------
        numpy.ndarray
            Probabilities, float64, shape ``(n, n_classes)``, in the order of ``classes_``.

        Raises
        ------
        NotFittedError
            If there is no network yet.
        DataError
            If they are no images.
        """
        check_is_fitted(self, 'network_')
        images = as_images(X, self.network_.pictures[1])
        self._check_units(_largest(images))
        return self._probabilities(images)

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable label of each image, shape ``(n,)``; see :meth:`predict_proba`."""
        probabilities = self.predict_proba(X)  # it says so if there are no classes_ yet
        return self.classes_[probabilities.argmax(1)]

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Return the accuracy.

        Parameters
        ----------
        X
            Images as in :meth:`predict_proba`, or a folder with one folder of images per class, of which the test images are
            taken if it has such.
        y
            Labels, shape ``(n,)``; None for a folder.
        sample_weight
            Weights of the images, shape ``(n,)``; None for equal ones.

        Raises
        ------
        NotFittedError
            If there is no network yet.
        DataError
            If they are no images, or a folder has classes that the network does not know.
        """
        check_is_fitted(self, 'network_')
        if not isinstance(X, str | os.PathLike):
            if y is None:
                raise DataError(_NO_LABELS)
            return float(super().score(X, y, sample_weight))
        if y is not None:
            raise DataError(_BOTH)
        task = _read_folder(X, self.network_.pictures[1], _checked(self._document(seed=0)))
        unknown = sorted(set(task.class_names) - set(map(str, self.classes_)))
        if unknown:
            raise DataError(f'{X} has classes that the network does not know: {", ".join(unknown)[:300]}.')
        x, labels = (task.test_x, task.test_y) if len(task.test_x) else (task.train_x, task.train_y)
        self._check_units(255.0)
        found = self.classes_[self._probabilities(x).argmax(1)].astype(str)
        return float(np.average(found == np.array(task.class_names)[labels.numpy()], weights=sample_weight))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the network with its labels to one safetensors file, which :meth:`load` reads.

        Raises
        ------
        NotFittedError
            If there is no network yet.
        ConfigError
            If the labels are neither text nor numbers.
        """
        check_is_fitted(self, 'network_')
        replace(self.network_, history={**self.network_.history, 'labels': self.classes_.tolist()}).save(
            os.path.expanduser(path)
        )

    @classmethod
    def load(cls, path: str | os.PathLike[str], **parameters: Any) -> WarmStartClassifier:
        """Read a classifier that :meth:`save` wrote, or the ``network.safetensors`` of ``nni-warmstart run``.

        Parameters
        ----------
        path
            Path of the file.
        parameters
            Parameters of the classifier; for a model space of your own, ``space`` and ``space_arguments`` are needed.

        Raises
        ------
        SupernetFileError
            If the file cannot be read, is damaged or of another kind.
        """
        network = Network.load(os.path.expanduser(path))
        labels = network.history.get('labels', network.class_names)
        plain = isinstance(labels, list) and all(isinstance(label, str | int | float) for label in labels)
        if not plain or len(labels) != len(network.class_names):
            raise SupernetFileError(f'{path} has a malformed card: there are not {len(network.class_names)} labels.')
        named = {}
        if 'class' not in network.space:
            arguments = {key: value for key, value in network.space['arguments'].items() if key not in CLASS_ARGUMENTS}
            named = {'space': _known(network.space['name'], path), 'space_arguments': arguments}
        found = cls(**{**named, **parameters})
        found.network_, found.classes_ = network, np.array(labels)
        return found

    def _document(self, seed: Any) -> dict[str, Any]:
        """Return the parameters as the content of ``search.yml``."""
        document = {
            'data': {'name': 'digits'},  # not read: the images are at hand
            'space': {'name': self.space, **(self.space_arguments or {})},
            'evaluator': {
                'max_epochs': self.max_epochs,
                'max_seconds': self.max_seconds,
                'batch_size': self.batch_size,
                'learning_rate': self.learning_rate,
            },
            'strategy': {'name': 'WarmStartDARTS', 'source': self.source},
            'seed': seed,
        }
        return overridden(document, flat(self.settings or {}))

    def _seed(self) -> Any:
        if isinstance(self.random_state, int | np.integer):
            return int(self.random_state)
        return int(check_random_state(self.random_state).randint(2**31 - 1))

    def _task(self, X: Any, y: Any, config: SearchConfig) -> tuple[Task, np.ndarray]:
        """Return the images and their labels."""
        image_size = input_shape(config.space)[1]
        if isinstance(X, str | os.PathLike):
            if y is not None:
                raise DataError(_BOTH)
            task = _read_folder(X, image_size, config)
            task = replace(task, name=config.data.label or task.name)
            return task, np.array(task.class_names)
        if y is None:
            raise DataError(_NO_LABELS)
        if config.data.on_error != 'stop':
            raise ConfigError(
                f'data.on_error = {config.data.on_error!r} is for a folder of images; leave damaged ones out of X.'
            )
        x = as_images(X, image_size)
        classes, labels = as_classes(y, len(x))
        task = checked_task(config.data.label or 'images', x, labels, x[:0], labels[:0], [str(label) for label in classes])
        return task, classes

    def _check_units(self, largest: float) -> None:
        """Warn of pixels in other units than those of the fit."""
        fitted = self.network_.history.get('largest_pixel')
        if not isinstance(fitted, int | float):
            return
        if largest > _BRIGHTER * fitted or 0 < largest < fitted / _DARKER:
            warnings.warn(
                f'X has pixels of up to {largest:g}, and the classifier was fitted to pixels of up to {fitted:g}; give X in '
                'the units of the fit (image files are read as 0 to 255).',
                stacklevel=3,
            )

    def _module(self) -> nn.Module:
        """Return the network as a module, which is built once."""
        network, (known, module) = self.network_, self.__dict__.get('_built', (None, None))
        if module is None or known is not network:
            own = None
            if 'class' in network.space:  # a file never chooses what code runs, the parameter does
                own = make_space(NamedConfig(self.space, self.space_arguments or {}), len(network.class_names))
            module = network.build(own)
            self._built = network, module
        return module

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in super().__getstate__().items() if name != '_built'}

    def _probabilities(self, images: AnyImages) -> np.ndarray:
        """Return the probabilities of the classes for images ``(n, channels, height, width)``."""
        network, module, nothing = self.network_, self._module(), torch.zeros(0)
        normalise = Images(nothing, nothing, torch.tensor(network.mean), torch.tensor(network.std)).normalised
        parts = []
        with torch.no_grad():
            for start in range(0, len(images), _AT_ONCE):
                part: Tensor = resize_images(images[start : start + _AT_ONCE], *network.pictures)
                parts.append(module(normalise(part)).double().softmax(1))
        return torch.cat(parts).numpy()


def _read_folder(path: str | os.PathLike[str], image_size: int, config: SearchConfig) -> Task:
    return from_folder(Path(path), side=image_size, cache_mb=config.data.cache_mb, on_error=config.data.on_error)


def _largest(images: AnyImages) -> float:
    """Return the largest absolute value of the pixels, and of files that are read while they are used 255."""
    return float(images.abs().max()) if isinstance(images, Tensor) else 255.0


def _of_python(value: Any) -> Any:
    """Return settings with numbers of Python for those of NumPy, which grids are made of, and with text for paths."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        return {key: _of_python(item) for key, item in value.items()}
    return [_of_python(item) for item in value] if isinstance(value, list | tuple) else value


def _known(name: str, path: Any) -> str:
    """Return the name of a model space in a file, which must not be one that is to be imported."""
    try:
        resolve(name)
    except ConfigError as error:
        raise SupernetFileError(f'{path} has a network of an unknown model space: {error}') from error
    return name


def _checked(document: dict[str, Any]) -> SearchConfig:
    """Return the settings of a document, for images at hand."""
    config = parse_search(_of_python(document), Path.cwd())
    if config.evaluator.devices * config.evaluator.num_nodes > 1:
        raise ConfigError('evaluator.devices and num_nodes must be 1 for a classifier; `nni-warmstart run` takes more.')
    return replace(config, data=replace(config.data, name=None))


@contextmanager
def _folder(out: str | os.PathLike[str] | None) -> Iterator[Path]:
    """Give the folder of a run, or a temporary one."""
    if out is not None:
        yield Path(os.path.expanduser(out))
        return
    with tempfile.TemporaryDirectory(prefix='nni-warmstart-') as folder:
        yield Path(folder)
