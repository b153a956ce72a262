"Two processes train and embed as one on the command line: the same curve and vectors, every row once, one writer"
import json
import os
import subprocess
import sys

import torch
from transformers import GPT2Config, GPT2LMHeadModel

from capdec.model import CaptionModel, train_tokenizer
from shell import capdec

WORDS = 'a the red blue dog cat bird runs sleeps eats on in grass snow street quickly slowly'.split()
CAPTIONS = [' '.join(WORDS[(i*7 + j*j) % len(WORDS)] for j in range(3 + i % 6)) + '.' for i in range(96)]

WATCHED = '''
"The capdec command, with a note of every row read for training, of what is encoded, and of every file made"
import os, sys
from capdec import training
from capdec.cli import main
from capdec.mini import MiniEncoder
rank, batch, replace = os.environ['RANK'], training.TrainData.batch, os.replace
text, image = MiniEncoder.encode_text, MiniEncoder.encode_prepared
def note(what): print(rank, what, file=open({log!r} + rank, 'a'))
def noted_batch(self, rows, *more):
    note(f'rows {{len(self)}} ' + ' '.join(map(str, rows.tolist())))
    return batch(self, rows, *more)
def noted_replace(a, b): note(f'wrote {{b}}'); return replace(a, b)
def noted_text(self, texts, *args, **kw): note(f'texts {{len(texts)}}'); return text(self, texts, *args, **kw)
def noted_image(self, prepared): note(f'images {{len(prepared)}}'); return image(self, prepared)
training.TrainData.batch, os.replace = noted_batch, noted_replace
MiniEncoder.encode_text, MiniEncoder.encode_prepared = noted_text, noted_image
sys.exit(main(sys.argv[1:]))
'''

def launch(*args):
    "Two processes on this machine; --multi_gpu tells accelerate to start several, without a GPU they talk over gloo"
    return subprocess.run([sys.executable, '-m', 'accelerate.commands.launch', '--multi_gpu', '--num_processes', '2',
        '--num_machines', '1', '--main_process_port', '0', *map(str, args)],
        env=dict(os.environ, OMP_NUM_THREADS='1', CUDA_VISIBLE_DEVICES=''), capture_output=True, text=True, timeout=600)

def test_two_processes_train_as_one(tmp_path):
    tok = train_tokenizer(CAPTIONS, 300)
    torch.manual_seed(0)
    GPT2LMHeadModel(GPT2Config(vocab_size=len(tok), n_embd=32, n_layer=2, n_head=2, n_positions=40, resid_pdrop=0.,
        embd_pdrop=0., attn_pdrop=0., bos_token_id=None, eos_token_id=None)).save_pretrained(tmp_path/'lm')
    tok.save_pretrained(tmp_path/'lm')
    (tmp_path/'all.txt').write_text('\n'.join(CAPTIONS) + '\n')
    (tmp_path/'val.txt').write_text('\n'.join(CAPTIONS[:30]) + '\n')
    flags = [str(o) for o in ('train', '--data', tmp_path/'all.txt', '--val_pt', tmp_path/'val.txt',
        '--clip_model_type', 'mini', '--lm', tmp_path/'lm', '--mapping_type', 'mlp', '--prefix_length', 3, '--epochs',
        2, '--bs', 20,
        '--lr', 1e-3, '--warmup_steps', 2, '--noise_variance', .02, '--log_steps', 1, '--checkpoint_steps', 3,
        '--mixed_precision', 'no', '--device', 'cpu')]
    (tmp_path/'watched.py').write_text(WATCHED.format(log=f'{tmp_path}/log'))
    r = launch(tmp_path/'watched.py', *flags, '--out_dir', tmp_path/'two')
    assert r.returncode == 0, r.stderr[-3000:]
    capdec(*flags, '--out_dir', tmp_path/'one', ok=True)
    one, two = (json.loads((tmp_path/o/'loss.json').read_text()) for o in ('one', 'two'))
    for k in ('steps', 'epochs', 'val'):
        assert [s for s, _ in one[k]] == [s for s, _ in two[k]] and len(one[k]) >= 2
        assert max(abs(a-b) for (_, a), (_, b) in zip(one[k], two[k])) < 1e-4
    a, b = (torch.cat([p.flatten() for p in CaptionModel.from_pretrained(tmp_path/o/'coco_prefix_latest').parameters()])
        for o in ('one', 'two'))
    assert (a - b).abs().max() < 1e-4
    logs = [(tmp_path/f'log{rank}').read_text().splitlines() for rank in (0, 1)]
    # the first look is the fingerprint's
    rows = [[list(map(int, l.split()[3:])) for l in log if l.split()[1:3] == ['rows', '96']][1:] for log in logs]
    # no row lost or read twice
    for epoch in (0, 1):
        assert sorted(i for log in rows for batch in log[5*epoch:5*epoch+5] for i in batch) == list(range(96))
    assert all(len(log) == 10 for log in rows)
    # one alone: the look whether a finished store is this encoder's
    encoded = [[n for l in log if l.split()[1:2] == ['texts'] and (n := int(l.split()[2])) > 1] for log in logs]
    # the captions are embedded by both, each once
    assert sum(map(sum, encoded)) == 96 + 30 and all(encoded)
    # validation is shared
    assert sorted(i for log in logs for l in log if l.split()[1:3] == ['rows', '30']
        for i in map(int, l.split()[3:])) == sorted(list(range(30))*2)
    assert not [l for l in logs[1] if 'wrote' in l] and [l for l in logs[0] if 'wrote' in l]
    # and one that says so
    assert r.stdout.count('captioner:') == 1

def test_two_processes_embed_as_one(tmp_path):
    from PIL import Image
    from capdec.store import EmbeddingStore
    texts, album = tmp_path/'all.txt', tmp_path/'album'
    texts.write_text('\n'.join(CAPTIONS) + '\n')
    album.mkdir()
    for i in range(5):
        Image.new('RGB', (60, 40), (40*i, 200-30*i, 90)).save(album/f'{i}.png')
    (album/'3.png').write_text('not a photo')
    (tmp_path/'watched.py').write_text(WATCHED.format(log=f'{tmp_path}/log'))
    flags = lambda what, path: [str(o) for o in ('embed', what, path, '--clip_model_type', 'mini', '--device', 'cpu')]
    for what, path, code in (('--data', texts, 0), ('--images', album, 1)):
        r = launch(tmp_path/'watched.py', *flags(what, path), '--out', tmp_path/'two.store'/what[2:])
        assert (r.returncode != 0) == code, r.stderr[-3000:]
        # one says so
        assert r.stdout.count('.store') == 1
        one = capdec(*flags(what, path), '--out', str(tmp_path/'one.store'/what[2:]))
        assert one.returncode == code
    logs = [(tmp_path/f'log{rank}').read_text().split('\n') for rank in (0, 1)]
    # each once
    assert [sum(int(l.split()[2]) for log in logs for l in log if l.split()[1:2] == [what])
        for what in ('texts', 'images')] == [96, 4]
    # and both work
    assert all(any(l.split()[1:2] == [what] for l in log) for log in logs for what in ('texts', 'images'))
    assert not [l for l in logs[1] if 'wrote' in l] and [l for l in logs[0] if 'wrote' in l]
    for what in ('data', 'images'):
        one, two = (EmbeddingStore(tmp_path/o/what) for o in ('one.store', 'two.store'))
        assert list(one.rows()) == list(two.rows()) and len(one) == (96 if what == 'data' else 4)
        # a digit of float16
        assert torch.allclose(one.vectors(), two.vectors(), atol=2e-3)
        assert one.meta.get('failed') == two.meta.get('failed')
