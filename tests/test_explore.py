"The explorer without a browser: what its controls do, and what it says of bad input."
import io
import re
from dataclasses import replace
from datetime import datetime

import pytest
import torch
from PIL import Image
from skimage import data as photos

from capdec.captioner import Captioner
from capdec.core import demo_photos
from capdec.decoding import generate
from capdec.explore import VARIANCES, Explorer, ExplorerApp, View, explore, moved
import tellers

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
    assert app.view == View(demo_photos()[0].name, 'mini', 'none', choose='beam')
    assert plain(app.caption).startswith(mini(demo_photos()[0]))
    app.variance.value = .004
    x = mini.embed([demo_photos()[0]])
    for seed in (0, 1):
        told = [o for o, _ in mini.explain(demo_photos()[0]).told]
        expected = generate(mini.model, moved(x, .004, 5, seed), normalize=False, texts=True, hints=[told]*5)
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
    assert shown() == [True]*4 and app.error.value == '' and app.bridge.value == 'none'

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

@pytest.fixture(scope='module')
def teller():
    return tellers.teller(.1)

def chips(app):
    "The words below the caption, and whether they are told"
    told = [(o.description.strip('+\N{MULTIPLICATION SIGN} '), o.description[0] != '+') for o in app.chips.children]
    return dict(told)

def press(app, word):
    next(o for o in app.chips.children if word in o.description).click()

def test_words_are_shown_and_taken_away(teller, deaf):
    app = ExplorerApp(Explorer({'teller': teller, 'deaf': deaf[0]}, demo_photos()[1:3]))
    cat = demo_photos()[1]
    sure = [o for o, _ in teller.bridge.told(torch.nn.functional.normalize(
        teller.encoder.encode_image([cat], show=False), dim=-1))[0]]
    assert sure and chips(app) == dict.fromkeys(sure, True) and app.telling.layout.display == ''
    assert plain(app.caption).startswith(teller(cat))
    # taken away, and brought back
    press(app, sure[0])
    assert chips(app)[sure[0]] is False
    assert plain(app.caption).startswith(teller(cat, concepts=sure[1:]))
    press(app, sure[0])
    assert chips(app)[sure[0]] is True and app.view.words == (*sure[1:], sure[0])
    # one of one's own; what is typed is shown, not obeyed
    app.word.value = 'tractor, <b>sun</b>'
    assert app.word.value == '' and chips(app)['tractor'] and '<b>sun</b>' in chips(app)
    assert plain(app.caption).startswith(teller(cat, concepts=[*sure[1:], sure[0], 'tractor', '<b>sun</b>']))
    press(app, 'tractor')
    assert chips(app)['tractor'] is False and app.error.value == ''
    # another photo is asked again, and a captioner that takes no words shows none
    app.photo.value = demo_photos()[2].name
    assert app.view.words is None and 'tractor' not in chips(app)
    assert plain(app.caption).startswith(teller(demo_photos()[2]))
    app.captioner.value = 'deaf'
    assert app.telling.layout.display == 'none' and not app.chips.children and plain(app.caption).startswith(
        deaf[0](demo_photos()[2]))
    app.captioner.value = 'teller'
    assert app.telling.layout.display == '' and chips(app)

def test_what_chooses(app, mini):
    photo = demo_photos()[0]
    assert app.choose.options == ('beam', 'vote', 'cosine') and app.choose.value == 'beam'
    for how in ('vote', 'cosine'):
        app.choose.value = how
        expected = mini(photo, 5, choose=how)
        assert plain(app.caption).startswith(expected[0]) and f'Chosen by {how}' in plain(app.caption)
        assert re.findall('<li>(.*?)</li>', app.caption.value) == expected[1:]
    # moved, the best of each direction is shown
    app.variance.value = .004
    assert len(re.findall('<li>', app.caption.value)) == 4 and app.error.value == ''

def test_the_choice_of_the_captioner_itself_comes_first(mini):
    from capdec.config import Candidates
    voting = Captioner(mini.model, mini.encoder, mini.bridge, Candidates('vote:1,cosine:2'))
    app = ExplorerApp(Explorer({'voting': voting}, demo_photos()[:1]))
    assert app.choose.value == 'vote:1,cosine:2' and plain(app.caption).startswith(voting(demo_photos()[0]))

def test_the_judge_of_the_captioner_is_asked(mini, other_encoder):
    "The captioner's saved judge looks at each photo once, and at none where nothing asks for the cosine"
    from capdec.candidates import judge_of
    from capdec.config import Candidates
    c = Captioner.from_pretrained('mini', 'cpu', clip_model_type=str(other_encoder))
    judged = Captioner(c.model, c.encoder, c.bridge, Candidates('cosine', judge='mini@2'))
    e, judge, looked = Explorer({'judged': judged, 'own': c}), judge_of(judged), []
    encode = judge.encode_image
    judge.encode_image = lambda *a, **k: looked.append(1) or encode(*a, **k)
    try:
        views = [View(o, 'judged') for o in list(e.photos)[:4]]
        assert [e.captions(replace(o, choose='vote'))[0] for o in views[:1]] and not looked
        found = [e.captions(o)[0] for o in views]
        moving = [e.captions(replace(o, variance=.001)) for o in views]
        assert len(looked) == 4 and all(len(o) == 5 for o in moving)
    finally:
        del judge.encode_image
    assert found == [judged(e.photos[o.photo]) for o in views]
    assert found != [e.captions(View(o.photo, 'own', choose='cosine'))[0] for o in views]

def test_the_legend_names_what_is_drawn(mini):
    "Without noise nothing is moved"
    explorer = Explorer({'mini': mini}, demo_photos()[:1])
    still, far = (explorer.draw_map(replace(explorer.first(), variance=v)) for v in (0., .01))
    assert 'moved by noise' in far and 'moved by noise' not in still and 'the caption' in still

def test_the_nearest_of_a_large_memory(mini):
    "All are searched, however many are drawn; what is kept for a captioner is not kept for an encoder"
    from capdec.bridges import Bridge
    from capdec.index import Mapped
    n, photo = 150_000, demo_photos()[1]
    x = mini.encoder.encode_image([photo], show=False)
    far = torch.nn.functional.normalize(torch.randn(512, generator=torch.Generator().manual_seed(0)), dim=0)
    def read(rows):
        rows = torch.arange(n)[rows]
        # the odd ones come near the photo, one nearer than the other; at an even distance they are left out
        near = torch.where((rows % 2 == 1) & (rows < 20), 1 - rows/40, 0.)[:, None]
        return near*x/x.norm() + (1-near)*far
    memory, sentences = Mapped(read, n, 512), [str(i) for i in range(n)]
    name = mini.encoder.name
    large = Captioner(mini.model, mini.encoder, Bridge('none', memory=memory, sentences=sentences))
    e = Explorer({name: large, 'bare': Captioner(mini.model, mini.encoder)}, [photo])
    view = View(photo.name, name)
    found = e.nearest(view)
    assert [s for s, _ in found] == [s for s, _ in large.nearest(photo)] == ['1', '3', '5', '7', '9']
    assert len(e.corpus(view)[0]) == len(e.corpus(view)[1]) <= 100_000
    assert torch.allclose(e.places(view)['nearest'], memory[torch.arange(1, 11, 2)]@e.clouds(view)['axes'], atol=1e-5)
    # `name` is that of a captioner and of an encoder
    bare = replace(view, captioner='bare')
    assert e.corpus(bare)[0] == mini.bridge.sentences[:2000] and len(e.nearest(bare, 3)) == 3
    assert {s for s, _ in e.nearest(bare, 3)} <= set(e.corpus(bare)[0])

def test_words_that_it_was_not_sure_of_are_underlined(mini):
    from capdec.explain import word_probabilities
    # of all photos one has a word that it is not sure of
    captions = mini(demo_photos(), scores=True)
    low_of = lambda o: [w for w, p in word_probabilities(mini.model, o) if p < .2 and w.isalpha()]
    name, caption = next((p.name, o) for p, o in zip(demo_photos(), captions) if low_of(o))
    app = ExplorerApp(Explorer({'mini': mini}, demo_photos()))
    app.photo.value = name
    low = [w for w, p in word_probabilities(mini.model, caption) if p < .2 and w.isalpha()]
    shown = re.findall(r'capdec-unsure" title="sure to [\d]+%">(.*?)</span>', app.caption.value)
    assert low and shown == low and 'Underlined: words' in plain(app.caption)
