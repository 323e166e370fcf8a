"""The yardstick: reach the target, and hold it."""

import random

import pytest

from nni_warmstart.utils.metrics import epochs_to, final_accuracy


@pytest.mark.parametrize(
    ('curve', 'target', 'epoch'),
    [
        ([0.1, 0.9, 0.9, 0.9], 0.9, 2),
        ([0.1, 0.9, 0.2, 0.9], 0.9, 4),  # the second epoch is not held
        ([0.1, 0.95, 0.85, 0.9], 0.9, 2),  # its mean with the next two is
        ([0.1, 0.2], 0.9, None),
        ([0.9], 0.9, 1),
        ([], 0.9, None),
    ],
)
def test_known_curves(curve, target, epoch):
    assert epochs_to(curve, target) == epoch


def test_every_curve_holds_its_own_final_accuracy():
    generator = random.Random(0)
    for _ in range(500):
        curve = [generator.random() for _ in range(generator.randint(1, 8))]
        assert epochs_to(curve, final_accuracy(curve)) is not None
