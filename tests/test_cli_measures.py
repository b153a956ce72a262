"`capdec noise`, `offset` and `bridger`: what they measure, what they write, and what they cannot use"
import re

import pytest
import torch
from safetensors.torch import load_file

from shell import capdec, one_line

@pytest.fixture
def stores(tmp_path):
    "Vectors of six photos, and of two captions of each"
    from capdec.noise import normalize
    from capdec.store import EmbeddingStore
    torch.manual_seed(0)
    photos, shift = torch.randn(6, 8), torch.eye(8)[0]*3
    said = photos.repeat_interleave(2, 0) + .1*torch.randn(12, 8) + shift
    seen = [dict(id=i, image_id=i, filename=f'{i}.jpg', caption='') for i in range(6)]
    told = [dict(id=i, image_id=i//2, filename=f'{i//2}.jpg', caption=f'A thing {i}.') for i in range(12)]
    for name, x, rows, kind in (('photos', photos, seen, 'image'), ('captions', said, told, 'text')):
        with EmbeddingStore.create(tmp_path/f'{name}.store', 8, dict(encoder='made up', kind=kind)) as s:
            s.append(rows, normalize(x))
    return tmp_path

def test_noise_tells_the_variance_that_its_function_finds(stores):
    from capdec.noise import estimate_noise_variance
    from capdec.store import EmbeddingStore
    s = EmbeddingStore(stores/'captions.store')
    v = estimate_noise_variance(s.vectors().float(), s.column('image_id'))
    out = capdec('noise', stores/'captions.store', ok=True).stdout
    assert out.startswith(f'--noise_variance {v:.4g} ') and '6 images, 12 captions' in out
    few = estimate_noise_variance(s.vectors().float()[:4], s.column('image_id')[:4])
    assert few != v
    out = capdec('noise', stores/'captions.store', '--max_images', 2, ok=True).stdout
    assert out.startswith(f'--noise_variance {few:.4g} ') and '2 images, 4 captions' in out

def test_offset_leads_from_captions_to_photos(stores):
    r = capdec('offset', stores/'photos.store', '--texts', stores/'captions.store', '--out', stores/'o.safetensors',
        ok=True)
    assert r.stdout.count('\n') == 1 and '12 captions to 6 images' in r.stdout
    from capdec.store import EmbeddingStore
    mean = {o: EmbeddingStore(stores/f'{o}.store').vectors().float().mean(0) for o in ('photos', 'captions')}
    way = load_file(stores/'o.safetensors')['offset_to_add_in_training']
    torch.testing.assert_close(way, mean['photos'] - mean['captions'], atol=2e-3, rtol=0)

def test_bridger_learns_and_tells_its_loss(stores):
    r = capdec('bridger', stores/'photos.store', '--texts', stores/'captions.store', '--epochs', 3, '--num_layers', 2,
        '--out', stores/'b.safetensors', '--device', 'cpu', ok=True)
    first, last = map(float, re.search(r'error (\S+) -> (\S+?)[,:\s]', r.stdout).groups())
    assert 0 < last < first and (stores/'b.safetensors').exists()

@pytest.mark.parametrize('args,says', [
    (['noise', 'photos.store'], 'holds vectors of images'),
    (['noise', 'captions.store', '--images', 'photos.store'], '--out'),
    (['noise', 'captions.store', '--out', 'captions.store'], 'captions.store'),
    (['offset', 'photos.store', '--texts', 'captions.store', '--rows', -1], '--rows'),
    (['offset', 'photos.store', '--texts', 'gone.store'], 'gone.store'),
    (['offset', 'photos.store', '--texts', 'captions.store', '--out', '/dev/null'], '/dev/null'),
    (['bridger', 'photos.store', '--texts', 'captions.store', '--epochs', 0], '--epochs'),
    (['bridger', 'photos.store', '--texts', 'photos.store'], 'holds vectors of images')])
def test_what_cannot_be_measured_is_one_line(stores, args, says):
    before = sorted(stores.rglob('*'))
    said = one_line(capdec(*args, cwd=stores, ok=False))
    assert len(said) == 1 and says in said[0] and sorted(stores.rglob('*')) == before
