"The experiment of `capdec.studies.fairness` in small, on the sentences that ship with the package"
import json

import numpy as np
import pytest
import torch

from capdec.core import package_file
from capdec.embedding import load_encoder
from capdec.fairness import GENDER, gender_of, neutralise, swap_terms
from capdec.studies.fairness import (RUNS, TextVectors, first_of, log_prob, neutral_start, pairs_of, score_run,
    summary, train_run)

@pytest.fixture(scope='module')
def small(tmp_path_factory):
    "Captions, their vectors and a captioner that knows no gender, all tiny"
    out, texts = tmp_path_factory.mktemp('study'), package_file('models', 'mini', 'captioner',
        'memory.txt').read_text(encoding='utf-8').splitlines()[:160]
    records = [{'image_id': i, 'caption': o, 'id': i} for i, o in enumerate(texts)]
    vectors = TextVectors(load_encoder('mini', 'cpu'), out, texts, show=False)
    base = neutral_start(records, vectors, out/'neutral', epochs=1, width=32, layers=1, vocab=300, show=False)
    return out, records, vectors, base

def test_vectors_are_those_of_the_edited_captions(small):
    _, records, vectors, _ = small
    read, _ = pairs_of(records, '1', 3)
    new = [i for i, (a, b) in enumerate(zip(read, records)) if a != b['caption']]
    assert len(new) > 20
    x = vectors(read, 'test')
    want = torch.nn.functional.normalize(vectors.encoder.encode_text(read, show=False).float(), dim=1)
    # kept as float16
    assert torch.allclose(x, want, atol=2e-3)
    assert not torch.allclose(x[new], vectors([records[i]['caption'] for i in new], 'plain'), atol=.02)

def test_runs_start_alike_and_learn_their_own_captions(small, tmp_path):
    _, records, vectors, base = small
    before = {k: v.clone() for k, v in base.state_dict().items()}
    runs = {n: train_run(base, records, vectors, n, 0, tmp_path/n, show=False) for n in ('0', '1', 'official')}
    # the start is not changed
    assert all(torch.equal(v, before[k]) for k, v in base.state_dict().items())
    weights = {n: torch.cat([p.flatten() for p in m.parameters()]) for n, m in runs.items()}
    assert not any(torch.equal(weights[a], weights[b]) for a, b in (('0', '1'), ('0', 'official'), ('1', 'official')))
    again = train_run(base, records, vectors, '1', 0, tmp_path/'again', show=False)
    # the same edits, order and noise
    assert torch.equal(torch.cat([p.flatten() for p in again.parameters()]), weights['1'])
    assert RUNS.keys() == {'0', '1', '2', '3', 'official'}

def test_log_prob_is_the_loss(small):
    _, records, vectors, base = small
    texts = [o['caption'] for o in records[:7]]
    x = vectors(texts, 'plain')
    each = [-base(x[i:i+1], *base.tokenize([o])).item()*len(base.encode([o])[0]) for i, o in enumerate(texts)]
    assert np.allclose(log_prob(base, x, texts, batch_size=3), each, atol=1e-3)

def test_scores_and_summary(small):
    _, records, vectors, base = small
    texts = [o['caption'] for o in records]
    spoken = [(g, c) for g in GENDER.groups for c in [c for c in texts if first_of([c], g)][:6]]
    truth, captions = map(list, zip(*spoken))
    assert truth == ['man']*6 + ['woman']*6 and all(gender_of(neutralise(c), pronouns=True) == 'neither'
        for c in captions)
    lists = dict(truth=truth, spoken=captions, neutral=[neutralise(c) for c in captions], x=vectors(captions, 'l'),
        x_neutral=vectors([neutralise(c) for c in captions], 'n'))
    photos = dict(ids=list(range(12)), refs={i: [c, texts[i]] for i, c in enumerate(captions)}, truth=truth,
        x=vectors(captions, 'l'), spoken=captions[:11] + [None])
    r = score_run(base, photos, lists, show=False)
    assert len(r['captions']) == len(r['cider']) == 12 and list(r['photo_margin']) == [str(i) for i in range(11)]
    margin = log_prob(base, photos['x'][:1], captions[:1]) - log_prob(base, photos['x'][:1], [swap_terms(captions[0])])
    assert abs(r['photo_margin']['0'] - margin[0]) < 1e-2
    s = summary({'0-0': r, '0-1': r, '1-0': r, 'bundled': r}, photos, lists, draws=50)
    assert s['runs'] == {'0': ['0-0', '0-1'], '1': ['1-0'], 'bundled': ['bundled']}
    # equal runs do not differ
    assert all(v in ([0, 0, 0], [None]*3) for o in s['differences']['1'].values() for v in o.values())
    for what in ('photos', 'photos, preferred', 'captions', 'neutral captions, preferred'):
        assert all(v is None or low <= v <= high for v, low, high in s['arms']['0'][what].values())
    assert 'NaN' not in json.dumps(s)
