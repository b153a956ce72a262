import functools
import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image
from skimage import data as photos

from shell import COCO_NAMES

os.environ.setdefault('HF_HUB_OFFLINE', '1') # tests never ask the network
# captions are compared to the letter, so `auto` means float32 here, as on a machine with AVX2; test_precision.py asks
# the processor itself
os.environ.setdefault('ATEN_CPU_CAPABILITY', 'avx2')
# the same examples everywhere; `make fuzz` draws new ones; a deadline would be of the clock on the wall
settings.register_profile('steady', derandomize=True, deadline=None)
settings.register_profile('fuzz', derandomize=False, deadline=None)
settings.load_profile(os.environ.get('HYPOTHESIS_PROFILE', 'steady'))
ROOT = Path(__file__).resolve().parents[1]

def pytest_configure(config):
    config.addinivalue_line('markers', 'slow: minutes and gigabytes; run by `make slow-test` alone')

def pytest_collection_modifyitems(config, items):
    "What is marked slow is run when it is asked for by its mark"
    if 'slow' in config.option.markexpr:
        return
    slow = [o for o in items if o.get_closest_marker('slow')]
    config.hook.pytest_deselected(items=slow)
    items[:] = [o for o in items if o not in slow]

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

# ---- what several tests read

@pytest.fixture(scope='module')
def mini():
    "The bundled captioner"
    from capdec.captioner import Captioner
    return Captioner.from_pretrained('mini', 'cpu', dtype='float32')

@pytest.fixture(scope='module')
def encoder():
    "The bundled encoder"
    from capdec.mini import MiniEncoder
    return MiniEncoder.load(device='cpu')

@pytest.fixture(scope='module')
def pixels():
    "A small photo"
    return photos.coffee()[::8, ::8].copy()

@pytest.fixture(scope='module')
def album(tmp_path_factory):
    "Photos of every kind, and files that only look like photos"
    d = tmp_path_factory.mktemp('album')
    coffee = Image.fromarray(photos.coffee())
    coffee.save(d/'plain.jpg')
    Image.fromarray(photos.chelsea()).convert('CMYK').save(d/'cmyk.jpg')
    rgba = coffee.convert('RGBA')
    rgba.putalpha(128)
    rgba.save(d/'alpha.png')
    Image.fromarray((photos.camera().astype(np.uint16)*257)).save(d/'sixteen.png')
    exif = Image.Exif()
    exif[0x0112] = 8
    Image.fromarray(photos.rocket()).save(d/'rotated.jpg', exif=exif)
    (d/'sub').mkdir()
    Image.fromarray(photos.camera()).save(d/'sub'/'grey.png')
    (d/'text.jpg').write_text('I am a text file.')
    (d/'cut.jpg').write_bytes((d/'plain.jpg').read_bytes()[:2000])
    (d/'notes.txt').write_text('no photo')
    return d

@pytest.fixture(scope='session')
def other_encoder(tmp_path_factory):
    "Folder of an encoder that is not the bundled one: a copy with shaken weights, called 'other'"
    from dataclasses import replace
    import torch
    from capdec.mini import MiniEncoder
    encoder, g = MiniEncoder.load(device='cpu'), torch.Generator().manual_seed(0)
    encoder.config = replace(encoder.config, name='other')
    with torch.no_grad():
        for head in (encoder.image.head, encoder.text.head):
            for w in (head.proj.weight, head.fc.weight):
                w += w.std()*torch.randn(w.shape, generator=g)
    return encoder.save(tmp_path_factory.mktemp('encoder')/'other')

@pytest.fixture(scope='session')
def deaf(tmp_path_factory):
    "The bundled captioner with a decoder that takes a vector and no words, and its folder, called 'deaf'"
    from dataclasses import replace
    from capdec.bridges import Bridge
    from capdec.captioner import Captioner
    from capdec.model import CaptionModel
    mini = Captioner.from_pretrained('mini', 'cpu', dtype='float32')
    b, config = mini.bridge, replace(mini.model.config, hint_tokens=0)
    model = CaptionModel.create(config, (mini.model.raw_lm, mini.model.tokenizer))
    model.mapper.load_state_dict(mini.model.mapper.state_dict())
    c = Captioner(model, mini.encoder, Bridge('offset', b.offset, b.memory, b.sentences))
    return c, c.save(tmp_path_factory.mktemp('captioner')/'deaf')

@pytest.fixture(scope='module')
def half_model(tmp_path_factory):
    "A captioner whose weights were cut in half"
    import shutil
    from capdec.core import package_file
    d = tmp_path_factory.mktemp('half')/'m'
    shutil.copytree(package_file('models', 'mini', 'captioner'), d)
    f = d/'model.safetensors'
    f.write_bytes(f.read_bytes()[:f.stat().st_size//2])
    return d

@pytest.fixture(scope='module')
def coco(tmp_path_factory):
    "A folder like COCO's: Karpathy's file, and photos in val2014/ and train2014/"
    d = tmp_path_factory.mktemp('coco')
    ims, n = [], 0
    for split, ids in COCO_NAMES.items():
        (d/f'{split}2014').mkdir()
        for i in ids:
            name = f'COCO_{split}2014_{i:012}.jpg'
            Image.fromarray(photos.coffee()).resize((120, 80)).rotate(i % 40).save(d/f'{split}2014'/name)
            ims.append(dict(filename=name, filepath=f'{split}2014', split=split, cocoid=i,
                sentences=[dict(raw=f'A cup {k} of coffee {i}.', sentid=(n := n+1)) for k in 'abcde']))
    (d/'dataset_coco.json').write_text(json.dumps(dict(images=ims, dataset='coco')))
    (d/'ids.txt').write_text('391895\n')
    return d

@pytest.fixture(scope='module')
def mini_config():
    from capdec.core import package_file, read_json
    return read_json(package_file('models', 'mini', 'captioner', 'config.json'))

@pytest.fixture
def spy(monkeypatch):
    "What goes into the captioner, instead of captions"
    # it keeps the true function
    import capdec.captioner
    seen = []
    monkeypatch.setattr('capdec.candidates.generate', lambda model, x, **k: seen.append(x.clone())
        or [[SimpleNamespace(text='A dog\n runs\tFAST.')]]*len(x))
    return seen

@pytest.fixture(scope='module')
def published(tmp_path_factory):
    "Tiny copies of what the sources publish, under their own names"
    import pickle
    import zipfile
    d = tmp_path_factory.mktemp('published')
    # Kaggle's
    with zipfile.ZipFile(d/'archive.zip', 'w') as z:
        for name in ('coco', 'flickr8k', 'flickr30k'):
            z.writestr(f'dataset_{name}.json', json.dumps({'dataset': name,
                'images': [dict(filename=f'{i+1:012d}.jpg', split=s, cocoid=i+1,
                sentences=[dict(raw=f'A man of {name} {s}.', sentid=i)]) for i,
                s in enumerate(('train', 'restval', 'val', 'test'))]}))
    with zipfile.ZipFile(d/'FlickrStyle_v0.9.zip', 'w') as z:
        names = [f'{10**6+i}_0123456789.jpg' for i in range(7)]
        for folder, text in (('humor', 'funny_train.txt'), ('romantic', 'romantic_train.txt')):
            z.writestr(f'FlickrStyle_v0.9/{folder}/{text}', '\n'.join(f'a {folder} dog {i} .' for i in range(7)))
            z.writestr(f'FlickrStyle_v0.9/{folder}/train.p', pickle.dumps(names))
    (d/'factual.json').write_text(json.dumps([dict(image_id=10**6+i, caption=f'a plain dog {i} .', id=i, filename=n)
        for i, n in enumerate(names)]))
    (d/'women.txt').write_text('2\n3\n')
    (d/'books').mkdir()
    (d/'books'/'one.txt').write_text('It was a bright cold day in spring. The clocks were striking again.')
    (d/'alllines.txt').write_text('"So shaken as we are, so wan with care,"\n"Find we a time for frighted peace to '
        'pant,"\n')
    (d/'news.csv').write_text('title,text\nDog wins,"A dog has won the race in the park. Its owner was very happy."\n')
    return d

def _noise_photo(path, i):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(i).integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(path)

@pytest.fixture(scope='session')
def small_shared(tmp_path_factory):
    "The layout of the shared material, with captions and photos that nobody took"
    from capdec.studies import recipe
    root = tmp_path_factory.mktemp('shared')
    data = root/'data'
    said = [f'A {c} {a} {v} on the {p}.' for c in ('red', 'big') for a in ('dog', 'man', 'woman', 'bird')
        for v in ('runs', 'sits', 'lies') for p in ('bench', 'beach', 'street', 'table')]
    (data/'karpathy').mkdir(parents=True)
    for name, n in dict(flickr8k=30, flickr30k=60, coco=60).items():
        images = [dict(filename=f'{name}{i}.jpg', split=('val', 'test')[i % 2] if i < 6 else
            'restval' if name == 'coco' else 'train', cocoid=1000 + i, sentences=[dict(raw=said[(7*i + k) % len(said)]
            + (' Here.' if i < 6 else '')) for k in range(5)]) for i in range(n)]
        with gzip.open(data/'karpathy'/f'dataset_{name}.json.gz', 'wt') as f:
            json.dump(dict(images=images), f)
        for i in range(30 if name == 'flickr8k' else 0):
            _noise_photo(data/'flickr8k'/'images'/f'flickr8k{i}.jpg', i)
    for folder, source in recipe._FOLDERS.items():
        rows = [dict(file_name=f'{i}.jpg', image_id=i, caption=f'A photo of a barn {folder} {i}',
            captions=[f'A barn and a dog {i} {k}.' for k in range(5)]) for i in range(6)]
        for o in rows:
            o.pop('captions' if source in ('unsplash', 'imagenet', 'ade') else 'caption')
            _noise_photo(data/folder/'images'/o['file_name'], o['image_id'])
        name = 'captions.json' if source in recipe.DESCRIBED else 'labels.json'
        (data/folder/name).write_text(json.dumps(rows))
    (data/'flickrstyle').mkdir()
    for style in ('funny', 'romantic'):
        (data/'flickrstyle'/f'{style}.tsv').write_text('flickr8k7.jpg\tA dog in love with a bench.\n')
    (data/'clip_vitb32').mkdir()
    vectors = np.random.default_rng(0).normal(size=(8, 512)).astype(np.float32)
    np.savez(data/'clip_vitb32'/'embeddings.npz', flickr_image_names=[f'flickr8k{i}.jpg' for i in range(8)],
        flickr_image_emb=vectors, flickr_text_emb=vectors, flickr_text_image=[f'flickr8k{i}.jpg' for i in range(8)])
    return root

@functools.cache
def _cached(*args):
    from capdec.embedding import load_encoder
    return load_encoder(*args)

@pytest.fixture
def one_encoder(monkeypatch):
    "The encoder is built once for all tests of a module"
    monkeypatch.setattr('capdec.folder.load_encoder', _cached)

@pytest.fixture(scope='session')
def mine(tmp_path_factory):
    "A captioner of one's own: mini with other weights"
    import torch
    from capdec.captioner import Captioner
    c = Captioner.from_pretrained('mini', 'cpu')
    with torch.no_grad():
        for w in c.model.mapper.parameters():
            w.mul_(1.01)
    return c.save(tmp_path_factory.mktemp('own')/'mine')
