import os
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
    if not (path/'data').exists(): pytest.skip('../shared is not here')
    return path

@pytest.fixture(scope='session')
def golden(shared):
    "Inputs and outputs of the official implementation"
    return shared/'golden'/'official_capdec'
