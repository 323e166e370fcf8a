"""A headless Chromium, driven through its DevTools protocol as a user would drive it."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import connect

NAMES = ('chromium', 'chromium-browser', 'google-chrome')
# It reaches this machine and no other, so that nothing waits for fonts or updates.
FLAGS = ['--headless', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--no-first-run', '--no-proxy-server']
FLAGS += ['--disable-background-networking', '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1']


def until(answer: Callable[[], Any], what: str, seconds: float = 120) -> Any:
    """Ask until the answer is true, and return it."""
    deadline = time.monotonic() + seconds
    while not (found := answer()):
        assert time.monotonic() < deadline, f'not within {seconds} s: {what}'
        time.sleep(0.2)
    return found


class Tab:
    """One page of a browser."""

    def __init__(self, address: str) -> None:
        self.socket = connect(address, max_size=None, proxy=None, open_timeout=60)
        self.numbers = count()

    def call(self, method: str, **parameters: object) -> dict:
        number = next(self.numbers)
        self.socket.send(json.dumps({'id': number, 'method': method, 'params': parameters}))
        while (answer := json.loads(self.socket.recv(timeout=120))).get('id') != number:
            pass  # what the page says unasked
        assert 'error' not in answer, f'{method}: {answer["error"]}'
        return answer['result']

    def evaluate(self, expression: str) -> Any:
        # as by a user's gesture: a window that opens without one is blocked
        answer = self.call(
            'Runtime.evaluate', expression=expression, returnByValue=True, userGesture=True, awaitPromise=True
        )
        assert 'exceptionDetails' not in answer, f'{expression}: {answer["exceptionDetails"]}'
        return answer['result'].get('value')

    def wait(self, expression: str) -> None:
        until(lambda: self.evaluate(f'Boolean({expression})'), expression)

    def click(self, selector: str, text: str = '') -> None:
        """Click the first element that holds the text and can be clicked, as soon as there is one."""
        elements = f'[...document.querySelectorAll({json.dumps(selector)})]'
        wanted = f'{elements}.find(e => !e.disabled && (e.innerText ?? "").includes({json.dumps(text)}))'
        self.wait(f'(element => element && (element.click(), true))({wanted})')

    def hover(self, x: float, y: float) -> None:
        self.call('Input.dispatchMouseEvent', type='mouseMoved', x=x, y=y)

    def texts(self, selector: str) -> list[str]:
        return self.evaluate(f'[...document.querySelectorAll({json.dumps(selector)})].map(e => e.textContent.trim())')

    def picture(self, path: Path) -> None:
        """Keep a PNG of the page once it stands still: charts grow into view."""

        self.call('Page.bringToFront')  # a page that is covered is not drawn

        def still() -> str:
            before, after = (self.call('Page.captureScreenshot')['data'] for _ in range(2))
            return after if before == after else ''

        path.write_bytes(base64.b64decode(until(still, 'a page that stands still')))


class Browser:
    """A browser with a profile of its own, ended on leaving. Without one installed, the test is skipped."""

    def __init__(self, profile: Path, size: tuple[int, int] = (1300, 1000)) -> None:
        program = next(filter(None, map(shutil.which, NAMES)), None)
        if program is None:
            pytest.skip(f'none of {", ".join(NAMES)} is installed')
        command = [program, *FLAGS, f'--user-data-dir={profile}', '--window-size={},{}'.format(*size)]
        command += ['--remote-debugging-port=0']  # a free one, written to a file
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        port_file = profile / 'DevToolsActivePort'
        until(lambda: port_file.exists() and port_file.read_text(), 'the port of the browser')
        self.address = f'http://127.0.0.1:{port_file.read_text().split()[0]}/json'

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(60)

    def ask(self, path: str, method: str = 'GET') -> Any:
        with urllib.request.urlopen(urllib.request.Request(self.address + path, method=method), timeout=60) as answer:
            return json.loads(answer.read())

    def open(self, url: str) -> Tab:
        return Tab(self.ask(f'/new?{url}', method='PUT')['webSocketDebuggerUrl'])

    def opened(self, part: str) -> Tab:
        """The page that another one has opened, by a part of its address."""
        (page,) = until(lambda: [page for page in self.ask('') if part in page['url']], f'a page {part}')
        return Tab(page['webSocketDebuggerUrl'])
