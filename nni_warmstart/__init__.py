"""Warm-started differentiable architecture search on Microsoft NNI."""

from __future__ import annotations

import importlib
import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .distance.otdd import DatasetDistance, dataset_distance
    from .distance.sketch import DatasetSketch
    from .errors import ConfigError, DataError, DivergenceError, SupernetFileError, TransferError, WarmStartError, ZooError
    from .evaluators.joint import JointClassification
    from .runs.classifier import WarmStartClassifier
    from .search.strategies import WarmStartDARTS, WarmStartGumbelDARTS, WarmStartProxyless
    from .supernets.supernet import Supernet
    from .warm_start.report import TransferReport
    from .warm_start.transfer import transfer
    from .zoo.ranking import Ranked
    from .zoo.zoo import SupernetZoo

_MODULES = {
    'ConfigError': 'errors',
    'DataError': 'errors',
    'DatasetDistance': 'distance.otdd',
    'DatasetSketch': 'distance.sketch',
    'DivergenceError': 'errors',
    'JointClassification': 'evaluators.joint',
    'Ranked': 'zoo.ranking',
    'Supernet': 'supernets.supernet',
    'SupernetFileError': 'errors',
    'SupernetZoo': 'zoo.zoo',
    'TransferError': 'errors',
    'TransferReport': 'warm_start.report',
    'WarmStartClassifier': 'runs.classifier',
    'WarmStartDARTS': 'search.strategies',
    'WarmStartError': 'errors',
    'WarmStartGumbelDARTS': 'search.strategies',
    'WarmStartProxyless': 'search.strategies',
    'ZooError': 'errors',
    'dataset_distance': 'distance.otdd',
    'transfer': 'warm_start.transfer',
}
"""Public name -> its module, imported on first use (PEP 562), since torch and NNI take seconds to import."""

__all__ = [
    'ConfigError',
    'DataError',
    'DatasetDistance',
    'DatasetSketch',
    'DivergenceError',
    'JointClassification',
    'Ranked',
    'Supernet',
    'SupernetFileError',
    'SupernetZoo',
    'TransferError',
    'TransferReport',
    'WarmStartClassifier',
    'WarmStartDARTS',
    'WarmStartError',
    'WarmStartGumbelDARTS',
    'WarmStartProxyless',
    'ZooError',
    'dataset_distance',
    'transfer',
]

_SUBMODULES = ('data', 'errors', 'search_spaces')
"""Submodules whose names are public as well."""

# NNI 3.0 wraps every name in torch.nn, and warns of names in newer versions of torch that are not modules
warnings.filterwarnings('ignore', message='.*is found to be not a nn.Module.*')


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return importlib.import_module(f'.{name}', __name__)
    if name not in _MODULES:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    value = getattr(importlib.import_module(f'.{_MODULES[name]}', __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_SUBMODULES})
