"""A network without choices as the source of a warm start: what a supernet records of it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from importlib.metadata import version
from typing import Any, cast

import torch
from nni.nas.nn.pytorch import ModelSpace
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import is_lazy

from ..errors import TransferError, reason
from ..nni_adapter.classifier import find_head
from ..nni_adapter.mutation import first_names
from ..nni_adapter.oneshot import is_supernet
from ..tracing.exported import with_layers
from ..tracing.layers import layers_of
from ..tracing.structure import structure_of
from ..utils.files import plain
from ..utils.modules import modes_kept, unwrapped
from ..utils.random import quiet_randomness
from .card import NETWORK
from .history import record

CHANGES_IMAGES = 'changes_images'
"""Key of a record: whether the network changes its images before its first layer, which a warm start does not inherit."""


def fields_of(
    model: nn.Module | ExportedProgram,
    name: str,
    input_shape: Sequence[int],
    class_names: Sequence[str] | None,
    history: dict[str, Any] | None,
) -> dict[str, Any]:
    """Return the fields of a :class:`~nni_warmstart.Supernet` made of a network; arguments as in its ``from_network``.

    Raises
    ------
    TransferError
        If the network does not take such images, cannot be traced, or has no linear classifier; the message names
        the module.
    """
    model = unwrapped(model)
    cls = type(model)
    if isinstance(model, ExportedProgram):
        model = with_layers(model)
    kind = cls.__name__
    shape = tuple(input_shape)
    if not isinstance(model, nn.Module):
        raise TransferError(f'model is a {kind}, but it must be a network (nn.Module); build it, and load its weights.')
    if len(shape) != 3 or any(type(size) is not int or size < 1 for size in shape) or shape[1] != shape[2]:
        raise TransferError(
            f'input_shape = {input_shape!r} of network {name!r} must be (channels, height, width) of square images, such as '
            '(3, 224, 224).'
        )
    if isinstance(model, ModelSpace) and (is_supernet(model) or model.simplify()):
        raise TransferError(f'{kind} has choices, so it is no plain network; use Supernet.from_model on the mutated space.')
    untold = [path for path, each in model.named_modules() if isinstance(each, _BatchNorm) and each.running_var is None]
    if untold:
        raise TransferError(
            f'network {name!r} ({kind}) cannot be a source: {untold[0]} has no running statistics (track_running_stats), so '
            'that what it computes depends on the batch.'
        )
    lazy = next((name for name, parameter in model.named_parameters() if is_lazy(parameter)), None)
    if lazy is not None or next(model.parameters(), None) is None:
        what = f'{lazy} has no shape yet; run the network on a batch first' if lazy else 'it has no parameters'
        raise TransferError(f'network {name!r} ({kind}) cannot be a source: {what}.')
    # Run it: its classifier, its layers, and its channels.
    batch = (2, *shape)
    like = next(model.parameters())
    try:
        with quiet_randomness():
            head = find_head(model, torch.zeros(batch, dtype=like.dtype, device=like.device))
            layers = layers_of(model, batch)
            changes_images = _changes_images(model, next(iter(layers), ''), torch.rand(batch, dtype=like.dtype).to(like))
    except TransferError as error:
        raise TransferError(f'network {name!r} cannot be a source: {error}') from error
    except Exception as error:  # a user's forward method may raise anything
        raise TransferError(
            f'network {name!r} ({kind}) does not take images of shape {shape} ({reason(error)[:200]}); give the input_shape '
            'that it was trained on.'
        ) from error
    structure = structure_of(model, batch)
    count = cast(nn.Linear, model.get_submodule(head)).out_features
    if class_names is not None and len(class_names) != count:
        raise TransferError(f'network {name!r} has {count} classes, and class_names has {len(class_names)} names.')
    names = [] if class_names is None else list(map(str, class_names))
    tensors, aliases = first_names(model)
    facts = record(
        created=datetime.now(timezone.utc).isoformat(timespec='seconds'),
        versions={package: version(package) for package in ('nni-warmstart', 'nni', 'torch')},
        pictures=[shape[0], shape[1]],
        classes=None if names else count,
        layers={path: list(layer) for path, layer in layers.items()},
    )
    if changes_images:
        facts[CHANGES_IMAGES] = True
    return {
        'name': name,
        'tensors': {key: tensor.detach().cpu().clone() for key, tensor in tensors.items()},
        'aliases': aliases,
        'alphas': {},
        'candidates': {},
        'space': {'class': f'{cls.__module__}:{cls.__qualname__}'},
        'strategy': NETWORK,
        'class_names': names,
        'history': plain({**facts, **(history or {})}),
        'structure': structure,
    }


def _changes_images(model: nn.Module, first: str, images: Tensor) -> bool:
    """Check whether a layer reads other values than the network is given, of the same shape."""
    read: list[Tensor] = []
    handle = model.get_submodule(first).register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
    try:
        with modes_kept(model), torch.no_grad():
            model.eval()(images)
    finally:
        handle.remove()
    return bool(read) and read[0].shape == images.shape and not torch.equal(read[0], images)
