"""Classifiers of a new task: copied, transported, or in closed form against independent implementations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.tiny import OwnSpace, batches, small_space, target
from sklearn.linear_model import Ridge
from torch import nn

from nni_warmstart import Supernet, TransferError, transfer
from nni_warmstart.mapping.projection import barycentric_projection
from nni_warmstart.nni_adapter.classifier import dropout_before, features_of, find_head
from nni_warmstart.nni_adapter.mutation import mutate
from nni_warmstart.warm_start.heads.base import LinearHead
from nni_warmstart.warm_start.heads.prototype import prototype
from nni_warmstart.warm_start.heads.ridge import LONGEST, blend_ridge_head, bounded, ridge


def test_copy_gives_the_sources_own_function(source):
    model = target(classes=3)
    transfer(source, model, head='copy', keep=1.0)
    x = torch.randn(4, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(model.eval()(x), source.build().eval()(x))


def test_heads_beat_chance_and_random(source):
    accuracy = {}
    for head in ('ridge', 'prototype', 'random'):
        report = transfer(source, target(), head=head, data=batches(4), val_data=batches(4, seed=9))
        accuracy[head] = report.zero_shot_accuracy
    assert accuracy['ridge'] >= 0.5 > accuracy['random'] or accuracy['ridge'] > accuracy['random'] + 0.2
    assert accuracy['prototype'] > accuracy['random']


@pytest.mark.slow
@pytest.mark.parametrize('classes', [2, 3, 4], ids=['fewer', 'equal', 'more'])
def test_transported_heads_beat_random_ones(source, classes):
    accuracy = {}
    for head in ('ot', 'random'):
        reports = [
            transfer(source, target(classes, seed), head=head, data=batches(classes), val_data=batches(classes, seed=9))
            for seed in range(4)
        ]
        accuracy[head] = np.mean([report.zero_shot_accuracy for report in reports])
        origin = next(each for each in reports[0].origins if each.target.startswith('classifier'))
        assert origin.how == {'ot': 'transported', 'random': 'fresh'}[head]
    assert accuracy['ot'] > accuracy['random'] + 0.05
    assert accuracy['ot'] >= 0.6


def test_transported_head_finds_permuted_classes(source):
    """The same images under other labels: rows of the classifier follow the classes."""
    permutation = torch.tensor([2, 0, 1])
    data = [(x, permutation[y]) for x, y in batches(3)]
    report = transfer(source, target(3), head='ot', keep=1.0, data=data)
    assert report.zero_shot_accuracy >= 0.9


def test_transported_head_needs_a_sketch_and_every_class(source):
    bare = Supernet(**{**vars(source), 'sketches': {}})
    with pytest.raises(TransferError, match=r"head 'ot' needs .* there is no sketch; use head='ridge'"):
        transfer(bare, target(), head='ot', data=batches(4))
    with pytest.raises(TransferError, match=r"head 'ot' needs a training image of every class; classes \[3\] have none"):
        transfer(source, target(4), head='ot', data=batches(3))
    with pytest.raises(TransferError, match="head 'ot' is fitted on the target's training data"):
        transfer(source, target(4), head='ot')


def test_rows_of_a_dataset_without_pictures_stay_fresh(source):
    kept = target(5).state_dict()
    model = target(5)
    transfer(source, model, data=batches(3), heads={'a': (0, 3), 'b': (3, 5)}, keep=0.0)
    name = find_head(model)
    now = model.state_dict()
    assert torch.equal(now[f'{name}.weight'][3:], kept[f'{name}.weight'][3:])
    assert not torch.equal(now[f'{name}.weight'][:3], kept[f'{name}.weight'][:3])


@pytest.mark.parametrize('heads', [{'a': (0, 7)}, {'a': (2, 2)}, {'a': (-1, 2)}])
def test_heads_beyond_the_classifier(source, heads):
    with pytest.raises(TransferError, match=r'heads = .*, but the classifier has rows 0 to 3 only'):
        transfer(source, target(3), data=batches(3), heads=heads)


@pytest.mark.parametrize(
    ('heads', 'message'),
    [
        ({'a': (0, 2), 'b': (1, 3)}, 'rows of two datasets must not overlap'),
        ({'a': (0, 2)}, 'images are of class 2, which no dataset has'),
    ],
)
def test_every_image_has_the_rows_of_one_dataset(source, heads, message):
    with pytest.raises(TransferError, match=message):
        transfer(source, target(3), data=batches(3), heads=heads)


def test_class_means_need_a_bias():
    class Unbiased(OwnSpace):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(6, 3, bias=False)

    source = Supernet.from_model(mutate(Unbiased(), 'DARTS'), name='source')
    with pytest.raises(TransferError, match="head 'prototype' needs a classifier with a bias; use head='ridge'"):
        transfer(source, mutate(Unbiased(), 'DARTS'), data=batches(3), head='prototype')


def test_ridge_needs_data(source):
    with pytest.raises(TransferError, match=r"head 'ridge' is fitted on the target's training data and there are none"):
        transfer(source, target())


def test_a_model_without_a_linear_classifier_takes_the_other_heads(source):
    class Logged(type(small_space())):
        def forward(self, inputs):
            return torch.log_softmax(super().forward(inputs), 1)

    def space() -> nn.Module:
        return mutate(Logged(stem_out_channels=4, num_modules_per_stack=1, num_labels=3), 'DARTS')

    report = transfer(source, space(), head='random', data=batches(3))
    assert {each.target for each in report.origins if each.how == 'fresh'} == {'classifier.weight', 'classifier.bias'}
    with pytest.raises(TransferError, match='no linear layer of Logged gives its output'):
        transfer(source, space(), head='ridge', data=batches(3))


class ByConvolution(OwnSpace):
    def __init__(self, num_classes: int = 3) -> None:
        super().__init__()
        self.head = nn.Conv2d(6, num_classes, 1)

    def forward(self, x):
        return self.head(self.second(self.first(self.stem(x)))).mean((2, 3))


class ByCosine(OwnSpace):
    def forward(self, x):
        features = self.second(self.first(self.stem(x))).mean((2, 3))
        return 5 * nn.functional.linear(nn.functional.normalize(features), nn.functional.normalize(self.head.weight))


class Tempered(OwnSpace):
    def forward(self, x):
        return super().forward(x) / 2


@pytest.mark.parametrize('classes', [3, 4])
@pytest.mark.parametrize('space', [ByConvolution, ByCosine, Tempered])
def test_a_fresh_classifier_need_not_be_a_last_linear_layer(space, classes):
    source, model = mutate(space(), 'DARTS'), mutate(space(classes), 'DARTS')
    before = [parameter.detach().clone() for parameter in model.head.parameters()]
    transfer(Supernet.from_model(source, name='source'), model, head='random', data=batches(classes), keep=1.0)
    assert all(map(torch.equal, model.head.parameters(), before))
    body = [name for name, _ in source.named_parameters() if not name.startswith('head')]
    assert all(torch.equal(source.get_parameter(name), model.get_parameter(name)) for name in body)


class Features(OwnSpace):
    """Has no classifier: layers read its outputs."""

    def forward(self, x):
        x = self.stem(x)
        return (x + self.first(x) + self.second(x)).mean((2, 3))


def test_a_model_of_features_inherits_all_but_what_never_runs():
    source, model = (mutate(Features(), 'DARTS') for _ in range(2))
    report = transfer(Supernet.from_model(source, name='source'), model, head='random', data=batches(3))
    assert {each.how for each in report.origins if not each.target.startswith(('head', 'norm'))} <= {
        'copied',
        're-estimated',
    }


def test_the_head_is_the_layer_that_gives_the_output():
    model = target()
    assert find_head(model, torch.randn(2, 3, 8, 8)) == 'classifier'
    assert find_head(mutate(OwnSpace(), 'DARTS'), torch.randn(2, 3, 8, 8)) == 'head'
    assert find_head(model) == 'classifier'
    with pytest.raises(TransferError, match='no linear layer'):
        find_head(nn.Sequential(nn.Linear(3, 3), nn.Tanh()), torch.randn(2, 3))


def test_barycentric_projection():
    coupling = torch.tensor([[0.2, 0.0], [0.2, 0.6]])
    rows = torch.tensor([[1.0, 0.0], [3.0, 4.0]])
    assert torch.allclose(barycentric_projection(coupling, rows), torch.tensor([[2.0, 2.0], [3.0, 4.0]]))
    with pytest.raises(TransferError, match=r'target points \[0\] receive no mass'):
        barycentric_projection(torch.tensor([[0.0, 1.0]]), rows[:1])


def features(n: int = 60, d: int = 7, classes: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(n) % classes
    return torch.randn(n, d, generator=generator) + 1.5 * torch.eye(classes, d)[labels], labels


def test_ridge_is_scikit_learns_up_to_its_scale():
    x, y = features()
    head = ridge(x, y, 3)
    one_hot = np.eye(3)[y.numpy()]
    penalties = (torch.linalg.svdvals(x.double() - x.double().mean(0)) ** 2).mean().item() * 10.0 ** np.arange(-6, 3)
    fits = [Ridge(alpha=penalty).fit(x.numpy().astype(float), one_hot) for penalty in penalties]

    def left_out(penalty: float) -> float:  # by really leaving each sample out
        keep = ~np.eye(len(y), dtype=bool)
        xs = x.numpy().astype(float)
        predicted = [Ridge(alpha=penalty).fit(xs[k], one_hot[k]).predict(xs[i : i + 1])[0] for i, k in enumerate(keep)]
        return float(((np.array(predicted) - one_hot) ** 2).sum())

    best = fits[int(np.argmin([left_out(penalty) for penalty in penalties]))]
    scale = (head.weight.numpy() / best.coef_).mean()
    assert scale > 1
    assert np.allclose(head.weight.numpy(), scale * best.coef_, rtol=1e-3, atol=1e-4)
    assert np.allclose(head.bias.numpy(), scale * best.intercept_, rtol=1e-3, atol=1e-3)


def test_ridge_scale_minimises_the_left_out_cross_entropy():
    """Making the logits bolder or more timid by half does not help on fresh data of the same kind."""
    x, y = features(n=600)
    head = ridge(x[:300], y[:300], 3, boldness=1.0)
    logits = x[300:] @ head.weight.T + head.bias
    losses = [nn.functional.cross_entropy(factor * logits, y[300:]).item() for factor in (0.5, 1.0, 2.0)]
    assert losses[1] == min(losses)


@pytest.mark.parametrize('fit', [ridge, prototype])
@pytest.mark.parametrize('distance', [10.0, 1000.0])
def test_classes_that_are_separated_without_an_error_do_not_make_bold_logits(distance, fit):
    """Without an error the cross-entropy falls with every larger scale; a step of training would then undo everything."""
    x, y = features()
    x = x + distance * torch.eye(3, x.shape[1])[y] + 10 * distance
    head = fit(x, y, 3)
    logits = x @ head.weight.T + head.bias
    assert (logits.argmax(1) == y).all()
    assert 0.01 < nn.functional.cross_entropy(logits, y) < 0.6
    assert logits.abs().max() < 5


def noisy_error(head, x, y, p):
    """Squared error under dropout, by sampling, of scores in the best scale and place."""
    generator = torch.Generator().manual_seed(1)
    kept = (torch.rand(200, *x.shape, generator=generator) >= p) / (1 - p)
    scores = ((kept * x) @ head.weight.T + head.bias).flatten().double()
    targets = nn.functional.one_hot(y, 3).expand(200, -1, -1).flatten().double()
    design = torch.stack([scores, torch.ones_like(scores)], 1)
    return (design @ torch.linalg.lstsq(design, targets[:, None]).solution - targets[:, None]).square().mean().item()


def test_features_that_hardly_vary_make_no_long_weights():
    x, y = torch.randn(60, 8), torch.arange(60) % 3
    x[torch.arange(60), y] += 4
    found = ridge(1 + 1e-4 * x, y, 3)
    assert found.weight.norm() > 1000
    shorter = bounded(found)
    assert float(shorter.weight.norm()) == pytest.approx(LONGEST)
    torch.testing.assert_close(shorter.bias / found.bias, (shorter.weight / found.weight)[:, 0])
    fresh = LinearHead(torch.empty(300, 400).uniform_(-0.05, 0.05), torch.zeros(300))
    assert bounded(LinearHead(29 * fresh.weight, fresh.bias)).weight.norm() == (29 * fresh.weight).norm()
    assert bounded(LinearHead(31 * fresh.weight, fresh.bias)).weight.norm() < 30.9 * fresh.weight.norm()


@pytest.mark.parametrize('p', [0.1, 0.5])
def test_ridge_expects_dropout(p):
    """Two features that nearly cancel out tell the class, which dropout would drown in noise."""
    x, y = features(n=200)
    common = 5 + torch.randn(len(x), 1, generator=torch.Generator().manual_seed(2))
    x = torch.cat([x, common + 0.3 * (y == 0)[:, None], common + 0.3 * (y == 1)[:, None]], 1)
    aware, unaware = (ridge(x, y, 3, dropout=each) for each in (p, 0.0))
    assert noisy_error(aware, x, y, p) < 0.9 * noisy_error(unaware, x, y, p)


def test_dropout_in_front_of_the_classifier_is_seen():
    images = torch.zeros(2, 3, 4, 4)
    body = [nn.Conv2d(3, 4, 1), nn.Dropout(0.2), nn.AdaptiveAvgPool2d(1)]
    for p, end in (
        (0.5, [nn.Flatten(), nn.Dropout(0.5)]), (0.5, [nn.Dropout(0.5), nn.Flatten()]), (0.0, [nn.Flatten()]),
        (0.0, [nn.Dropout(0.5), nn.Flatten(), nn.Linear(4, 4)]), (0.0, [nn.Flatten(), nn.Dropout(0.0)]),
    ):  # fmt: skip
        model = nn.Sequential(*body, *end, nn.Linear(4, 3))
        assert dropout_before(model, str(len(model) - 1), images) == p
        assert model.training


class EarlyExit(OwnSpace):
    """Calls its classifier on early features, too, before or after those that give the output."""

    last = True

    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        early = self.stem(x)
        late = torch.relu(self.norm(self.second(self.first(torch.relu(early)))))
        calls = [self.drop(early.mean((2, 3))), late.mean((2, 3))]
        outputs = [self.head(input=each) for each in (calls if self.last else calls[::-1])]
        return outputs[1] if self.last else outputs[0]


class LateFirst(EarlyExit):
    last = False


@pytest.mark.parametrize('space', [EarlyExit, LateFirst])
def test_the_features_are_those_that_give_the_output(space):
    shared, single = mutate(space(), 'DARTS'), mutate(OwnSpace(), 'DARTS')
    single.load_state_dict(shared.state_dict())
    x = batches(3)[0][0]
    assert find_head(shared, x) == 'head'
    features, _ = features_of(shared, 'head', batches(3), 'cpu')
    assert torch.equal(features, features_of(single, 'head', batches(3), 'cpu')[0])
    assert dropout_before(shared, 'head', x) == 0.0
    report = transfer(Supernet.from_model(single, name='source'), shared, data=batches(3))
    assert report.zero_shot_accuracy is not None


def test_prototype_is_the_nearest_class_mean():
    x, y = features()
    head = prototype(x, y, 3)
    means = torch.stack([x[y == label].mean(0) for label in range(3)])
    nearest = torch.cdist(x, means).argmin(1)
    assert torch.equal((x @ head.weight.T + head.bias).argmax(1), nearest)


def test_prototype_needs_every_class():
    x, y = features()
    with pytest.raises(TransferError, match=r'classes \[3\] have none'):
        prototype(x, y, 4)


@pytest.mark.parametrize('bias', [True, False])
def test_refitted_is_on_the_way_to_ridge(bias):
    model = target()
    if not bias:
        model.classifier = nn.Linear(model.classifier.in_features, 4, bias=False)
    before = [parameter.detach().clone() for parameter in model.classifier.parameters()]
    expected = ridge(*features_of(model, 'classifier', batches(4), 'cpu'), 4, bias=bias, boldness=1.0)
    blend_ridge_head(model, [(x, y.to(torch.uint8)) for x, y in batches(4)], 'cpu', 0.25)
    for parameter, old, new in zip(model.classifier.parameters(), before, expected, strict=False):
        torch.testing.assert_close(parameter.detach(), 0.75 * old + 0.25 * new)


def test_a_head_without_mistakes_is_not_refitted():
    model = target()
    features, labels = features_of(model, 'classifier', batches(4), 'cpu')
    with torch.no_grad():
        weight, bias = ridge(features, labels, 4, boldness=1.0)
        model.classifier.weight.copy_(weight)
        model.classifier.bias.copy_(bias)
    right = (model.classifier(features).argmax(1) == labels).tolist()
    data = [(x[None], y[None]) for x, y in zip(*(torch.cat(p) for p in zip(*batches(4), strict=True)), strict=True)]
    blend_ridge_head(model, [pair for pair, good in zip(data, right, strict=True) if good], 'cpu', 0.5)
    assert torch.equal(model.classifier.weight, weight)


@pytest.mark.parametrize('data', ['numbers', 'not finite', 'other labels', 'ignored'])
def test_refitted_are_classes_of_finite_features_only(data):
    model = target()
    before = model.classifier.weight.detach().clone()
    x, y = batches(4)[0]
    given = {
        'numbers': (x, y.float()),
        'not finite': (x * float('nan'), y),
        'other labels': (x, y + 9),
        'ignored': (x, y - 100),
    }
    blend_ridge_head(model, [given[data]], 'cpu', 0.5)
    assert torch.equal(model.classifier.weight, before)


class Normed(OwnSpace):
    """Computes the weight of its classifier from other tensors."""

    def __init__(self, norm, num_classes: int = 3) -> None:
        super().__init__(num_classes)
        self.head = norm(self.head)


SET = nn.utils.parametrizations.weight_norm
NORMS = {
    'weight': SET,
    'spectral': nn.utils.parametrizations.spectral_norm,
    'weight, before parametrizations': pytest.param(
        nn.utils.weight_norm, marks=pytest.mark.filterwarnings('ignore::FutureWarning')
    ),
}


def test_a_head_is_fitted_through_weight_norm():
    source, model = (mutate(Normed(SET, classes), 'DARTS') for classes in (3, 4))
    report = transfer(Supernet.from_model(source, name='source'), model, data=batches(4))
    expected = bounded(ridge(*features_of(model, 'head', batches(4), 'cpu'), 4))
    assert torch.allclose(model.head.weight, expected.weight, rtol=1e-4, atol=1e-6)
    assert torch.allclose(model.head.bias, expected.bias)
    assert {each.how for each in report.origins if each.target.startswith('head.')} == {'fitted'}


def test_a_head_with_weight_norm_is_refitted():
    model = mutate(Normed(SET, 4), 'DARTS')
    before = model.head.weight.detach().clone()
    expected = ridge(*features_of(model, 'head', batches(4), 'cpu'), 4, boldness=1.0)
    blend_ridge_head(model, batches(4), 'cpu', 0.25)
    torch.testing.assert_close(model.head.weight.detach(), 0.75 * before + 0.25 * expected.weight)


@pytest.mark.parametrize('norm', [NORMS['spectral'], NORMS['weight, before parametrizations']])
def test_a_head_whose_weight_cannot_be_set_is_not_fitted(norm):
    source, model = (mutate(Normed(norm), 'DARTS') for _ in range(2))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(TransferError, match=r"head 'ridge' cannot be fitted to 'head', .* use head='random'"):
        transfer(Supernet.from_model(source, name='source'), model, data=batches(3))
    blend_ridge_head(model.eval(), batches(3), 'cpu', 0.5)
    assert [name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])] == []


@pytest.mark.parametrize('norm', NORMS.values(), ids=NORMS)
def test_a_fresh_head_inherits_nothing_through_its_norm(norm):
    source, model = (mutate(Normed(norm), 'DARTS') for _ in range(2))
    before = [parameter.detach().clone() for parameter in model.head.parameters()]
    report = transfer(Supernet.from_model(source, name='source'), model, head='random', keep=1.0)
    assert all(map(torch.equal, model.head.parameters(), before))
    assert {each.how for each in report.origins if each.target.startswith('head.')} == {'fresh'}
    assert torch.equal(model.stem[0].weight, source.stem[0].weight)
