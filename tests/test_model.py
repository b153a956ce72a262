"capdec.model: parity with the official implementation, properties of the loss, saving, bad input"
import dataclasses,json,os,shutil,subprocess,sys,types
from pathlib import Path

import numpy as np
import pytest
import torch

from capdec.model import (CapDecConfig,CaptionModel,find_stop_ids,gpt2_tokenizer,load_official,make_mapper,
    official_mapper,official_max_tokens,
    pad_tokens,to_official,train_tokenizer)
from towers import kernel_rounding

CAPTIONS = ['a brown dog runs along the beach.', 'a red bus', 'two children play with a ball in the park.',
    'what a goal!', 'ein Hund läuft 🐕 你好']

@pytest.fixture(scope='module')
def tok():
    return train_tokenizer(CAPTIONS, 320)

def tiny_lm(kind, v, h=16, **kwargs):
    "A random language model of two layers"
    from transformers import AutoConfig,AutoModelForCausalLM
    sizes = {
        'gpt2': dict(n_embd=h, n_layer=2, n_head=2, n_positions=48, resid_pdrop=0., embd_pdrop=0., attn_pdrop=0.),
        'llama': dict(hidden_size=h, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=48),
        'opt': dict(hidden_size=h, ffn_dim=32, num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=48,
        word_embed_proj_dim=h, dropout=0.),
        'gpt_neox': dict(hidden_size=h, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=48),
        'bloom': dict(hidden_size=h, n_layer=2, n_head=2),
        'gemma2': dict(hidden_size=h, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8, max_position_embeddings=48),
        'qwen2': dict(hidden_size=h, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=48)}
    cfg = AutoConfig.for_model(kind, vocab_size=v, bos_token_id=0, eos_token_id=0, pad_token_id=0,
        **{**sizes[kind], **kwargs})
    return AutoModelForCausalLM.from_config(cfg)

def tiny(tok, lm='gpt2', mapping='mlp', seed=0, **kwargs):
    torch.manual_seed(seed)
    cfg = CapDecConfig(mapping, **{**dict(prefix_length=3, prefix_length_clip=2, prefix_size=12, num_layers=1,
        num_heads=4), **kwargs})
    return CaptionModel(cfg, tiny_lm(lm, len(tok)), tok).eval()

# --- the official implementation ---

@pytest.fixture(scope='module')
def gpt2_tok(shared):
    return gpt2_tokenizer(shared/'data/gpt2_bpe')

@pytest.mark.parametrize('name', ['mlp','transformer'])
def test_official_outputs(golden, gpt2_tok, name):
    z,info = np.load(golden/f'official_{name}.npz'),json.loads((golden/'golden.json').read_text())
    model = load_official(golden/f'official_{name}.pt', gpt2_tok, lm_heads=4)
    x,tokens = torch.tensor(z['prefix']),torch.tensor(z['tokens'])
    mask = torch.tensor(z['mask'])[:, 10:] > 0
    with torch.no_grad():
        assert (model.prefix(x) - torch.tensor(z['prefix_embed'])).abs().max() < 1e-5
        assert (model.prefix(torch.tensor(z['query'])) - torch.tensor(z['query_prefix_embed'])).abs().max() < 1e-5
        logits,expected = model.logits(x, tokens)[..., :64][mask],torch.tensor(z['logits_head'])[mask]
        # logits reach tens: single precision has no more digits
        assert torch.allclose(logits, expected, rtol=1e-5, atol=1e-5)
        eps = 1e-5 + kernel_rounding(model, x, tokens)
        assert eps < 1e-4 and abs(model(x, tokens, mask, official=True).item() - z['loss'].item()) < eps
        # no `!` among these: both rules agree
        assert (tokens[mask] != 0).all() and abs(model(x, tokens, mask).item() - z['loss'].item()) < eps
    c = model.config
    assert (c.mapping_type, c.prefix_length, c.prefix_size, c.encoder) == (name, info['prefix_length'],
        info['prefix_size'], 'ViT-B/32')
    assert name == 'mlp' or (c.prefix_length_clip, c.num_layers) == (info['prefix_length_clip'], info['num_layers'])
    assert model.lm.config.n_layer == 2 and model.lm.config.n_positions == 128

def test_official_transformer_decoder(golden):
    state = {k.removeprefix('clip_project.'):v for k,v in torch.load(golden/'official_transformer_decoder.pt',
        weights_only=True).items()}
    mapper,c = official_mapper(state)
    z = np.load(golden/'official_transformer_decoder.npz')
    with torch.no_grad():
        assert (mapper(torch.tensor(z['x'])) - torch.tensor(z['y'])).abs().max() < 1e-5
    assert (c.mapping_type, c.prefix_length, c.prefix_length_clip, c.prefix_size,
        c.num_layers) == ('transformer_decoder', 6, 5, 64, 2)
    assert mapper.state_dict().keys() == state.keys()

@pytest.mark.parametrize('name', ['mlp','transformer'])
def test_official_and_back(golden, gpt2_tok, tmp_path, name):
    "Official file -> folder -> official file, every bit and every name kept"
    state = torch.load(golden/f'official_{name}.pt', weights_only=True)
    model = load_official(golden/f'official_{name}.pt', gpt2_tok, lm_heads=4)
    model.save(tmp_path/'m')
    back = to_official(CaptionModel.from_pretrained(tmp_path/'m'))
    assert back.keys() == state.keys()
    assert all(torch.equal(back[k], v) for k,v in state.items())

def test_official_tokens(golden, gpt2_tok):
    z = np.load(golden/'official_mlp.npz')
    model = load_official(golden/'official_mlp.pt', gpt2_tok, lm_heads=4)
    rows = [t[m > 0].tolist() for t,m in zip(z['tokens'], z['mask'][:, 10:])]
    assert model.encode(gpt2_tok.batch_decode(rows), official=True) == rows

def test_gpt2_stop_ids(gpt2_tok):
    ids = find_stop_ids(gpt2_tok)
    assert {13, 764, 50256} <= set(ids) and gpt2_tok.decode([13]) == '.' and gpt2_tok.decode([764]) == ' .'
    assert all(gpt2_tok.decode([i]).strip().endswith('.') for i in ids if i != 50256)
    assert not set(ids) & set(gpt2_tok('a man rides, a "horse" in 2 parks!')['input_ids'])

def test_official_errors(golden, gpt2_tok, tmp_path):
    path = golden/'official_mlp.pt'
    # width 32 is no multiple of 64
    with pytest.raises(ValueError, match='pass lm_heads'):
        load_official(path, gpt2_tok)
    with pytest.raises(FileNotFoundError, match='no such file'):
        load_official(tmp_path/'no.pt', gpt2_tok)
    (tmp_path/'cut.pt').write_bytes(path.read_bytes()[:1_000_000])
    with pytest.raises(ValueError, match='damaged'):
        load_official(tmp_path/'cut.pt', gpt2_tok)
    (tmp_path/'text.pt').write_text('not a checkpoint')
    with pytest.raises(ValueError):
        load_official(tmp_path/'text.pt', gpt2_tok)
    state = torch.load(path, weights_only=True)
    with pytest.raises(ValueError, match='clip_project.model.7|model.7'):
        load_official({**state, 'clip_project.model.7.weight':torch.ones(1)}, gpt2_tok, lm_heads=4)
    with pytest.raises(ValueError, match='neither mlp'):
        load_official({k:v for k,v in state.items() if 'clip_project' not in k}, gpt2_tok, lm_heads=4)
    old = {**state, **{f'gpt.transformer.h.{i}.attn.{o}':torch.ones(1) for i in (0,1) for o in ('bias','masked_bias')}}
    assert to_official(load_official(old, gpt2_tok, lm_heads=4)).keys() == state.keys()

def test_pickle_that_runs_code(tmp_path):
    "A checkpoint that would execute something is refused, and nothing is executed"
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path/'pwned'), 'w'))
    torch.save({'gpt.x': Evil()}, tmp_path/'evil.pt')
    with pytest.raises(ValueError, match='refused'):
        load_official(tmp_path/'evil.pt', object())
    assert not (tmp_path/'pwned').exists()

def test_untied_head_survives(tok):
    model = tiny(tok)
    state = to_official(model)
    state['gpt.lm_head.weight'] = state['gpt.lm_head.weight'] + 1
    again = to_official(load_official(state, tok, lm_heads=2))
    assert all(torch.equal(again[k], v) for k,v in state.items())

# --- the loss ---

@pytest.mark.parametrize('lm,mapping', [(o, 'transformer') for o in ('gpt2','llama','opt','gpt_neox','bloom','gemma2',
    'qwen2')] + [('gpt2','mlp'), ('gpt2','transformer_decoder')])
def test_loss_is_the_plain_one(tok, lm, mapping):
    "Against a loop over captions that uses nothing but the whole language model; padding and neighbours do not matter"
    model = tiny(tok, lm, mapping)
    x = torch.randn(len(CAPTIONS), 12)
    total,n = 0.,0
    with torch.no_grad():
        for v,ids in zip(x, model.encode(CAPTIONS)):
            ids = torch.tensor([ids])
            embeds = torch.cat([model.mapper(v[None]), model.lm.get_input_embeddings()(ids)], 1)
            lp = model.lm(inputs_embeds=embeds).logits[:, 2:-1].log_softmax(-1).gather(-1, ids[..., None])
            total,n = total - lp.sum().item(),n + ids.numel()
        tokens,mask = model.tokenize(CAPTIONS)
        loss = model(x, tokens, mask)
        assert abs(loss.item() - total/n) < 1e-5
        for value in (0, 5):
            padded = torch.nn.functional.pad(tokens, (0, 7), value=value).masked_fill(~torch.nn.functional.pad(mask,
                (0, 7)), value)
            assert abs(model(x, padded, torch.nn.functional.pad(mask, (0, 7))).item() - loss.item()) < 1e-6

def test_padding_does_not_change_gradients(tok):
    model = tiny(tok).train()
    x = torch.randn(len(CAPTIONS), 12)
    tokens,mask = model.tokenize(CAPTIONS)
    grads = []
    for extra in (0, 6):
        model.zero_grad()
        model(x, torch.nn.functional.pad(tokens, (0, extra), value=9),
            torch.nn.functional.pad(mask, (0, extra))).backward()
        grads.append([p.grad.clone() for p in model.parameters()])
    assert all(torch.allclose(a, b, atol=1e-6) for a,b in zip(*grads))

def test_official_loss_ignores_exclamation_marks(tok):
    assert tok.decode([0]) == '!'
    model = tiny(tok)
    x = torch.randn(1, 12)
    tokens,mask = model.tokenize(['what a goal!'], add_stop=False)
    with torch.no_grad():
        assert model(x, tokens, mask, official=True) == model(x, tokens[:, :-1], mask[:, :-1])
        assert model(x, tokens, mask, official=True) != model(x, tokens, mask)

@pytest.mark.parametrize('only_prefix', [False, True])
def test_frozen_lm(tok, only_prefix):
    model = tiny(tok, only_prefix=only_prefix).train()
    assert model.lm.training != only_prefix and model.mapper.training
    model(torch.randn(2, 12), *model.tokenize(CAPTIONS[:2])).backward()
    assert all((p.grad is None) == only_prefix for p in model.lm.parameters())
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.mapper.parameters())

def test_too_long(tok):
    model = tiny(tok)
    # 48 positions - 3 of the prefix
    assert len(model.encode(['a dog '*500])[0]) == 45
    assert len(model.encode(['a dog '*500], max_tokens=7)[0]) == 7
    model(torch.randn(1, 12), *model.tokenize(['a dog '*500]))
    with pytest.raises(ValueError, match='room for 45'):
        model(torch.randn(1, 12), torch.ones(1, 46, dtype=torch.long))
    with pytest.raises(ValueError, match=r'takes \(b, 12\)'):
        model.prefix(torch.randn(2, 13))
    with pytest.raises(ValueError, match='takes'):
        model.prefix(torch.randn(12))

def test_stops(tok):
    model = tiny(tok)
    ids = model.encode(['a dog', 'a dog.', 'a dog . ', '', 'no!'])
    assert all(o[-1] in model.stop_ids for o in ids) and ids[0] == ids[1]
    assert tok.decode(model.encode(['a dog'], official=True)[0]) == 'a dog'
    assert tiny(tok, add_stop=False).encode(['a dog']) == [ids[0][:-1]]
    both = tiny(tok, stop='.!')
    assert tok.decode(both.encode(['no!'])[0]) == 'no!' and set(tok('!')['input_ids']) <= set(both.stop_ids)

def test_official_max_tokens():
    x = [10]*1000 + [11]*1000 + [60]
    assert official_max_tokens(x) == int(np.mean(x) + 10*np.std(x, ddof=1)) < 60
    assert official_max_tokens([3, 9]) == 9 and official_max_tokens([4]) == 4

def test_pad_tokens():
    tokens,mask = pad_tokens([[1,2,3], [4], []])
    assert tokens.tolist() == [[1,2,3],[4,0,0],[0,0,0]] and mask.sum(1).tolist() == [3,1,0]
    assert pad_tokens([])[0].shape == (0, 0)

# --- files ---

@pytest.mark.parametrize('lm', ['gpt2','llama','opt','gpt_neox','bloom','gemma2','qwen2'])
def test_save_and_load(tok, tmp_path, lm):
    model = tiny(tok, lm, noise_variance=0.016, encoder='mini', provenance={'data':'tests'})
    model.save(tmp_path/'a/m')
    again = CaptionModel.from_pretrained(tmp_path/'a/m')
    assert again.config == model.config and not again.training
    assert again.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(v, again.state_dict()[k]) for k,v in model.state_dict().items())
    x = torch.randn(2, 12)
    # buffers too
    with torch.no_grad():
        assert torch.equal(again(x, *again.tokenize(CAPTIONS[:2])), model(x, *model.tokenize(CAPTIONS[:2])))
    assert [o.name for o in (tmp_path/'a').iterdir()] == ['m']

def test_save_over(tok, tmp_path):
    "An older captioner is replaced, the user's own files stay; an interrupted save changes nothing"
    tiny(tok, seed=1).save(tmp_path/'m')
    (tmp_path/'m/notes.txt').write_text('mine')
    new = tiny(tok, seed=2)
    new.save(tmp_path/'m')
    assert (tmp_path/'m/notes.txt').read_text() == 'mine'
    assert torch.equal(CaptionModel.from_pretrained(tmp_path/'m').mapper.model[0].weight, new.mapper.model[0].weight)
    def broken(dtype=None):
        raise KeyboardInterrupt
    third = tiny(tok, seed=3)
    third.state = broken
    for target in ('m', 'fresh'):
        with pytest.raises(KeyboardInterrupt):
            third.save(tmp_path/target)
    assert torch.equal(CaptionModel.from_pretrained(tmp_path/'m').mapper.model[0].weight, new.mapper.model[0].weight)
    assert [o.name for o in tmp_path.iterdir()] == ['m']

def test_a_save_takes_the_parts_of_the_former_captioner(tok, tmp_path):
    "All that was made for other weights; what is your own stays"
    from capdec.model import BESIDE
    tiny(tok, seed=1).save(tmp_path/'m')
    for o in (*BESIDE, 'README.md'):
        (tmp_path/'m'/o).write_text('old')
    tiny(tok, seed=2).save(tmp_path/'m')
    assert {o.name for o in (tmp_path/'m').iterdir()} == {o.name for o in tiny(tok).save(tmp_path/'n').iterdir()
        } | {'README.md'}

def test_a_save_that_is_killed_mixes_nothing(tok, tmp_path, monkeypatch):
    "Whatever step it is ended before, a folder that loads is the old captioner or the new one, with what is its own"
    from capdec.model import BESIDE
    class Killed(BaseException):
        pass
    steps, at, seen = [0], [0], set()
    def counted(real):
        def step(*args, **kwargs):
            if str(tmp_path/'m') in str(args[0] if real is unlink else args[1]):
                steps[0] += 1
                if steps[0] == at[0]:
                    raise Killed
            return real(*args, **kwargs)
        return step
    replace, unlink = os.replace, Path.unlink
    old, new = tiny(tok, seed=1, encoder='old'), tiny(tok, seed=2, encoder='new')
    while True:
        shutil.rmtree(tmp_path/'m', ignore_errors=True)
        old.save(tmp_path/'m')
        for o in BESIDE:
            (tmp_path/'m'/o).write_text('old')
        steps[0], at[0] = 0, at[0] + 1
        with monkeypatch.context() as m:
            m.setattr(os, 'replace', counted(replace))
            m.setattr(Path, 'unlink', counted(unlink))
            try:
                new.save(tmp_path/'m')
            except Killed:
                pass
        parts = [o for o in BESIDE if (tmp_path/'m'/o).exists()]
        try:
            got = CaptionModel.from_pretrained(tmp_path/'m')
        except FileNotFoundError as e:
            assert 'model.safetensors: missing' in str(e)
            seen.add('none')
            continue
        weights = got.mapper.model[0].weight
        which = got.config.encoder
        assert torch.equal(weights, dict(old=old, new=new)[which].mapper.model[0].weight)
        assert parts == (list(BESIDE) if which == 'old' else [])
        seen.add(which)
        if steps[0] < at[0]:
            break
    assert which == 'new' and seen == {'old', 'none', 'new'}

@pytest.mark.parametrize('dtype', ['float16', torch.bfloat16, 'float32'])
def test_dtype_on_disk(tok, tmp_path, dtype):
    model = tiny(tok)
    model.save(tmp_path/'m', dtype)
    again = CaptionModel.from_pretrained(tmp_path/'m')
    assert again.mapper.model[0].weight.dtype == torch.float32
    assert torch.allclose(again.mapper.model[0].weight, model.mapper.model[0].weight, atol=1e-2)
    with pytest.raises(ValueError, match='use float32'):
        model.save(tmp_path/'m', 'int8')

def test_bad_folders(tok, tmp_path):
    good = tiny(tok).save(tmp_path/'m')
    load = CaptionModel.from_pretrained
    weights,config = (good/'model.safetensors').read_bytes(),json.loads((good/'config.json').read_text())
    for cut in (0, 5, 200, len(weights)//2, len(weights)-1):
        (good/'model.safetensors').write_bytes(weights[:cut])
        with pytest.raises(ValueError, match='cut short'):
            load(good)
    (good/'model.safetensors').write_bytes(weights)
    for change,message in [({'prefix_size':13}, r"'mapper.model.0.weight' has shape \(24, 12\), \(24, 13\)"),
        ({'model_type':'gpt2'}, 'no captioner'),
            ({'mapping_type':'what'}, 'use mlp'), ({'mapping_type':'transformer'}, 'does not have')]:
        (good/'config.json').write_text(json.dumps({**config, **change}))
        with pytest.raises(ValueError, match=message):
            load(good)
    (good/'config.json').write_text('{')
    with pytest.raises(ValueError, match='not valid JSON'):
        load(good)
    (good/'config.json').write_text(json.dumps({**config, 'from_a_later_version':1}))
    load(good)
    (good/'model.safetensors').unlink()
    with pytest.raises(FileNotFoundError, match='model.safetensors: missing'):
        load(good)
    with pytest.raises(ValueError, match='is a file'):
        load(good/'config.json')

def test_unknown_name_offline(tmp_path):
    "Without a network an unknown name ends in one clear sentence"
    code = ("from capdec.model import *\n"
        "for f in (lambda: CaptionModel.from_pretrained('nobody/nothing'), lambda: CaptionModel.create(CapDecConfig(), "
        "'nobody/nothing')):\n"
        "    try: f()\n"
        "    except OSError as e: print(e)\n")
    out = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True,
        env={**__import__('os').environ, 'HF_HUB_OFFLINE':'1', 'HF_HOME':str(tmp_path)})
    lines = out.stdout.splitlines()
    assert len(lines) == 2 and all('nobody/nothing: neither a folder' in o and 'check the name and the network' in o
        for o in lines), out.stderr

def test_hub(tok, tmp_path, monkeypatch):
    "What is pushed is what is loaded; the hub is played by a folder"
    import shutil,huggingface_hub
    class Api:
        def __init__(self, token=None):
            pass
        def create_repo(self, repo_id, private, exist_ok):
            return types.SimpleNamespace(repo_id=repo_id)
        def upload_folder(self, repo_id, folder_path, commit_message):
            return shutil.copytree(folder_path, tmp_path/repo_id)
    monkeypatch.setattr(huggingface_hub, 'HfApi', Api)
    monkeypatch.setattr(huggingface_hub, 'snapshot_download', lambda name, revision=None,
        allow_patterns=None: str(tmp_path/name))
    model = tiny(tok)
    model.push_to_hub('me/mine')
    again = CaptionModel.from_pretrained('me/mine')
    assert all(torch.equal(v, again.state_dict()[k]) for k,v in model.state_dict().items())

def test_create(tok, tmp_path):
    "A pretrained language model comes from a folder as from the hub"
    lm = tiny_lm('llama', len(tok))
    lm.save_pretrained(tmp_path/'lm')
    tok.save_pretrained(tmp_path/'lm')
    model = CaptionModel.create(CapDecConfig('mlp', 3, 3, 12), str(tmp_path/'lm'))
    assert all(torch.equal(v, model.lm.state_dict()[k]) for k,v in lm.state_dict().items())
    assert model.config.lm == str(tmp_path/'lm') and model.encode(CAPTIONS) == tiny(tok).encode(CAPTIONS)
    with pytest.raises(ValueError, match='do not belong together'):
        CaptionModel.create(CapDecConfig('mlp'), (tiny_lm('gpt2', 100), tok))
    (tmp_path/'no').mkdir()
    with pytest.raises(ValueError, match='holds no language model'):
        CaptionModel.create(CapDecConfig('mlp'), str(tmp_path/'no'))

def test_config():
    c = CapDecConfig('transformer_encoder')
    assert c.mapping_type == 'transformer' and dataclasses.replace(c, lm='x').lm == 'x'
    for bad in ({'prefix_length':-1}, {'mapping_type':'x'}, {'num_layers':0}, {'stop':''}, {'max_tokens':1.5}):
        with pytest.raises(ValueError):
            CapDecConfig(**bad)
    with pytest.raises(ValueError, match='divide'):
        make_mapper(CapDecConfig(), 20)
