"""Parts of joint training, without a search: draws, heads, augmentation, drop path, batch norms of datasets."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from helpers.tiny import small_space
from torch import nn

from nni_warmstart.data.augmentation import cropped, cut_out, flipped, jittered
from nni_warmstart.evaluators.drop_path import drop_paths
from nni_warmstart.evaluators.joint_data import _EveryBatch, _RandomBatches
from nni_warmstart.evaluators.joint_module import JointModule
from nni_warmstart.evaluators.norm_bank import NormBank
from nni_warmstart.nni_adapter.mutation import mutate


def test_every_validation_picture_comes_once():
    batches = list(_EveryBatch([5, 9], batch_size=4))
    assert sorted(index for batch in batches for index in batch) == list(range(14))
    assert all(len({index < 5 for index in batch}) == 1 for batch in batches)
    assert min(map(len, _EveryBatch([65, 3, 9], batch_size=8).batches)) > 1  # batch norm needs two images


def test_the_first_batches_may_be_of_all_datasets():
    sizes = [40, 6, 30, 2]
    mixed, first = (_EveryBatch(sizes, batch_size=4, all_first=each) for each in (False, True))
    starts = torch.tensor(sizes).cumsum(0)
    seen = [int(torch.searchsorted(starts, batch[0], right=True)) for batch in first.batches[:4]]
    assert sorted(seen) == [0, 1, 2, 3]
    assert sorted(map(tuple, mixed)) == sorted(map(tuple, first))


def test_weights_tilt_the_draw():
    torch.manual_seed(0)
    batches = list(_RandomBatches([900, 100, 100], 8, 4000, 1e9, [1.0, 3.0, 1.0]))
    shares = [sum(low <= batch[0] < high for batch in batches) / 4000 for low, high in ((0, 900), (900, 1000), (1000, 1100))]
    assert shares == pytest.approx([0.2, 0.6, 0.2], abs=0.03)


def test_devices_draw_alike_and_take_parts_of_one_length(monkeypatch):
    monkeypatch.setattr('torch.distributed.is_initialized', lambda: True)
    monkeypatch.setattr('torch.distributed.get_world_size', lambda: 2)
    drawn = []
    for rank in (0, 1):
        monkeypatch.setattr('torch.distributed.get_rank', lambda rank=rank: rank)
        torch.manual_seed(0)
        drawn.append(list(_RandomBatches([7, 9, 4], 8, 50, 2.0, [1.0, 1.0, 1.0])))
    for mine, theirs in zip(*drawn, strict=True):
        assert len(mine) == len(theirs)
        assert not set(mine) & set(theirs)


@pytest.mark.parametrize(('temperature', 'share'), [(0.01, 1.0), (1.0, 0.9), (2.0, 0.75), (1e9, 0.5)])
def test_temperature_flattens_the_draw(temperature, share):
    torch.manual_seed(0)
    batches = list(_RandomBatches([900, 100], 8, 4000, temperature, [1.0, 1.0]))
    assert sum(batch[0] < 900 for batch in batches) / 4000 == pytest.approx(share, abs=0.03)


def test_classes_of_other_datasets_do_not_compete():
    module = JointModule({'a': (0, 3), 'b': (3, 5)}, (1, 2, 2), classifier='1')
    module.set_model(nn.Sequential(nn.Flatten(), nn.Linear(4, 5), nn.Identity()))
    with torch.no_grad():
        module.model[1].weight.zero_()
    for bias, y, name, own, right in (
        ([0.0, 1.0, 2.0, 50.0, 60.0], 1, 'a', slice(0, 3), False),
        ([70.0, 80.0, 90.0, 2.0, 1.0], 3, 'b', slice(3, 5), True),
    ):
        module.model[1].bias.data = torch.tensor(bias)
        found, loss, correct = module.joint_loss(torch.zeros(1, 1, 2, 2), torch.tensor([y]))
        expected = F.cross_entropy(torch.tensor([bias[own]]), torch.tensor([y - own.start]))
        assert (found, correct.tolist()) == (name, [right])
        assert float(loss) == pytest.approx(float(expected))


def test_jitter_moves_pictures_a_little():
    x = torch.rand(6, 3, 16, 16)
    assert jittered(x, 0.0) is x
    torch.manual_seed(0)
    moved = jittered(x, 0.1)
    assert moved.shape == x.shape
    assert not torch.allclose(moved, x)
    constant = torch.full((2, 1, 8, 8), 0.7)
    assert torch.allclose(jittered(constant, 0.3), constant, atol=1e-5)  # borders are repeated, not blackened


def test_crops_are_windows_of_the_padded_picture():
    x = torch.arange(2 * 8 * 8.0).view(2, 1, 8, 8) + 1
    torch.manual_seed(0)
    moved = cropped(x, 0.25)
    padded = F.pad(x, [2] * 4)
    for picture, original in zip(moved, padded, strict=True):
        windows = [original[:, i : i + 8, j : j + 8] for i in range(5) for j in range(5)]
        assert any(torch.equal(picture, window) for window in windows)
    assert cropped(x, 0.0) is x


def test_mirrors_and_squares():
    x = torch.rand(64, 1, 8, 8) + 1
    torch.manual_seed(0)
    mirrored = [torch.equal(a, b.flip(-1)) for a, b in zip(flipped(x), x, strict=True)]
    assert 16 < sum(mirrored) < 48
    cut = cut_out(x, 0.5)
    assert 0 < (cut == 0).float().mean() < 0.25
    assert torch.equal(cut[cut != 0], x[cut != 0])


def test_drop_path_drops_ops_with_weights_in_training_only():
    torch.manual_seed(0)
    model = mutate(small_space(), 'DARTS')
    x = torch.rand(4, 3, 8, 8)
    plain = model.eval()(x)
    hooks = drop_paths(model, lambda: 0.9)
    assert torch.equal(model(x), plain)
    model.train()
    assert not torch.equal(model(x), model(x))
    for hook in hooks:
        hook.remove()
    model.load_state_dict(model.state_dict())
    assert torch.equal(model(x), model(x))


def test_batch_norm_per_dataset_is_apart_and_then_averaged():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    bank = NormBank(model, ['a', 'b.c'])
    optimizer = torch.optim.SGD([*model.parameters(), *bank.parameters()], lr=0.1)
    for name, shift in (('a', 5.0), ('b.c', -5.0)):
        (bank.run(model, name, torch.rand(8, 3, 4, 4) + shift) * torch.rand(1, 4, 1, 1)).sum().backward()
    optimizer.step()
    a, b = bank.tensors('a'), bank.tensors('b.c')
    assert not torch.equal(a['1.running_mean'], b['1.running_mean'])
    assert not torch.equal(a['1.bias'], b['1.bias'])
    assert torch.equal(model[1].running_mean, torch.zeros(4))
    model.double()  # as moving to another device: buffers are replaced
    bank.merge(model)
    for name in ('1.weight', '1.bias', '1.running_mean', '1.running_var'):
        assert torch.allclose(model.state_dict()[name].float(), (a[name] + b[name]) / 2)
