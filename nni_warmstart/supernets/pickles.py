"""Recognition of pickles, which are never loaded, and what to do about them."""

from __future__ import annotations

import os


def is_pickle(first: bytes) -> bool:
    """Check whether a file that is no safetensors file is a pickle, or a zip file around one, as torch writes them.

    Parameters
    ----------
    first
        First bytes of the file; as the length of the header of a safetensors file, they would be a huge number.
    """
    return first[:4] == b'PK\x03\x04' or (len(first) > 1 and first[0] == 0x80 and 2 <= first[1] <= 5)


def refusal(path: str | os.PathLike[str]) -> str:
    """Return the error about a pickle: why it is refused, and how to convert it."""
    name, kind = os.path.splitext(os.path.basename(os.fspath(path)))
    new = f'{name}.safetensors'
    load, other = f'torch.load({name + kind!r}, weights_only=True)', ''
    if kind == '.pt2':
        program = f'torch.export.load({name + kind!r})'
        load, other = f'{program}.state_dict', f', or, without such a function, save Supernet.from_network({program}, ...)'
    return (
        f'{path} is a pickle, which is never loaded, since that may run any code; if you trust it, convert it by '
        f'safetensors.torch.save_file({load}, {new!r}), and name the function that builds the network with the new file: '
        f'python:package.module:function@{new}{other}.'
    )
