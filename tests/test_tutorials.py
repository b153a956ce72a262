"The lesson on real CLIP and GPT-2 wants a network and a GPU: here its cells run as they are, with tiny random models"
import json
import os
import re
import zipfile
from pathlib import Path

import nbformat
import torch
from PIL import Image
from skimage import data as photos

from capdec.studies.bench import TOWERS, random_clip
from capdec.core import package_file

ROOT = Path(__file__).resolve().parents[1]

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
