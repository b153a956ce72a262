"The pair that ships has an edition; what was made with the one before is told apart, and refused with the way back"
import json
import shutil

import pytest

from capdec.core import BUNDLED, bundled, demo_photos, read_json, write_json
from capdec.embedding import load_encoder
from capdec.folder import captioner_folder, load_parts
from capdec.provenance import label
from capdec.store import EmbeddingStore
from shell import capdec, one_line

def test_names_and_folders():
    assert captioner_folder('mini') == captioner_folder('mini@2') == bundled('mini')
    for name in BUNDLED:
        assert read_json(bundled(name, 'encoder')/'config.json')['name'] == 'mini@2' == load_encoder(name, 'cpu').name

def test_a_folder_of_that_name_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path/'mini@2').mkdir()
    assert bundled('mini@2', 'encoder') is None

@pytest.mark.parametrize('name, why', [('mini@1', 'edition-1'), ('mini@9', 'mini@9')])
def test_an_edition_that_is_not_there_is_told(tmp_path, name, why):
    with pytest.raises(ValueError, match=why):
        load_encoder(name, 'cpu')
    said, = one_line(capdec('caption', demo_photos()[0], '--model', name, '--out', tmp_path/'t.csv', ok=False))
    assert why in said

def test_label():
    parts = load_parts('mini', 'cpu', encoder=False)
    assert label(parts, 'mini@2') == label(parts, 'mini') == 'mini@2'

def a_store(tmp_path, encoder='mini'):
    (tmp_path/'t.txt').write_text('A dog runs.\nA cat sleeps.\nA man rides a horse.\n')
    capdec('embed', '--data', tmp_path/'t.txt', '--clip_model_type', encoder, '--out', tmp_path/'t.store', ok=True)
    return tmp_path/'t.store'

def of_edition_1(store):
    "The same store, as edition 1 would have written it"
    meta = read_json(store/'index.json')
    write_json(store/'index.json', json.loads(json.dumps(meta).replace('"mini@2"', '"mini"')))
    assert EmbeddingStore(store).meta['encoder'] == 'mini'
    return store

def test_a_store_says_its_edition(tmp_path):
    assert EmbeddingStore(a_store(tmp_path)).meta['encoder'] == 'mini@2'

def test_a_store_of_edition_1_is_refused(tmp_path):
    store = of_edition_1(a_store(tmp_path))
    said, = one_line(capdec('caption', demo_photos()[0], '--memory', store, ok=False))
    assert 'vectors of mini;' in said and 'of mini@2' in said
    r = capdec('train', '--data', store, '--lm', 'mini', '--out_dir', tmp_path/'run', ok=False)
    said = one_line(r)[-1]
    assert 't.store: was made with the encoder mini of edition 1' in said and 'edition-1' in said
    assert not (tmp_path/'run').exists()

@pytest.mark.parametrize('data', ['t.txt', 'good.store'])
def test_a_store_of_edition_1_is_refused_to_validate_on(tmp_path, data):
    "Before anything is made"
    shutil.copytree(a_store(tmp_path), tmp_path/'good.store')
    store = of_edition_1(tmp_path/'t.store')
    r = capdec('train', '--data', tmp_path/data, '--val_pt', store, '--lm', 'mini', '--clip_model_type', 'mini',
        '--out_dir', tmp_path/'run', ok=False)
    said = one_line(r)[-1]
    assert 't.store: was made with the encoder mini of edition 1' in said and 'edition-1' in said
    assert not (tmp_path/'run').exists()

def test_a_captioner_of_edition_1_is_refused(tmp_path):
    shutil.copytree(bundled('mini'), tmp_path/'old')
    notes = read_json(tmp_path/'old'/'captioner.json')
    write_json(tmp_path/'old'/'captioner.json', notes | dict(encoder='mini'))
    said, = one_line(capdec('caption', demo_photos()[0], '--model', tmp_path/'old', ok=False))
    assert 'old: was made with the encoder mini of edition 1' in said and 'edition-1' in said
    # the encoder of that name is another one now, with its vectors or without
    for name in BUNDLED:
        for encoder in (True, False):
            with pytest.raises(ValueError, match='old: was made with the encoder mini of edition 1'):
                load_parts(tmp_path/'old', 'cpu', name, encoder=encoder)
    said, = one_line(capdec('caption', demo_photos()[0], '--model', tmp_path/'old', '--clip_model_type', 'mini',
        ok=False))
    assert 'old: was made with the encoder mini of edition 1' in said
    # you may know better, as where you kept its encoder
    kept = shutil.copytree(bundled('mini', 'encoder'), tmp_path/'kept')
    load_parts(tmp_path/'old', 'cpu', str(kept))

def test_a_captioner_that_is_trained_on_it_knows_its_encoder(tmp_path):
    store = a_store(tmp_path)
    capdec('train', '--data', store, '--lm', 'mini', '--clip_model_type', 'mini', '--mapping_type', 'mlp',
        '--prefix_length', '2', '--epochs', '1', '--bs', '3', '--out_dir', tmp_path/'run', ok=True)
    parts = load_parts(tmp_path/'run'/'coco_prefix_latest', 'cpu')
    assert parts.encoder.name == 'mini@2'
    # a name that is typed means this edition, without its encoder, too
    assert load_parts(tmp_path/'run'/'coco_prefix_latest', 'cpu', 'mini', encoder=False).encoder.name == 'mini@2'

@pytest.mark.parametrize('half, of', [('report', '500 photos of Flickr8k'), ('coco_report', '196 photos of COCO')])
def test_the_card_says_what_was_scored(half, of):
    said = (bundled('mini').parent/'README.md').read_text(encoding='utf-8').splitlines()
    scores = read_json(bundled('mini', 'encoder')/'scores.json')[half]
    at, = [i for i, o in enumerate(said) if of in o and 'photo to captions' in o]
    for line, way in zip(said[at:at+2], ('i2t', 't2i')):
        assert ' / '.join(f'{scores[f"{way}_R@{k}"]:.1f}' for k in (1, 5, 10)) == line.split('|')[3].strip()
