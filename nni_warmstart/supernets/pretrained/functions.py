"""Scheme ``python:``: networks that a function of the user builds."""

from __future__ import annotations

from torch import nn

from ...errors import ConfigError, reason
from ...utils.importing import imported
from .base import Pretrained, Scheme


def make(name: str) -> nn.Module:
    """Return the network that a function builds.

    Parameters
    ----------
    name
        ``package.module:function``; it is called without arguments.

    Raises
    ------
    ConfigError
        If there is no such function, or it fails or returns something else.
    """
    function = imported(name, 'source python')
    try:
        network = function()
    except Exception as error:  # a user's function may raise anything
        raise ConfigError(f'source python:{name} fails: {type(error).__name__}: {reason(error)}') from error
    if not isinstance(network, nn.Module):
        raise ConfigError(f'source python:{name} returned a {type(network).__name__}; it must return a network (nn.Module).')
    return network


def read(name: str, weights: str, download: bool) -> Pretrained:
    """Return the network that a function builds and gives its weights."""
    return Pretrained(make(name), name.rpartition(':')[2], facts={'origin': f'python:{name}'})


SCHEME = Scheme(make=make, read=read)
