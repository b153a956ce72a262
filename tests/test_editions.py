"Encoders of two editions ship; what was made with one is never read with the other"
import pytest
import torch

from capdec.core import BUNDLED, bundled, demo_photos, read_json
from capdec.embedding import load_encoder
from capdec.folder import captioner_folder, load_parts
from capdec.provenance import label
from capdec.store import EmbeddingStore
from shell import capdec, one_line

def test_names_and_folders():
    assert captioner_folder('mini') == captioner_folder('mini@1') == bundled('mini')
    for name, own in (('mini', 'mini'), ('mini@1', 'mini'), ('mini@2', 'mini@2')):
        assert read_json(bundled(name, 'encoder')/'config.json')['name'] == own == load_encoder(name, 'cpu').name
    assert set(BUNDLED['captioner']) < set(BUNDLED['encoder'])

def test_a_folder_of_that_name_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path/'mini@2').mkdir()
    assert bundled('mini@2', 'encoder') is None

def test_an_edition_that_is_not_there_is_told(tmp_path):
    with pytest.raises(ValueError, match='mini@9'):
        load_encoder('mini@9', 'cpu')
    said, = one_line(capdec('caption', demo_photos()[0], '--model', 'mini@2', '--out', tmp_path/'t.csv', ok=False))
    assert said == ('capdec: error: mini@2: ships as an encoder alone (--clip_model_type); the captioner that ships '
        'is mini')

def test_label():
    parts = load_parts('mini@1', 'cpu', encoder=False)
    assert label(parts, 'mini@1') == label(parts, 'mini') == 'mini@1'

def test_the_two_mean_different_things():
    photo = demo_photos()[0]
    a, b = (load_encoder(o, 'cpu').encode_image([photo]) for o in ('mini', 'mini@2'))
    assert a.shape == b.shape and torch.nn.functional.cosine_similarity(a, b).item() < .5

def a_store(tmp_path, encoder):
    (tmp_path/'t.txt').write_text('A dog runs.\nA cat sleeps.\nA man rides a horse.\n')
    capdec('embed', '--data', tmp_path/'t.txt', '--clip_model_type', encoder, '--out', tmp_path/'t.store', ok=True)
    assert EmbeddingStore(tmp_path/'t.store').meta['encoder'] == encoder
    return tmp_path/'t.store'

def test_vectors_of_the_other_edition_are_refused(tmp_path):
    store = a_store(tmp_path, 'mini@2')
    r = capdec('caption', demo_photos()[0], '--memory', store, ok=False)
    said, = one_line(r)
    assert 'text vectors of mini' in said and 'of mini@2' in said

def test_a_captioner_that_is_trained_on_it_knows_its_encoder(tmp_path):
    store = a_store(tmp_path, 'mini@2')
    capdec('train', '--data', store, '--lm', 'mini', '--clip_model_type', 'mini@2', '--mapping_type', 'mlp',
        '--prefix_length', '2', '--epochs', '1', '--bs', '3', '--out_dir', tmp_path/'run', ok=True)
    parts = load_parts(tmp_path/'run'/'coco_prefix_latest', 'cpu')
    assert parts.encoder.name == 'mini@2'

@pytest.mark.parametrize('half, of', [('report', '500 photos of Flickr8k'), ('coco_report', '196 photos of COCO')])
def test_the_card_says_what_was_scored(half, of):
    said = (bundled('mini').parent/'README.md').read_text(encoding='utf-8').splitlines()
    scores = read_json(bundled('mini@2', 'encoder')/'scores.json')[half]
    at, = [i for i, o in enumerate(said) if of in o and 'photo to captions' in o]
    for line, way in zip(said[at:at+2], ('i2t', 't2i')):
        assert ' / '.join(f'{scores[f"{way}_R@{k}"]:.1f}' for k in (1, 5, 10)) == line.split('|')[3].strip()
