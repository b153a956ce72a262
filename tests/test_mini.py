"""The bundled encoder: what a notebook cannot show"""
import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from capdec.core import package_file
from capdec.mini import MiniConfig,MiniEncoder,TextTower,pad_ids,to_pixels

@pytest.fixture(scope='module')
def sentences():
    rng,words = np.random.default_rng(
        0), 'a dog cat man woman red blue on in the beach street runs sits with two and ball'.split()
    return [' '.join(rng.choice(words, n)) for n in rng.integers(1, 30, 40)]

def photo(w, h, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (h,w,3), dtype=np.uint8))

def test_protocol(encoder):
    assert (encoder.name, encoder.dim, encoder.device.type) == ('mini@2', 512, 'cpu')
    for v in (encoder.encode_text(['a dog']), encoder.encode_image([photo(30, 20)])):
        assert v.shape == (1,512) and v.dtype == torch.float32 and not v.requires_grad
        # not normalised
        assert abs(v.norm().item() - 1) > 1e-3

@pytest.mark.parametrize('n', [-1, 0, 2.5])
def test_batches_that_cannot_be(encoder, n):
    "A negative size made no batch at all: vectors of whatever was in memory"
    from capdec.embedding import chunks
    for f in (lambda: encoder.encode_text(['a dog'], batch_size=n), lambda: encoder.encode_image([photo(30, 20)],
            batch_size=n), lambda: next(chunks([1], n))):
        with pytest.raises(ValueError, match='batch_size'):
            f()

def test_empty_lists(encoder):
    assert encoder.encode_text([]).shape == encoder.encode_image([]).shape == (0,512)

@pytest.mark.parametrize('batch_size', [1,3,7,256])
def test_sentences_do_not_depend_on_their_batch(encoder, sentences, batch_size):
    whole = encoder.encode_text(sentences, batch_size=40, show=False)
    torch.testing.assert_close(encoder.encode_text(sentences, batch_size=batch_size, show=False), whole, atol=1e-4,
        rtol=1e-3)

def test_photos_do_not_depend_on_their_batch(encoder):
    photos = [photo(40+i, 30+3*i, i) for i in range(5)]
    whole = encoder.encode_image(photos)
    for bs in (1,2):
        torch.testing.assert_close(encoder.encode_image(photos, batch_size=bs, show=False), whole, atol=1e-3, rtol=1e-3)

def test_order_is_kept(encoder, sentences):
    turned = encoder.encode_text(sentences[::-1], show=False).flip(0)
    torch.testing.assert_close(turned, encoder.encode_text(sentences, show=False), atol=1e-4, rtol=1e-3)

def test_more_padding_changes_nothing():
    torch.manual_seed(0)
    tower = TextTower(MiniConfig(vocab=50, width=16, layers=2, heads=2, dim=8)).eval()
    tokens,mask = pad_ids([[1,2,3,4], [5,6]])
    with torch.no_grad():
        short = tower(tokens, mask)
        for n in (1,5,20):
            torch.testing.assert_close(tower(F.pad(tokens, (0,n), value=9), F.pad(mask, (0,n))), short, atol=1e-5,
                rtol=1e-4)

def test_padding_gets_no_gradient():
    tower = TextTower(MiniConfig(vocab=50, width=16, layers=1, heads=2, dim=8))
    tokens,mask = pad_ids([[1,2,3,4], [5,6]])
    tower(tokens, mask).sum().backward()
    grads = tower.tokens.weight.grad.norm(dim=1)
    assert grads[0] == 0 and (grads[[1,2,3,4,5,6]] > 0).all()

@pytest.mark.parametrize('size', [(1,1), (1,400), (500,3), (224,224), (225,223)])
def test_odd_sizes(encoder, size):
    assert to_pixels(photo(*size)).shape == (3,224,224)
    assert torch.isfinite(encoder.encode_image([photo(*size)])).all()

def test_anything_that_is_an_image(encoder, tmp_path):
    im = photo(50, 40)
    im.save(tmp_path/'a.png')
    kinds = [im, tmp_path/'a.png', str(tmp_path/'a.png'), (tmp_path/'a.png').read_bytes(), np.array(im),
        torch.from_numpy(np.array(im)).permute(2,0,1)]
    v = encoder.encode_image(kinds)
    for o in v[1:]:
        torch.testing.assert_close(o, v[0], atol=1e-3, rtol=1e-3)
    with pytest.raises(FileNotFoundError, match='none.jpg'):
        encoder.encode_image([im, tmp_path/'none.jpg'])

def test_repeatable_and_training_mode_left_alone(encoder, sentences):
    assert torch.equal(encoder.encode_text(sentences, show=False), encoder.encode_text(sentences, show=False))
    encoder.train()
    try:
        a = encoder.encode_text(sentences[:3])
        assert encoder.training
    finally:
        encoder.eval()
    torch.testing.assert_close(a, encoder.encode_text(sentences[:3]))

def test_strange_sentences(encoder):
    v = encoder.encode_text(['', ' ', 'ein Hund läuft 🐕', 'dog '*500, '\n', 'A DOG', 'a dog'])
    assert torch.isfinite(v).all()
    # lower-cased
    torch.testing.assert_close(v[5], v[6], atol=1e-4, rtol=1e-3)
    for f,x in ((encoder.encode_text, 'a dog'), (encoder.encode_image, 'a.jpg')):
        with pytest.raises(ValueError, match='takes a list'):
            f(x)

def test_save_load_identity(encoder, sentences, tmp_path):
    again = MiniEncoder.load(encoder.save(tmp_path/'e'), device='cpu')
    assert torch.equal(again.encode_text(sentences, show=False), encoder.encode_text(sentences, show=False))
    assert torch.equal(again.encode_image([photo(40, 30)]), encoder.encode_image([photo(40, 30)]))
    again.save(tmp_path/'f')
    for name in ('config.json','model.safetensors','tokenizer.json'):
        assert (tmp_path/'e'/name).read_bytes() == (tmp_path/'f'/name).read_bytes()

def test_damaged_folders_are_named(encoder, tmp_path):
    with pytest.raises(FileNotFoundError, match='config.json'):
        MiniEncoder.load(tmp_path/'nothing')
    folder = encoder.save(tmp_path/'e')
    raw = (folder/'model.safetensors').read_bytes()
    (folder/'model.safetensors').write_bytes(raw[:1000])
    with pytest.raises(ValueError, match='model.safetensors: damaged'):
        MiniEncoder.load(folder)
    (folder/'model.safetensors').write_bytes(raw)
    config = json.loads((folder/'config.json').read_text())
    (folder/'config.json').write_text(json.dumps(config | {'dim': 256}))
    with pytest.raises(ValueError, match='has shape .512, 512., .256, 256. was'):
        MiniEncoder.load(folder)
    (folder/'config.json').write_text('[]')
    with pytest.raises(ValueError, match='not the config'):
        MiniEncoder.load(folder)

def test_small_enough_to_ship():
    folder = package_file('models','mini','encoder')
    assert sum(o.stat().st_size for o in folder.iterdir()) < 22.5e6

def test_it_knows_its_photos(encoder, shared):
    from capdec.studies.recipe import geometry,read_flickr8k,retrieval_recall
    pairs = read_flickr8k(shared)['report'][:60]
    image = encoder.encode_image([o for o,_ in pairs], show=False)
    text = encoder.encode_text([c for _,cs in pairs for c in cs], show=False)
    owner = torch.arange(60).repeat_interleave(5)
    # of 300 sentences
    assert retrieval_recall(image, text, owner)['i2t_R@10'] > 90
    assert geometry(image, text, owner)['gap'] > 0.5
