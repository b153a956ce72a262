"What a killed run has left is removed by the next one, and nothing of a run that is alive"
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from capdec import core
from capdec.core import atomic_path, claim, forget_lock, give_back, remove_left_overs, temporary
from shell import capdec, forked
from test_locks import at_line, moments
from test_training import tiny

pytest.importorskip('fcntl')
SWEEPER = """
import sys
from capdec.core import remove_left_overs
for line in sys.stdin:
    remove_left_overs(sys.argv[1])
    print('done', flush=True)
"""
KILLED = """
import os, signal, sys
from capdec import core
from capdec.cli import main
def die(tmp, path, replace=os.replace, left=[int(sys.argv[1])]):
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    replace(tmp, path)
os.replace = die
sys.exit(main(sys.argv[2:]))
"""

def hidden(folder):
    "What nobody sees, but for the notes of what made a table and texts beside photos"
    notes = ('.t.csv.made', '.capdec.jsonl')
    return sorted(str(o.relative_to(folder)) for o in Path(folder).rglob('.*') if o.name not in notes)

def left_over(folder):
    (folder/'.capdec-dead0000.tmp').mkdir()
    (folder/'.capdec-dead0000.tmp'/'new').write_text('half')

def killed(*args, at=1):
    "`capdec` in a process that ends before it gives its n-th file a name"
    r = forked(KILLED, at, *args)
    assert r.returncode == -signal.SIGKILL, r.stderr

@pytest.fixture
def sweep(tmp_path):
    "Another process, which removes left-overs when it is told"
    p = subprocess.Popen([sys.executable, '-c', SWEEPER, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        text=True, bufsize=1)
    def now():
        p.stdin.write('now\n')
        assert p.stdout.readline() == 'done\n'
    yield now
    p.stdin.close()
    p.stdout.close()
    p.wait()

def test_the_file_that_is_being_written_stays(tmp_path, sweep):
    "At every moment of the writing, another process removes left-overs"
    def write():
        with atomic_path(tmp_path/'a') as p:
            p.write_text('whole')
    def play(k):
        core._swept.clear()
        _, there = at_line(k, write, sweep)
        assert [(o.name, o.read_text()) for o in tmp_path.iterdir()] == [('a', 'whole')]
        return there
    assert moments(play) > 20

def test_the_folder_that_is_being_written_stays(tmp_path, sweep):
    def write():
        with temporary(tmp_path) as p:
            p.mkdir()
            (p/'weights').write_text('whole')
            p.rename(tmp_path/'m')
    def play(k):
        _, there = at_line(k, write, sweep)
        assert os.listdir(tmp_path) == ['m'] and (tmp_path/'m'/'weights').read_text() == 'whole'
        (tmp_path/'m'/'weights').unlink()
        (tmp_path/'m').rmdir()
        return there
    assert moments(play) > 10

def test_a_file_that_is_begun_while_another_process_removes(tmp_path):
    "At every moment of the removal, a file is begun"
    code = """
import sys
from pathlib import Path
from capdec.core import temporary
for line in sys.stdin:
    with temporary(sys.argv[1]) as p:
        p.touch()
        print(p, flush=True)
        sys.stdin.readline()
        print(p.exists(), flush=True)
"""
    p = subprocess.Popen([sys.executable, '-c', code, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        text=True, bufsize=1)
    def begin():
        p.stdin.write('begin\n')
        assert p.stdout.readline()
    def play(k):
        left_over(tmp_path)
        _, there = at_line(k, lambda: remove_left_overs(tmp_path), begin)
        if there:
            remove_left_overs(tmp_path)
            p.stdin.write('end\n')
            assert p.stdout.readline() == 'True\n'
        return there
    assert moments(play) > 5
    p.stdin.close()
    p.stdout.close()
    p.wait()

@pytest.mark.parametrize('how', ['removed', 'held'])
def test_a_place_that_is_lost_before_it_is_locked(tmp_path, monkeypatch, how):
    "Where another process takes it for a left-over, we take another place"
    real, lost, others = core._lock_file, [], []
    def lock_file(folder):
        fd = real(folder)
        if not lost:
            lost.append(folder)
            if how == 'removed':
                shutil.rmtree(folder)
            else:
                others.append(real(folder))
                core._locked(others[0])
        return fd
    monkeypatch.setattr(core, '_lock_file', lock_file)
    with temporary(tmp_path) as p:
        assert len(lost) == 1 and p.parent not in lost and p.parent.exists()
    for o in others:
        os.close(o)

def save_tensors(p):
    import torch
    from safetensors.torch import save_file
    save_file({'a': torch.zeros(9)}, p)

def save_arrow(p):
    import pyarrow as pa
    with pa.OSFile(str(p), 'wb') as o:
        o.write(b'x')

def save_tokenizer(p):
    from tokenizers import Tokenizer, models
    Tokenizer(models.BPE()).save(str(p))

@pytest.mark.parametrize('write', [save_tensors, save_arrow, save_tokenizer, lambda p: Image.new('L', (2, 2)).save(p,
    'png'), lambda p: p.write_text('x'), lambda p: np.savez(open(p, 'wb'), a=np.zeros(3))])
def test_whatever_writes(tmp_path, write):
    "Libraries make files of their own beside it, or put another one in its place"
    with temporary(tmp_path) as p:
        write(p)
        remove_left_overs(tmp_path)
        assert p.stat().st_size
    assert not os.listdir(tmp_path)

def test_what_is_not_ours_stays(tmp_path):
    for name in ('.notes.abcdefgh.tmp', '.capdec-short.tmp', '.capdec-abcdefgh.tmp.txt', 'capdec-abcdefgh.tmp'):
        (tmp_path/name).mkdir()
    (tmp_path/'.capdec-abcdefgh.tmp').touch()
    (tmp_path/'mine').mkdir()
    (tmp_path/'mine'/'photo.jpg').touch()
    (tmp_path/'.capdec-12345678.tmp').symlink_to(tmp_path/'mine')
    before = sorted(tmp_path.rglob('*'))
    remove_left_overs(tmp_path)
    assert sorted(tmp_path.rglob('*')) == before
    remove_left_overs(tmp_path/'nowhere')

def test_where_there_are_no_locks_all_stays(tmp_path, monkeypatch):
    "Some network drives; Windows"
    def flock(*_):
        raise OSError(95, 'Operation not supported')
    left_over(tmp_path)
    monkeypatch.setattr(core.fcntl, 'flock', flock)
    core._swept.clear()
    with atomic_path(tmp_path/'a') as p:
        p.write_text('whole')
    assert sorted(os.listdir(tmp_path)) == ['.capdec-dead0000.tmp', 'a']
    monkeypatch.setattr(core, 'fcntl', None)
    with atomic_path(tmp_path/'a') as p:
        p.write_text('again')
    with temporary(tmp_path) as p:
        p.mkdir()
    assert (tmp_path/'a').read_text() == 'again' and sorted(os.listdir(tmp_path)) == ['.capdec-dead0000.tmp', 'a']

def test_a_lock_that_was_left(tmp_path):
    (tmp_path/'.lock').touch()
    forget_lock(tmp_path/'.lock')
    assert not os.listdir(tmp_path)
    mine = claim(tmp_path/'x', lock=tmp_path/'.lock')
    forget_lock(tmp_path/'.lock')
    assert os.listdir(tmp_path) == ['.lock']
    give_back(mine)
    forget_lock(tmp_path/'.lock')
    assert not os.listdir(tmp_path)

def test_a_store_whose_writer_was_killed_at_its_last_step(tmp_path):
    from capdec.store import EmbeddingStore, store_captions
    store_captions([dict(image_id=1, caption='a dog', id=1)], tmp_path/'s')
    (tmp_path/'s'/'.lock').touch()
    assert len(EmbeddingStore.create(tmp_path/'s', 0, dict(kind='captions'), resume=True)) == 1
    assert not hidden(tmp_path)

# ---- the verbs

@pytest.fixture
def few(tmp_path):
    "A folder of two photos"
    d = tmp_path/'photos'
    d.mkdir()
    for name in 'ab':
        Image.new('RGB', (40, 30), 'navy').save(d/f'{name}.jpg')
    return d

@pytest.mark.parametrize('more', [(), ('--overwrite',)])
@pytest.mark.parametrize('flags,folder', [(['--sidecar'], 'photos'), (['--exif', 'copies'], 'copies'),
    (['--out', 't.csv'], '.')])
def test_captioning(tmp_path, few, monkeypatch, flags, folder, more):
    "Also where the second run finds that all is there"
    monkeypatch.chdir(tmp_path)
    how = ['caption', few, *flags, '--device', 'cpu']
    if more:
        capdec(*how, ok=True)
    killed(*how, *more)
    assert any(o.endswith('.tmp') for o in hidden(tmp_path))
    capdec(*how, ok=True)
    assert not hidden(tmp_path)

@pytest.mark.parametrize('at', [2, 6])
def test_training(tmp_path, at):
    "Stores, checkpoints, models"
    (tmp_path/'some.txt').write_text('\n'.join(f'A dog {i}.' for i in range(20)))
    how = ['train', '--data', tmp_path/'some.txt', '--clip_model_type', 'mini', '--lm', 'mini', '--mapping_type', 'mlp',
        '--prefix_length', 2, '--epochs', 1, '--bs', 8, '--checkpoint_steps', 1, '--device', 'cpu', '--warmup_steps', 0,
        '--out_dir', tmp_path/'out']
    killed(*how, at=at)
    assert any(o.endswith('.tmp') for o in hidden(tmp_path))
    capdec(*how, ok=True)
    assert not hidden(tmp_path)

MINI = ('--clip_model_type', 'mini', '--device', 'cpu')

@pytest.mark.parametrize('args', [('parse', 'some.txt', '--out', 'out/c.json'), ('parse', 'some.txt', '--out',
    'out/c.store'), ('embed', '--data', 'some.txt', *MINI, '--out', 'out/e.store'),
    ('embed', '--data', 'some.txt', *MINI, '--out', 'out/e.pkl'),
    ('predict', '--images', 'photos', '--device', 'cpu', '--out', 'out/p.json'),
    ('convert', 'm', 'out/w.safetensors')], ids=lambda o: f'{o[0]} {Path(o[-1]).suffix}')
def test_other_verbs(tmp_path, few, monkeypatch, args):
    monkeypatch.chdir(tmp_path)
    (tmp_path/'some.txt').write_text('A dog.\nA cat.\n')
    if args[0] == 'convert':
        tiny().save('m')
    killed(*args)
    assert any(o.endswith('.tmp') for o in hidden(tmp_path))
    capdec(*args, ok=True)
    assert not hidden(tmp_path)
