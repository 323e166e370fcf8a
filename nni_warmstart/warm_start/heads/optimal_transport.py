"""A classifier averaged from the class weights of the source along the coupling of the classes."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from ...distance.otdd import dataset_distance
from ...distance.sketch import DatasetSketch
from ...errors import TransferError
from ...mapping.projection import barycentric_projection
from .base import BOLDNESS, LinearHead, check_every_class, sharpness


def transported(
    source: LinearHead,
    sketch: DatasetSketch,
    features: Tensor,
    labels: Tensor,
    n_classes: int,
    *,
    boldness: float = BOLDNESS,
) -> LinearHead:
    r"""A classifier for new classes, averaged from a source's class weights along the coupling of the classes.

    The optimal transport dataset distance between the source's classes and the target's, both as features (the target's of
    the warm network, which differs from the source by ``keep``), couples the classes with masses :math:`\Gamma`; target
    class :math:`j` gets :math:`\sum_i \Gamma_{ij} w_i / \sum_i \Gamma_{ij}`. Nothing is fitted, except one scale of all
    logits (see :func:`ridge`).

    Parameters
    ----------
    source
        The source's classifier.
    sketch
        The source's data in its own features; its ``classes`` are rows of ``source``.
    features
        Of the target, in the same space, shape ``(n, d)``.
    labels
        Classes, shape ``(n,)``, int64; every class needs a sample.
    n_classes, boldness
        As in :func:`ridge`.

    Returns
    -------
    LinearHead
        dtype and device of ``features``.

    Raises
    ------
    TransferError
        If a class has no sample, or the sketch is of other features.
    """
    check_every_class(labels, n_classes, 'ot')
    if sketch.dimension != features.shape[1] or int(sketch.classes.max()) >= len(source.weight):
        raise TransferError(
            f"head 'ot': the source's sketch has {sketch.dimension} dimensions and classes up to {int(sketch.classes.max())}"
            f', but there are {features.shape[1]} features and {len(source.weight)} source classes.'
        )
    target = replace(DatasetSketch.from_dataset((features.cpu(), labels.cpu()), name='target'), embedding=sketch.embedding)
    coupling = dataset_distance(sketch, target).label_coupling
    weight, bias = (barycentric_projection(coupling, part.double().cpu()[sketch.classes]) for part in source)
    scores = features.double().cpu() @ weight.T + bias
    scale = boldness * sharpness(scores, labels.cpu())
    return LinearHead((scale * weight).to(features), (scale * bias).to(features))
