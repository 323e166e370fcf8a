"""Image-classification tasks: read from a name, folder, npz file or torchvision dataset, split, normalised, augmented."""

from .embedded import digits
from .image_folder import from_folder
from .labelled import image_shape, labelled, name_and_classes
from .lazy import LazyImages
from .npz import from_npz
from .splits import Images, Splits, shuffled_if_sorted, split
from .stratified import stratified_split
from .task import Task
from .torchvision_sets import from_torchvision

__all__ = [
    'Images',
    'LazyImages',
    'Splits',
    'Task',
    'digits',
    'from_folder',
    'from_npz',
    'from_torchvision',
    'image_shape',
    'labelled',
    'name_and_classes',
    'shuffled_if_sorted',
    'split',
    'stratified_split',
]
