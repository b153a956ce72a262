"Checkpoints, encoder and tokenizer of full shape, through a hub on this machine, as in a shell"
import os
import subprocess
import sys

import pytest
import torch
from PIL import Image

from capdec.model import CapDecConfig, CaptionModel, to_official, train_tokenizer
from loopback import Loopback

pytestmark = pytest.mark.slow

AS_A_SHELL = """
import sys
from capdec.cli import main
from capdec.embedding import import_clip
import_clip().clip._MODELS['RN50x4'] = sys.argv[1]
sys.exit(main(sys.argv[2:]))
"""

def full_checkpoint(path):
    "Random weights of the published shape: GPT-2 base, a mapper of 8 layers, prefix lengths 40 and 40, 640 numbers"
    from transformers import GPT2Config, GPT2LMHeadModel
    torch.manual_seed(0)
    tok = train_tokenizer(['A dog runs.', 'A cat sleeps on the bed.']*5, 300)
    tok.add_tokens([f'w{i}' for i in range(50257-len(tok))])
    m = CaptionModel.create(CapDecConfig(), (GPT2LMHeadModel(GPT2Config()), tok)).eval()
    state = to_official(m)
    # the transformers of its day also saved its masks
    for i in range(12):
        state[f'gpt.transformer.h.{i}.attn.bias'] = torch.ones(1, 1, 1024, 1024, dtype=torch.uint8).tril()
        state[f'gpt.transformer.h.{i}.attn.masked_bias'] = torch.tensor(-1e4)
    torch.save(state, path)
    return tok

def test_full_shapes_from_the_hub(tmp_path):
    from capdec.studies.bench import random_clip
    s = Loopback(tmp_path/'hub')
    tok = full_checkpoint(tmp_path/'model.pt')
    size = (tmp_path/'model.pt').stat().st_size
    # the published file has 741 MB
    assert 735e6 < size < 747e6
    tok.save_pretrained(tmp_path/'gpt2')
    torch.save(random_clip('RN50x4').half().state_dict(), tmp_path/'RN50x4.pt')
    s.add('johko/capdec_05', model__pt=tmp_path/'model.pt')
    s.add_folder('openai-community/gpt2', tmp_path/'gpt2')
    s.moved['gpt2'] = 'openai-community/gpt2'
    where = f'/clip/{s.sha(tmp_path/"RN50x4.pt")}/RN50x4.pt'
    s.files[where] = tmp_path/'RN50x4.pt'
    cdn = f'/cdn/{s.sha(tmp_path/"model.pt")}'
    # twice the connection breaks off
    s.fail(cdn, ('cut', 150_000_000), ('cut', 200_000_000), ())
    Image.new('RGB', (64, 48), 'navy').save(tmp_path/'a.jpg')
    env = dict(os.environ, HF_ENDPOINT=s.url, HF_HOME=str(tmp_path/'home'), HF_HUB_DISABLE_XET='1', HOME=str(tmp_path),
        no_proxy='127.0.0.1,localhost', PYTHONWARNINGS='ignore')
    said = set()
    for offline, model in (('0', 'johko/capdec_05'), ('1', 'capdec-coco-0.05')):
        r = subprocess.run([sys.executable, '-c', AS_A_SHELL, f'{s.url}{where}', 'caption', tmp_path/'a.jpg', '--model',
            model, '--device', 'cpu', '--max_words', '5'], capture_output=True, text=True,
            env=env | dict(HF_HUB_OFFLINE=offline))
        assert r.returncode == 0, r.stderr[-2000:]
        said.add(r.stdout)
        log, s.log = s.log, []
        assert (offline == '1') == (not log), log
        if offline == '0':
            # fetched once, in three parts
            ranges = [int(o.split('bytes=')[1].rstrip('-')) for o in log if o.startswith('GET /cdn/') and 'bytes=' in o]
            assert len(ranges) == 2 and 140e6 < ranges[0] <= 150e6 < 330e6 < ranges[1] <= 350e6
            assert len([o for o in log if o.startswith('GET /cdn/')]) == 3
    assert len(said) == 1 and said.pop().startswith(f'{tmp_path}/a.jpg\t')
    s.shutdown()
