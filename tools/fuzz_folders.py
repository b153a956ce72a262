"""Captioners, encoders, official checkpoints and stores that somebody has damaged, by accident or on purpose.

Each is a good one with one to three changes that know its structure: values of another type or size in its JSON,
tensors of another shape, type or name, cut and exchanged files, pipes and devices, odd tokenizers. It captions a
vector, is saved and read again, and must say the same; or one line says which file is wrong, at the door, when the file
as a whole is no file of its kind, or inside.
"""
import json
import os
import pickle
import shutil
import struct

import torch
from fuzzing import odd_tree, outcome, places

# what is said of a file before anything in it is looked at
DOOR = ('damaged', 'missing', 'no such', 'not valid JSON', 'not UTF-8', 'is a folder', 'is a pipe', 'bytes',
    'no index.json',
    'shorter', ' there; a MiniEncoder', 'holds neither', 'not a dictionary of tensors', 'nested too deeply')

# ---- good captioners

def make_folder(path):
    "A tiny captioner with an offset and a memory"
    from transformers import GPT2Config, GPT2LMHeadModel
    from capdec.bridges import Bridge
    from capdec.folder import NoEncoder, Parts, save_parts
    from capdec.model import CapDecConfig, CaptionModel, train_tokenizer
    words = ['A dog runs.', 'Two cats sit on a bench.', 'A red bus in the rain.']
    tok = train_tokenizer(words*5, 300)
    torch.manual_seed(0)
    lm = GPT2LMHeadModel(GPT2Config(vocab_size=len(tok), n_embd=32, n_layer=2, n_head=4, n_positions=48,
        bos_token_id=tok.bos_token_id, eos_token_id=tok.eos_token_id))
    config = CapDecConfig('transformer', 3, 3, 16, num_layers=1, num_heads=4, lm='tiny', encoder='ViT-B/32')
    model = CaptionModel.create(config, (lm, tok)).eval()
    v = torch.nn.functional.normalize(torch.randn(3, 16), dim=-1)
    save_parts(Parts(model, NoEncoder('ViT-B/32', 16), Bridge('memory', v[0]*.1, v, words)), path)
    return model

def make_encoder(path):
    "A small encoder of the bundled kind"
    from tokenizers import Tokenizer
    from capdec.core import package_file
    from capdec.mini import MiniConfig, MiniEncoder
    tok = Tokenizer.from_file(str(package_file('models', 'mini', 'encoder', 'tokenizer.json')))
    MiniEncoder(MiniConfig(dim=16, backbone='test_efficientnet', image_size=64, width=16, layers=1, heads=2),
        tok).save(path)

def make_official(path, model):
    "An official checkpoint, in both kinds of files"
    from safetensors.torch import save_file
    from capdec.model import to_official
    path.mkdir()
    state = {k: v.clone().contiguous() for k, v in to_official(model).items()}
    torch.save(state, path/'model.pt')
    save_file(state, path/'model.safetensors')
    model.tokenizer.save_pretrained(path/'all')
    vocab = json.loads((path/'all'/'tokenizer.json').read_text())['model']
    (path/'vocab.json').write_text(json.dumps(vocab['vocab']))
    merges = '\n'.join(o if isinstance(o, str) else ' '.join(o) for o in vocab['merges'])
    (path/'merges.txt').write_text('#version: 0.2\n' + merges)
    shutil.rmtree(path/'all')

def make_store(path):
    "A store of three captions with their vectors"
    from capdec.store import EmbeddingStore
    rows = [dict(image_id=i, caption=f'A dog {i}.', id=i, filename=f'{i}.jpg') for i in range(3)]
    with EmbeddingStore.create(path, 4, dict(encoder='mini', kind='text')) as s:
        s.append(rows[:2], torch.randn(2, 4))
        s.append(rows[2:], torch.randn(1, 4))

# ---- what is done with each; each gives something that must be the same after it was saved and read again

def use_folder(path):
    from capdec.decoding import generate
    from capdec.folder import load_parts, save_parts
    def said(folder):
        p = load_parts(folder, 'cpu', encoder=False)
        x = torch.nn.functional.normalize(torch.ones(1, p.model.config.prefix_size), dim=-1)
        return p, generate(p.model, p.bridge(x), texts=True, beam_size=2, max_length=6)
    parts, first = said(path)
    save_parts(parts, path.parent/'again')
    return first, said(path.parent/'again')[1]

def use_encoder(path):
    from capdec.embedding import load_encoder
    def vectors(folder):
        e = load_encoder(folder, 'cpu')
        return e.encode_text(['A dog runs.'], show=False), e.encode_image([torch.rand(3, 32, 32,
            generator=torch.Generator().manual_seed(0))], show=False)
    first = vectors(path)
    if not all(torch.isfinite(o).all() for o in first):
        raise AssertionError('NaN came through')
    return 0, 0

def use_official(path):
    from capdec.decoding import generate
    from capdec.model import load_official
    from capdec.official import save_official
    def said(file):
        m = load_official(file, path, lm_heads=4, num_heads=4)
        return m, generate(m, torch.ones(1, m.config.prefix_size), texts=True, beam_size=2, max_length=6)
    # which of the two: the one that was changed
    both = sorted(path.glob('model.*'), key=lambda o: o.stat().st_mtime_ns)
    model, first = said(both[-1] if both else path/'model.pt')
    save_official(model, path.parent/'again.safetensors')
    return first, said(path.parent/'again.safetensors')[1]

def use_store(path):
    from capdec.store import EmbeddingStore
    s = EmbeddingStore(path)
    rows, v = list(s.rows()), s.vectors() if s.dim else torch.zeros(1)
    if not torch.isfinite(v).all():
        raise AssertionError('NaN came through')
    with EmbeddingStore.create(path.parent/'again', s.dim, s.meta, s.columns, s.dtype) as t:
        if len(rows):
            t.append(rows, v if s.dim else None)
    again = EmbeddingStore(path.parent/'again')
    s.first_rows() if 'image_id' in s.columns else None
    repr(s)
    return rows, list(again.rows())

TARGETS = dict(folder=use_folder, encoder=use_encoder, official=use_official, store=use_store)
# half of them folders
TURN = ['folder', 'encoder', 'folder', 'official', 'folder', 'store']

# ---- changes

KEYS = dict(dtype='evil', torch_dtype='save', model_type='evil', encoder=5, mapping_type=[], n_layer=10**6, stop=5,
    auto_map={'AutoConfig': 'evil.Own'}, attn_implementation='evil/kernel', num_experts=10**6, pruned_heads={'0': [0]},
    architectures=['Evil'], tokenizer_class='Evil', quantization_config={'quant_method': 'gptq'}, is_decoder='x',
    num_layers=10**6, prefix_length=10**6, vocab_size=10**9, backbone='hf-hub:evil/model', layers=10**6, shards=5,
    added_tokens_decoder={'x': 5}, extra_special_tokens={'a': 5}, model_max_length='x', backend='evil', rows='x')
TYPES = ['F32', 'F16', 'BF16', 'F64', 'I64', 'I32', 'U8', 'BOOL', 'F8_E4M3', 'C64', 'EVIL', 'I4']
SIZES = dict(F32=4, F16=2, BF16=2, F64=8, I64=8, I32=4, U8=1, BOOL=1, F8_E4M3=1, C64=8)

def odd_json(f, rng):
    "Another value, or another key, somewhere in the tree"
    try:
        tree = json.loads(f.read_text(encoding='utf-8'))
    except ValueError:
        return odd_bytes(f, rng)
    # tokenizers have thousands of tokens and a few settings
    spots = [p for p in places(tree) if 'vocab' not in p or rng.random() < .02]
    shallow = [p for p in spots if len(p) <= 2]
    path = rng.choice(shallow if rng.random() < .7 else spots)
    tree = odd_tree(tree, rng, path, KEYS)
    f.write_text(json.dumps(tree), encoding='utf-8')

def odd_tensors(f, rng):
    "A safetensors file with another header, or other numbers"
    raw = f.read_bytes()
    n = struct.unpack('<Q', raw[:8])[0]
    head, body = json.loads(raw[8:8+n]), bytearray(raw[8+n:])
    name = rng.choice([k for k in head if k != '__metadata__'])
    o = head[name]
    kind = rng.choice(['nan', 'nan', 'inf', 'dtype', 'retype', 'retype', 'shape', 'reshape', 'reshape', 'drop',
        'rename',
        'rename', 'add', 'offsets', 'zero', 'zero', 'header', 'length', 'meta', 'layer', 'layer'])
    start, end = o['data_offsets']
    if kind in ('nan', 'inf') and o['dtype'] in ('F32', 'F16'):
        size = SIZES[o['dtype']]
        at = start + rng.randrange(max(1, (end-start)//size))*size
        body[at:at+size] = struct.pack('<f' if size == 4 else '<e', float(kind))
    elif kind == 'dtype':
        o['dtype'] = rng.choice(TYPES)
    elif kind == 'retype':
        same = [t for t, s in SIZES.items() if s == SIZES.get(o['dtype'])]
        o['dtype'] = rng.choice(same)
    elif kind == 'shape':
        o['shape'] = rng.choice([[], [0], [10**9], [1]*70, [-1], ['x'], [10**6, 10**6], o['shape'] + [1], None])
    elif kind == 'reshape':
        o['shape'] = o['shape'][::-1] if rng.random() < .5 else [1, *o['shape']]
    elif kind == 'drop':
        del head[name]
    elif kind == 'rename':
        head[rng.choice(['', 'evil', name + 'x', 'lm.' + name, name.replace('0', '1')])] = head.pop(name)
    elif kind == 'add':
        head[name + '2'] = dict(o)
    elif kind == 'offsets':
        o['data_offsets'] = rng.choice([[0, 10**12], [-1, 4], [end, start], [start, end-1], [0, 0]])
    elif kind == 'zero':
        body[start:end] = bytes(end-start)
    elif kind == 'meta':
        head['__metadata__'] = rng.choice([5, {'a': 5}, None, {'progress': '5'}])
    elif kind == 'layer':
        for i in range(rng.choice([3, 1000])):
            head[f'lm.transformer.h.{i+7}.x'] = dict(dtype='F32', shape=[0], data_offsets=[end, end])
    text = json.dumps(head).encode() if kind != 'header' else rng.choice([b'', b'[]', b'{', b'5', b'null', b'{"a":5}'])
    length = rng.choice([0, 10**9, 2**63, len(text)+1]) if kind == 'length' else len(text)
    f.write_bytes(struct.pack('<Q', length) + text + bytes(body))

class Asks:
    "Pickled, it asks for a function"
    def __init__(self, *call):
        self.call = call
    def __reduce__(self):
        return self.call

def odd_torch(f, rng):
    "A file of torch.save with other tensors, or something else in it"
    state = torch.load(f, weights_only=True)
    name = rng.choice(list(state))
    storage = torch.arange(3.)._typed_storage()
    kind = rng.choice(['nan', 'shape', 'drop', 'rename', 'value', 'large', 'grown', 'code', 'list', 'old', 'half',
        'int',
        'cut', 'int key', 'nested', 'width'])
    if kind == 'nan':
        state[name].flatten()[0] = rng.choice([float('nan'), float('inf')])
    elif kind == 'shape':
        state[name] = rng.choice([state[name][None], state[name].flatten()[:-1], torch.zeros(0), torch.tensor(1.)])
    elif kind == 'drop':
        del state[name]
    elif kind == 'rename':
        state[rng.choice(['', 'evil', 'gpt.', f'module.{name}', name.replace('0', '1'), '\ud800'])] = state.pop(name)
    elif kind == 'value':
        state[name] = rng.choice([5, None, 'evil', [1], {'a': 1}, (state[name],)])
    elif kind == 'large':
        state[name] = torch.ones(1).expand(10**10)
    elif kind == 'grown':
        state[name] = Asks(torch._utils._rebuild_tensor_v2, (storage, 0, (10**8,), (1,), False, {}))
    elif kind == 'code':
        state[name] = Asks(os.system, ('touch EVIL',))
    elif kind == 'list':
        state = rng.choice([[], [state], 5, None, {}, 'evil'])
    elif kind == 'half':
        state = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    elif kind == 'int':
        state[name] = state[name].long()
    elif kind == 'int key':
        state[5] = state.pop(name)
    elif kind == 'nested':
        state = dict(state_dict=state)
    elif kind == 'width':
        state['gpt.transformer.wte.weight'] = torch.zeros(1, rng.choice([0, 10**6]))
    if kind == 'cut':
        return odd_bytes(f, rng)
    torch.save(state, f, _use_new_zipfile_serialization=kind != 'old')

def odd_arrow(f, rng):
    "A shard with other rows, columns or numbers, of the length that the index says"
    import pyarrow as pa
    table = pa.ipc.open_stream(f.read_bytes()).read_all()
    kind = rng.choice(['nan', 'inf', 'rows', 'column', 'null', 'type', 'order', 'number', 'same', 'flip', 'packed',
        'width'])
    columns = {k: table[k].combine_chunks() for k in table.column_names}
    v = table['vector'].combine_chunks().flatten().to_numpy().copy()
    if kind in ('nan', 'inf'):
        v[rng.randrange(len(v))] = float(kind)
    columns['vector'] = pa.FixedSizeListArray.from_arrays(pa.array(v), 4)
    name = rng.choice(list(columns))
    if kind == 'width':
        columns['vector'] = pa.FixedSizeListArray.from_arrays(pa.array(v[:len(table)*2]), 2)
    elif kind == 'column':
        del columns[name]
    elif kind == 'null':
        columns[name] = pa.array([None]*len(table), columns[name].type)
    elif kind == 'type':
        columns[name] = pa.array(['x']*len(table))
    elif kind == 'number':
        columns['image_id'] = pa.array(['no number', '\0"x', '9'*5000][:len(table)])
    elif kind == 'order':
        columns = dict(reversed(columns.items()))
    table = pa.table(columns)
    if kind == 'rows':
        table = table.slice(0, 1) if rng.random() < .5 else pa.concat_tables([table, table])
    options = pa.ipc.IpcWriteOptions(compression='zstd' if kind == 'packed' else None)
    with pa.OSFile(str(f), 'wb') as o, pa.ipc.new_stream(o, table.schema, options=options) as w:
        w.write_table(table)
    raw = bytearray(f.read_bytes())
    if kind == 'flip':
        for _ in range(rng.choice([1, 3, 30])):
            raw[rng.randrange(len(raw))] = rng.randrange(256)
        f.write_bytes(bytes(raw))
    note = f.parent/'index.json'
    # an earlier change may have put a pipe there
    if note.is_symlink() or not note.is_file() or note.stat().st_size > 10**8:
        return
    index = json.loads(note.read_text())
    for s in index['shards']:
        if s['file'] == f.name:
            s['bytes'] = len(raw)
    note.write_text(json.dumps(index))

PAGES = [b'', b'\0'*50, b'<!DOCTYPE html><html>quota exceeded</html>', 'caf\xe9'.encode('latin-1'), b'\xff\xfe{\0}\0',
    b'version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 5\n', b'[1]', b'5', b'"x"', b'null', b'{}',
    b'{"a":'*100_000, b'[' + b'9'*5000 + b']', b'\xef\xbb\xbf{}', b'PK\3\4', pickle.dumps([1])]

def odd_bytes(f, rng):
    "A file that is cut, changed or something else"
    raw, kind = f.read_bytes(), rng.choice(['cut', 'flip', 'flip', 'page', 'more', 'twice'])
    if kind == 'cut':
        f.write_bytes(raw[:rng.randrange(len(raw)+1)])
    elif kind == 'flip' and raw:
        new = bytearray(raw)
        for _ in range(rng.choice([1, 1, 3, 30])):
            new[rng.randrange(min(len(new), rng.choice([20, 2000, 10**9])))] = rng.randrange(256)
        f.write_bytes(bytes(new))
    else:
        f.write_bytes({'page': rng.choice(PAGES), 'more': raw + b'{}'}.get(kind, raw*2))

def odd_place(f, rng):
    "A file that is away, or no file"
    kind = rng.choice(['away', 'folder', 'pipe', 'device', 'dead', 'sparse'])
    f.unlink()
    if kind == 'folder':
        f.mkdir()
    elif kind == 'pipe':
        os.mkfifo(f)
    elif kind == 'device':
        f.symlink_to('/dev/zero')
    elif kind == 'dead':
        f.symlink_to('nowhere')
    elif kind == 'sparse':
        with open(f, 'wb') as o:
            o.truncate(10**10)

def odd_lines(f, rng):
    "A text with other lines"
    lines = f.read_bytes().split(b'\n')
    at = rng.randrange(len(lines))
    lines[at:at+1] = rng.choice([[], [lines[at]]*2, [b'\xff'], [b'\0'], [b''], [b'a\rb'], ['a\u2028b'.encode()],
        [b'x'*10**6]])
    f.write_bytes(b'\n'.join(lines))

HOW = {'.json': odd_json, '.safetensors': odd_tensors, '.txt': odd_lines, '.pt': odd_torch, '.arrow': odd_arrow}

def change(folder, rng):
    "One to three changes; what was done, in words"
    done = []
    for _ in range(rng.choice([1, 1, 1, 1, 2, 3])):
        files = [o for o in sorted(folder.iterdir()) if o.is_file() and not o.is_symlink()
            and o.stat().st_size < 10**8]
        if not files:
            break
        f = rng.choice(files)
        if rng.random() < .05:
            how = odd_place
        elif rng.random() < .08:
            how = odd_bytes
        else:
            how = HOW.get(f.suffix, odd_bytes)
        try:
            how(f, rng)
        except Exception:
            # an earlier change has left nothing to change
            how = odd_bytes
            how(f, rng) if f.is_file() else None
        done.append(f'{how.__name__} {f.name}')
    return done

# ---- the kind

class Folders:
    name, door = 'folders', DOOR
    def ready(self, folder):
        "Good captioners, encoders, checkpoints and stores, each of which must be read as it is"
        self.good = folder/'good'
        self.good.mkdir()
        model = make_folder(self.good/'folder')
        make_encoder(self.good/'encoder')
        make_official(self.good/'official', model)
        make_store(self.good/'store')
        for name in TARGETS:
            box = folder/f'try {name}'
            shutil.copytree(self.good/name, box/name)
            end = outcome(self, box/name, name)
            assert end == ('read', ''), (name, end)

    def name_of(self, path):
        return str(path.parent)

    def make(self, box, rng):
        name = rng.choice(TURN)
        shutil.copytree(self.good/name, box/name)
        return box/name, f'{name}: {", ".join(change(box/name, rng))}', name

    def use(self, path, known):
        return TARGETS[known](path)
