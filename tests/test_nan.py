"Numbers that are none: an error, wherever vectors and weights enter, and never the caption `$%%%%`"
import pickle
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from capdec.bridges import Bridge
from capdec.captioner import Captioner
from capdec.core import package_file
from capdec.decoding import generate
from capdec.embedding import embed_captions, load_encoder
from capdec.folder import load_parts, unpack_vectors
from capdec.model import load_official, to_official
from capdec.store import EmbeddingStore, read_official_pickle
from capdec.training import TrainConfig, train
from shell import capdec, official

BAD = [float('nan'), float('inf'), -float('inf')]

@pytest.fixture
def folder(tmp_path):
    shutil.copytree(package_file('models', 'mini', 'captioner'), tmp_path/'mine')
    return tmp_path/'mine'

def vectors(n=3, bad=None, row=1):
    v = torch.nn.functional.normalize(torch.randn(n, 512, generator=torch.Generator().manual_seed(0)), dim=-1)
    if bad is not None:
        v[row, 7] = bad
    return v

@pytest.mark.parametrize('bad', BAD)
@pytest.mark.parametrize('name', ['offset', 'memory', 'memory.books'])
def test_a_bridge_in_a_folder(folder, name, bad):
    f = folder/'bridge.safetensors'
    t = load_file(f)
    if name == 'memory':
        # all of its numbers, as a captioner of one's own has them
        t['memory'] = unpack_vectors(t.pop('memory.codes'), t.pop('memory.books')).half()
    # one row of thousands
    t[name].view(-1)[-1] = bad
    save_file(t, f)
    with pytest.raises(ValueError, match=f"bridge.safetensors: tensor '{name}' holds NaN or infinity"):
        load_parts(folder, 'cpu', encoder=False)
    Image.new('RGB', (40, 30), 'navy').save(folder.parent/'a.jpg')
    r = capdec('caption', '--model', folder, folder.parent/'a.jpg')
    assert r.returncode == 1 and r.stdout == '' and r.stderr.count('\n') == 1

@pytest.mark.parametrize('bad', BAD)
def test_weights_in_a_folder(folder, bad):
    f = folder/'model.safetensors'
    t = load_file(f)
    name = sorted(t)[3]
    t[name].view(-1)[-1] = bad
    save_file(t, f)
    with pytest.raises(ValueError, match=f"model.safetensors: tensor '{name}' holds NaN or infinity"):
        load_parts(folder, 'cpu', encoder=False)

def test_weights_of_an_official_checkpoint(deaf, tmp_path):
    model = deaf[0].model
    state = {k: v.clone() for k, v in to_official(model).items()}
    state['clip_project.model.0.bias'][3] = float('nan')
    torch.save(state, tmp_path/'x.pt')
    with pytest.raises(ValueError, match="x.pt: tensor 'clip_project.model.0.bias' holds NaN or infinity"):
        load_official(tmp_path/'x.pt', model.tokenizer, lm_heads=model.lm.config.n_head)

def test_weights_of_an_encoder(tmp_path):
    shutil.copytree(package_file('models', 'mini', 'encoder'), tmp_path/'e')
    f = tmp_path/'e'/'model.safetensors'
    t = load_file(f)
    name = sorted(t)[5]
    t[name] = t[name].float()
    t[name].view(-1)[0] = float('inf')
    save_file(t, f)
    with pytest.raises(ValueError, match='model.safetensors: tensor .* holds NaN or infinity'):
        load_encoder(tmp_path/'e', 'cpu')

@pytest.mark.parametrize('bad', BAD)
def test_vectors_in_python(mini, bad):
    with pytest.raises(ValueError, match='vector 1 holds NaN or infinity'):
        generate(mini.model, vectors(bad=bad))
    with pytest.raises(ValueError, match='the offset holds NaN or infinity'):
        Bridge('offset', vectors(bad=bad)[1])
    with pytest.raises(ValueError, match='the memory holds NaN or infinity'):
        Captioner(mini.model, mini.encoder).remember(['a', 'b', 'c'], vectors(bad=bad))
    with pytest.raises(ValueError, match='vectors hold NaN or infinity'):
        train(mini.model, (vectors(bad=bad), ['a dog.']*3), config=TrainConfig(epochs=1))
    with pytest.raises(ValueError, match='offset holds NaN or infinity'):
        train(mini.model, (vectors(), ['a dog.']*3), config=TrainConfig(epochs=1), offset=vectors(bad=bad)[1])

class BadEncoder:
    "An encoder whose vectors are no numbers"
    name, dim, device = 'mini', 512, torch.device('cpu')
    def encode_image(self, images, batch_size=32, show=True):
        return vectors(len(images), float('nan'), 0)
    def encode_text(self, texts, batch_size=256, show=True):
        return vectors(len(texts), float('nan'), 0)

@pytest.mark.parametrize('bridge', ['none', 'offset', 'memory'])
def test_an_encoder_that_makes_no_numbers(mini, tmp_path, bridge):
    parts = load_parts('mini', 'cpu', bridge=bridge, encoder=False)
    with pytest.raises(ValueError, match='NaN or infinity'):
        Captioner(parts.model, BadEncoder(), parts.bridge)(np.zeros((9, 9, 3), np.uint8))
    with pytest.raises(ValueError, match='row 0: its vector holds NaN'):
        embed_captions([dict(image_id=0, caption='a', id=0, filename=None)], BadEncoder(), tmp_path/'s', show=False)

def test_a_store_that_was_changed(tmp_path):
    import pyarrow as pa
    rows = [dict(image_id=i, caption=f'A dog {i}.', id=i, filename=None) for i in range(5)]
    for dtype in ('float16', 'float32'):
        with EmbeddingStore.create(tmp_path/dtype, 4, columns=('image_id', 'caption'), dtype=dtype) as s:
            s.append(rows, torch.ones(5, 4))
        f = tmp_path/dtype/'shard-00000.arrow'
        raw, size = bytearray(f.read_bytes()), 2 if dtype == 'float16' else 4
        one = np.ones(20, dtype).tobytes()
        at = raw.index(one)
        raw[at+13*size:at+14*size] = np.full(1, np.nan, dtype).tobytes()
        f.write_bytes(raw)
        s = EmbeddingStore(tmp_path/dtype)
        assert s.vectors([0, 1, 2, 4]).sum() == 16 and s.captions() == [o['caption'] for o in rows]
        for asked in (None, [4, 3], slice(2, 5)):
            with pytest.raises(ValueError, match=f'{dtype}: row 3: its vector holds NaN or infinity'):
                s.vectors(asked)

def test_an_official_pickle(tmp_path):
    f = official(tmp_path/'o.pkl', n=20_000, d=4)
    assert read_official_pickle(f)['text'].shape == (20_000, 4)
    data = pickle.loads(f.read_bytes())
    data['clip_embedding_text_dave'][12_345, 2] = float('inf')
    f.write_bytes(pickle.dumps(data))
    with pytest.raises(ValueError, match='o.pkl: row 12,345 of the text vectors holds NaN or infinity'):
        read_official_pickle(f)

def test_a_captioner_with_nan_is_not_saved(mini, tmp_path):
    import copy
    model = copy.deepcopy(mini.model)
    with torch.no_grad():
        next(model.mapper.parameters())[0, 0] = float('nan')
    with pytest.raises(ValueError, match='not saved, since mapper.* holds NaN'):
        Captioner(model, mini.encoder).save(tmp_path/'m')
    with torch.no_grad():
        next(model.mapper.parameters())[0, 0] = 1e6
    with pytest.raises(ValueError, match='number type is too small'):
        Captioner(model, mini.encoder).save(tmp_path/'m', dtype='float16')
    assert not (tmp_path/'m').exists() and list(tmp_path.iterdir()) == []
    assert Captioner(model, mini.encoder).save(tmp_path/'m').is_dir()
