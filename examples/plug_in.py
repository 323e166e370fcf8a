"""A warm start in your own NasExperiment: model space and evaluator stay as they are, only the strategy changes."""

import torch
from nni.nas.evaluator.pytorch import Classification, DataLoader
from nni.nas.experiment import NasExperiment
from nni.nas.hub.pytorch import NasBench201
from sklearn.datasets import load_digits
from torch.utils.data import TensorDataset

from nni_warmstart import WarmStartDARTS

pictures, labels = load_digits(return_X_y=True)
x = torch.tensor(pictures).float().view(-1, 1, 8, 8) / 8 - 1
x = torch.nn.functional.interpolate(x, 16).expand(-1, 3, -1, -1)
data = TensorDataset(x, torch.tensor(labels))
train, val = (torch.utils.data.Subset(data, range(start, 1200, 2)) for start in (0, 1))

space = NasBench201(stem_out_channels=8, num_modules_per_stack=1, num_labels=10)
evaluator = Classification(
    num_classes=10,
    train_dataloaders=DataLoader(train, batch_size=64, shuffle=True),
    val_dataloaders=DataLoader(val, batch_size=64),
    max_epochs=2,
)
strategy = WarmStartDARTS(source='auto')  # was: DARTS()
experiment = NasExperiment(space, evaluator, strategy)
experiment.run()

print(strategy.report)
print([figures['default'] for figures in strategy.curve])
print(experiment.export_top_models(formatter='dict'))
