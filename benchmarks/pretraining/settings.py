"""Sources, targets and variants of the recipe that are compared, and the rows of each step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.common.rows import Rows
from benchmarks.rebuild_zoo import DATASETS, SINGLE

HERE = Path(__file__).resolve().parent
JOINT = list(DATASETS)
"""Datasets of the joint source."""
SOURCES = SINGLE
"""Datasets of the shipped sources that have one each."""
MORE = ['clothing_3k', 'grocery_3k']
DEVELOPMENT = ['kannada_digits', 'plant_seedlings', 'sign_digits']
"""Tasks that were looked at while recipes were made."""
TARGETS = [
    'mnist', 'math_symbols', 'gtsrb', 'flowers5', 'spoken_digits', 'steel_defects', 'quickdraw3', 'house_rooms', 'dog_cat',
    'solar_cells', 'cifar10', 'tinyimagenet_things', 'tinyimagenet_animals', 'usps', 'digits8x8',
]  # fmt: skip
"""All other tasks of families that no source has seen, without the X-rays that the claim was tuned on."""
ADDED = TARGETS[12:]
"""Targets that were added after a first look at the others."""
SEQUENCE = [
    'mnist', 'flowers5', 'usps', 'spoken_digits', 'math_symbols', 'cifar10', 'steel_defects', 'tinyimagenet_things',
    'quickdraw3', 'gtsrb',
]  # fmt: skip
ORDERS = {'forwards': SEQUENCE, 'backwards': SEQUENCE[::-1]}
COLD, WARM, LONG = 20, 5, 10
ABLATION: dict[str, dict[str, Any]] = {
    'recipe': {},
    'draws ~ n': {'temperature': 1.0},
    'draws equal': {'temperature': 1e6},
    'batch norm per dataset': {'batch_norm': 'per_dataset'},
    'no augmentation': {'jitter': 0.0},
    'crop for jitter': {'jitter': 0.0, 'crop': 0.125},
    '+ flips of photographs': {'flip': ['clothing', 'grocery', 'blood_cells']},
    '+ cutout': {'cutout': 0.4},
    '+ label smoothing': {'label_smoothing': 0.1},
    '+ drop path': {'drop_path': 0.2},
}
"""What each variant changes in the recipe."""
ABLATION_EPOCHS = 6

targets = Rows(HERE / 'pretraining_targets.jsonl', ('target', 'source', 'epochs', 'seed'))
costs = Rows(HERE / 'pretraining_cost.jsonl', ('datasets', 'repeat'))
ablation = Rows(HERE / 'pretraining_ablation.jsonl', ('variant', 'seed', 'target'))
sequence = Rows(HERE / 'pretraining_sequence.jsonl', ('order', 'place'))
