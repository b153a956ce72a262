"Several ways across the gap, several captions, and what chooses among them"
import copy
import json
import shutil
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import ImageOps

from capdec.bridges import Bridge
from capdec.candidates import (candidates, captions_of, evidence, judge_of, judged_by, other_judge, pool_notes,
    rarity_of)
from capdec.captioner import Captioner, load_captioner
from capdec.choosing import agreement, choose, parse_choice
from capdec.config import Candidates, Crossing, Limits
from capdec.core import demo_photos, open_image, package_file
from capdec.decoding import generate
from capdec.embedding import load_encoder
from capdec.folder import NoEncoder, Parts, load_parts, photo_vectors
from capdec.mini import MiniEncoder
from capdec.noise import normalize
from shell import capdec, one_line

pytestmark = pytest.mark.usefixtures('one_encoder')

WAYS = ['offset', 'offset+memory']

@pytest.fixture(scope='module')
def vectors(mini):
    return photo_vectors(mini, demo_photos()[:4])

def words(mini, x):
    "For `generate`: what the decoder is told of each photo, where it takes words"
    return dict(hints=[[w for w, _ in o] for o in mini.bridge.told(x)]) if mini.model.config.hint_tokens else {}

def beams_of(mini, x, way):
    "Five beams for each vector; the first way tells the decoder words, where it takes some"
    told = words(mini, x) if way == WAYS[0] else {}
    return generate(mini.model, mini.bridge.using(way)(x), num_captions=5, normalize=False, **told)

def test_a_vote_is_its_steps_by_hand(mini, vectors):
    "Beams of both ways, the hundred nearest captions, the best of all"
    got = mini(demo_photos()[:4], choose='vote', ways=WAYS, num_captions=3)
    beams = [beams_of(mini, vectors, o) for o in WAYS]
    for i, texts in enumerate(got):
        pool = [*beams[0][i], *beams[1][i]]
        near = [s for s, _ in mini.bridge.nearest(vectors[i:i+1], 100)[0]]
        assert texts == [o.text for o in choose(pool, rarity_of(mini), retrieved=near)[:3]]
        assert len(set(texts)) == 3

def test_two_views_are_the_mean_of_both(mini):
    photo = demo_photos()[0]
    x = [normalize(mini.encoder.encode_image([o], show=False)) for o in (photo, ImageOps.mirror(open_image(photo)))]
    assert torch.allclose(photo_vectors(mini, [photo], views=2), normalize(x[0] + x[1]), atol=1e-5)
    x = normalize(x[0] + x[1])
    want = generate(mini.model, mini.bridge(x), normalize=False, texts=True, **words(mini, x))
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
        assert pool_notes(Captioner(mini.model, mini.encoder, mini.bridge.telling(None), pool)) == {}
        assert set(pool_notes(Captioner(mini.model, mini.encoder, mini.bridge, pool))) <= {'concepts'}

def test_more_ways_more_candidates(mini, vectors):
    assert [len(o) for o in candidates(mini, vectors, ['none', *WAYS], 2)] == [6]*4
    assert candidates(mini, vectors[:0], WAYS) == []


# ---- judges that are standardised, and samples among the candidates

def by_hand(mini, x, ways, weights, samples=0, seed=0):
    "The candidates of each way, three judges by mean and deviation, the highest sum"
    pools = []
    for n, o in enumerate(ways):
        beams = beams_of(mini, x, o)
        if samples:
            lots = torch.rand(len(ways), samples, Limits().max_length, generator=torch.Generator().manual_seed(seed))
            drawn = generate(mini.model, mini.bridge.using(o)(x), 'sample', samples, normalize=False,
                uniform=lots[n].expand(len(x), -1, -1), **({} if n else words(mini, x)))
            beams = [a + b for a, b in zip(beams, drawn)]
        pools.append(beams)
    out = []
    for i in range(len(x)):
        pool = [c for o in pools for c in o[i]]
        texts = [c.text for c in pool]
        votes = agreement(texts, texts, rarity_of(mini))
        judges = dict(vote=(votes.sum(1) - votes.diagonal())/(len(texts)-1), logprob=np.array([c.score for c in pool]),
            cosine=(normalize(mini.encoder.encode_text(texts, show=False))@normalize(x[i:i+1])[0]).numpy())
        total = sum(w*(judges[k] - judges[k].mean())/judges[k].std() for k, w in weights.items())
        out.append(texts[int(np.argmax(total))])
    return out

@pytest.mark.parametrize('samples', [0, 4])
def test_a_mixture_of_judges_is_its_steps_by_hand(mini, vectors, samples):
    weights = dict(vote=.5, cosine=.3, logprob=.2)
    text = '+'.join(f'{k}:{v}' for k, v in weights.items())
    got = mini(demo_photos()[:4], choose=text, ways=WAYS, samples=samples, samples_seed=2)
    assert got == by_hand(mini, vectors, WAYS, weights, samples, 2)

def test_samples_depend_on_the_seed_alone(mini):
    photos = demo_photos()[:5]
    # the unlikeliest of all, which draws bring up
    how = dict(ways=WAYS, samples=4, num_captions=14, choose='logprob:-1')
    first = mini(photos, samples_seed=1, **how)
    for size in (1, 2, 5):
        assert mini(photos, samples_seed=1, batch_size=size, **how) == first
    assert mini(photos[::-1], samples_seed=1, **how) == first[::-1]
    assert mini(photos[2], samples_seed=1, **how) == first[2]
    assert mini(photos, samples_seed=2, **how) != first
    # seed 0 is the one that is not said; the global one does not matter
    torch.manual_seed(5)
    zero = mini(photos, **how)
    torch.manual_seed(6)
    assert mini(photos, samples_seed=0, **how) == zero != first
    # beams are all there, too
    x = photo_vectors(mini, photos[:2])
    texts = lambda **how: [[o.text for o in p] for p in candidates(mini, x, WAYS, 3, **how)]
    assert [p[:3] + p[7:10] for p in texts(samples=4)] == texts()
    assert mini(photos, choose='vote', ways=WAYS, samples=0) == mini(photos, choose='vote', ways=WAYS)

def test_mixture_and_samples_are_kept(mini, tmp_path):
    "Saved, loaded, asked for otherwise, and noted"
    pool = Candidates('vote:0.7+cosine:0.3', WAYS, 1, 3, 9)
    own = Captioner(mini.model, mini.encoder, mini.bridge, pool)
    own.save(tmp_path/'c')
    back, photo = Captioner.from_pretrained(tmp_path/'c', device='cpu'), demo_photos()[1]
    assert back.pool == pool and back(photo) == own(photo)
    assert back(photo) == mini(photo, choose=pool.choose, ways=WAYS, samples=3, samples_seed=9)
    assert back(photo, samples=0) == mini(photo, choose=pool.choose, ways=WAYS)
    assert back(photo, choose='beam') == mini(photo)
    want = dict(choose=pool.choose, ways=WAYS, views=1, samples=3, samples_seed=9)
    assert pool_notes(back) == want | pool_notes(mini)
    notes = json.loads((tmp_path/'c'/'captioner.json').read_text())
    (tmp_path/'c'/'captioner.json').write_text(json.dumps(notes | dict(samples=-2)))
    with pytest.raises(ValueError, match='captioner.json: samples -2'):
        Captioner.from_pretrained(tmp_path/'c', device='cpu')
    # as an earlier version wrote it
    for k in ('samples', 'samples_seed'):
        notes.pop(k)
    (tmp_path/'c'/'captioner.json').write_text(json.dumps(notes))
    assert not Captioner.from_pretrained(tmp_path/'c', device='cpu').pool.samples

def test_a_run_knows_mixture_and_samples(tmp_path):
    import shutil
    shutil.copy(demo_photos()[0], tmp_path/'a.jpg')
    args = ('caption', tmp_path/'a.jpg', '--out', tmp_path/'t.jsonl', '--sidecar', '--device', 'cpu')
    how = ('--choose', 'vote:0.7+cosine:0.3', '--ways', *WAYS, '--samples', 2)
    capdec(*args, *how, '--samples_seed', 4, ok=True)
    told = capdec('made_by', tmp_path/'a.txt', ok=True).stdout
    assert 'vote:0.7+cosine:0.3' in told and 'samples 2' in told and 'samples_seed 4' in told
    for other in (how, how[:-2], (*how[:1], 'vote:0.6+cosine:0.4', *how[2:], '--samples_seed', 4)):
        assert 't.jsonl' in one_line(capdec(*args, *other, ok=False))[0]

@pytest.mark.parametrize('args,said', [(['--choose', 'vote+luck'], "'luck' is no reason to choose"),
    (['--choose', 'vote+cosine,logprob'], 'all by +'), (['--choose', 'vote:x+cosine'], "the weight 'x' of vote"),
    (['--choose', 'vote:0+cosine:0'], 'nothing counts'), (['--choose', 'vote:1e9+cosine'], '-100..100'),
    (['--choose', 'vote', '--samples', -1], '--samples -1'), (['--samples', 3], '--samples 3: are several candidates'),
    (['--choose', 'vote', '--samples', 2, '--samples_seed', -4], '--samples_seed -4')])
def test_a_bad_mixture_is_one_line(args, said):
    assert said in one_line(capdec('caption', demo_photos()[0], *args, '--device', 'cpu', ok=False))[0]


# ---- another encoder as the judge

@pytest.fixture(scope='module')
def shaken(other_encoder):
    "The captioner with other eyes than the bundled encoder, which may then judge"
    return Captioner.from_pretrained('mini', device='cpu', clip_model_type=str(other_encoder))

def judged_by_hand(shaken, photos, ways):
    "The candidate whose vector of the bundled encoder lies nearest to the photo's"
    judge, out = load_encoder('mini', 'cpu'), []
    x, seen = photo_vectors(shaken, photos), normalize(judge.encode_image(photos, show=False))
    for i in range(len(photos)):
        pool = [c.text for o in ways for c in beams_of(shaken, x[i:i+1], o)[0]]
        out.append(pool[int((normalize(judge.encode_text(pool, show=False))@seen[i]).argmax())])
    return out

def test_another_judge_is_its_steps_by_hand(shaken, monkeypatch):
    "One photo or many, in any order and batch; each photo is looked at once"
    photos = demo_photos()[:5]
    want = judged_by_hand(shaken, photos, WAYS)
    how = dict(choose='cosine', ways=WAYS, judge='mini')
    looked = []
    judge = judge_of(shaken, Candidates('cosine', judge='mini'))
    encode = judge.encode_image
    monkeypatch.setattr(judge, 'encode_image', lambda o, *a, **k: looked.append(len(o)) or encode(o, *a, **k),
        raising=False)
    assert shaken(photos, **how) == want and looked == [5]
    assert shaken(photos, batch_size=2, **how) == want and looked == [5, 2, 2, 1]
    assert [shaken(o, **how) for o in photos[:2]] == want[:2]
    assert shaken(photos[::-1], **how) == want[::-1]
    looked.clear()
    # one encoder by two names
    assert shaken(photos[:2], **how | dict(judge='mini@2')) == want[:2] and looked == [2]
    looked.clear()
    own = shaken(photos, choose='cosine', ways=WAYS)
    assert shaken(photos, choose='cosine', ways=WAYS, judge='own') == own != want
    assert shaken(photos, choose='cosine', ways=WAYS, judge='other') == own
    assert shaken(photos[0]) == shaken(photos[0], choose='beam') and not looked

def test_the_own_encoder_by_any_of_its_names_is_no_other(mini, shaken):
    "It looks once; what the name meant in edition 1 is another encoder"
    for name in ('mini', 'mini@2'):
        how = Candidates('cosine', judge=name)
        assert other_judge(mini, how) == '' and judge_of(mini, how) is None and other_judge(shaken, how) == 'mini@2'
    photos = demo_photos()[:2]
    want = mini(photos, choose='cosine', ways=WAYS)
    assert [mini(photos, choose='cosine', ways=WAYS, judge=o) for o in ('mini', 'mini@2', 'own')] == [want]*3
    first = load_parts('mini', 'cpu', encoder=False)._replace(encoder=NoEncoder('mini', mini.encoder.dim))
    assert other_judge(first, Candidates('cosine', judge='mini')) == 'mini@2'

def test_a_photo_that_cannot_be_read_shifts_no_judgement(shaken, tmp_path):
    (tmp_path/'bad.jpg').write_bytes(b'no photo')
    a, b = demo_photos()[:2]
    how = dict(choose='vote:0.5+cosine:0.5', ways=WAYS, judge='mini')
    with pytest.warns(UserWarning, match='cannot be read: 1'):
        got = shaken([a, tmp_path/'bad.jpg', b], **how)
    assert got == [shaken(a, **how), None, shaken(b, **how)]
    assert shaken([a, b], sureness=True, **how)[1].caption == shaken(b, **how)

def test_a_batch_without_a_readable_photo_needs_no_judgement(shaken, other_encoder, tmp_path):
    "The others have their captions, and no photos have none"
    how = dict(choose='cosine', ways=WAYS, judge='mini')
    assert shaken([], **how) == shaken([], choose='cosine', ways=WAYS) == []
    assert shaken([], sureness=True, **how) == []
    for o in demo_photos()[:2]:
        shutil.copy(o, tmp_path)
    good = sorted(tmp_path.iterdir())
    bad = tmp_path/'a.jpg'
    bad.write_bytes(b'no photo')
    files = [bad, *good]
    found = list(shaken.caption_files(files, batch_size=1, **how))
    assert found[0].error and [o.captions for o in found[1:]] == [[shaken(o, **how)] for o in good]
    with pytest.warns(UserWarning, match='cannot be read: 1'):
        assert shaken(files, batch_size=1, **how) == [None, *(o.captions[0] for o in found[1:])]
    with pytest.raises(ValueError, match='a.jpg'):
        shaken([bad], **how)
    args = ('--choose', 'cosine', '--ways', *WAYS, '--judge', 'mini', '--clip_model_type', other_encoder)
    r = capdec('caption', *files, *args, '--batch_size', 1, '--out', tmp_path/'t.jsonl', '--device', 'cpu', ok=False)
    assert one_line(r) == [f'capdec: skipped: {found[0].error}']
    rows = [json.loads(l) for l in (tmp_path/'t.jsonl').read_text().splitlines()]
    assert [r['caption'] for r in rows if 'caption' in r] == [o.captions[0] for o in found[1:]]

def test_a_captioner_keeps_its_judge(shaken, other_encoder, tmp_path):
    "Saved, loaded, asked for otherwise; a file on this machine is no name for others"
    pool, photo = Candidates('cosine', WAYS, judge='mini@2'), demo_photos()[1]
    own = Captioner(shaken.model, shaken.encoder, shaken.bridge, pool)
    own.save(tmp_path/'c')
    load = lambda: Captioner.from_pretrained(tmp_path/'c', device='cpu', clip_model_type=str(other_encoder))
    back = load()
    assert back.pool == pool and back(photo) == own(photo) == judged_by_hand(shaken, [photo], WAYS)[0]
    want = dict(choose='cosine', ways=WAYS, views=1, judge='mini@2')
    assert pool_notes(back) == want | pool_notes(shaken)
    assert back(photo, judge='own') == shaken(photo, choose='cosine', ways=WAYS)
    # who is not asked for is dropped
    assert back(photo, choose='vote') == shaken(photo, choose='vote', ways=WAYS)
    assert back(photo, choose='beam') == shaken(photo)
    notes = json.loads((tmp_path/'c'/'captioner.json').read_text())
    for name in ('/some/file.pt', 'other'):
        (tmp_path/'c'/'captioner.json').write_text(json.dumps(notes | dict(judge=name)))
        with pytest.raises(ValueError, match=f"its judge is '{name}'.*--judge PATH"):
            load()
    own.pool = Candidates('cosine', WAYS, judge=str(other_encoder))
    with pytest.raises(ValueError, match='its judge is'):
        own.save(tmp_path/'d')
    assert not (tmp_path/'d').exists()

def test_a_folder_may_judge(mini, shaken, other_encoder):
    "An encoder of yours, whatever the captioner looks through"
    photos = demo_photos()[:3]
    x, judge = photo_vectors(mini, photos), shaken.encoder
    seen, want = normalize(judge.encode_image(photos, show=False)), []
    for i in range(len(photos)):
        pool = [c.text for o in WAYS for c in beams_of(mini, x[i:i+1], o)[0]]
        want.append(pool[int((normalize(judge.encode_text(pool, show=False))@seen[i]).argmax())])
    assert mini(photos, choose='cosine', ways=WAYS, judge=str(other_encoder)) == want

def test_the_own_encoder_by_its_path_looks_once(mini, shaken, other_encoder, tmp_path, monkeypatch):
    "It is neither loaded nor run again; another one that goes by the same name is another"
    loaded, load = [], load_encoder
    monkeypatch.setattr('capdec.candidates.load_encoder', lambda *a, **k: loaded.append(a[0]) or load(*a, **k))
    photos = demo_photos()[:2]
    how, ships = dict(choose='cosine', ways=WAYS), package_file('models', 'mini', 'encoder')
    monkeypatch.chdir(other_encoder.parent)
    for c, name in ((shaken, other_encoder), (shaken, other_encoder.name), (mini, ships)):
        own = Candidates('cosine', WAYS, judge=str(name))
        assert other_judge(c, own) == '' and judge_of(c, own) is None
        looked = []
        with monkeypatch.context() as m:
            encode = c.encoder.encode_image
            m.setattr(c.encoder, 'encode_image', lambda o, *a, **k: looked.append(len(o)) or encode(o, *a, **k),
                raising=False)
            assert c(photos, judge=str(name), **how) == c(photos, **how) and looked == [2, 2]
        mine = lambda judge='': Captioner(c.model, c.encoder, c.bridge, Candidates('cosine', WAYS, judge=judge))
        assert pool_notes(mine(str(name))) == pool_notes(mine())
    assert not loaded

def test_another_encoder_of_the_same_name_judges(shaken, other_encoder, tmp_path, monkeypatch):
    "What it sees differs, be its sentences' vectors the same"
    namesake = MiniEncoder.load(other_encoder, 'cpu')
    with torch.no_grad():
        namesake.image.head.proj.weight.mul_(-1)
    namesake.save(tmp_path/'other')
    photos, how = demo_photos()[:2], dict(choose='cosine', ways=WAYS)
    monkeypatch.chdir(tmp_path)
    for name in ('other', str(tmp_path/'other')):
        judge = judge_of(shaken, Candidates('cosine', WAYS, judge=name))
        assert judge is not None and judge.place == str(tmp_path/'other')
    assert shaken(photos, judge='other', **how) != shaken(photos, **how)

def test_who_only_asks_for_the_own_encoder_notes_nothing(mini, shaken, tmp_path):
    "By any name, a run is the same and goes on"
    notes = [pool_notes(Captioner(mini.model, mini.encoder, mini.bridge, Candidates('cosine', WAYS, judge=o)))
        for o in ('', 'mini', 'mini@2', 'own')]
    assert notes == [notes[0]]*4 and 'judge' not in notes[0]
    assert pool_notes(Captioner(shaken.model, shaken.encoder, shaken.bridge, Candidates('cosine', judge='mini')))[
        'judge'] == 'mini@2'
    args = ('caption', demo_photos()[0], '--choose', 'cosine', '--out', tmp_path/'t.csv', '--device', 'cpu')
    capdec(*args, ok=True)
    assert 'there already' in capdec(*args, '--judge', 'mini', ok=True).stdout

def test_nobody_falls_back_to_the_own_encoder(shaken, monkeypatch):
    "Where another one should judge and nothing was judged, the search does not begin, and evidence is refused"
    pool, x = Candidates('cosine', WAYS, judge='mini'), photo_vectors(shaken, demo_photos()[:1])
    texts = candidates(shaken, x, WAYS)
    own = Captioner(shaken.model, shaken.encoder, shaken.bridge, pool)
    cosine, vote = parse_choice('cosine'), parse_choice('vote')
    with pytest.raises(ValueError, match='only their vectors'):
        evidence(own, x, texts, cosine)
    with pytest.raises(ValueError, match='only their vectors'):
        evidence(shaken, x, texts, cosine, how=pool)
    assert evidence(own, x, texts, vote)[2] == [None]
    saw = judged_by(judge_of(own), demo_photos()[:1])
    assert evidence(own, x, texts, cosine, saw)[2] != evidence(shaken, x, texts, cosine)[2]
    assert evidence(own, x, texts, cosine, how=Candidates('cosine'))[2] == evidence(shaken, x, texts, cosine)[2]
    monkeypatch.setattr('capdec.candidates.candidates', None)
    with pytest.raises(ValueError, match='only their vectors'):
        captions_of(own, x)

def test_the_judge_computes_as_the_own_tower_does(shaken, monkeypatch):
    "An unknown name is told in the judge's own words"
    asked = []
    room = sys.modules['capdec.candidates']
    monkeypatch.setattr(room, 'load_encoder', lambda *a, **k: asked.append((a, k)) or object())
    room._judge.cache_clear()
    how = Candidates('cosine', judge='mini')
    try:
        for kind in (torch.float32, torch.bfloat16, torch.float16):
            own = SimpleNamespace(name='other', place='elsewhere', dtype=kind)
            judge_of(Parts(shaken.model, own, shaken.bridge), how)
            assert asked[-1] == (('mini@2', 'cpu', str(kind).split('.')[1]), dict(option='judge'))
    finally:
        room._judge.cache_clear()
    with pytest.raises(ValueError, match=r"'nobody' \(`judge`\): use mini"):
        load_encoder('nobody', 'cpu', option='judge')

def test_the_command_line_names_a_judge(shaken, other_encoder, tmp_path):
    "The same captions; a run, a text file and predictions know who judged"
    photos = demo_photos()[:3]
    for o in photos:
        shutil.copy(o, tmp_path)
    args = ('caption', tmp_path, '--clip_model_type', other_encoder, '--out', tmp_path/'t.jsonl', '--sidecar',
        '--device', 'cpu')
    how = ('--choose', 'cosine', '--ways', *WAYS)
    capdec(*args, *how, '--judge', 'mini', ok=True)
    rows = [json.loads(l) for l in (tmp_path/'t.jsonl').read_text().splitlines()]
    want = dict(zip([o.name for o in photos], judged_by_hand(shaken, photos, WAYS)))
    assert {r['file'].split('/')[-1]: r['caption'] for r in rows} == want
    assert "judge 'mini@2'" in capdec('made_by', tmp_path/f'{photos[0].stem}.txt', ok=True).stdout
    # by its other name it is the same run
    capdec(*args, *how, '--judge', 'mini@2', ok=True)
    assert 't.jsonl' in one_line(capdec(*args, *how, ok=False))[0]

@pytest.mark.parametrize('args,said', [
    (['caption', 'PHOTO', '--judge', 'mini@2'], '--judge mini@2: gives the cosine, and nothing asks for it'),
    (['caption', 'PHOTO', '--choose', 'vote', '--judge', 'mini'], 'nothing asks for it'),
    (['caption', 'PHOTO', '--choose', 'cosine', '--judge', 'nobody'], "encoder 'nobody' (--judge): use mini"),
    (['caption', 'PHOTO', '--choose', 'cosine', '--judge', 'mini@1'], 'mini@1: edition 1'),
    (['predict', '--images', 'PHOTO', '--choose', 'cosine', '--judge', 'mini', '--clip_model_type', 'OTHER', '--out',
        'p.json'], '--judge mini@2: looks at the photos themselves'),
    # it is refused before it is loaded, and before it is downloaded
    (['predict', '--images', 'PHOTO', '--choose', 'cosine', '--judge', 'nobody/nowhere', '--out', 'p.json'],
        '--judge nobody/nowhere: looks at the photos themselves')])
def test_a_judge_that_cannot_judge_is_one_line(args, said, other_encoder, tmp_path):
    meant = dict(PHOTO=demo_photos()[0], OTHER=other_encoder) | {'p.json': tmp_path/'p.json'}
    args = [meant.get(o, o) for o in args]
    assert said in one_line(capdec(*args, '--device', 'cpu', ok=False))[0]
    assert list(tmp_path.iterdir()) == []

@pytest.mark.parametrize('name', ['mini', 'mini@2'])
def test_the_own_encoder_judges_vectors(name, mini, tmp_path):
    "By any of its names"
    photos = demo_photos()[:2]
    capdec('predict', '--images', *photos, '--choose', 'cosine', '--ways', *WAYS, '--judge', name, '--out',
        tmp_path/'p.json', '--device', 'cpu', ok=True)
    got = [r['caption'] for r in json.loads((tmp_path/'p.json').read_text())]
    assert got == [o.lower() for o in mini(photos, choose='cosine', ways=WAYS)]

def test_a_way_that_is_named_takes_the_place_of_the_saved_ones(tmp_path):
    folder = tmp_path/'voter'
    c = Captioner.from_pretrained('mini', 'cpu')
    c.pool = Candidates('judges', ['none', 'none+memory:0.5'])
    c.save(folder)
    load = lambda crossing, pool=Candidates(): load_captioner(folder, device='cpu', crossing=crossing, pool=pool)
    assert load(Crossing()).pool.ways == c.pool.ways
    named = load(Crossing('offset'))
    assert (named.pool.choose, named.pool.ways, named.bridge.kind) == ('judges', [], 'offset')
    # and what is asked for in the same breath counts
    assert load(Crossing('offset'), Candidates('vote', ['offset', 'none'])).pool.ways == ['offset', 'none']

@pytest.mark.parametrize('how', [dict(beam_size=2), dict(method='greedy'), dict(method='sample', seed=1)])
def test_judges_choose_however_captions_are_decoded(mini, how):
    c, photo = mini, demo_photos()[0]
    assert c(photo, choose='judges', ways=['none', 'none+memory:0.5'], **how).endswith('.')
    assert len(set(c(photo, 2, choose='vote', beam_size=2))) == 2
