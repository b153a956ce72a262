"Files that are written whole, and images of every kind."
import io
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from PIL import Image

from capdec.core import (Journal, atomic_path, demo_photos, find_images, is_main, is_pickle, load_pickle, one_line,
    open_image, read_json, write_json)
from shell import capdec

def jpeg(im, **kw):
    buf = io.BytesIO()
    im.save(buf, 'jpeg', **kw)
    return buf.getvalue()

def test_killed_writer_leaves_the_old_file(tmp_path):
    write_json(tmp_path/'a.json', {'old': 1})
    code = f"""
import os, signal
from capdec.core import atomic_path
with atomic_path(r'{tmp_path/"a.json"}') as p:
    p.write_text('half')
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, '-c', code]).returncode == -signal.SIGKILL
    assert read_json(tmp_path/'a.json') == {'old': 1}

def test_atomic_path_keeps_ordinary_permissions(tmp_path):
    old = os.umask(0o022)
    try:
        with atomic_path(tmp_path/'f') as p:
            p.write_text('x')
    finally:
        os.umask(old)
    assert (tmp_path/'f').stat().st_mode & 0o777 == 0o644

@settings(max_examples=40, deadline=None)
@given(st.recursive(st.none() | st.booleans() | st.integers(-10**9, 10**9) | st.text(),
    lambda c: st.lists(c, max_size=3) | st.dictionaries(st.text(), c, max_size=3), max_leaves=8))
def test_json_round_trip(tmp_path_factory, obj):
    f = tmp_path_factory.mktemp('j')/'o.json'
    write_json(f, obj)
    assert read_json(f) == obj

@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=12))
def test_any_file_name_survives_json(tmp_path_factory, name):
    f = tmp_path_factory.mktemp('j')/'o.json'
    assert os.fsencode(read_json(write_json(f, [os.fsdecode(name)]))[0]) == name

def test_full_disk_is_one_line_and_leaves_nothing(small_disk):
    write_json(small_disk/'a.json', [1])
    with pytest.raises(OSError) as e:
        write_json(small_disk/'a.json', ['x'*400_000])
    assert str(e.value) == f'{small_disk}/a.json: cannot be written (No space left on device)'
    assert [o.name for o in small_disk.iterdir()] == ['a.json'] and read_json(small_disk/'a.json') == [1]
    import torch
    from safetensors.torch import save_file
    with pytest.raises(OSError, match='cannot be written .No space left on '
            'device'), atomic_path(small_disk/'w.safetensors') as p:
        save_file({'w': torch.zeros(100_000)}, p)
    assert [o.name for o in small_disk.iterdir()] == ['a.json']

def test_home(tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    Image.new('RGB', (3, 2)).save(tmp_path/'a.png')
    assert open_image('~/a.png').size == (3, 2)

def test_no_place_to_write(tmp_path):
    (tmp_path/'f').write_text('')
    with pytest.raises(OSError, match='f/a.json: cannot be written'):
        write_json(tmp_path/'f'/'a.json', 1)
    # not an error of writing
    with pytest.raises(FileNotFoundError, match='gone'), atomic_path(tmp_path/'a'):
        open(tmp_path/'gone')

@pytest.mark.parametrize('content,says', [(b'', 'line 1'), (b'[1,', 'line 1'), (b'\xff\xfe\x00', 'not UTF-8'),
    (b'['*100_000, 'JSON')])
def test_bad_json(tmp_path, content, says):
    (tmp_path/'b.json').write_bytes(content)
    with pytest.raises(ValueError, match=says):
        read_json(tmp_path/'b.json')
    with pytest.raises(ValueError, match='folder'):
        read_json(tmp_path)

def test_every_mode_opens():
    for mode in ('1', 'L', 'LA', 'P', 'RGB', 'RGBA', 'CMYK', 'YCbCr', 'HSV', 'I', 'F', 'I;16'):
        im = open_image(Image.new(mode, (9, 5)))
        assert (im.mode, im.size) == ('RGB', (9, 5)), mode

def test_rotated_photo_is_upright():
    left_red = Image.new('RGB', (40, 20), 'blue')
    left_red.paste('red', (0, 0, 20, 20))
    exif = Image.Exif()
    exif[0x0112] = 6
    im = open_image(jpeg(left_red, exif=exif, quality=95))
    assert im.size == (20, 40) and im.getpixel((10, 5))[0] > 200 and im.getpixel((10, 35))[2] > 200

def test_transparency_is_laid_on_white(tmp_path):
    Image.new('RGBA', (4, 4), (0, 0, 0, 0)).save(tmp_path/'t.png')
    assert open_image(tmp_path/'t.png').getpixel((0, 0)) == (255, 255, 255)
    pal = Image.new('P', (4, 4))
    pal.info['transparency'] = 0
    pal.save(tmp_path/'p.png', transparency=0)
    assert open_image(tmp_path/'p.png').getpixel((0, 0)) == (255, 255, 255)

def test_sixteen_bits_are_scaled(tmp_path):
    Image.fromarray(np.linspace(0, 65535, 256, dtype=np.uint16).reshape(16, 16)).save(tmp_path/'d.png')
    a = np.array(open_image(tmp_path/'d.png'))
    assert a.min() == 0 and a.max() == 255 and len(np.unique(a)) == 256

@pytest.mark.parametrize('dtype', ['uint8', 'bool', 'float32', 'uint16'])
def test_arrays(dtype):
    a = np.zeros((6, 7, 3), dtype)
    a[:3] = 1 if dtype in ('bool', 'float32') else np.iinfo(dtype).max
    im = np.array(open_image(a))
    assert im.shape == (6, 7, 3) and im[0].min() == 255 and im[-1].max() == 0
    assert np.array_equal(np.array(open_image(a.transpose(2, 0, 1))), im)

@pytest.mark.parametrize('bad', [b'', b'not an image', b'\xff\xd8\xff\xe0' + b'\0'*50, b'\x89PNG\r\n\x1a\n' + b'\0'*20,
    b'GIF89a', b'RIFF\0\0\0\0WEBP'])
def test_bad_bytes_are_one_line(bad, tmp_path):
    (tmp_path/'x.jpg').write_bytes(bad)
    for src in (bad, tmp_path/'x.jpg'):
        with pytest.raises(ValueError) as e:
            open_image(src)
        assert '\n' not in str(e.value)

def test_pixel_limit(monkeypatch):
    import capdec.core
    monkeypatch.setattr(capdec.core, 'MAX_PIXELS', 99)
    with pytest.raises(ValueError, match='pixels'):
        open_image(Image.new('RGB', (10, 10)))

def test_find_images_reports_empty_folders(tmp_path):
    (tmp_path/'notes.txt').write_text('x')
    with pytest.raises(FileNotFoundError, match='no images'):
        find_images(tmp_path)
    with pytest.raises(FileNotFoundError, match='no file matches'):
        find_images(str(tmp_path/'*.jpg'))
    # a name with glob characters is a name when the file is there
    (tmp_path/'a[1].jpg').write_bytes(b'')
    assert [p.name for p in find_images(str(tmp_path/'a[1].jpg'))] == ['a[1].jpg']

@settings(max_examples=100, deadline=None)
@given(st.sampled_from(['jpeg', 'png', 'gif', 'webp', 'tiff', 'bmp', 'ppm', 'ico', 'mpo']), st.data())
def test_fuzzed_images_open_or_are_refused_in_one_line(tmp_path_factory, kind, draw):
    "Bytes changed, cut and put in: never another error than ValueError, never a hang"
    buf = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (24, 32, 3), dtype=np.uint8)).save(buf, kind)
    b = bytearray(buf.getvalue())
    for _ in range(draw.draw(st.integers(1, 8))):
        # headers are where it hurts
        near = draw.draw(st.booleans())
        i = draw.draw(st.integers(0, min(len(b), 80) if near else len(b)))
        what = draw.draw(st.sampled_from(['change', 'cut', 'insert', 'end']))
        if what == 'change' and i < len(b):
            b[i] = draw.draw(st.integers(0, 255))
        elif what == 'cut':
            del b[i:i+draw.draw(st.integers(1, 40))]
        elif what == 'insert':
            b[i:i] = draw.draw(st.binary(max_size=8))
        elif not near:
            del b[i:]
    f = tmp_path_factory.mktemp('fuzz')/f'photo.{kind}'
    f.write_bytes(bytes(b))
    begin = time.process_time()
    for src in (f, bytes(b)):
        try:
            im = open_image(src)
        except ValueError as e:
            assert '\n' not in str(e)
        else:
            assert im.mode == 'RGB' and im.width*im.height > 0
    assert time.process_time() - begin < 20


def test_a_folder_that_cannot_be_opened(tmp_path, monkeypatch):
    "It is told, and the photos of the others are found (root may open any folder, so the error is made)"
    import os
    from capdec.core import find_images
    for d in ('open', 'closed', 'all closed'):
        (tmp_path/d).mkdir()
        (tmp_path/d/'a.jpg').touch()
    (tmp_path/'open'/'in'/'.hidden').mkdir(parents=True)
    (tmp_path/'open'/'in'/'b.JPG').touch()
    (tmp_path/'open'/'in'/'.hidden'/'c.jpg').touch()
    (tmp_path/'open'/'.d.jpg').touch()
    real = os.scandir
    def scandir(path):
        if 'closed' in str(path):
            raise PermissionError(13, 'Permission denied', str(path))
        return real(path)
    monkeypatch.setattr(os, 'scandir', scandir)
    with pytest.raises(FileNotFoundError, match='all closed: cannot be opened .Permission denied'):
        find_images(tmp_path/'all closed')
    empty = []
    assert [str(p.relative_to(tmp_path)) for p in find_images(tmp_path, empty=empty)] == ['open/a.jpg', 'open/in/b.JPG']
    assert len(empty) == 2 and all('cannot be opened' in o for o in empty)
    assert [p.name for p in find_images(tmp_path/'open', recursive=False)] == ['a.jpg']

# ---- the journal of a long run

RECORDS = [dict(key=f'{i}.jpg', captions=[f'a {i}\n\u2028']) for i in range(7)]

def test_a_journal_that_was_cut_anywhere_goes_on_with_a_whole_batch(tmp_path):
    "Cut after every byte: what is left is a whole number of batches, and the result is that of a run in one go"
    part, out = tmp_path/'j', tmp_path/'out.json'
    with Journal(part, dict(a=1), 2) as j:
        for i in range(0, 6, 2):
            j.add(RECORDS[i:i+2])
    whole, seen = part.read_bytes(), set()
    head = whole.index(b'\n')+1
    for n in range(len(whole)+1):
        part.write_bytes(whole[:n])
        with Journal(part, dict(a=1), 2) as j:
            assert list(j.records()) == RECORDS[:j.done] and j.done == 2*(whole[head:max(n, head)].count(b'\n')//2)
            seen.add(j.done)
            for i in range(j.done, 7, 2):
                j.add(RECORDS[i:i+2])
            assert list(j.records()) == RECORDS
            j.write_list(out)
        assert read_json(out) == RECORDS and sorted(o.name for o in tmp_path.iterdir()) == ['out.json']
    assert seen == {0, 2, 4, 6}

def test_a_killed_run_goes_on(tmp_path):
    code = """
import os, signal, sys
from capdec.core import Journal
j = Journal(sys.argv[1], dict(a=1), 2)
for i in range(j.done, 1000, 2):
    j.add([dict(i=i), dict(i=i+1)])
    if i == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
j.write_list(sys.argv[2])
"""
    for at in (100, 102, 998, -1):
        r = subprocess.run([sys.executable, '-c', code, tmp_path/'j', tmp_path/'out.json', str(at)])
        assert r.returncode == (0 if at < 0 else -signal.SIGKILL)
        if at >= 0:
            with Journal(tmp_path/'j', dict(a=1), 2) as j:
                assert j.done == at+2
    assert [o['i'] for o in read_json(tmp_path/'out.json')] == list(range(1000))

def test_the_settings_of_a_journal(tmp_path):
    with Journal(tmp_path/'j', dict(a=1)) as j:
        j.add(RECORDS[:1])
    before = (tmp_path/'j').read_bytes()
    for other, names in ((dict(a=2), 'a'), (dict(a=1, b=2), 'b'), ({}, 'a'), (dict(a=2, b=2), 'a, b')):
        wrong = rf'j: was begun with other settings \({names}\); remove it to start again'
        with pytest.raises(ValueError, match=wrong):
            Journal(tmp_path/'j', other)
    # a refused run leaves file and lock as they were
    assert (tmp_path/'j').read_bytes() == before
    with Journal(tmp_path/'j', dict(a=1)) as j:
        assert j.done == 1
        with pytest.raises(ValueError, match='j: another process is writing it'):
            Journal(tmp_path/'j', dict(a=1))

def test_journal_of_names_that_are_not_utf8(tmp_path):
    name = b'caf\xe9.jpg'.decode('utf-8', 'surrogateescape')
    with Journal(tmp_path/'j', dict(model=name)) as j:
        j.add([dict(key=name, captions=['Ein Bär.'])])
    with Journal(tmp_path/'j', dict(model=name)) as j:
        assert list(j.records()) == [dict(key=name, captions=['Ein Bär.'])]
        j.write_list(tmp_path/'out.json')
    assert read_json(tmp_path/'out.json')[0]['key'] == name

def test_a_damaged_journal_is_one_line(tmp_path):
    with Journal(tmp_path/'j', {}) as j:
        j.add(RECORDS[:3])
    raw = (tmp_path/'j').read_bytes().splitlines(keepends=True)
    (tmp_path/'j').write_bytes(b''.join([*raw[:2], b'\0'*9 + b'\n', raw[3]]))
    with Journal(tmp_path/'j', {}) as j, pytest.raises(ValueError, match='j: line 3 is damaged; remove the file'):
        list(j.records())

def test_a_journal_on_a_full_disk(small_disk):
    j = Journal(small_disk/'j', dict(a=1))
    j.add(RECORDS)
    with pytest.raises(OSError) as e:
        j.add([dict(text='x'*400_000)])
    assert str(e.value) == f'{small_disk}/j: cannot be written (No space left on device)'
    j.close()
    with Journal(small_disk/'j', dict(a=1)) as j:
        assert list(j.records()) == RECORDS
        j.close(remove=True)
    assert not list(small_disk.iterdir())

def test_a_journal_takes_constant_memory(tmp_path):
    import tracemalloc
    with Journal(tmp_path/'j', {}) as j:
        for i in range(200):
            j.add([dict(i=i, text='x'*1000)]*100)
        tracemalloc.start()
        n = sum(1 for _ in j.records())
        j.write_list(tmp_path/'out.json')
        with Journal(tmp_path/'k', {}):
            pass
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert n == 20_000 and (tmp_path/'out.json').stat().st_size > 20_000_000 and most < 1_000_000

# ---- pickles of strangers, see also test_store

def test_plain_pickles(tmp_path):
    import pickle
    obj = [1, 2.5, None, True, 'é', b'x', (1, {'a': {2}}), [[]]]
    for protocol in range(pickle.HIGHEST_PROTOCOL+1):
        data = pickle.dumps(obj[:6] + [(1, {'a': 2}), [[]]], protocol=protocol)
        if protocol > 2:
            assert load_pickle(io.BytesIO(data)) == obj[:6] + [(1, {'a': 2}), [[]]]
    with pytest.raises(ValueError, match='^x.p: refused, it asks for builtins.getattr, which can run code'):
        load_pickle(io.BytesIO(pickle.dumps(getattr)), name='x.p')
    with pytest.raises(ValueError, match='outside'):
        load_pickle(io.BytesIO(b'\x80\x04K\x01Q.'))
    with pytest.raises(ValueError, match='is a folder'):
        load_pickle(tmp_path)

def test_small_names(monkeypatch):
    assert [is_pickle(o) for o in ('a.pkl', 'b.PICKLE', 'pkl', '')] == [True, True, False, False]
    assert one_line('\ta\r\n b \u2028c') == 'a b c'
    monkeypatch.delenv('RANK', raising=False)
    assert is_main()
    monkeypatch.setenv('RANK', '1')
    assert not is_main()

def test_no_file_takes_the_place_of_a_device(tmp_path):
    "Of /dev/null, say, which every program would miss; it is told before anything is read or computed"
    pipe, texts = tmp_path/'pipe.csv', tmp_path/'t.txt'
    os.mkfifo(pipe)
    texts.write_text('A dog.\n')
    with pytest.raises(ValueError, match='pipe.csv: is a device or a pipe'), atomic_path(pipe):
        pass
    verbs = [('caption', demo_photos()[0]), ('parse', texts), ('noise', texts), ('offset', texts), ('bridger', texts)]
    for args in [(*o, '--out') for o in verbs]:
        assert 'is a device or a pipe' in capdec(*args, pipe, ok=False).stderr
    assert pipe.is_fifo() and sorted(tmp_path.iterdir()) == [pipe, texts]
