"Captioners, stores, journals and predictions that somebody has damaged: one line that names the file, and no waiting"
import json
import os
import shutil
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from capdec.album import earlier_captions
from capdec.captioner import Captioner
from capdec.config import CapDecConfig, from_json
from capdec.core import Journal, package_file, read_json
from capdec.evaluation import evaluate, read_predictions
from capdec.folder import load_parts
from capdec.mini import MiniEncoder
from capdec.model import CaptionModel, gpt2_tokenizer
from capdec.noise import load_bridge, load_offset
from capdec.store import EmbeddingStore, read_official_pickle
from shell import capdec

TOOL = Path(__file__).resolve().parents[1]/'tools'/'fuzz.py'

@pytest.fixture
def folder(tmp_path):
    shutil.copytree(package_file('models', 'mini', 'captioner'), tmp_path/'gift')
    return tmp_path/'gift'

def says(f, *args, named, **kwargs):
    "The one line, which names the file, within 20 seconds of this process"
    start = time.process_time()
    with pytest.raises((ValueError, OSError)) as e:
        f(*args, **kwargs)
    assert time.process_time()-start < 20
    assert '\n' not in str(e.value) and str(named) in str(e.value), str(e.value)
    return str(e.value)

def changed(path, **new):
    path.write_text(json.dumps(json.loads(path.read_text()) | new))

# ---- a captioner's folder

@pytest.mark.parametrize('config', [dict(encoder=5), dict(mapping_type=[]), dict(mapping_type='evil'), dict(stop=''),
    dict(stop=5), dict(prefix_length=10**6), dict(prefix_length=True), dict(prefix_size=10**9), dict(num_heads=0),
    dict(noise_variance=float('nan')), dict(noise_variance='x'), dict(provenance=[]), dict(only_prefix='no'),
    dict(max_tokens=-1), dict(lm_config=5), dict(lm_config={}), dict(lm_config={'model_type': 'evil'}),
    dict(lm_config={'model_type': ['gpt2']}), dict(lm_config={'model_type': 'gpt2', 'n_layer': 10**6})])
def test_settings_of_a_stranger(folder, config):
    changed(folder/'config.json', **config)
    says(load_parts, folder, 'cpu', encoder=False, named=folder)

@pytest.mark.parametrize('lm', [dict(n_layer=10**6), dict(n_layer=9999), dict(n_layer='x'), dict(n_head=3),
    dict(n_head=0),
    dict(n_embd=10**7), dict(vocab_size=10**12), dict(n_positions=10**6), dict(activation_function='evil'),
    dict(initializer_range='x'), dict(model_type='t5'), dict(model_type='bert', num_hidden_layers=10**6),
    dict(model_type='qwen2', num_hidden_layers=10**9), dict(model_type='mixtral', num_local_experts=10**6),
    dict(n_layer=10**300)])
def test_a_language_model_that_would_fill_the_memory(folder, lm):
    config = json.loads((folder/'config.json').read_text())
    config['lm_config'] |= lm
    (folder/'config.json').write_text(json.dumps(config))
    says(load_parts, folder, 'cpu', encoder=False, named=folder)

@pytest.mark.parametrize('text', ['[1]', '5', 'null', '"x"', '', '{', '{}', '[' + '9'*5000 + ']', '['*10**5, '\x00'])
@pytest.mark.parametrize('name', ['config.json', 'captioner.json', 'tokenizer.json', 'tokenizer_config.json'])
def test_json_that_is_something_else(folder, name, text):
    (folder/name).write_text(text)
    if name == 'captioner.json' and text == '{}':
        assert load_parts(folder, 'cpu', encoder=False).bridge.kind == 'none'
    elif name == 'tokenizer_config.json' and text == '{}':
        assert load_parts(folder, 'cpu', encoder=False)
    else:
        says(load_parts, folder, 'cpu', encoder=False, named=folder)

@pytest.mark.parametrize('name', ['config.json', 'captioner.json', 'tokenizer.json', 'tokenizer_config.json',
    'model.safetensors', 'bridge.safetensors', 'memory.txt'])
@pytest.mark.parametrize('kind', ['pipe', 'device', 'folder', 'sparse'])
def test_files_that_are_none(folder, name, kind):
    f = folder/name
    f.unlink()
    if kind == 'pipe':
        os.mkfifo(f)
    elif kind == 'device':
        f.symlink_to('/dev/zero')
    elif kind == 'folder':
        f.mkdir()
    else:
        with open(f, 'wb') as o:
            o.truncate(10**11)
    if (name, kind) == ('tokenizer_config.json', 'folder'):
        # which a tokenizer can do without
        assert load_parts(folder, 'cpu', encoder=False)
    else:
        says(load_parts, folder, 'cpu', encoder=False, named=folder)

@pytest.mark.parametrize('notes', [dict(encoder=5), dict(encoder=['mini']), dict(bridge=5), dict(bridge='evil'),
    dict(temperature='x'), dict(temperature=0), dict(temperature=-1), dict(temperature=float('nan')),
    dict(temperature=[])])
def test_notes_of_a_stranger(folder, notes):
    changed(folder/'captioner.json', **notes)
    says(load_parts, folder, 'cpu', encoder=False, named=folder)
    r = capdec('caption', '--model', folder, 'photo.jpg', cwd=folder.parent)
    assert r.returncode == 1 and r.stderr.count('\n') == 1 and 'Traceback' not in r.stderr

@pytest.mark.parametrize('tensors', [dict(offset=torch.ones(())), dict(offset=torch.ones(2, 512)),
    dict(offset=torch.ones(512, dtype=torch.int64)), dict(offset=torch.ones(0)), dict(memory=torch.ones(512)),
    dict(memory=torch.ones(3, 512)), dict(memory=torch.ones(0, 512)), dict(offset=torch.full((512,), float('nan'))),
    dict(offset=torch.ones(5))])
def test_bridges_of_a_stranger(folder, tensors):
    from safetensors.torch import load_file, save_file
    t = load_file(folder/'bridge.safetensors')
    if 'memory' in tensors:
        # instead of the packed one
        t = {k: v for k, v in t.items() if not k.startswith('memory.')}
    save_file(t | tensors, folder/'bridge.safetensors')
    line = says(load_parts, folder, 'cpu', encoder=False, named='')
    assert str(folder) in line or 'vectors of 5 numbers' in line

@pytest.mark.parametrize('make', [
    lambda c, b: (c, None), lambda c, b: (None, b), lambda c, b: (c[:3], b), lambda c, b: (c[:0], b),
    lambda c, b: (c[:, 0], b), lambda c, b: (c.long(), b), lambda c, b: (c[:, 1:], b), lambda c, b: (c, b[1:]),
    lambda c, b: (c, b[:, :255]), lambda c, b: (c, b[..., :0]), lambda c, b: (c, b[..., 0]),
    lambda c, b: (c, b.to(torch.uint8)), lambda c, b: (c, torch.cat([b, b], 2)), lambda c, b: (c, b*torch.nan),
    lambda c, b: (c, b, 'numbers too')])
def test_packed_memories_of_a_stranger(folder, make):
    from safetensors.torch import load_file, save_file
    t = load_file(folder/'bridge.safetensors')
    codes, books, *too = make(t.pop('memory.codes'), t.pop('memory.books'))
    t |= {'memory.codes': codes, 'memory.books': books}
    if too:
        t['memory'] = torch.ones(len(codes), 512)
    save_file({k: v.contiguous() for k, v in t.items() if v is not None}, folder/'bridge.safetensors')
    line = says(load_parts, folder, 'cpu', encoder=False, named='')
    assert str(folder) in line or 'the memory has vectors of' in line

def test_sentences_that_are_no_text(folder):
    (folder/'memory.txt').write_bytes((folder/'memory.txt').read_bytes().replace(b'a', b'\xff', 1))
    says(load_parts, folder, 'cpu', encoder=False, named=folder/'memory.txt')

@pytest.mark.parametrize('change', [dict(model={}), dict(model=5), dict(model={'type': 'BPE', 'vocab': {'a': 10**9},
    'merges': []}), dict(added_tokens=[{'id': 10**12, 'content': 'x'}]), dict(decoder={'type': 'Evil'}),
    dict(added_tokens=[{'id': 100_000, 'content': 'evil', 'single_word': False, 'lstrip': False, 'rstrip': False,
    'normalized': False, 'special': False}])])
def test_tokenizers_of_a_stranger(folder, change):
    changed(folder/'tokenizer.json', **change)
    says(load_parts, folder, 'cpu', encoder=False, named=folder)

@pytest.mark.parametrize('config', [dict(layers=10**6), dict(backbone='hf-hub:evil/model'),
    dict(backbone='local-dir:.'),
    dict(backbone=5), dict(width=10**6), dict(vocab=10**9), dict(dim=0), dict(heads=0), dict(image_size=10**5),
    dict(max_tokens=-1), dict(mlp_ratio=10**5), dict(name=5)])
def test_encoders_of_a_stranger(tmp_path, config):
    shutil.copytree(package_file('models', 'mini', 'encoder'), tmp_path/'e')
    changed(tmp_path/'e'/'config.json', **config)
    says(MiniEncoder.load, tmp_path/'e', 'cpu', named=tmp_path/'e')

def test_a_tokenizer_of_gpt2_from_a_stranger(tmp_path):
    for vocab, merges in (('{"a": 1000000000}', '#version: 0.2\n'), ('[1]', ''), ('{"a": 0}', 'evil\n'),
            ('{"a": 0}', '#version: 0.2\na b\n')):
        (tmp_path/'vocab.json').write_text(vocab)
        (tmp_path/'merges.txt').write_text(merges)
        says(gpt2_tokenizer, tmp_path, named=tmp_path)
    (tmp_path/'merges.txt').unlink()
    os.mkfifo(tmp_path/'merges.txt')
    (tmp_path/'vocab.json').write_text('{"a": 0}')
    says(gpt2_tokenizer, tmp_path, named=tmp_path/'merges.txt')

def test_a_good_folder_is_read_as_before(folder):
    p = load_parts(folder, 'cpu', encoder=False)
    assert p.encoder.name == 'mini@2' and p.bridge.kind == 'none' and p.model.config.noise_variance == .02
    # other keys, of a newer version say, are left alone
    changed(folder/'config.json', later=5)
    changed(folder/'captioner.json', later=5)
    assert load_parts(folder, 'cpu', encoder=False).model.config == p.model.config

def test_whole_numbers_are_numbers():
    assert from_json(CapDecConfig, dict(noise_variance=1), 'f').noise_variance == 1

# ---- stores

def store(path):
    rows = [dict(image_id=i, caption=f'A dog {i}.', id=i, filename=None) for i in range(3)]
    with EmbeddingStore.create(path, 4, dict(encoder='mini', kind='text')) as s:
        s.append(rows, torch.eye(4)[:3])
    return path

@pytest.mark.parametrize('new', [dict(shards=5), dict(shards=[5]), dict(shards=[{}]), dict(columns=5), dict(columns=[]),
    dict(columns=['a', 'a']), dict(columns=['\ud800']), dict(dim=True), dict(dim=2.5), dict(dim=10**12),
    dict(version='1'),
    dict(meta=[]), dict(meta={'encoder': 5}), dict(meta={'failed': 5}), dict(report=5), dict(finished=1),
    dict(dtype='evil')])
def test_the_index_of_a_stranger(tmp_path, new):
    changed(store(tmp_path/'s')/'index.json', **new)
    says(EmbeddingStore, tmp_path/'s', named=tmp_path/'s')

@pytest.mark.parametrize('new', [dict(file='../other.arrow'), dict(file='/etc/passwd'), dict(file=''), dict(file='..'),
    dict(rows=10**9), dict(rows=0), dict(rows=2.5), dict(rows=True), dict(bytes='x'), dict(sha256=5)])
def test_the_shards_of_a_stranger(tmp_path, new):
    index = json.loads((store(tmp_path/'s')/'index.json').read_text())
    index['shards'][0] |= new
    (tmp_path/'s'/'index.json').write_text(json.dumps(index))
    says(EmbeddingStore, tmp_path/'s', named=tmp_path/'s')

def test_ids_and_captions_that_are_not_as_written(tmp_path):
    import pyarrow as pa
    s = EmbeddingStore(store(tmp_path/'s'))
    f = next((tmp_path/'s').glob('*.arrow'))
    whole = pa.ipc.open_stream(f.read_bytes()).read_all()
    for column, values in (('image_id', ['x', 'y', 'z']), ('image_id', ['1'*5000]*3), ('caption', [None]*3),
            ('filename', ['\0evil']*3)):
        table = whole.set_column(whole.column_names.index(column), column, pa.array(values, pa.string()))
        with pa.OSFile(str(f), 'wb') as o, pa.ipc.new_stream(o, table.schema) as w:
            w.write_table(table)
        index = json.loads((tmp_path/'s'/'index.json').read_text())
        index['shards'][0]['bytes'] = f.stat().st_size
        (tmp_path/'s'/'index.json').write_text(json.dumps(index))
        says(lambda: list(EmbeddingStore(tmp_path/'s').rows()), named=tmp_path/'s')
    assert len(s) == 3

# ---- journals, tables, checkpoints

def test_a_journal_of_something_else(tmp_path):
    for line in ('[1]', '5', 'null', '{', '['*10**5, '{"key": 5, "error": null}', '{"error": null}'):
        (tmp_path/'j').write_text('{}\n' + line + '\n')
        with Journal(tmp_path/'j', {}) as j:
            says(lambda: list(j.records(dict(key=str))), named=tmp_path/'j')
            if not line.startswith('{"'):
                says(j.write_list, tmp_path/'out.json', named=tmp_path/'j')
                assert not (tmp_path/'out.json').exists()

@pytest.mark.parametrize('row', [5, [], {'file': 5, 'caption': 'a'}, {'file': [], 'caption': 'a'}, {'file': 'a',
    'caption': 5},
    {'file': 'a', 'captions': 5}, {'file': 'a', 'captions': [5]}, {'file': 'a', 'caption_1': {}},
    {'file': 'a', 'caption': 'b', 'error': [5]}])
def test_a_table_of_something_else(tmp_path, row):
    for name, text in (('t.json', json.dumps([row])), ('t.jsonl', json.dumps(row) + '\n')):
        (tmp_path/name).write_text(text)
        says(earlier_captions, str(tmp_path/name), named=tmp_path/name)

def test_a_checkpoint_of_something_else(tmp_path):
    from safetensors.torch import save_file
    from capdec.training import load_state, save_state
    net = torch.nn.Linear(2, 2)
    opt = torch.optim.AdamW(net.parameters())
    net(torch.ones(1, 2)).sum().backward()
    opt.step()
    params, f = dict(net.named_parameters()), tmp_path/'state.safetensors'
    save_state(f, params, opt, dict(step=3))
    assert load_state(f, params, opt) == dict(step=3)
    from safetensors.torch import load_file
    good = load_file(f)
    for progress in ('[1]', '5', '{', '['*10**5):
        save_file(good, f, metadata=dict(progress=progress))
        says(load_state, f, params, opt, named=f)
    for odd in ({'opt/weight': torch.ones(1)}, {'opt/exp_avg/weight': torch.ones(5)}, {'param/weight': torch.ones(3)}):
        save_file(good | odd, f, metadata=dict(progress='{}'))
        if 'opt/weight' in odd:
            assert load_state(f, params, opt) == {}
        else:
            says(load_state, f, params, opt, named=f)

# ---- what `evaluate` is given

@pytest.mark.parametrize('rows', [[5], [[1]], [{'image_id': [], 'caption': 'a'}], [{'image_id': {}, 'caption': 'a'}],
    [{'image_id': None, 'caption': 'a'}], [{'image_id': 1, 'caption': 5}], [{'image_id': 1, 'caption': None}],
    [{'image_id': True, 'caption': 'a'}], [{'image_id': 1.5, 'caption': 'a'}], [{'image_id': 1}],
    [{'image_id': 1, 'caption': 'a', 'references': 5}], [{'image_id': 1, 'caption': 'a', 'references': [5]}],
    {'predictions': 5}, {'predictions': [5]}, {'predictions': {'a': 1}}, [1, {'image_id': 1, 'caption': 'a'}]])
def test_predictions_of_something_else(tmp_path, rows):
    f = tmp_path/'p.json'
    f.write_text(json.dumps(rows))
    says(read_predictions, f, named=f)
    r = capdec('evaluate', f, '--references', f, '--metrics', 'bleu')
    assert r.returncode == 1 and r.stderr.count('\n') == 1

def test_references_of_something_else():
    for refs in ({1: 5}, {1: None}, {1: [5]}, {None: ['a']}, [5], [dict(image_id=1, caption=5)]):
        with pytest.raises(ValueError) as e:
            evaluate({1: 'a'}, refs, 'bleu')
        assert '\n' not in str(e.value)

# ---- JSON and offsets

def test_json_of_a_stranger(tmp_path):
    f = tmp_path/'x.json'
    f.write_text('[' + '9'*5000 + ']')
    says(read_json, f, named=f)
    f.write_text('[1, 2, 3]')
    says(read_json, f, 5, named=f)
    assert read_json(f) == [1, 2, 3]

def test_offsets_of_a_stranger(tmp_path):
    import numpy as np
    import pickle
    f = tmp_path/'o.npz'
    for arrays in (dict(offset=np.array(['x'])), dict(offset=np.zeros(0)), dict(offset=np.full(5, np.nan)),
            dict(center_image=np.ones(3), center_text=np.ones(4)), dict(other=np.ones(3))):
        np.savez(f, **arrays)
        says(load_offset, f, named=f)
    np.savez_compressed(f, offset=np.zeros(10**8))
    assert f.stat().st_size < 10**6
    says(load_offset, f, named=f)
    g = tmp_path/'o.pkl'
    for o in ({'offset': 'x'}, {'offset': None}, {'offset': [[1], [1, 2]]}, {'offset': {}}, {5: 5}, [1],
        {'offset': [1e999]}):
        g.write_bytes(pickle.dumps(o))
        says(load_offset, g, named=g)

def test_bridgers_of_a_stranger(tmp_path):
    f = tmp_path/'b.pt'
    for state in ({}, {'layers.0.weight': torch.ones(())}, {'layers.0.weight': torch.ones(1, 10**5)}, [1],
            {'layers.0.weight': torch.ones(2, 2), 'layers.0.bias': torch.tensor([1, float('nan')])}):
        torch.save(state, f)
        says(load_bridge, f, named=f)

def test_official_pickles_of_a_stranger(tmp_path):
    import pickle
    f, v = tmp_path/'p.pkl', torch.ones(1, 4)
    good = dict(image_id=1, caption='a dog', id=1, clip_embedding=0)
    for entry, vectors in ((dict(image_id=[]), v), (dict(image_id=None), v), (dict(id={}), v), (dict(filename=5), v),
            (dict(caption=5), v), ({}, v.long()), ({}, v[0]), (dict(clip_embedding=5), torch.ones(2, 4)),
            (dict(clip_embedding='x'), torch.ones(2, 4))):
        f.write_bytes(pickle.dumps(dict(clip_embedding=vectors, captions=[good | entry])))
        says(read_official_pickle, f, named=f)

# ---- and a few hundred more

def test_the_fuzzers_find_nothing():
    r = subprocess.run([sys.executable, TOOL, '--n', '300', '--first', '777000', '--workers', '1'], capture_output=True,
        text=True, timeout=600)
    assert r.returncode == 0, r.stdout + r.stderr
    assert ' got past the first check' in r.stdout and int(r.stdout.split('%')[0].split()[-1]) > 33
    # every kind was tried, and has inputs that are read
    assert all(f'{kind} ' in r.stdout for kind in ('captions', 'archives', 'predictions', 'journals', 'images',
        'addresses', 'folders'))

def test_two_predictions_for_one_image_name_the_file(tmp_path):
    import json
    from capdec.evaluation import read_predictions
    f = tmp_path/'p.json'
    f.write_text(json.dumps([dict(image_id=1, caption='a dog'), dict(image_id=1, caption='a cat')]))
    with pytest.raises(ValueError, match=r'p.json: several different predictions for 1 image \(1\)'):
        read_predictions(f)
