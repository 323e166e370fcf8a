"""Export of networks to files for programs that know nothing of NNI."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ConfigError, reason
from ..utils.modules import modes_kept

FORMATS = {'pt2': (), 'onnx': ('onnx', 'onnxscript')}
"""Formats that :func:`export` writes, and the packages that each needs."""

OLDEST = {'pt2': (2, 2), 'onnx': (2, 6)}
"""Oldest version of torch for each format."""


def export(network: nn.Module, path: str | os.PathLike[str], example: Tensor) -> Path:
    """Write a network for programs that know nothing of NNI; the file takes any number of images at once.

    Parameters
    ----------
    network
        Network to export; it is traced in evaluation mode.
    path
        Path of the file: ``NAME.pt2`` for ``torch.export.load``, or ``NAME.onnx``.
    example
        Example images ``(n, channels, height, width)``, n at least 2.

    Raises
    ------
    ConfigError
        If the ending is unknown, a package is missing, or the network cannot be exported.
    """
    path = Path(path)
    kind = path.suffix.lstrip('.')
    check_format(kind)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f'.{path.stem}.part{path.suffix}')
    dynamic: Any = ({0: torch.export.Dim('pictures', min=1)},)
    try:
        with modes_kept(network), torch.no_grad():
            network.eval()
            if kind == 'pt2':
                torch.export.save(torch.export.export(network, (example,), dynamic_shapes=dynamic), part)
            else:
                torch.onnx.export(
                    network, (example,), part, dynamo=True, dynamic_shapes=dynamic, external_data=False, verbose=False
                )
        os.replace(part, path)
    except Exception as error:  # torch's exporters raise many exceptions of their own
        part.unlink(missing_ok=True)
        why = reason(error)[:300]
        raise ConfigError(f'{type(network).__name__} cannot be exported as {kind}: {why}') from error
    return path


def check_format(kind: str) -> None:
    """Raise an error for a format that :func:`export` does not know, or lacks a package for."""
    if kind not in FORMATS:
        raise ConfigError(f'format {kind!r} is unknown; choose {" or ".join(FORMATS)}.')
    oldest, installed = OLDEST[kind], tuple(map(int, torch.__version__.split('.')[:2]))
    if installed < oldest:
        raise ConfigError(f'{kind} files need torch {".".join(map(str, oldest))} or newer; this is {torch.__version__}.')
    missing = [package for package in FORMATS[kind] if importlib.util.find_spec(package) is None]
    if missing:
        raise ConfigError(f"{kind} files need {' and '.join(missing)}: pip install 'nni-warmstart[onnx]'.")
