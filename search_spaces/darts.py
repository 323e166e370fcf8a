"""The DARTS space of NNI's hub, for any input and number of classes."""

from __future__ import annotations

from typing import Any

from nni.nas.hub.pytorch import DARTS as HubDarts
from nni.nas.hub.pytorch.nasnet import NDS
from nni.nas.nn.pytorch import MutableBatchNorm2d, MutableConv2d, MutableLinear, model_context
from torch import nn


class DartsSpace(NDS):
    """Normal and reduction cells with eight candidate ops per edge (Liu, Simonyan & Yang, ICLR 2019).

    Cells are NNI's, with affine batch norm, and none after pooling, unlike the original.

    Parameters
    ----------
    width
        Channels of an op in the first stage; they double at each of the two reduction cells.
    num_cells
        Number of cells, at least 3, one per stage.
    in_channels
        Channels of an image.
    num_classes
        Rows of the classifier.
    image_size
        Size in pixels of the (square) images that the space is meant for; the network itself takes any size.
    stem_stride
        Stride of the first convolution; 2 makes 32-pixel images as cheap as 16-pixel ones.
    num_nodes
        Number of intermediate nodes of a cell.
    drop_path_prob
        Probability with which an op's output is dropped in training.
    """

    def __init__(
        self,
        width: int = 8,
        num_cells: int = 3,
        in_channels: int = 3,
        num_classes: int = 10,
        image_size: int = 32,
        stem_stride: int = 1,
        num_nodes: int = 4,
        drop_path_prob: float = 0.0,
    ) -> None:
        if num_cells < 3:
            raise ValueError(f'num_cells = {num_cells}, but the space needs at least 3: one cell per stage.')
        super().__init__(
            HubDarts.DARTS_OPS,
            merge_op='all',
            num_nodes_per_cell=num_nodes,
            width=width,
            num_cells=num_cells,
            dataset='cifar',
            drop_path_prob=drop_path_prob,
        )
        self.image_size = image_size
        self.num_labels = num_classes
        self._rebuild: dict[str, Any] = {
            'width': width,
            'num_cells': num_cells,
            'in_channels': in_channels,
            'num_classes': num_classes,
            'image_size': image_size,
            'stem_stride': stem_stride,
            'num_nodes': num_nodes,
            'drop_path_prob': drop_path_prob,
        }
        self.stem = nn.Sequential(
            MutableConv2d(in_channels, 3 * width, 3, stride=stem_stride, padding=1, bias=False),
            MutableBatchNorm2d(3 * width),
        )
        self.classifier = MutableLinear(self.classifier.in_features, num_classes)

    def freeze(self, sample: dict[str, Any]) -> nn.Module:
        """Build the chosen architecture with fresh weights, as :meth:`nni.nas.hub.pytorch.nasnet.NDS.freeze` does."""
        with model_context(sample):
            return DartsSpace(**self._rebuild)
