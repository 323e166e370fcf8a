import torch
from sklearn.datasets import load_digits

from nni_warmstart import DatasetSketch, SupernetZoo, dataset_distance

pictures, labels = load_digits(return_X_y=True)
x, y = torch.tensor(pictures).float().view(-1, 1, 8, 8), torch.tensor(labels)
upright, turned = DatasetSketch.from_dataset((x, y)), DatasetSketch.from_dataset((x.rot90(1, (2, 3)), y))

distance = dataset_distance(upright, turned)
print(f'{distance.value:.2f} +- {distance.error:.1e}')
print(distance.label_coupling.argmax(1))  # the turned digit that each digit resembles most

for entry in SupernetZoo.shipped().rank(upright):
    print(entry.name, entry.distance)
