import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import settings

os.environ.setdefault('HF_HUB_OFFLINE', '1') # tests never ask the network
settings.register_profile('steady', derandomize=True) # the same examples everywhere; `make fuzz` draws new ones
settings.register_profile('fuzz', derandomize=False)
settings.load_profile(os.environ.get('HYPOTHESIS_PROFILE', 'steady'))
ROOT = Path(__file__).resolve().parents[1]

@pytest.fixture(scope='session')
def shared():
    "The project's research data, which users do not have"
    path = ROOT.parent/'shared'
    if not (path/'data').exists():
        pytest.skip('../shared is not here')
    return path

@pytest.fixture(scope='session')
def golden(shared):
    "Inputs and outputs of the official implementation"
    return shared/'golden'/'official_capdec'

@pytest.fixture
def small_disk(tmp_path):
    "A disk of 256 KB, where mounting one is allowed"
    d = tmp_path/'disk'
    d.mkdir()
    if sys.platform != 'linux' or subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=256k', 'tmpfs', d],
            capture_output=True).returncode:
        pytest.skip('may not mount a small disk')
    yield d
    # no file is left open
    assert not subprocess.run(['umount', d]).returncode
