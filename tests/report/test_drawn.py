"""The page of a report in a browser: what is drawn is what searches left, in light and dark, and no name runs."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from helpers.browser import Browser, Tab
from helpers.tiny import SMALL, save_npz

from nni_warmstart.cli import main

pytestmark = pytest.mark.slow

HOSTILE = '<img src=x onerror="document.title=1">&<b>'
COLOURS = {'light': ['#1f5fa8', '#c2410c'], 'dark': ['#82b4f0', '#fb923c']}
CHARTS = ['validation accuracy', 'train loss', 'alpha entropy', 'skip share', 'test accuracy']


@pytest.fixture(scope='module')
def browser(tmp_path_factory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp('profile')) as browser:
        yield browser


@pytest.fixture(scope='module')
def runs(browser, tmp_path_factory) -> Path:  # needs no browser, but is not made without
    """A cold search and its network, and a warm one whose name is markup."""
    folder = tmp_path_factory.mktemp('drawn')
    save_npz(folder / 'shapes.npz', n=36)
    (folder / 'search.yml').write_text(yaml.safe_dump({**SMALL, 'evaluator': {**SMALL['evaluator'], 'max_epochs': 4}}))
    runs, config = folder / 'runs', ['--config', str(folder / 'search.yml')]
    assert main(['search', *config, '--out', str(runs / 'cold')]) == 0
    warm = f'strategy={{name: WarmStartDARTS, source: {runs / "cold" / "supernet.safetensors"}}}'
    assert main(['search', *config, '--out', str(runs / 'warm'), '--set', warm]) == 0
    assert main(['retrain', *config, '--run', str(runs / 'cold'), '--out', str(runs / 'net')]) == 0
    (runs / 'warm').rename(runs / HOSTILE.replace('/', ''))
    assert main(['report', str(runs), '--out', str(folder / 'report.html')]) == 0
    return runs


@pytest.fixture
def page(browser, runs) -> Tab:
    page = browser.open((runs.parent / 'report.html').as_uri())
    page.wait('document.querySelectorAll(".chart canvas").length == 5')
    return page


def scheme(page: Tab, name: str) -> None:
    page.call('Emulation.setEmulatedMedia', features=[{'name': 'prefers-color-scheme', 'value': name}])
    page.evaluate('new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))')


def colours(page: Tab, chart: int) -> set[str]:
    """Colours of more than 20 pixels of a chart."""
    return set(
        page.evaluate(f"""(canvas => {{
        const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data, counts = {{}};
        for (let i = 0; i < data.length; i += 4) if (data[i + 3] == 255) {{
            const hex = '#' + [0, 1, 2].map(j => data[i + j].toString(16).padStart(2, '0')).join('');
            counts[hex] = (counts[hex] ?? 0) + 1;
        }}
        return Object.keys(counts).filter(hex => counts[hex] > 20);
    }})(document.querySelectorAll('.chart canvas')[{chart}])""")
    )


def at(page: Tab, chart: int, share: float) -> str:
    """What the page says when the pointer is at a share of the width of a chart."""
    page.evaluate(f'document.querySelectorAll(".chart")[{chart}].scrollIntoView({{block: "center"}})')
    left, top, width, height = page.evaluate(
        f'(b => [b.left, b.top, b.width, b.height])(document.querySelectorAll(".u-over")[{chart}].getBoundingClientRect())'
    )
    page.hover(left + share * (width - 1), top + height / 2)
    return page.texts('.readout')[chart]


def test_the_curves_are_those_of_the_results(page, runs):
    names = page.texts('.legend button')
    assert [name[:3] for name in names] == ['1. ', '2. ', 'net']
    results = [json.loads((runs / name.removeprefix(f'{number}. ') / 'result.json').read_text())
               for number, name in enumerate(names[:2], 1)]  # fmt: skip
    assert page.evaluate('[...document.querySelectorAll(".chart")].map(e => e.ariaLabel.split(" over")[0])') == CHARTS
    for chart, key in ((0, 'default'), (1, 'train_loss')):
        last = ' · '.join(f'{name}: {r["curve"][-1][key]:.4f}' for name, r in zip(names, results, strict=False))
        assert at(page, chart, 1.0) == f'epoch 4 · {last}'
    before = next(r['warm_start'] for r in results if r['warm_start'])['zero_shot_accuracy']
    assert at(page, 0, 0.0).startswith('epoch 0 · ') and f'{before:.4f}' in at(page, 0, 0.0)
    net = json.loads((runs / 'net' / 'result.json').read_text())
    assert at(page, 4, 1.0) == f'epoch 4 · net: {net["curve"][-1]:.4f}'


@pytest.mark.parametrize('name', ['light', 'dark'])
def test_both_schemes(page, name, tmp_path):
    scheme(page, name)
    for chart in (1, 2):
        assert set(COLOURS[name]) <= colours(page, chart)
        assert not set(COLOURS['dark' if name == 'light' else 'light']) & colours(page, chart)
    background = page.evaluate('getComputedStyle(document.body).backgroundColor')
    assert (background == 'rgb(255, 255, 255)') == (name == 'light')
    page.picture(tmp_path / f'{name}.png')
    print(f'image of the page: {tmp_path / name}.png')


def test_a_name_in_the_legend_hides_its_lines(page):
    scheme(page, 'light')
    button = 'document.querySelector(".legend button")'
    page.evaluate(f'{button}.click()')
    page.wait(f'{button}.ariaPressed == "false"')
    page.evaluate('new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))')
    assert COLOURS['light'][0] not in colours(page, 1) and COLOURS['light'][1] in colours(page, 1)
    page.evaluate(f'{button}.click()')
    page.evaluate('new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))')
    assert COLOURS['light'][0] in colours(page, 1)


def test_no_name_is_markup_and_no_other_script_runs(page):
    assert any(HOSTILE.replace('/', '') in text for text in page.texts('.legend button'))
    assert page.evaluate('document.title') == '2 searches - nni-warmstart'
    assert page.evaluate('document.querySelectorAll("img[src=x], b").length') == 0
    page.evaluate("""(script => {
        script.textContent = 'document.title = "ran"';
        document.body.append(script);
        document.body.insertAdjacentHTML('beforeend', '<img src=x onerror="document.title = \\'ran\\'">');
    })(document.createElement('script'))""")
    page.evaluate('new Promise(done => setTimeout(done, 300))')
    assert page.evaluate('document.title') == '2 searches - nni-warmstart'


@pytest.mark.parametrize('name', ['light', 'dark'])
def test_accessibility(page, name):
    """By axe-core, where AXE names its axe.min.js (npm install axe-core)."""
    if 'AXE' not in os.environ:
        pytest.skip('AXE names no axe.min.js (npm install axe-core)')
    scheme(page, name)
    page.evaluate(Path(os.environ['AXE']).read_text())
    found = page.call('Runtime.evaluate', expression='axe.run()', awaitPromise=True, returnByValue=True)['result']['value']
    assert [(each['id'], each['impact'], each['nodes'][0]['html'][:200]) for each in found['violations']] == []
