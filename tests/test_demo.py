"The demo: page, contact sheet, the experiment in small."
import numpy as np
from PIL import Image
from skimage import data as photos

from capdec.core import open_image
from test_cli import capdec

def test_quick_demo_with_own_photos(tmp_path):
    Image.fromarray(photos.coffee()).save(tmp_path/'my photo.jpg')
    (tmp_path/'broken.jpg').write_text('no photo')
    r = capdec('demo', '--quick', '--out', tmp_path/'page', '--photos', f"'{tmp_path}/my photo.jpg' {tmp_path}/broken.jpg")
    assert r.returncode == 0 and 'skipped' in r.stdout and 'my photo.jpg' in r.stdout
    page = (tmp_path/'page'/'index.html').read_text()
    assert page.count('<figure>') >= 7 and 'src="http' not in page and '<script' not in page
    assert open_image(tmp_path/'page'/'contact_sheet.png').width > 800

def test_experiment_in_small():
    from capdec.demo import corpus, experiment
    e = experiment(steps=10, seeds=1, sentences=corpus()[:300], show=False)
    assert len(e['runs']) == 2 and {r['variance'] > 0 for r in e['runs']} == {True, False}
    for r in e['runs']: assert len(r['captions']) == len(r['ranks']) == e['photos'] == 500
    hits = {v: np.mean([np.mean(np.array(r['ranks']) < 1) for r in e['runs'] if (r['variance'] > 0) == v]) for v in (True, False)}
    assert abs(e['gain'] - (hits[True] - hits[False])) < 1e-9 and e['low'] <= e['gain'] <= e['high']

def test_corpus_is_varied():
    from collections import Counter
    from capdec.demo import corpus
    s = corpus()
    assert len(set(s)) >= 5000
    for n in (3, 5): assert Counter(tuple(o.lower().split()[:n]) for o in s).most_common(1)[0][1] <= .02*len(s)
    masked = Counter(' '.join('x' if len(w) > 3 else w for w in o.lower().strip('.').split()) for o in s)
    assert masked.most_common(1)[0][1] <= .02*len(s) # not one template with other words filled in
