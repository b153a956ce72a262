"The captioner: what it loads and saves, and files by the thousand."
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import capdec.captioner as module
from capdec.captioner import Bridge, Captioner, Journal

@pytest.fixture(scope='module')
def mini(): return Captioner.from_pretrained('mini', 'cpu', bridge='none')

@pytest.fixture
def remembering(mini, tmp_path):
    "A captioner with a memory, saved"
    c = Captioner(mini.model, mini.encoder).remember(['A cat looks at me.', 'A cup of coffee.', 'Two\n  dogs run.'])
    return c.save(tmp_path/'mine')

def test_memory_survives(mini, remembering):
    b = Captioner.from_pretrained(remembering, 'cpu').bridge
    assert (b.kind, b.sentences) == ('memory', ['A cat looks at me.', 'A cup of coffee.', 'Two dogs run.'])

def test_saving_over_a_captioner_leaves_nothing_of_it(mini, remembering):
    Captioner(mini.model, mini.encoder).save(remembering)
    assert not (remembering/'memory.txt').exists() and not (remembering/'bridge.safetensors').exists()
    assert Captioner.from_pretrained(remembering, 'cpu').bridge.memory is None

def test_damaged_bridge(remembering):
    f, t = remembering/'bridge.safetensors', remembering/'memory.txt'
    text = t.read_text(); t.write_text(text.split('\n', 1)[1])
    with pytest.raises(ValueError, match='2 sentences, bridge.safetensors 3 vectors'): Captioner.from_pretrained(remembering, 'cpu')
    t.write_text(text); f.write_bytes(f.read_bytes()[:-50])
    with pytest.raises(ValueError, match='bridge.safetensors: damaged or cut short'): Captioner.from_pretrained(remembering, 'cpu')

def test_bridge_of_another_width(mini):
    with pytest.raises(ValueError, match='vectors of 5 numbers'): Captioner(mini.model, mini.encoder, Bridge('offset', torch.ones(5)))
    with pytest.raises(ValueError, match='vectors of 5 numbers'): Captioner(mini.model, mini.encoder, Bridge('memory', memory=torch.eye(5), sentences=list('abcde')))

def test_without_encoder(monkeypatch):
    def never(*a): raise AssertionError('loaded')
    monkeypatch.setattr(module, 'load_encoder', never)
    c = Captioner.from_pretrained('mini', 'cpu', encoder=False)
    with pytest.raises(ValueError, match='without its encoder'): c([np.zeros((4, 4, 3), 'uint8')])

def test_large_photos_wait_small(mini, tmp_path, monkeypatch):
    for n, size in (('large', (3000, 1000)), ('tall', (900, 2048)), ('small', (640, 480))): Image.new('RGB', size, 'navy').save(tmp_path/f'{n}.jpg')
    assert [module._open(tmp_path/f'{n}.jpg').size for n in ('large', 'tall', 'small')] == [(1024, 341), (450, 1024), (640, 480)]
    assert isinstance(module._open(tmp_path/'none.jpg'), FileNotFoundError)
    most = []
    real = mini.encoder.encode_image
    monkeypatch.setattr(mini.encoder, 'encode_image', lambda images, **k: most.extend(max(o.size) for o in images) or real(images, **k))
    assert len(list(mini.caption_files([tmp_path/'large.jpg', tmp_path/'small.jpg'], beam_size=1))) == 2 and most == [1024, 640]

def test_captions_are_one_line(mini, tmp_path, monkeypatch):
    Image.new('RGB', (64, 64)).save(tmp_path/'a.jpg')
    class Text: text = ' A dog\n\truns. '
    monkeypatch.setattr(module, 'generate', lambda model, x, num_captions, **k: [[Text]*num_captions for _ in x])
    assert [r.captions for r in mini.caption_files([tmp_path/'a.jpg'], num_captions=2)] == [['A dog runs.']*2]
    assert [r.captions for r in mini.caption_files([tmp_path/'a.jpg'])] == [['A dog runs.']]

def test_batch_size_zero(mini):
    with pytest.raises(ValueError, match='batch_size 0'): list(mini.caption_files(['a.jpg'], batch_size=0))

def test_journal_of_names_that_are_not_utf8(tmp_path):
    name = b'caf\xe9.jpg'.decode('utf-8', 'surrogateescape')
    j = Journal(tmp_path/'j', dict(a=1)); j.add(name, captions=['Ein Bär.']); j.close()
    assert (tmp_path/'j').read_bytes().isascii()
    assert Journal(tmp_path/'j', dict(a=1)).done[name]['captions'] == ['Ein Bär.']
