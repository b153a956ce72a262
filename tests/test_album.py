"Albums: nothing that is there is destroyed, and what cannot be written costs one photo."
import hashlib
import os
import warnings

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from PIL import Image
from skimage import data as photos

from capdec.album import copies, originals
from capdec.exif import is_copy, read_caption, write_caption
from files import photo
from shell import FAST, capdec, one_line, said # the command in this process

pytestmark = pytest.mark.usefixtures('one_encoder')

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

@settings(max_examples=150)
@given(st.lists(st.tuples(st.sampled_from(['{d}', '.', '..', '../..', 'in', '../o', 'link', '../o/link', 'in/..']),
    st.sampled_from(['', '/*.jpg', '/x.jpg', '/y.jpg', '/*/x.jpg', '/**/*.jpg'])), min_size=1, max_size=4),
    st.sampled_from(['out', '../out', 'in/out', '../o/out', '{d}/out', 'link/out']))
def test_no_copy_lands_on_a_photo_or_outside(tmp_path_factory, sources, folder):
    "However photos and the folder are named"
    top = tmp_path_factory.getbasetemp()/'w'
    if not top.exists():
        for o in ('t/x.jpg', 't/y.jpg', 't/in/x.jpg', 'o/x.jpg', 'o/in/y.jpg', 'x.jpg'):
            photo(top/o, len(o))
        (top/'t'/'link').symlink_to('../o')
        (top/'o'/'link').symlink_to('../t/in')
    here = os.getcwd()
    os.chdir(top/'t')
    try:
        sources, folder = [(a + b).format(d=top) for a, b in sources], folder.format(d=top)
        from capdec.core import find_images
        with warnings.catch_warnings(action='ignore'):
            paths = find_images(sources)
            made = copies(sources, originals(sources, paths, folder), folder)
        out = os.path.realpath(folder) + os.sep
        real = {p: os.path.realpath(p) for p in made}
        assert made and all(os.path.realpath(t).startswith(out) for t in made.values())
        assert not {os.path.realpath(t) for t in made.values()} & set(real.values())
        # two photos, two copies
        assert len({os.path.realpath(t) for t in made.values()}) >= len(set(real.values()))
    except FileNotFoundError as e:
        assert 'no file matches' in str(e)
    finally:
        os.chdir(here)

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
    for flags, lines, says in (([], 1, '1 photo captioned: '), (['--overwrite'], 0, '1 photo captioned: '),
            ([], 0, '0 photos captioned, 1 was there')):
        r = capdec('caption', two, '--exif', out, *FAST, *flags, ok=True)
        assert first.read_bytes() == kept and is_copy(two/first.name, second) and read_caption(second)
        assert said(r).startswith(says) and ['another name' in o for o in one_line(r)] == [True]*lines
    assert said(capdec('caption', one, '--exif', out, *FAST, ok=True)).startswith('0 photos captioned, 1 was there')
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
    (tmp_path/'bad.jpg').write_bytes(b'\xff\xd8\xff\xe1\0\x10Exif\0\0II*\0\xff\xff\xff\xff' + a.read_bytes()[2:])
    assert not is_copy(a, tmp_path/'bad.jpg')
    assert not is_copy(a, tmp_path/'gone.jpg') and not is_copy(a, tmp_path)

# ---- what cannot be written costs one photo

def closed(monkeypatch, folder):
    "A folder that may be read only (root may write anywhere, so the error is made)"
    import inspect
    import tempfile
    for name in ('mkstemp', 'mkdtemp'):
        def closed_there(*args, real=getattr(tempfile, name), **kw):
            at = inspect.signature(real).bind(*args, **kw).arguments.get('dir')
            if at is not None and os.path.realpath(at) == os.path.realpath(folder):
                raise PermissionError(13, 'Permission denied', str(at))
            return real(*args, **kw)
        monkeypatch.setattr(tempfile, name, closed_there)

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
    assert {o.name for o in tmp_path.rglob('.*')} <= {'.c.csv.made', '.c.json.made', '.capdec.jsonl'}

def test_a_folder_of_copies_that_may_only_be_read(tmp_path, monkeypatch):
    for o in ('a/1.jpg', 'b/2.jpg'):
        photo(tmp_path/'trip'/o)
    (tmp_path/'out'/'a').mkdir(parents=True)
    # a file where a folder is wanted
    (tmp_path/'out'/'b').write_text('mine')
    closed(monkeypatch, tmp_path/'out'/'a')
    photo(tmp_path/'trip'/'3.jpg')
    r = capdec('caption', 'trip', '--exif', 'out', *FAST, cwd=tmp_path, ok=False)
    assert said(r) == '1 photo captioned, 2 failed: out' and read_caption(tmp_path/'out'/'3.jpg')
    assert [o.split(':')[3] for o in one_line(r)] == [' out/a/1.jpg', ' out/b/2.jpg']
    assert (tmp_path/'out'/'b').read_text() == 'mine'

def test_a_folder_in_the_place_of_a_text_file(tmp_path):
    photo(tmp_path/'a.jpg')
    photo(tmp_path/'b.jpg')
    (tmp_path/'a.txt').mkdir()
    for n in (1, 0):
        r = capdec('caption', tmp_path, '--sidecar', *FAST, ok=False)
        assert len(one_line(r)) == 1 and 'a.txt: cannot be written (Is a directory)' in r.stderr
        assert said(r).startswith(f'{n} photo{"s"*(not n)} captioned') and (tmp_path/'b.txt').exists()

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

# ---- what made a table

@pytest.fixture
def trip(tmp_path, monkeypatch):
    photo(tmp_path/'trip'/'a.jpg')
    photo(tmp_path/'trip'/'b.jpg', 90)
    monkeypatch.chdir(tmp_path)
    return tmp_path

# what is typed the second time, and what is said about the first
OTHER = {'model': (['--model', '{mine}'], ''), 'max_words': (['--max_words', 5], ' with max_words 0'),
    'bridge': (['--bridge', 'offset'], " with bridge 'none'"),
    'memory': (['--memory', 'm.txt'], " with bridge 'none'"),
    'prompt': (['--prompt', 'A photo of'], " with prompt ''"), 'beams': (['--beam_size', 2], ' with beam_size 5'),
    'greedy': (['--method', 'greedy'], " with beam_size 5, method 'beam'"),
    'seed': (['--method', 'sample', '--seed', 3], " with beam_size 5, seed None, method 'beam'")}

@pytest.mark.parametrize('name,kind', [*((o, 'csv') for o in OTHER), ('model', 'json'), ('max_words', 'jsonl')])
def test_a_table_of_another_captioner_is_refused(trip, mine, name, kind):
    (trip/'m.txt').write_text('A cup of coffee.\nA cat.\n')
    other, words = OTHER[name]
    out, other = f't.{kind}', [str(o).format(mine=mine) for o in other]
    run = lambda *args, ok=True: capdec('caption', 'trip', '--out', out, '--device', 'cpu', *args, ok=ok)
    run()
    before = hashes(trip)
    r = run(*other, ok=False)
    assert one_line(r) == [f'capdec: error: {out} was made by mini{words}: --overwrite to caption again, or name '
        'another file'] and hashes(trip) == before
    assert said(run()).startswith('0 photos captioned, 2 were there')
    # captioned again, and now the plain command is refused
    assert said(run(*other, '--overwrite')) == f'2 photos captioned: {out}'
    assert said(run(*other)).startswith('0 photos captioned, 2 were there')
    who = mine if name == 'model' else 'mini'
    assert f'{out} was made by {who}' in run(ok=False).stderr

def test_other_weights_under_the_same_name(trip, mine):
    import shutil
    from capdec.captioner import Captioner
    shutil.copytree(mine, 'm')
    run = lambda *args, ok=True: capdec('caption', 'trip', '--out', 't.csv', *FAST, *args, ok=ok)
    run('--model', 'm')
    # moved, copied, by another path: the same captioner
    shutil.copytree('m', 'n')
    for name in ('n', './m', str(trip/'m')):
        assert said(run('--model', name)).startswith('0 photos captioned, 2 were there')
    Captioner.from_pretrained('mini', 'cpu').save('m')
    assert 't.csv was made by m with other weights: --overwrite' in run('--model', 'm', ok=False).stderr
    # two memories
    for o in 'ab':
        (trip/f'{o}.txt').write_text(f'A {o}.\nA cat.\n')
    run('--memory', 'a.txt', '--overwrite')
    assert 't.csv was made by mini with another memory: ' in run('--memory', 'b.txt', ok=False).stderr
    run('--memory', 'a.txt')

def test_a_style_is_another_captioner(trip, mine, monkeypatch):
    capdec('caption', 'trip', '--out', 't.csv', *FAST, ok=True)
    r = capdec('caption', 'trip', '--out', 't.csv', '--style', mine, *FAST, ok=False)
    assert 't.csv was made by mini: --overwrite to caption again' in r.stderr

def test_a_table_that_does_not_tell(trip, mine):
    "Made before there were notes, or moved without its note: nothing is said about a plain run, and nothing is lost"
    run = lambda *args, ok=True: capdec('caption', 'trip', '--out', 't.csv', *FAST, *args, ok=ok)
    (trip/'t.csv').write_text('file,caption,error\ntrip/a.jpg,My own words.,\n')
    r = capdec('caption', 'trip', '--out', 't.csv', '--device', 'cpu', ok=True)
    assert not one_line(r) and said(r).startswith('1 photo captioned, 1 was there')
    for args in (['--model', mine], ['--max_words', 5], ['--bridge', 'none']):
        r = run(*args)
        assert one_line(r) == ['capdec: t.csv: does not tell what made it, so its captions stay; --overwrite to '
            'caption again']
        assert 'My own words.' in (trip/'t.csv').read_text() and not (trip/'.t.csv.made').exists()
    run('--max_words', 5, '--overwrite')
    assert 'was made by mini with max_words 5' in run(ok=False).stderr
    # the note of a table that is gone tells nothing
    (trip/'t.csv').unlink()
    assert said(run()) == '2 photos captioned: t.csv'

def test_photos_that_are_not_named_stay_in_the_table(trip, mine):
    "Captioned again are only those that are named; the others are, as soon as they are named"
    run = lambda *args, ok=True: capdec('caption', *args, '--out', 't.csv', *FAST, ok=ok)
    run('trip')
    rows = (trip/'t.csv').read_text().splitlines()
    assert said(run('trip/b.jpg', '--overwrite')) == '1 photo captioned: t.csv'
    assert (trip/'t.csv').read_text().splitlines() == rows
    r = run('trip/b.jpg', '--overwrite', '--max_words', 4)
    assert 'captions of photos that are not named now stay as mini made them: 1' in one_line(r)[0]
    mixed = (trip/'t.csv').read_text().splitlines()
    assert mixed[1] == rows[1] and mixed[2] != rows[2]
    assert said(run('trip', '--max_words', 4)).startswith('1 photo captioned, 1 was there')
    assert all(len(o.split(',')[1].split()) <= 4 for o in (trip/'t.csv').read_text().splitlines()[1:])
    assert said(run('trip', '--max_words', 4)).startswith('0 photos captioned, 2 were there')
    # another number of captions does not fit into the table
    r = run('trip/b.jpg', '--overwrite', '--num_captions', 2)
    assert 'gone from it, because there are not 2 for each: 1' in one_line(r)[0]

def test_a_run_that_was_cut_off_keeps_its_note(trip, mine, monkeypatch):
    def cut(*args):
        raise KeyboardInterrupt
    run = lambda *args, ok=True: capdec('caption', 'trip', '--out', 't.csv', *FAST, *args, ok=ok)
    run()
    whole = (trip/'t.csv').read_text()
    with monkeypatch.context() as m:
        m.setattr('capdec.album.write_table', cut)
        assert run('--max_words', 4, '--overwrite', ok=False).returncode == 130
    assert (trip/'t.csv').read_text() == whole
    run('--max_words', 4)
    assert (trip/'t.csv').read_text() != whole
    assert 'was made by mini with max_words 4' in run(ok=False).stderr

@pytest.mark.parametrize('note', ['[1]', '{}', '{"model": 5, "others": []}', '{"model": "m", "others": 1}', 'null',
    '{'])
def test_a_damaged_note_is_one_line(trip, note):
    capdec('caption', 'trip', '--out', 't.csv', *FAST, ok=True)
    (trip/'.t.csv.made').write_text(note)
    r = capdec('caption', 'trip', '--out', 't.csv', *FAST, ok=False)
    assert len(one_line(r)) == 1 and '.t.csv.made: ' in r.stderr and not (trip/'t.csv.part').exists()

def test_names_of_another_folder_are_other_photos(tmp_path):
    "Two cards, one table: IMG_0001.jpg of the second is not IMG_0001.jpg of the first"
    for i in (1, 2):
        photo(tmp_path/f'card{i}'/'IMG_0001.jpg', 90*i)
    run = lambda i, *args, ok=True, photos='.': capdec('caption', photos, '--out', tmp_path/'t.csv', *FAST, *args,
        cwd=tmp_path/f'card{i}', ok=ok)
    run(1)
    before = (tmp_path/'t.csv').read_text()
    for args in ([], ['--overwrite']):
        r = run(2, *args, ok=False)
        assert len(one_line(r)) == 1 and f'named from {tmp_path}/card1, where IMG_0001.jpg is another one' in r.stderr
        assert (tmp_path/'t.csv').read_text() == before and not (tmp_path/'t.csv.part').exists()
    assert said(run(2, photos=tmp_path/'card2')).startswith('1 photo captioned')
    assert said(run(1)).startswith('0 photos captioned, 1 was there') and len(hashes(tmp_path)) == 4
    # the same for a run that was cut off
    from capdec.captioner import Captioner
    (tmp_path/'t.csv').unlink()
    real = Captioner.caption_files
    with pytest.MonkeyPatch.context() as m:
        def stop(*args, **kw):
            yield next(real(*args, **kw))
            raise KeyboardInterrupt
        m.setattr(Captioner, 'caption_files', stop)
        assert run(1, ok=False).returncode == 130
    assert 'was begun with other settings' in run(2, ok=False).stderr
    # an album that is moved with its table
    run(1)
    (tmp_path/'card1').rename(tmp_path/'album')
    (tmp_path/'t.csv').rename(tmp_path/'album'/'t.csv')
    capdec('caption', '.', '--out', 't.csv', *FAST, cwd=tmp_path/'album', ok=True)
    (tmp_path/'album').rename(tmp_path/'old album')
    r = capdec('caption', '.', '--out', 't.csv', *FAST, cwd=tmp_path/'old album', ok=True)
    assert said(r).startswith('0 photos captioned, 1 was there')

@pytest.mark.parametrize('where', [['--sidecar'], ['--exif', 'copies'], ['--sidecar', '--exif', 'copies']])
def test_text_files_and_copies_do_not_tell(trip, mine, where):
    run = lambda *args, ok=True: capdec('caption', 'trip', *where, '--device', 'cpu', *args, ok=ok)
    run()
    before = hashes(trip)
    assert not one_line(run())
    assert not one_line(run('--max_words', 60))
    assert 'sampled captions differ every time' in one_line(run('--method', 'sample'))[0]
    for args in (['--max_words', 4], ['--bridge', 'none', '--prompt', 'There'], ['--model', mine, '--prompt', 'One']):
        r = run(*args)
        assert len(one_line(r)) == 1 and 'were there: 2; they stay as they are, though 2 of 2 that we tried' in r.stderr
        assert said(r).startswith('0 photos captioned, 2 were there')
    # a new table beside them
    r = run('--out', 'n.csv', '--max_words', 4)
    assert len(one_line(r)) == 1 and 'were there and say something else: 2; they stay' in r.stderr
    assert {k: v for k, v in hashes(trip).items() if 'n.csv' not in k} == before
    assert not one_line(run('--out', 'o.csv'))
    r = run('--max_words', 4, '--overwrite')
    assert not one_line(r) and said(r).startswith('2 photos captioned') and hashes(trip) != before

def test_a_table_is_no_photo(trip):
    (trip/'c.csv').write_bytes((trip/'trip'/'a.jpg').read_bytes())
    for out in ('c.csv', 'trip/../c.csv'):
        r = capdec('caption', 'c.csv', '--out', out, '--overwrite', *FAST, ok=False)
        assert f'--out {out}: is one of the photos' in one_line(r)[0]

def test_the_same_in_python(trip, mine):
    from capdec.album import Album, caption_album
    from capdec.captioner import Captioner
    from capdec.config import CaptionRun, Limits
    c, paths = Captioner.from_pretrained('mini', 'cpu'), [type(trip)('trip/a.jpg')]
    caption_album(c, paths, Album('t.csv'))
    assert caption_album(c, paths, Album('t.csv')).there == 1
    for other, limits in ((c, Limits(max_words=4)), (Captioner.from_pretrained(mine, 'cpu'), Limits())):
        with pytest.raises(ValueError, match='t.csv was made by another captioner with (max_words 0|other weights): '):
            caption_album(other, paths, Album('t.csv'), CaptionRun(limits=limits))
    # as the command line made it
    assert said(capdec('caption', 'trip/a.jpg', '--out', 't.csv', '--device', 'cpu', ok=True)).startswith('0 photos')

@pytest.mark.parametrize('note', ['[]', '5', '{}', '{"model": 5, "others": []}', '{"model": "mini", "others": [[]]}',
    '{"model": "mini", "others": [], "folder": 5}', '{"model": "mini", "others": {"a": 1}}', 'x'])
def test_a_note_that_somebody_has_damaged(tmp_path, monkeypatch, note):
    "Is one line that names it, and the table stays"
    monkeypatch.chdir(tmp_path)
    Image.new('RGB', (40, 30), 'navy').save('a.jpg')
    capdec('caption', 'a.jpg', '--out', 't.csv', '--device', 'cpu', ok=True)
    before = (tmp_path/'t.csv').read_text()
    (tmp_path/'.t.csv.made').write_text(note)
    said = one_line(capdec('caption', 'a.jpg', '--out', 't.csv', '--device', 'cpu', ok=False))
    assert len(said) == 1 and '.t.csv.made' in said[0] and (tmp_path/'t.csv').read_text() == before
