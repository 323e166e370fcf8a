"""Second derivatives of attention and recurrent layers: those that finite differences give."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nni_warmstart.search.collapse import dominant_eigenvalue
from nni_warmstart.utils.derivatives import twice_differentiable

DEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'


class Product(nn.Module):
    """Attention as a function."""

    def forward(self, x):
        return F.scaled_dot_product_attention(x[:, None], x[:, None], x[:, None])[:, 0]


class Attention(nn.MultiheadAttention):
    def forward(self, x):  # pyright: ignore[reportIncompatibleMethodOverride]
        return super().forward(x, x, x, need_weights=False)[0]


class Recurrent(nn.LSTM):
    def forward(self, x):  # pyright: ignore[reportIncompatibleMethodOverride]
        return super().forward(x)[0]


LAYERS = {
    'function': Product,
    'MultiheadAttention': lambda: Attention(8, 2, batch_first=True),
    'TransformerEncoderLayer': lambda: nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True),
    'LSTM': lambda: Recurrent(8, 8, batch_first=True),
}


@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('make', LAYERS.values(), ids=LAYERS.keys())
def test_the_eigenvalue_is_that_of_finite_differences(make, training):
    layer = make().to(DEVICE, torch.float64).train(training)
    x, alpha = (torch.randn(shape, dtype=torch.float64, device=DEVICE) for shape in ((3, 4, 8), (2,)))
    alphas = [nn.Parameter(alpha)]

    def loss():
        weights = torch.softmax(alphas[0], 0)
        return (weights[0] * x + layer(3 * weights[1] * x)).pow(2).mean()

    with twice_differentiable(layer):
        found = dominant_eigenvalue(loss, alphas)
    step, columns = 1e-5, []
    for i in range(2):
        gradients = []
        for sign in (1, -1):
            with torch.no_grad():
                alphas[0][i] += sign * step
            gradients.append(torch.autograd.grad(loss(), alphas)[0])
            with torch.no_grad():
                alphas[0][i] -= sign * step
        columns.append((gradients[0] - gradients[1]) / (2 * step))
    values = torch.linalg.eigvalsh(torch.stack(columns))
    assert found == pytest.approx(float(values[values.abs().argmax()]), rel=1e-4)
