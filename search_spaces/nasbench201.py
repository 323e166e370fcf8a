"""The NAS-Bench-201 space of NNI's hub, for any input."""

from __future__ import annotations

from nni.nas.hub.pytorch import NasBench201
from torch import nn


class NasBench201Space(NasBench201):
    """Three stacks of cells with five candidate ops on each of six edges (Dong & Yang, ICLR 2020).

    Parameters
    ----------
    width
        Channels of the first stack; the second has twice, the third four times as many.
    depth
        Number of cells per stack.
    in_channels
        Channels of an image.
    num_classes
        Rows of the classifier.
    image_size
        Size in pixels of the (square) images that the space is meant for; the network itself takes any size.
    stem_stride
        Stride of the first convolution; 2 makes 32-pixel images as cheap as 16-pixel ones.
    """

    def __init__(
        self,
        width: int = 16,
        depth: int = 1,
        in_channels: int = 3,
        num_classes: int = 10,
        image_size: int = 32,
        stem_stride: int = 1,
    ) -> None:
        super().__init__(stem_out_channels=width, num_modules_per_stack=depth, num_labels=num_classes)
        self.image_size = image_size
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, width, kernel_size=3, stride=stem_stride, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )
