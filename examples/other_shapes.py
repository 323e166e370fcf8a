import torch
from nni.nas.hub.pytorch import NasBench201
from nni.nas.strategy import DARTS
from sklearn.datasets import load_digits

from nni_warmstart import SupernetZoo, transfer

pictures, labels = load_digits(return_X_y=True)
x = torch.tensor(pictures).float().view(-1, 1, 8, 8) / 8 - 1
x = torch.nn.functional.interpolate(x, 16).expand(-1, 3, -1, -1)
y = torch.tensor(labels)

source = SupernetZoo.shipped()['joint-nasbench201-w8']  # width 8, one cell a stage
space = NasBench201(stem_out_channels=16, num_modules_per_stack=2, num_labels=10)  # twice as wide, twice as deep
target = DARTS().mutate_model(space)

report = transfer(source, target, data=(x[:1000], y[:1000]), val_data=(x[1000:], y[1000:]))
print(report)  # a line per cell; report.to_text(every_tensor=True) for all, report.origins for plain data
print(report.blocks['cells.1'], report.choices['cell/0_1'])
report.plot('mapping.png')
