"Small files that hold a lot of nothing: one clear line, in little time and memory"
import bz2
import gzip
import io
import lzma
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

import pytest

import capdec.data as D
from capdec.data import open_binary, read_captions, read_sentences
from capdec.open_text import read_open_text
from shell import forked

def repeated(open_, path, piece=b'A', n=25_000_000, before=b'', after=b''):
    "A packed file of one piece again and again"
    with open_(path, 'wb') as f:
        f.write(before)
        for _ in range(n//1_000_000):
            f.write(piece*(1_000_000//len(piece)))
        f.write(after)
    return path

# The high-water mark of a program that another started, from `getrusage`, includes that of the one that started it.
MOST = """
def most():
    import pathlib, re, resource
    status = pathlib.Path('/proc/self/status')
    if status.exists():
        return int(re.search(r'VmHWM:\\s*([0-9]+)', status.read_text())[1])//1000
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss//1000
"""

def peak(code, *args):
    "The last line that a program prints, and the memory it took, in MB"
    code = MOST + code + '\nprint(most())'
    r = subprocess.run([sys.executable, '-c', code, *map(str, args)], capture_output=True, text=True, timeout=600)
    assert r.returncode == 0, r.stderr
    *_, said, mb = r.stdout.splitlines()
    return said, int(mb)

READ = """
import sys
from capdec.data import read_captions
try:
    print(sum(1 for _ in read_captions(sys.argv[1], None)))
except ValueError as e:
    print(e)
"""

JSON = b'[{"image_id": 1, "caption": "'

@pytest.mark.parametrize('name,open_,how,match', [
    ('line.txt.gz', gzip.open, {}, 'a line of 10,000,000 characters'),
    ('line.txt.bz2', bz2.open, {}, 'a line of 10,000,000 characters'),
    ('line.txt.xz', lzma.open, {}, 'a line of 10,000,000 characters'),
    ('blank.txt.gz', gzip.open, dict(piece=b'\n'), 'unpack to more than'),
    ('line.csv.gz', gzip.open, dict(before=b'image,caption\na.jpg,'), 'a line of 10,000,000 characters'),
    ('line.jsonl.gz', gzip.open, dict(before=b'{"caption": "', after=b'"}'), 'a line of|unpack to more than'),
    ('text.json.gz', gzip.open, dict(before=JSON, after=b'"}]'), 'unpack to more than'),
    ('blank.json.gz', gzip.open, dict(piece=b' ', before=b'[', after=b'1]'), 'unpack to more than'),
    ('deep.json.gz', gzip.open, dict(piece=b'['), 'nested too deeply')])
def test_packed_files(tmp_path, name, open_, how, match):
    f = repeated(open_, tmp_path/name, **how)
    assert f.stat().st_size < 100_000
    said, mb = peak(READ, f)
    assert str(f) in said and re.search(match, said), said
    assert mb < 500

def test_a_member_of_an_archive(tmp_path, monkeypatch):
    monkeypatch.setattr(D, 'FREE_BYTES', 2_000_000)
    with zipfile.ZipFile(tmp_path/'a.zip', 'w', zipfile.ZIP_DEFLATED) as z:
        z.writestr('captions.txt', b'\n'*4_000_000)
    with pytest.raises(ValueError, match='a.zip: .* unpack to more than'):
        list(read_captions(tmp_path/'a.zip'))
    # one in the other
    for pack in (gzip.compress, bz2.compress, lzma.compress):
        with zipfile.ZipFile(tmp_path/'b.zip', 'w') as z:
            z.writestr('captions.txt.gz', pack(b'A dog.\nA cat.\n'))
        assert read_sentences(tmp_path/'b.zip') == ['A dog.', 'A cat.']
    with zipfile.ZipFile(tmp_path/'b.zip', 'w') as z:
        z.writestr('captions.txt.gz', gzip.compress(b'\n'*4_000_000))
    with pytest.raises(ValueError, match='b.zip: .* unpack to more than'):
        list(read_captions(tmp_path/'b.zip'))

def test_a_tar_is_not_unpacked_into_the_temporary_folder(tmp_path, monkeypatch):
    (tmp_path/'temporary').mkdir()
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path/'temporary'))
    made = []
    real = tempfile.TemporaryFile
    monkeypatch.setattr(D.tempfile, 'TemporaryFile', lambda: made.append(real()) or made[-1])
    with tarfile.open(tmp_path/'a.tar.gz', 'w:gz') as t:
        info = tarfile.TarInfo('captions.txt')
        info.size = 60_000_000
        t.addfile(info, io.BytesIO(bytes(info.size)))
    with pytest.raises(ValueError, match='a.tar.gz: .* unpack to more than'):
        list(read_captions(tmp_path/'a.tar.gz'))
    assert len(made) == 1 and made[0].closed

@pytest.mark.parametrize('names', [['captions.txt'], ['a.txt', 'a.jpg']])
def test_sparse_files_in_a_tar(tmp_path, names):
    "10 KB, and 9 GB of holes"
    if not shutil.which('tar'):
        pytest.skip('no tar here')
    (tmp_path/'in').mkdir()
    with open(tmp_path/'in'/names[0], 'wb') as f:
        f.truncate(9_000_000_000)
        f.seek(9_000_000_000-4)
        f.write(b'dog.')
    for o in names[1:]:
        (tmp_path/'in'/o).write_bytes(b'x')
    subprocess.run(['tar', '-S', '-cf', tmp_path/'a.tar', '-C', tmp_path/'in', *names], check=True)
    if (tmp_path/'a.tar').stat().st_size > 100_000:
        pytest.skip('this tar or file system knows no sparse files')
    said, mb = peak(READ, tmp_path/'a.tar')
    assert str(tmp_path/'a.tar') in said and ('sparse file of 9,000,000,000 bytes' in said or 'a megabyte' in said)
    assert mb < 300

def test_a_sparse_file(tmp_path):
    for name in ('a.txt', 'a.csv', 'a.json', 'a.jsonl'):
        with open(tmp_path/name, 'wb') as f:
            f.write(b'{"caption": "')
            f.truncate(20_000_000_000)
        said, mb = peak(READ, tmp_path/name)
        assert name in said and mb < 700, (said, mb)

def test_tables_of_parquet(tmp_path):
    pa = pytest.importorskip('pyarrow')
    import numpy as np
    import pyarrow.parquet as pq
    # one long text in every row
    rows = pa.DictionaryArray.from_arrays(pa.array([0]*4000, pa.int32()), ['A'*20_000_000])
    pq.write_table(pa.table({'caption': rows}), tmp_path/'text.parquet', compression='zstd')
    said, mb = peak(READ, tmp_path/'text.parquet')
    assert 'has 20,000,000 characters' in said and mb < 3000, (said, mb)
    # rows without number
    rows = pa.DictionaryArray.from_arrays(pa.array(np.zeros(30_000_000, np.int32)), ['A dog.'])
    pq.write_table(pa.table({'caption': rows}), tmp_path/'rows.parquet', compression='zstd')
    assert (tmp_path/'rows.parquet').stat().st_size < 150_000
    said, mb = peak(READ, tmp_path/'rows.parquet')
    assert 'rows.parquet: 30,000,000 rows in' in said and mb < 400

def test_books(tmp_path):
    f = repeated(gzip.open, tmp_path/'book.txt.gz', b'A dog. ')
    with pytest.raises(ValueError, match='unpack to more than'):
        list(read_open_text(f))
    f = repeated(gzip.open, tmp_path/'book.csv.gz', b'A', before=b'text\n')
    with pytest.raises(ValueError, match='book.csv.gz: '):
        list(read_open_text(f))

def test_captions_that_repeat_are_read(tmp_path):
    "A small file may be packed a thousand to one"
    with gzip.open(tmp_path/'a.txt.gz', 'wb') as f:
        f.write(b'A dog runs on the beach.\n'*100_000)
    assert len(read_sentences(tmp_path/'a.txt.gz')) == 100_000

def test_large_files_are_read(tmp_path, monkeypatch):
    "Captions are packed ten to one, whatever their number"
    monkeypatch.setattr(D, 'FREE_BYTES', 10_000)
    lines = [f'A dog {i*7919 % 100_003} runs.' for i in range(50_000)]
    for name, open_ in (('a.txt.gz', gzip.open), ('a.txt.bz2', bz2.open), ('a.txt.xz', lzma.open)):
        with open_(tmp_path/name, 'wb') as f:
            f.write('\n'.join(lines).encode())
        assert read_sentences(tmp_path/name) == lines
    with zipfile.ZipFile(tmp_path/'a.zip', 'w', zipfile.ZIP_DEFLATED) as z:
        z.writestr('a.txt', '\n'.join(lines))
    with tarfile.open(tmp_path/'a.tar.gz', 'w:gz') as t:
        data = '\n'.join(lines).encode()
        info = tarfile.TarInfo('a.txt')
        info.size = len(data)
        t.addfile(info, io.BytesIO(data))
    for name in ('a.zip', 'a.tar.gz'):
        assert read_sentences(tmp_path/name) == lines

def test_lines_up_to_the_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(D, 'MAX_LINE', 20)
    (tmp_path/'a.txt').write_text('x'*19 + '\n' + 'y'*18 + '\r\n' + 'z'*19)
    assert read_sentences(tmp_path/'a.txt') == ['x'*19, 'y'*18, 'z'*19]
    for n in (20, 21, 500):
        (tmp_path/'a.txt').write_text('a\n' + 'x'*n)
        with pytest.raises(ValueError, match='a.txt: has a line of 20 characters or more'):
            read_sentences(tmp_path/'a.txt')

def test_values_up_to_the_limit(tmp_path, monkeypatch):
    f = tmp_path/'a.json'
    f.write_text('[' + ', '.join('{"image_id": 1, "caption": "%s"}' % ('a'*n) for n in (10, 1_000_000)) + ']')
    assert [len(o['caption']) for o in read_captions(f)] == [10, 1_000_000]
    monkeypatch.setattr(D, 'MAX_VALUE', 500_000)
    with pytest.raises(ValueError, match='a.json: not valid JSON at line 1: a value of more than 500,000 characters'):
        list(read_captions(f))

def test_open_files_can_be_read_in_any_way(tmp_path):
    with gzip.open(tmp_path/'a.gz', 'wb') as f:
        f.write(b'A dog.\nA cat.\n')
    with open_binary(tmp_path/'a.gz') as f:
        assert f.peek(1)[:1] == b'A' and f.readline() == b'A dog.\n' and f.read(2) == b'A ' and f.read() == b'cat.\n'
    assert Path(tmp_path/'a.gz').exists()

# ---- pictures

def png(path, w, h, colour=6):
    "A picture of one colour, written row by row; `colour`: 0 grey, 2 RGB, 4 and 6 with transparency"
    import struct
    import zlib
    def chunk(kind, data):
        return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))
    pack, row = zlib.compressobj(9), b'\0'*(1 + w*{0: 1, 2: 3, 4: 2, 6: 4}[colour])
    data = b''.join(pack.compress(row) for _ in range(h)) + pack.flush()
    head = struct.pack('>IIBBBBB', w, h, 8, colour, 0, 0, 0)
    path.write_bytes(b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', head) + chunk(b'IDAT', data) + chunk(b'IEND', b''))
    return path

CAPTION = """
import os, sys
os.cpu_count = lambda: 16
import capdec.core
# one at a time
capdec.core.MAX_PIXELS = 70_000_000
from capdec.captioner import Captioner
from capdec.embedding import embed_images
c = Captioner.from_pretrained('mini', 'cpu')
before = most()
if sys.argv[1] == 'caption':
    assert all(c(sys.argv[2:]))
else:
    assert len(embed_images(sys.argv[2:], c.encoder, sys.argv[2] + '.store', show=False)) == 3
print(most() - before)
"""

@pytest.mark.parametrize('how', ['caption', 'embed'])
def test_three_pictures_of_one_colour(tmp_path, how):
    files = [png(tmp_path/'0.png', 8_000, 8_000)]
    files += [shutil.copy(files[0], tmp_path/f'{i}.png') for i in (1, 2)]
    assert files[0].stat().st_size < 500_000
    # MB; two copies of one of them have 512, all three together had 2,600
    r = forked(MOST + CAPTION, how, *files)
    assert int(r.stdout.split()[-1]) < 850, r.stderr

def test_the_limit_is_ours(tmp_path, monkeypatch):
    "Pillow refuses pictures of 179 megapixels, and called them damaged"
    import capdec.core
    from PIL import Image
    from capdec.core import MAX_PIXELS, open_image
    limit = Image.MAX_IMAGE_PIXELS
    f = png(tmp_path/'a.png', 18_000, 10_400, 0)
    assert 2*limit < 18_000*10_400 < MAX_PIXELS and open_image(f).size == (18_000, 10_400)
    big = png(tmp_path/'b.png', 20_001, 10_000, 0)
    for src in (big, big.read_bytes(), open(big, 'rb')):
        with pytest.raises(ValueError, match='20,001 x 10,000 pixels are more than 200,000,000'):
            open_image(src)
    assert Image.MAX_IMAGE_PIXELS == limit
    # a size that no file could fill
    raw = bytearray(png(tmp_path/'c.png', 10, 10).read_bytes())
    import struct
    import zlib
    raw[16:24] = struct.pack('>II', 2**31-1, 2**31-1)
    raw[29:33] = struct.pack('>I', zlib.crc32(raw[12:29]))
    with pytest.raises(ValueError, match='pixels are more than'):
        open_image(bytes(raw))
    monkeypatch.setattr(capdec.core, 'MAX_PIXELS', 99)
    with pytest.raises(ValueError, match='10 x 10 pixels are more than 99'):
        open_image(tmp_path/'c.png') if png(tmp_path/'c.png', 10, 10) else None

def test_room_is_given_back(tmp_path, monkeypatch):
    "By good photos and bad ones, in every thread; nobody waits for ever"
    import capdec.core
    from capdec.core import open_image
    from capdec.embedding import open_small, read_ahead
    monkeypatch.setattr(capdec.core, 'MAX_PIXELS', 1000)
    files = []
    for i in range(60):
        f = png(tmp_path/f'{i}.png', 30, 30) if i % 3 else tmp_path/f'{i}.png'
        if i % 3 == 0:
            f.write_bytes(png(tmp_path/'x.png', 20, 20).read_bytes()[:40 + i % 7])
        files.append(f)
    most = []
    real = capdec.core._take
    def watched(n):
        real(n)
        most.append(capdec.core._room.used)
    monkeypatch.setattr(capdec.core, '_take', watched)
    got = list(read_ahead(open_small, files, ahead=20, workers=8))
    assert sum(not isinstance(o, Exception) for o in got) == 40 and max(most) <= 1000
    assert capdec.core._room.used == 0
    # a picture that is open already, within the room of another
    with capdec.core.photo_room():
        a = open_image(files[1])
        assert open_image(a).size == (30, 30) and open_image(files[2]).size == (30, 30)
    assert capdec.core._room.used == 0

@pytest.mark.parametrize('head', [b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n'])
def test_no_other_program_draws(tmp_path, head, monkeypatch):
    "Pillow has Ghostscript draw EPS, whatever the file is called"
    from capdec.core import open_image
    monkeypatch.setattr(subprocess, 'Popen', lambda *a, **k: pytest.fail('another program was started'))
    (tmp_path/'a.jpg').write_bytes(head + b'showpage\n')
    with pytest.raises(ValueError, match='a.jpg: is EPS, which another program would have to draw'):
        open_image(tmp_path/'a.jpg')

def test_strips_change_no_pixel(monkeypatch):
    import numpy as np
    from PIL import Image
    import capdec.core
    from capdec.core import open_image
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (67, 41, 4), dtype=np.uint8), 'RGBA')
    ramp = rng.random((67, 41)).astype(np.float32)
    images = [noise, noise.convert('LA'), noise.convert('RGBa'), noise.quantize(16), Image.fromarray(ramp),
        Image.fromarray(ramp*65535), Image.fromarray((ramp*65535).astype(np.uint16)),
        Image.fromarray((ramp*65535).astype(np.int32))]
    clear = noise.convert('RGB').quantize(16)
    clear.info['transparency'] = 3
    keyed, grey = noise.convert('RGB'), noise.convert('L')
    keyed.info['transparency'], grey.info['transparency'] = keyed.getpixel((3, 3)), 7
    images += [clear, keyed, grey]
    def plain(im):
        if im.mode.startswith('I') or im.mode == 'F':
            a = np.array(im, dtype=np.float32)
            a = a*65535 if im.mode == 'F' and not a.max() > 1 else a
            im = Image.fromarray((np.nan_to_num(a).clip(0, 65535)/257).round().astype(np.uint8))
        if im.mode in ('LA', 'PA', 'RGBA', 'RGBa', 'La') or 'transparency' in im.info:
            im = im.convert('RGBA')
            im = Image.alpha_composite(Image.new('RGBA', im.size, 'white'), im)
        return np.array(im.convert('RGB'))
    real = capdec.core._strips
    def narrow(im):
        for y in range(0, im.height, 10):
            yield (0, y), im.crop((0, y, im.width, min(y+10, im.height)))
    for strips in (real, narrow):
        monkeypatch.setattr(capdec.core, '_strips', strips)
        for im in images:
            assert np.array_equal(np.array(open_image(im)), plain(im)), im.mode
