"""Closed-form classifiers on warm features: the first thing a search on new classes needs."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from .. import introspect, spaces
from ..distance.otdd import dataset_distance
from ..distance.sketch import DatasetSketch
from ..errors import TransferError
from ..spaces import CLASS_ARGUMENTS
from .labelled import has_classes

HEADS = ('ridge', 'ot', 'prototype', 'random', 'copy')
"""Ways to initialise the classifier of a warm supernet."""

FITTED = ('ridge', 'ot', 'prototype')
"""Those that are computed from the target's data."""

BOLDNESS = 0.3
"""Share of the calibrated logits that :func:`ridge` gives. Bold logits send large gradients into the body and undo what it
inherited: on 1,300 MNIST pictures, 5 warm epochs ended at 0.946 with calibrated logits, 0.954 with 0.3 of them and 0.947
with 0.07."""


class LinearHead(NamedTuple):
    """A linear classifier: logits are ``features @ weight.T + bias``.

    ``weight`` has shape ``(n_classes, d)``, ``bias`` ``(n_classes,)`` (zeros where the classifier has none).
    """

    weight: Tensor
    bias: Tensor


def ridge(features: Tensor, labels: Tensor, n_classes: int, *, bias: bool = True, boldness: float = BOLDNESS) -> LinearHead:
    r"""Ridge regression onto one-hot classes, scaled to be a classifier's logits.

    The penalty minimises the leave-one-out squared error, which ridge regression has in closed form,
    :math:`(y_i - \hat y_i) / (1 - H_{ii})` with the hat matrix :math:`H`. Predictions lie near 0 and 1; as logits they
    would be far too timid, so they are multiplied by ``boldness`` times the scale that minimises the cross-entropy of the
    leave-one-out predictions.

    Parameters
    ----------
    features
        Inputs of the classifier, shape ``(n, d)``.
    labels
        Classes, shape ``(n,)``, int64.
    n_classes
        Rows of the classifier.
    bias
        Whether it has a bias; without one, features are not centred.
    boldness
        Share of the calibrated scale; 1 gives the logits of a calibrated classifier.

    Returns
    -------
    LinearHead
        dtype and device of ``features``; computed in float64.

    References
    ----------
    Hoerl & Kennard, *Ridge Regression*, Technometrics 12(1), 1970; Allen, *The Relationship between Variable Selection
    and Data Augmentation and a Method for Prediction*, Technometrics 16(1), 1974 (the leave-one-out formula).
    """
    return _ridge(features, labels, n_classes, bias, boldness)[0]


def _ridge(features: Tensor, labels: Tensor, n_classes: int, bias: bool, boldness: float) -> tuple[LinearHead, Tensor]:
    """The classifier, and what the regression predicts for each sample when that is left out of it."""
    x = features.double()
    y = torch.nn.functional.one_hot(labels, n_classes).double()
    mean_x = x.mean(0) if bias else torch.zeros_like(x[0])
    mean_y = y.mean(0) if bias else torch.zeros_like(y[0])
    u, s, v = torch.linalg.svd(x - mean_x, full_matrices=False)
    target = u.T @ (y - mean_y)
    scale_of_penalty = (s**2).mean().clamp_min(1e-12)
    best: tuple[float, Tensor, Tensor] | None = None
    for exponent in range(-6, 3):
        penalty = scale_of_penalty * 10.0**exponent
        shrink = s**2 / (s**2 + penalty)
        leverage = (u**2 * shrink).sum(1) + (1 / len(x) if bias else 0)
        fitted = mean_y + u @ (shrink[:, None] * target)
        left_out = y - (y - fitted) / (1 - leverage).clamp_min(1e-6)[:, None]
        error = ((y - left_out) ** 2).sum().item()
        if best is None or error < best[0]:
            best = (error, v.T @ ((shrink / s.clamp_min(1e-12))[:, None] * target), left_out)
    assert best is not None
    _, weight, left_out = best
    scale = boldness * _sharpness(left_out, labels)
    intercept = mean_y - mean_x @ weight
    return LinearHead((scale * weight.T).to(features.dtype), (scale * intercept).to(features.dtype)), left_out


def prototype(features: Tensor, labels: Tensor, n_classes: int) -> LinearHead:
    r"""Nearest class mean as a linear classifier.

    With class means :math:`\mu_c` and the mean variance :math:`\sigma^2` within classes, logits are
    :math:`(\mu_c^\top x - \mu_c^\top \mu_c / 2) / \sigma^2`: linear discriminant analysis with an isotropic covariance.

    Parameters and return value as in :func:`ridge`; every class needs a sample.
    """
    x = features.double()
    membership = torch.nn.functional.one_hot(labels, n_classes).double()
    _check_every_class(labels, n_classes, 'prototype')
    means = (membership.T @ x) / membership.sum(0)[:, None]
    variance = ((x - means[labels]) ** 2).sum() / x.numel()
    weight = means / variance.clamp_min(1e-12)
    return LinearHead(weight.to(features.dtype), (-0.5 * (weight * means).sum(1)).to(features.dtype))


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
    _check_every_class(labels, n_classes, 'ot')
    if sketch.dimension != features.shape[1] or int(sketch.classes.max()) >= len(source.weight):
        raise TransferError(
            f"head 'ot': the source's sketch has {sketch.dimension} dimensions and classes up to {int(sketch.classes.max())}"
            f', but there are {features.shape[1]} features and {len(source.weight)} source classes.'
        )
    target = replace(DatasetSketch.from_dataset((features.cpu(), labels.cpu()), name='target'), embedding=sketch.embedding)
    coupling = dataset_distance(sketch, target).label_coupling
    weight, bias = (barycentric_projection(coupling, part.double().cpu()[sketch.classes]) for part in source)
    scores = features.double().cpu() @ weight.T + bias
    scale = boldness * _sharpness(scores, labels.cpu())
    return LinearHead((scale * weight).to(features), (scale * bias).to(features))


def barycentric_projection(coupling: Tensor, source: Tensor) -> Tensor:
    r"""Average source rows at every target point, weighted by transported mass.

    For target point :math:`j` the result is :math:`\sum_i \Gamma_{ij} x_i / \sum_i \Gamma_{ij}`.

    Parameters
    ----------
    coupling
        Transported masses, shape ``(n_source, n_target)``, non-negative.
    source
        Rows to carry over, shape ``(n_source, ...)``.

    Returns
    -------
    Tensor
        Shape ``(n_target, ...)``, dtype of ``source``.

    Raises
    ------
    TransferError
        If some target point receives no mass.

    References
    ----------
    Ferradans et al., *Regularized Discrete Optimal Transport*, SIAM J. Imaging Sci. 7(3), 2014.
    """
    mass = coupling.sum(0)
    if (mass <= 0).any():
        starved = (mass <= 0).nonzero().squeeze(1).tolist()
        raise TransferError(f'target points {starved} receive no mass, so their projection is undefined.')
    return torch.tensordot((coupling / mass).to(source).T, source, 1)


def refit(model: nn.Module, batches: Iterable[tuple[Any, Tensor]], device: torch.device | str, share: float) -> None:
    """Move the classifier to the calibrated :func:`ridge` one of these pictures, by ``share`` of the way.

    By less where it makes fewer mistakes on them than the ridge regression does on those that are left out of it: features
    that know the pictures by heart fit a poor classifier. Left as it is where labels are no classes, or features not finite.

    Raises
    ------
    TransferError
        If the model has no classifier.
    """
    others = iter(batches)
    first = next(others)
    if not has_classes([first]):
        return
    name = find_head(model, first[0].to(device))
    head = cast(nn.Linear, model.get_submodule(name))
    features, labels = features_of(model, name, itertools.chain([first], others), device)
    if not torch.isfinite(features).all():
        return
    labels = labels.long()
    with torch.no_grad():
        new, left_out = _ridge(features, labels, head.out_features, bias=head.bias is not None, boldness=1.0)
        mistakes, without = (int((logits.argmax(1) != labels).sum()) for logits in (head(features), left_out))
        share *= min(1.0, mistakes / max(1, without))
        head.weight.lerp_(new.weight.to(head.weight), share)
        if head.bias is not None:
            head.bias.lerp_(new.bias.to(head.bias), share)


def _check_every_class(labels: Tensor, n_classes: int, head: str) -> None:
    empty = (labels.bincount(minlength=n_classes) == 0).nonzero().squeeze(1).tolist()
    if empty:
        raise TransferError(f'head {head!r} needs a training picture of every class; classes {empty} have none.')


def _sharpness(scores: Tensor, labels: Tensor) -> float:
    """Factor on ``scores`` with the least cross-entropy, by bisection of its derivative (the loss is convex in it)."""
    low, high = 1e-2, 1e3
    for _ in range(40):
        middle = (low * high) ** 0.5
        probability = torch.softmax(middle * scores, 1)
        slope = (probability * scores).sum(1).mean() - scores.gather(1, labels[:, None]).mean()
        low, high = (middle, high) if slope < 0 else (low, middle)
    return (low * high) ** 0.5


def find_head(model: nn.Module, x: Tensor | None = None) -> str:
    """Name of the classifier: the linear layer whose output is the model's output.

    Parameters
    ----------
    model
        A supernet.
    x
        A batch of inputs to run it on; without one, the last linear layer in the order of construction is taken.

    Raises
    ------
    TransferError
        If no linear layer gives the output.
    """
    linears = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    if x is None:
        if linears:
            return list(linears)[-1]
        raise TransferError(f'{type(model).__name__} has no linear layer to be its classifier.')
    outputs: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        return lambda _module, _inputs, output: outputs.__setitem__(name, output)

    hooks = [module.register_forward_hook(keep(name)) for name, module in linears.items()]
    was_training = model.training
    try:
        with torch.no_grad():
            result = model.eval()(x)
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    for name, output in outputs.items():
        if output is result or (isinstance(result, Tensor) and output.data_ptr() == result.data_ptr()):
            return name
    raise TransferError(
        f'no linear layer of {type(model).__name__} gives its output, so its classifier cannot be found; '
        "end the model with nn.Linear, or use head='random'."
    )


def resize_head(model: nn.Module, num_classes: int, name: str | None = None) -> None:
    """Give a model space's classifier another number of rows, freshly initialised; one that has it is left as it is.

    Parameters
    ----------
    model
        A model space, mutated or not; the number of classes that it remembers to have been made with follows.
    num_classes
        Rows.
    name
        Of the classifier; None for the last linear layer in the order of construction.

    Raises
    ------
    TransferError
        If there is no such linear layer, or its width is searched.
    """
    name = name or find_head(model)
    modules = dict(model.named_modules())
    old = modules.get(name)
    if not isinstance(old, nn.Linear):
        linears = ', '.join(key for key, module in modules.items() if isinstance(module, nn.Linear))
        raise TransferError(f'classifier {name!r} is no linear layer of {type(model).__name__}; it has {linears or "none"}.')
    if old.out_features == num_classes:
        return
    if introspect.choices(old):
        raise TransferError(
            f'the classifier {name!r} of {type(model).__name__} is part of the search and has {old.out_features} rows; make '
            f'the space with {num_classes} classes.'
        )
    new = nn.Linear(old.in_features, num_classes, bias=old.bias is not None).to(old.weight.device, old.weight.dtype)
    modules[name.rpartition('.')[0]]._modules[name.rpartition('.')[2]] = new
    made_with = getattr(model, 'trace_kwargs', {})
    made_with.update({key: num_classes for key in CLASS_ARGUMENTS if key in spaces.parameters_of(type(model))})


def features_of(
    model: nn.Module, head_name: str, batches: Iterable[Any], device: torch.device | str
) -> tuple[Tensor, Tensor]:
    """Inputs of the classifier and the classes, shapes ``(n, d)`` and ``(n,)``, in evaluation mode."""
    collected: list[Tensor] = []
    hook = model.get_submodule(head_name).register_forward_pre_hook(lambda _m, inputs: collected.append(inputs[0].detach()))
    was_training = model.training
    model.eval()
    labels: list[Tensor] = []
    try:
        with torch.no_grad():
            for x, y in batches:
                model(x.to(device))
                labels.append(y)
    finally:
        hook.remove()
        model.train(was_training)
    return torch.cat(collected), torch.cat(labels).to(device)
