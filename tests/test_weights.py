"Weights and pickles of strangers: nothing in them is run, nothing is changed, and sizes are what the file can fill"
import builtins
import io
import json
import pickle
import resource
import shutil
import subprocess
import sys
import warnings
import zipfile
from collections import OrderedDict
from typing import Tuple

import pytest
import torch
from torch import nn

import capdec.embedding as E
from capdec.captioner import Captioner
from capdec.core import load_pickle, package_file
from capdec.embedding import OpenAIClip, import_clip, load_encoder
from capdec.folder import load_parts
from capdec.model import CaptionModel, load_official
from capdec.noise import load_bridge, load_offset
from capdec.weights import check_fit, is_finite, load_tensors, sketch
from shell import capdec
from towers import random_clip, save_hf

class Evil(nn.Module):
    "Writes the file `written` of the current folder when TorchScript loads it"
    def __init__(self):
        super().__init__()
        self.weight, self.training = nn.Parameter(torch.ones(2)), True

    def forward(self, x):
        return x*self.weight

    @torch.jit.export
    def __getstate__(self) -> Tuple[torch.Tensor, bool]:
        return self.weight, self.training

    @torch.jit.export
    def __setstate__(self, state: Tuple[torch.Tensor, bool]):
        torch.save(state[0], 'written')
        self.weight, self.training = state

@pytest.fixture
def evil(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        torch.jit.script(Evil()).save('evil.pt')
    for name in ('evil.pth', 'evil.npz', 'evil.pkl'):
        shutil.copy('evil.pt', name)
    return tmp_path/'evil.pt'

def scripted_clip(path, kind='vit'):
    "A random CLIP as TorchScript, in half precision, as OpenAI publishes it"
    model = random_clip('tiny', kind).eval()
    inputs = {'encode_image': torch.zeros(1, 3, 64, 64), 'encode_text': torch.zeros(1, 77, dtype=torch.long)}
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        torch.jit.trace_module(model, inputs).half().save(path)
    return model

# ---- nothing is run

@pytest.mark.parametrize('read', [load_tensors, load_encoder, OpenAIClip, load_official, load_bridge, load_parts,
    load_offset, Captioner.from_pretrained])
def test_torchscript_is_not_run(evil, read):
    for name in (evil, evil.with_suffix('.npz'), evil.with_suffix('.pkl')) if read is load_offset else (evil,):
        try:
            assert read(name) == {}
        except ValueError as e:
            assert str(name) in str(e) and '\n' not in str(e)
    assert not (evil.parent/'written').exists()
    # it is dangerous indeed
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        torch.jit.load(evil)
    assert (evil.parent/'written').exists()

@pytest.mark.parametrize('kind', ['vit', 'rn'])
def test_a_clip_in_torchscript_gives_its_vectors(tmp_path, kind, monkeypatch):
    want = OpenAIClip(scripted_clip(tmp_path/'clip.pt', kind).half().float(), device='cpu')
    monkeypatch.setattr(torch.jit, 'load', lambda *a, **k: pytest.fail('it was run'))
    got = load_encoder(tmp_path/'clip.pt', 'cpu')
    assert got.name == 'clip.pt' and got.size == want.size and got.context == want.context
    captions, image = ['a dog', 'two men ride horses'], [torch.rand(3, 80, 60)]
    torch.testing.assert_close(got.encode_text(captions), want.encode_text(captions), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(got.encode_image(image), want.encode_image(image), atol=1e-5, rtol=1e-4)

def test_openais_own_files_are_opened_as_they_are(tmp_path, monkeypatch):
    clip = import_clip()
    scripted_clip(tmp_path/'clip.pt')
    sha = E.file_sha256(tmp_path/'clip.pt')
    monkeypatch.setitem(clip.clip._MODELS, 'RN50', f'https://example.org/{sha}/RN50.pt')
    seen = []
    def load(name, **kw):
        seen.append(name)
        return random_clip('tiny', 'vit'), None
    monkeypatch.setattr(clip, 'load', load)
    load_encoder(tmp_path/'clip.pt', 'cpu')
    assert seen == [str(tmp_path/'clip.pt')]

def test_a_captioner_does_not_say_which_file_is_opened(evil):
    folder = evil.parent/'gift'
    shutil.copytree(package_file('models', 'mini', 'captioner'), folder)
    shutil.copy(evil, folder/'clip.pt')
    (evil.parent/'some').mkdir()
    save_hf(evil.parent/'some'/'clip')
    for name in (str(folder/'clip.pt'), 'gift/clip.pt', 'evil.pt', './gift', '..', 'some/clip', 'gift', 'mini/..'):
        for note in ('captioner.json', 'config.json'):
            f = folder/note
            whole = f.read_text()
            f.write_text(json.dumps(json.loads(whole) | dict(encoder=name)))
            if note == 'config.json':
                (folder/'captioner.json').rename(folder/'away')
            with pytest.raises(ValueError, match='does not say which file is opened; .*--clip_model_type PATH') as e:
                load_parts(folder, 'cpu')
            assert repr(name) in str(e.value) and '\n' not in str(e.value)
            # vectors that are there already need no encoder
            assert load_parts(folder, 'cpu', encoder=False).encoder.name == name
            f.write_text(whole)
            if note == 'config.json':
                (folder/'away').rename(folder/'captioner.json')
    assert not (evil.parent/'written').exists()
    # you say it: then it is opened, and still not run
    with pytest.raises(ValueError, match='evil.pt: not weights of an OpenAI CLIP'):
        load_parts(folder, 'cpu', clip_model_type='evil.pt')
    assert not (evil.parent/'written').exists()

def test_the_command_says_how_to_open_the_encoder(evil, tmp_path):
    folder = tmp_path/'gift'
    shutil.copytree(package_file('models', 'mini', 'captioner'), folder)
    (folder/'captioner.json').write_text('{"encoder": "evil.pt"}')
    r = capdec('caption', '--model', 'gift', 'photo.jpg', cwd=tmp_path)
    assert r.returncode == 1 and "gift: its encoder is 'evil.pt'" in r.stderr and '--clip_model_type PATH' in r.stderr
    assert 'Traceback' not in r.stderr and not (tmp_path/'written').exists()

def test_code_beside_a_model_is_neither_run_nor_asked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(builtins, 'input', lambda *a: pytest.fail('asked on stdin'))
    code = "open('written', 'w').close()\nclass Own: pass\n"
    save_hf(tmp_path/'clip')
    (tmp_path/'clip'/'own.py').write_text(code)
    for name in ('lm', 'clip'):
        folder = tmp_path/name
        folder.mkdir(exist_ok=True)
        (folder/'own.py').write_text(code)
        auto = {k: 'own.Own' for k in ('AutoConfig', 'AutoModel', 'AutoModelForCausalLM', 'AutoImageProcessor')}
        for file in ('config.json', 'tokenizer_config.json', 'preprocessor_config.json'):
            old = json.loads((folder/file).read_text()) if (folder/file).exists() else {}
            (folder/file).write_text(json.dumps(old | dict(model_type='own', auto_map=auto | dict(
                AutoTokenizer=['own.Own', 'own.Own']))))
    for f in (lambda: load_encoder(tmp_path/'clip', 'cpu'), lambda: CaptionModel.create(
            CaptionModel.from_pretrained(package_file('models', 'mini', 'captioner')).config, str(tmp_path/'lm'))):
        with pytest.raises(ValueError) as e:
            f()
        assert '\n' not in str(e.value)
    assert not (tmp_path/'written').exists()

def test_no_attention_from_the_hub(tmp_path):
    "A configuration may name its attention, and the name may be a program"
    save_hf(tmp_path/'clip')
    want = load_encoder(tmp_path/'clip', 'cpu').encode_text(['a dog'])
    f = tmp_path/'clip'/'config.json'
    f.write_text(json.dumps(json.loads(f.read_text()) | dict(attn_implementation='evil/kernel')))
    assert torch.equal(load_encoder(tmp_path/'clip', 'cpu').encode_text(['a dog']), want)
    folder = tmp_path/'mine'
    shutil.copytree(package_file('models', 'mini', 'captioner'), folder)
    config = json.loads((folder/'config.json').read_text())
    config['lm_config'] |= dict(attn_implementation='evil/kernel', _attn_implementation='evil/kernel', dtype='evil',
        auto_map={'AutoConfig': 'own.Own'}, quantization_config={'quant_method': 'evil'})
    (folder/'config.json').write_text(json.dumps(config))
    assert '/' not in CaptionModel.from_pretrained(folder).lm.config._attn_implementation

# ---- nothing is changed

BUILDS = {
    'attributes': b'}X\x08\0\0\0__name__X\x04\0\0\0evilsb',
    'slots': b'N}X\x0c\0\0\0__defaults__)s\x86b',
}

@pytest.mark.parametrize('name', ['torch._utils _rebuild_tensor_v2', 'torch._utils _rebuild_tensor',
    'torch.storage _load_from_bytes', 'collections OrderedDict'])
@pytest.mark.parametrize('build', BUILDS)
def test_what_an_unpickler_hands_out_cannot_be_changed(name, build):
    module, name = name.split()
    before = {o: (o.__name__, o.__defaults__, dict(vars(o))) for o in (torch._utils._rebuild_tensor_v2,
        torch._utils._rebuild_tensor, torch.storage._load_from_bytes)}
    data = b'\x80\x02c' + f'{module}\n{name}\n'.encode() + BUILDS[build] + b'.'
    with pytest.raises(ValueError, match='refused, it asks for other attributes'):
        load_pickle(io.BytesIO(data), tensors=True)
    assert all((o.__name__, o.__defaults__, dict(vars(o))) == v for o, v in before.items())

def test_a_dictionary_of_weights_keeps_its_order(tmp_path):
    "torch gives it an attribute `_metadata`, which we do not need"
    net = nn.Linear(2, 3)
    (tmp_path/'net.pkl').write_bytes(pickle.dumps(net.state_dict()))
    got = load_pickle(tmp_path/'net.pkl', tensors=True)
    assert isinstance(got, OrderedDict) and list(got) == ['weight', 'bias'] and torch.equal(got['bias'], net.bias)

# ---- sizes

def test_nine_bytes_do_not_take_gigabytes():
    data = b'\x80\x02]r' + (400_000_000).to_bytes(4, 'little') + b'.'
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert load_pickle(io.BytesIO(data)) == []
    # KB; the reader in C takes 6.4 GB
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000

class Large:
    "A tensor of more numbers than there are"
    def __init__(self, size, stride):
        self.size, self.stride = size, stride
    def __reduce__(self):
        x = torch.arange(3.)._typed_storage()
        return torch._utils._rebuild_tensor_v2, (x, 0, self.size, self.stride, False, OrderedDict())

@pytest.mark.parametrize('size,stride', [((1000,), (1,)), ((10**9,), (0,)), ((2, 2), (2, 1)), ((3,), (-1,)),
    ((10**9, 10**9, 10**9), (1, 1, 1))])
def test_a_tensor_has_the_numbers_that_the_file_holds(tmp_path, size, stride):
    f = tmp_path/'x.pkl'
    f.write_bytes(pickle.dumps(dict(offset=Large(size, stride))))
    with pytest.raises(ValueError, match='x.pkl: '):
        load_offset(f)
    torch.save(dict(x=Large(size, stride)), tmp_path/'x.pt')
    with pytest.raises(ValueError, match='x.pt: '):
        load_tensors(tmp_path/'x.pt')

def test_the_same_numbers_again_and_again(tmp_path):
    class Again:
        def __reduce__(self):
            return torch.storage._load_from_bytes, (data,)
    out = io.BytesIO()
    torch.save(torch.zeros(100_000, dtype=torch.int64)._typed_storage(), out, _use_new_zipfile_serialization=False)
    data = out.getvalue()
    (tmp_path/'one.pkl').write_bytes(pickle.dumps([Again()]))
    assert load_pickle(tmp_path/'one.pkl', tensors=True)[0]._size() == 100_000
    (tmp_path/'many.pkl').write_bytes(pickle.dumps([Again() for _ in range(1000)]))
    assert (tmp_path/'many.pkl').stat().st_size < 1_000_000
    with pytest.raises(ValueError, match='the same numbers again and again'):
        load_pickle(tmp_path/'many.pkl', tensors=True)

def test_an_archive_that_was_packed(tmp_path):
    torch.save(dict(x=torch.zeros(10_000_000)), tmp_path/'x.pt')
    with zipfile.ZipFile(tmp_path/'x.pt') as z, zipfile.ZipFile(tmp_path/'packed.pt', 'w', zipfile.ZIP_DEFLATED) as out:
        for o in z.namelist():
            out.writestr(o, z.read(o))
    with pytest.raises(ValueError, match='packed.pt: .* bytes that unpack to 40,000,'):
        load_tensors(tmp_path/'packed.pt')

@pytest.mark.parametrize('width,tokens,match', [(64, 5000, '5,000 tokens'), (100_000, 77, 'not weights')])
def test_a_clip_is_not_larger_than_its_file(tmp_path, width, tokens, match):
    state = random_clip('tiny', 'vit').state_dict()
    state['positional_embedding'] = torch.zeros(tokens, state['positional_embedding'].shape[1])
    state['ln_final.weight'] = torch.zeros(width)
    torch.save(state, tmp_path/'clip.pt')
    with pytest.raises(ValueError, match=match):
        load_encoder(tmp_path/'clip.pt', 'cpu')

def test_an_official_checkpoint_is_not_larger_than_its_file(tmp_path):
    "A width of 200,000 takes 800 KB in the table of one word, and 480 GB in a layer"
    wide = torch.zeros(1, 200_000)
    state = {'gpt.transformer.wte.weight': wide, 'gpt.transformer.wpe.weight': wide.clone(),
        'gpt.transformer.h.0.ln_1.weight': torch.zeros(1), 'clip_project.model.0.weight': torch.zeros(4, 4),
        'clip_project.model.2.bias': torch.zeros(400_000)}
    torch.save(state, tmp_path/'x.pt')
    with pytest.raises(ValueError, match=r'x.pt \(gpt\): tensor'):
        load_official(tmp_path/'x.pt', tokenizer=object(), lm_heads=1)

# ---- what is no number

@pytest.mark.parametrize('dtype', [torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.complex64,
    torch.float8_e4m3fn, torch.int64, torch.bool])
def test_finite(dtype):
    x = torch.ones(5).to(dtype)
    assert is_finite(x) and is_finite(x[:0])
    if dtype.is_floating_point or dtype.is_complex:
        for bad in (float('nan'), float('inf'), -float('inf')):
            y = torch.ones(5)
            y[3] = bad
            # float8 has no infinity
            assert not is_finite(y.to(dtype)) or dtype == torch.float8_e4m3fn and bad == bad

def test_sketches_leave_no_trace():
    with pytest.raises(ValueError, match='more than 3 parts'), sketch(3):
        nn.Sequential(*[nn.Linear(2, 2) for _ in range(10)])
    net = nn.Sequential(*[nn.Linear(2, 2) for _ in range(10)])
    assert net[0].weight.device.type == 'cpu'
    check_fit(net, net.state_dict(), 'x')

def test_other_threads_may_build_meanwhile():
    import threading
    made = []
    with sketch(3):
        t = threading.Thread(target=lambda: made.append(nn.Sequential(*[nn.Linear(2, 2) for _ in range(10)])))
        t.start()
        t.join()
    assert len(made[0]) == 10

def test_weights_can_be_loaded_without_the_rest():
    "The command line must not wait for transformers to read its help"
    code = 'import capdec.weights, sys; print("transformers" in sys.modules)'
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True).stdout.strip() == 'False'

def test_an_encoder_without_some_of_its_weights(tmp_path):
    "transformers would fill them with random numbers"
    from safetensors.torch import load_file, save_file
    save_hf(tmp_path/'clip')
    f = tmp_path/'clip'/'model.safetensors'
    state = load_file(f)
    gone = next(k for k in state if 'q_proj.weight' in k)
    save_file({k: v for k, v in state.items() if k != gone}, f, metadata={'format': 'pt'})
    with pytest.raises(ValueError, match=f'lack 1 tensors, such as {gone}') as e:
        load_encoder(tmp_path/'clip', 'cpu')
    assert '\n' not in str(e.value)
    save_file(state | {gone: torch.full_like(state[gone], float('nan'))}, f, metadata={'format': 'pt'})
    with pytest.raises(ValueError, match='holds NaN or infinity'):
        load_encoder(tmp_path/'clip', 'cpu')
