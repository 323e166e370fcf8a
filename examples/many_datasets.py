"""One supernet from several datasets, remembered in a zoo, and the next search that starts from it."""

import torch
from nni.nas.evaluator.pytorch import Classification, DataLoader
from nni.nas.experiment import NasExperiment
from nni.nas.hub.pytorch import NasBench201
from sklearn.datasets import load_digits
from torch.utils.data import Subset, TensorDataset

from nni_warmstart import JointClassification, WarmStartDARTS

pictures, labels = load_digits(return_X_y=True)
x, y = torch.tensor(pictures).float().view(-1, 1, 8, 8), torch.tensor(labels)
low, middle, high = ((y >= start) & (y < start + n) for start, n in ((0, 4), (4, 3), (7, 3)))


def space():
    return NasBench201(stem_out_channels=8, num_modules_per_stack=1, num_labels=10)


# Any mix of sizes, channels and classes; the space's classifier is replaced by one head per dataset.
datasets = {'low': (x[low], y[low]), 'middle': (x[middle], y[middle] - 4)}
joint = JointClassification(datasets, image_size=16, channels=3, epochs=3)
NasExperiment(space(), joint, WarmStartDARTS(save_to='my-zoo')).run()

target = torch.nn.functional.interpolate(x[high], 16).expand(-1, 3, -1, -1) / 8 - 1
data = TensorDataset(target, y[high] - 7)
train, val = (DataLoader(Subset(data, range(start, len(data), 2)), batch_size=64, shuffle=True) for start in (0, 1))
evaluator = Classification(num_classes=10, train_dataloaders=train, val_dataloaders=val, max_epochs=2)
strategy = WarmStartDARTS(source='joint', zoo='my-zoo')
NasExperiment(space(), evaluator, strategy).run()
print(strategy.report.summary())
