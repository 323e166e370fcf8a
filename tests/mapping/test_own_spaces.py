"""Mapping spaces of the user's own: what is easily mixed up, what is not known, and what has no partner."""

from __future__ import annotations

import logging

import nni
import pytest
import torch
from helpers.mapped import darts, difference, trained
from helpers.tiny import run, small_space
from nni.nas.nn.pytorch import LayerChoice, ModelSpace, MutableBatchNorm2d, MutableConv2d, MutableLinear
from torch import nn

from nni_warmstart import ConfigError, Supernet, SupernetZoo, TransferError, WarmStartDARTS, ZooError, transfer
from nni_warmstart.nni_adapter.choices import choices
from nni_warmstart.nni_adapter.classifier import resize_head
from nni_warmstart.nni_adapter.model_spaces import check_supernet
from nni_warmstart.nni_adapter.mutation import mutate  # fmt: skip

OPS = {
    'conv': lambda: nn.Conv2d(4, 4, 3, padding=1),
    'wide': lambda: nn.Conv2d(4, 4, 5, padding=2),
    'pool': lambda: nn.AvgPool2d(3, 1, 1),
    'skip': nn.Identity,
    'dilated': lambda: nn.Sequential(nn.Conv2d(4, 4, 3, padding=2, dilation=2), nn.BatchNorm2d(4)),
    'dense': lambda: nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)),
    'average': lambda: nn.Sequential(nn.AvgPool2d(3, 1, 1), nn.BatchNorm2d(4)),
    'maximum': lambda: nn.Sequential(nn.MaxPool2d(3, 1, 1), nn.BatchNorm2d(4)),
}


class Unnamed(ModelSpace):
    """Its candidates have numbers for names."""

    def __init__(self, *ops: str) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3)
        self.body = LayerChoice([OPS[op]() for op in ops], label='body')
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        return self.head(torch.relu(self.body(self.stem(x))).mean((2, 3)))


@pytest.mark.parametrize(
    ('before', 'after'),
    [
        (('conv', 'wide', 'skip'), ('skip', 'conv', 'wide')),
        (('conv', 'pool', 'skip'), ('conv', 'skip', 'pool')),
        (('dense', 'dilated', 'skip'), ('dilated', 'dense', 'skip')),
        (('average', 'maximum', 'dense'), ('maximum', 'average', 'dense')),
    ],
)
def test_alphas_of_unnamed_candidates_follow_their_ops(before, after):
    source, target = trained(Unnamed(*before)), trained(Unnamed(*after), 1)
    error, report = difference(source, target, 8)
    assert error < 1e-6
    assert report.choices['body'] == {str(after.index(op)): str(before.index(op)) for op in before}
    alphas = [choices(model)['body'].alpha.tolist() for model in (source, target)]
    assert [alphas[1][after.index(op)] for op in before] == alphas[0]


def test_candidates_of_other_shapes_are_refused_before_training():
    class Unequal(Unnamed):
        def __init__(self) -> None:
            super().__init__('conv', 'skip')
            self.body = LayerChoice([OPS['conv'](), nn.Conv2d(4, 4, 3)], label='body')

    sound, unequal, state = Unnamed('conv', 'skip'), Unequal(), torch.get_rng_state()
    check_supernet(sound, 3, 8)
    with pytest.raises(ConfigError, match=r'do not go through the supernet of Unequal in training .* of one shape'):
        check_supernet(unequal, 3, 8)
    assert torch.equal(torch.get_rng_state(), state)


class Body(ModelSpace):
    """Its middle layer is a choice or, with one op, no choice."""

    def __init__(self, *ops: str, numbered: bool = False) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 3)
        body = LayerChoice({op: OPS[op]() for op in ops}, label='body') if len(ops) > 1 else OPS[ops[0]]()
        self.body = nn.Sequential(nn.ReLU(), body) if numbered else body
        self.rest = LayerChoice({'conv': nn.Conv2d(4, 4, 1), 'skip': nn.Identity()}, label='rest')

    def forward(self, x):
        return self.head(torch.relu(self.rest(self.body(self.stem(x)))).mean((2, 3)))


def decided(model, label, candidate):
    """The model with all weight on one candidate."""
    choice = choices(model)[label]
    with torch.no_grad():
        choice.alpha.copy_(torch.tensor([100.0 * (name == candidate) for name in choice.candidates]))
    return model


@pytest.mark.parametrize('numbered', [False, True])
def test_a_layer_becomes_the_candidate_of_a_choice_that_is_like_it_and_the_reverse(numbered):
    layer, choice = Body('conv', numbered=numbered), Body('skip', 'wide', 'conv', numbered=numbered)
    source, target = trained(layer), trained(choice, 1)
    _, report = difference(source, target, 8)
    assert report.choices == {'rest': {'conv': 'conv', 'skip': 'skip'}}
    assert {o.target for o in report.origins if o.by == 'no partner in the source'} == {
        f'body{".1" if numbered else ""}.wide.{part}' for part in ('weight', 'bias')
    }
    x = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(decided(target, 'body', 'conv')(x), source(x))
    back = trained(Body('wide', numbered=numbered), 2)
    difference(target, back, 8)
    with torch.no_grad():
        assert torch.equal(back(x), decided(target, 'body', 'wide')(x))


CANDIDATES = {
    'plain': lambda: nn.Conv2d(4, 4, 3, padding=1),
    'normed': lambda: nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)),
    'grouped': lambda: nn.Conv2d(4, 4, 3, padding=1, groups=2),
    'separable': lambda: nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, groups=4), nn.Conv2d(4, 4, 1)),
    'point': lambda: nn.Conv2d(4, 4, 1),
}


class One(ModelSpace):
    def __init__(self, op: str) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 1)
        self.body = LayerChoice({op: CANDIDATES[op](), 'skip': nn.Identity()}, label='body')
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.body(torch.relu(self.stem(x))).mean((2, 3)))


def test_candidates_without_a_name_in_common_are_taken_layer_by_layer():
    error, report = difference(trained(One('point')), trained(One('separable'), 1), 8)
    assert error < 1e-6
    assert report.choices['body'] == {'separable': 'point', 'skip': 'skip'}
    source, target = trained(One('plain')), trained(One('normed'), 1)
    difference(source, target, 8)
    assert torch.equal(target.body['normed'][0].weight, source.body['plain'].weight)


def test_what_can_be_made_of_no_candidate_has_a_fresh_logit():
    source, target = trained(One('plain')), trained(One('grouped'), 1)
    _, report = difference(source, target, 8)
    assert report.choices['body'] == {'skip': 'skip'}
    theirs, mine = (choices(model)['body'].alpha.detach() for model in (source, target))
    assert torch.allclose(mine, theirs[1].expand(2))  # the mean of those that have a partner


class Flattened(ModelSpace):
    def __init__(self, side: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 1)
        self.body = LayerChoice({'conv': nn.Conv2d(4, 4, 1), 'skip': nn.Identity()}, label='body')
        self.wide, self.head = nn.Linear(4 * side**2, 8), nn.Linear(8, 3)

    def forward(self, x):
        return self.head(torch.relu(self.wide(self.body(torch.relu(self.stem(x))).flatten(1))))


@pytest.mark.parametrize(('before', 'after'), [(4, 8), (4, 6)])
def test_flattened_pictures_of_another_size(before, after):
    source, target = trained(Flattened(before)), trained(Flattened(after), 1)
    x = torch.randn(2, 3, before, before)
    larger = nn.functional.interpolate(x, after)
    kept = Supernet.from_model(source, name='source', dataset=(x, torch.tensor([0, 1])))
    transfer(kept, target, head='copy', keep=1, noise=0, data=(larger, torch.tensor([0, 1])))
    with torch.no_grad():
        assert torch.allclose(target.eval()(larger), source.eval()(x), atol=1e-5)


class Widths(ModelSpace):
    def __init__(self, *widths: int) -> None:
        super().__init__()
        width = nni.choice('width', list(widths))
        self.stem, self.norm = MutableConv2d(3, width, 3), MutableBatchNorm2d(width)
        self.head = MutableLinear(width, 3)

    def forward(self, x):
        return self.head(torch.relu(self.norm(self.stem(x))).mean((2, 3)))


class Kernels(ModelSpace):
    """A layer whose kernel is chosen, and whose width may be."""

    def __init__(self, *widths: int) -> None:
        super().__init__()
        width = nni.choice('width', list(widths)) if len(widths) > 1 else widths[0]
        kernel = nni.choice('kernel', [3, 5])
        self.stem = MutableConv2d(3, width, kernel, padding=kernel // 2)
        self.head = MutableLinear(width, 3)

    def forward(self, x):
        return self.head(torch.relu(self.stem(x)).mean((2, 3)))


def test_choices_of_a_layer_find_their_own_where_it_has_another_number_of_them():
    for before, after in (((4,), (4, 8)), ((4, 8), (4,))):
        source, target = trained(Kernels(*before)), trained(Kernels(*after), 1)
        fresh = choices(target)['kernel'].alpha.tolist()
        difference(source, target, 8)
        assert choices(target)['kernel'].alpha.tolist() == choices(source)['kernel'].alpha.tolist() != fresh


def test_as_many_wider_widths_compute_what_the_source_does():
    error, _ = difference(trained(Widths(4, 8)), trained(Widths(16, 8), 1), 8)
    assert error < 1e-6


class Activated(ModelSpace):
    def __init__(self, width: int, activation: str) -> None:
        super().__init__()
        made = 2 * width if activation == 'glu' else width
        self.stem = nn.Conv2d(3, made, 3)
        self.activation = nn.GLU(1) if activation == 'glu' else nn.PReLU(1 if activation == 'one slope' else width)
        for slope in self.activation.parameters():
            nn.init.uniform_(slope)
        self.shuffle = nn.ChannelShuffle(2)
        self.body = LayerChoice({'conv': nn.Conv2d(width, width, 1), 'skip': nn.Identity()}, label='body')
        self.head = nn.Linear(width, 3)

    def forward(self, x):
        return self.head(self.body(self.shuffle(self.activation(self.stem(x)))).mean((2, 3)))


@pytest.mark.parametrize('activation', ['slopes', 'one slope', 'glu'])
def test_activations_with_weights_and_gates_are_widened(activation):
    source, target = trained(Activated(4, activation)), trained(Activated(8, activation), 1)
    error, report = difference(source, target, 8)
    assert error < 1e-6
    assert report.share_inherited == 1


class Recurrent(ModelSpace):
    """A module whose parameters are used by known operators too, but not by these alone."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 1)
        self.mixer = nn.GRU(width, width, batch_first=True)
        self.body = LayerChoice({'linear': nn.Linear(width, width), 'skip': nn.Identity()}, label='body')
        self.head = nn.Linear(width, 3)

    def forward(self, x):
        sequence, _ = self.mixer(self.stem(x).flatten(2).transpose(1, 2))
        return self.head(self.body(sequence.mean(1)))


@pytest.mark.slow
def test_a_module_that_cannot_be_traced_is_fresh_as_a_whole():
    supernet, target = Supernet.from_model(trained(Recurrent(4)), name='source'), trained(Recurrent(6), 1)
    before = {name: tensor.clone() for name, tensor in target.mixer.state_dict().items()}
    report = transfer(supernet, target, head='random', untraceable='fresh', keep=1)
    how = {origin.target: origin.how for origin in report.origins}
    assert {how[f'mixer.{name}'] for name in before} == {'fresh'}
    assert how['stem.weight'] == how['body.linear.weight'] == 'widened'
    assert all(torch.equal(tensor, before[name]) for name, tensor in target.mixer.state_dict().items())


class Grouped(ModelSpace):
    def __init__(self, groups: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 1)
        self.body = LayerChoice({'conv': nn.Conv2d(8, 8, 3, groups=groups), 'other': nn.Conv2d(8, 8, 3)}, label='body')
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.body(self.stem(x)).mean((2, 3)))


def test_the_report_says_why_a_partner_was_not_mapped():
    report = transfer(Supernet.from_model(trained(Grouped(1)), name='source'), trained(Grouped(4), 1), head='random')
    by = {origin.target: (origin.how, origin.by) for origin in report.origins}
    assert by['body.conv.weight'] == ('fresh', "it has 4 groups, the source's 1")


def test_a_lazy_layer_is_named():
    target = trained(Body('skip', 'conv'), 1)
    target.rest = nn.LazyConv2d(4, 1)
    with pytest.raises(TransferError, match=r'rest\.weight has no shape yet'):
        transfer(Supernet.from_model(trained(Body('skip', 'conv')), name='source'), target, head='random')


@pytest.mark.slow
def test_cells_without_a_partner_in_their_stage_take_one_of_the_next():
    """A source of three cells has normal ones in its first stage only; of six, each stage has one."""
    source = Supernet.from_model(trained(darts(4)), name='source')
    report = transfer(source, trained(darts(4, cells=6), 1), head='random')
    normal = ('stages.1.blocks.1', 'stages.2.blocks.1')
    assert {report.blocks[path] for path in normal} == {'stages.0.blocks.0'}
    shares = report.shares()
    assert min(shares[path] for path in normal) > 0.9


class Late(ModelSpace):
    """The classifier is made before the layer that it follows."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3)
        self.classifier = nn.Linear(6, num_classes)
        self.body = LayerChoice({'conv': nn.Conv2d(4, 4, 1), 'skip': nn.Identity()}, label='body')
        self.projection = nn.Linear(4, 6)

    def forward(self, x):
        return self.classifier(torch.relu(self.projection(self.body(self.stem(x)).mean((2, 3)))))


def test_without_data_too_the_classifier_is_what_gives_the_output():
    source = Supernet.from_model(trained(Late(3)), name='source')
    report = transfer(source, trained(Late(5), 1), head='random')
    how = {origin.target: origin.how for origin in report.origins}
    assert (how['classifier.weight'], how['projection.weight']) == ('fresh', 'copied')


def test_heads_of_datasets_are_found_where_the_classifier_is_made_early():
    model = mutate(Late(3), 'DARTS')
    resize_head(model, 7, 'classifier')
    joint = Supernet.from_model(model, name='joint', history={'datasets': {'letters': {'classes': 7}}})
    built = joint.build(Late(3))
    assert torch.equal(built.classifier.weight, model.classifier.weight)
    assert torch.equal(built.projection.weight, model.projection.weight)


class Flat(ModelSpace):
    """Runs on images of one size only."""

    def __init__(self, width: int = 4, side: int = 8) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.body = LayerChoice({'conv': nn.Conv2d(width, width, 1), 'skip': nn.Identity()}, label='body')
        self.head = nn.Linear(width * side * side, 3)

    def forward(self, x):
        return self.head(self.body(self.stem(x)).flatten(1))


def test_the_structure_of_an_own_space_is_found_with_its_own_pictures(tmp_path, caplog):
    data = torch.randn(24, 3, 8, 8), torch.arange(24) % 3
    source = Supernet.from_model(trained(Flat()), name='flat', dataset=data)
    assert transfer(source, trained(Flat(6), 1), data=data).share_inherited == 1
    run(WarmStartDARTS(save_to=tmp_path / 'zoo'), tmp_path, epochs=1, space=Flat())
    assert SupernetZoo(tmp_path / 'zoo')['flat-1'].structure is not None
    assert 'its own space only' not in caplog.text
    unknown = Supernet.from_model(trained(Flat()), name='flat')
    assert 'A supernet of Flat can be mapped onto its own space only' in caplog.text
    with pytest.raises(TransferError, match=r"'flat' was kept without its structure.*keep it again with dataset="):
        transfer(unknown, trained(Flat(6), 1), data=data)


class TwiceFlat(Flat):
    """Its first parameters, of the head, do not tell what it reads."""

    def __init__(self, width: int = 4, side: int = 8) -> None:
        ModelSpace.__init__(self)
        self.head = nn.Linear(width * side * side, 3)
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.body = LayerChoice({'conv': nn.Conv2d(width, width, 1), 'skip': nn.Identity()}, label='body')


@pytest.mark.parametrize('space', [Flat, TwiceFlat])
def test_the_shape_of_an_own_spaces_input_is_that_of_the_pictures(space, tmp_path):
    run(WarmStartDARTS(save_to=tmp_path / 'zoo'), tmp_path, epochs=1, space=space())
    for source in ('nearest', 'auto'):
        warm = run(WarmStartDARTS(source=source, zoo=tmp_path / 'zoo'), tmp_path, epochs=1, space=space(6))
        assert warm.report.share_inherited == 1.0


def test_a_supernet_that_diverged_is_refused(tmp_path, caplog):
    model = trained(small_space())
    model.stem[0].weight.data[0] = float('nan')
    with caplog.at_level(logging.WARNING):
        source = Supernet.from_model(model, name='wild')
    assert "Supernet 'wild' has weights that are not finite" in caplog.text
    with pytest.raises(TransferError, match="supernet 'wild' has weights that are not finite: its training diverged"):
        transfer(source, trained(small_space(), 1), head='random')
    zoo = SupernetZoo(tmp_path)
    zoo.add(source)
    with pytest.raises(ZooError, match='has no entry that fits'):
        run(WarmStartDARTS(source='nearest', zoo=zoo), tmp_path, epochs=1)
