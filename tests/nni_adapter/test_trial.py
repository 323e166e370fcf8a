"""The parameters of a trial, as a web server in the place of NNI's tells them."""

from __future__ import annotations

import http.server
import json
import threading
from types import SimpleNamespace

import nni
import pytest

from nni_warmstart import ConfigError
from nni_warmstart.nni_adapter import trial


@pytest.fixture
def page(monkeypatch):
    """Answers of the page, of which the last is repeated; NNI hands out the parameters of a trial that never asked."""
    answers: list[str] = []

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = self.path == '/prefix/api/v1/nni/trial-jobs/mine'
            self.send_response(200 if found else 404)
            self.end_headers()
            self.wfile.write((answers.pop(0) if len(answers) > 1 else answers[0]).encode())

        def log_message(self, *_: object) -> None:
            pass

    def handed_out() -> dict:
        nni.trial._params = {'parameter_id': 1, 'parameters': {'seed': 100}}
        return {'seed': 100}

    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), Page) as server:
        threading.Thread(target=server.serve_forever, args=[0.01]).start()
        url = f'http://127.0.0.1:{server.server_port}/prefix/env/local-env/mine'
        variables = SimpleNamespace(NNI_PLATFORM='local', NNI_TRIAL_COMMAND_CHANNEL=url, NNI_OUTPUT_DIR=None)
        monkeypatch.setattr(trial, 'trial_env_vars', variables)
        monkeypatch.setattr(nni.trial, '_params', None)
        monkeypatch.setattr(nni, 'get_trial_id', lambda: 'mine')
        monkeypatch.setattr(nni, 'get_next_parameter', handed_out)
        monkeypatch.setenv(trial._PARAMETERS, '{}')
        yield answers
        server.shutdown()


def test_a_trial_runs_with_the_parameters_that_the_page_shows(page):
    """Which are not there at once."""
    shown = json.dumps({'parameter_id': 2, 'parameters': {'seed': 101}})
    page += ['', json.dumps({'hyperParameters': []}), json.dumps({'hyperParameters': [shown]})]
    assert trial.next_parameter() == {'seed': 101}
    assert trial.trial_parameter_id() == 2  # under which its metrics are reported


def test_a_page_that_does_not_tell_them_is_one_line(page, monkeypatch):
    monkeypatch.setattr(trial, '_PATIENCE', 0.1)
    page.append('<html>')
    with pytest.raises(
        ConfigError, match=r'^NNI does not tell .* at http://\S*/prefix/api/v1/nni/trial-jobs/mine; start it'
    ):
        trial.next_parameter()
