"Noise injection: parity with the official implementation, and properties."
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch.nn import functional as F

from capdec.noise import (add_noise, ball_noise, distance_stats, estimate_noise_variance, keyed_randn, load_offset,
    modality_offset,
                          normalize, project_on_memory)

@pytest.fixture(scope='module')
def official(golden):
    import json
    z = {k: torch.tensor(v) for k, v in np.load(golden/'noise.npz').items()}
    return z, json.loads((golden/'golden.json').read_text())['noise_seed']

@pytest.mark.parametrize('name,kw', [('gaussian', {}), ('uniform', dict(uniform=True)),
    ('dont_norm', dict(dont_norm=True)),
                                     ('zero', dict(variance=0., official=True)), ('offset', dict(offset=True))])
def test_official_numbers(official, name, kw):
    z, seed = official
    if kw.get('offset'):
        kw = dict(offset=z['offset_vector'])
    torch.manual_seed(seed)
    assert (add_noise(z['x'], **{'variance': .016, **kw}) - z[name]).abs().max() < 1e-5

def test_zero_variance_still_normalises_and_shifts():
    x, off = torch.randn(4, 8)*3, torch.randn(8)
    assert torch.allclose(add_noise(x, 0., offset=off), normalize(normalize(x) + off), atol=1e-6)
    assert add_noise(x, 0., offset=off, official=True) is x

@settings(max_examples=30, deadline=None)
@given(d=st.integers(2, 900), v=st.floats(0, 4), uniform=st.booleans(), dont_norm=st.booleans(),
    scale=st.floats(1e-3, 1e3))
def test_result_has_unit_norm(d, v, uniform, dont_norm, scale):
    x = torch.randn(5, d, generator=torch.Generator().manual_seed(d))*scale
    out = add_noise(x, v, uniform, dont_norm, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(out.norm(dim=1), torch.ones(5), atol=1e-4)

@settings(max_examples=20, deadline=None)
@given(d=st.integers(200, 900), v=st.floats(1e-4, .3))
def test_expected_cosine(d, v):
    x = torch.randn(400, d, generator=torch.Generator().manual_seed(d))
    cos = F.cosine_similarity(add_noise(x, v, generator=torch.Generator().manual_seed(1)), x).mean().item()
    assert abs(cos - 1/math.sqrt(1 + d*v)) < .02

@settings(max_examples=30, deadline=None)
@given(seed=st.integers(-2**62, 2**62), epoch=st.integers(0, 10**6), rows=st.lists(st.integers(0, 2**40), min_size=1,
    max_size=40), d=st.integers(1, 33))
def test_keyed_noise_is_a_function_of_its_key(seed, epoch, rows, d):
    r = torch.tensor(rows)
    whole = keyed_randn(r, d, seed, epoch)
    assert whole.isfinite().all()
    one_by_one = torch.cat([keyed_randn(r[i:i+1], d, seed, epoch) for i in range(len(r))])
    assert torch.equal(whole, one_by_one)

def test_keyed_noise_streams_are_independent():
    rows = torch.arange(2000)
    a, b, c = keyed_randn(rows, 64, 0, 0), keyed_randn(rows, 64, 0, 1), keyed_randn(rows, 64, 1, 0)
    for p, q in ((a, b), (a, c), (b, c), (a[:-1], a[1:])):
        assert abs((p*q).mean().item()) < .01
    assert abs((a[:, :-1]*a[:, 1:]).mean().item()) < .01

def test_uniform_ball_has_uniform_volume():
    r = ball_noise((20000, 5), 2., torch.Generator().manual_seed(0)).norm(dim=1)/2
    # r^d of a uniform ball is uniform on 0..1
    u = (r**5).sort()[0]
    assert (u - torch.linspace(0, 1, 20000)).abs().max() < .02

def test_paper_rule_on_real_vectors(shared):
    z = np.load(shared/'data'/'clip_vitb32'/'embeddings.npz')
    v = estimate_noise_variance(torch.tensor(z['flickr_text_emb']), list(z['flickr_text_image']))
    assert abs(math.sqrt(v) - .1245) < 5e-4

def test_distance_stats_against_plain_loops():
    x = torch.randn(12, 6)
    s = distance_stats(x, [0]*5 + [1]*5 + [2]*2)
    pairs = [(i, j) for g in (range(5), range(5, 10)) for i in g for j in g if i < j]
    assert s['images'] == 2
    assert s['l1'] == pytest.approx(np.mean([(x[i]-x[j]).abs().sum()/6 for i, j in pairs]), rel=1e-5)
    assert s['linf'] == pytest.approx(np.mean([(x[i]-x[j]).abs().max() for i, j in pairs]), rel=1e-5)

def test_memory_projection_in_pieces(tmp_path):
    m, q = normalize(torch.randn(50, 7)), torch.randn(3, 7)
    for chunk in (1, 7, 50, 99):
        assert torch.allclose(project_on_memory(q, m, chunk=chunk), project_on_memory(q, m), atol=1e-5)

def test_offset_files(tmp_path, shared):
    off = load_offset(shared/'data'/'clip_rn50x4_centers.npz')
    z = np.load(shared/'data'/'clip_rn50x4_centers.npz')
    assert torch.allclose(off, torch.tensor(z['center_image']-z['center_text']).flatten(), atol=1e-6)
    (tmp_path/'x.npz').write_text('not a zip')
    with pytest.raises(ValueError, match='x.npz'):
        load_offset(tmp_path/'x.npz')
    with pytest.raises(FileNotFoundError):
        load_offset(tmp_path/'y.npz')

def test_offset_closes_the_gap_on_real_vectors(shared):
    z = np.load(shared/'data'/'clip_vitb32'/'embeddings.npz')
    text, image = normalize(torch.tensor(z['flickr_text_emb'])), normalize(torch.tensor(z['flickr_image_emb']))
    assert (image.mean(0) - (text + modality_offset(image, text)).mean(0)).norm() < 1e-5

def test_weights_of_a_bridge_that_would_run_code_are_refused(tmp_path):
    from capdec.noise import load_bridge
    class Evil:
        def __reduce__(self):
            return (tmp_path/'ran').touch, ()
    torch.save({'layers.0.weight': Evil()}, tmp_path/'evil.pt')
    with pytest.raises(ValueError, match='refused, since loading it could run code$'):
        load_bridge(tmp_path/'evil.pt')
    assert not (tmp_path/'ran').exists()

def test_the_mean_of_nothing_is_refused():
    from capdec.noise import modality_centres
    for pair in ((torch.empty(0, 4), torch.ones(2, 4)), (torch.ones(2, 4), torch.empty(0, 4))):
        with pytest.raises(ValueError, match='no vectors'):
            modality_centres(*pair)
