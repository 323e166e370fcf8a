"""Mapping onto more or fewer cells and layers."""

from __future__ import annotations

import pytest
import torch
from helpers.mapped import difference, mobile, trained
from nni.nas.hub.pytorch import NasBench201
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from torch import nn


@pytest.mark.slow
def test_deepening_starts_as_the_identity():
    error, report = difference(trained(mobile(16, (1, 2))), trained(mobile(16, (1, 4)), 1), 32)
    assert error < 1e-5
    assert any(origin.how == 'identity' for origin in report.origins)
    assert all(origin.how != 'fresh' for origin in report.origins if origin.parameter)


@pytest.mark.slow
def test_added_cells_without_an_identity_repeat_their_neighbour():
    source, target = trained(NasBench201(4, 1, 3)), trained(NasBench201(4, 2, 3), 1)
    _, report = difference(source, target, 8)
    assert report.blocks['cells.0'] == report.blocks['cells.1'] == 'cells.0'
    assert report.blocks['cells.2'] == 'cells.1'
    assert report.blocks['cells.7'] == 'cells.4'
    assert report.share_inherited == 1.0
    with torch.no_grad():
        assert torch.equal(
            target.cells[1].layers[0][0]['conv_3x3'].op[1].weight, source.cells[0].layers[0][0]['conv_3x3'].op[1].weight
        )


def test_shallower_targets_take_cells_of_the_relative_depth():
    _, report = difference(trained(NasBench201(4, 3, 3)), trained(NasBench201(4, 1, 3), 1), 8)
    assert report.blocks == {
        'cells.0': 'cells.1',
        'cells.1': 'cells.3',
        'cells.2': 'cells.5',
        'cells.3': 'cells.7',
        'cells.4': 'cells.9',
    }


class Stack(ModelSpace):
    """Plain layers in a sequence, and cells of one width and name."""

    def __init__(self, layers: int = 2, cells: int = 2, width: int = 6) -> None:
        super().__init__()
        first = nn.Conv2d(3, width, 3, padding=1)
        self.layers = nn.Sequential(first, *(nn.Conv2d(width, width, 3, padding=1) for _ in range(layers - 1)))
        ops = {'conv': lambda: nn.Conv2d(width, width, 3, padding=1), 'skip': nn.Identity}
        self.cells = nn.ModuleList(
            LayerChoice({op: ops[op]() for op in ops}, label=f'cell{index}') for index in range(cells)
        )
        self.head = nn.Linear(width, 3)

    def forward(self, x):
        x = self.layers(x)
        for cell in self.cells:
            x = torch.relu(cell(x))
        return self.head(x.mean((2, 3)))


@pytest.mark.parametrize('width', [6, 12])
def test_shallower_targets_of_any_width_take_the_relative_depth(width):
    source, target = trained(Stack(cells=6)), trained(Stack(cells=3, width=width), 1)
    _, report = difference(source, target, 8)
    assert report.blocks == {'cells.0': 'cells.0', 'cells.1': 'cells.2', 'cells.2': 'cells.5'}
    if width == 6:
        assert torch.equal(target.cells[2]['conv'].weight, source.cells[5]['conv'].weight)


def test_added_layers_are_not_made_of_the_one_that_reads_the_pictures():
    target = trained(Stack(4), 1)
    _, report = difference(trained(Stack(2)), target, 8)
    assert {f'layers.{index}': report.blocks[f'layers.{index}'] for index in (1, 2, 3)} == {
        'layers.1': 'layers.1', 'layers.2': 'layers.1', 'layers.3': 'layers.1',
    }  # fmt: skip
    assert all(torch.linalg.matrix_rank(layer.weight.transpose(0, 1).flatten(1)) == 6 for layer in target.layers[1:])
