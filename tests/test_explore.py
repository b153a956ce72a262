"The explorer without a browser: what its controls do, and what it says of bad input."
import io
import re
from datetime import datetime

import pytest
import torch
from PIL import Image
from skimage import data as photos

from capdec.captioner import Captioner
from capdec.core import demo_photos
from capdec.decoding import generate
from capdec.explore import VARIANCES, Explorer, ExplorerApp, View, explore, moved

@pytest.fixture(scope='module')
def mini():
    return Captioner.from_pretrained('mini', 'cpu')

@pytest.fixture
def app(mini):
    return ExplorerApp(Explorer({'mini': mini}, demo_photos()[:2]))

def plain(widget):
    return ' '.join(re.sub('<style>.*?</style>|<[^>]+>', '', widget.value, flags=re.S).split())

def png(im):
    buf = io.BytesIO()
    Image.fromarray(im).save(buf, 'png')
    return buf.getvalue()

def upload(app, **files):
    app.upload.value = tuple(dict(name=k.replace('_', '.'), type='image/png', size=len(v), content=memoryview(v),
        last_modified=datetime(2026, 1, 1)) for k, v in files.items())

@pytest.mark.parametrize('seed', range(3))
@pytest.mark.parametrize('n,d', [(1, 7), (5, 512)])
def test_moving_goes_straight_on(n, d, seed):
    x = torch.randn(1, d, generator=torch.Generator().manual_seed(seed))*3
    assert torch.equal(moved(x, 0., n, seed), x.expand(n, -1))
    steps = [moved(x, v, n, seed) for v in VARIANCES]
    for o in steps:
        assert torch.allclose(o.norm(dim=1), x.norm(), atol=1e-4)
    planes = torch.stack(steps, 1) # (n, variances, d): a vector and one direction span a plane
    assert torch.linalg.svdvals(planes)[:, 2:].max() < 1e-3*x.norm()
    cos = torch.cosine_similarity(planes, x[None], dim=2)
    # ever farther away
    assert (cos.diff(dim=1) < 1e-6).all()

def test_the_slider_and_the_buttons(app, mini):
    assert app.view == View(demo_photos()[0].name, 'mini',
        'offset') and plain(app.caption).startswith(mini(demo_photos()[0]))
    app.variance.value = .004
    x = mini.embed([demo_photos()[0]])
    for seed in (0, 1):
        expected = generate(mini.model, moved(x, .004, 5, seed), normalize=False, texts=True)
        shown = re.findall(r'capdec-caption">(.*?)</div>|<li>(.*?)</li>', app.caption.value)
        assert [re.sub('<[^>]+>', '', a or b) for a, b in shown] == expected
        app.again.click()
    app.beam.value, app.bridge.value, app.variance.value = 1, 'none', 0.
    assert plain(app.caption).startswith(Captioner(mini.model, mini.encoder)(demo_photos()[0], beam_size=1))
    assert app.error.value == ''

def test_one_bad_upload_does_not_lose_the_good_one(app, mini):
    upload(app, notes_jpg=b'my notes', empty_png=b'', cup_png=png(photos.coffee()))
    assert app.photo.value == 'cup.png' and plain(app.caption).startswith(mini(photos.coffee()))
    assert plain(app.error) == 'notes.jpg: not an image that can be read; empty.png: not an image that can be read'
    # nothing good in it: what is shown stays
    upload(app, again_png=b'no')
    assert app.photo.value == 'cup.png' and plain(app.error).startswith('again.png: '
        '') and 'again.png' not in app.photo.options
    app.variance.value = .0001
    assert app.error.value == ''

def test_names_are_shown_not_obeyed(app):
    upload(app, **{'<b>x_png': png(photos.coffee())})
    assert app.photo.value == '<b>x.png' and '<b>x' not in app.picture.value + app.map.value

def test_a_captioner_that_is_none(app, mini, tmp_path):
    app.other.value = str(tmp_path/'nothing')
    assert app.error.value.count('capdec-error') == 1 and 'nothing' in plain(app.error) and app.captioner.options == (
        'mini',)
    mini.save(tmp_path/'mine')
    app.other.value = str(tmp_path/'mine')
    assert app.captioner.value == str(tmp_path/'mine') and app.error.value == '' and plain(app.caption).startswith(
        mini(demo_photos()[0])[:5])

def test_a_captioner_that_is_gone_leaves_nothing_of_the_former(mini, tmp_path):
    app = ExplorerApp(Explorer({'mini': mini, 'gone': tmp_path/'gone'}, demo_photos()[:2]))
    shown = lambda: [bool(o.value) for o in (app.picture, app.caption, app.sentences, app.map)]
    assert shown() == [True]*4
    app.captioner.value = 'gone'
    assert str(tmp_path/'gone') in plain(app.error) and shown() == [False]*4 and app.bridge.options == ()
    # it stays so
    for act in (lambda: setattr(app.variance, 'value', .0001), app.how_far.click):
        act()
        assert str(tmp_path/'gone') in plain(app.error) and shown() == [False]*4 and not app.chart.value
    app.captioner.value = 'mini'
    assert shown() == [True]*4 and app.error.value == '' and app.bridge.value == 'offset'

def test_captioners_by_name_alone(mini, tmp_path):
    assert Explorer(['mini', tmp_path]).captioners == {'mini': 'mini',
        str(tmp_path): tmp_path} and Explorer('mini').captioners == Explorer([]).captioners == {'mini': 'mini'}
    assert explore(['mini'], demo_photos()[:1], 'cpu').captioner.value == 'mini'
    for wrong in (mini, [mini], 3, {'mini'}):
        with pytest.raises(ValueError, match='captioners: a list of folders and hub ids was expected, or a dictionary '
                'of names'):
            Explorer(wrong)

def test_a_photo_that_went_away(mini, tmp_path):
    for n in ('a.png', 'b.png'):
        (tmp_path/n).write_bytes(png(photos.coffee()))
    app = ExplorerApp(Explorer({'mini': mini}, tmp_path))
    (tmp_path/'b.png').unlink()
    app.photo.value = 'b.png'
    assert 'b.png: no such file' in plain(app.error) and app.caption.value == ''
    app.photo.value = 'a.png'
    assert app.error.value == '' and app.caption.value

def test_teaching_a_style(app, monkeypatch):
    app.learn.click()
    assert plain(app.error) == 'no sentences given'
    asked = {}
    # training is tested where it lives
    monkeypatch.setattr(Captioner, 'train_on', lambda self, sentences, **k: asked.update(k, sentences=sentences,
        error=app.error.value) or self)
    app.text.value, app.blur.value = 'A cat.\n\nA dog.', .016
    app.learn.click()
    # the old error is gone before training begins
    assert app.captioner.value == 'my style' and asked['sentences'] == ['A cat.',
        'A dog.'] and asked['noise_variance'] == .016 and app.error.value == asked['error'] == ''
    app.learn.click()
    assert plain(
        app.error) == 'my style: there is a captioner of that name; choose another name' and not app.learn.disabled
