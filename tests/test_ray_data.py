"Ray's actors: what they are told, and whole runs with two of them on this machine"
import io
import os
import signal
import sys
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from capdec import ray_data
from capdec.config import Candidates, Decoding, Limits
from capdec.core import MissingPackage, find_shards
from capdec.ray_data import (Actors, PhotoActor, RayWork, ShardActor, caption_with_ray, collection_hours, photo_rate,
    rate_needed)
from capdec.shards import caption_shards
from files import jpeg, rows

WORK = RayWork(decoding=Decoding(beam_size=1), batch_size=3)
TEAM = Actors(actors=2)

@pytest.fixture
def shards(tmp_path):
    "Three archives and a table of four photos, one bad photo in each"
    d = tmp_path/'shards'
    d.mkdir()
    for k in range(3):
        with tarfile.open(d/f'{k:05}.tar', 'w') as t:
            for i in range(4):
                content = b'no photo' if i == k else jpeg(30*k + 7*i)
                info = tarfile.TarInfo(f'{k}{i}.jpg')
                info.size = len(content)
                t.addfile(info, io.BytesIO(content))
    images = [dict(bytes=b'no photo' if i == 3 else jpeg(90 + 7*i), path=None) for i in range(4)]
    pq.write_table(pa.table(dict(id=[f'3{i}' for i in range(4)], image=images)), d/'00003.parquet')
    return d

# ---- without Ray

def test_without_ray_it_is_one_line(shards, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, 'ray', None)
    with pytest.raises(MissingPackage, match=r"ray: this package is not installed; .*extra \[ray\]"):
        caption_with_ray(shards, tmp_path/'c.jsonl')
    assert ray_data._main([str(shards), '--out', str(tmp_path/'c.jsonl')]) == 1
    line, = capsys.readouterr().err.splitlines()
    assert line.startswith('capdec: error: ray') and not (tmp_path/'c.jsonl').exists()

@pytest.mark.parametrize('args,said', [(['--actors', '0'], '--actors 0'), (['--gpus', '-1'], '--gpus -1'),
    (['--cpus', 'inf'], '--cpus inf'), (['--batch_size', '0'], '--batch_size 0'), (['--views', '3'], 'views 3'),
    (['--out', 'c.csv'], 'shards go into a folder of shards'), (['--out', ''], '--out: name a folder')])
def test_what_is_typed_wrong(shards, tmp_path, capsys, args, said):
    assert ray_data._main([str(shards), '--out', str(tmp_path/'c.jsonl'), *args]) == 1
    line, = capsys.readouterr().err.splitlines()
    assert said in line

def test_every_setting_reaches_the_captioner(shards, tmp_path):
    work = RayWork(pool=Candidates('logprob'), decoding=Decoding(num_captions=2, beam_size=3),
        limits=Limits(max_words=4), dtype='float32', image_column='image')
    actor = ShardActor(work, 'cpu')
    assert (actor.captioner.pool.choose, actor.captioner.dtype) == ('logprob', 'float32')
    out = actor(pa.table(dict(shard=[str(shards/'00003.parquet')], out=[str(tmp_path/'c.parquet')])))
    assert out.to_pylist() == [dict(shards=1, there=0, photos=4, failed=1, broken=0, why='', stop='')]
    found = rows(tmp_path/'c.parquet')
    assert all(len(o['captions']) == 2 and all(len(c.split()) <= 4 for c in o['captions']) for o in found[:3])
    settings = work.settings(actor.captioner)
    assert settings['choose'] == 'logprob' and settings['limits']['max_words'] == 4

def test_photos_keep_their_other_columns():
    table = pa.table(dict(n=[1, 2, 3], jpg=[jpeg(), None, b'x'], tag=['a', 'b', 'c']))
    found = PhotoActor(WORK, 'cpu')(table)
    assert found.column_names == ['n', 'tag', 'caption', 'error'] and found.column('n').to_pylist() == [1, 2, 3]
    assert found.column('caption').to_pylist()[1:] == [None, None]
    assert 'no bytes' in found.column('error')[1].as_py() and 'not an image' in found.column('error')[2].as_py()
    # a batch of bad photos has the same types
    assert PhotoActor(WORK, 'cpu')(table.slice(1)).schema == found.schema

def test_costs_come_from_the_rows():
    row = lambda n: dict(per_second=n)
    machine = dict(gpu=None, cpu='C', cores=2)
    bench = dict(rows=dict(image=dict(fast=row(6)), caption=dict(fast=row(3))), machine=machine,
        peers=dict(image=dict(bfloat16=row(20)), caption=dict(bfloat16=row(20), int8=row(60)),
            machine=machine | dict(gpu='G')))
    assert photo_rate(bench) == (pytest.approx(2), 'C, 2 cores')
    assert photo_rate(bench, 'bfloat16') == (pytest.approx(10), 'G')
    assert photo_rate(bench, 'int8') == (pytest.approx(15), 'G')
    assert collection_hours(7200, 2, 1) == 1 and collection_hours(7200, 2, 8, .5) == .25
    assert rate_needed(7200, 1, 2) == 1

# ---- with Ray

@pytest.fixture(scope='module')
def ray():
    "A Ray of three counted cores on this machine, which asks nobody outside"
    os.environ |= dict(RAY_USAGE_STATS_ENABLED='0', RAY_BACKEND_LOG_LEVEL='fatal')
    ray = pytest.importorskip('ray', reason="Ray is not installed: pip install '.[ray]'")
    for last in (False, False, True):
        try:
            ray.init(num_cpus=3, object_store_memory=80_000_000, include_dashboard=False, log_to_driver=False)
            break
        except Exception as e:
            # its parts give each other fifteen seconds, which a machine with much to do needs for Python alone
            if last or 'timed out during startup' not in str(e):
                raise
            ray.shutdown()
    ray.data.DataContext.get_current().enable_progress_bars = False
    # actors cannot import what lies in tests/
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield ray
    ray.shutdown()

@pytest.mark.slow
@pytest.mark.parametrize('ending', ['jsonl', 'parquet'])
def test_two_actors_caption_as_one_process(ray, shards, tmp_path, ending):
    (shards/'00004.tar').write_text('no archive')
    (shards/'00005.parquet').write_text('no table')
    done = caption_with_ray(shards, tmp_path/f'ray.{ending}', WORK, TEAM)
    captioner = WORK.captioner('cpu')
    same = caption_shards(captioner, find_shards(shards), tmp_path/f'one.{ending}', WORK.run())
    assert done == same and (done.photos, done.failed) == (18, 6)
    for o in sorted((tmp_path/f'one.{ending}').iterdir()):
        assert (tmp_path/f'ray.{ending}'/o.name).read_bytes() == o.read_bytes()
    found = rows(tmp_path/f'ray.{ending}'/f'00001.{ending}')
    assert [o['caption'] is None for o in found] == [False, True, False, False]
    # either goes on with what the other has begun
    again = caption_shards(captioner, find_shards(shards), tmp_path/f'ray.{ending}', WORK.run())
    assert (again.shards, again.there) == (0, 6)

@pytest.mark.slow
def test_it_goes_on_where_it_was(ray, shards, tmp_path):
    out = tmp_path/'c.jsonl'
    caption_with_ray(shards/'0000[01].tar', out, WORK, TEAM)
    before = {o.name: o.stat().st_mtime_ns for o in out.glob('*.jsonl')}
    done = caption_with_ray(shards, out, WORK, TEAM)
    assert (done.shards, done.there, done.photos) == (2, 2, 8)
    assert before == {o: (out/o).stat().st_mtime_ns for o in before} and len(before) == 2
    # with all there, and with other settings
    assert caption_with_ray(shards, out, WORK, TEAM).there == 4
    other = RayWork(decoding=Decoding(beam_size=2))
    with pytest.raises(ValueError, match='c.jsonl: was made with another beam_size'):
        caption_with_ray(shards, out, other, TEAM)
    done = caption_with_ray(shards, out, other, TEAM, overwrite=True)
    assert (done.shards, done.there) == (4, 0) and all((out/o).stat().st_mtime_ns > t for o, t in before.items())

class Dying(RayWork):
    "Its first captioner that sees a photo dies of it"
    def captioner(self, device=''):
        c = super().captioner(device)
        real, marker = c.caption_files, Path(os.environ.get('DIED', self.clip_model_type))
        def caption_files(images, **how):
            for o in real(images, **how):
                if not marker.exists():
                    marker.touch()
                    os.kill(os.getpid(), signal.SIGKILL)
                yield o
        c.caption_files = caption_files
        return c

@pytest.mark.slow
def test_an_actor_that_dies_is_started_again(ray, shards, tmp_path, monkeypatch):
    class Work(Dying):
        def captioner(self, device='', marker=tmp_path/'died'):
            os.environ['DIED'] = str(marker)
            return super().captioner(device)
    done = caption_with_ray(shards, tmp_path/'c.jsonl', Work(decoding=WORK.decoding, batch_size=3), TEAM)
    assert (tmp_path/'died').exists() and (done.shards, done.photos, done.failed) == (4, 16, 4)
    captioner = WORK.captioner('cpu')
    caption_shards(captioner, find_shards(shards), tmp_path/'one.jsonl', WORK.run())
    for o in (tmp_path/'one.jsonl').glob('*.jsonl'):
        assert (tmp_path/'c.jsonl'/o.name).read_bytes() == o.read_bytes()

@pytest.mark.slow
def test_what_only_an_actor_knows_is_one_line(ray, shards, tmp_path):
    class Other(RayWork):
        "Of the second machine on, another type"
        def settings(self, captioner, marker=tmp_path/'asked'):
            own = super().settings(captioner)
            if marker.exists():
                own['dtype'] = 'int3'
            marker.touch()
            return own
    with pytest.raises(ValueError, match=r"^this machine captions with dtype 'int3'"):
        caption_with_ray(shards, tmp_path/'c.jsonl', Other(decoding=WORK.decoding), TEAM)
    with pytest.raises(OSError, match=r'^[^\n]*no_such_model[^\n]*$'):
        caption_with_ray(shards, tmp_path/'d.jsonl', RayWork('./no_such_model'), TEAM)
    with pytest.raises(ValueError, match="^`gpus` 1: Ray has 0 GPUs"):
        caption_with_ray(shards, tmp_path/'d.jsonl', WORK, Actors(gpus=1))
    with pytest.raises(ValueError, match="has no column 'photo'; there are id, image"):
        caption_with_ray(shards/'*.parquet', tmp_path/'d.jsonl', RayWork(image_column='photo'), TEAM)
    assert not list(tmp_path.glob('d.jsonl/*.jsonl'))

@pytest.mark.slow
def test_any_data_set_of_ray(ray, shards):
    how = dict(batch_format='pyarrow', compute=ray.data.ActorPoolStrategy(size=2), fn_constructor_args=(WORK, 'cpu'))
    for data in (ray.data.read_parquet(str(shards/'00003.parquet')),
            ray.data.read_webdataset(str(shards/'00000.tar'), decoder=None)):
        found = data.map_batches(PhotoActor, batch_size=2, **how).take_all()
        key = 'id' if 'id' in found[0] else '__key__'
        bad = '33' if key == 'id' else '00'
        assert len(found) == 4 and {o[key] for o in found if o['error']} == {bad}
        assert all(bool(o['caption']) != bool(o['error']) for o in found)
