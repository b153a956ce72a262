"Claims are exclusive, whatever happens in between: each line of a claim is a moment at which others come and go"
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import filelock
import pytest
import torch

from capdec import album
from capdec.captioner import Result
from capdec.config import Candidates
from capdec.core import Journal, claim, claimed, give_back
from capdec.store import EmbeddingStore, store_captions

fcntl = pytest.importorskip('fcntl')
OURS = (os.path.join('capdec', 'core.py'), os.path.dirname(filelock.__file__), __file__)
ACTOR = """
import sys
from capdec.core import claim, give_back
for line in sys.stdin:
    try:
        if line == 'claim\\n':
            lock = claim(sys.argv[1])
        else:
            give_back(lock)
        print('yes', flush=True)
    except ValueError:
        print('no', flush=True)
"""

class Actor:
    "Another process, which claims and gives back when it is told"
    def __init__(self, path):
        self.held = False
        self.p = subprocess.Popen([sys.executable, '-c', ACTOR, str(path)], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True, bufsize=1)

    def _tell(self, what):
        self.p.stdin.write(what + '\n')
        return self.p.stdout.readline() == 'yes\n'

    def claim(self):
        self.held = self._tell('claim')
        return self.held

    def give_back(self):
        assert self._tell('give back')
        self.held = False

    def close(self):
        self.p.stdin.close()
        self.p.stdout.close()
        self.p.wait()

@pytest.fixture(scope='module')
def others(tmp_path_factory):
    "A file to claim, and two other processes that do"
    f = tmp_path_factory.mktemp('locks')/'t.csv'
    actors = Actor(f), Actor(f)
    yield f, *actors
    for o in actors:
        o.close()

def at_line(k, f, act):
    "Call `f`, and `act` before its k-th line in our code or that of a lock: `f`'s result, and whether there was one"
    n = 0
    def trace(frame, event, arg):
        nonlocal n
        if not any(o in frame.f_code.co_filename for o in OURS):
            return None
        if event == 'line':
            n += 1
            if n == k:
                act()
        return trace
    old = sys.gettrace()
    sys.settrace(trace)
    try:
        out = f()
    finally:
        sys.settrace(old)
    return out, n >= k

class BareLock:
    "A lock of the operating system and no more, as older versions of filelock are"
    def __init__(self, lock_file, **_):
        self.lock_file = lock_file

    def acquire(self):
        self.fd = os.open(self.lock_file, os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self.fd)
            raise filelock.Timeout(self.lock_file) from None

    def release(self):
        os.close(self.fd)

def try_claim(path):
    try:
        return claim(path)
    except ValueError:
        return None

def moments(play):
    "`play(k)` for every moment that there is; how many"
    k = 1
    while play(k):
        k += 1
    return k - 1

def test_a_claim_that_comes_while_another_is_given_back(others):
    f, a, b = others
    def play(k):
        mine = claim(f)
        _, there = at_line(k, lambda: give_back(mine), a.claim)
        b.claim()
        assert a.held + b.held == 1, f'{a.held + b.held} holders, line {k}'
        (a if a.held else b).give_back()
        assert not list(f.parent.iterdir())
        return there
    assert moments(play) > 5

@pytest.mark.parametrize('bare', [False, True])
@pytest.mark.parametrize('third', [False, True])
def test_a_claim_that_is_made_while_another_is_given_back(others, third, bare, monkeypatch):
    "... and a third one comes at the same moment"
    f, a, b = others
    if bare:
        monkeypatch.setattr(filelock, 'FileLock', BareLock)
    def play(k):
        def comes_and_goes():
            a.give_back()
            if third:
                b.claim()
        assert a.claim()
        mine, there = at_line(k, lambda: try_claim(f), comes_and_goes)
        holders = bool(mine) + a.held + b.held
        # none: it looked while the first one still held it
        assert holders <= 1, f'{holders} holders, line {k}'
        if mine:
            assert not a.claim()
            give_back(mine)
        for o in (a, b):
            if o.held:
                o.give_back()
        assert a.claim()
        a.give_back()
        assert not list(f.parent.iterdir())
        return there
    assert moments(play) > 10

def test_many_processes(tmp_path):
    "Six hundred claims by four processes; a minute and six processes: `python tools/lock_stress.py --seconds 60`"
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]/'tools'))
    from lock_stress import stress
    claims, _, double = stress(tmp_path, 4, claims=150)
    assert (claims, double) == (600, 0) and not list(tmp_path.iterdir())

def test_a_claim_in_a_block(tmp_path):
    with pytest.raises(KeyError), claimed(tmp_path/'a', 'busy here') as lock:
        assert lock.is_locked
        with pytest.raises(ValueError, match='a: busy here'):
            claim(tmp_path/'a', 'busy here')
        raise KeyError
    give_back(claim(tmp_path/'a'))
    assert not list(tmp_path.iterdir())

def test_a_journal_that_is_left_leaves_no_lock(tmp_path):
    with Journal(tmp_path/'t.part', {}) as j:
        j.add([dict(a=1)])
    assert [o.name for o in tmp_path.iterdir()] == ['t.part']

def test_a_store_that_is_left_leaves_no_lock(tmp_path):
    rows = [dict(image_id=1, caption='a dog', id=1)]
    EmbeddingStore.create(tmp_path/'s', 0).append(rows).close()
    assert '.lock' not in os.listdir(tmp_path/'s')
    # made by one run and finished by another, between looking and claiming
    with pytest.raises(ValueError, match='unfinished'):
        EmbeddingStore.create(tmp_path/'s', 0)
    with EmbeddingStore.create(tmp_path/'s', 0, resume=True):
        pass
    assert '.lock' not in os.listdir(tmp_path/'s')

def test_captions_that_fail_take_only_their_own_store_away(tmp_path, monkeypatch):
    "Another run claims the folder as soon as the failed one lets go"
    rows, mine = [dict(image_id=1, caption='a dog', id=1)], []
    def broken():
        yield from rows
        raise ValueError('row 2 is broken')
    real = filelock.FileLock.release
    def release(self, *args, **kwargs):
        real(self, *args, **kwargs)
        if not mine:
            mine.append(None)
            mine[0] = EmbeddingStore.create(tmp_path/'s', 0).append(rows)
    monkeypatch.setattr(filelock.FileLock, 'release', release)
    with pytest.raises(ValueError, match='row 2 is broken'):
        store_captions(broken(), tmp_path/'s')
    mine[0].finish()
    assert len(EmbeddingStore(tmp_path/'s').verify()) == 1

class Fake:
    "A captioner that says the name of a photo"
    model, encoder = torch.nn.Linear(1, 1), SimpleNamespace(name='fake')
    bridge, pool, dtype = SimpleNamespace(kind='none'), Candidates(), 'float32'
    def caption_files(self, paths, **_):
        for p in paths:
            yield Result(p, [f'a photo of {p.stem}'], None)

def test_a_table_that_another_run_writes_before_we_claim_it(tmp_path, monkeypatch):
    "Two runs with one table, other photos: the rows of both are kept"
    out, real = str(tmp_path/'t.csv'), album.Journal
    def journal(*args):
        monkeypatch.setattr(album, 'Journal', real)
        album.caption_album(Fake(), [Path('a.jpg')], album.Album(out))
        return real(*args)
    monkeypatch.setattr(album, 'Journal', journal)
    album.caption_album(Fake(), [Path('b.jpg')], album.Album(out))
    assert album.earlier_captions(out) == {'a.jpg': ['A photo of a'], 'b.jpg': ['A photo of b']}
    assert sorted(os.listdir(tmp_path)) == ['.t.csv.made', 't.csv']

def test_a_table_that_is_not_ours_leaves_no_journal(tmp_path):
    (tmp_path/'t.csv').write_text('name,size\na,1\n')
    with pytest.raises(ValueError, match='no table of captions'):
        album.caption_album(Fake(), [Path('b.jpg')], album.Album(str(tmp_path/'t.csv')))
    assert os.listdir(tmp_path) == ['t.csv']
