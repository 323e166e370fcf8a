"""Costs of a module on this machine: parameters, multiply-adds, and the time of one forward on the CPU."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from .modules import modes_kept, state_kept
from .random import quiet_randomness

WARM_UP, FEWEST = 3, 5
"""Forwards before any is measured, and the smallest number that is measured."""


class Latency(NamedTuple):
    """Milliseconds of one forward: median, and the first and third quartile."""

    median: float
    low: float
    high: float


def parameters(module: nn.Module) -> int:
    """Return the number of parameters, those that several layers share counted once."""
    return sum(parameter.numel() for parameter in module.parameters())


def multiply_adds(module: nn.Module, *inputs: Any, named: Mapping[str, Any] = MappingProxyType({})) -> int:
    """Return the multiply-adds of convolutions and matrix products in a forward; other operations are not counted.

    Torch counts two floating-point operations (FLOPs) for each. The module is in evaluation mode meanwhile.
    """
    counter = FlopCounterMode(display=False)
    with _measured(module), counter:
        module(*inputs, **named)
    return counter.get_total_flops() // 2


def latency(
    module: nn.Module, *inputs: Any, named: Mapping[str, Any] = MappingProxyType({}), seconds: float = 1.0, most: int = 50
) -> Latency:
    """Measure the time of a forward on one thread of the CPU, in evaluation mode and without gradients.

    It is the processor time of that thread: the elapsed time on a machine that does nothing else, whatever else runs now.

    Parameters
    ----------
    module
        Module on the CPU.
    *inputs, named
        Arguments of its forward, and those with names.
    seconds
        Time after which no further forward begins, once :data:`FEWEST` are measured.
    most
        Largest number of forwards that are measured.
    """
    with _measured(module), _one_thread():
        begun, times = time.perf_counter(), []
        for _ in range(WARM_UP):
            module(*inputs, **named)
        while len(times) < most and (len(times) < FEWEST or time.perf_counter() - begun < seconds):
            start = time.thread_time()
            module(*inputs, **named)
            times.append(1000 * (time.thread_time() - start))
    low, median, high = statistics.quantiles(times, n=4, method='inclusive')
    return Latency(median, low, high)


@contextmanager
def _measured(module: nn.Module) -> Iterator[None]:
    """Run a module in evaluation mode without gradients; its modes, buffers and the random generators stay as they were."""
    with modes_kept(module), state_kept(module), quiet_randomness(), torch.no_grad():
        module.eval()
        yield


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
