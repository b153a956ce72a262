"The demo: page, contact sheet, the experiment in small."
import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data as photos

from capdec.core import open_image
from shell import capdec

def test_quick_demo_with_own_photos(tmp_path):
    Image.fromarray(photos.coffee()).save(tmp_path/'my photo.jpg')
    (tmp_path/'broken.jpg').write_text('no photo')
    r = capdec('demo', '--quick', '--out', tmp_path/'page', '--photos',
        f"'{tmp_path}/my photo.jpg' {tmp_path}/broken.jpg")
    assert r.returncode == 0 and 'skipped' in r.stdout and 'my photo.jpg' in r.stdout
    page = (tmp_path/'page'/'index.html').read_text()
    assert page.count('<figure>') >= 7 and 'src="http' not in page and '<script' not in page
    assert open_image(tmp_path/'page'/'contact_sheet.png').width > 800

def test_experiment_in_small():
    from capdec.demo import corpus, experiment
    more = torch.nn.functional.normalize(torch.randn(3, 512), dim=1)
    e = experiment(steps=10, seeds=1, sentences=corpus()[:300], workers=1, show=False, more=more)
    assert len(e['runs']) == 2 and {r['variance'] > 0 for r in e['runs']} == {True, False}
    for r in e['runs']:
        assert len(r['captions']) == len(r['cider']) == e['photos'] == 500 and 0 <= r['found'] < .5
        assert len(r['shown']) == 3 and not set(map(type, r['shown'])) - {str}
    score = {v: np.mean([np.mean(r['cider']) for r in e['runs'] if (r['variance'] > 0) == v]) for v in (True, False)}
    assert abs(e['gain'] - (score[True] - score[False])) < 1e-9 and e['low'] <= e['gain'] <= e['high']
    with pytest.raises(ValueError, match="size 'big': use short or full"):
        experiment('big')

def test_six_photos_side_by_side(tmp_path):
    "Your own first, then those that come along and have right captions; the others are labelled"
    from capdec.core import everyday_photos
    from capdec.demo import _side_by_side, _six, write_page
    items = [(p.name, open_image(p), 'A caption.') for o in (True, False) for p in everyday_photos(o)]
    assert _six(8, 6, 8) == [0, 1, 2, 3, 4, 5] and _six(9, 6, 8) == [8, 0, 1, 2, 3, 4] and len(_six(99, 6, 8)) == 6
    # two of your own, named as ones that come along
    items += [('car.jpg', items[0][1], 'Mine.'), ('pencils.jpg', items[0][1], 'Mine.')]
    six = _six(len(items), 6, 8)
    names = [items[i][0] for i in six]
    assert names == ['car.jpg', 'pencils.jpg', *[p.name for p in everyday_photos()[:4]]]
    run = dict(cider=[.1], words=.5, inverted=.1, found=.1, seconds=1, seed=0)
    e = dict(size='short', steps=1, sentences=2, corpus=2, photos=1, noisy=1., clean=1., gain=0., low=0., high=0.,
        side_by_side=six, runs=[run | dict(variance=0., shown=[f'clean {i} {o}' for i, o in enumerate(names)]),
            run | dict(variance=.003, shown=[f'noisy {i} {o}' for i, o in enumerate(names)])])
    page = write_page(tmp_path, items, e, range(6, 8))[0].read_text()
    # only those that come along
    assert page.count('wrong, outside its world') == 2
    for i, o in enumerate(names):
        assert page.index('without noise') < page.index(f'clean {i} {o}') < page.index(f'noisy {i} {o}')
    pairs = _side_by_side(e, [dict(name=n, caption=t) for n, _, t in items])
    assert [o['caption'] for o in pairs[:3]] == ['Mine.', 'Mine.', 'A caption.']

def test_two_descriptions_of_each_photo(): # that they belong to it, lesson 10a shows
    from capdec.demo import held_out_descriptions, held_out_vectors
    told = held_out_descriptions()
    assert len(told) == len(held_out_vectors()) and all(len(o) == 2
        and all(4 <= len(t.split()) <= 20 and t.endswith('.') for t in o) for o in told)

def test_descriptions_are_not_the_data_sets(shared):
    from capdec.data import read_karpathy
    from capdec.demo import held_out_descriptions
    known = {r['caption'].lower().strip(' .') for r in read_karpathy(
        shared/'data'/'karpathy'/'dataset_flickr8k.json.gz')}
    same = [t for o in held_out_descriptions() for t in o if t.lower().strip(' .') in known]
    # a plain sentence may be written twice
    assert len(same) <= 3, same

def test_corpus_is_varied():
    from collections import Counter
    from capdec.demo import corpus
    s = corpus()
    assert len(set(s)) >= 5000
    # people's commonest opening of three words is in 3.3 % of their captions, the captioner's in twice as many
    for n, most in ((3, .08), (5, .02)):
        assert Counter(tuple(o.lower().split()[:n]) for o in s).most_common(1)[0][1] <= most*len(s)
    masked = Counter(' '.join('x' if len(w) > 3 else w for w in o.lower().strip('.').split()) for o in s)
    # not one template with other words filled in
    assert masked.most_common(1)[0][1] <= .02*len(s)
