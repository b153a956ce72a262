"What a story cannot show of capdec.store: properties over many inputs, processes that die, files that lie"
import json
import os
import pickle
import re
import signal
import subprocess
import sys
import textwrap
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies as st

from capdec.core import load_pickle
from capdec.store import EmbeddingStore,export_official,import_official,read_official_pickle,store_captions

def records(n, start=0):
    return [dict(image_id=f'im{i//5}' if i%2 else i//5, caption=f'caption {i} 🐕', id=i, filename=None if i%3
        else f'{i}.jpg') for i in range(start, start+n)]
def noise(n, d=8, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))

def make(path, sizes=(5, 1, 7), d=8, **kw):
    rows,v = records(sum(sizes)),noise(sum(sizes), d)
    with EmbeddingStore.create(path, d, dict(encoder='noise', kind='text'), **kw) as s:
        i = 0
        for n in sizes:
            s.append(rows[i:i+n], v[i:i+n])
            i += n
    return EmbeddingStore(path),rows,v

def run(code, *args, **kw):
    return subprocess.run([sys.executable, '-c', textwrap.dedent(code), *map(str, args)], capture_output=True,
        text=True, **kw)

# ---- what goes in comes out

ids = st.one_of(st.integers(), st.text(st.characters(exclude_categories=['Cs'])))
words = st.text(st.characters(exclude_categories=['Cs']))
rows_of = st.lists(st.fixed_dictionaries(dict(image_id=ids, caption=words, id=ids, filename=st.none() | words)),
    max_size=12)

@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(rows_of, max_size=4), st.sampled_from(['float16','float32']), st.data())
def test_round_trip(tmp_path_factory, shards, dtype, data):
    path = tmp_path_factory.mktemp('store')
    rows = [r for s in shards for r in s]
    v = noise(len(rows), 3)
    with EmbeddingStore.create(path, 3, dtype=dtype) as s:
        i = 0
        for sh in shards:
            s.append(sh, v[i:i+len(sh)])
            i += len(sh)
    store = EmbeddingStore(path).verify()
    want = v.half().float() if dtype == 'float16' else v
    assert len(store) == len(rows) and list(store.rows()) == rows
    assert [type(o['image_id']) for o in store.rows()] == [type(o['image_id']) for o in rows]
    assert torch.equal(store.vectors(), want)
    if rows:
        pick = data.draw(st.lists(st.integers(-len(rows), len(rows)-1), max_size=20))
        for p in (pick, torch.tensor(pick, dtype=torch.long), np.array(pick, dtype=int)):
            assert torch.equal(store.vectors(p), want[torch.tensor(pick, dtype=torch.long)])
            assert store.captions(p) == [rows[i]['caption'] for i in pick]
        cut = data.draw(st.slices(len(rows)))
        assert store.captions(cut) == [o['caption'] for o in rows[cut]]
        assert torch.equal(store.vectors(cut), want[list(range(len(rows)))[cut]])
        mask = torch.tensor(data.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows))))
        assert torch.equal(store.vectors(mask), want[mask])

def test_many_shards_stay_within_the_limit_of_open_files(tmp_path):
    r = run('''
        import resource,sys,torch
        from capdec.store import EmbeddingStore
        resource.setrlimit(resource.RLIMIT_NOFILE, (320, 320))
        with EmbeddingStore.create(sys.argv[1], 2) as s:
            for i in range(400):
                s.append([dict(image_id=i, caption='a', id=i, filename=None)], torch.full((1, 2), float(i)))
        assert EmbeddingStore(sys.argv[1]).vectors()[:,0].tolist() == list(range(400))
        ''', tmp_path/'s')
    assert r.returncode == 0, r.stderr

def test_opening_reads_nothing(tmp_path):
    import pyarrow as pa
    with EmbeddingStore.create(tmp_path/'s', 512) as s:
        s.append(records(20_000), torch.zeros(20_000, 512))
    before = pa.total_allocated_bytes()
    store = EmbeddingStore(tmp_path/'s')
    store.vectors([0, 19_999])
    # the file has 20 MB
    assert pa.total_allocated_bytes() - before < 1 << 20

def test_datasets_opens_it(tmp_path):
    store,rows,v = make(tmp_path/'s')
    ds = store.dataset()
    assert ds['caption'][:] == [r['caption'] for r in rows] and ds[7]['image_id'] == str(rows[7]['image_id'])
    assert torch.equal(ds.with_format('torch')[6]['vector'], v[6].half().float())

def test_a_loader_with_workers(tmp_path):
    store,_,v = make(tmp_path/'s')
    assert torch.equal(pickle.loads(pickle.dumps(store)).vectors(), v.half().float())

def test_tensors_that_need_care(tmp_path):
    with EmbeddingStore.create(tmp_path/'s', 4, dtype='float32') as s:
        s.append(records(3), torch.ones(3, 4, requires_grad=True))
        s.append(records(2), torch.ones(2, 4, dtype=torch.bfloat16))
        # not contiguous
        s.append(records(4), torch.arange(16.).reshape(4, 4).T)
    assert torch.equal(EmbeddingStore(tmp_path/'s').vectors()[5:], torch.arange(16.).reshape(4, 4).T)

def test_captions_without_vectors(tmp_path):
    rows = records(11)
    assert store_captions(iter(rows), tmp_path/'c.store', dict(source='x'), shard_rows=4) == 11
    store = EmbeddingStore(tmp_path/'c.store').verify()
    assert list(store.rows()) == rows and store.dim == 0 and store.meta['kind'] == 'captions' and store.dataset()[
        'caption'][:] == [r['caption'] for r in rows]
    from capdec.data import read_captions
    assert [o['caption'] for o in read_captions(tmp_path/'c.store')] == [r['caption'] for r in rows] and [o['image_id']
        for o in read_captions(tmp_path/'c.store')] == [r['image_id'] for r in rows]
    with pytest.raises(ValueError, match='without vectors'):
        store.vectors([0])
    with pytest.raises(ValueError, match='without vectors'):
        EmbeddingStore.create(tmp_path/'d', 0).append(rows, noise(11))
    with pytest.raises(ValueError, match='no captions'):
        store_captions([], tmp_path/'e')
    assert not (tmp_path/'e').exists()

def test_names_that_are_not_utf8(tmp_path):
    name = os.fsdecode(b'caf\xe9.jpg')
    rows = [dict(image_id=name, caption='a', id=name, filename=f'd/{name}'),
        dict(image_id='\0', caption='b', id='\0"x"', filename=None)]
    with EmbeddingStore.create(tmp_path/'s', 2) as s:
        s.append(rows, torch.zeros(2, 2))
        s.finish(dict(failed=[[name, 'broken']]))
    store = EmbeddingStore(tmp_path/'s')
    assert list(store.rows()) == rows and store.meta['failed'] == [[name, 'broken']] and store.column('filename',
        [0, 1]) == [f'd/{name}', None]
    # behind a zero: other programs see that it is no plain name
    assert EmbeddingStore(tmp_path/'s').dataset()['filename'][0].isprintable() is False

# ---- bad input: one clear line

@pytest.mark.parametrize('row,what', [(dict(image_id=None), 'image_id None'), (dict(image_id=True), 'image_id True'),
    (dict(caption=3), 'caption 3'), (dict(caption=None), 'caption None'),
    (dict(caption='half a dog \ud83d'), 'lone surrogate'), (dict(filename=7), 'filename 7')])
def test_bad_records(tmp_path, row, what):
    with EmbeddingStore.create(tmp_path/'s', 2) as s:
        with pytest.raises(ValueError, match=what):
            s.append([{**records(1)[0], **row}], torch.zeros(1, 2))
    assert len(EmbeddingStore(tmp_path/'s')) == 0

@pytest.mark.parametrize('v,what', [(torch.zeros(2), 'shape'), (torch.zeros(1, 3), 'holds'),
    (torch.zeros(2, 2), '1 records with 2'), (torch.full((1, 2), float('nan')), 'NaN'),
    (torch.full((1, 2), 7e4), 'too large')])
def test_bad_vectors(tmp_path, v, what):
    with EmbeddingStore.create(tmp_path/'s', 2) as s:
        with pytest.raises(ValueError, match=what):
            s.append(records(1), v)

def test_a_damaged_shard_is_named(tmp_path):
    store,rows,v = make(tmp_path/'s', sizes=(50, 50))
    f = tmp_path/'s'/'shard-00001.arrow'
    whole = f.read_bytes()
    f.write_bytes(whole[:len(whole)//2])
    with pytest.raises(ValueError, match='shard-00001.*cut off'):
        EmbeddingStore(tmp_path/'s')
    f.unlink()
    with pytest.raises(FileNotFoundError, match='shard-00001.*missing'):
        EmbeddingStore(tmp_path/'s')
    f.write_bytes(bytes(len(whole)))
    with pytest.raises(ValueError, match='shard-00001.*damaged'):
        EmbeddingStore(tmp_path/'s').vectors()
    make(tmp_path/'t', sizes=(100,))
    (tmp_path/'s'/'shard-00001.arrow').write_bytes((tmp_path/'t'/'shard-00000.arrow').read_bytes()[:len(whole)].ljust(
        len(whole), b'\0'))
    with pytest.raises(ValueError, match='shard-00001.*damaged'):
        EmbeddingStore(tmp_path/'s').captions()

def test_flipped_bits_never_end_in_a_crash(tmp_path):
    make(tmp_path/'s', sizes=(40,))
    r = run('''
        import random,sys
        from pathlib import Path
        from capdec.store import EmbeddingStore
        f = Path(sys.argv[1])/'shard-00000.arrow'
        whole = f.read_bytes(); rng = random.Random(0); clear = silent = 0
        for _ in range(300):
            b = bytearray(whole)
            for _ in range(rng.choice([1, 8, 64])): b[rng.randrange(len(b))] = rng.randrange(256)
            f.write_bytes(b)
            try: EmbeddingStore(f.parent).verify(); assert bytes(b) == whole
            except ValueError: pass
            try: s = EmbeddingStore(f.parent); s.vectors(); list(s.rows()); silent += 1
            except ValueError as e: assert 'damaged' in str(e), e; clear += 1
            f.unlink()     # the next write must not change pages that are still mapped
        print(clear, silent)
        ''', tmp_path/'s')
    assert r.returncode == 0, r.stderr[-2000:]
    # what only `verify` can see (a number, a letter) is read as it is
    assert int(r.stdout.split()[0]) > 10

@pytest.mark.parametrize('text', ['', '{', '[]', '{}', 'null', '{"format": "capdec embedding store"}', '\x00\x01'])
def test_a_bad_index(tmp_path, text):
    make(tmp_path/'s')
    (tmp_path/'s'/'index.json').write_text(text)
    with pytest.raises(ValueError, match='index.json'):
        EmbeddingStore(tmp_path/'s')

@pytest.mark.parametrize('key,value', [('dim', '8'), ('dim', -1), ('shards', None), ('shards', [{}]), ('columns', 3),
    ('meta', []), ('version', 2), ('finished', 'yes'), ('dtype', 'int8')])
def test_a_changed_index(tmp_path, key, value):
    make(tmp_path/'s')
    f = tmp_path/'s'/'index.json'
    f.write_text(json.dumps({**json.loads(f.read_text()), key: value}))
    with pytest.raises(ValueError, match='index.json'):
        EmbeddingStore(tmp_path/'s')

def test_wrong_width_is_found_on_reading(tmp_path):
    make(tmp_path/'s')
    f = tmp_path/'s'/'index.json'
    f.write_text(json.dumps({**json.loads(f.read_text()), 'dim': 4}))
    with pytest.raises(ValueError, match='damaged shard'):
        EmbeddingStore(tmp_path/'s').vectors()

def test_other_options_are_refused(tmp_path):
    EmbeddingStore.create(tmp_path/'s', 8, dict(encoder='a', size=(1, 2))).close()
    for kw,what in ((dict(meta=dict(encoder='b', size=(1, 2))), 'encoder'), (dict(meta=dict(encoder='a')), 'size'),
            (dict(dim=9), 'dim: 8, now 9'), (dict(dtype='float32'), 'dtype'), (dict(columns=('caption',)), 'columns')):
        with pytest.raises(ValueError, match=what):
            EmbeddingStore.create(tmp_path/'s', **{**dict(dim=8, meta=dict(encoder='a', size=(1, 2)), resume=True),
                **kw})
    # a tuple is JSON's list
    EmbeddingStore.create(tmp_path/'s', 8, dict(encoder='a', size=(1, 2)), resume=True).finish()
    with pytest.raises(ValueError, match='only what JSON'):
        EmbeddingStore.create(tmp_path/'t', 8, dict(encoder=object()))

def test_a_folder_of_other_things_is_left_alone(tmp_path):
    (tmp_path/'thesis.tex').write_text('precious')
    with pytest.raises(ValueError, match='not empty'):
        EmbeddingStore.create(tmp_path, 8)
    assert [o.name for o in tmp_path.iterdir()] == ['thesis.tex']

# ---- processes that die, and disks that refuse

WRITER = '''
import os, signal, sys
import torch
from capdec.store import EmbeddingStore
with EmbeddingStore.create(sys.argv[1], 8, dict(encoder='noise'), resume=True) as s:
    v = torch.randn(200, 8, generator=torch.Generator().manual_seed(0))
    for i in range(len(s), 200, 5):
        if len(sys.argv) > 2 and i == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)
        rows = [dict(image_id=j, caption=f'c{j}', id=j, filename=None) for j in range(i, i+5)]
        s.append(rows, v[i:i+5])
'''

def files(path):
    return {o.name: o.read_bytes() for o in path.iterdir()}

def test_kill_minus_nine_and_go_on(tmp_path):
    assert run(WRITER, tmp_path/'whole').returncode == 0
    for at in (25, 140):
        assert run(WRITER, tmp_path/'s', str(at)).returncode == -signal.SIGKILL
        assert not json.loads((tmp_path/'s'/'index.json').read_text())['finished']
    assert run(WRITER, tmp_path/'s').returncode == 0
    assert files(tmp_path/'s') == files(tmp_path/'whole')

def test_a_shard_without_its_index_entry_is_written_again(tmp_path):
    s = EmbeddingStore.create(tmp_path/'s', 8)
    s.append(records(2), noise(2))
    s.close()
    (tmp_path/'s'/'shard-00001.arrow').write_bytes(b'rubbish')
    (tmp_path/'s'/'.shard-00001.arrow.q.tmp').write_bytes(b'rub')
    with EmbeddingStore.create(tmp_path/'s', 8, resume=True) as s:
        s.append(records(2, 2), noise(2))
    assert EmbeddingStore(tmp_path/'s').verify().column('id') == [0, 1, 2, 3] and not list((tmp_path/'s').glob('.*'))

def test_one_writer_at_a_time(tmp_path):
    with EmbeddingStore.create(tmp_path/'s', 8, dict(encoder='noise')) as s:
        r = run(WRITER, tmp_path/'s')
        assert r.returncode and 'another process is writing' in r.stderr.splitlines()[-1]
        s.append(records(1), noise(1))
    assert len(EmbeddingStore(tmp_path/'s')) == 1

def test_an_exception_frees_the_lock_and_keeps_what_was_written(tmp_path):
    with pytest.raises(RuntimeError):
        with EmbeddingStore.create(tmp_path/'s', 8) as s:
            s.append(records(1), noise(1))
            raise RuntimeError
    with pytest.raises(ValueError, match='unfinished store .1 rows'):
        EmbeddingStore(tmp_path/'s')
    with EmbeddingStore.create(tmp_path/'s', 8, resume=True) as s:
        assert len(s) == 1

CROWD = '''
import os, sys, time
import numpy as np
# without torch: such a process starts quickly
from capdec.store import EmbeddingStore
rows = [dict(image_id=i, caption=f'c{i}', id=i, filename=None) for i in range(60)]
v = np.random.default_rng(0).standard_normal((60, 8))
# all start at once
while not os.path.exists(sys.argv[2]):
    time.sleep(.001)
while True:
    try:
        with EmbeddingStore.create(sys.argv[1], 8, dict(encoder='noise'), resume=True) as s:
            if s.finished:
                break
            for i in range(len(s), 60, 3):
                s.append(rows[i:i+3], v[i:i+3])
                time.sleep(.001)
            s.finish(dict(failed=['kept']))
    except ValueError as e:
        assert 'another process is writing' in str(e), e
        time.sleep(.002)
print('done')
'''

def test_processes_that_fight_for_one_store(tmp_path):
    "However they meet, one writes and the others are told so; what comes out is what one process alone writes"
    ps = [subprocess.Popen([sys.executable, '-c', CROWD, str(tmp_path/'s'), str(tmp_path/'go')], stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True) for _ in range(3)]
    (tmp_path/'go').write_text('')
    for p in ps:
        out,err = p.communicate(timeout=600)
        assert out.strip() == 'done', err[-2000:]
    assert subprocess.run([sys.executable, '-c', CROWD, str(tmp_path/'alone'), str(tmp_path/'go')],
        capture_output=True).returncode == 0
    assert {k: v for k,v in files(tmp_path/'s').items() if k != '.lock'} == {k: v for k,
        v in files(tmp_path/'alone').items() if k != '.lock'}
    assert EmbeddingStore(tmp_path/'s').verify().meta['failed'] == ['kept']

def test_a_store_finished_by_another_process_in_between_is_left_alone(tmp_path, monkeypatch):
    import capdec.store as S
    s = EmbeddingStore.create(tmp_path/'s', 8)
    s.append(records(2), noise(2))
    s.finish(dict(failed=['x']))
    before,found = files(tmp_path/'s'),S._found
    # the first look comes just before the other process has begun
    looks = iter([None])
    monkeypatch.setattr(S, '_found', lambda *a: next(looks) if a and looks.__length_hint__() else found(*a))
    with EmbeddingStore.create(tmp_path/'s', 8, resume=True) as t:
        assert t.finished and len(t) == 2
    assert {k: v for k,v in files(tmp_path/'s').items() if k != '.lock'} == before

def test_disk_full(tmp_path):
    r = run('''
        import resource,sys,torch
        from capdec.store import EmbeddingStore
        s = EmbeddingStore.create(sys.argv[1], 512)
        rows = [dict(image_id=i, caption='a', id=i, filename=None) for i in range(1000)]
        s.append(rows[:10], torch.zeros(10, 512))
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))    # the operating system refuses to write more
        try: s.append(rows, torch.zeros(1000, 512))
        except OSError as e: print(e)
        ''', tmp_path/'s')
    assert r.returncode == 0, r.stderr
    assert 'cannot be written' in r.stdout and len(r.stdout.strip().splitlines()) == 1
    assert sorted(o.name for o in (tmp_path/'s').iterdir() if o.name != '.lock') == ['index.json', 'shard-00000.arrow']
    assert len(EmbeddingStore.create(tmp_path/'s', 512, resume=True)) == 10

def test_read_only_folder(tmp_path):
    code = '''
        import os,sys
        from capdec.store import EmbeddingStore
        import torch,filelock
        os.chmod(sys.argv[1], 0o555)
        if os.geteuid() == 0: os.setuid(65534)     # root may write anywhere
        for path in (sys.argv[1], sys.argv[1]+'/new'):
            try: EmbeddingStore.create(path, 4); print('written')
            except OSError as e: print(e)
        '''
    import tempfile
    # pytest's own folder cannot be entered by another user
    with tempfile.TemporaryDirectory() as d:
        os.chmod(d, 0o755)
        os.mkdir(f'{d}/r')
        r = run(code, f'{d}/r')
    assert r.returncode == 0, r.stderr
    assert len(r.stdout.splitlines()) == 2 and all('cannot be written' in l for l in r.stdout.splitlines())

# ---- official pickles

class _Evil:
    def __init__(self, f, *args):
        self.f,self.args = f,args
    def __reduce__(self):
        return self.f, self.args

def _official(text=None, image=None, n=3, index=None):
    return {'clip_embedding': torch.zeros(0) if image is None else image, 'clip_embedding_text_dave': 0 if text is None
        else text,
        'captions': [dict(image_id=f'x{i}' if i else 7, caption=f'c{i}', id=i, clip_embedding=i if index is None
        else index[i], filename='a.jpg') for i in range(n)]}

def test_malicious_pickles_do_not_run(tmp_path):
    ran = tmp_path/'ran'
    inner = pickle.dumps(_Evil(os.system, f'touch {ran}'))
    evil = {'system': _Evil(os.system, f'touch {ran}'), 'eval': _Evil(eval, f'open({str(ran)!r}, "w")'),
        'open': _Evil(open, str(ran), 'w'),
        'inside a dict': {'captions': [], 'clip_embedding': _Evil(os.system, f'touch {ran}')},
        'inside the bytes of a tensor': _Evil(torch.storage._load_from_bytes, inner),
        'torch.load': _Evil(torch.load, str(tmp_path/'inner.pt'))}
    (tmp_path/'inner.pt').write_bytes(inner)
    for name,obj in evil.items():
        f = tmp_path/'evil.pkl'
        f.write_bytes(pickle.dumps(obj))
        for read in (load_pickle, partial(load_pickle, tensors=True), read_official_pickle):
            with pytest.raises(ValueError, match='evil.pkl') as e:
                read(f)
            assert '\n' not in str(e.value), name
        assert not ran.exists(), name
    pickle.loads(pickle.dumps(evil['system']))
    # the same bytes do run where nothing stops them
    assert ran.exists()

def test_every_prefix_of_a_pickle_is_refused(tmp_path):
    whole = pickle.dumps(_official(text=noise(3).half()))
    f = tmp_path/'cut.pkl'
    for n in range(0, len(whole)-1, 37):
        f.write_bytes(whole[:n])
        with pytest.raises(ValueError, match='cut.pkl'):
            read_official_pickle(f)

@pytest.mark.parametrize('dtype', [torch.half, torch.float])
def test_official_layouts(tmp_path, dtype):
    t,m = noise(3).to(dtype),noise(3, seed=1).to(dtype)
    for text,image in ((t, None), (None, m), (t, m)):
        f = tmp_path/'o.pkl'
        f.write_bytes(pickle.dumps(_official(text, image)))
        got = read_official_pickle(f)
        for want,have in ((text, got['text']), (image, got['image'])):
            assert have is None if want is None else torch.equal(have, want) and have.dtype == dtype
        for kind in [k for k in ('text','image') if got[k] is not None]:
            s = import_official(f, tmp_path/f'{kind}{text is None}{image is None}', kind=kind, shard_rows=2)
            assert torch.equal(s.vectors(), got[kind].float()) and s.dtype == ('float16' if dtype == torch.half
                else 'float32') and s.meta['kind'] == kind
            assert s.column('image_id') == [7, 'x1', 'x2'] and s.column('filename') == ['a.jpg']*3

def test_row_numbers(tmp_path):
    f = tmp_path/'o.pkl'
    # photos were skipped: the position counts
    f.write_bytes(pickle.dumps(_official(noise(3), index=[0, 4, 9])))
    assert torch.equal(read_official_pickle(f)['text'], noise(3))
    # captions in another order: each points at its own vector
    f.write_bytes(pickle.dumps(_official(noise(3), index=[2, 0, 1])))
    assert torch.equal(read_official_pickle(f)['text'], noise(3)[[2, 0, 1]])
    # captions that share an image's row
    f.write_bytes(pickle.dumps(_official(image=noise(2), index=[1, 0, 1])))
    assert torch.equal(read_official_pickle(f)['image'], noise(2)[[1, 0, 1]])
    f.write_bytes(pickle.dumps(_official(image=noise(2), index=[1, 0, 2])))
    with pytest.raises(ValueError, match='do not fit'):
        read_official_pickle(f)

def test_captions_reordered_while_photos_were_missing(tmp_path):
    "The number of a row counts photos that were skipped, too: its rank is the row"
    f = tmp_path/'o.pkl'
    for index,want in (([9, 0, 4], [2, 0, 1]), ([4, 9, 0], [1, 2, 0]), ([7, 8, 9], [0, 1, 2]), ([5, 2, 1], [2, 1, 0])):
        f.write_bytes(pickle.dumps(_official(noise(3), noise(3), index=index)))
        got = read_official_pickle(f)
        assert torch.equal(got['text'], noise(3)[want]) and torch.equal(got['image'], noise(3)[want])
        store = import_official(f, tmp_path/f'store{index[0]}')
        assert store.captions() == ['c0', 'c1', 'c2'] and torch.equal(store.vectors(), noise(3)[want])

def test_row_numbers_that_repeat_are_rows(tmp_path):
    f = tmp_path/'o.pkl'
    # as many captions as photos, and one photo has two
    f.write_bytes(pickle.dumps(_official(image=noise(3), index=[0, 0, 2])))
    assert torch.equal(read_official_pickle(f)['image'], noise(3)[[0, 0, 2]])
    # no numbers at all: one after the other; some and some: an error
    f.write_bytes(pickle.dumps(_official(noise(3), index=[None]*3)))
    assert torch.equal(read_official_pickle(f)['text'], noise(3))
    for index in ([0, None, 2], [0, 0, 7], ['0', 1, 2]):
        f.write_bytes(pickle.dumps(_official(noise(3), index=index)))
        with pytest.raises(ValueError, match='do not fit'):
            read_official_pickle(f)

@pytest.mark.parametrize('obj', [[], 3, {'captions': 'x'}, {'captions': [3]},
    {'captions': [{'caption': 'a'}], 'clip_embedding': torch.zeros(1, 2)}, {'captions': []},
    {'captions': [{'caption': 'a', 'image_id': 1}], 'clip_embedding': torch.zeros(2, 2, 2)}])
def test_wrong_layouts(tmp_path, obj):
    (tmp_path/'o.pkl').write_bytes(pickle.dumps(obj))
    with pytest.raises(ValueError, match='o.pkl'):
        read_official_pickle(tmp_path/'o.pkl')

def test_import_goes_on(tmp_path):
    f = tmp_path/'o.pkl'
    f.write_bytes(pickle.dumps(_official(noise(3))))
    a = import_official(f, tmp_path/'a', shard_rows=2)
    s = EmbeddingStore.create(tmp_path/'b', 8, a.meta, dtype='float32')
    s.append(list(a.rows())[:2], a.vectors([0, 1]))
    s.close()
    import_official(f, tmp_path/'b', shard_rows=2)
    assert files(tmp_path/'a') == files(tmp_path/'b')

def test_the_official_file(shared, tmp_path):
    f = shared/'golden'/'official_capdec'/'captions.pkl'
    got = read_official_pickle(f)
    x = np.load(f.parent/'noise.npz')['x']
    assert got['text'].shape == got['image'].shape == (250,
        512) and got['text'].dtype == torch.half and len(got['captions']) == 250
    np.testing.assert_array_equal(got['text'][:len(x)].float().numpy(), x)
    for kind in ('text','image'):
        assert torch.equal(import_official(f, tmp_path/kind, kind=kind).vectors(), got[kind].float())

# ---- back to the official tools

def test_official_pickle_there_and_back(tmp_path):
    "What the official `pickle.load` finds, from text, from images, and from both"
    t,m,rows = noise(5).half(),noise(5, seed=1).half(),records(5)
    for kind,v in (('text', t), ('image', m)):
        with EmbeddingStore.create(tmp_path/kind, 8, dict(encoder='x', kind=kind)) as s:
            s.append(rows, v)
    a,b = EmbeddingStore(tmp_path/'text'),EmbeddingStore(tmp_path/'image')
    for store,other in ((a, None), (b, None), (a, b), (b, a)):
        data = pickle.loads(export_official(store, tmp_path/'o.pkl', other).read_bytes())
        assert set(data) == {'clip_embedding', 'clip_embedding_text_dave', 'captions'}
        assert [o['clip_embedding'] for o in data['captions']] == list(range(5)) and [o['caption']
            for o in data['captions']] == [r['caption'] for r in rows]
        both = other is not None
        if store is a or both:
            assert torch.equal(data['clip_embedding_text_dave'],
                t) and data['clip_embedding_text_dave'].dtype == torch.half
        else:
            assert data['clip_embedding_text_dave'] == 0
        assert torch.equal(data['clip_embedding'], m) if store is b or both else data['clip_embedding'].shape == (0,)
        # nothing in it that the restricted reader refuses
        back = read_official_pickle(tmp_path/'o.pkl')
        assert back['captions'] == rows
        # 2, 2 and 1 rows
        parts = pickle.loads(export_official(store, tmp_path/'parts.pkl', other, part=2).read_bytes())
        assert parts['captions'] == data['captions'] and all(torch.equal(torch.as_tensor(parts[k]),
            torch.as_tensor(data[k])) for k in data if k != 'captions')
        again = read_official_pickle(tmp_path/'parts.pkl')
        assert all(o is None or torch.equal(o, again[k]) and o.dtype == again[k].dtype for k,o in back.items()
            if k != 'captions') and again['captions'] == rows
    with pytest.raises(ValueError, match='one of each'):
        export_official(a, tmp_path/'x.pkl', a)
    assert not (tmp_path/'x.pkl').exists()

def test_the_official_file_there_and_back(golden, tmp_path):
    text,image = (import_official(golden/'captions.pkl', tmp_path/k, kind=k) for k in ('text','image'))
    export_official(text, tmp_path/'back.pkl', image)
    a,b = (load_pickle(o, tensors=True) for o in (golden/'captions.pkl', tmp_path/'back.pkl'))
    for k in ('clip_embedding','clip_embedding_text_dave'):
        assert torch.equal(a[k], b[k]) and a[k].dtype == b[k].dtype
    assert [{k: o.get(k) for k in ('image_id','caption','id','filename')} for o in a['captions']] == [{k: o.get(k)
        for k in ('image_id','caption','id','filename')} for o in b['captions']]

def test_pickles_are_written_in_one_place_only():
    from pathlib import Path
    import capdec
    lines = [(p.name, l.strip()) for p in sorted(Path(capdec.__file__).parent.glob('*.py'))
        for l in p.read_text().splitlines() if re.search(r'pickle\.dump|\bpickle\._?Pickler|_OfficialPickler\(', l)]
    # one class, used once
    assert [n for n,_ in lines] == ['store.py']*2 and 'class _OfficialPickler' in lines[0][1], lines

@pytest.mark.parametrize('dtype', ['float16', 'float32', 'float64', 'int64', 'bool'])
def test_tensors_of_any_kind_come_out_of_a_pickle(tmp_path, dtype):
    "Half and single precision without a copy, parts of a larger tensor, nothing at all"
    import pickle
    import torch
    x = (torch.arange(60).reshape(12, 5)%7).to(getattr(torch, dtype))
    with open(tmp_path/'t.pkl', 'wb') as f:
        pickle.dump(dict(x=x, part=x[3:7, 1:], none=x[:0]), f)
    got = load_pickle(tmp_path/'t.pkl', tensors=True)
    for k, want in dict(x=x, part=x[3:7, 1:], none=x[:0]).items():
        assert got[k].dtype == want.dtype and torch.equal(got[k], want)

@pytest.mark.parametrize('e', [MemoryError(), RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: "
    "can't allocate memory: you tried to allocate 768000000 bytes")])
def test_a_pickle_larger_than_memory_is_not_called_damaged(tmp_path, monkeypatch, e):
    def fail(self):
        raise e
    monkeypatch.setattr('capdec.core.PlainUnpickler.load', fail)
    (tmp_path/'big.pkl').write_bytes(b'x')
    with pytest.raises(ValueError, match='big.pkl: its 0.0 GB do not fit into the memory'):
        load_pickle(tmp_path/'big.pkl')
