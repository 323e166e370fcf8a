"""What a warm start inherits, and by which rule."""

from __future__ import annotations

import nni
import pytest
import torch
from helpers.tiny import OwnSpace, batches, make_task, run, small_space, target
from nni.nas.evaluator.pytorch import DataLoader, Regression
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.space import RawFormatModelSpace
from torch import nn
from torch.utils.data import TensorDataset

from nni_warmstart import (
    ConfigError,
    Supernet,
    TransferError,
    WarmStartDARTS,
    WarmStartGumbelDARTS,
    WarmStartProxyless,
    transfer,
)
from nni_warmstart.data import split
from nni_warmstart.data.labelled import first_batches
from nni_warmstart.nni_adapter import batchnorm
from nni_warmstart.nni_adapter.choices import choices
from nni_warmstart.nni_adapter.mutation import first_names, mutate
from nni_warmstart.utils.metrics import accuracy_on
from nni_warmstart.utils.modules import state_kept


def test_body_is_copied_and_head_fitted(source):
    model = target()
    report = transfer(source, model, keep=1.0, data=batches(4))
    state = source.state_dict()
    how = {origin.target: origin.how for origin in report.origins}
    for name, parameter in model.named_parameters():
        if name.startswith('classifier'):
            assert how[name] == 'fitted'
        else:
            assert how[name] == 'copied'
            assert torch.equal(parameter, state[name])
    assert report.share_inherited == 1.0
    assert 'three' in str(report)


def test_every_tensor_is_in_the_report(source):
    model = target()
    report = transfer(source, model, data=batches(4))
    names, aliases = first_names(model)
    assert {origin.target for origin in report.origins} == names.keys()
    assert names.keys() | aliases.keys() == model.state_dict().keys()
    text = report.to_text(every_tensor=True)
    assert all(name in text for name in names)


def test_shrink_and_perturb(source):
    fresh, model = target(seed=7).state_dict(), target(seed=7)
    transfer(source, model, keep=0.3, data=batches(4))
    state, name = source.state_dict(), 'stem.0.weight'
    expected = 0.3 * state[name] + 0.7 * fresh[name]
    assert torch.allclose(model.state_dict()[name], expected, atol=1e-7)


@pytest.mark.parametrize(('alpha', 'strength'), [('transfer', 1.0), ('reset', 0.0), (0.25, 0.25)])
def test_alpha_prior(source, alpha, strength):
    fresh = {label: choice.alpha.detach().clone() for label, choice in choices(target(seed=2)).items()}
    model = target(seed=2)
    transfer(source, model, alpha=alpha, data=batches(4))
    for label, choice in choices(model).items():
        expected = strength * source.alpha(label) + (1 - strength) * fresh[label]
        assert torch.allclose(choice.alpha, expected, atol=1e-7)


def test_alphas_follow_their_candidates_not_their_place(source):
    """Candidates in another order: every logit goes to the op of its name."""
    model = target()
    label = next(iter(choices(model)))
    altered = {**source.candidates, label: source.candidates[label][::-1]}
    changed = Supernet(**{**source.card, 'candidates': altered}, tensors=source.tensors)
    transfer(changed, model, data=batches(4))
    assert torch.equal(choices(model)[label].alpha.detach(), source.alpha(label).flip(0))


def test_batch_norm_describes_the_target(source):
    data = batches(4)
    model = target()
    report = transfer(source, model, data=data, keep=1.0)
    assert any(origin.how == 're-estimated' for origin in report.origins)
    norm = model.stem[1]
    with torch.no_grad():
        outputs = [model.stem[0](x) for x, _ in data]
    sizes = torch.tensor([float(len(x)) for x, _ in data])
    mean = (torch.stack([o.mean((0, 2, 3)) for o in outputs]) * sizes[:, None]).sum(0) / sizes.sum()
    assert torch.allclose(norm.running_mean, mean, atol=1e-5)
    var = (torch.stack([o.var((0, 2, 3)) for o in outputs]) * sizes[:, None]).sum(0) / sizes.sum()
    assert torch.allclose(norm.running_var, var, rtol=1e-4)


@pytest.mark.slow
def test_nnis_mixed_batch_norm_is_reestimated():
    import nni.nas.hub.pytorch as hub
    from nni.nas.oneshot.pytorch.supermodule.operation import MixedBatchNorm2d

    model = mutate(hub.DARTS(width=4, num_cells=3, dataset='cifar'), 'DARTS')
    norm = next(m for m in model.modules() if isinstance(m, MixedBatchNorm2d))
    before = dict(norm.init_arguments)
    x = torch.randn(8, 3, 16, 16)
    assert batchnorm.reestimate(model, [x, x]) == 16
    with torch.no_grad():
        assert torch.allclose(norm.running_mean, model.stem[0](x).mean((0, 2, 3)), atol=1e-5)
    assert norm.init_arguments == before
    assert model.training


def test_batch_norm_that_runs_twice_per_batch_gets_the_average_of_both_calls():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm2d(2)

        def forward(self, x):
            return self.norm(self.norm(x) * 0 + 10 * x)

    model, images = Twice(), [torch.randn(48, 2, 8, 8), torch.randn(16, 2, 8, 8) + 3]
    assert batchnorm.reestimate(model, images) == 64
    of_each = torch.stack([torch.stack([x.mean((0, 2, 3)), x.var((0, 2, 3)) * 101 / 2]) for x in images])
    weights = torch.tensor([0.75, 0.25])[:, None]
    assert torch.allclose(model.norm.running_mean, (of_each[:, 0] * 5.5 * weights).sum(0), atol=1e-4)
    assert torch.allclose(model.norm.running_var, (of_each[:, 1] * weights).sum(0), rtol=1e-3)
    assert model.norm.momentum == 0.1


def test_batch_norm_that_computes_by_another_function_is_reestimated_too():
    class Other(nn.BatchNorm2d):
        """As SyncBatchNorm on several devices, it does not call that of torch.nn.functional."""

        def forward(self, x):
            statistics = self.running_mean, self.running_var, self.training, self.momentum, self.eps
            return torch.batch_norm(x, self.weight, self.bias, *statistics, False)

    norm, images = Other(2), [torch.randn(48, 2, 8, 8), torch.randn(16, 2, 8, 8) + 3]
    batchnorm.reestimate(norm, images)
    means = torch.stack([x.mean((0, 2, 3)) for x in images])
    assert torch.allclose(norm.running_mean, 0.75 * means[0] + 0.25 * means[1], atol=1e-5)
    assert norm.momentum == 0.1


class Normalised(OwnSpace):
    """A frozen stem, and constants of its own images."""

    def __init__(self, mean: float) -> None:
        super().__init__()
        self.stem[0].requires_grad_(False)
        self.register_buffer('mean', torch.full((1, 3, 1, 1), mean))

    def forward(self, x):
        return super().forward(x - self.mean)


@pytest.mark.parametrize(('keep', 'mean'), [(0.8, 0.5), (0.8, 120.0), (0.0, 120.0)])
def test_frozen_weights_are_inherited_whole_and_other_constants_are_in_the_notes(keep, mean):
    one, other = mutate(Normalised(0.5), 'DARTS'), mutate(Normalised(mean), 'DARTS')
    before = {name: tensor.clone() for name, tensor in other.state_dict().items()}
    kept = Supernet.from_model(one, name='one', dataset=make_task())
    notes = transfer(kept, other, head='random', keep=keep).notes
    assert torch.equal(other.stem[0].weight, one.stem[0].weight if keep else before['stem.0.weight'])
    first = other.first['conv'].weight
    assert torch.allclose(first, keep * one.first['conv'].weight + (1 - keep) * before['first.conv.weight'])
    assert other.mean.unique().tolist() == [0.5]
    assert [note for note in notes if 'Buffers' in note] == (
        ['Buffers of the target have the values of the source, which are others (mean).'] if mean != 0.5 else []
    )


def test_kept_statistics_come_back_to_the_bit():
    model = target()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with state_kept(model):
        batchnorm.reestimate(model, [torch.randn(8, 3, 8, 8)])
        assert not torch.equal(model.state_dict()['stem.1.running_mean'], before['stem.1.running_mean'])
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_the_target_is_untouched_when_the_transfer_fails(source):
    model = target()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(TransferError, match="head 'copy' needs equal classifiers"):
        transfer(source, model, head='copy', data=batches(4))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_global_randomness_is_untouched(source):
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    model = target(seed=11)
    torch.manual_seed(11)
    transfer(source, model, data=torch.utils.data.DataLoader(split(make_task(classes=4, n=64)).train, 8, shuffle=True))
    assert torch.equal(torch.rand(3), expected)


def test_labels_of_other_types_and_ranges(source):
    x, y = next(iter(batches(3)))
    report = transfer(source, target(3), data=[(x, y.int())])
    assert report.zero_shot_accuracy is not None
    with pytest.raises(
        TransferError, match=r'labels from 1 to 3, and the classifier has 3 classes; number them from 0.*random'
    ):
        transfer(source, target(3), head='ridge', data=[(x, y + 1)])
    assert set(y.tolist()) == {0, 1, 2}


@pytest.mark.parametrize('head', ['random', 'copy'])
@pytest.mark.parametrize('shift', [1, -1])
def test_labels_that_are_none_of_the_classes(source, head, shift, caplog):
    """Such as those of one logit, an index that is ignored, or whole numbers to predict."""
    x, y = next(iter(batches(3)))
    report = transfer(source, target(3), head=head, data=[(x, y + shift)])
    assert report.zero_shot_accuracy is None
    assert f'data has labels from {shift} to {2 + shift}, and the model 3 outputs.' in caplog.text
    assert any(origin.how == 're-estimated' for origin in report.origins)


class Several(OwnSpace):
    def forward(self, x):
        return {'logits': super().forward(x), 'features': x}


class Flat(OwnSpace):
    def forward(self, x):
        return super().forward(x)[:, 0]


@pytest.mark.parametrize('head', ['random', 'copy'])
@pytest.mark.parametrize('space', [Several, Flat])
def test_outputs_that_are_no_logits_of_classes(space, head):
    source, model = (mutate(space(), 'DARTS') for _ in range(2))
    before = model.head.weight.detach().clone()
    report = transfer(Supernet.from_model(source, name='source'), model, head=head, data=batches(3))
    assert report.zero_shot_accuracy is None
    assert torch.equal(model.head.weight, before) == (head == 'random')


@pytest.mark.parametrize('shape', [(8,), (8, 3), (8, 8, 8)])
def test_labels_that_are_no_classes(source, shape):
    x, y = next(iter(batches(3)))[0], torch.rand(shape)
    with pytest.raises(TransferError, match=r"head 'ridge' is fitted on classes, .* type torch.float32; pass head='random'"):
        transfer(source, target(3), data=[(x, y)])
    report = transfer(source, target(3), head='random', data=[(x, y)])
    assert report.zero_shot_accuracy is None
    assert any(origin.how == 're-estimated' for origin in report.origins)


def test_pictures_that_are_not_finite(source):
    x, y = next(iter(batches(3)))
    x[0, 0, 0, 0] = float('nan')
    with pytest.raises(TransferError, match='are not finite; look for NaN or infinite pixels'):
        transfer(source, target(3), data=[(x, y)])


def test_any_evaluator_of_nni(source, tmp_path):
    """Regression has no classes to fit a head on, and no accuracy."""
    generator = torch.Generator().manual_seed(0)
    data = [
        TensorDataset(torch.rand(32, 3, 8, 8, generator=generator), torch.rand(32, 1, generator=generator)) for _ in '12'
    ]
    loaders = [DataLoader(each, 8) for each in data]
    evaluator = Regression(
        train_dataloaders=loaders[0], val_dataloaders=loaders[1], max_epochs=1, enable_progress_bar=False, logger=False,
        enable_checkpointing=False, default_root_dir=str(tmp_path),
    )  # fmt: skip
    strategy = WarmStartDARTS(source=source, head='random')
    strategy(RawFormatModelSpace(small_space(1), evaluator), SequentialExecutionEngine())
    assert strategy.report.zero_shot_accuracy is None
    assert strategy.report.share_inherited > 0.9
    assert set(strategy.oneshot_module.final) >= {'default', 'val_loss'}
    assert 'test_accuracy' not in strategy.oneshot_module.final


def test_a_space_that_nni_cannot_mutate(source, tmp_path):
    space = small_space()
    space.add_mutable(nni.uniform('rate', 0, 1))
    with pytest.raises(ConfigError, match=r'NNI cannot make a supernet of NasBench201 for WarmStartDARTS: .* categorical'):
        run(WarmStartDARTS(source=source), tmp_path, space=space)


def test_a_target_that_is_not_mutated(source):
    with pytest.raises(TransferError, match=r'NasBench201 is not mutated; pass the result of strategy.mutate_model'):
        transfer(source, small_space(3), data=batches(3))


@pytest.mark.parametrize('form', ['arrays', 'dataset', 'loader'])
def test_a_part_of_sorted_data_has_every_class(form):
    x, y = torch.arange(2000.0)[:, None], torch.arange(2000) // 500
    dataset = TensorDataset(x, y)
    data = {'arrays': (x, y), 'dataset': dataset, 'loader': DataLoader(dataset, batch_size=32)}[form]
    first, again = ([torch.cat(part) for part in zip(*first_batches(data, 512), strict=True)] for _ in range(2))
    assert len(first[1]) == 512
    assert first[1].bincount().min() > 64
    assert torch.equal(first[0][:, 0] // 500, first[1])
    assert torch.equal(first[0], again[0])


def test_all_of_the_data_keep_their_order():
    dataset = TensorDataset(torch.zeros(40, 1), torch.arange(40))
    assert torch.equal(torch.cat([y for _, y in first_batches(DataLoader(dataset, batch_size=16), 40)]), torch.arange(40))


def test_zero_shot_accuracy_is_that_of_the_target_model(source):
    model, val = target(), batches(4, seed=9)
    report = transfer(source, model, data=batches(4), val_data=val)
    assert report.zero_shot_accuracy == accuracy_on(model, val, 'cpu')


@pytest.mark.parametrize('strategy', [WarmStartDARTS, WarmStartGumbelDARTS, WarmStartProxyless])
def test_all_strategies_start_warm(source, strategy, tmp_path):
    torch.manual_seed(0)
    done = run(strategy(source=source, keep=1.0), tmp_path, task=make_task(classes=4, n=64), epochs=1)
    assert done.report.share_inherited == 1.0
    assert done.report.zero_shot_accuracy > 0.25
    assert set(done.report.seconds) == {'choosing', 'mapping', 'batch_norm', 'head', 'probe'}


def test_own_space_is_a_source_for_itself(tmp_path):
    torch.manual_seed(0)
    source = Supernet.from_strategy(run(WarmStartDARTS(), tmp_path, space=OwnSpace(), epochs=1), name='own')
    again = run(WarmStartDARTS(source=source), tmp_path, space=OwnSpace(4), task=make_task(classes=4, n=64), epochs=1)
    assert again.report.share_inherited == 1.0


def test_save_to_remembers_the_supernet(source, tmp_path):
    from nni_warmstart import SupernetZoo

    done = run(WarmStartDARTS(source=source, save_to=tmp_path / 'zoo'), tmp_path, epochs=1)
    zoo = SupernetZoo(tmp_path / 'zoo')
    assert zoo.names() == ['nasbench201-1']
    assert (zoo['nasbench201-1'].history['dataset'], zoo['nasbench201-1'].class_names) == (
        'blobs',
        [f'class{i}' for i in range(3)],
    )
    remembered = zoo['nasbench201-1'].state_dict()
    assert all(torch.equal(tensor, remembered[name]) for name, tensor in done.supernet.state_dict().items())


def test_data_in_three_forms(source):
    data = split(make_task(n=64, classes=4, seed=5)).train
    x, y = (torch.stack(part) for part in zip(*(data[i] for i in range(len(data))), strict=True))
    states = []
    for form in (data, (x, y), [(x, y)]):
        model = target()
        transfer(source, model, data=form)
        states.append(model.state_dict())
    assert all(torch.equal(states[0][name], state[name]) for state in states[1:] for name in state)


def test_data_of_other_forms(source):
    with pytest.raises(TransferError, match='data is empty'):
        transfer(source, target(), data=[])
    with pytest.raises(TransferError, match=r'batches \(inputs, classes\) of two tensors'):
        transfer(source, target(), data=[torch.zeros(8, 3, 8, 8)])


def test_gumbel_is_evaluated_without_noise(source):
    """The same accuracy before training as DARTS has, whatever the seed."""
    accuracies = set()
    for kind, seed in (('DARTS', 0), ('GumbelDARTS', 1), ('GumbelDARTS', 2)):
        torch.manual_seed(seed)
        report = transfer(source, target(kind=kind), keep=1.0, data=batches(4), val_data=batches(4, seed=9))
        accuracies.add(report.zero_shot_accuracy)
    assert len(accuracies) == 1


def test_proxyless_reports_only_the_statistics_that_were_estimated(source):
    model = target(kind='Proxyless')
    before = {name: tensor.clone() for name, tensor in source.state_dict().items()}
    report = transfer(source, model, keep=1.0, data=batches(4))
    for origin in report.origins:
        changed = not torch.equal(model.state_dict()[origin.target], before.get(origin.target, torch.zeros(())))
        if not origin.parameter and origin.how == 're-estimated':
            assert changed
        if not origin.parameter and origin.how == 'copied':
            assert not changed


# -- bad input ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'keep': 1.5}, 'keep = 1.5, but it must be from 0 to 1'),
        ({'keep': True}, 'keep = True, but it must be from 0 to 1'),
        ({'keep': -0.1}, 'keep = -0.1, but it must be from 0 to 1'),
        ({'alpha': 2}, 'alpha = 2, but it must be from 0 to 1'),
        ({'alpha': 'best'}, "alpha = 'best' is unknown"),
        ({'noise': -1}, 'noise = -1, but it must be 0 or more'),
        ({'head': 'linear'}, "head = 'linear' is unknown; choose one of ridge"),
    ],
)
def test_settings_out_of_range(settings, message, source):
    with pytest.raises(TransferError, match=message):
        WarmStartDARTS(source=source, **settings)
    with pytest.raises(TransferError, match=message):
        transfer(source, target(), data=batches(4), **settings)


def test_bounds_are_allowed():
    for value in (0, 1):
        WarmStartDARTS(keep=value, alpha=value, noise=value)


def test_sources_of_another_space_or_depth(source):
    class Strange(OwnSpace):
        """Nothing of it is called as anything in the source."""

        def __init__(self):
            super().__init__()
            self.trunk, self.stem = self.stem, nn.Identity()

        def forward(self, x):
            return super().forward(self.trunk(x))

    model = mutate(Strange(), 'DARTS')
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(TransferError, match=r'have 0 of \d+ weights in common; choose a source of a similar space'):
        transfer(source, model, data=batches(3))
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_data_that_the_model_cannot_take(source):
    with pytest.raises(TransferError, match='the first batch of data does not go into NasBench201 as it is'):
        transfer(source, target(), data=[(torch.zeros(4, 1, 8, 8), torch.zeros(4, dtype=torch.long))])


def test_sources_of_another_kind(tmp_path):
    from nni_warmstart import ZooError

    with pytest.raises(ZooError, match=r"source = 'nothing' is neither a file nor an entry of"):
        run(WarmStartDARTS(source='nothing'), tmp_path)
    with pytest.raises(ZooError, match='source is a int'):
        run(WarmStartDARTS(source=3), tmp_path)
