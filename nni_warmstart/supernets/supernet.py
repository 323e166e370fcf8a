"""Supernet: trained weights and alphas, with all that is needed to rebuild them and to choose among supernets."""

from __future__ import annotations

import hashlib
import logging
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from importlib.metadata import version
from typing import Any, cast

import torch
from nni.nas.nn.pytorch import ModelSpace
from torch import Tensor, nn
from torch.export import ExportedProgram

from ..data.labelled import image_shape, known_name, name_and_classes
from ..distance.embeddings import EMBEDDINGS, Embedding
from ..distance.sketch import DatasetSketch, sketches_of
from ..errors import REFUSALS, ConfigError, DataError, SupernetFileError, TransferError, reason
from ..nni_adapter.choices import choices
from ..nni_adapter.model_spaces import describe, input_of, resolve, trained_shape
from ..nni_adapter.mutation import first_names, mutate, strategy_kind
from ..nni_adapter.oneshot import OneShotStrategy, is_supernet
from ..tracing.layers import Layer
from ..tracing.structure import Structure, guess_shape, structure_of
from ..utils.divergence import LARGEST
from ..utils.files import plain, write_atomic
from ..utils.limits import Budget
from ..utils.modules import untold_state
from . import validation
from .card import NETWORK, SKETCH, STRUCTURE
from .features import own_features
from .file_format import pack, read_bytes, unpack
from .header import memory_of
from .history import Recorded, record, with_licences
from .loading import load_into, resize_joint_head, space_named_by
from .plain_network import fields_of

_logger = logging.getLogger(__name__)

_MOST = {'weight': LARGEST, 'bias': LARGEST, 'running_mean': validation.OVERFLOW, 'running_var': validation.OVERFLOW}

_TRACED = 512  # pixels: the time for finding a structure grows with the image

_PIECE = 2**20  # values that are looked at at once


@dataclass(frozen=True)
class Supernet(Recorded):
    """A trained supernet as data.

    Create one with :meth:`from_strategy`, :meth:`from_model`, :meth:`from_network` or :meth:`load`.

    Attributes
    ----------
    name
        Name of the entry in a zoo.
    tensors
        Parameters and buffers by their name in the mutated space; a shared tensor occurs once, under its first name.
    aliases
        Further name -> first name, for tensors with several names (shared alphas).
    alphas
        Label of a choice -> name of its alpha (logits) in ``tensors``.
    candidates
        Label of a choice -> names of its candidates, in the order of the alpha.
    space
        ``{'name', 'arguments'}`` of a registered or hub space, else ``{'class'}``, for information only.
    strategy
        NNI strategy that mutated the space: 'DARTS', 'GumbelDARTS' or 'Proxyless'; 'network' for a network without choices.
    class_names
        Names of the classes, in the order of the classifier's rows; empty when unknown.
    history
        Record of datasets, licences, seed, command, curves, versions. It is free-form except for entries with an attribute:
        :attr:`pictures`, :attr:`datasets`, :attr:`dataset`, :attr:`run`, :attr:`entry`, :attr:`licence`, :attr:`created`.
    sketches
        Compact sketches of the training data by embedding: one for each of
        :data:`~nni_warmstart.distance.embeddings.EMBEDDINGS`, and one in the supernet's own features (under :attr:`key`).
    structure
        Channels, modules and choices, by which the supernet is mapped onto other spaces; None in files of older versions.
    """

    name: str
    tensors: dict[str, Tensor] = field(repr=False)
    aliases: dict[str, str] = field(repr=False)
    alphas: dict[str, str] = field(repr=False)
    candidates: dict[str, list[str]] = field(repr=False)
    space: dict[str, Any]
    strategy: str
    class_names: list[str] = field(repr=False, default_factory=list)
    history: dict[str, Any] = field(repr=False, default_factory=dict)
    sketches: dict[str, DatasetSketch] = field(repr=False, default_factory=dict)
    structure: Structure | None = field(repr=False, default=None)

    @classmethod
    def from_strategy(
        cls,
        strategy: OneShotStrategy,
        *,
        name: str,
        dataset: Any = None,
        class_names: list[str] | None = None,
        history: dict[str, Any] | None = None,
    ) -> Supernet:
        """Create a supernet from a strategy that has run (or was initialised).

        Parameters
        ----------
        strategy
            NNI strategy of the DARTS family, from this package or from NNI.
        name
            Name of the entry.
        dataset
            Training data, of which sketches are kept: a :class:`~nni_warmstart.data.Task`, a torch dataset, a loader or two
            arrays. A name alone is recorded without sketches.
        class_names
            Names of the classes, in the order of the classifier's rows; None takes those of ``dataset``, if it has any.
        history
            Additional entries of the record, as plain data.
        """
        if getattr(strategy, 'holds_statistics', False):
            history = {**(history or {}), 'statistics_held': True}
        return cls.from_model(strategy.supernet, name=name, dataset=dataset, class_names=class_names, history=history)

    @classmethod
    def from_model(
        cls,
        model: nn.Module,
        *,
        name: str,
        dataset: Any = None,
        class_names: list[str] | None = None,
        history: dict[str, Any] | None = None,
    ) -> Supernet:
        """Create a supernet from a mutated model space. Parameters as in :meth:`from_strategy`.

        Raises
        ------
        TransferError
            If ``model`` is not a model space mutated by a strategy of the DARTS family.
        ConfigError
            If ``history`` holds values that cannot be written to a file.
        """
        if not isinstance(model, ModelSpace) or not is_supernet(model):
            raise TransferError(
                f'{type(model).__name__} is not a supernet: mutate a ModelSpace first (strategy.mutate_model(space)).'
            )
        # Collect tensors, choices and the record.
        tensors, aliases = first_names(model)
        untold = untold_state(model)
        if untold:
            _logger.warning('Supernet %r is kept without %s, which is no tensor.', name, ', '.join(untold))
        found = choices(model)
        names = {id(p): n for n, p in model.named_parameters()}
        if isinstance(dataset, Iterator):
            raise DataError(f'dataset is a {type(dataset).__name__}, which gives its samples once; pass a list or a loader.')
        title, classes = (known_name(dataset), name_and_classes(dataset)[1]) if dataset is not None else (None, [])
        space = describe(model)
        shape = image_shape(dataset) if not isinstance(dataset, str | None) else None
        if shape is not None and 'name' in space:
            shape = trained_shape(space, shape)  # the data may be raw
        facts = record(
            created=datetime.now(timezone.utc).isoformat(timespec='seconds'),
            versions={package: version(package) for package in ('nni-warmstart', 'nni', 'torch')},
            dataset=title,
            pictures=shape if 'name' in space else None,
        )
        supernet = cls(
            name=name,
            tensors={key: tensor.detach().cpu().clone() for key, tensor in tensors.items()},
            aliases=aliases,
            alphas={label: names[id(choice.alpha)] for label, choice in found.items()},
            candidates={label: list(choice.candidates) for label, choice in found.items()},
            space=space,
            strategy=strategy_kind(model),
            class_names=list(map(str, class_names)) if class_names is not None and len(class_names) else list(classes),
            history=plain({**facts, **(history or {})}),
        )
        wrong = validation.malformed(supernet.card, supernet.tensors, supernet.sketches)
        if wrong:
            raise ConfigError(f'supernet {name!r} cannot be remembered: {wrong}.')
        # Add the structure and the sketches, which a supernet can do without.
        try:
            structure = structure_of(model, guess_shape(model, shape or supernet.pictures))
            outputs = len(structure.channels.outputs)
            count = record(classes=None if supernet.class_names else outputs)
            if class_names is not None and len(supernet.class_names) != outputs:
                given = len(supernet.class_names)
                _logger.warning(
                    'Supernet %r has %d class names for %d outputs, and is matched by numbers.', name, given, outputs
                )
            supernet = replace(supernet, structure=structure, history={**count, **supernet.history})
        except TransferError as error:
            _logger.warning('A supernet of %s can be mapped onto its own space only: %s', type(model).__name__, error)
        if supernet.diverged:
            _logger.warning('Supernet %r has %s; nothing can start from it.', name, supernet.divergence)
        if dataset is None or isinstance(dataset, str):
            return supernet
        return supernet.sketched(dataset, model)

    @classmethod
    def from_network(
        cls,
        model: nn.Module | ExportedProgram,
        *,
        name: str,
        input_shape: Sequence[int],
        class_names: Sequence[str] | None = None,
        history: dict[str, Any] | None = None,
    ) -> Supernet:
        """Create a source without choices from any network, a pretrained one, say.

        A warm start maps its layers onto the candidates of a model space that can compute the same.

        Parameters
        ----------
        model
            Network of convolutions, batch norms and linear layers with a linear classifier, or the result of
            ``torch.export.export`` for one; it is not changed.
        name
            Name of the entry.
        input_shape
            Shape of an image, ``(channels, height, width)``, square, as the network was trained on.
        class_names
            Names of the classes, in the order of the classifier's rows; None where they are not known.
        history
            Additional entries of the record, as plain data: ``{'licence': 'Apache-2.0'}``.

        Raises
        ------
        TransferError
            If the network does not take such images, cannot be traced, or has no linear classifier; the message names the
            module.
        ConfigError
            If ``history`` holds values that cannot be written to a file.
        """
        supernet = cls(**fields_of(model, name, input_shape, class_names, history))
        wrong = validation.malformed(supernet.card, supernet.tensors, {})
        if wrong:
            raise ConfigError(f'network {name!r} cannot be remembered: {wrong}.')
        return supernet

    @property
    def is_network(self) -> bool:
        """Whether this is a network without choices, made by :meth:`from_network`."""
        return self.strategy == NETWORK

    @property
    def holds_statistics(self) -> bool:
        """Whether its batch-norm statistics are those of a pretrained network, which a training should hold."""
        return self.is_network or self.history.get('statistics_held') is True

    @property
    def layers(self) -> dict[str, Layer]:
        """Facts about the layers of a network without choices by path; empty for supernets.

        Raises
        ------
        TransferError
            If the record is malformed.
        """
        try:
            known = self.history.get('layers', {}).items() if self.is_network else ()
            return {
                path: Layer(int(size), tuple(map(int, start)), float(eps), *map(str, functions[:2]))
                for path, (size, start, eps, *functions) in known
            }
        except (TypeError, ValueError, AttributeError) as error:
            raise TransferError(f'history.layers of network {self.name!r} is malformed ({reason(error)}).') from error

    @property
    def key(self) -> str:
        """Identifier of the weights; also the name of the embedding by the supernet's features."""
        digest = hashlib.sha256()
        for name in sorted(self.tensors):
            digest.update(name.encode())
            for piece in self.tensors[name].reshape(-1).split(_PIECE):
                digest.update(piece.double().numpy().data)
        return f'supernet:{digest.hexdigest()[:12]}'

    @property
    def pictures(self) -> tuple[int, int]:
        """Channels and size (pixels) of the images; (0, 0), any shape, if a user's space does not tell."""
        if self.recorded_pictures is not None:
            return self.recorded_pictures
        if 'name' in self.space:
            return input_of(resolve(self.space['name']), self.space['arguments'])
        return 0, 0

    def features(self, model: nn.Module | None = None) -> Embedding:
        """Return the supernet's features as an embedding.

        Parameters
        ----------
        model
            Mutated space that holds the weights; None rebuilds it.
        """
        network = self.build() if model is None else model
        return own_features(network, self.key, *self.pictures, keeps_statistics=self.is_network)

    def traced(self) -> Structure:
        """Return the structure; where the file has none, it is found by rebuilding the space.

        Raises
        ------
        TransferError
            If the space cannot be rebuilt or run.
        """
        if self.structure is not None:
            return self.structure
        if 'name' not in self.space:
            raise TransferError(
                f'supernet {self.name!r} was kept without its structure, so it goes onto its own space and shape only; keep '
                'it again with dataset=, by whose images the structure is found (a warning says why if it is not).'
            )
        if self.pictures[1] > _TRACED:
            raise TransferError(
                f'supernet {self.name!r} was kept without its structure, and images of {self.pictures[1]} pixels are too '
                'large to find it; keep it again.'
            )
        model = self.build()
        return structure_of(model, guess_shape(model, self.pictures))

    def sketched(self, dataset: Any, model: nn.Module | None = None) -> Supernet:
        """Return the same supernet with sketches of its training data.

        An embedding that is not possible for these data (because they are not images, say, or features are not finite) is
        left out with a warning: a supernet without sketches is worth more than none.

        Parameters
        ----------
        dataset
            Training data in any form that :meth:`DatasetSketch.from_dataset` takes.
        model
            Mutated space that holds the weights; None rebuilds it, which of a network without choices no file can: it then
            has no sketch in its own features.
        """
        own = () if self.is_network and model is None else (self.features(model),)
        return self.with_sketches(sketches_of([dataset], (*EMBEDDINGS, *own), self.name))

    def with_sketches(self, sketches: Iterable[DatasetSketch]) -> Supernet:
        """Return the same supernet with these sketches added; use compact ones for small files."""
        return replace(self, sketches={**self.sketches, **{each.embedding: each for each in sketches}})

    def state_dict(self) -> dict[str, Tensor]:
        """Return the state of the mutated space, aliases included, as its ``load_state_dict`` takes it.

        Weights that are kept in half precision (:meth:`in_half`) have single precision.
        """
        own = {name: tensor.float() if tensor.dtype == torch.float16 else tensor for name, tensor in self.tensors.items()}
        return {**own, **{alias: own[first] for alias, first in self.aliases.items()}}

    def in_half(self) -> Supernet:
        """Return the same supernet with the weights of its layers in half precision, for a file of half the size.

        They are rounded by up to 0.05 %. Vectors, and tensors with values beyond the range of half precision, stay as they
        are.
        """
        large = {name: each for name, each in self.tensors.items() if each.dim() > 1 and each.dtype == torch.float32}
        halves = {name: half for name, each in large.items() if (half := each.half()).isfinite().all()}
        found, sketches = replace(self, tensors={**self.tensors, **halves}), dict(self.sketches)
        if self.key in sketches:
            sketches[found.key] = replace(sketches.pop(self.key), embedding=found.key)
        return replace(found, sketches=sketches)

    def alpha(self, label: str) -> Tensor:
        """Return the alphas (logits) of one choice, shape ``(n_candidates,)``."""
        return self.tensors[self.alphas[label]]

    @property
    def diverged(self) -> bool:
        """Whether some weights are not finite, or larger than those of any network that works."""
        return self.divergence is not None

    @property
    def divergence(self) -> str | None:
        """What shows that the training diverged, for errors; None if nothing does. Buffers may hold any finite constants."""
        for name, tensor in self.tensors.items():
            if tensor.is_floating_point() or tensor.is_complex():
                most = _MOST.get(name.rpartition('.')[2], math.inf)
                if not all(bool((piece.abs() < most).all()) for piece in tensor.reshape(-1).split(_PIECE)):
                    finite = bool(tensor.isfinite().all())
                    return f'weights beyond {most:.0e}' if finite else 'weights that are not finite'
        return None

    @property
    def num_parameters(self) -> int:
        """Number of stored values, alphas and buffers included."""
        return sum(tensor.numel() for tensor in self.tensors.values())

    def renamed(self, name: str) -> Supernet:
        """Return the same supernet under another name."""
        return replace(self, name=name)

    def remembered_as(self, name: str) -> Supernet:
        """Return the same supernet under the name by which the search that trained it will find it again."""
        return replace(self, name=name, history={**self.history, 'entry': name})

    def with_licences(self, licences: Mapping[str, str | None]) -> Supernet:
        """Return the same supernet with a licence for each of its :attr:`datasets`."""
        return replace(self, history=with_licences(self.history, licences))

    def build(self, space: ModelSpace | type[ModelSpace] | None = None) -> ModelSpace:
        """Build a mutated model space that holds these weights and alphas.

        Parameters
        ----------
        space
            Model space: a fresh instance, an instance that is mutated already (and then changed in place), or a class whose
            constructor needs no arguments. None rebuilds the registered or hub space named in the card.

        Raises
        ------
        TransferError
            If the card names no registered or hub space and none is passed, the space has other tensors, or this is a
            network without choices.
        """
        if self.is_network:
            raise TransferError(
                f'{self.name!r} is a network without choices ({self.space.get("class")}), which no file can build: load '
                'state_dict() into that network, or use transfer() to start a model space from it.'
            )
        if space is None:
            space = space_named_by(self.space, self.tensors, f'supernet {self.name!r}', 'was trained on')
        elif isinstance(space, type):
            space = cast(ModelSpace, space())
        if not isinstance(space, ModelSpace):
            raise TransferError(f'space is a {type(space).__name__}; it must be a ModelSpace.')
        try:
            model = space if is_supernet(space) else mutate(space, self.strategy)
        except REFUSALS as error:
            raise TransferError(
                f'{self.strategy} cannot search {type(space).__name__}, the space of supernet {self.name!r}: {reason(error)}'
            ) from error
        if self.datasets:
            resize_joint_head(model, self.tensors)
        load_into(model, self.state_dict(), self.name)
        return model

    @property
    def card(self) -> dict[str, Any]:
        """Card of the supernet: everything except the tensors, as plain data."""
        return {
            'name': self.name,
            'space': self.space,
            'strategy': self.strategy,
            'class_names': self.class_names,
            'aliases': self.aliases,
            'alphas': self.alphas,
            'candidates': self.candidates,
            'history': self.history,
            'sketches': [{'name': sketch.name, 'embedding': key} for key, sketch in self.sketches.items()],
        }

    def to_bytes(self) -> bytes:
        """Return the content of the file that :meth:`save` writes."""
        sketched = {
            f'{SKETCH}{index}/{part}': tensor
            for index, sketch in enumerate(self.sketches.values())
            for part, tensor in sketch.to_tensors().items()
        }
        structure = {}
        if self.structure is not None:
            structure[STRUCTURE] = torch.frombuffer(bytearray(self.structure.to_bytes()), dtype=torch.uint8)
        return pack({**self.tensors, **sketched, **structure}, plain(self.card))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one safetensors file with the card in its metadata, atomically."""
        write_atomic(path, self.to_bytes())

    @classmethod
    def from_bytes(cls, data: bytes | bytearray, origin: str = 'supernet') -> Supernet:
        """Read a supernet from the bytes that :meth:`to_bytes` returned; ``origin`` is named in errors.

        Raises
        ------
        SupernetFileError
            If they are truncated, altered, of another kind or of a newer format, or take more memory than the limit.
        """
        budget = Budget(origin, SupernetFileError)
        budget.spend(memory_of(len(data)))
        return cls._read(data, origin, budget)

    @classmethod
    def _read(cls, data: bytes | bytearray, origin: str, budget: Budget) -> Supernet:
        tensors, card = unpack(data, origin, budget)
        try:
            sketches = {
                each['embedding']: DatasetSketch.from_tensors(_taken(tensors, f'{SKETCH}{index}/'), **each)
                for index, each in enumerate(card.pop('sketches', []))
            }
            packed = tensors.pop(STRUCTURE, None)
            structure = None if packed is None else Structure.from_bytes(packed.numpy().tobytes(), origin, budget)
            validation.check_supernet_data(card, tensors, sketches, structure, origin)
            return cls(tensors=tensors, sketches=sketches, structure=structure, **card)
        except SupernetFileError:
            raise
        except (TypeError, ValueError, LookupError, AttributeError, RuntimeError, ArithmeticError) as error:
            raise SupernetFileError(
                f'{origin} has a card that this version does not understand ({reason(error)}).'
            ) from error

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Supernet:
        """Read a file written by :meth:`save`; nothing in it is executed.

        Raises
        ------
        SupernetFileError
            If the file is missing, truncated, altered, of another kind or of a newer format, or takes more memory than the
            limit.
        """
        budget = Budget(str(path), SupernetFileError)
        return cls._read(read_bytes(path, budget), str(path), budget)


def _taken(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Remove the tensors under ``prefix`` from ``tensors``, and return them."""
    return {name.removeprefix(prefix): tensors.pop(name) for name in list(tensors) if name.startswith(prefix)}
