"""Distances between datasets: known answers, laws, and independent formulations."""

from __future__ import annotations

import itertools
import logging
import time

import numpy as np
import ot
import pytest
import torch
from scipy.linalg import sqrtm
from scipy.optimize import linear_sum_assignment

from nni_warmstart import DataError, DatasetDistance, DatasetSketch, dataset_distance
from nni_warmstart.distance import otdd
from nni_warmstart.distance.label_distances import (
    exact_label_distances,
    few_directions_label_distances,
    gaussian_label_distances,
    leading,
    squared_distances,
)
from nni_warmstart.distance.logme import logme
from nni_warmstart.distance.sketch import merged
from nni_warmstart.distance.sliced import _squared_distance_1d
from nni_warmstart.distance.transport import rounded, solve


def blobs(seed: int, n: int = 60, classes: int = 3, d: int = 5, spread: float = 2.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Gaussian classes; labels are interleaved."""
    generator = torch.Generator().manual_seed(seed)
    centers = spread * torch.randn(classes, d, generator=generator, dtype=torch.float64)
    scales = torch.rand(classes, d, generator=generator, dtype=torch.float64) + 0.5
    y = torch.arange(n) % classes
    return centers[y] + scales[y] * torch.randn(n, d, generator=generator, dtype=torch.float64), y


def brute_force(a, b, method: str) -> float:
    """The full cost matrix, filled pair by pair, given to POT."""
    (x, y), (u, v) = a, b
    x, u = x.numpy(), u.numpy()
    labels = np.zeros((int(y.max()) + 1, int(v.max()) + 1))
    for i, j in np.ndindex(*labels.shape):
        p, q = x[y.numpy() == i], u[v.numpy() == j]
        if method == 'exact':
            labels[i, j] = ot.emd2([], [], ot.dist(p, q))
        else:
            first, second = np.cov(p.T), np.cov(q.T)
            root = np.real(sqrtm(first))
            labels[i, j] = ((p.mean(0) - q.mean(0)) ** 2).sum() + np.trace(
                first + second - 2 * np.real(sqrtm(root @ second @ root))
            )
    cost = np.array([[((x[i] - u[j]) ** 2).sum() + labels[y[i], v[j]] for j in range(len(u))] for i in range(len(x))])
    return ot.emd2([], [], cost) ** 0.5


@pytest.mark.parametrize('method', ['exact', 'gaussian'])
@pytest.mark.parametrize('classes', [(3, 3), (2, 5)])
def test_agrees_with_brute_force(method, classes):
    a, b = blobs(0, classes=classes[0]), blobs(1, n=70, classes=classes[1])
    result = dataset_distance(a, b, method=method)
    assert result.value == pytest.approx(brute_force(a, b, method), rel=1e-6)
    assert result.converged
    assert result.error <= 1e-9 * result.value
    assert result.method == method


@pytest.mark.parametrize('method', ['exact', 'gaussian', 'sliced'])
def test_self_distance_and_symmetry(method):
    a, b = blobs(0), blobs(1, n=50)
    typical = dataset_distance(a, b, method=method).value
    assert dataset_distance(a, a, method=method).value <= 1e-6 * typical
    assert dataset_distance(b, a, method=method).value == pytest.approx(typical, rel=1e-6)


def test_triangle_inequality_of_exact():
    """Over all triples of 12 tasks: the distance is a metric when label distances are."""
    tasks = [DatasetSketch.from_dataset(blobs(seed, n=24, classes=2 + seed % 3), name=str(seed)) for seed in range(12)]
    d = np.zeros((12, 12))
    for i, j in itertools.combinations(range(12), 2):
        d[i, j] = d[j, i] = dataset_distance(tasks[i], tasks[j], method='exact').value
    for i, j, k in itertools.permutations(range(12), 3):
        assert d[i, k] <= d[i, j] + d[j, k] + 1e-9


def test_couplings_have_the_right_marginals():
    a, b = blobs(0, n=60), blobs(1, n=45)
    result = dataset_distance(a, b)
    assert result.coupling is not None and result.coupling.shape == (60, 45)
    assert torch.allclose(result.coupling.sum(1), torch.full((60,), 1 / 60, dtype=torch.float64), atol=1e-12)
    assert torch.allclose(result.label_coupling.sum(1), torch.full((3,), 1 / 3, dtype=torch.float64), atol=1e-12)
    expected = torch.zeros(3, 3, dtype=torch.float64)
    for i, j in np.ndindex(60, 45):
        expected[a[1][i], b[1][j]] += result.coupling[i, j]
    assert torch.allclose(result.label_coupling, expected, atol=1e-12)


@pytest.mark.parametrize('method', ['exact', 'gaussian', 'sliced'])
def test_permuted_labels_are_recovered(method):
    x, y = blobs(0, n=90)
    permutation = torch.tensor([2, 0, 1])
    coupling = dataset_distance((x, y), (x + 0.01, permutation[y]), method=method).label_coupling
    assert coupling.argmax(1).tolist() == permutation.tolist()


@pytest.mark.parametrize('method', ['exact', 'gaussian', 'sliced'])
def test_a_shift_costs_its_length_for_samples_and_for_classes(method):
    x, y = blobs(0, n=90)
    shift = torch.tensor([3.0, 0, 4.0, 0, 0], dtype=torch.float64)
    value = dataset_distance((x, y), (x + shift, y), method=method).value
    # the labels hold one shift per class, the samples another: 5^2 + 5^2
    assert value == pytest.approx(50**0.5, rel=0.05 if method == 'sliced' else 1e-9)


def test_entropic_is_debiased_and_tends_to_the_exact_value():
    a, b = blobs(0), blobs(1)
    exact = dataset_distance(a, b)
    strong, weak = (dataset_distance(a, b, reg=reg) for reg in (50.0, 0.5))
    assert dataset_distance(a, a, reg=50.0).value <= 1e-3 * exact.value
    assert abs(weak.value - exact.value) < abs(strong.value - exact.value)
    assert weak.value == pytest.approx(exact.value, rel=0.02)
    assert strong.converged
    assert weak.marginal_error < 1e-2
    assert strong.error > weak.error > 0


def test_solvers_agree_and_certify():
    cost = squared_distances(blobs(0)[0], blobs(1)[0])
    exact, entropic = solve(cost), solve(cost, reg=0.05)
    rows, columns = linear_sum_assignment(cost.numpy())
    assert exact.cost == pytest.approx(cost.numpy()[rows, columns].mean(), rel=1e-9)
    assert exact.cost <= entropic.cost <= exact.cost + entropic.gap + 1e-9
    assert entropic.gap < 0.2 * exact.cost


def test_costs_of_any_size_are_solved_alike():
    """POT's tolerances are absolute."""
    cost = torch.rand(30, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    value = solve(cost).cost
    for scale in (1e-20, 1e-8, 1e8):
        scaled = solve(cost * scale)
        assert scaled.converged
        assert scaled.cost / scale == pytest.approx(value, rel=1e-9)


def test_a_compact_sketch_of_features_far_from_zero():
    x, y = torch.randn(200, 8, generator=torch.Generator().manual_seed(0)), torch.arange(200) % 4
    near, far = (DatasetSketch.from_dataset((x + shift, y)).compact() for shift in (0.0, 1e4))
    assert near.samples.dtype == torch.float16
    assert torch.allclose(far.samples - 1e4, near.samples.float(), atol=5e-3)


def test_too_few_iterations_are_reported():
    cost = squared_distances(blobs(0)[0], blobs(1)[0])
    assert not solve(cost, reg=0.01, max_iterations=2).converged


def test_rounding_repairs_marginals():
    a, b = torch.tensor([0.5, 0.5]), torch.tensor([0.3, 0.7])
    repaired = rounded(torch.tensor([[0.3, 0.3], [0.1, 0.2]]), a, b)
    assert torch.allclose(repaired.sum(1), a)
    assert torch.allclose(repaired.sum(0), b)
    assert (repaired >= 0).all()


def test_gaussian_label_distances_of_known_gaussians():
    zero = torch.zeros(1, 2)
    factors = torch.tensor([[[2.0, 0.0], [0.0, 1.0]]])
    other = torch.tensor([[[1.0, 0.0], [0.0, 3.0]]])
    mean = torch.tensor([[3.0, 4.0]])
    # diagonal covariances: differences of the deviations, squared
    assert gaussian_label_distances(zero, factors, mean, other).item() == pytest.approx(25 + 1 + 4)


@pytest.mark.parametrize(('d', 'r', 's'), [(6, 1, 1), (6, 2, 1), (9, 4, 5), (3, 1, 2)])
def test_few_directions_give_the_same_label_distances(d, r, s):
    """Among them equal and opposite directions, none at all, and remainders of zero."""
    generator = torch.Generator().manual_seed(d + r)

    def classes(count: int, rank: int):
        factors = torch.randn(count, d, rank, generator=generator, dtype=torch.float64)
        remainders = torch.rand(count, generator=generator, dtype=torch.float64)
        factors[1], remainders[2] = 0, 0
        means = torch.randn(count, d, generator=generator, dtype=torch.float64)
        return means, factors, remainders

    (mean_a, a, rest_a), (mean_b, b, rest_b) = classes(5, r), classes(4, s)
    b[3, :, 0], b[0, :, 0] = -a[4, :, 0], 2 * a[3, :, 0]

    def full(factors, remainders):
        identity = torch.eye(d, dtype=torch.float64).expand(len(factors), d, d)
        return torch.cat([factors, remainders.sqrt()[:, None, None] * identity], 2)

    expected = gaussian_label_distances(mean_a, full(a, rest_a), mean_b, full(b, rest_b))
    found = few_directions_label_distances(mean_a, leading(a, rest_a), mean_b, leading(b, rest_b))
    assert torch.allclose(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize('method', ['gaussian', 'sliced'])
def test_very_many_classes_are_compared_by_few_directions(method, monkeypatch):
    """With the same result, where both ways are possible; for fewer classes nothing changes."""
    a, b = (DatasetSketch.from_dataset(blobs(seed, n=360, classes=40, d=64)).compact() for seed in (0, 1))
    assert not otdd.are_many(a, b)
    expected = dataset_distance(a, b, method=method)
    monkeypatch.setattr(otdd, 'MANY', 39)
    assert otdd.are_many(a, b)
    monkeypatch.setattr(otdd, 'gaussian_label_distances', None)
    monkeypatch.setattr(DatasetSketch, 'covariances', None)
    found = dataset_distance(a, b, method=method)
    assert found.value == pytest.approx(expected.value, rel=1e-6)
    assert torch.allclose(found.label_coupling, expected.label_coupling, atol=1e-9)


@pytest.mark.parametrize('method', ['gaussian', 'sliced'])
def test_a_thousand_classes_take_seconds(method):
    a, b = (DatasetSketch.from_dataset(blobs(seed, n=2000, classes=1000, d=64)).compact() for seed in (0, 1))
    start = time.process_time()
    assert dataset_distance(a, b, method=method).value > 0
    assert time.process_time() - start < 20  # minutes, pair by pair


def test_singular_covariances_and_constant_features():
    x, y = blobs(0)
    flat = torch.cat([x, torch.ones(len(x), 2, dtype=x.dtype)], 1)  # two constant features
    other = torch.cat([blobs(1)[0], torch.ones(60, 2, dtype=x.dtype)], 1)
    assert dataset_distance((flat, y), (other, y)).value == pytest.approx(dataset_distance((x, y), (blobs(1)[0], y)).value)
    few = (
        torch.randn(12, 40, generator=torch.Generator().manual_seed(0)),
        torch.arange(12) % 3,
    )  # 4 samples in 40 dimensions
    value = dataset_distance(few, (few[0] + 1, few[1])).value
    assert value == pytest.approx((2 * 40) ** 0.5, rel=1e-6)


def test_a_class_with_one_sample_is_a_point():
    x, y = blobs(0, n=31)
    y = torch.where(torch.arange(31) == 30, 3, y)
    for method in otdd.METHODS:
        assert np.isfinite(dataset_distance((x, y), blobs(1), method=method).value)
    sketch = DatasetSketch.from_dataset((x, y))
    assert sketch.covariances()[3].abs().max() == 0
    assert sketch.counts.tolist()[3] == 1


def test_duplicate_samples():
    x, y = blobs(0, n=30)
    twice = (torch.cat([x, x]), torch.cat([y, y]))
    assert dataset_distance(twice, blobs(1), method='exact').value == pytest.approx(
        dataset_distance((x, y), blobs(1), method='exact').value
    )


def test_exact_label_distances_follow_the_samples():
    x, y = blobs(0, n=30)
    labels = exact_label_distances(squared_distances(x, x), y, y, (3, 3))
    assert labels.diagonal().abs().max() < 1e-12
    assert labels[0, 1] == pytest.approx(ot.emd2([], [], ot.dist(x[y == 0].numpy(), x[y == 1].numpy())))


def test_labels_need_not_start_at_zero():
    x, y = blobs(0)
    assert dataset_distance((x, y + 7), blobs(1)).value == pytest.approx(dataset_distance((x, y), blobs(1)).value)


def test_large_problems_fall_back_to_the_sliced_distance(caplog, monkeypatch):
    monkeypatch.setattr(otdd, 'LARGEST', 50)
    with caplog.at_level(logging.WARNING):
        result = dataset_distance(blobs(0), blobs(1))
    assert result.method == 'sliced' and result.coupling is None
    assert '60 x 60 samples is too large' in caplog.text
    monkeypatch.setattr(otdd, 'LARGEST', 60)
    gaussian = dataset_distance(blobs(0), blobs(1)).value
    assert result.value * 0.9 <= gaussian <= result.value + result.error  # the error covers what was asked for


def test_large_classes_fall_back_too(monkeypatch):
    monkeypatch.setattr(otdd, 'LARGEST', 19)
    assert dataset_distance(blobs(0), blobs(1), method='exact', reg=1.0).method == 'sliced'
    monkeypatch.setattr(otdd, 'LARGEST', 20)
    assert dataset_distance(blobs(0), blobs(1), method='exact', reg=50.0).method == 'exact'


def test_sliced_is_stable_under_the_seed_and_close_to_exact():
    pairs = [(blobs(i), blobs(j, n=80)) for i, j in itertools.combinations(range(6), 2)]
    exact = np.array([dataset_distance(a, b, method='exact').value for a, b in pairs])
    for seed in (0, 1):
        sliced = np.array([dataset_distance(a, b, method='sliced', seed=seed).value for a, b in pairs])
        assert np.corrcoef(exact.argsort().argsort(), sliced.argsort().argsort())[0, 1] > 0.8
    again = np.array([dataset_distance(a, b, method='sliced', seed=2).value for a, b in pairs])
    assert np.abs(again / sliced - 1).max() < 0.1


@pytest.mark.parametrize(('n', 'm'), [(7, 7), (6, 4), (5, 12)])
def test_one_dimensional_transport(n, m):
    p, q = torch.randn(n, 3, dtype=torch.float64), torch.randn(m, 3, dtype=torch.float64)
    expected = [ot.emd2_1d(p[:, k].numpy(), q[:, k].numpy()) for k in range(3)]
    assert np.allclose(_squared_distance_1d(p, q).numpy(), expected)


def test_merged_sketches_count_classes_on():
    parts = [DatasetSketch.from_dataset(blobs(seed, classes=2 + seed), name=str(seed)) for seed in range(2)]
    both = merged(parts, 'both')
    assert both.classes.tolist() == [0, 1, 2, 3, 4]
    assert both.num_classes == 5 and len(both.samples) == 120
    assert torch.allclose(both.covariances()[2:], parts[1].covariances())


def test_logme_prefers_telling_features():
    x, y = blobs(0, n=150, spread=4)
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    assert logme(x, y) > logme(x + 5 * noise, y) > logme(noise, y)


def test_logme_is_the_evidence_of_its_own_optimum():
    """Against the textbook evidence (Bishop 2006, eq. 3.86), maximised on a grid."""
    x, y = blobs(2, n=40, classes=2, d=3)
    n, d = x.shape
    target = (y == 1).double()

    def evidence(alpha: float, beta: float) -> float:
        a = alpha * torch.eye(d, dtype=torch.float64) + beta * x.T @ x
        m = beta * torch.linalg.solve(a, x.T @ target)
        error = beta / 2 * (target - x @ m).square().sum() + alpha / 2 * m @ m
        return float(d / 2 * np.log(alpha) + n / 2 * np.log(beta) - error - torch.logdet(a) / 2 - n / 2 * np.log(2 * np.pi))

    def best(target_class: int) -> float:
        nonlocal target
        target = (y == target_class).double()
        return max(evidence(10**i, 10**j) for i in np.linspace(-2, 4, 61) for j in np.linspace(-2, 4, 61))

    assert logme(x, y) == pytest.approx((best(0) + best(1)) / 2 / n, abs=2e-3)


def bad_features():
    x, y = blobs(0)
    broken = x.clone()
    broken[3, 2] = float('nan')
    endless = x.clone()
    endless[0, 0] = float('inf')
    return {
        'nan': ((broken, y), 'NaN or infinite features in 1 of 60'),
        'inf': ((endless, y), 'NaN or infinite features in 1 of 60'),
        'no labels': ((x, None), 'need labels'),
        'unlabelled': ((x, y - 1), 'label -1'),
        'soft labels': ((x, y.double()), 'one whole number each'),
        'too few labels': ((x, y[:-1]), 'one whole number each'),
        'empty': ((x[:0], y[:0]), 'is empty'),
        'cube': ((torch.zeros(4, 2, 5, 5), torch.arange(4)), 'images of 1 or 3 channels'),
        'number': (3, 'must be a torch dataset'),
        'text': ((x, list('ab' * 30)), 'number the classes'),
    }


@pytest.mark.parametrize('case', bad_features())
def test_bad_data_are_refused(case):
    data, message = bad_features()[case]
    with pytest.raises(DataError, match=message):
        dataset_distance(data, blobs(1))


def test_a_further_distance_is_one_line(monkeypatch):
    def between_means(a: DatasetSketch, b: DatasetSketch, **_) -> DatasetDistance:
        value = float((a.means.mean(0) - b.means.mean(0)).norm())
        return DatasetDistance(value, torch.zeros(3, 3), None, 0.0, True, 0.0, 'means', 0.0)

    monkeypatch.setitem(otdd.METHODS, 'means', otdd.Method(between_means, 'means', 'distance of the means'))
    x, y = blobs(0)
    found = dataset_distance((x, y), (x + 1, y), method='means')
    assert found.value == pytest.approx(x.shape[1] ** 0.5)
    assert found.seconds > 0


def test_bad_settings_are_refused():
    with pytest.raises(DataError, match="method = 'best' is unknown"):
        dataset_distance(blobs(0), blobs(1), method='best')
    with pytest.raises(DataError, match='reg = -1'):
        dataset_distance(blobs(0), blobs(1), reg=-1)
    with pytest.raises(DataError, match='have different embeddings'):
        dataset_distance(blobs(0, d=4), blobs(1, d=5))
    with pytest.raises(DataError, match='projections = 1, but it must be 2 or more'):
        dataset_distance(blobs(0), blobs(1), method='sliced', projections=1)
    with pytest.raises(DataError, match='ground cost has NaN'):
        solve(torch.tensor([[float('nan')]]))
