"The repository itself: notebooks, modules and README agree; the top level is as documented; imports are quick."
import configparser
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT/'tools'))
MODULES = sorted(p.stem for p in (ROOT/'capdec').glob('*.py') if not p.stem.startswith('_'))

def tracked():
    return subprocess.run(['git', 'ls-files'], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()

def test_notebooks_modules_and_readme_agree():
    import check_notebooks
    assert list(check_notebooks.problems()) == []

@pytest.mark.parametrize('name', ['settings.ini', 'nbs', 'capdec', '_quarto.yml', 'tests', 'setup.py', 'README.md',
    'LICENSE', 'environment.yml', 'CONTRIBUTING.md',
                                  'CHANGELOG.md', 'Makefile', '.ci/run', 'constraints.txt', '.gitattributes',
                                  '.github/workflows/test.yaml', '.github/workflows/docs.yaml'])
def test_the_house_stands(name):
    assert (ROOT/name).exists()

def test_the_site_reads_the_top_level_settings():
    assert (ROOT/'nbs'/'_quarto.yml').resolve() == ROOT/'_quarto.yml'

def test_notebooks_import_only_earlier_ones():
    import nbformat
    order = {}
    for p in sorted((ROOT/'nbs').glob('[0-9]*.ipynb')):
        nb = nbformat.read(p, 4)
        own = [m[1] for c in nb.cells if (m := re.search(r'^#\|\s*default_exp\s+(\S+)', c.source, re.M))]
        for c in nb.cells:
            if c.cell_type == 'code' and re.search(r'^#\|\s*export', c.source, re.M):
                for m in re.findall(r'from capdec\.(\w+) import', c.source):
                    assert m in order or m in own, f'{p.name} imports capdec.{m}, which comes later'
        order.update(dict.fromkeys(own, p.name))
    assert len(order) >= 12

@pytest.mark.parametrize('module', MODULES)
def test_every_public_parameter_is_documented(module):
    import importlib
    from fastcore.docments import docments
    mod = importlib.import_module(f'capdec.{module}')
    missing = []
    for name in getattr(mod, '__all__', []):
        o = getattr(mod, name)
        if not callable(o) or getattr(o, '__module__', '') != mod.__name__:
            continue
        if not inspect.getdoc(o):
            missing.append(f'{name}: no docstring')
        if inspect.isfunction(o):
            for k, v in docments(o, full=True, returns=False).items():
                if k not in ('self', 'cls', 'kwargs', 'args') and not v.docment and getattr(v.anno, 'help',
                        None) is None:
                    missing.append(f'{name}: {k}')
    assert missing == []

def test_nothing_large_or_private_is_tracked():
    weights = 0
    for f in tracked():
        p = ROOT/f
        if not p.exists():
            continue
        assert not f.endswith(('.pkl', '.pt', '.pth', '.bin', '.p')), f
        if f.endswith('.safetensors'):
            weights += p.stat().st_size
        elif not p.is_symlink():
            assert p.stat().st_size < 2_000_000, f
    assert weights <= 40_000_000

def test_no_conflict_is_left():
    found = [f for f in tracked() if (ROOT/f).is_file() and re.search(r'^(<{7} |>{7} )',
        (ROOT/f).read_text(encoding='utf-8', errors='ignore'), re.M)]
    assert found == []

def test_no_machine_paths():
    bad = re.compile(r'/(work|root|home/\w+|tmp)/[\w.]')
    found = [f'{f}: {m[0]}' for f in tracked() if (ROOT/f).suffix in ('.py', '.ipynb', '.md', '.yml', '.yaml', '.ini',
        '.toml', '.txt', '.json', '') and (ROOT/f).is_file()
             and f != 'tests/test_repo.py' for m in [bad.search((ROOT/f).read_text(encoding='utf-8', errors='ignore'))]
             if m]
    assert found == []

def test_requirements_are_what_is_imported():
    cfg = configparser.ConfigParser(delimiters=['='])
    cfg.read(ROOT/'settings.ini')
    names = {re.split(r'[<>=!~]', r)[0].lower().replace('-', '_') for r in cfg['DEFAULT']['requirements'].split()}
    as_imported = {'pil': 'pillow', 'sklearn': 'scikit_learn', 'skimage': 'scikit_image', 'clip': 'clip_anytorch',
        'pkg_resources': 'setuptools'}
    used = set()
    for p in (ROOT/'capdec').glob('*.py'):
        used |= set(re.findall(r'^\s*(?:from|import)\s+(\w+)', p.read_text(), re.M))
    third = {as_imported.get(u.lower(), u.lower()) for u in used if u not in sys.stdlib_module_names
        and u not in ('capdec', '__future__')}
    assert third <= names, third - names

def test_import_is_quick():
    def best(code):
        return min(float(subprocess.run([sys.executable, '-c', f'import time; t=time.perf_counter(); {code}; '
            f'print(time.perf_counter()-t)'], capture_output=True, text=True, check=True).stdout) for _ in range(3))
    assert 'torch' not in subprocess.run([sys.executable, '-c', 'import capdec, capdec.core, capdec.cli, sys; '
        'print(*sys.modules)'], capture_output=True, text=True, check=True).stdout.split()
    assert best('import capdec') < .2

def test_ci_runs_the_documented_command():
    assert 'make test' in (ROOT/'.ci'/'run').read_text() and os.access(ROOT/'.ci'/'run', os.X_OK)
    assert 'make test' in (ROOT/'README.md').read_text() and 'make demo' in (ROOT/'README.md').read_text()
