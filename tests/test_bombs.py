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

def repeated(open_, path, piece=b'A', n=60_000_000, before=b'', after=b''):
    "A packed file of one piece again and again"
    with open_(path, 'wb') as f:
        f.write(before)
        for _ in range(n//1_000_000):
            f.write(piece*(1_000_000//len(piece)))
        f.write(after)
    return path

def peak(code, *args):
    "The last line that a program prints, and the memory it took, in MB"
    more = '\nimport resource\nprint(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss//1000)'
    r = subprocess.run([sys.executable, '-c', code + more, *map(str, args)], capture_output=True, text=True, timeout=120)
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

def test_a_member_of_an_archive(tmp_path):
    with zipfile.ZipFile(tmp_path/'a.zip', 'w', zipfile.ZIP_DEFLATED) as z:
        z.writestr('captions.txt', b'\n'*60_000_000)
    with pytest.raises(ValueError, match='a.zip: .* unpack to more than'):
        list(read_captions(tmp_path/'a.zip'))
    # one in the other
    for pack in (gzip.compress, bz2.compress, lzma.compress):
        with zipfile.ZipFile(tmp_path/'b.zip', 'w') as z:
            z.writestr('captions.txt.gz', pack(b'A dog.\nA cat.\n'))
        assert read_sentences(tmp_path/'b.zip') == ['A dog.', 'A cat.']
    with zipfile.ZipFile(tmp_path/'b.zip', 'w') as z:
        z.writestr('captions.txt.gz', gzip.compress(b'\n'*60_000_000))
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
