import os
from pathlib import Path

import pytest

os.environ.setdefault('HF_HUB_OFFLINE', '1') # tests never ask the network
ROOT = Path(__file__).resolve().parents[1]

@pytest.fixture(scope='session')
def shared():
    "The project's research data, which users do not have"
    path = ROOT.parent/'shared'
    if not (path/'data').exists(): pytest.skip('../shared is not here')
    return path

@pytest.fixture(scope='session')
def golden(shared):
    "Inputs and outputs of the official implementation"
    return shared/'golden'/'official_capdec'
