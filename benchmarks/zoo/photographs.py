"""More photographs for pretraining than the tasks hold: two public collections under licences that allow to pass on weights.

    python benchmarks/zoo/photographs.py --data DIR                 # clones both (230 MB) and writes DIR/large/NAME_3k.npz
    python benchmarks/zoo/photographs.py --data DIR --clones FOLDER # from clones in FOLDER/OWNER/NAME that are there already

Clothing (3,068 pictures, CC0-1.0) and groceries (2,936, MIT), of which `clothing` and `grocery` are parts. Only training and
validation pictures of the originals are taken.
"""

from __future__ import annotations

import argparse
import csv
import io
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

CLOTHING = 'alexeygrigorev/clothing-dataset-small', '1196151651'
GROCERY = 'marcusklasson/GroceryStoreDataset', 'fc80ba90f8'
SIDE = 32
FEWEST = 20
"""Pictures of a class of groceries that is taken."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', type=Path, required=True, help='folder of NAME.npz')
    parser.add_argument('--clones', type=Path, help='folder of the clones (default: a temporary one)')
    arguments = parser.parse_args()
    (arguments.data / 'large').mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.clones or Path(temporary)
        clone = cloned(folder, *CLOTHING)
        classes = sorted(path.name for path in (clone / 'train').iterdir())
        save(arguments.data / 'large' / 'clothing_3k.npz', clothing(clone), classes)
        clone = cloned(folder, *GROCERY)
        save(arguments.data / 'large' / 'grocery_3k.npz', grocery(clone), coarse_classes(clone))


def cloned(folder: Path, name: str, commit: str) -> Path:
    """The work tree of a repository at a commit."""
    clone = folder / name
    if not clone.exists():
        subprocess.run(['git', 'clone', f'https://github.com/{name}', str(clone)], check=True)
        subprocess.run(['git', '-C', str(clone), 'checkout', '--quiet', commit], check=True)
    return clone


def clothing(clone: Path) -> Iterator[tuple[np.ndarray, str]]:
    """Pictures in full, their edges repeated to make them square."""
    for path in sorted((clone / 'train').glob('*/*.jpg')):
        picture = np.asarray(Image.open(path).convert('RGB'))
        height, width = picture.shape[:2]
        side = max(height, width)
        above, left = (side - height) // 2, (side - width) // 2
        margins = ((above, side - height - above), (left, side - width - left), (0, 0))
        yield resized(Image.fromarray(np.pad(picture, margins, mode='edge'))), path.parent.name


def grocery(clone: Path) -> Iterator[tuple[np.ndarray, str]]:
    """Centred squares; the coarse classes with enough pictures."""
    names = coarse_classes(clone)
    rows = [
        [cell.strip() for cell in row]
        for part in ('train', 'val')
        for row in csv.reader((clone / 'dataset' / f'{part}.txt').read_text().splitlines())
    ]
    sizes = Counter(label for _, _, label in rows)
    for path, _, label in rows:
        if sizes[label] >= FEWEST:
            picture = Image.open(clone / 'dataset' / path).convert('RGB')
            side = min(picture.size)
            left, above = (picture.width - side) // 2, (picture.height - side) // 2
            yield resized(picture.crop((left, above, left + side, above + side))), names[int(label)]


def coarse_classes(clone: Path) -> list[str]:
    """Names by number."""
    table = csv.DictReader(io.StringIO((clone / 'dataset' / 'classes.csv').read_text()))
    names = {int(row['Coarse Class ID (int)']): row['Coarse Class Name (str)'] for row in table}
    return [name for _, name in sorted(names.items())]


def resized(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS))


def save(path: Path, labelled: Iterable[tuple[np.ndarray, str]], classes: list[str]) -> None:
    """Write all of it as training pictures, in random order; of the classes those that it has."""
    pictures, labels = zip(*labelled, strict=True)
    names = [name for name in classes if name in labels]
    order = np.random.default_rng(0).permutation(len(labels))
    x, y = np.stack(pictures)[order], np.array([names.index(label) for label in labels])[order]
    np.savez_compressed(path, train_x=x, train_y=y, class_names=np.array(names))
    print(f'{path}: {len(y)} pictures of {len(names)} classes')


if __name__ == '__main__':
    main()
