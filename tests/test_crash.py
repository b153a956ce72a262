"kill -9 at a random moment, then the same command again (all verbs, 30 times each, in `make crash-test`)"
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

@pytest.mark.skipif(not hasattr(os, 'fork'), reason='processes are forked')
def test_killed_runs_end_as_uninterrupted_ones(tmp_path):
    tool = Path(__file__).resolve().parents[1]/'tools'/'crash_test.py'
    r = subprocess.run([sys.executable, str(tool), '--packaged', '--kills', '1', '--captions', '160', '--photos', '4',
        '--verbs', 'train', '--out', str(tmp_path/'crash')], capture_output=True, text=True, timeout=600)
    assert r.returncode == 0, r.stdout + r.stderr
    report = json.loads((tmp_path/'crash'/'report.json').read_text())
    run, = report['runs']
    assert (run['verb'], run['differences'], run['temporary_files']) == ('train', [], 0)
    assert run['kills'] >= 1 and run['completed'] >= 1
