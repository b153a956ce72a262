"Several ways across the gap, several captions, and what chooses among them"
import json

import pytest
import torch
from PIL import ImageOps

from capdec.bridges import Bridge
from capdec.candidates import candidates, captions_of, pool_notes, rarity_of
from capdec.captioner import Captioner, load_captioner
from capdec.choosing import choose
from capdec.config import Candidates, Crossing
from capdec.core import demo_photos, open_image
from capdec.decoding import generate
from capdec.folder import photo_vectors
from capdec.noise import normalize
from shell import capdec, one_line

WAYS = ['offset', 'offset+memory']

@pytest.fixture(scope='module')
def mini():
    return Captioner.from_pretrained('mini', device='cpu')

@pytest.fixture(scope='module')
def vectors(mini):
    return photo_vectors(mini, demo_photos()[:4])

def test_a_vote_is_its_steps_by_hand(mini, vectors):
    "Beams of both ways, the thirty nearest captions, the best of all"
    got = mini(demo_photos()[:4], choose='vote', ways=WAYS, num_captions=3)
    beams = [generate(mini.model, mini.bridge.using(o)(vectors), num_captions=5, normalize=False) for o in WAYS]
    for i, texts in enumerate(got):
        pool = [*beams[0][i], *beams[1][i]]
        near = [s for s, _ in mini.bridge.nearest(vectors[i:i+1], 30)[0]]
        assert texts == [o.text for o in choose(pool, rarity_of(mini), retrieved=near)[:3]]
        assert len(set(texts)) == 3

def test_two_views_are_the_mean_of_both(mini):
    photo = demo_photos()[0]
    x = [normalize(mini.encoder.encode_image([o], show=False)) for o in (photo, ImageOps.mirror(open_image(photo)))]
    assert torch.allclose(photo_vectors(mini, [photo], views=2), normalize(x[0] + x[1]), atol=1e-5)
    want = generate(mini.model, mini.bridge(normalize(x[0] + x[1])), normalize=False, texts=True)
    assert mini(photo, views=2) == want[0]

def test_a_captioner_keeps_its_candidates(mini, tmp_path):
    "Saved, loaded and asked for otherwise"
    own = Captioner(mini.model, mini.encoder, mini.bridge, Candidates('vote', WAYS, 2))
    own.save(tmp_path/'c')
    back = Captioner.from_pretrained(tmp_path/'c', device='cpu')
    assert back.pool == own.pool
    photo = demo_photos()[1]
    assert back(photo) == own(photo) == mini(photo, choose='vote', ways=WAYS, views=2)
    assert back(photo, choose='beam', views=1) == mini(photo)
    # another captioner in the same folder leaves nothing behind
    mini.save(tmp_path/'c')
    assert Captioner.from_pretrained(tmp_path/'c', device='cpu').pool == mini.pool
    notes = json.loads((tmp_path/'c'/'captioner.json').read_text())
    (tmp_path/'c'/'captioner.json').write_text(json.dumps(notes | dict(choose='luck')))
    with pytest.raises(ValueError, match='no reason to choose'):
        Captioner.from_pretrained(tmp_path/'c', device='cpu')(photo)
    (tmp_path/'c'/'captioner.json').write_text(json.dumps(notes | dict(views=7)))
    with pytest.raises(ValueError, match='captioner.json: views 7'):
        Captioner.from_pretrained(tmp_path/'c', device='cpu')

def test_neighbours_and_order_do_not_matter(mini, vectors):
    pool = mini.pool
    mini.pool = Candidates('vote', WAYS)
    try:
        alone = [captions_of(mini, v[None])[0][0].text for v in vectors]
        assert [o[0].text for o in captions_of(mini, vectors)] == alone
        assert [o[0].text for o in captions_of(mini, vectors.flip(0))] == alone[::-1]
    finally:
        mini.pool = pool

def test_sampled_candidates_depend_on_seed_and_photo_alone(mini):
    how = dict(choose='vote', ways=WAYS, method='sample', seed=3)
    first = mini(demo_photos()[:3], **how)
    assert mini(demo_photos()[2::-1], **how) == first[::-1]
    assert mini(demo_photos()[0], **how) == first[0]

def test_what_cannot_choose_says_so(mini, tmp_path):
    bare = Captioner(mini.model, mini.encoder, Bridge('none'))
    photo = demo_photos()[0]
    with pytest.raises(ValueError, match='has no memory'):
        bare(photo, choose='vote')
    assert isinstance(bare(photo, choose='logprob'), str)
    for args, says in (([photo, '--ways', 'offset', 'memory'], 'nothing chooses among them'),
            ([photo, '--choose', 'luck'], '--choose'), ([photo, '--views', 5], '--views 5'),
            ([photo, '--choose', 'vote', '--ways', 'rope'], "'rope' is no way"),
            ([photo, '--bridge', 'offset', '--memory', tmp_path/'m.txt'], 'needs no memory'),
            ([photo, '--bridge', 'whiten'], '--moments'), ([photo, '--moments', tmp_path/'none.safetensors'], 'none')):
        (tmp_path/'m.txt').write_text('A dog runs.\n')
        r = capdec('caption', *args, '--device', 'cpu', ok=False)
        assert says in one_line(r)[0], (args, r.stderr)

def test_memory_and_bridge_mix(tmp_path, mini):
    "What --memory holds is used in the way that --bridge says"
    (tmp_path/'m.txt').write_text('\n'.join(f'A {o} on a table.' for o in ('cup', 'cat', 'pizza', 'book')) + '\n')
    c = load_captioner('mini', device='cpu', crossing=Crossing('offset+memory:0.3', tmp_path/'m.txt'))
    x = photo_vectors(mini, demo_photos()[:2])
    want = normalize(.7*normalize(c.bridge.using('offset')(x)) + .3*normalize(c.bridge.using('memory')(x)))
    assert torch.allclose(c.bridge(x), want, atol=1e-6) and len(c.bridge.sentences) == 4

def test_a_run_goes_on_with_the_same_choice_alone(tmp_path):
    "A table of the best beams is not continued by votes"
    photos = demo_photos()[:3]
    args = ('caption', *photos, '--out', tmp_path/'t.jsonl', '--device', 'cpu')
    capdec(*args, '--choose', 'vote', '--ways', *WAYS, '--limit', 2, ok=True)
    assert '--choose' in (said := one_line(capdec(*args, ok=False))[0]) or 'other' in said
    capdec(*args, '--choose', 'vote', '--ways', *WAYS, ok=True)
    rows = [json.loads(l) for l in (tmp_path/'t.jsonl').read_text().splitlines()]
    want = Captioner.from_pretrained('mini', device='cpu')(photos, choose='vote', ways=WAYS)
    assert [r['caption'] for r in rows] == want

def test_sidecars_know_how_they_were_chosen(tmp_path):
    import shutil
    shutil.copy(demo_photos()[0], tmp_path/'a.jpg')
    capdec('caption', tmp_path, '--sidecar', '--choose', 'vote', '--ways', *WAYS, '--device', 'cpu', ok=True)
    told = capdec('made_by', tmp_path/'a.txt', ok=True).stdout
    assert 'vote' in told and 'offset+memory' in told

def test_predict_votes_as_the_captioner_does(tmp_path, mini):
    photos = demo_photos()[:3]
    capdec('predict', '--checkpoint', 'mini', '--images', *photos, '--choose', 'vote', '--ways', *WAYS,
        '--out', tmp_path/'p.json', '--device', 'cpu', ok=True)
    got = [r['caption'] for r in json.loads((tmp_path/'p.json').read_text())]
    assert got == [o.lower() for o in mini(photos, choose='vote', ways=WAYS)]

def test_notes_are_empty_for_the_usual(mini):
    "So that runs of older versions go on"
    for pool in (Candidates(), Candidates('beam', (), 1)):
        assert pool_notes(Captioner(mini.model, mini.encoder, mini.bridge, pool)) == {}

def test_more_ways_more_candidates(mini, vectors):
    assert [len(o) for o in candidates(mini, vectors, ['none', *WAYS], 2)] == [6]*4
    assert candidates(mini, vectors[:0], WAYS) == []
