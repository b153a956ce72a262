"Weights of choosing: one half chooses, the other reports, and the captioner that is saved chooses so"
import json

import numpy as np
import pytest

from capdec.candidates import candidates, told_words
from capdec.captioner import Captioner
from capdec.choosing import parse_choice
from capdec.config import Candidates
from capdec.core import demo_photos
from capdec.folder import photo_vectors
from capdec.studies import tuning
from capdec.studies.tuning import JUDGES, Judged, best_weights, choice_of, chosen_score, simplex
import tellers

WORDS = [['A woman in a space suit smiles.', 'An astronaut by a flag.'], ['A cat looks up.', 'A picture of a cat.'],
    ['A cup of coffee on a table.', 'A cup with a spoon.'], ['A rocket on its pad.', 'A rocket under the sky.'],
    ['A motorcycle in a garage.', 'A red motorcycle.'], ['A man with a camera.', 'A man in a coat on grass.']]

def random_judged(seed=0, photos=12, n=7):
    g = np.random.default_rng(seed)
    said = [g.normal(size=(4, n)).astype(np.float32) for _ in range(photos)]
    return Judged(list(range(photos)), [[str(i) for i in range(n)]]*photos, said, [g.random(n) for _ in range(photos)])

@pytest.fixture(scope='module')
def dev(tmp_path_factory):
    "Six photos with two captions each"
    d = tmp_path_factory.mktemp('dev')
    (d/'photos').mkdir()
    rows = []
    for i, (p, captions) in enumerate(zip(demo_photos(), WORDS)):
        (d/'photos'/p.name).write_bytes(p.read_bytes())
        rows += [dict(image_id=i, id=10*i+k, caption=c, filename=p.name) for k, c in enumerate(captions)]
    (d/'dev.json').write_text(json.dumps(rows))
    return d

def tune(dev, *args):
    return tuning._main([str(dev/'dev.json'), '--split', 'all', '--steps', '4', '--device', 'cpu', '--dtype', 'float32',
        *map(str, args)])

def test_no_weights_are_better():
    "Against trying them all in a plain loop"
    for seed in range(5):
        judged = random_judged(seed)
        w, score = best_weights(judged, 5)
        tries = [(a, b, c, 5-a-b-c) for a in range(6) for b in range(6-a) for c in range(6-a-b)]
        assert len(simplex(4, 5)) == len(tries)
        means = []
        for o in tries:
            merits = [np.tensordot(np.array(o)/5, s, 1) for s in judged.said]
            means.append(np.mean([c[m.argmax()] for c, m in zip(judged.cider, merits)]))
        assert score == pytest.approx(max(means)) and chosen_score(judged, w) == score

def test_every_choice_is_read_back():
    for w in simplex(4, 4):
        assert list(parse_choice(choice_of(JUDGES, w)).weights().values()) == pytest.approx(list(w))
    assert choice_of(('logprob', 'cosine'), (.3, .7)) == 'logprob:0.3+cosine:0.7'

def test_the_command_saves_what_it_chose(dev, tmp_path, capsys):
    how = ('--image_dir', dev/'photos', '--ways', 'offset', 'offset+memory', '--samples', 2)
    assert tune(dev, '--out', tmp_path/'a', *how) == 0
    said = capsys.readouterr().out
    report = json.loads((tmp_path/'a'/'tuning.json').read_text())
    c = Captioner.from_pretrained(tmp_path/'a', 'cpu', dtype='float32')
    assert (c.pool.choose, c.pool.ways, c.pool.samples) == (report['choose'], ['offset', 'offset+memory'], 2)
    assert report['choose'] in said and report['saw'] in said
    # who chose is named, and nobody does both
    assert sorted(report['chose'] + report['reported']) == list(range(6)) and len(report['chose']) == 3
    # the score on either half is that of the captions the captioner now gives
    from capdec.choosing import Rarity, agreement
    photos = {i: dev/'photos'/p.name for i, p in enumerate(demo_photos()[:6])}
    for side in ('chose', 'reported'):
        refs = [WORDS[i] for i in report[side]]
        rare = Rarity.count(refs)
        got = c([photos[i] for i in report[side]])
        want = np.mean([agreement([o], r, rare).mean() for o, r in zip(got, refs)])
        assert report['scores']['chosen weights'][side] == pytest.approx(want, abs=1e-5)
    # the same again, and from a store of vectors
    assert tune(dev, '--out', tmp_path/'b', *how) == 0
    again = json.loads((tmp_path/'b'/'tuning.json').read_text())
    assert again == report
    assert tune(dev, '--out', tmp_path/'c', '--embeddings', tmp_path/'b'/'tuning.vectors', *how[2:]) == 0
    assert json.loads((tmp_path/'c'/'tuning.json').read_text()) == report
    # another seed deals otherwise
    assert tune(dev, '--out', tmp_path/'d', '--seed', 2, *how) == 0
    assert json.loads((tmp_path/'d'/'tuning.json').read_text())['chose'] != report['chose']

@pytest.mark.parametrize('args,said', [([], 'give either --image_dir'),
    (['--image_dir', 'x', '--embeddings', 'y'], 'give either --image_dir'),
    (['--image_dir', 'x', '--judges', 'luck'], '--judges luck'), (['--image_dir', 'x', '--steps', '0'], '--steps 0'),
    (['--image_dir', 'x', '--samples', '-1'], '--samples -1'), (['--image_dir', 'x', '--limit', '-3'], '--limit -3'),
    (['--embeddings', 'none.store'], 'none.store')])
def test_what_is_typed_wrong_is_one_line(dev, tmp_path, capsys, args, said):
    assert tune(dev, '--out', tmp_path/'o', *args) == 1
    line, = capsys.readouterr().err.splitlines()
    assert said in line

def test_too_few_photos(dev, tmp_path, capsys):
    assert tune(dev, '--out', tmp_path/'o', '--image_dir', dev/'photos', '--limit', 3) == 1
    assert '3 photos: a half that chooses' in capsys.readouterr().err
    assert not (tmp_path/'o'/'captioner.json').exists()

def test_candidates_are_told_what_the_captioner_will_be_told():
    "Weights that were chosen without the words would choose among other candidates"
    c = tellers.teller()
    c.pool = Candidates('logprob', ['offset', 'none'])
    x = photo_vectors(c, demo_photos()[:2])
    words = told_words(c, x)['hints']
    assert any(words)
    known = tuning.judge(c, [0, 1], x, ('logprob',))
    expected = candidates(c, x, c.pool.ways, hints=words)
    assert known.texts == [[o.text for o in photo] for photo in expected]
    assert known.texts != [[o.text for o in photo] for photo in candidates(c, x, c.pool.ways)]
