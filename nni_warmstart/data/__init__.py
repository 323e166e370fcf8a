"""Image-classification tasks: read by name, folder, npz file or torchvision dataset, split, normalised, augmented."""

from .image_folder import from_folder
from .labelled import image_shape, labelled, name_and_classes
from .sources import digits, from_npz, from_torchvision
from .splits import Images, Splits, shuffled_if_sorted, split, stratified_split
from .task import Task

__all__ = [
    'Images',
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
