"Ways across the gap: composed, saved, loaded, and spelled on the command line"
import random

import pytest
import torch

from capdec.bridges import BRIDGES, Bridge, parse_bridge
from capdec.captioner import Captioner
from capdec.folder import read_bridge
from capdec.gap import alignment, load_moments, modality_moments
from capdec.noise import normalize, save_offset
from shell import capdec, one_line

D = 12

@pytest.fixture
def clouds():
    g = torch.Generator().manual_seed(3)
    image = torch.randn(200, D, generator=g)@torch.randn(D, D, generator=g) + 3
    return normalize(image), normalize(torch.randn(300, D, generator=g) - 1)

@pytest.fixture
def full(clouds):
    image, text = clouds
    return Bridge('none', text.mean(0)-image.mean(0), text, [f's{i}' for i in range(len(text))], .05,
        alignment(modality_moments(image, text)), 7)

@pytest.mark.parametrize('seed', range(20))
def test_a_composition_is_its_steps_by_hand(full, clouds, seed):
    "Chains of up to three ways, in mixes of up to three parts with random shares"
    r, x = random.Random(seed), clouds[0][:9]
    parts = [[r.choice(BRIDGES) for _ in range(r.randint(1, 3))] for _ in range(r.randint(1, 3))]
    weights = [r.randint(1, 9) for _ in parts]
    kind = '+'.join(f'{",".join(p)}:{w/sum(weights):.12f}' for p, w in zip(parts, weights))
    ends = []
    for p in parts:
        y = x
        for name in p:
            y = full.using(name)(y)
        ends.append(y)
    want = ends[0] if len(ends) == 1 else normalize(sum(w/sum(weights)*normalize(y) for w, y in zip(weights, ends)))
    assert torch.allclose(full.using(kind)(x), want, atol=1e-5)
    assert [p for _, p in parse_bridge(kind)] == parts

def test_one_by_one_as_in_a_batch(full, clouds):
    for kind in (*BRIDGES, 'standard,memory', 'offset+nearest:0.3'):
        b, x = full.using(kind), clouds[0][:5]
        assert torch.allclose(torch.cat([b(o[None]) for o in x]), b(x), atol=1e-5), kind

def test_what_is_saved_is_loaded(full, tmp_path):
    "The captioner's folder keeps the alignment, the name and k; vectors differ by half precision only"
    mini = Captioner.from_pretrained('mini', device='cpu')
    g = torch.Generator().manual_seed(0)
    image, text = (normalize(torch.randn(600, 512, generator=g) + o) for o in (.2, -.2))
    b = mini.bridge
    kind = 'whiten,memory+offset:0.25'
    onto = alignment(modality_moments(image, text))
    mini.bridge = Bridge(kind, b.offset, b.memory, b.sentences, b.temperature, onto, 9)
    mini.save(tmp_path/'c')
    back = Captioner.from_pretrained(tmp_path/'c', device='cpu').bridge
    assert (back.kind, back.k, list(back.materials())) == (kind, 9, list(mini.bridge.materials()))
    for o in (kind, 'standard', 'mean', 'nearest'):
        cosine = torch.cosine_similarity(back.using(o)(image[:20]), mini.bridge.using(o)(image[:20]))
        assert cosine.min() > .999, o
    # a captioner without an alignment that is saved in the same folder leaves none behind
    mini.bridge = b
    mini.save(tmp_path/'c')
    assert Captioner.from_pretrained(tmp_path/'c', device='cpu').bridge.onto is None

def test_moments_of_a_store_are_those_of_its_vectors(clouds, tmp_path):
    "In pieces, and from a file"
    image, text = clouds
    m = modality_moments(image*5, text)
    assert torch.allclose(m['covariance_text'], torch.cov(text.T, correction=0), atol=1e-6)
    back = load_moments(save_offset(tmp_path/'o.npz', m))
    assert all(torch.equal(back[k], m[k]) for k in back)

@pytest.mark.parametrize('kind,why', [('offset+rope', "'rope' is no way"), ('offset:2+memory', 'above 0'),
    ('offset:0.7+memory:0.7', 'add up to 1'), ('whiten', 'capdec offset --moments'), ('', None)])
def test_the_command_line_says_what_is_wrong(kind, why):
    "One line, before any photo is looked at"
    if why:
        assert why in one_line(capdec('caption', 'a.jpg', '--bridge', kind, ok=False))[0]
    else:
        assert 'a.jpg' in one_line(capdec('caption', 'a.jpg', ok=False))[0]

def test_damaged_alignments_are_named(tmp_path):
    from safetensors.torch import save_file
    save_file({'onto.image_mean': torch.zeros(3)}, tmp_path/'bridge.safetensors')
    with pytest.raises(ValueError, match='bridge.safetensors: has onto.image_mean but no onto.text_mean'):
        read_bridge(tmp_path, {})
