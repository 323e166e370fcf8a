"""Head 'ot': a classifier averaged from the class weights of the source along the coupling of the classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ...distance.otdd import dataset_distance
from ...distance.sketch import DatasetSketch
from ...errors import TransferError
from ...mapping.projection import barycentric_projection
from ...supernets.supernet import Supernet
from .base import BOLDNESS, Head, HeadData, LinearHead, check_every_class, sharpness


def transported(
    source: LinearHead,
    sketch: DatasetSketch,
    features: Tensor,
    labels: Tensor,
    n_classes: int,
    *,
    boldness: float = BOLDNESS,
) -> LinearHead:
    r"""Average a source's class weights along the coupling of the classes into a classifier for new classes.

    The optimal transport dataset distance between the source's classes and the target's, both in features (of the target, in
    those of the warm network, which differs from the source by ``keep``), couples the classes with masses :math:`\Gamma`;
    target class :math:`j` gets :math:`\sum_i \Gamma_{ij} w_i / \sum_i \Gamma_{ij}`. Only one scale of all logits is fitted
    (see :func:`~nni_warmstart.warm_start.heads.ridge.ridge`).

    Parameters
    ----------
    source
        Classifier of the source.
    sketch
        Sketch of the source's data in its own features; its ``classes`` are rows of ``source``.
    features
        Features of the target's data in the same space, shape ``(n, d)``.
    labels
        Classes, shape ``(n,)``, int64; every class needs a sample.
    n_classes, boldness
        Same as in :func:`~nni_warmstart.warm_start.heads.ridge.ridge`.

    Returns
    -------
    LinearHead
        Classifier with dtype and device of ``features``.

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


def _fit(data: HeadData) -> LinearHead:
    classifier, sketch = _classifier_and_sketch(data.source, data.name, data.features.shape[1])
    return transported(classifier, sketch, data.features, data.labels, data.n_classes)


def _classifier_and_sketch(source: Supernet, name: str, width: int) -> tuple[LinearHead, DatasetSketch]:
    """Return a source's classifier of ``width`` features, and the sketch of its data in its own features."""
    sketch, weight = source.sketches.get(source.key), source.state_dict().get(f'{name}.weight')
    if sketch is None or weight is None:
        raise TransferError(
            f"head 'ot' needs the classifier of supernet {source.name!r} and a sketch of its data in its own features, and "
            f"there is no {'sketch' if sketch is None else 'classifier'}; use head='ridge'."
        )
    if weight.shape[1] != width:
        raise TransferError(
            f"head 'ot' needs features of equal width, and {source.name!r} has {weight.shape[1]}, the target {width}; "
            "use head='ridge'."
        )
    bias = source.state_dict().get(f'{name}.bias')
    return LinearHead(weight, torch.zeros(len(weight)) if bias is None else bias), sketch


def has_own_sketch(source: Supernet, rows: dict[str, int], same: bool, names: Sequence[str]) -> bool:
    """Check whether a source has the target's space and a sketch of its data in its own features."""
    return same and source.key in source.sketches


HEAD = Head(fit=_fit, origin='transported', suits=has_own_sketch)
