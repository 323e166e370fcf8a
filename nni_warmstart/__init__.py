"""Warm-started differentiable architecture search on Microsoft NNI."""

from .distance.otdd import DatasetDistance, dataset_distance
from .distance.sketch import DatasetSketch
from .errors import ConfigError, DataError, SupernetFileError, TransferError, WarmStartError, ZooError
from .joint import JointClassification
from .mapping.report import TransferReport
from .mapping.transfer import transfer
from .ranking import Ranked
from .strategy import WarmStartDARTS, WarmStartGumbelDARTS, WarmStartProxyless
from .supernet import Supernet
from .zoo import SupernetZoo

__all__ = [
    'ConfigError',
    'DataError',
    'DatasetDistance',
    'DatasetSketch',
    'JointClassification',
    'Ranked',
    'Supernet',
    'SupernetFileError',
    'SupernetZoo',
    'TransferError',
    'TransferReport',
    'WarmStartDARTS',
    'WarmStartError',
    'WarmStartGumbelDARTS',
    'WarmStartProxyless',
    'ZooError',
    'dataset_distance',
    'transfer',
]
