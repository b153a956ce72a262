"Official checkpoints as people have them: other endings, other names in front, other tokenizers"
import pickle

import numpy as np
import pytest
import torch

from capdec.core import read_json
from capdec.model import CapDecConfig, CaptionModel, gpt2_tokenizer, load_official, to_official, train_tokenizer
from capdec.official import convert, find_weights, load_checkpoint
from shell import capdec, one_line

@pytest.fixture(scope='module')
def made(tmp_path_factory):
    "A small captioner, its official weights and its tokenizer in a folder"
    from transformers import GPT2Config, GPT2LMHeadModel
    torch.manual_seed(0)
    tok = train_tokenizer(['A dog runs.', 'A cat sleeps on the bed.']*5, 300)
    lm = GPT2LMHeadModel(GPT2Config(vocab_size=len(tok), n_embd=64, n_layer=1, n_head=1, n_positions=48,
        bos_token_id=None, eos_token_id=None))
    m = CaptionModel.create(CapDecConfig('mlp', 4, 4, 16), (lm, tok)).eval()
    d = tmp_path_factory.mktemp('tok')
    tok.save_pretrained(d)
    return m, to_official(m), d

def same(a, b):
    x = torch.randn(2, 16, generator=torch.Generator().manual_seed(1))
    return torch.allclose(a.prefix(x), b.prefix(x), atol=1e-6)

@pytest.mark.parametrize('before', ['module.', 'model.', '_orig_mod.', 'model.module.'])
@pytest.mark.parametrize('ending,inside', [('pt', None), ('pth', None), ('ckpt', 'state_dict'), ('bin', None),
    ('pt', 'model_state_dict'), ('PT', None)])
def test_endings_and_names_in_front(made, tmp_path, before, ending, inside):
    m, state, tok = made
    state = {f'{before}{k}': v for k, v in state.items()}
    torch.save({inside: state, 'epoch': 3} if inside else state, tmp_path/f'a.{ending}')
    assert same(load_checkpoint(tmp_path/f'a.{ending}', tok, lm_heads=1), m)

def test_a_tokenizer_of_one_file(made, tmp_path):
    "As today's transformers save it, `vocab.json` and `merges.txt` are not there"
    m, _, tok = made
    (tmp_path/'t').mkdir()
    (tmp_path/'t'/'tokenizer.json').write_bytes((tok/'tokenizer.json').read_bytes())
    text = 'A dog sleeps on the bed.'
    assert gpt2_tokenizer(tmp_path/'t')(text).input_ids == m.tokenizer(text).input_ids
    (tmp_path/'t'/'tokenizer.json').write_text('{}')
    with pytest.raises(ValueError, match='tokenizer.json: not a tokenizer') as e:
        gpt2_tokenizer(tmp_path/'t')
    assert '\n' not in str(e.value)
    (tmp_path/'t'/'tokenizer.json').unlink()
    with pytest.raises(FileNotFoundError, match='nor tokenizer.json'):
        gpt2_tokenizer(tmp_path/'t')

def test_a_folder_of_training_gives_its_latest(made, tmp_path):
    m, state, tok = made
    m.save(tmp_path/'run'/'coco_prefix-000')
    m.save(tmp_path/'run'/'coco_prefix_latest')
    with pytest.warns(UserWarning, match='coco_prefix_latest in it is taken'):
        assert same(load_checkpoint(tmp_path/'run'), m)
    (tmp_path/'official').mkdir()
    torch.save(state, tmp_path/'official'/'coco_prefix_latest.pt')
    with pytest.warns(UserWarning, match='coco_prefix_latest.pt in it is taken'):
        assert same(load_checkpoint(tmp_path/'official', tok, lm_heads=1), m)
    m.save(tmp_path/'run'/'mine_latest')
    with pytest.raises(ValueError, match='has 2 captioners; name one of coco_prefix_latest, mine_latest'):
        find_weights(tmp_path/'run')

def test_the_command_takes_a_folder_of_training(tmp_path):
    import shutil
    from PIL import Image
    from capdec.core import package_file
    shutil.copytree(package_file('models', 'mini', 'captioner'), tmp_path/'run'/'coco_prefix_latest')
    Image.new('RGB', (64, 48), 'navy').save(tmp_path/'a.jpg')
    r = capdec('caption', tmp_path/'a.jpg', '--model', tmp_path/'run', '--device', 'cpu', ok=True)
    assert r.stdout and 'coco_prefix_latest in it is taken' in one_line(r)[0]

def test_convert_names_the_output_like_the_source(made, tmp_path, monkeypatch):
    m, state, tok = made
    monkeypatch.chdir(tmp_path)
    (tmp_path/'in').mkdir()
    torch.save(state, tmp_path/'in'/'a.pt')
    assert convert(tmp_path/'in'/'a.pt', tokenizer=tok, lm_heads=1).name == 'a' and read_json('a/config.json')
    assert convert(tmp_path/'a').name == 'a.safetensors' and same(load_official('a.safetensors', tok, lm_heads=1), m)

@pytest.mark.parametrize('what', [np.int64(3), np.float32(.5), np.zeros(3)])
def test_numbers_of_numpy_in_a_pickle_get_a_hint(tmp_path, what):
    from capdec.core import load_pickle
    (tmp_path/'a.pkl').write_bytes(pickle.dumps([what]))
    with pytest.raises(ValueError, match=r'asks for numpy.*x\.item\(\)'):
        load_pickle(tmp_path/'a.pkl')
