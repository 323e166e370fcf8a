"""Make the shipped supernets again, each by the recipe of zoo/pretrain_shipped.yml with the changes below.

    python benchmarks/rebuild_zoo.py --data DIR                     # all that the package's zoo lacks; resumable
    python benchmarks/rebuild_zoo.py --data DIR --zoo mine NAME ... # some of them, elsewhere, or others that are not shipped

About nine hours on one core. The joint ones of nasbench201 need the photographs of zoo/photographs.py besides; that of width
16 goes on from a first one without these, which is made as well. Those of one dataset and width 8 were trained when the
alphas still learned from whole batches, each picture once an epoch: made again, they come out a little different, and so
do all of them on another processor.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
import yaml

import nni_warmstart.zoo_data
from nni_warmstart import SupernetZoo
from nni_warmstart.cli import quiet
from nni_warmstart.runs.config import parse_pretrain
from nni_warmstart.runs.pretrain import pretrain

RECIPES = Path(__file__).resolve().parent / 'zoo'
RECIPE = yaml.safe_load((RECIPES / 'pretrain_shipped.yml').read_text())
CLAIM = yaml.safe_load((RECIPES / 'pretrain_claim.yml').read_text())
DATASETS = {Path(item['npz']['path']).stem: item for item in RECIPE['data']}
SINGLE = ['fashion_mnist', 'clothing', 'omniglot_latin', 'grocery', 'emoji_category', 'notmnist', 'braille', 'blood_cells']
PHOTOGRAPHS = ['clothing', 'grocery', 'blood_cells']
MORE = {
    'clothing': {'npz': {'path': 'large/clothing_3k.npz'}, 'label': 'clothing', 'weight': 3.0},
    'grocery': {'npz': {'path': 'large/grocery_3k.npz'}, 'label': 'grocery', 'weight': 3.0},
    'emoji_category': {'weight': 2.0},
}
"""What is harder to learn than letters: more of it, and oftener."""
W8 = {'flip': PHOTOGRAPHS, 'data': MORE}
W16 = {'space': CLAIM['space'], 'flip': PHOTOGRAPHS}
DARTS = {
    'space': {'name': 'darts', 'width': 4, 'num_cells': 3, 'image_size': 16},
    'evaluator': {'max_epochs': 8, 'batch_size': 32},
}
DARTS_W8 = {
    'space': {'name': 'darts', 'width': 8, 'num_cells': 5, 'image_size': 32, 'stem_stride': 2},
    'evaluator': {'max_epochs': 30, 'steps_per_epoch': 200},
    'strategy': {'name': 'WarmStartDARTS', 'fast': True},
    'flip': PHOTOGRAPHS, 'data': MORE,
}  # fmt: skip
"""Steps by plans; longer epochs, since validation takes as long as twenty steps."""
PROXYLESS = {
    **DARTS_W8, 'space': {'name': 'ProxylessNAS', 'width_mult': 0.25, 'image_size': 32},
    'evaluator': {'max_epochs': 12, 'steps_per_epoch': 200},
}  # fmt: skip
MOBILE = {**PROXYLESS, 'space': {'name': 'MobileNetV3Space', 'width_multipliers': 0.5, 'image_size': 64}}
BEGUN = 'joint-nasbench201-w16-begun'
GONE_ON = {
    **W16, 'data': MORE, 'evaluator': {'max_epochs': 60},
    'strategy': {'name': 'WarmStartDARTS', 'source': BEGUN, 'keep': 1.0},
}  # fmt: skip
"""Half as long once more with more photographs."""
SUPERNETS: dict[str, tuple[list[str], dict[str, Any]]] = {
    'joint-nasbench201-w16': (list(DATASETS), GONE_ON),
    'joint-nasbench201-w8': (list(DATASETS), W8),
    **{f'nasbench201-w8-{name}': ([name], {'evaluator': {'max_epochs': 10}}) for name in SINGLE},
    'joint-darts-w8': (list(DATASETS), DARTS_W8),
    'joint-darts-w4': (list(DATASETS), DARTS),
    'joint-mobilenetv3-w05': (list(DATASETS), MOBILE),
    'joint-proxylessnas-w025': (list(DATASETS), PROXYLESS),
    **{f'darts-w4-{name}': ([name], {**DARTS, 'evaluator': {'max_epochs': 3, 'batch_size': 32}}) for name in SINGLE[:3]},
}
"""Shipped ones: name -> datasets, and what the recipe is changed by."""
HALVES = ('joint-darts-w8', 'joint-mobilenetv3-w05', 'joint-proxylessnas-w025')
"""Those whose weights are kept in half precision, so that the package stays small."""
CONTROLS = {
    BEGUN: (list(DATASETS), W16),
    **{f'nasbench201-w16-{name}': ([name], {**W16, 'evaluator': {'max_epochs': 3}}) for name in SINGLE},
    **{f'nasbench201-w8-{name}_3k': ([name], {**W8, 'evaluator': {'max_epochs': 20}}) for name in ('clothing', 'grocery')},
}
"""Not shipped: the first goes on as a shipped one, the claim takes a random and the farthest of width 16, and pretraining
compares the others."""
OTHERS = 'joint-others-w16'
"""Not shipped: the one of zoo/pretrain_claim.yml."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', type=Path, required=True, help='folder of NAME.npz')
    parser.add_argument(
        '--zoo', type=Path, default=Path(nni_warmstart.zoo_data.__file__).parent, help="default: the package's"
    )
    others = f'or one of those that are not shipped: {", ".join([*CONTROLS, OTHERS])}'
    parser.add_argument('names', nargs='*', metavar='NAME', help=f'default: all of {", ".join(SUPERNETS)}; {others}')
    arguments = parser.parse_args()
    quiet()
    torch.set_num_threads(1)
    zoo = SupernetZoo(arguments.zoo)
    for name in arguments.names or SUPERNETS:
        try:
            make(name, zoo, arguments.data)
        except FileNotFoundError as error:
            parser.error(str(error))


def make(name: str, zoo: SupernetZoo, folder: Path) -> None:
    """Pretrain a supernet that the zoo lacks, and before it the one that it goes on from."""
    if name in zoo:
        return
    recipe = document(name)
    paths = [folder / item['npz']['path'] for item in recipe['data']]
    missing = ', '.join(str(path) for path in paths if not path.exists())
    if missing:
        raise FileNotFoundError(
            f'{name} needs {missing}; NAME_3k.npz are made by `python benchmarks/zoo/photographs.py --data DIR`.'
        )
    out = Path(tempfile.gettempdir()) / f'rebuild-{name}'  # of the same name next time, to go on from
    if 'source' in recipe['strategy']:
        sources = zoo if recipe['strategy']['source'] in zoo else SupernetZoo(out / 'sources')
        make(recipe['strategy']['source'], sources, folder)
        recipe['strategy'] = {**recipe['strategy'], 'zoo': str(sources.root)}
    command = f'python benchmarks/rebuild_zoo.py --data DIR {name}'
    supernet = pretrain(parse_pretrain(recipe, folder), name=name, seed=0, out=out, command=command, resume=True)
    supernet.history['strategy'].pop('zoo', None)  # a folder of this machine, and of this hour
    print(zoo.add(supernet.in_half() if name in HALVES else supernet))
    shutil.rmtree(out)


def document(name: str) -> dict[str, Any]:
    """What pretrain.yml of this supernet would hold."""
    if name == OTHERS:
        return CLAIM
    datasets, changes = {**SUPERNETS, **CONTROLS}[name]
    merged = {key: {**value, **changes.get(key, {})} for key, value in RECIPE.items() if isinstance(value, dict)}
    if 'space' in changes:
        merged['space'] = changes['space']
    flip, more = changes.get('flip', []), changes.get('data', {})
    data = [{**DATASETS[each], **more.get(each, {}), 'flip': each in flip} for each in datasets]
    return {**RECIPE, **merged, 'data': data}


if __name__ == '__main__':
    main()
