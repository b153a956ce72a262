"Training: exact resumption, order, noise, and errors."
import json
import signal
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings, strategies as st
from transformers import GPT2Config, GPT2LMHeadModel

from capdec.model import CapDecConfig, CaptionModel, train_tokenizer
from capdec.training import (PackedCaptions, TrainConfig, TrainData, epoch_batches, lr_at, train,
    validation_loss)
from shell import forked
from towers import weights

WORDS = 'a the red blue dog cat bird runs sleeps eats on in grass snow street quickly slowly'.split()
CAPTIONS = [' '.join(WORDS[(i*7 + j*j) % len(WORDS)] for j in range(3 + i % 6)) + '.' for i in range(96)]

def tiny(seed=0, dropout=.1, **kw):
    torch.manual_seed(seed)
    tok = train_tokenizer(CAPTIONS, 300)
    lm = GPT2LMHeadModel(GPT2Config(vocab_size=len(tok), n_embd=32, n_layer=2, n_head=2, n_positions=40,
        resid_pdrop=dropout, embd_pdrop=dropout, attn_pdrop=dropout,
                                    bos_token_id=None, eos_token_id=None))
    return CaptionModel.create(CapDecConfig('mlp', 3, 3, 8, **kw), (lm, tok))

def data():
    return torch.randn(96, 8, generator=torch.Generator().manual_seed(1)), CAPTIONS

def config(**kw):
    return TrainConfig(**{**dict(lr=1e-3, epochs=3, bs=16, warmup_steps=2, noise_variance=.02, log_steps=4,
        checkpoint_steps=1, mixed_precision='no'), **kw})

def run(m, cfg, out=None, **kw):
    return train(m, kw.pop('data', data()), cfg, out, device='cpu', show=False, **kw)

class Stop(Exception): pass

@pytest.mark.parametrize('stop_at', [1, 6, 7, 17])
@pytest.mark.parametrize('extra', [{}, dict(accumulate=2), dict(accumulate=4)])
def test_interrupted_run_continues_bit_for_bit(tmp_path, stop_at, extra):
    # 16 of 18 batches make four steps of four
    cfg, stop_at = config(**extra), min(stop_at, 15)
    whole = tiny()
    h1 = run(whole, cfg, tmp_path/'a')
    m, n = tiny(), [0]
    def hook(*_):
        n[0] += 1
        if n[0] == stop_at + 1:
            raise Stop
    m.register_forward_pre_hook(hook)
    with pytest.raises(Stop):
        run(m, cfg, tmp_path/'b')
    assert (tmp_path/'b'/'state.safetensors').exists() == (stop_at >= extra.get('accumulate', 1))
    # other weights: all must come from the checkpoint, once there is one
    fresh = 3 if (tmp_path/'b'/'state.safetensors').exists() else 0
    again = tiny(seed=fresh)
    h2 = run(again, cfg, tmp_path/'b')
    assert h1 == h2 and torch.equal(weights(whole), weights(again))

@pytest.fixture
def one_thread():
    "With another number of threads sums are taken in another order, and round differently"
    n = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n)

CHILD = '''
import os, signal, sys, safetensors.torch, torch
sys.path.insert(0, {tests!r})
torch.set_num_threads(1)
from test_training import *
model, left, write = tiny(), [{at}], safetensors.torch.save_file
def die(*_):
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
def half(tensors, path, **kw):
    write(tensors, path, **kw)
    if left[0] == 1:
        os.truncate(path, os.path.getsize(path)//2)
    die()
if {where!r} == 'step':
    model.register_forward_pre_hook(die)
if {where!r} == 'write':
    safetensors.torch.save_file = half
run(model, config(epochs=4), {out!r})
'''

# An epoch has 6 steps and writes 8 files: 5 checkpoints, its captioner, the latest captioner, a last checkpoint
@pytest.mark.parametrize('where,at', [('step', 11), ('write', 4), ('write', 7)])
def test_killed_run_continues_bit_for_bit(tmp_path, one_thread, where, at):
    "The process ends itself at a place of our choice: no handler runs, and a file may be half written"
    whole = tiny()
    run(whole, config(epochs=4), tmp_path/'a')
    child = lambda where: forked(CHILD.format(tests=str(Path(__file__).parent), out=str(tmp_path/'b'), where=where,
        at=at)).returncode
    assert child(where) == -signal.SIGKILL
    kept = load_state_info(tmp_path/'b'/'state.safetensors')
    assert kept['batch_no'] == {('step', 11): 10, ('write', 4): 3, ('write', 7): 5}[where, at]
    assert child('') == 0
    m = CaptionModel.from_pretrained(tmp_path/'b'/'coco_prefix_latest')
    assert torch.equal(weights(whole), weights(m))
    assert json.loads((tmp_path/'a'/'loss.json').read_text()) == json.loads((tmp_path/'b'/'loss.json').read_text())

def load_state_info(path):
    "The progress that a checkpoint holds"
    from safetensors import safe_open
    with safe_open(path, 'pt') as f:
        return json.loads(f.metadata()['progress'])

def test_seeds_decide(tmp_path):
    a, b, c = tiny(), tiny(), tiny()
    run(a, config())
    run(b, config())
    run(c, config(seed=1))
    assert torch.equal(weights(a), weights(b)) and not torch.equal(weights(a), weights(c))

def test_training_does_not_depend_on_the_global_generator():
    a, b = tiny(), tiny()
    torch.manual_seed(5)
    run(a, config())
    torch.manual_seed(6)
    run(b, config())
    assert torch.equal(weights(a), weights(b))

def test_store_and_memory_train_alike(tmp_path):
    from capdec.store import EmbeddingStore
    x, caps = data()
    with EmbeddingStore.create(tmp_path/'s', 8, dict(encoder='mini', kind='text', normalised=False),
            dtype='float32') as s:
        for i in range(0, 96, 40):
            s.append([dict(image_id=j, caption=caps[j], id=j, filename=None) for j in range(i, min(i+40, 96))],
                x[i:i+40])
        s.finish()
    a, b, c = tiny(), tiny(), tiny()
    run(a, config())
    run(b, config(), data=EmbeddingStore(tmp_path/'s'))
    td = TrainData(EmbeddingStore(tmp_path/'s'), c, on_device=False)
    assert torch.equal(weights(a), weights(b))
    assert torch.equal(td.batch(torch.tensor([90, 3]))[0], x[[90, 3]])

def test_only_prefix_leaves_the_language_model_alone():
    m = tiny(only_prefix=True)
    before = {k: v.clone() for k, v in m.lm.state_dict().items()}
    mapper = m.mapper.state_dict()['model.0.weight'].clone()
    run(m, config())
    assert all(torch.equal(v, before[k]) for k, v in m.lm.state_dict().items())
    assert not torch.equal(mapper, m.mapper.state_dict()['model.0.weight'])

def test_accumulated_batches_equal_one_large_batch():
    x, caps = data()
    # equal lengths, so the mean of means is the mean
    caps = [CAPTIONS[0]]*96
    a, b = tiny(dropout=0), tiny(dropout=0)
    run(a, config(bs=96, epochs=1, noise_variance=0.), data=(x, caps))
    run(b, config(bs=48, accumulate=2, epochs=1, noise_variance=0.), data=(x, caps))
    assert torch.allclose(weights(a), weights(b), atol=1e-6)

def test_offset_and_noise_options_change_the_result():
    base = tiny()
    run(base, config())
    for kw, extra in ((dict(noise_variance=0.), {}), (dict(uniform_noise=True), {}), (dict(dont_norm=True), {}),
            ({}, dict(offset=torch.ones(8)))):
        m = tiny()
        run(m, config(**kw), **extra)
        assert not torch.allclose(weights(m), weights(base)), (kw, extra)

@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=400), st.integers(1, 50), st.integers(0, 99),
    st.integers(0, 9))
def test_every_row_once(lens, bs, seed, epoch):
    lens = torch.tensor(lens)
    bb = epoch_batches(lens, bs, seed, epoch, window=3)
    assert sorted(torch.cat(bb).tolist()) == list(range(len(lens)))
    assert max(len(b) for b in bb) <= bs
    assert [b.tolist() for b in bb] == [b.tolist() for b in epoch_batches(lens, bs, seed, epoch, window=3)]

@settings(max_examples=20, deadline=None)
@given(st.integers(0, 500), st.integers(1, 500), st.integers(0, 500))
def test_schedule_stays_in_range(step, total, warmup):
    assert 0 <= lr_at(min(step, total), total, warmup) <= 1

def test_packed_batches_equal_padded_ones():
    m = tiny()
    p = PackedCaptions(m, [CAPTIONS[:30], CAPTIONS[30:]])
    for rows in ([0], [95, 0, 17], list(range(96))):
        t, k = p.batch(torch.tensor(rows))
        t2, k2 = m.tokenize([CAPTIONS[i] for i in rows])
        assert torch.equal(t, t2) and torch.equal(k, k2)

def test_errors_are_clear(tmp_path):
    m = tiny()
    with pytest.raises(ValueError, match='prefix_size=8'):
        run(m, config(), data=(torch.randn(2, 9), ['a', 'b']))
    with pytest.raises(ValueError, match='empty'):
        run(m, config(), data=(torch.randn(0, 8), []))
    run(m, config(epochs=1), tmp_path/'r')
    with pytest.raises(ValueError, match='holds a run with'):
        run(tiny(), config(epochs=1, lr=5e-4), tmp_path/'r')
    with pytest.raises(ValueError, match='lower lr'):
        run(tiny(), config(lr=1e30, epochs=1, warmup_steps=0))
    with pytest.raises(ValueError, match='vectors_crc'):
        run(tiny(), config(epochs=1), tmp_path/'r', data=(data()[0] + 1, CAPTIONS))
    with pytest.raises(ValueError, match='save_every'):
        run(m, config(), save_every=0)
    with pytest.raises(ValueError, match='offset has 5'):
        run(m, config(), offset=torch.ones(5))
    f = tmp_path/'r'/'state.safetensors'
    f.write_bytes(f.read_bytes()[:1000])
    with pytest.raises(ValueError, match='not a complete checkpoint'):
        run(tiny(), config(epochs=1), tmp_path/'r')
    # starts again
    run(tiny(), config(epochs=1), tmp_path/'r', resume=False)

def test_validation_loss_ignores_batching():
    m, (x, caps) = tiny(dropout=0), data()
    td = TrainData((x, caps), m)
    losses = [validation_loss(m, td, config(bs=b)) for b in (1, 5, 96)]
    assert max(losses) - min(losses) < 1e-5

def test_no_pickle_is_written(tmp_path):
    run(tiny(), config(epochs=1), tmp_path/'o')
    assert not [p for p in (tmp_path/'o').rglob('*') if p.suffix in ('.pt', '.bin', '.pkl', '.pth')]

# ---- one run a folder

BUSY = 'another run is training in this folder; wait until it has ended, or name another folder'

@pytest.mark.parametrize('resume', [True, False])
def test_a_second_run_in_the_folder_is_refused(tmp_path, resume):
    "From its first moment on, long before there is a checkpoint"
    first, said, alone = tiny(), [], tiny()
    def hook(module, args):
        if not said:
            # dropout goes on as if nothing had been
            with torch.random.fork_rng(), pytest.raises(ValueError) as e:
                run(tiny(3), config(seed=5), tmp_path/'b', resume=resume, told=dict(seed=5))
            said.append(str(e.value))
    first.register_forward_pre_hook(hook)
    run(first, config(), tmp_path/'b', told=dict(seed=0))
    run(alone, config(), tmp_path/'a', told=dict(seed=0))
    assert said == [f'{tmp_path}/b: {BUSY}'] and torch.equal(weights(first), weights(alone))
    a, b = ({str(o.relative_to(d)): o.read_bytes() for o in sorted(d.rglob('*')) if o.is_file()}
        for d in (tmp_path/'a', tmp_path/'b'))
    # which has the time in it
    assert a.pop('train.log') and b.pop('train.log')
    assert a == b and not [o for o in a if o.startswith('.')]
    # the first one has ended: another run goes on, or is told why it cannot
    with pytest.raises(ValueError, match='holds a run with seed=0, now seed=5'):
        run(tiny(), config(seed=5), tmp_path/'b', told=dict(seed=5))
    assert json.loads((tmp_path/'b'/'train_commandline_args.txt').read_text()) == dict(seed=0)

def test_two_that_save_into_one_folder(tmp_path, monkeypatch):
    "... and into the folder in which we are"
    m, said = tiny(), []
    real = m.tokenizer.save_pretrained
    def save(folder):
        if not said:
            said.append('')
            with pytest.raises(ValueError) as e:
                tiny(1).save(tmp_path/'m')
            said[0] = str(e.value)
        return real(folder)
    monkeypatch.setattr(m.tokenizer, 'save_pretrained', save)
    m.save(tmp_path/'m')
    assert said == [f'{tmp_path}/m: another process is saving a captioner there; wait until it has ended']
    assert torch.equal(weights(CaptionModel.from_pretrained(tmp_path/'m')), weights(m))
    monkeypatch.chdir(tmp_path/'m')
    tiny(1).save('.')
    assert torch.equal(weights(CaptionModel.from_pretrained(tmp_path/'m')), weights(tiny(1)))
    assert not [o for o in tmp_path.rglob('.*')]

# ---- what a run tells

def test_a_run_tells_what_it_does(tmp_path):
    lines = []
    run(tiny(), config(epochs=2), tmp_path/'r', val=data(), report=lines.append, left_out=', 7 of other parts left out')
    assert lines[0].startswith('96 captions, 7 of other parts left out, 6 steps an epoch, 12 in all; 96 captions to')
    assert 'million parameters, on cpu in float32' in lines[1] and 'noise variance 0.02' in lines[2]
    assert [l.split(':')[0] for l in lines[3:]] == ['epoch 1 of 2', 'epoch 2 of 2']
    assert 'loss ' in lines[3] and ', validation ' in lines[3] and 'to go' in lines[3] and 'to go' not in lines[4]
    logged = [l[20:] for l in (tmp_path/'r'/'train.log').read_text().splitlines()]
    assert logged == lines
    # nothing is told to those who do not ask, and the losses are the same
    quiet = run(tiny(), config(epochs=2), tmp_path/'q', val=data())
    assert [o[1] for o in quiet['epochs']] == [float(o) for o in [e[1] for e in json.loads(
        (tmp_path/'r'/'loss.json').read_text())['epochs']]]

def test_a_long_epoch_tells_every_few_minutes(tmp_path, monkeypatch):
    import capdec.training as room
    monkeypatch.setattr(room, '_MINUTES', 0)
    lines = []
    run(tiny(), config(epochs=1, log_steps=2), report=lines.append)
    assert [l.split(',')[0] for l in lines[3:]] == ['step 2 of 6', 'step 4 of 6', 'step 6 of 6', 'epoch 1 of 1: loss '
        + lines[-1].split('loss ')[1].split(',')[0]]

def test_the_bar_shows_a_current_loss(monkeypatch):
    "Also in a run that is shorter than the distance of two points of the curve"
    import capdec.training as room
    shown = []
    class Bar:
        disable = False
        def set_postfix(self, **kw):
            shown.append(float(kw['loss']))
    monkeypatch.setattr(room.time, 'monotonic', iter(range(10**6)).__next__)
    real = room._show_loss
    monkeypatch.setattr(room, '_show_loss', lambda run, bar, epoch: real(run, Bar(), epoch))
    run(tiny(), config(epochs=1, log_steps=100))
    assert len(shown) >= 5 and all(o > 0 for o in shown)

class Tracker:
    "A program that takes losses, as Accelerate knows it"
    @staticmethod
    def make(seen):
        from accelerate.tracking import GeneralTracker
        class Seen(GeneralTracker):
            name, requires_logging_directory, main_process_only = 'seen', False, True
            def __init__(self):
                super().__init__()
            @property
            def tracker(self):
                return seen
            def store_init_configuration(self, values):
                seen.append(('config', values))
            def log(self, values, step=None, **kw):
                seen.append((step, values))
        return Seen()

def test_losses_are_logged_through_accelerate(tmp_path):
    seen = []
    history = run(tiny(), config(epochs=2), tmp_path/'r', val=data(), log_to=Tracker.make(seen))
    assert seen[0][0] == 'config' and seen[0][1]['noise_variance'] == .02
    assert [(s, v['loss']) for s, v in seen[1:] if 'loss' in v] == [tuple(o) for o in history['steps']]
    assert [v['epoch_loss'] for _, v in seen[1:] if 'epoch_loss' in v] == [o[1] for o in history['epochs']]
    assert [v['val_loss'] for _, v in seen[1:] if 'val_loss' in v] == [o[1] for o in history['val']]

def test_a_program_that_is_not_there(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="log_to 'paper': use .*tensorboard"):
        run(tiny(), config(), tmp_path/'r', log_to='paper')
    monkeypatch.setattr('accelerate.tracking.get_available_trackers', lambda: [])
    with pytest.raises(ValueError, match="log_to 'wandb': is not installed; pip install wandb"):
        run(tiny(), config(), tmp_path/'r', log_to='wandb')
    with pytest.raises(ValueError, match=r"pip install tensorboard .capdec's extra .log. brings it"):
        run(tiny(), config(), tmp_path/'r', log_to='tensorboard')
    assert not (tmp_path/'r'/'train.log').exists()

def test_tensorboard(tmp_path):
    pytest.importorskip('tensorboard')
    run(tiny(), config(), tmp_path/'r', log_to='tensorboard')
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    file = next((tmp_path/'r'/'logs').rglob('events*'))
    events = EventAccumulator(str(file.parent)).Reload()
    assert len(events.Scalars('epoch_loss')) == 3 and events.Scalars('loss')
