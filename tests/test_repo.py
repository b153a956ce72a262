"The repository itself: notebooks, modules and README agree; the top level is as documented; imports are quick."
import ast
import configparser
import dataclasses
import importlib
import inspect
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from fastcore.docments import docments

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT/'tools'))
import check_notebooks

def module_files(root=ROOT):
    "The files of the package, those of `capdec/studies` among them, by the name after `capdec.`"
    files = sorted((root/'capdec').rglob('*.py'))
    return {'.'.join(p.relative_to(root/'capdec').with_suffix('').parts): p for p in files if p.stem[0] != '_'}

MODULES = list(module_files())

def copied(tmp, *parts):
    "A copy of parts of the repository, to plant a fault in"
    for o in parts:
        shutil.copytree(ROOT/o, tmp/o, ignore=shutil.ignore_patterns('models', 'data', 'images', '__pycache__'),
            symlinks=True)
    return tmp

def test_studies_are_modules():
    assert {'core', 'studies.bench', 'studies.fairness', 'studies.recipe', 'studies.styles'} <= set(MODULES)

def tracked():
    return subprocess.run(['git', 'ls-files'], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()

def test_notebooks_modules_and_readme_agree():
    assert list(check_notebooks.problems()) == []

def test_a_study_that_is_not_what_its_notebook_exports_is_seen(tmp_path):
    (tmp_path/'nbs').mkdir()
    for o in ('settings.ini', 'nbs/08a_fairness_study.ipynb'):
        shutil.copy(ROOT/o, tmp_path/o)
    studies = tmp_path/'capdec'/'studies'
    studies.mkdir(parents=True)
    for o in ('__init__.py', 'studies/__init__.py', 'studies/fairness.py'):
        shutil.copy(ROOT/'capdec'/o, tmp_path/'capdec'/o)
    found = lambda: [o for o in check_notebooks.check_export(tmp_path) if '_modidx' not in o]
    assert found() == []
    (studies/'gone.py').write_text('"No notebook exports this"\n')
    (studies/'fairness.py').write_text((studies/'fairness.py').read_text() + '\nedited = True\n')
    assert found() == ['capdec/studies/fairness.py: not what its notebook exports; make export',
        'capdec/studies/gone.py: no notebook exports it; delete it']

@pytest.mark.parametrize('name', ['settings.ini', 'nbs', 'capdec', '_quarto.yml', 'tests', 'setup.py', 'README.md',
    'LICENSE', 'environment.yml', 'CONTRIBUTING.md',
                                  'CHANGELOG.md', 'Makefile', '.ci/run', 'constraints.txt', '.gitattributes',
                                  '.github/workflows/test.yaml', '.github/workflows/docs.yaml'])
def test_the_house_stands(name):
    assert (ROOT/name).exists()

def test_the_site_reads_the_top_level_settings():
    assert (ROOT/'nbs'/'_quarto.yml').resolve() == ROOT/'_quarto.yml'

def imports(tree, package='capdec'):
    "What a module, or an exported cell, imports of this package: `(name after capdec., at the top?)`"
    top = set(map(id, tree.body))
    for n in ast.walk(tree):
        if isinstance(n, ast.ImportFrom):
            up = package.split('.')
            base = '.'.join(up[:len(up)-n.level+1]) if n.level else ''
            source = '.'.join(o for o in (base, n.module) if o)
            names = [f'{source}.{a.name}' for a in n.names] if source in ('capdec', 'capdec.studies') else [source]
        elif isinstance(n, ast.Import):
            names = [a.name for a in n.names]
        # also `importlib.import_module('capdec.x')`, which an import statement would not tell
        elif isinstance(n, ast.Call) and ast.unparse(n.func).endswith(('import_module', '__import__')):
            told = [o.value for o in n.args if isinstance(o, ast.Constant) and isinstance(o.value, str)]
            names = [f'{package}{o}' if o.startswith('.') else o for o in told[:1]]
        else:
            continue
        for o in names:
            # `capdec.__version__` is no room
            if o.startswith('capdec.') and not o.startswith('capdec._'):
                yield o.removeprefix('capdec.'), id(n) in top

def too_early(nbs):
    "Exported cells that import what only a later notebook exports"
    order = []
    for p in sorted(nbs.glob('[0-9]*.ipynb')):
        code = [c.source for c in nbformat.read(p, 4).cells if c.cell_type == 'code']
        order += [m[1] for s in code if (m := re.search(r'^#\|\s*default_exp\s+(\S+)', s, re.M))]
        for s in code:
            if re.search(r'^#\|\s*export', s, re.M):
                for name, _ in imports(ast.parse(s)):
                    if name not in order:
                        yield f'{p.name} imports capdec.{name}, which comes later'
    assert len(order) >= 12 and len(set(order)) == len(order)

def test_notebooks_import_only_earlier_ones():
    assert list(too_early(ROOT/'nbs')) == []

@pytest.mark.parametrize('line', ['from capdec.studies.bench import main', 'from capdec.studies import bench',
    'import capdec.studies.bench', 'def f():\n    from capdec.studies.bench import main'])
def test_a_study_that_imports_a_later_one_is_seen(tmp_path, line):
    p = copied(tmp_path, 'nbs')/'nbs'/'08a_fairness_study.ipynb'
    nb = nbformat.read(p, 4)
    cell = next(c for c in nb.cells if c.source.startswith('#| export'))
    cell.source += f'\n{line}'
    nbformat.write(nb, p)
    assert list(too_early(tmp_path/'nbs')) == [f'{p.name} imports capdec.studies.bench, which comes later']

def rooms(root=ROOT):
    "The rooms of CONTRIBUTING.md in their order, and the room of each module"
    table = re.findall(r'^\| ([a-z ]+) \| (`.*?`) \|', (root/'CONTRIBUTING.md').read_text(encoding='utf-8'), re.M)
    return [room for room, _ in table], {o: room for room, names in table for o in re.findall(r'`([\w.*]+)`', names)}

def against_the_rule(root=ROOT):
    "Modules without a room, imports from a room further down, guests that come in without a verb"
    order, of = rooms(root)
    room_of = lambda o: of.get('studies.*' if o.startswith('studies') else o)
    for name, p in module_files(root).items():
        if not (own := room_of(name)):
            yield f'{name} has no room'
            continue
        package = 'capdec.studies' if name.startswith('studies') else 'capdec'
        for o, top in imports(ast.parse(p.read_text(encoding='utf-8')), package):
            there = room_of(o)
            if 'guests' in (own, there) and own != there:
                if there == 'guests' and (own, top) != ('door', False):
                    yield f'{name} imports {o}, a guest'
            elif there and order.index(there) > order.index(own):
                yield f'{name} ({own}) imports {o} ({there})'

def test_the_rule_of_the_rooms():
    "Core knows nothing, the method knows core, and so on down the table; only a verb may load a guest, lazily"
    order, of = rooms()
    assert order[:2] == ['core', 'method'] and order[-2:] == ['door', 'guests']
    assert set(of) - {'studies.*'} <= set(MODULES)
    assert list(against_the_rule()) == []

@pytest.mark.parametrize('module, line, fault', [
    ('core', 'from .noise import add_noise', 'core (core) imports noise (method)'),
    ('noise', 'def f():\n    from .data import parse_captions', 'noise (method) imports data (data and vectors)'),
    ('captioner', 'from . import album', 'captioner (captioner) imports album (runs)'),
    ('album', 'def f():\n    from .studies.bench import main', 'album imports studies.bench, a guest'),
    ('cli', 'from .studies import bench', 'cli imports studies.bench, a guest'),
    ('core', 'import capdec.explore', 'core imports explore, a guest'),
    ('core', 'import importlib\nimportlib.import_module("capdec.noise")', 'core (core) imports noise (method)'),
    ('core', 'def f():\n    __import__("capdec.noise")', 'core (core) imports noise (method)'),
    ('core', 'from importlib import import_module\nimport_module(".noise", "capdec")',
        'core (core) imports noise (method)'),
    ('attic', '', 'attic has no room')])
def test_a_broken_rule_of_the_rooms_is_seen(tmp_path, module, line, fault):
    copied(tmp_path, 'capdec')
    shutil.copy(ROOT/'CONTRIBUTING.md', tmp_path)
    with (tmp_path/'capdec'/f'{module}.py').open('a', encoding='utf-8') as f:
        f.write(f'\n{line}\n')
    assert list(against_the_rule(tmp_path)) == [fault]

def clashes(modules):
    "Public names of different things: `{name: [module]}`"
    found = {}
    for m in modules:
        for name in getattr(m, '__all__', ()):
            found.setdefault(name, {}).setdefault(id(getattr(m, name)), []).append(m.__name__)
    return {k: sorted(o for v in same.values() for o in v) for k, same in found.items() if len(same) > 1}

def test_no_two_public_things_have_one_name():
    modules = [importlib.import_module(f'capdec.{o}') for o in MODULES]
    assert clashes(modules) == {}
    planted = type(sys)('planted')
    planted.__all__, planted.add_noise = ['add_noise'], print
    assert clashes([*modules, planted])['add_noise'] == ['capdec.noise', 'planted']

def public_methods(cls, module):
    "Methods of a class that are written in a module, with `@patch` or without"
    for name, o in vars(cls).items():
        f = o.fget if isinstance(o, property) else getattr(o, 'func', getattr(o, '__func__', o))
        # what `property(f, doc=...)` says, stands at the property
        if isinstance(o, property) and o.__doc__:
            continue
        if not inspect.isfunction(f) or f.__module__ != module or f.__code__.co_filename.startswith('<'):
            continue
        # `forward` is torch's word
        if name in ('__init__', '__call__') or name[0] != '_' and name != 'forward':
            yield name, f

def undocumented(mod):
    "Public functions, classes and methods without a docstring, parameters and fields without a comment"
    own = {n: getattr(mod, n) for n in getattr(mod, '__all__', [])}
    own = {n: o for n, o in own.items() if callable(o) and getattr(o, '__module__', '') == mod.__name__}
    classes = {o for o in vars(mod).values() if isinstance(o, type) and o.__name__[0] != '_'}
    methods = {f'{c.__name__}.{n}': f for c in classes for n, f in public_methods(c, mod.__name__)}
    for name, o in (own | methods).items():
        if not inspect.getdoc(o) and not name.endswith('__init__'):
            yield f'{name}: no docstring'
        if not inspect.isfunction(o) and not dataclasses.is_dataclass(o):
            continue
        # the comment of `**values` cannot be asked for; a field that is inherited has its comment there
        known = {k for k, v in inspect.signature(o).parameters.items() if v.kind in (v.VAR_POSITIONAL, v.VAR_KEYWORD)}
        if dataclasses.is_dataclass(o):
            known |= {f.name for f in dataclasses.fields(o)} - o.__annotations__.keys()
        for k, v in docments(o, full=True, returns=False).items():
            if k in known or k in ('self', 'cls', '_'):
                continue
            if not v.docment and not getattr(v.anno, 'help', None):
                yield f'{name}: {k}'

# Every public parameter says what it is, those of patched methods and of configurations too
@pytest.mark.parametrize('module', MODULES)
def test_every_public_parameter_is_documented(module):
    assert set(undocumented(importlib.import_module(f'capdec.{module}'))) == set()

FAULTS = """
def bare(x):
    return x

class Kept:
    "A class"
    def plain(self, y):
        return y

@patch
def added(self:Kept, z):
    return z

@patch(as_prop=True)
def shade(self:Kept):
    return 0

@patch
def described(self:EmbeddingStore,
    rows, # Rows to look at
    colour, a=0, b=1):
    "Added to the class of another module"
"""

def test_a_study_without_docments_is_seen(tmp_path, monkeypatch):
    copied(tmp_path, 'capdec')
    (tmp_path/'capdec').rename(tmp_path/'planted')
    p = tmp_path/'planted'/'studies'/'planted.py'
    p.write_text('from fastcore.basics import patch\nfrom ..store import EmbeddingStore\n'
        '__all__ = ["bare", "Kept"]\n' + FAULTS)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert set(undocumented(importlib.import_module('planted.studies.planted'))) == {
        'bare: no docstring', 'bare: x', 'Kept.plain: no docstring', 'Kept.plain: y', 'Kept.added: no docstring',
        'Kept.added: z', 'Kept.shade: no docstring', 'EmbeddingStore.described: colour', 'EmbeddingStore.described: a',
        'EmbeddingStore.described: b'}

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
            # the sentences that the bundled captioner remembers are the largest text
            assert p.stat().st_size < (3_000_000 if f.endswith('captioner/memory.txt') else 2_000_000), f
    # encoder, captioner, its memory's vectors and its classifier
    assert weights <= 48_000_000

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

def settings():
    "What settings.ini says"
    cfg = configparser.ConfigParser(delimiters=['='])
    cfg.read(ROOT/'settings.ini', encoding='utf-8')
    return cfg['DEFAULT']

def packages(requirements):
    "Names of packages in a line of requirements"
    return {re.split(r'[<>=!~[]', r)[0].lower().replace('-', '_') for r in requirements.split()}

AS_IMPORTED = {'pil': 'pillow', 'sklearn': 'scikit_learn', 'skimage': 'scikit_image', 'clip': 'clip_anytorch',
    'faiss': 'faiss_cpu'}

def third_party(tree):
    "`(package, extra it is imported for or '')` of each import of a module that is neither Python's nor ours"
    extra = {}
    for n in ast.walk(tree):
        if isinstance(n, ast.With) and isinstance(c := n.items[0].context_expr, ast.Call) and getattr(c.func, 'id',
                '') == 'optional':
            extra |= {id(o): c.args[0].value for o in ast.walk(n)}
    for n in ast.walk(tree):
        names = [a.name for a in n.names] if isinstance(n, ast.Import) else [n.module] if isinstance(n,
            ast.ImportFrom) and not n.level else []
        for o in {o.split('.')[0] for o in names} - set(sys.stdlib_module_names) - {'capdec', '__future__'}:
            yield AS_IMPORTED.get(o.lower(), o.lower()), extra.get(id(n), '')

def not_required(root=ROOT):
    "What modules import and settings.ini does not require: of all, or of the extra that the import names"
    cfg = settings()
    for p in sorted((root/'capdec').rglob('*.py')):
        for package, extra in third_party(ast.parse(p.read_text(encoding='utf-8'))):
            if package not in packages(cfg['requirements'] + ' ' + (cfg[f'{extra}_requirements'] if extra else '')):
                yield f'{p.relative_to(root)}: {package} [{extra}]'

def test_requirements_are_what_is_imported():
    assert list(not_required()) == []

@pytest.mark.parametrize('line,said', [('import pandas', 'pandas []'), ('import pyarrow', 'pyarrow []'),
    ("with optional('eval'):\n        import pyarrow", 'pyarrow [eval]')])
def test_a_study_that_imports_what_is_not_required_is_seen(tmp_path, line, said):
    p = copied(tmp_path, 'capdec')/'capdec'/'studies'/'fairness.py'
    p.write_text(p.read_text() + f'\ndef table():\n    {line}\n')
    assert list(not_required(tmp_path)) == [f'capdec/studies/fairness.py: {said}']

def test_what_is_installed_is_said_once():
    "setup.py makes its extras of settings.ini, and the project's address comes from one place"
    cfg = settings()
    r = subprocess.run([sys.executable, 'setup.py', '--classifiers', '--url'], cwd=ROOT, capture_output=True, text=True,
        check=True).stdout
    # no address stands anywhere while the repository has none
    assert cfg['git_url'] == '%(home)s' or cfg['git_url'] == cfg['home']
    assert cfg['home'] in r
    for o in ('Programming Language :: Python :: 3.11', '3.13', 'Typing :: Typed', 'Development Status :: 4 - Beta'):
        assert o in r
    assert 'github.com' not in (ROOT/'setup.py').read_text() and 'setuptools' not in cfg['requirements']
    assert all(packages(cfg[f'{o}_requirements']) for o in (cfg['extras'] + ' ' + cfg['extras_apart']).split())

def test_torch_without_cuda_is_one_word():
    "`make TORCH=cpu` names PyTorch's own index; without it PyPI is asked alone"
    def said(*args):
        return subprocess.run(['make', '-n', 'VENV=_out/no_such_venv', '_out/no_such_venv/.installed', *args], cwd=ROOT,
            capture_output=True, text=True)
    install = lambda r: next(l for l in r.stdout.splitlines() if "-e '.[all,dev]'" in l)
    index = '--extra-index-url https://download.pytorch.org/whl/cpu'
    assert index in install(said('TORCH=cpu')) and 'index' not in install(said())
    assert '-c constraints.txt' in install(said())
    wrong = said('TORCH=gpu')
    assert wrong.returncode and 'TORCH=gpu: cpu, or leave it out' in wrong.stderr

def test_make_help_lists_every_target():
    "A target without a `##` line is one that nobody finds"
    text = (ROOT/'Makefile').read_text().replace('\\\n', ' ')
    phony = set(re.search(r'^\.PHONY:(.*)$', text, re.M)[1].split())
    helped = set(re.findall(r'^([a-z-]+):.*## \S', text, re.M))
    assert phony and phony == helped

def test_a_wide_line_is_seen(tmp_path):
    (tmp_path/'tests').mkdir()
    (tmp_path/'tests'/'test_wide.py').write_text(f"a = 1\nb = '{'x'*130}'\n")
    assert list(check_notebooks.check_files(tmp_path)) == ['tests/test_wide.py:2: wider than 120 columns']

def test_import_is_quick():
    "What takes time is not loaded; and the processor has little to do"
    def out(code):
        r = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
        return r.stdout.split()
    assert not {'torch', 'numpy', 'PIL'} & set(out('import capdec, sys; print(*sys.modules)'))
    assert 'torch' not in out('import capdec, capdec.core, capdec.cli, sys; print(*sys.modules)')
    spent = 'from time import process_time as t; a = t(); import capdec; print(t() - a)'
    assert min(float(out(spent)[0]) for _ in range(5)) < .05

def test_the_captioner_is_one_import_away():
    "Only when it is asked for, torch is loaded; its methods are all there"
    code = ('import capdec, sys; assert "torch" not in sys.modules; from capdec import Captioner; '
        'print(Captioner.explain.__qualname__, Captioner.train_on.__qualname__)')
    r = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert r.stdout.split() == ['Captioner.explain', 'Captioner.train_on']
    assert (ROOT/'capdec'/'py.typed').exists()
    with pytest.raises(AttributeError, match="has no attribute 'Captain'"):
        import capdec
        capdec.Captain

def test_ci_runs_the_documented_command():
    assert 'make test' in (ROOT/'.ci'/'run').read_text() and os.access(ROOT/'.ci'/'run', os.X_OK)
    assert 'make test' in (ROOT/'README.md').read_text() and 'make demo' in (ROOT/'README.md').read_text()
