"""NNI's web page about a cold and a warm search, driven in a headless browser.

The images are left in the folder that is printed (``pytest -s``), or in the folder that PAGE_PICTURES names; then the
searches have the example's own number of epochs, and docs/page.png is made by

    PAGE_PICTURES=images pytest tests/nnictl/test_page.py && cp images/page.png docs/
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from helpers.browser import Browser, Tab, until
from helpers.experiment import Experiment, copy_of_digits
from PIL import Image, ImageColor

pytestmark = [pytest.mark.xdist_group('nnictl'), pytest.mark.nnictl, pytest.mark.slow]

COLD, WARM = STARTS = ['cold', 'warm']
PICTURES = os.environ.get('PAGE_PICTURES')


@pytest.fixture(scope='module')
def browser(tmp_path_factory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp('profile')) as browser:
        yield browser


@pytest.fixture(scope='module')
def experiment(browser, tmp_path_factory) -> Iterator[Experiment]:  # needs no browser, but is not started without
    digits = copy_of_digits(tmp_path_factory.mktemp('page'), epochs=None if PICTURES else 3)
    with Experiment(digits / 'warmstart.yml') as experiment:
        jobs = experiment.wait(trials=2, seconds=1200)
        assert [job['status'] for job in jobs] == ['SUCCEEDED', 'SUCCEEDED']
        yield experiment


@pytest.fixture(scope='module')
def jobs(experiment) -> dict[str, dict]:
    """The trials by their start."""
    return {
        json.loads(job['hyperParameters'][0])['parameters']['start']['_name']: job for job in experiment.get('trial-jobs')
    }


@pytest.fixture(scope='module')
def pictures(tmp_path_factory) -> Path:
    folder = Path(PICTURES) if PICTURES else tmp_path_factory.mktemp('pictures')
    folder.mkdir(parents=True, exist_ok=True)
    print(f'images of the page: {folder}')
    return folder


@pytest.fixture
def page(browser, experiment) -> Tab:
    """The page "Trials detail" with both trials in its table."""
    page = browser.open(f'http://127.0.0.1:{experiment.port}/detail')
    page.wait('document.querySelectorAll(".detail-check").length == 2')
    # the icons' font lies on another host: nothing instead of boxes
    page.evaluate("document.head.insertAdjacentHTML('beforeend', '<style>[data-icon-name] {visibility: hidden}</style>')")
    return page


class Chart:
    """A chart of the page, by way of the React component around it (NNI bundles echarts; there is no global one)."""

    def __init__(self, page: Tab, place: str) -> None:
        self.page, self.place = page, f'document.querySelector("{place} .echarts-for-react")'
        page.wait(f'{self.place}?.querySelector("canvas")')
        self.chart = f"""(element => {{
            let fiber = element[Object.keys(element).find(key => key.startsWith('__reactFiber'))];
            while (!fiber.stateNode?.getEchartsInstance) fiber = fiber.return;
            return fiber.stateNode.getEchartsInstance();
        }})({self.place})"""
        until(self.curves, f'curves in {place}')

    def curves(self) -> dict[str, list[float]]:
        return dict(self.page.evaluate(f'{self.chart}.getOption().series?.map(curve => [curve.name, curve.data]) ?? []'))

    def box(self) -> list[float]:
        return self.page.evaluate(f'(b => [b.left, b.top, b.right, b.bottom])({self.place}.getBoundingClientRect())')

    def tooltip(self, name: str, index: int) -> str:
        """What the page says when the mouse is over a point of a curve, which it says of drawn points only."""
        curves = self.curves()
        point = f'[{{seriesIndex: {list(curves).index(name)}}}, [{index}, {curves[name][index]}]]'
        x, y = self.page.evaluate(f'{self.chart}.convertToPixel(...{point})')
        left, top, *_ = self.box()

        def said() -> str:
            self.page.hover(left + x, top + y)
            return next((text for text in self.page.texts('.tooldetailAccuracy') if f'Trial ID: {name}' in text), '')

        return until(said, f'a tooltip over point {index} of {name}')


def reported(experiment: Experiment, jobs: dict[str, dict], key: str) -> dict[str, list[float]]:
    """A metric's curve of each trial, by the trial's id."""
    ids = [job['trialJobId'] for job in jobs.values()]
    return {id: [figures[key] for figures in experiment.metrics(id, 'PERIODICAL')] for id in ids}


def test_both_accuracy_curves_are_drawn(page, experiment, jobs, pictures):
    page.click('[role=tab]', 'Intermediate result')
    chart = Chart(page, '.intermediate-graph')
    curves = reported(experiment, jobs, 'default')
    assert chart.curves() == curves
    for start in (WARM, COLD):
        id = jobs[start]['trialJobId']
        said = chart.tooltip(id, 1)
        assert float(re.findall(r'Intermediate: ([\d.]+)', said)[0]) == curves[id][1]
        assert f'"_name": "{start}"' in said
    page.hover(1, 1)  # in the image no tooltip covers a curve
    visible = 'e => e.checkVisibility({opacityProperty: true, visibilityProperty: true})'
    page.wait(f'![...document.querySelectorAll(".tooldetailAccuracy")].some({visible})')
    page.picture(pictures / 'page.png')
    with Image.open(pictures / 'page.png') as picture:
        pixels = np.asarray(picture.convert('RGB').crop(chart.box()), int).reshape(-1, 3)
    for colour in page.evaluate(f'{chart.chart}.getOption().color.slice(0, 2)'):
        assert (abs(pixels - ImageColor.getrgb(colour)).sum(1) < 60).sum() > 100


def test_the_curves_of_another_metric_can_be_chosen(page, experiment, jobs, pictures):
    page.evaluate('document.querySelectorAll(".detail-check input").forEach(box => box.click())')
    page.click('button', 'Compare')
    chart = Chart(page, '.compare-modal')
    assert chart.curves() == reported(experiment, jobs, 'default')
    page.click('.compare-modal [role=combobox]')
    page.wait('document.querySelector("[role=option]")')
    keys = experiment.metrics(jobs[WARM]['trialJobId'], 'PERIODICAL')[0].keys()
    assert sorted(page.texts('[role=option]')) == sorted(keys)
    page.click('[role=option]', 'train_loss')
    expected = reported(experiment, jobs, 'train_loss')
    until(lambda: chart.curves() == expected, 'the curves of train_loss')
    page.picture(pictures / 'metric.png')


def test_the_hyper_parameter_view_shows_the_start_against_accuracy(page, experiment, jobs, pictures):
    page.click('[role=tab]', 'Hyper-parameter')
    page.wait('document.querySelectorAll(".parcoords .dimension").length > 2')
    assert clipped(page) == []
    page.click('button', 'Add/Remove axes')
    for label in ('Select all', 'start', 'default'):  # the first one unticks all
        page.click('.ms-Dialog-main label', label)
    page.click('.ms-Dialog-main button', 'Save')
    page.wait('document.querySelectorAll(".parcoords .dimension").length == 2')
    page.picture(pictures / 'start.png')
    assert clipped(page) == []
    start, accuracy = page.evaluate("""[...document.querySelectorAll('.parcoords .dimension')].map(axis => {
        const matrix = element => element.transform.baseVal[0].matrix;
        const ticks = [...axis.querySelectorAll('.tick')].map(tick => [tick.textContent, matrix(tick).f]);
        return {label: axis.querySelector('.label').textContent, x: matrix(axis).e, ticks: ticks};
    })""")
    assert (start['label'], accuracy['label']) == ('start', 'default')
    place = dict(start['ticks'])
    assert place.keys() == set(STARTS)
    (low, y_low), *_, (high, y_high) = ((float(text), y) for text, y in accuracy['ticks'])
    at_start, at_accuracy = (lines(page, x) for x in (start['x'] + 3, accuracy['x'] - 3))
    final = {name: experiment.metrics(job['trialJobId'], 'FINAL')[0]['default'] for name, job in jobs.items()}
    for name, colour in zip(sorted(final, key=final.__getitem__), ('green', 'red'), strict=True):  # NNI's worst and best
        assert at_start[colour] == pytest.approx(place[name], abs=3)
        assert at_accuracy[colour] == pytest.approx(y_low + (final[name] - low) / (high - low) * (y_high - y_low), abs=3)


def clipped(page: Tab) -> list[str]:
    """Names and ticks of the axes of which a part is outside of the drawing."""
    return page.evaluate("""(edge => [...document.querySelectorAll('.parcoords .dimension text')].filter(text => {
        const box = text.getBoundingClientRect();
        return box.left < edge.left - 1 || box.right > edge.right + 1;
    }).map(text => text.textContent))(document.querySelector('.parcoords').getBoundingClientRect())""")


def lines(page: Tab, x: float) -> dict[str, float]:
    """The height of the line of each colour where it crosses a column of the drawing, in pixels from the top."""
    pixels = page.evaluate(f"""(canvas => {{
        const column = canvas.getContext('2d').getImageData({x}, 0, 1, canvas.height).data;
        return [...Array(canvas.height).keys()].map(y => [y, ...column.slice(4 * y, 4 * y + 4)]).filter(pixel => pixel[4]);
    }})(document.querySelector('.parcoords canvas.foreground'))""")
    red = [y for y, red, green, *_ in pixels if red > green]
    green = [y for y, red, green, *_ in pixels if green > red]
    return {'red': sum(red) / len(red), 'green': sum(green) / len(green)}


def test_a_trials_parameters_log_and_command_can_be_read(page, browser, jobs, pictures):
    job = jobs[WARM]
    row = f'[...document.querySelectorAll(".ms-DetailsRow")].find(row => row.textContent.includes("{job["trialJobId"]}"))'
    page.evaluate(f'{row}.querySelector("[data-icon-name=ChevronRight]").click()')
    page.wait('document.querySelector(".openRow")')
    assert f'_name:"{WARM}"' in ''.join(page.texts('.openRow .bgHyper'))
    page.click('.openRow [role=tab]', 'Log')
    page.wait('document.querySelector(".openRow .logpath")')
    assert job['logPath'] in page.texts('.openRow .logpath')[0]
    page.evaluate('document.querySelector(".openRow").scrollIntoView()')
    page.picture(pictures / 'log.png')
    page.click('.openRow button', 'View trial log')
    log = browser.opened(f'{job["trialJobId"]}/trial.log')
    log.wait('document.body?.textContent')
    assert log.texts('body') == [(Path(job['logPath']) / 'trial.log').read_text().strip()]
    assert re.search("(?is)warm start from '.*'.* accuracy before training 0", log.texts('body')[0])
    page.evaluate('document.querySelector("img[alt=config]").click()')
    page.wait('document.querySelector(".monaco-editor .view-line")')
    config = ' '.join(page.texts('.monaco-editor .view-line')).replace('\xa0', ' ')
    assert '"trialCommand": "OMP_NUM_THREADS=1 python -m nni_warmstart.trial --config search.yml"' in config
    page.picture(pictures / 'command.png')
