"""Warm-started differentiable architecture search on Microsoft NNI."""

from .errors import ConfigError, DataError, SupernetFileError, TransferError, WarmStartError, ZooError
from .mapping.report import TransferReport
from .mapping.transfer import transfer
from .pretrain import JointClassification
from .strategy import WarmStartDARTS, WarmStartGumbelDARTS, WarmStartProxyless
from .supernet import Supernet
from .zoo import SupernetZoo

__all__ = [
    'ConfigError',
    'DataError',
    'JointClassification',
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
    'transfer',
]
