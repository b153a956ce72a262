"What is written replaces nothing that you did not mean: photos, pages, pictures, what is read"
import json
import os

import pytest
from PIL import Image

from capdec.data import write_captions
from capdec.evaluation import check_gallery
from shell import capdec, one_line

pytestmark = pytest.mark.usefixtures('one_encoder')

@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for n in 'ab':
        Image.new('RGB', (40, 30), 'navy').save(f'{n}.jpg')
    (tmp_path/'s.txt').write_text('A dog runs in the snow.\nA cat sits on a table.\n')
    (tmp_path/'p.json').write_text(json.dumps([dict(image_id=f'{n}.jpg', caption='A dog.', id=0) for n in 'ab']))
    return tmp_path

@pytest.mark.parametrize('args', [('parse', 's.txt'), ('open-text', 's.txt'), ('evaluate', 'p.json', '--references',
    'p.json', '--metrics', 'cider'), ('predict', '--images', 'b.jpg', '--device', 'cpu')], ids=lambda o: o[0])
def test_a_photo_is_not_replaced(here, args):
    before = (here/'a.jpg').read_bytes()
    said = one_line(capdec(*args, '--out', 'a.jpg', ok=False))
    assert said == ['capdec: error: a.jpg: is there already and is no JSON; name another file']
    assert (here/'a.jpg').read_bytes() == before
    # what such a command has written is replaced
    capdec(*args, '--out', 'new.json', ok=True)
    capdec(*args, '--out', 'new.json', ok=True)

def test_nor_from_python(here):
    with pytest.raises(ValueError, match='a.jpg: is there already and is no JSON'):
        write_captions([dict(image_id=1, caption='A dog.', id=1)], here/'a.jpg')
    assert Image.open(here/'a.jpg').size == (40, 30)

def test_a_circle_of_links(here):
    os.symlink('loop', 'loop')
    capdec('parse', 's.txt', '--out', 'loop', ok=True)
    assert 'A dog runs' in (here/'loop').read_text()

def test_somebody_elses_page(here):
    (here/'web').mkdir()
    (here/'web'/'index.html').write_text('<title>mine</title>')
    assert 'no page of the demo' in one_line(capdec('demo', '--quick', '--out', 'web', ok=False))[0]
    assert 'a.jpg: is a file; name a folder' in one_line(capdec('demo', '--quick', '--out', 'a.jpg', ok=False))[0]
    assert (here/'web'/'index.html').read_text() == '<title>mine</title>'
    capdec('demo', '--quick', '--out', 'own', ok=True)
    capdec('demo', '--quick', '--out', 'own', ok=True)

def test_somebody_elses_picture(here):
    args = ['evaluate', 'p.json', '--references', 'p.json', '--metrics', 'cider', '--clip_model_type', 'none',
        '--images', 'a.jpg', 'b.jpg', '--gallery']
    Image.new('RGB', (9, 9)).save('mine.png')
    for name, why in (('a.jpg', 'is a PNG file'), ('mine.png', 'did not draw it')):
        before = (here/name).read_bytes()
        assert why in one_line(capdec(*args, name, ok=False))[0] and (here/name).read_bytes() == before
    capdec(*args, 'g.png', ok=True)
    check_gallery('g.png')
    capdec(*args, 'g.png', ok=True)

def test_a_folder_that_is_called_like_a_flag(here):
    "Is no flag in what is said of it"
    (here/'out').mkdir()
    assert one_line(capdec('caption', 'a.jpg', '--model', 'out', ok=False))[0].startswith('capdec: error: out')
    assert one_line(capdec('parse', 'data', ok=False))[0].startswith('capdec: error: data')
