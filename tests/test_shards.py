"Shards in, shards out: every kind, bad photos, damage, runs that are killed, several processes"
import io
import os
import subprocess
import sys
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from capdec.captioner import Captioner
from capdec.config import CaptionRun, Decoding
from capdec.core import find_shards
from capdec.shards import caption_shard, caption_shards, read_shard
from files import jpeg, rows
from shell import FAST, capdec, one_line

pytestmark = pytest.mark.usefixtures('one_encoder')

ONE_BEAM = Decoding(beam_size=1)

def tar(path, files, mode='w'):
    with tarfile.open(path, mode) as t:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            t.addfile(info, io.BytesIO(content))
    return path

@pytest.fixture
def shards(tmp_path):
    "Three shards of four photos, one bad photo in each"
    d = tmp_path/'shards'
    d.mkdir()
    for k in range(3):
        tar(d/f'{k:05}.tar', {f'{k}{i}.jpg': b'no photo' if i == k else jpeg(30*k + 7*i) for i in range(4)})
    return d

# ---- what is a photo of a shard

def test_members_of_an_archive(tmp_path):
    good = jpeg()
    path = tar(tmp_path/'a.tar', {'a/1.JPG': good, 'a/1.txt': b'a dog', 'a/1.json': b'{}', '2.left.png': good,
        '._3.jpg': good, 'notes': b'x', '4.mp4': b'x'})
    with tarfile.open(path, 'a') as t:
        for kind in (tarfile.SYMTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE):
            info = tarfile.TarInfo(f'{kind.decode()}.jpg')
            info.type, info.linkname = kind, '/etc/passwd'
            t.addfile(info)
    assert [k for k, _ in read_shard(path)] == ['a/1', '2.left']
    tar(tmp_path/'b.tar.gz', {'1.webp': good}, 'w:gz')
    assert [k for k, _ in read_shard(tmp_path/'b.tar.gz')] == ['1']

def test_a_photo_too_large_costs_only_itself(tmp_path, monkeypatch):
    monkeypatch.setattr('capdec.shards.MAX_DOWNLOAD', 5000)
    path = tar(tmp_path/'a.tar', {'1.jpg': bytes(6000), '2.jpg': jpeg()})
    (_, why), (key, data) = read_shard(path)
    assert '6,000 bytes, more than a photo may have' in str(why) and key == '2' and isinstance(data, bytes)

@pytest.mark.parametrize('columns,keys', [(dict(jpg=['x', None, ''], __key__=['a', 'b', 'c']), ['a', 'b', 'c']),
    (dict(image=[dict(bytes=o, path='p') for o in ('x', None, '')]), ['0', '1', '2']),
    (dict(image_bytes=['x', None, ''], url=['u', 'v', 'w']), ['u', 'v', 'w'])])
def test_columns_of_a_table(tmp_path, columns, keys):
    good = jpeg()
    def fill(o):
        return dict(o, bytes=fill(o['bytes'])) if isinstance(o, dict) else {'x': good, '': b''}.get(o, o)
    table = pa.table({k: [fill(o) for o in v] if k not in ('__key__', 'url') else v for k, v in columns.items()})
    pq.write_table(table, tmp_path/'a.parquet')
    got = list(read_shard(tmp_path/'a.parquet'))
    assert [k for k, _ in got] == keys and got[0][1] == good and all(isinstance(v, ValueError) for _, v in got[1:])

def test_a_table_without_images_is_asked_about(tmp_path, mini):
    pq.write_table(pa.table(dict(id=[1], photo=[jpeg()])), tmp_path/'a.parquet')
    with pytest.raises(ValueError, match='which column holds the images. There are id, photo; .*image_column'):
        list(read_shard(tmp_path/'a.parquet'))
    r = capdec('caption', tmp_path/'a.parquet', '--out', tmp_path/'c.jsonl', *FAST, ok=False)
    assert 'name one with --image_column' in one_line(r)[0]
    capdec('caption', tmp_path/'a.parquet', '--out', tmp_path/'c.jsonl', '--image_column', 'photo', *FAST, ok=True)
    assert rows(tmp_path/'c.jsonl'/'a.jsonl')[0]['key'] == '1'

@pytest.mark.parametrize('kind,cut', [('tar', .25), ('tar.gz', .3), ('tar.gz', .9)])
def test_a_shard_that_breaks_off_keeps_its_photos(tmp_path, mini, cut, kind):
    path = tar(tmp_path/f'a.{kind}', {f'{i}.jpg': jpeg(i) for i in range(6)}, 'w:gz' if kind[-1] == 'z' else 'w')
    path.write_bytes(path.read_bytes()[:int(path.stat().st_size*cut)])
    n, failed = caption_shard(mini, path, tmp_path/'a.jsonl', CaptionRun(decoding=ONE_BEAM))
    found = rows(tmp_path/'a.jsonl')
    assert n == len(found) and failed == 1 and f'a.{kind}: damaged after {n-1} photos' in found[-1]['error']
    assert all(o['caption'] for o in found[:-1]) and n-1 >= int(6*cut) - 2 and n < 7

# ---- collections

@pytest.mark.parametrize('ending', ['jsonl', 'parquet'])
def test_a_bad_photo_never_loses_a_shard(shards, mini, tmp_path, ending):
    r = capdec('caption', shards/'*.tar', '--out', tmp_path/f'c.{ending}', *FAST)
    assert r.returncode == 1 and '12 photos of 3 shards captioned, 3 photos failed' in r.stdout
    for k in range(3):
        found = rows(tmp_path/f'c.{ending}'/f'{k:05}.{ending}')
        assert [o['key'] for o in found] == [f'{k}{i}' for i in range(4)]
        assert [o['caption'] is None for o in found] == [i == k for i in range(4)] == [bool(o['error']) for o in found]
    # the same captions as one by one
    assert found[0]['caption'] == mini(Image.open(io.BytesIO(jpeg(60))), beam_size=1)
    r = capdec('caption', shards, '--out', tmp_path/f'c.{ending}', *FAST, ok=True)
    assert '0 photos of 0 shards captioned, 3 shards were there already' in r.stdout

def test_a_run_that_was_killed_goes_on_with_the_next_shard(shards, mini, tmp_path, monkeypatch):
    found, out = find_shards(shards), tmp_path/'c.jsonl'
    run = CaptionRun('mini', decoding=ONE_BEAM, batch_size=2)
    class Stop(Exception):
        pass
    real = Captioner.caption_files
    def stops(self, images, **how):
        for n, o in enumerate(real(self, images, **how)):
            if stops.seen == 5:
                raise Stop
            stops.seen += 1
            yield o
    stops.seen = 0
    monkeypatch.setattr(Captioner, 'caption_files', stops)
    with pytest.raises(Stop):
        caption_shards(mini, found, out, run)
    # one is whole, the second is not there at all
    assert [o.name for o in out.iterdir() if o.name[0] != '.'] == ['00000.jsonl'] and len(rows(out/'00000.jsonl')) == 4
    before = (out/'00000.jsonl').stat().st_mtime_ns
    monkeypatch.setattr(Captioner, 'caption_files', real)
    done = caption_shards(mini, found, out, run)
    assert (done.shards, done.there, done.photos) == (2, 1, 8) and (out/'00000.jsonl').stat().st_mtime_ns == before

def test_each_process_takes_its_own(shards, mini, tmp_path):
    found, out = find_shards(shards), tmp_path/'c.parquet'
    done = [caption_shards(mini, found, out, CaptionRun(decoding=ONE_BEAM), part=(r, 2)) for r in (0, 1)]
    assert [o.shards for o in done] == [2, 1] and len(list(out.glob('*.parquet'))) == 3

def test_what_made_a_folder(shards, tmp_path):
    out = tmp_path/'c.jsonl'
    capdec('caption', shards, '--out', out, *FAST)
    r = capdec('caption', shards, '--out', out, '--max_words', 4, *FAST, ok=False)
    assert 'was made with another limits; --overwrite to caption again' in one_line(r)[0]
    capdec('caption', shards, '--out', out, '--max_words', 4, '--num_captions', 2, '--overwrite', '--device', 'cpu')
    found = rows(out/'00000.jsonl')
    assert found[0] == dict(key='00', captions=[], error=found[0]['error']) and len(found[1]['captions']) == 2
    assert all(len(o.split()) <= 4 for o in found[1]['captions'])

def test_predictions_of_shards(shards, tmp_path):
    r = capdec('predict', '--images', shards, '--out', tmp_path/'p.jsonl', '--beam', 'false', '--device', 'cpu')
    assert r.returncode == 1 and '12 photos of 3 shards' in r.stdout
    found = rows(tmp_path/'p.jsonl'/'00001.jsonl')
    assert [o['image_id'] for o in found] == ['10', '11', '12', '13']
    assert found[0]['caption'] == found[0]['caption'].lower()

@pytest.mark.parametrize('args,said', [(['--out', 'c.csv'], 'use NAME.jsonl or NAME.parquet'),
    ([], 'its captions become one, too'), (['--out', 'c.jsonl', '--sidecar'], 'without --sidecar, --xmp'),
    (['--out', 'there.jsonl'], 'is a file; name a folder'), (['photo.jpg', '--out', 'c.jsonl'], 'not both')])
def test_what_does_not_fit(shards, tmp_path, monkeypatch, args, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path/'there.jsonl').write_text('')
    (tmp_path/'photo.jpg').write_bytes(jpeg())
    r = capdec('caption', 'shards/00000.tar', *args, *FAST, ok=False)
    assert said in one_line(r)[0], r.stderr

def test_shards_of_one_name(shards, tmp_path):
    (tmp_path/'other').mkdir()
    tar(tmp_path/'other'/'00000.tar', {'a.jpg': jpeg()})
    r = capdec('caption', shards, tmp_path/'other', '--out', tmp_path/'c.jsonl', *FAST, ok=False)
    assert 'would both become' in one_line(r)[0] and not (tmp_path/'c.jsonl').exists()
    # a folder of photos with an archive in it is a folder of photos
    (tmp_path/'other'/'a.jpg').write_bytes(jpeg())
    assert find_shards(tmp_path/'other') == []

# ---- processes

def launch(*args, n=2):
    return subprocess.run([sys.executable, '-m', 'accelerate.commands.launch', '--multi_gpu', '--num_processes', str(n),
        '--num_machines', '1', '--main_process_port', '0', '-m', 'capdec.cli', *map(str, args)],
        env=dict(os.environ, OMP_NUM_THREADS='1', CUDA_VISIBLE_DEVICES=''), capture_output=True, text=True, timeout=900)

@pytest.mark.slow
def test_two_processes_caption_as_one(shards, tmp_path):
    "A table of a folder, predictions of a folder, and shards"
    album = tmp_path/'album'
    album.mkdir()
    for i in range(9):
        (album/f'{i}.jpg').write_bytes(b'no photo' if i == 4 else jpeg(11*i))
    how = ('--batch_size', 2, '--device', 'cpu')
    for verb, what in (('caption', [album, '--sidecar']), ('predict', ['--images', album])):
        ending = 'csv' if verb == 'caption' else 'json'
        r = launch(verb, *what, '--out', tmp_path/f'two.{ending}', *how)
        assert r.returncode and 'Traceback' not in r.stderr.replace('Traceback (most recent call last):\n  File '
            f'"{sys.executable}', ''), r.stderr[-3000:]
        # one says so
        assert r.stdout.count(f'two.{ending}: ') == 1, r.stdout
        capdec(verb, *what, '--out', tmp_path/f'one.{ending}', *how, ok=False)
        assert (tmp_path/f'two.{ending}').read_bytes() == (tmp_path/f'one.{ending}').read_bytes()
    r = launch('caption', shards, '--out', tmp_path/'two.parquet', *how)
    assert 'process 1 of 2: 8 photos of 2 shards' in r.stdout
    assert 'process 2 of 2: 4 photos of 1 shard captioned' in r.stdout
    capdec('caption', shards, '--out', tmp_path/'one.parquet', *how)
    for k in range(3):
        assert rows(tmp_path/'two.parquet'/f'{k:05}.parquet') == rows(tmp_path/'one.parquet'/f'{k:05}.parquet')
