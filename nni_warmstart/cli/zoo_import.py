"""``nni-warmstart zoo import``: a pretrained network as an entry."""

from __future__ import annotations

import argparse
import os

from ..errors import ConfigError, ZooError
from .common import complain, console


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        'network', metavar='NAME',
        help='torchvision:NAME, timm:NAME or python:package.module:function, with @FILE.safetensors for weights of your own',
    )  # fmt: skip
    parser.add_argument('--name', help='name of the entry (default: that of the network)')
    parser.add_argument(
        '--image-size', type=int, metavar='PIXELS',
        help='size of the images of the network (default: the one it was trained on, where that is known)',
    )  # fmt: skip
    parser.add_argument('--licence', help='licence of the weights (default: the one that is published with them)')
    parser.add_argument('--download', action='store_true', help='fetch published weights that are not on the disk')
    parser.add_argument('--overwrite', action='store_true', help='replace an entry of this name')


def run(arguments: argparse.Namespace) -> None:
    """Read the network, and add it to the zoo."""
    from ..supernets.pretrained import registry
    from ..supernets.supernet import Supernet
    from ..zoo.zoo import open_zoo

    word, size = arguments.network, arguments.image_size
    if size is not None and not 1 <= size <= 4096:
        raise ConfigError(f'--image-size {size} must be from 1 to 4096.')
    if not registry.is_named(word) and os.path.isfile(os.path.expanduser(word)):
        name = Supernet.load(os.path.expanduser(word)).name  # refuses all but supernets, and says what to do
        raise ZooError(f'{word} is a supernet ({name!r}) already; nni-warmstart zoo add copies it.')
    zoo = open_zoo(arguments.zoo)
    entry = registry.named_network(
        word, input_shape=size, name=arguments.name, licence=arguments.licence, download=arguments.download
    )
    if entry.diverged:
        raise ZooError(f'{word} has {entry.divergence}; nothing can start from it.')
    console.print(f'Added {zoo.add(entry, overwrite=arguments.overwrite)}')
    for path, why in list(entry.traced().channels.opaque.items())[:1]:
        place = f'module {path!r}' if path else 'its forward'
        complain(f'{word} can be mapped in part only, with untraceable: fresh in a search ({place}: {why}).')
    if entry.licence is None:
        complain(f'No licence is published with {word}; add it with --licence, once you know it.')
