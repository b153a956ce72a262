"The first caption: what it needs is loaded, no more, and it says the same"
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from capdec import decoding, model as models
from capdec.captioner import Captioner
from capdec.core import demo_photos, package_file
from capdec.folder import load_parts
from capdec.mini import MiniConfig, MiniEncoder
from capdec.model import CaptionModel, LightGPT2, LightTokenizer

ROOT = Path(__file__).resolve().parents[1]
FOLDER = package_file('models', 'mini', 'captioner')

def light():
    return CaptionModel.from_pretrained(FOLDER, 'cpu', light=True)

def test_what_is_loaded_for_the_first_caption(tmp_path):
    "transformers, timm and torchvision are not; 350 MB beyond torch are enough (seconds depend on the machine)"
    Image.linear_gradient('L').convert('RGB').save(tmp_path/'a.jpg')
    r = subprocess.run([sys.executable, ROOT/'tools'/'first_caption.py', tmp_path/'a.jpg'], capture_output=True,
        text=True)
    assert r.returncode == 0, r.stderr
    caption, told = r.stdout.splitlines()
    told = json.loads(told)
    assert caption.startswith(f'{tmp_path}/a.jpg\t') and told['imported'] == [] and told['megabytes'] < 350, told

def test_light_and_whole_say_the_same():
    c = Captioner.from_pretrained('mini', 'cpu')
    assert isinstance(c.model.raw_lm, LightGPT2) and isinstance(c.model.raw_tokenizer, LightTokenizer)
    whole = CaptionModel.from_pretrained(FOLDER, 'cpu')
    x = c.embed(demo_photos() + [p.rotate(90) for p in map(Image.open, demo_photos()[:3])])
    for how in (dict(), dict(num_captions=3), dict(method='greedy'), dict(prompt='A photo of'), dict(min_words=12),
            dict(max_words=4), dict(no_repeat_ngram=0, beam_size=2),
            dict(method='sample', uniform=torch.rand(len(x), 1, 67, generator=torch.Generator().manual_seed(0)))):
        a, b = (decoding.generate(o, x, normalize=False, **how) for o in (c.model, whole))
        assert a == b
    # none of these made it whole
    assert isinstance(c.model.raw_lm, LightGPT2) and isinstance(c.model.raw_tokenizer, LightTokenizer)

@pytest.mark.parametrize('ask', ['lm', 'tokenizer', 'train', 'save', 'logits', 'encode', 'slow reader', 'half'])
def test_whatever_else_is_asked_makes_it_whole(tmp_path, monkeypatch, ask):
    m, whole = light(), CaptionModel.from_pretrained(FOLDER, 'cpu')
    x = torch.randn(2, 512, generator=torch.Generator().manual_seed(0))
    if ask == 'lm':
        assert m.lm.generation_config is not None
    elif ask == 'tokenizer':
        assert m.tokenizer.eos_token == whole.tokenizer.eos_token and len(m.tokenizer) == len(whole.tokenizer)
    elif ask == 'train':
        assert m.train().training and all(p.requires_grad for p in m.parameters())
    elif ask == 'save':
        m.save(tmp_path/'m')
        assert (tmp_path/'m'/'model.safetensors').stat().st_size > 1_000_000
        a, b = (CaptionModel.from_pretrained(tmp_path/'m', light=o) for o in (True, False))
        assert decoding.generate(a, x, texts=True) == decoding.generate(b, x, texts=True)
    elif ask == 'logits':
        tokens = torch.tensor([[5, 6, 7], [8, 9, 10]])
        assert torch.equal(m.logits(x, tokens), whole.logits(x, tokens))
    elif ask == 'encode':
        assert m.encode(['A dog runs']) == whole.encode(['A dog runs'])
    elif ask == 'slow reader':
        monkeypatch.setattr(decoding, 'FAST', False)
        assert decoding.generate(m, x, texts=True) == decoding.generate(whole, x, texts=True)
    else:
        m = m.to(torch.bfloat16)
        assert m.lm.transformer.wte.weight.dtype == torch.bfloat16 and not m.lm.training
    assert not isinstance(m.full().raw_lm, LightGPT2) and m.lm.lm_head.weight is m.lm.transformer.wte.weight

def test_the_switch(monkeypatch):
    monkeypatch.setattr(models, 'LIGHT', False)
    assert not isinstance(load_parts('mini', 'cpu', encoder=False).model.raw_lm, LightGPT2)

@pytest.mark.parametrize('change', [dict(add_cross_attention=True), dict(activation_function='silu'), dict(n_head=3),
    dict(n_embd='256'), dict(scale_attn_weights=False), dict(scale_attn_by_inverse_layer_idx=True),
    dict(model_type='gptj')])
def test_another_gpt2_is_left_to_the_library(change):
    config = json.loads((FOLDER/'config.json').read_text())['lm_config']
    assert models._is_light(config) and not models._is_light(config | change)

@pytest.mark.parametrize('change', [dict(clean_up_tokenization_spaces=True), dict(tokenizer_class='LlamaTokenizer'),
    dict(eos_token=None), dict(padding_side='left')])
def test_another_tokenizer_is_left_to_the_library(tmp_path, change):
    import shutil
    shutil.copytree(FOLDER, tmp_path/'m')
    f = tmp_path/'m'/'tokenizer_config.json'
    f.write_text(json.dumps(json.loads(f.read_text()) | change))
    m = CaptionModel.from_pretrained(tmp_path/'m', light=True)
    assert not isinstance(m.raw_tokenizer, LightTokenizer)

def test_a_token_that_is_not_there_is_the_librarys_affair(tmp_path):
    import shutil
    shutil.copytree(FOLDER, tmp_path/'m')
    f = tmp_path/'m'/'tokenizer_config.json'
    f.write_text(json.dumps(json.loads(f.read_text()) | dict(eos_token='<nowhere>')))
    for o in (True, False):
        with pytest.raises(ValueError, match='the tokenizer has 5001 tokens, the language model 5000'):
            CaptionModel.from_pretrained(tmp_path/'m', light=o)

@pytest.mark.parametrize('act', models._ACTS)
def test_every_activation_and_an_untied_head(act):
    from transformers import GPT2Config, GPT2LMHeadModel
    torch.manual_seed(0)
    whole = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=32, n_layer=2, n_head=2, n_positions=20, n_inner=40,
        activation_function=act, tie_word_embeddings=False, bos_token_id=None, eos_token_id=None)).eval()
    mine = LightGPT2(whole.config.to_dict())
    assert models._is_light(whole.config.to_dict())
    mine.load_state_dict(whole.state_dict())
    x = torch.randn(3, 4, 32)
    with torch.inference_mode():
        read = decoding._Gpt2(mine)
        cache = decoding._Cache(2)
        torch.testing.assert_close(read(x, cache), whole(inputs_embeds=x).logits[:, -1], atol=1e-5, rtol=1e-4)
        more = torch.randn(3, 1, 32)
        torch.testing.assert_close(read(more, cache), whole(inputs_embeds=torch.cat([x, more], 1)).logits[:, -1],
            atol=1e-5, rtol=1e-4)

def test_the_image_tower_without_timm():
    "The bundled tower's vectors, merged and not; every edition of the family has timm's names and numbers"
    import timm
    a, b = MiniEncoder.load(device='cpu'), MiniEncoder(MiniEncoder.load(device='cpu').config, MiniEncoder.load(
        device='cpu').tokenizer)
    assert type(b.image.body).__module__.startswith('timm') and not type(a.image.body).__module__.startswith('timm')
    b.load_state_dict(a.state_dict())
    b = b.eval().to(memory_format=torch.channels_last)
    photos = demo_photos()[:4]
    want = b.encode_image(photos, show=False)
    assert torch.allclose(a.encode_image(photos, show=False), want, atol=1e-5)
    assert torch.allclose(MiniEncoder.load(device='cpu', merge=True).encode_image(photos, show=False), want, atol=1e-3)
    from capdec.mini import ImageTower
    for n in '01234':
        config = MiniConfig(backbone=f'tf_efficientnet_lite{n}')
        shapes = [{k: v.shape for k, v in ImageTower(config, o).state_dict().items()} for o in (True, False)]
        assert shapes[0] == shapes[1] and list(shapes[0]) == list(shapes[1])
    # another family is timm's
    assert type(ImageTower(MiniConfig(backbone='resnet10t'), True).body).__module__.startswith('timm')
    assert timm.is_model('tf_efficientnet_lite2')
