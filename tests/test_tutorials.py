"The tutorials in Colab; the lesson on real CLIP and GPT-2, which wants a network and a GPU, with tiny random models"
import configparser
import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import nbformat
import pip
import pytest
import torch
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from PIL import Image
from skimage import data as photos

from capdec.studies.bench import TOWERS, random_clip
from capdec.core import package_file

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT/'tools'))
from home import TUTORIALS

def karpathy(folder):
    "A COCO of nine images in Karpathy's layout, in its zip, and the photos of its test split"
    images = []
    for i, split in enumerate(['train']*4 + ['restval']*2 + ['val'] + ['test']*2):
        name = f'COCO_val2014_{i:012}.jpg'
        images.append(dict(cocoid=i, filepath='val2014', filename=name, split=split,
            sentences=[dict(raw=f'A {o} in picture {i}.', sentid=5*i+j) for j,
            o in enumerate(['cat', 'dog', 'cup', 'man', 'bus'])]))
        (folder/'val2014').mkdir(exist_ok=True)
        if split == 'test':
            Image.fromarray(photos.coffee()).resize((80+i, 60)).save(folder/'val2014'/name)
    with zipfile.ZipFile(folder/'caption_datasets.zip', 'w') as z:
        z.writestr('dataset_coco.json', json.dumps(dict(images=images, dataset='coco')))

def test_clip_and_gpt2_lesson_runs_as_it_is(tmp_path, monkeypatch, capsys):
    from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel
    import capdec.embedding, capdec.folder, capdec.model
    tokenizer = AutoTokenizer.from_pretrained(package_file('models', 'mini', 'captioner'))
    def gpt2():
        torch.manual_seed(0)
        return GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), n_embd=64, n_layer=1, n_head=1, n_positions=128))
    monkeypatch.setitem(TOWERS, '640', dict(embed_dim=640, transformer_width=64, transformer_heads=1,
        transformer_layers=1))
    clip = capdec.embedding.OpenAIClip(random_clip('640'), 'cpu')
    clip.name = 'RN50x4'
    asked = []
    for module in (capdec.embedding, capdec.folder):
        monkeypatch.setattr(module, 'load_encoder', lambda name, *a, **k: asked.append(name) or clip)
    monkeypatch.setattr(capdec.model, '_auto', lambda kind, name: asked.append(name)
        or (tokenizer if kind == 'AutoTokenizer' else gpt2()))
    monkeypatch.chdir(tmp_path)
    karpathy(tmp_path)
    small = capdec.model.CaptionModel.create(capdec.model.CapDecConfig(num_layers=1, prefix_length=4,
        prefix_length_clip=4))
    monkeypatch.setenv('CAPDEC_WEIGHTS', str(tmp_path/'weights'))
    (tmp_path/'weights').mkdir()
    # what the download would bring
    torch.save(capdec.model.to_official(small), 'weights/capdec-coco-0.015.pt')
    asked.clear()
    space, ran = {}, 0
    for c in nbformat.read(ROOT/'nbs'/'23_clip_gpt2.ipynb', 4).cells:
        if c.cell_type != 'code' or re.search(r'^[%!]|^#\| (hide|slow)', c.source, re.M):
            continue
        for long, short in (('steps=500', 'steps=2'), ('epochs=8', 'epochs=2'),
                ("split='test')\n", "split='test', metrics='bleu,cider')\n")):
            c.source = c.source.replace(long, short)
        exec(compile(c.source, c.id, 'exec'), space)
        ran += 1
    assert ran >= 9 and set(asked) == {'RN50x4', 'gpt2'}
    assert len(space['store']) == 30 and (space['store'].dim, space['config'].noise_variance) == (640, .016)
    assert len(space['said']) == 2 and space['scores'].corpus['BLEU_1'] >= 0 and len(space['history']['val']) == 2
    assert {'model.safetensors', 'config.json', 'captioner.json'} <= set(os.listdir('my-capdec'))
    assert 'CIDEr' in capsys.readouterr().out

# Colab: the first cell installs the package with all extras beside what is there already

def colab():
    "What Colab brings: `{name: version}`"
    lines = (ROOT/'tests'/'colab.txt').read_text().splitlines()
    return dict(o.split('==') for o in lines if not o.startswith('#'))

def wanted():
    "What the package asks for, with all its extras"
    cfg = configparser.ConfigParser(delimiters=['='])
    cfg.read(ROOT/'settings.ini', encoding='utf-8')
    cfg = cfg['DEFAULT']
    keys = ['requirements', *(f'{o}_requirements' for o in cfg['extras'].split())]
    return ' '.join(cfg[o] for o in keys).split()

# What runs when the first cell does, or is loaded by Colab's own kernel: another version breaks it until a restart
LOADED = set("""google-auth ipykernel ipython ipywidgets jupyter-client jupyter-core matplotlib numpy pandas
    portpicker pyarrow pytz pyzmq requests scikit-image scikit-learn scipy six tornado torch torchvision
    traitlets triton""".split())

def test_colab_has_most_of_what_is_needed():
    "Only what is pure Python, and loaded by nobody yet, is replaced"
    there = colab()
    asked = [Requirement(o) for o in wanted()]
    replaced = {o.name for o in asked if o.name in there and not o.specifier.contains(there[o.name])}
    assert {'torch', 'numpy', 'ipywidgets'} <= {o.name for o in asked} & there.keys()
    assert replaced == {'transformers', 'fastcore'}

def dry_run(folder, asked):
    "What pip would install in Colab: `(exit code, {name: version}, what it said)`; nothing is installed"
    site,report = folder/'site',folder/'report.json'
    for name, version in colab().items():
        if name != 'pip':
            there = site/f'{name.replace("-", "_")}-{version}.dist-info'
            there.mkdir(parents=True)
            (there/'METADATA').write_text(f'Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n')
            (there/'RECORD').touch()
    # -S: pip sees what Colab has, and nothing of what is installed here
    (site/'pip').symlink_to(Path(pip.__file__).parent)
    linux = [f'--platform=manylinux{o}_x86_64' for o in ('_2_35', '_2_28', '_2_17', '2014', '2010', '1')]
    command = [sys.executable, '-S', '-m', 'pip', 'install', '-q', '--dry-run', '--no-input', '--retries=1',
        '--only-binary=:all:', '--python-version=3.12', '--implementation=cp', '--abi=cp312', *linux,
        f'--report={report}', *asked]
    r = subprocess.run(command, env=os.environ | dict(PYTHONPATH=str(site)), capture_output=True, text=True)
    found = json.loads(report.read_text())['install'] if report.exists() else []
    return r.returncode, {canonicalize_name(o['metadata']['name']): o['metadata']['version'] for o in found}, r.stderr

@pytest.fixture(scope='module')
def index():
    "A package index that pip can ask; without one there is nothing to resolve against"
    r = subprocess.run([sys.executable, '-m', 'pip', 'index', 'versions', 'ftfy', '--retries=1', '--timeout=15'],
        capture_output=True, text=True)
    if r.returncode:
        pytest.skip('no package index here')

def test_colab_can_install_it(index, tmp_path):
    "On Python 3.12 beside Colab's packages; what its kernel has loaded stays as it is"
    code, new, said = dry_run(tmp_path, wanted())
    assert code == 0, said
    assert {'transformers', 'clip-anytorch', 'voila'} <= new.keys() and int(new['transformers'].split('.')[0]) >= 5
    assert LOADED & new.keys() == set()

def test_a_package_that_colab_cannot_have_is_seen(index, tmp_path):
    code, new, said = dry_run(tmp_path, ['ftfy>=9999'])
    assert code and not new and 'ftfy>=9999' in said

def test_no_package_is_named_that_colab_does_not_list():
    assert LOADED - {'triton'} <= colab().keys()

@pytest.mark.parametrize('name', TUTORIALS)
def test_hidden_cells_say_what_they_are_for(name):
    "What the site hides stands in Colab like any other cell"
    cells = nbformat.read(ROOT/'nbs'/f'{name}.ipynb', 4).cells
    hidden = [c.source.split('\n') for c in cells if re.search(r'^#\|\s*hide', c.source, re.M)]
    assert [o for o in hidden if not any(re.match(r'\s*# .{12}', l) for l in o)] == []

@pytest.mark.parametrize('name', TUTORIALS)
def test_no_file_is_read_that_the_package_lacks(name):
    "A notebook that is opened in Colab lies beside no other file"
    code = '\n'.join(c.source for c in nbformat.read(ROOT/'nbs'/f'{name}.ipynb', 4).cells
        if c.cell_type == 'code' and not re.search(r'^#\|\s*(export|hide)', c.source, re.M))
    assert re.findall(r'[\'"](?:\.\./|data/|images/)[^\'"]*', code) == []

def test_no_lesson_shows_the_same_caption_of_every_photo():
    "The page on real CLIP shows nothing rather than one sentence nine times"
    from collections import Counter
    said = Counter(re.sub(r'^\S+ {2,}', '', line) for c in nbformat.read(ROOT/'nbs'/'23_clip_gpt2.ipynb', 4).cells
        for o in c.get('outputs', []) for line in o.get('text', '').splitlines())
    assert [k for k, n in said.items() if n > 1] == []
