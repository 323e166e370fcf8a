"""Model spaces by name: registered ones, NNI's hub, and classes of users as ``package.module:Class``."""

from __future__ import annotations

import copy
import importlib
import inspect
import os
import sys
from collections.abc import Callable
from typing import Any, cast

import nni.nas.hub.pytorch as hub
import torch
from nni.nas.nn.pytorch import ModelSpace
from torch.nn.parameter import is_lazy

from ..errors import REFUSALS, ConfigError, reason
from ..search_spaces import SPACES  # pyright: ignore[reportMissingImports]  (mapped by package_dir in setup.cfg)
from ..utils.checks import suggestion
from ..utils.random import quiet_randomness
from .mutation import mutate

CLASS_ARGUMENTS = ('num_classes', 'num_labels')
"""Names of the argument for the number of classes in model spaces."""

_LARGEST = 4096  # largest number of channels, and largest image size in pixels


def hub_spaces() -> dict[str, type[ModelSpace]]:
    """Return the model spaces of NNI's hub by name."""
    members = inspect.getmembers(hub, inspect.isclass)
    return {name: cls for name, cls in members if issubclass(cls, ModelSpace) and cls is not ModelSpace}


def space_names() -> dict[str, type[ModelSpace]]:
    """Return all spaces with a name: those of ``search_spaces`` (lower case), then those of NNI's hub."""
    return {**SPACES, **hub_spaces()}


def resolve(name: str, *, allow_import: bool = False) -> type[ModelSpace]:
    """Return the class of a model space.

    Parameters
    ----------
    name
        A key of :func:`space_names`, or ``package.module:Class``.
    allow_import
        Whether ``package.module:Class`` may be imported. True only for names that the user wrote; never for a supernet's
        card, which must not choose the code that runs.

    Raises
    ------
    ConfigError
        If there is no such space, or it may not be imported.
    """
    known = space_names()
    if name in known:
        return known[name]
    if ':' not in name:
        raise ConfigError(
            f'space.name = {name!r} is unknown; choose one of {", ".join(known)}, or give your own as package.module:Class.'
            + suggestion(name, known)
        )
    if not allow_import:
        raise ConfigError(
            f'{name!r} is not a registered or hub space; pass your own class yourself: build(space=YourSpace()).'
        )
    module_name, _, class_name = name.partition(':')
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # console scripts don't look there, `python -m` does
    try:
        cls = getattr(importlib.import_module(module_name), class_name)
    except Exception as error:  # a user's module may raise anything
        raise ConfigError(
            f'space.name = {name!r} cannot be imported ({reason(error)}); check the module and class name.'
        ) from error
    if not (inspect.isclass(cls) and issubclass(cls, ModelSpace)):
        raise ConfigError(f'space.name = {name!r} is not a subclass of nni.nas.nn.pytorch.ModelSpace.')
    return cls


def parameters_of(cls: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Return the arguments of a model space's constructor, behind NNI's wrappers."""
    init = getattr(cls, '_init_wrapped', cls)
    return {name: p for name, p in inspect.signature(init).parameters.items() if name != 'self'}


def input_of(cls: Callable[..., Any], arguments: dict[str, Any]) -> tuple[int, int]:
    """Return channels and size (pixels) of the images that a space takes: by its arguments, else 3 channels, 32 pixels."""
    sizes = []
    for name, default in (('in_channels', 3), ('image_size', 32)):
        parameter = parameters_of(cls).get(name)
        if parameter is not None and parameter.default is not inspect.Parameter.empty:
            default = parameter.default
        value = arguments.get(name, default)
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= _LARGEST:
            squares = ' Images become squares of that size, whatever shape they have.' if name == 'image_size' else ''
            raise ConfigError(
                f'space.{name} = {value!r}, but it must be a whole number, 1 or more, at most {_LARGEST}.{squares}'
            )
        sizes.append(value)
    return sizes[0], sizes[1]


def trained_shape(space: dict[str, Any], shape: tuple[int, int]) -> tuple[int, int]:
    """Return channels and size (pixels) of the images that a named space was trained on, whose data have a shape.

    Data are adapted to the channels that a space takes, and to its size where it has one.
    """
    cls = resolve(space['name'])
    channels, size = input_of(cls, space['arguments'])
    return channels, size if 'image_size' in parameters_of(cls) else shape[1]


def create(name: str, arguments: dict[str, Any], num_classes: int, *, allow_import: bool = False) -> ModelSpace:
    """Build the named space for ``num_classes`` classes.

    Raises
    ------
    ConfigError
        If an argument is unknown or impossible, or the space cannot have that many classes.
    """
    cls = resolve(name, allow_import=allow_import)
    known = parameters_of(cls)
    arguments = dict(arguments)
    for key in ('image_size', 'in_channels'):
        if key not in known:
            arguments.pop(key, None)  # used for the data only
    for key, value in arguments.items():
        if key not in known:
            raise ConfigError(f'space.{key} is unknown to {name}; it takes {", ".join(known)}.{suggestion(key, known)}')
        if type(value) is int and value < 0 and ':' not in name:
            raise ConfigError(f'space.{key} = {value}, but it must not be negative.')
    argument = _class_argument(cls)
    if argument is not None:
        arguments[argument] = num_classes
    try:
        space = cast(ModelSpace, cls(**arguments))
    except REFUSALS as error:
        raise ConfigError(f'space {name} cannot be built with {arguments}: {reason(error).rstrip(".")}.') from error
    if not space.simplify():
        raise ConfigError(f'space {name} with {arguments} has nothing to choose; give it at least one cell or choice.')
    if any(not is_lazy(weight) and not weight.numel() for weight in space.parameters()):
        raise ConfigError(f'space {name} with {arguments} has layers without any weights; make its width 1 or more.')
    fixed = getattr(space, 'num_labels', num_classes)
    if fixed != num_classes:
        raise ConfigError(
            f'{name} of NNI\'s hub always has {fixed} classes, and the data have {num_classes}; use the space "darts", '
            'or your own class with a num_classes argument.'
        )
    return space


def _class_argument(cls: Callable[..., Any]) -> str | None:
    """Return the name of the argument for the number of classes; None for a space that has none."""
    return next((key for key in CLASS_ARGUMENTS if key in parameters_of(cls)), None)


def with_classes(described: dict[str, Any], num_classes: int) -> dict[str, Any]:
    """Return the description of the same space for another number of classes, if it has a name and such an argument."""
    known = space_names().get(described.get('name', ''))
    argument = None if known is None else _class_argument(known)
    if argument is None:
        return described
    return {**described, 'arguments': {**described['arguments'], argument: num_classes}}


def rebuilt(described: dict[str, Any]) -> ModelSpace:
    """Rebuild the space that :func:`describe` described by name and arguments.

    Raises
    ------
    ConfigError
        If the name is none of :func:`space_names`, or the arguments are impossible.
    """
    cls = resolve(described['name'])
    try:
        return cast(ModelSpace, cls(**described['arguments']))
    except REFUSALS as error:
        arguments = str(described['arguments'])[:300]
        raise ConfigError(f'{described["name"]} cannot be built with {arguments}: {reason(error)}') from error


def check_supernet(space: ModelSpace, channels: int, side: int) -> None:
    """Raise an error for a space whose supernet cannot run on images in training, before anything is chosen or trained.

    Raises
    ------
    ConfigError
        If two images of that size do not go through, for instance because candidates of a choice have different shapes.
    """
    with quiet_randomness():
        try:
            model = mutate(copy.deepcopy(space), 'DARTS')
        except REFUSALS:
            return  # the strategy itself says why
        try:
            with torch.no_grad():
                model.train()(torch.rand(2, channels, side, side))
        except REFUSALS as error:
            raise ConfigError(
                f'images do not go through the supernet of {type(space).__name__} in training ({reason(error)}); all '
                'candidates of a choice must give outputs of one shape.'
            ) from error


def check_input(space: ModelSpace, channels: int, side: int, num_classes: int) -> None:
    """Raise an error for images that the space cannot take and outputs that are not logits, before anything is trained.

    Raises
    ------
    ConfigError
        If an image of that size does not go through, or does not give ``num_classes`` numbers.
    """
    was_training = space.training
    try:
        with torch.no_grad(), quiet_randomness():
            output = space.eval()(torch.zeros(2, channels, side, side))
    except REFUSALS as error:
        raise ConfigError(
            f'images of {channels} channels and {side} x {side} pixels do not go through {type(space).__name__} '
            f'({reason(error)}); set space.image_size (and space.in_channels) to what it can take.'
        ) from error
    finally:
        space.train(was_training)
    shape = tuple(getattr(output, 'shape', ()))
    if shape != (2, num_classes):
        raise ConfigError(
            f'{type(space).__name__} gives outputs of shape {shape} for two images, but the data have {num_classes} '
            f'classes: {(2, num_classes)} is needed; give its class an argument num_classes.'
        )


def describe(space: ModelSpace) -> dict[str, Any]:
    """Describe a space for a card by its name and the arguments of its constructor.

    A class without a name is recorded under ``class``, without arguments and for information only; it is never imported from
    a card. So is a space with arguments that are not plain data (numbers, text, booleans, lists, dicts of those).
    """
    cls = type(space)
    name = next((key for key, value in space_names().items() if value is cls), None)
    arguments = {key: _plain(value) for key, value in space.trace_kwargs.items()}
    if name is None or space.trace_args or any(value is _NOT_PLAIN for value in arguments.values()):
        return {'class': f'{cls.__module__}:{cls.__qualname__}'}
    return {'name': name, 'arguments': arguments}


_NOT_PLAIN = object()


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        items = [_plain(item) for item in value]
        return _NOT_PLAIN if any(item is _NOT_PLAIN for item in items) else items
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        items = {key: _plain(item) for key, item in value.items()}
        return _NOT_PLAIN if any(item is _NOT_PLAIN for item in items.values()) else items
    return _NOT_PLAIN
