"""The committed tables of the benchmarks are those that the committed runs give."""

from __future__ import annotations

import shutil
import subprocess
import sys

from conftest import ROOT

REPORTS = {
    'choice.py': ['--report'],
    'digits.py': ['--report'],
    'distance.py': ['--report'],
    'narrowing.py': ['--report'],
    'otfusion.py': ['--report'],
    'pretraining.py': ['report'],
    'claim_networks.py': ['--report'],
    'claim.py': ['--report'],
    'shapes.py': ['--report'],
}
"""Script -> arguments that make it write its table and run nothing; claim.py takes over what claim_networks.py writes."""

RUN_ALL = """
import runpy, sys
for script, arguments in {reports}.items():
    sys.argv = [script, *arguments]
    print(script, flush=True)
    runpy.run_path(script, run_name='__main__')
"""


def test_tables_are_those_of_the_committed_runs(tmp_path):
    copy = shutil.copytree(ROOT / 'benchmarks', tmp_path / 'benchmarks')
    shutil.copytree(ROOT / 'examples', tmp_path / 'examples')
    tables = [path for path in (copy / 'results').iterdir() if path.suffix in ('.md', '.json')]
    committed = {path.name: path.read_text() for path in tables if path.name != 'mapper.md'}  # runs in a few minutes, whole
    for path in tables:
        if path.name in committed:
            path.unlink()
    done = subprocess.run([sys.executable, '-c', RUN_ALL.format(reports=REPORTS)], cwd=copy, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-300:] + done.stderr[-1500:]
    made = {name: (copy / 'results' / name).read_text() for name in committed if (copy / 'results' / name).exists()}
    assert made == committed
