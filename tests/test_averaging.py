"""Averaged weights: what is validated and kept, while the training goes its own way."""

from __future__ import annotations

import pytest
import torch
from conftest import make_task, run, small_space

from nni_warmstart import ConfigError, Supernet, WarmStartDARTS, introspect
from nni_warmstart.averaging import WeightAverage


def test_an_average_reaches_back_some_steps():
    model = introspect.mutate(small_space(), 'DARTS')
    alphas = introspect.arch_parameters(model)
    average = WeightAverage(model, steps=4)
    weight = average.weights[0]
    assert not {id(alpha) for alpha in alphas} & {id(each) for each in average.weights}
    start = weight.detach().clone()
    for value in (1.0, 2.0):
        with torch.no_grad():
            weight.fill_(value)
        average.update()
    expected = 0.75 * (0.75 * start + 0.25 * 1.0) + 0.25 * 2.0
    with average.applied():
        assert torch.allclose(weight, expected)
    assert (weight == 2.0).all()
    average.apply()
    assert torch.allclose(weight, expected)


def test_averaging_leaves_the_training_as_it_is(tmp_path):
    task, searches = make_task(), {}
    for average in (0.0, 1.0):
        torch.manual_seed(0)
        searches[average] = run(WarmStartDARTS(average=average, arc_learning_rate=0.1), tmp_path, epochs=3, task=task)
    plain, averaged = searches.values()
    for one, other in zip(*(introspect.arch_parameters(each.supernet) for each in searches.values()), strict=True):
        assert torch.equal(one, other)
    assert [figures['train_loss'] for figures in plain.curve] == [figures['train_loss'] for figures in averaged.curve]
    assert not torch.equal(plain.supernet.classifier.weight, averaged.supernet.classifier.weight)
    assert [figures['val_loss'] for figures in plain.curve] != [figures['val_loss'] for figures in averaged.curve]


def test_what_is_kept_has_the_statistics_of_the_averaged_weights(tmp_path):
    task, searches = make_task(n=64), {}
    for average in (0.0, 1.0):
        torch.manual_seed(0)
        searches[average] = run(WarmStartDARTS(average=average), tmp_path, epochs=3, task=task).oneshot_module
    kept, trained = ({n: t.clone() for n, t in searches[a].model.state_dict().items() if 'running' in n} for a in (1.0, 0.0))
    assert not any(map(torch.equal, kept.values(), trained.values()))
    searches[1.0]._fit_statistics()  # they are those of the weights that are there: estimated once more, they stay
    again = searches[1.0].model.state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in kept.items())


def test_only_a_warm_start_averages_by_itself(tmp_path):
    source = Supernet.from_strategy(run(WarmStartDARTS(), tmp_path, epochs=1), name='source')
    assert WarmStartDARTS().average == 0
    assert WarmStartDARTS(source=source).average == 1
    assert WarmStartDARTS(source=source, average=0).average == 0


@pytest.mark.parametrize('average', [-1, float('inf'), float('nan'), True, 'one'])
def test_an_average_is_a_number_of_epochs(average):
    with pytest.raises(ConfigError, match='average = '):
        WarmStartDARTS(average=average)
