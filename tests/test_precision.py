"Types of numbers: the processor is asked, captions in each type are near those in float32, unknown types are refused"
import copy
import os
import platform
import subprocess
import sys
import warnings

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from capdec import decoding, precision
from capdec.captioner import Captioner
from capdec.core import demo_photos
from capdec.embedding import load_encoder
from capdec.folder import load_parts, set_dtype
from capdec.precision import DTYPES, compute_dtype, native_bfloat16, native_int8, tower_dtype

@pytest.fixture
def machine(monkeypatch):
    "A machine that lists features of its processor, and how PyTorch uses it"
    def make(*features, kernels='AVX512', kind='x86_64'):
        monkeypatch.delenv('ATEN_CPU_CAPABILITY', raising=False)
        monkeypatch.setattr(platform, 'machine', lambda: kind)
        monkeypatch.setattr(torch.backends.cpu, 'get_cpu_capability', lambda: kernels)
        monkeypatch.setattr(torch.cpu, 'get_capabilities', lambda: dict.fromkeys(features, True), raising=False)
        precision._native.cache_clear()
    yield make
    monkeypatch.undo()
    precision._native.cache_clear()

@pytest.mark.parametrize('features,kernels,half,eight', [((), 'AVX2', False, False),
    (('avx512_bf16', 'amx_bf16', 'avx512_vnni'), 'AVX2', False, False), (('avx512_vnni',), 'AVX512', False, True),
    (('avx512_bf16', 'avx512_vnni'), 'AVX512', True, True), (('amx_bf16',), 'AVX512', True, False)])
def test_the_processor_is_asked(machine, features, kernels, half, eight):
    machine(*features, kernels=kernels)
    assert (native_bfloat16(), native_int8()) == (half, eight)
    assert compute_dtype() == compute_dtype(None) == tower_dtype() == ('bfloat16' if half else 'float32')

@pytest.mark.parametrize('said,native', [('1', True), ('0', False), ('', False)])
def test_apples_system_is_asked(machine, monkeypatch, said, native):
    machine(kind='arm64')
    monkeypatch.setattr(platform, 'system', lambda: 'Darwin')
    monkeypatch.setattr(subprocess, 'run', lambda *args, **kw: subprocess.CompletedProcess(args, 0, said + '\n', ''))
    assert native_bfloat16() == native and not native_int8()

@pytest.mark.parametrize('line,native', [('Features\t: fp asimd i8mm bf16', True), ('Features\t: fp asimd', False)])
def test_linux_on_arm_is_asked(machine, monkeypatch, line, native):
    machine(kind='aarch64')
    monkeypatch.setattr(platform, 'system', lambda: 'Linux')
    monkeypatch.setattr(precision.Path, 'read_text', lambda *args, **kw: f'processor\t: 0\n{line}\n')
    assert native_bfloat16() == native

def test_an_older_torch_is_asked(machine, monkeypatch):
    machine()
    monkeypatch.delattr(torch.cpu, 'get_capabilities', raising=False)
    monkeypatch.setattr(torch.cpu, '_is_avx512_bf16_supported', lambda: True, raising=False)
    monkeypatch.setattr(torch.cpu, '_is_amx_tile_supported', lambda: False, raising=False)
    assert native_bfloat16()

def test_gpus_are_asked(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_bf16_supported', lambda including_emulation=True: including_emulation)
    assert not native_bfloat16('cuda') and compute_dtype('auto', 'cuda') == 'float32'
    monkeypatch.setattr(torch.cuda, 'is_bf16_supported', lambda including_emulation=True: True)
    assert compute_dtype('auto', 'cuda') == 'bfloat16' and tower_dtype('auto', 'cuda') is None
    assert compute_dtype('float16', 'cuda') == tower_dtype('float16', 'cuda') == 'float16'
    assert not native_bfloat16('mps') and compute_dtype('auto', 'mps') == 'float32'

@pytest.mark.parametrize('switch', ['avx2', 'default'])
def test_the_switch_of_torch_is_obeyed(switch):
    r = subprocess.run([sys.executable, '-c', 'from capdec.precision import *; print(compute_dtype(), native_int8())'],
        env=os.environ | dict(ATEN_CPU_CAPABILITY=switch), capture_output=True, text=True, check=True)
    assert r.stdout.split() == ['float32', 'False']

# ---- refusals

@pytest.mark.parametrize('dtype', ['int4', 'half', 'float64', 'torch.int8x', 'FLOAT32'])
def test_unknown_types_are_refused_in_a_line(dtype):
    for f in (compute_dtype, tower_dtype, lambda o: load_parts('mini', 'cpu', dtype=o, encoder=False)):
        with pytest.raises(ValueError) as e:
            f(dtype)
        assert str(e.value) == f'dtype {dtype!r}: use {", ".join(DTYPES)}'
    with pytest.raises(ValueError, match='use auto, float32'):
        load_encoder('mini', 'cpu', dtype)

def test_what_a_machine_cannot_do(machine):
    machine(kernels='AVX2')
    with pytest.raises(ValueError, match='dtype int8: is for CPUs with VNNI instructions, which this one lacks'):
        compute_dtype('int8')
    for dtype in ('bfloat16', 'float16'):
        with pytest.warns(UserWarning, match=f'dtype {dtype}: this CPU does not compute it itself.*float32 is used'):
            assert compute_dtype(dtype) == 'float32'
        assert tower_dtype(dtype) == 'float32'
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert Captioner.from_pretrained('mini', 'cpu').dtype == compute_dtype('float32') == 'float32'
    machine('avx512_vnni')
    with pytest.raises(ValueError, match='which cuda lacks'):
        compute_dtype('int8', 'cuda')

def test_8_bits_are_for_gpt2(machine, mini, monkeypatch):
    machine('avx512_vnni')
    monkeypatch.setattr('capdec.folder.is_plain_gpt2', lambda lm: False)
    with pytest.raises(ValueError, match='dtype int8: is for GPT-2s, and the language model is mini; use auto'):
        set_dtype(copy.copy(mini.model), 'int8')

# ---- equality: the same numbers on every machine that has oneDNN, quicker on some

@pytest.fixture(scope='module')
def vectors(mini):
    some = mini.embed(demo_photos())
    g = torch.Generator().manual_seed(0)
    # between photos, where the captioner is in doubt
    return F.normalize(some[torch.randint(len(some), (60,), generator=g)] + some[torch.randint(len(some), (60,),
        generator=g)], dim=-1)

def in_type(mini, kind, vectors, **how):
    model = copy.copy(mini.model)
    model.compute = kind
    return decoding.generate(model, vectors, normalize=False, **how)

BOUNDS = dict(bfloat16=(.08, .85), int8=(.5, .6))

@pytest.mark.parametrize('kind', BOUNDS)
def test_log_probabilities_are_near(mini, vectors, kind):
    with torch.inference_mode():
        prefix = mini.model.prefix(vectors)
        found = [decoding._PACKED[o](mini.model.raw_lm)(prefix, decoding._Cache(4)).log_softmax(-1)
            for o in ('float32', kind)]
    top = found[0].topk(5).indices
    a, b = (o.gather(1, top) for o in found)
    assert (a - b).abs().max() < BOUNDS[kind][0]

@pytest.mark.parametrize('kind', BOUNDS)
@pytest.mark.parametrize('how', [dict(), dict(method='greedy'), dict(num_captions=3), dict(prompt='A photo of')])
def test_most_captions_are_equal(mini, vectors, kind, how):
    want, found = (in_type(mini, o, vectors, **how) for o in ('float32', kind))
    equal = sum(a[0].text == b[0].text for a, b in zip(want, found))/len(want)
    score = [sum(o[0].score for o in c)/len(c) for c in (want, found)]
    assert equal >= BOUNDS[kind][1] and abs(score[0] - score[1]) < .05, equal

def test_a_type_leaves_the_weights(mini, tmp_path):
    model = copy.deepcopy(mini.model)
    model.compute = 'bfloat16'
    assert {o.dtype for o in model.parameters()} == {torch.float32}
    model.save(tmp_path/'m')
    assert all(torch.equal(o, mini.model.state()[k]) for k, o in model.state().items())

def test_the_librarys_own_way_in_bfloat16(mini, vectors, monkeypatch):
    want = in_type(mini, 'float32', vectors[:20], texts=True)
    monkeypatch.setattr(decoding, 'FAST', False)
    model = copy.deepcopy(mini.model)
    model.compute = 'bfloat16'
    found = decoding.generate(model, vectors[:20], normalize=False, texts=True)
    assert sum(a == b for a, b in zip(want, found)) >= 15

def test_the_bundled_encoder_in_bfloat16():
    a, b = (load_encoder('mini', 'cpu', o) for o in ('float32', 'bfloat16'))
    photos, texts = demo_photos()[:4], ['A dog runs.', 'Two people sit on a bench by the water.']
    for x, y in ((o.encode_image(photos, show=False), o.encode_text(texts, show=False)) for o in (a,)):
        assert F.cosine_similarity(x, b.encode_image(photos, show=False)).min() > .995
        assert F.cosine_similarity(y, b.encode_text(texts, show=False)).min() > .999
    assert b.dtype == torch.bfloat16 and b.encode_image(photos, show=False).dtype == torch.float32

def test_the_quick_image_tower_is_the_image_tower():
    e = load_encoder('mini', 'cpu')
    pixels = [e.prepare(o) for o in demo_photos()]
    quick = e.encode_prepared(pixels)
    assert e.quick
    e.quick = False
    assert (quick - e.encode_prepared(pixels)).abs().max() < 1e-4
    # one photo or many
    e.quick = None
    assert (quick[:1] - e.encode_prepared(pixels[:1])).abs().max() < 1e-4

def test_what_wrote_a_caption_is_noted(mini, tmp_path):
    from capdec.album import album_settings
    from capdec.config import CaptionRun
    assert album_settings(mini, CaptionRun('mini'))['dtype'] == 'float32'
    Image.open(demo_photos()[0]).save(tmp_path/'a.jpg')
    r = subprocess.run([sys.executable, '-m', 'capdec.cli', 'caption', 'a.jpg', '--sidecar', '--dtype', 'float32'],
        cwd=tmp_path, capture_output=True, text=True)
    assert r.returncode == 0, r.stderr
    r = subprocess.run([sys.executable, '-m', 'capdec.cli', 'made-by', 'a.txt'], cwd=tmp_path, capture_output=True,
        text=True)
    assert "dtype 'float32'" in r.stdout

def test_a_store_notes_its_type(tmp_path):
    from capdec.embedding import embed_captions
    rows = [dict(image_id=0, caption='a dog', id=0, filename=None)]
    for kind in ('float32', 'bfloat16'):
        store = embed_captions(rows, load_encoder('mini', 'cpu', kind), tmp_path/kind, show=False)
        assert store.meta['compute'] == kind

# ---- training

def test_training_in_bfloat16_follows_float32(machine, monkeypatch):
    "Loss curves within 1 %, weights and optimiser in float32"
    from capdec import training
    from capdec.config import TrainConfig
    machine('amx_bf16')
    assert training._precision(TrainConfig(), torch.device('cpu')) == 'bf16'
    curves = []
    captions = [f'A {a} {b} {c}.' for a in ('dog', 'cat', 'man', 'bus') for b in ('runs', 'sits', 'waits')
        for c in ('here', 'on the beach', 'in the street', 'by a wall')]
    x = F.normalize(torch.randn(len(captions), 512, generator=torch.Generator().manual_seed(0)), dim=-1)
    for kind in ('no', 'auto'):
        model = load_parts('mini', 'cpu', encoder=False, dtype='float32').model
        config = TrainConfig(bs=12, epochs=3, lr=1e-4, warmup_steps=2, noise_variance=.01, mixed_precision=kind,
            log_steps=2)
        history = training.train(model, (x, captions), config, device='cpu', show=False)
        assert {o.dtype for o in model.parameters()} == {torch.float32}
        curves.append([loss for _, loss in history['steps']])
    assert all(abs(a - b)/a < .01 for a, b in zip(*curves)), curves
