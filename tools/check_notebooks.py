"""Check that notebooks, modules and README agree: exit code 1 and one line for each disagreement.

Notebooks are clean (ids, no widget state, no error outputs, known flags, a title), no line of code in notebooks,
tests and tools is wider than 120 columns, every module is what its notebook exports, and README.md is what
nbs/index.ipynb says.
"""
import filecmp
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[1]
FLAGS = {'default_exp', 'export', 'exports', 'exporti', 'hide', 'eval', 'echo', 'output', 'code-fold', 'code-summary',
    'slow', 'cuda', 'net', 'ray', 'notest', 'fig-cap', 'fig-alt', 'label', 'layout-ncol', 'warning'}
WIDTH = 120

def notebooks():
    return sorted(p for p in (ROOT/'nbs').rglob('*.ipynb') if '.ipynb_checkpoints' not in p.parts)

def wide_lines(text):
    "The numbers of lines that are wider than WIDTH"
    return [n for n, line in enumerate(text.splitlines(), 1) if len(line) > WIDTH]

def check_files(root=ROOT):
    "Lines of tests and tools that are too wide"
    for p in sorted([*(root/'tests').glob('*.py'), *(root/'tools').glob('*.py')]):
        for n in wide_lines(p.read_text(encoding='utf-8')):
            yield f'{p.relative_to(root)}:{n}: wider than {WIDTH} columns'

def check_notebook(path):
    "What is wrong with one notebook"
    nb, name = nbformat.read(path, nbformat.NO_CONVERT), path.relative_to(ROOT)
    if (nb.nbformat, nb.nbformat_minor) < (4, 5):
        yield f'{name}: nbformat {nb.nbformat}.{nb.nbformat_minor}, expected 4.5 (cells need ids)'
    if not any(c.cell_type == 'markdown' and c.source.lstrip().startswith('# ') for c in nb.cells):
        yield f'{name}: no title'
    ids = [c.get('id') for c in nb.cells]
    if None in ids or len(set(ids)) < len(ids):
        yield f'{name}: cells without an id, or with the same'
    if set(nb.metadata) - {'kernelspec'}:
        yield f'{name}: metadata {sorted(nb.metadata)}; only kernelspec belongs into git'
    code = [c for c in nb.cells if c.cell_type == 'code']
    if not any(c.outputs for c in code):
        yield f'{name}: no saved outputs; make notebooks NBS={name}'
    for c in nb.cells:
        for f in re.findall(r'^#\|\s*([A-Za-z_-]+)', c.source, re.M):
            if f not in FLAGS:
                yield f'{name}: unknown flag #| {f}'
        if c.metadata:
            yield f'{name}: cell {c.id} has metadata'
    for c in code:
        for n in wide_lines(c.source):
            yield f'{name}: cell {c.id}, line {n}: wider than {WIDTH} columns'
        if c.execution_count:
            yield f'{name}: cell {c.id} has an execution count'
        for o in c.outputs:
            if o.output_type == 'error':
                yield f'{name}: cell {c.id} shows an error'
            if o.get('name') == 'stderr':
                yield f'{name}: cell {c.id} shows standard error: {o.text[:60]!r}'

def modules(folder):
    "The modules below a folder that notebooks export, by their place in it"
    return {p.relative_to(folder) for p in folder.rglob('*.py') if p.name != '__init__.py'}

def check_export(root=ROOT):
    "Modules that differ from what their notebooks export"
    with tempfile.TemporaryDirectory() as tmp:
        tmp = Path(tmp)
        for o in ('settings.ini', 'nbs', 'capdec'):
            src = root/o
            if src.is_dir():
                shutil.copytree(src, tmp/o, ignore=shutil.ignore_patterns('models', 'data', '__pycache__', '_proc'),
                    symlinks=True)
            else:
                shutil.copy(src, tmp/o)
        kept = modules(root/'capdec')
        for p in modules(tmp/'capdec'):
            (tmp/'capdec'/p).unlink()
        (tmp/'capdec'/'_modidx.py').write_text('d = {}\n')
        r = subprocess.run([sys.executable, '-c', 'from nbdev.doclinks import nbdev_export; nbdev_export()'], cwd=tmp,
            capture_output=True, text=True)
        if r.returncode:
            yield f'nbdev_export failed: {r.stderr[-500:]}'
        made = modules(tmp/'capdec')
        for name in sorted(made | kept):
            if name not in made:
                yield f'capdec/{name}: no notebook exports it; delete it'
            elif name not in kept or not filecmp.cmp(tmp/'capdec'/name, root/'capdec'/name, shallow=False):
                yield f'capdec/{name}: not what its notebook exports; make export'

def check_readme():
    r = subprocess.run([sys.executable, ROOT/'tools'/'build_readme.py', '--check'], cwd=ROOT, capture_output=True,
        text=True)
    if r.returncode:
        yield r.stderr.strip()

def problems():
    for p in notebooks():
        yield from check_notebook(p)
    yield from check_files()
    yield from check_export()
    yield from check_readme()

if __name__ == '__main__':
    found = list(problems())
    print('\n'.join(found) or f'{len(notebooks())} notebooks clean, export in sync, README current')
    sys.exit(bool(found))
