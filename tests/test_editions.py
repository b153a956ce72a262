"Two editions of the mini pair ship; what was made with one is never read with the other"
import pytest
import torch

from capdec import Captioner
from capdec.core import BUNDLED, bundled, demo_photos, read_json
from capdec.embedding import load_encoder
from capdec.folder import captioner_folder, load_parts
from capdec.provenance import is_meant, label
from shell import capdec, one_line

def test_names_and_folders():
    assert captioner_folder('mini') == captioner_folder('mini@1') != captioner_folder('mini@2')
    for name in BUNDLED:
        for part in ('captioner', 'encoder'):
            assert (bundled(name, part)/'config.json').is_file()
    # one name in the package, one in what it writes
    for name, own in (('mini', 'mini'), ('mini@1', 'mini'), ('mini@2', 'mini@2')):
        assert read_json(bundled(name, 'encoder')/'config.json')['name'] == own
        notes, model = (read_json(bundled(name)/o) for o in ('captioner.json', 'config.json'))
        assert notes['encoder'] == model['encoder'] == own

def test_a_folder_of_that_name_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path/'mini@2').mkdir()
    assert bundled('mini@2') is None

def test_labels():
    parts = load_parts('mini@2', 'cpu', encoder=False)
    assert label(parts, 'mini@2') == 'mini@2' and is_meant('mini@2', 'mini')
    assert label(load_parts('mini', 'cpu', encoder=False), 'mini') == 'mini@1'

def test_a_captioner_brings_its_own_encoder():
    second = Captioner.from_pretrained('mini@2', 'cpu', dtype='float32')
    first = Captioner.from_pretrained('mini', 'cpu', dtype='float32')
    assert (second.encoder.name, first.encoder.name) == ('mini@2', 'mini')
    photo = demo_photos()[0]
    a, b = (c.encoder.encode_image([photo]) for c in (first, second))
    assert a.shape == b.shape and torch.nn.functional.cosine_similarity(a, b).item() < .5
    assert first(photo) and second(photo)

def test_saved_and_loaded(tmp_path):
    c = Captioner.from_pretrained('mini@2', 'cpu', dtype='float32')
    photos = demo_photos()[:2]
    again = Captioner.from_pretrained(c.save(tmp_path/'mine'), 'cpu', dtype='float32')
    assert again.encoder.name == 'mini@2' and again(photos) == c(photos)

@pytest.mark.parametrize('made, asked', [('mini', 'mini@2'), ('mini@2', 'mini')])
def test_vectors_of_the_other_edition_are_refused(tmp_path, made, asked):
    (tmp_path/'t.txt').write_text('A dog runs.\nA cat sleeps.\n')
    args = ['embed', '--data', tmp_path/'t.txt', '--clip_model_type', made, '--out', tmp_path/'t.store']
    capdec(*args, ok=True)
    r = capdec('caption', demo_photos()[0], '--model', asked, '--memory', tmp_path/'t.store', ok=False)
    said, = one_line(r)
    assert f'text vectors of {asked}' in said and f'of {made}' in said

def test_concepts_come_with_the_second():
    c = Captioner.from_pretrained('mini@2', 'cpu', dtype='float32')
    photo = demo_photos()[0]
    assert c.model.config.hint_tokens and c.bridge.concepts is not None
    # a word that you tell it is said
    assert 'sunflower' in c(photo, concepts='sunflower')

def test_load_encoder_by_every_name():
    assert load_encoder('mini@1', 'cpu').name == 'mini' and load_encoder('mini@2', 'cpu').name == 'mini@2'
    with pytest.raises(ValueError, match='mini@9'):
        load_encoder('mini@9', 'cpu')
