"Albums: nothing that is there is destroyed, and what cannot be written costs one photo."
import hashlib
import os
import warnings

import numpy as np
import pytest
from PIL import Image
from skimage import data as photos

from capdec.album import copies, originals
from capdec.exif import is_copy, read_caption, write_caption
from shell import capdec, one_line # the command in this process

FAST = ('--device', 'cpu', '--beam_size', 1)

def said(r):
    return r.stdout.strip().splitlines()[-1]

def photo(path, turn=0, **kw):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(photos.coffee()).resize((96, 64)).rotate(turn).save(path, **kw)
    return path

def hashes(folder):
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob('*')
        if p.is_file()}

@pytest.fixture
def cards(tmp_path):
    "Two cards and a folder, each with a photo of the same name"
    for i, d in enumerate(('.', 't', 'other')):
        photo(tmp_path/d/'x.jpg', 90*i)
    return tmp_path

# ---- copies never stand in for photos

def test_photos_of_one_name_above_and_here(cards):
    before = hashes(cards)
    r = capdec('caption', '../x.jpg', 'x.jpg', '--exif', 'out', *FAST, cwd=cards/'t', ok=True)
    assert said(r) == '2 photos captioned: out'
    after = hashes(cards)
    assert {k: after[k] for k in before} == before
    assert set(after) - set(before) == {'t/out/x.jpg', 't/out/t/x.jpg'}
    assert is_copy(cards/'x.jpg', cards/'t'/'out'/'x.jpg') and is_copy(cards/'t'/'x.jpg', cards/'t'/'out'/'t'/'x.jpg')

@pytest.mark.parametrize('sources', [['.', '../other'], ['*.jpg', '../other/*.jpg'], ['../t', '../other/x.jpg'],
    ['./x.jpg', '../t/../other'], ['*/../x.jpg', '../other'], ['x.jpg', 'in/../../other']])
def test_copies_stay_below_their_folder(cards, sources):
    (cards/'t'/'in').mkdir()
    before = hashes(cards)
    r = capdec('caption', *sources, '--exif', 'out', *FAST, cwd=cards/'t', ok=True)
    after = hashes(cards)
    assert said(r) == '2 photos captioned: out' and {k: after[k] for k in before} == before
    made = set(after) - set(before)
    assert len(made) == 2 and all(o.startswith('t/out/') for o in made), made

def test_absolute_and_relative_names(cards, monkeypatch):
    monkeypatch.chdir(cards/'t')
    for a, b in (('x.jpg', cards/'other'/'x.jpg'), ('../other/x.jpg', cards/'t'/'x.jpg')):
        places = copies([str(a), str(b)], [type(cards)(a), type(cards)(b)], 'out')
        assert len(set(places.values())) == 2
        assert all(os.path.realpath(o).startswith(f'{cards}/t/out/') for o in places.values())
    # one photo, named twice, has one copy
    twice = [type(cards)(o) for o in ('x.jpg', '../t/x.jpg', cards/'t'/'x.jpg')]
    assert set(copies(twice, twice, 'out').values()) == {type(cards)('out/x.jpg')}

def test_links_do_not_lead_copies_to_photos(cards):
    day = photo(cards/'t'/'day'/'y.jpg')
    (cards/'out').mkdir()
    (cards/'out'/'day').symlink_to(cards/'other')
    r = capdec('caption', cards/'t', '--exif', cards/'out', *FAST, ok=False)
    assert len(one_line(r)) == 1 and 'a link in it leads away' in r.stderr and not (cards/'other'/'y.jpg').exists()
    (cards/'out'/'day').unlink()
    (cards/'out'/'day').symlink_to(cards/'t'/'day')
    r = capdec('caption', cards/'t', '--exif', cards/'out', *FAST, ok=False)
    assert 'is where the photos are' in one_line(r)[0]
    # a link to a photo in the place of its copy, and a second name of it
    for make in (os.symlink, os.link):
        (cards/'o2').mkdir(exist_ok=True)
        make(day, cards/'o2'/'y.jpg')
        before = day.read_bytes()
        r = capdec('caption', day, '--exif', cards/'o2', '--overwrite', *FAST, ok=False)
        assert 'is where the photos are' in one_line(r)[0] and day.read_bytes() == before
        (cards/'o2'/'y.jpg').unlink()

def test_the_folder_of_photos_behind_a_link(cards):
    (cards/'link').symlink_to(cards/'t')
    before = hashes(cards)
    for out in ('link', 't/../t', 't'):
        r = capdec('caption', 't/x.jpg', '--exif', out, '--overwrite', *FAST, cwd=cards, ok=False)
        assert 'is where the photos are' in one_line(r)[0]
    # the folder for copies is found again behind a link
    (cards/'album').mkdir()
    (cards/'album'/'in').symlink_to(cards/'t')
    found = [cards/'album'/'in'/'x.jpg', cards/'album'/'in'/'out'/'x.jpg']
    photo(cards/'t'/'out'/'x.jpg', 5)
    with pytest.warns(UserWarning, match='1 photos in this folder, such as x.jpg, are left out'):
        assert originals([str(cards/'album')], found, cards/'t'/'out') == found[:1]
    (cards/'t'/'out'/'x.jpg').unlink()
    assert hashes(cards) == before

def test_a_link_that_leads_to_itself_is_one_photo(cards):
    (cards/'t'/'loop.jpg').symlink_to('loop.jpg')
    r = capdec('caption', 't/x.jpg', 't/loop.jpg', '--exif', 'out', '--sidecar', *FAST, cwd=cards)
    assert r.returncode == 1 and len(one_line(r)) == 1 and 'loop.jpg' in r.stderr and 'Traceback' not in r.stderr
    assert is_copy(cards/'t'/'x.jpg', cards/'out'/'x.jpg')

def test_a_file_in_the_place_of_the_folder(cards):
    (cards/'out').write_text('mine')
    r = capdec('caption', 't', '--exif', 'out', *FAST, cwd=cards, ok=False)
    assert len(one_line(r)) == 1 and 'is a file' in r.stderr and (cards/'out').read_text() == 'mine'

# ---- two cameras that begin with the same name

@pytest.mark.parametrize('kind', ['jpg', 'png', 'webp'])
def test_a_second_card_has_copies_of_its_own(tmp_path, kind):
    one, two, out = (tmp_path/o for o in ('card1', 'card2', 'out'))
    photo(one/f'IMG_0001.{kind}')
    photo(two/f'IMG_0001.{kind}', 180)
    first, second = out/f'IMG_0001.{kind}', out/f'IMG_0001-2.{kind}'
    capdec('caption', one, '--exif', out, *FAST, ok=True)
    kept = first.read_bytes()
    # told once, when it is made
    for flags, lines, says in (([], 1, '1 photos captioned: '), (['--overwrite'], 0, '1 photos captioned: '),
            ([], 0, '0 photos captioned, 1 were there')):
        r = capdec('caption', two, '--exif', out, *FAST, *flags, ok=True)
        assert first.read_bytes() == kept and is_copy(two/first.name, second) and read_caption(second)
        assert said(r).startswith(says) and ['another name' in o for o in one_line(r)] == [True]*lines
    assert said(capdec('caption', one, '--exif', out, *FAST, ok=True)).startswith('0 photos captioned, 1 were there')
    assert sorted(o.name for o in out.iterdir()) == [second.name, first.name]

def test_a_file_that_is_no_copy_of_ours_stays(cards):
    "A photo of the user's own, the photo itself, no photo at all, a folder"
    for make in (lambda p: photo(p, 33), lambda p: p.write_bytes((cards/'t'/'x.jpg').read_bytes()),
            lambda p: p.write_text('mine'), lambda p: p.mkdir()):
        out = cards/'out'
        out.mkdir()
        make(out/'x.jpg')
        before = hashes(out)
        r = capdec('caption', cards/'t', '--exif', out, '--overwrite', *FAST, ok=True)
        assert 'another name' in one_line(r)[0] and hashes(out) == before | {'x-2.jpg': hashes(out)['x-2.jpg']}
        assert is_copy(cards/'t'/'x.jpg', out/'x-2.jpg')
        for o in out.iterdir():
            o.rmdir() if o.is_dir() else o.unlink()
        out.rmdir()

def test_other_names_do_not_clash(tmp_path):
    a, b, out = photo(tmp_path/'c'/'a.jpg'), photo(tmp_path/'c'/'a-2.jpg', 90), tmp_path/'out'
    photo(out/'a.jpg', 45)
    with warnings.catch_warnings(record=True):
        warnings.simplefilter('always')
        assert copies(['c'], [a, b], out) == {a: out/'a-3.jpg', b: out/'a-2.jpg'}
    # a photo in the folder of copies that has a number is told from a copy that has one
    write_caption(a, out/'a-3.jpg', 'A cup.')
    write_caption(b, out/'a-2.jpg', 'A cup.')
    assert set(copies(['c'], [a, b], out).values()) == {out/'a-3.jpg', out/'a-2.jpg'}

def test_what_a_copy_is(tmp_path):
    a, b = photo(tmp_path/'a.jpg'), photo(tmp_path/'b.jpg', 1)
    copy = write_caption(a, tmp_path/'copy.jpg', 'A cup.')
    assert is_copy(a, copy) and not is_copy(b, copy) and not is_copy(a, a) and not is_copy(copy, a)
    again = write_caption(copy, tmp_path/'again.jpg', 'A cup.')
    # what a photo manager changes: EXIF, XMP
    exif = Image.open(copy).getexif()
    exif[0x4746] = 5
    raw = copy.read_bytes()
    (tmp_path/'rated.jpg').write_bytes(raw[:2] + b'\xff\xe1\0\x0chttp://ns\0' + raw[2:])
    assert is_copy(a, again) and is_copy(a, tmp_path/'rated.jpg')
    # another quality, another size of the file, one pixel
    photo(tmp_path/'q.jpg', quality=60)
    one = np.array(Image.fromarray(photos.coffee()).resize((96, 64)))
    Image.fromarray(one).save(tmp_path/'p.png')
    one[30, 40] ^= 1
    Image.fromarray(one).save(tmp_path/'p2.png')
    made = write_caption(tmp_path/'p.png', tmp_path/'p3.png', 'A cup.')
    assert is_copy(tmp_path/'p.png', made) and not is_copy(tmp_path/'p2.png', made)
    assert not is_copy(tmp_path/'q.jpg', copy)
    # photos of one picture are told apart by nothing but their notes: that is a copy
    other = photo(tmp_path/'other.jpg', exif=exif)
    assert is_copy(other, copy)
    for bad in (b'', b'\xff\xd8', raw[:30], raw[:300]):
        (tmp_path/'bad.jpg').write_bytes(bad)
        assert not is_copy(a, tmp_path/'bad.jpg') and not is_copy(tmp_path/'bad.jpg', copy)
    # its notes cannot be read: no copy of ours
    (tmp_path/'bad.jpg').write_bytes(b'\xff\xd8\xff\xe1\0\x10Exif\0\0II*\0\xff\xff\xff\xff' + raw[2:])
    assert not is_copy(a, tmp_path/'bad.jpg')
    assert not is_copy(a, tmp_path/'gone.jpg') and not is_copy(a, tmp_path)

# ---- what cannot be written costs one photo

def closed(monkeypatch, folder):
    "A folder that may be read only (root may write anywhere, so the error is made)"
    import tempfile
    real = tempfile.mkdtemp
    def mkdtemp(*args, dir=None, **kw):
        if dir is not None and os.path.realpath(dir) == os.path.realpath(folder):
            raise PermissionError(13, 'Permission denied', str(dir))
        return real(*args, dir=dir, **kw)
    monkeypatch.setattr(tempfile, 'mkdtemp', mkdtemp)

@pytest.mark.parametrize('name', ['n'*240 + '.jpg', 'n'*251 + '.jpg', 'ü'*125 + '.jpg', '图'*83 + '.jpg'])
def test_long_names(tmp_path, name):
    "Every legal name, up to 255 bytes, has its text file, its copy and its row"
    photo(tmp_path/'trip'/name)
    photo(tmp_path/'trip'/'b.jpg')
    for _ in range(2):
        r = capdec('caption', 'trip', '--sidecar', '--exif', 'out', '--out', 'c.csv', *FAST, cwd=tmp_path, ok=True)
    assert said(r).startswith('0 photos captioned, 2 were there') and len(one_line(r)) == 0
    assert {o.name for o in (tmp_path/'out').iterdir()} == {name, 'b.jpg'}
    assert {o.name for o in (tmp_path/'trip').glob('*.txt')} == {name[:-4] + '.txt', 'b.txt'}

def test_a_name_that_is_too_long_for_its_text_file(tmp_path):
    "a.jpg and a.png want a.jpg.txt and a.png.txt, which are 259 bytes"
    long = 'n'*251
    for kind in ('jpg', 'png'):
        photo(tmp_path/'trip'/f'{long}.{kind}')
    photo(tmp_path/'trip'/'z.jpg')
    for first in (True, False):
        r = capdec('caption', 'trip', '--sidecar', '--out', 'c.csv', *FAST, cwd=tmp_path, ok=False)
        assert len(one_line(r)) == 2 and all('no text file: ' in o and 'File name too long' in o
            and o.endswith('its caption is in c.csv') for o in one_line(r))
        assert said(r).startswith('3 photos captioned, 2' if first else '2 photos captioned, 2')
    assert (tmp_path/'trip'/'z.txt').exists() and (tmp_path/'c.csv').read_text().count('A ') == 3

@pytest.mark.parametrize('out', [[], ['--out', 'c.csv'], ['--exif', 'copies'], ['--exif', 'copies', '--out', 'c.json']])
def test_a_folder_that_may_only_be_read(tmp_path, monkeypatch, out):
    "Its photos have no text files; the others have all, now and the next time"
    for o in ('a/1.jpg', 'b/2.jpg', 'c/3.jpg'):
        photo(tmp_path/'trip'/o)
    closed(monkeypatch, tmp_path/'trip'/'b')
    for _ in range(2):
        r = capdec('caption', 'trip', '--sidecar', *out, *FAST, cwd=tmp_path, ok=False)
        assert len(one_line(r)) == 1 and 'no text file: trip/b/2.txt: cannot be written (Permission denied)' in r.stderr
        where = {'--exif': ['the copy'], '--out': ['c.csv', 'c.json'], '': []}
        assert ('its caption is in' in r.stderr) == bool(out)
        assert all(any(w in r.stderr for w in where[o]) for o in out if o in where)
        assert {o.name for o in tmp_path.rglob('*.txt')} == {'1.txt', '3.txt'}
        if '--exif' in out:
            assert {o.name for o in (tmp_path/'copies').rglob('*.jpg')} == {'1.jpg', '2.jpg', '3.jpg'}
    assert not list(tmp_path.rglob('.*'))

def test_a_folder_of_copies_that_may_only_be_read(tmp_path, monkeypatch):
    for o in ('a/1.jpg', 'b/2.jpg'):
        photo(tmp_path/'trip'/o)
    (tmp_path/'out'/'a').mkdir(parents=True)
    # a file where a folder is wanted
    (tmp_path/'out'/'b').write_text('mine')
    closed(monkeypatch, tmp_path/'out'/'a')
    photo(tmp_path/'trip'/'3.jpg')
    r = capdec('caption', 'trip', '--exif', 'out', *FAST, cwd=tmp_path, ok=False)
    assert said(r) == '1 photos captioned, 2 failed: out' and read_caption(tmp_path/'out'/'3.jpg')
    assert [o.split(':')[3] for o in one_line(r)] == [' out/a/1.jpg', ' out/b/2.jpg']
    assert (tmp_path/'out'/'b').read_text() == 'mine'

def test_a_folder_in_the_place_of_a_text_file(tmp_path):
    photo(tmp_path/'a.jpg')
    photo(tmp_path/'b.jpg')
    (tmp_path/'a.txt').mkdir()
    for n in (1, 0):
        r = capdec('caption', tmp_path, '--sidecar', *FAST, ok=False)
        assert len(one_line(r)) == 1 and 'a.txt: cannot be written (Is a directory)' in r.stderr
        assert said(r).startswith(f'{n} photos captioned') and (tmp_path/'b.txt').exists()

def test_a_photo_that_vanishes_before_it_is_copied(tmp_path, monkeypatch):
    import capdec.captioner as c
    a = photo(tmp_path/'trip'/'a.jpg')
    photo(tmp_path/'trip'/'b.jpg')
    real = c.Captioner.caption_files
    def vanish(self, *args, **kw):
        for r in real(self, *args, **kw):
            if r.path.name == 'a.jpg':
                r.path.unlink()
            yield r
    monkeypatch.setattr(c.Captioner, 'caption_files', vanish)
    r = capdec('caption', tmp_path/'trip', '--exif', tmp_path/'out', *FAST, ok=False)
    assert one_line(r) == [f'capdec: skipped: no copy: {a}: No such file or directory']
    assert (tmp_path/'out'/'b.jpg').exists()

def test_a_full_disk_ends_a_run_with_one_line(small_disk):
    photo(small_disk/'a.jpg')
    photo(small_disk/'b.jpg')
    with open(small_disk/'rest', 'wb', 0) as f, pytest.raises(OSError):
        while f.write(bytes(4096)):
            pass
    for where in (['--sidecar'], ['--exif', small_disk/'out']):
        r = capdec('caption', small_disk/'a.jpg', small_disk/'b.jpg', *where, *FAST, ok=False)
        assert len(one_line(r)) == 1 and 'No space left on device' in r.stderr
