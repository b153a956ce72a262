"Folders of photos as phones and network drives leave them: nothing is passed over in silence, every file is closed."
import functools
import os
import warnings
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st
from PIL import Image, features
from skimage import data as photos

from capdec import core
from capdec.core import find_images, open_image
from shell import FAST, capdec, forked, one_line # the command in this process

pytestmark = pytest.mark.usefixtures('one_encoder')

# ending -> how Pillow writes it
KINDS = dict(jpg='jpeg', JPG='jpeg', jpe='jpeg', jfif='jpeg', jif='jpeg', pjpeg='jpeg', mpo='mpo', png='png',
    apng='png', webp='webp', bmp='bmp', dib='bmp', gif='gif', TIFF='tiff', ppm='ppm', pnm='ppm', pbm='ppm')
if features.check('avif'):
    KINDS |= dict(avif='avif', AVIFS='avif')
if features.check('jpg_2000'):
    KINDS |= dict(jp2='jpeg2000', j2k='jpeg2000', jpx='jpeg2000')
HEIC = b'\0\0\0\x18ftypheic\0\0\0\0mif1heic' + bytes(400)

def photo(path, turn=0, kind=None, size=(96, 64)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(photos.coffee()).resize(size).rotate(turn).save(path, kind)
    return path

@functools.cache
def mini():
    from capdec.captioner import Captioner
    return Captioner.from_pretrained('mini', 'cpu')

@pytest.fixture
def no_heic(monkeypatch):
    "pillow-heif is not installed"
    monkeypatch.setattr(core, '_can_open_heic', lambda: False)

def found(folder, *sources, **kw):
    "What is found below a folder, and what is said"
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter('always')
        paths = find_images(list(sources) or folder, **kw)
    return [os.path.relpath(p, folder) for p in paths], [str(o.message) for o in said]

# ---- what is a photo

@pytest.mark.parametrize('ending', KINDS)
def test_every_kind_is_found_and_opens(tmp_path, ending):
    p = photo(tmp_path/f'a.{ending}', kind=KINDS[ending])
    assert found(tmp_path) == ([p.name], []) and open_image(p).size == (96, 64)

def test_a_mixed_folder(tmp_path, no_heic):
    "The whole of it: a phone's files, thumbnails of a network drive, videos, raw files, links"
    d = tmp_path/'mix'
    photo(d/'a.jpg')
    photo(d/'b.jfif', 10, 'jpeg')
    photo(d/'thumbs'/'mine.jpg')
    for name in ('@eaDir/a.jpg/SYNOPHOTO_THUMB_M.jpg', '.thumbnails/x.jpg', '__MACOSX/._a.jpg', '#recycle/old.jpg',
            'lost+found/x.jpg', '$RECYCLE.BIN/y.jpg', '@Recycle/z.jpg'):
        photo(d/name)
    photo(d/'SYNOFILE_THUMB_M.jpg')
    for name in ('d.heic', 'd2.HEIC', 'd3.hif'):
        (d/name).write_bytes(HEIC)
    for name in ('v.mp4', 'v.MOV', 'r.CR2', 'r.dng', 's.psd', 'notes.txt', 'a.jpg.json', 'Thumbs.db', 'a.xmp'):
        (d/name).write_bytes(b'x')
    photo(tmp_path/'elsewhere'/'far.jpg', 20)
    (d/'link').symlink_to('../elsewhere')
    (d/'again').symlink_to('../elsewhere')
    (d/'f.jpg').symlink_to('gone.jpg')
    os.mkfifo(d/'pipe.jpg')
    paths, said = found(d)
    assert paths == ['a.jpg', 'again/far.jpg', 'b.jfif', 'thumbs/mine.jpg']
    assert said == [f'left out: 3 HEIC photos (such as {d}/d.heic), 1 dead link ({d}/f.jpg), 1 pipe or device '
        f'({d}/pipe.jpg), 2 raw files (such as {d}/r.CR2), 1 picture of another kind ({d}/s.psd), 2 videos (such as '
        f'{d}/v.MOV); for HEIC photos: pip install pillow-heif']
    r = capdec('caption', d, *FAST, ok=False)
    left, *bad = one_line(r)
    assert len(r.stdout.splitlines()) == 4 and 'left out: 3 HEIC photos' in left and 'video' not in left
    # captioned as photos are, where they can be read
    assert [o.split(': ')[1:3] for o in bad] == [['skipped', f'{d}/{v}'] for v in ('v.MOV', 'v.mp4')]

def test_nothing_but_what_is_left_out(tmp_path, no_heic):
    (tmp_path/'d.heic').write_bytes(HEIC)
    r = capdec('caption', tmp_path, *FAST, ok=False)
    assert len(one_line(r)) == 1 and 'no images in this folder' in r.stderr
    assert f'left out: 1 HEIC photo ({tmp_path}/d.heic); for HEIC photos: pip install pillow-heif' in r.stderr
    for source in ('*.heic', '*'):
        r = capdec('caption', tmp_path/source, *FAST, ok=False)
        assert len(one_line(r)) == 1 and 'no file matches' in r.stderr and '1 HEIC photo' in r.stderr

def test_the_folder_of_thumbnails_itself_can_be_named(tmp_path):
    photo(tmp_path/'@eaDir'/'a.jpg')
    assert found(tmp_path, tmp_path/'@eaDir') == (['@eaDir/a.jpg'], [])

# ---- links

def test_linked_folders_are_followed_once(tmp_path):
    for o in ('trip/a.jpg', 'trip/day/b.jpg', 'else/c.jpg', 'else/deep/d.jpg'):
        photo(tmp_path/o)
    trip = tmp_path/'trip'
    # in a circle, to what is found anyway, out of it, and from there to its own folder and back
    for at, to in (('trip/self', '.'), ('trip/up', '..'), ('trip/root', '/'), ('trip/day2', 'day'),
            ('trip/one', '../else'), ('trip/two', '../else'), ('trip/three', '../else/deep'), ('else/back', '../trip'),
            ('else/own', '.'), ('else/deep/top', '..')):
        (tmp_path/at).symlink_to(to)
    want = ['a.jpg', 'day/b.jpg', 'one/c.jpg', 'three/d.jpg']
    paths, said = found(trip)
    assert paths == want
    assert said == [f'left out: 2 links that lead back (such as {trip}/root)']
    # glob alone would go round for ever: two links make 2**40 paths
    assert found(trip, f'{trip}/**/*.jpg')[0] == want
    assert found(trip, trip, recursive=False)[0] == ['a.jpg']
    # named as well: each photo once
    assert sorted(found(tmp_path, trip, tmp_path/'else')[0]) == ['else/c.jpg', 'else/deep/d.jpg', 'trip/a.jpg',
        'trip/day/b.jpg']
    assert [len(capdec('caption', trip, *FAST, ok=True).stdout.splitlines())] == [4]

def test_dead_links_and_links_to_files(tmp_path):
    far = photo(tmp_path/'far'/'x.jpg')
    d = tmp_path/'d'
    d.mkdir()
    (d/'live.jpg').symlink_to(far)
    (d/'loop.jpg').symlink_to('loop.jpg')
    (d/'folder').symlink_to('unmounted')
    paths, said = found(d)
    assert paths == ['live.jpg'] and said == [f'left out: 2 dead links (such as {d}/folder)']
    # who names it is told
    r = capdec('caption', d/'loop.jpg', d/'live.jpg', *FAST, ok=False)
    assert 'loop.jpg: no such file' in one_line(r)[0] and len(r.stdout.splitlines()) == 1
    assert found(d, f'{d}/*.jpg') == (['live.jpg'], [f'left out: 1 dead link ({d}/loop.jpg)'])

# ---- patterns and names

def test_patterns(tmp_path, no_heic):
    for o in ('a.jpg', 'in/b.jpg', 'in/deep/c.png', '.h/d.jpg', '@eaDir/e.jpg', 'in/f.mp4'):
        photo(tmp_path/o, kind='jpeg')
    (tmp_path/'notes.txt').write_text('x')
    has = lambda o: found(tmp_path, f'{tmp_path}/{o}')
    assert has('**/*.jpg') == (['a.jpg', 'in/b.jpg'], [])
    assert has('**/in/**/*.*')[0] == ['in/b.jpg', 'in/deep/c.png']
    assert has('in/**')[0] == ['in/b.jpg', 'in/deep/c.png']
    # a file that a pattern names may have any ending; a video when it is asked for
    paths, said = has('*')
    assert paths == ['a.jpg', 'notes.txt']
    assert said == [f'left out: 2 folders that match (such as {tmp_path}/@eaDir)']
    assert has('in/*.mp4') == (['in/f.mp4'], [])
    assert has('in/*')[1] == [f'left out: 1 folder that matches ({tmp_path}/in/deep), 1 video ({tmp_path}/in/f.mp4)']

@pytest.mark.parametrize('name', ['~nobody.jpg', '~$x.jpg', 'a[1].jpg', 'b*.jpg', '-x.jpg', 'n'*251 + '.jpg'])
def test_odd_names(tmp_path, name, monkeypatch):
    photo(tmp_path/name)
    monkeypatch.chdir(tmp_path)
    assert [p.name for p in find_images(name)] == [name] and open_image(name).size == (96, 64)
    assert isinstance(mini()(name), str)

def test_a_name_that_cannot_be_is_one_photo(tmp_path):
    photo(tmp_path/'a.jpg')
    r = capdec('caption', tmp_path/('n'*300 + '.jpg'), tmp_path/'a.jpg', tmp_path/'a.jpg'/'b.jpg', *FAST, ok=False)
    assert len(one_line(r)) == 2 and 'File name too long' in r.stderr and len(r.stdout.splitlines()) == 1

def test_pipes_and_devices_do_not_hang(tmp_path):
    os.mkfifo(tmp_path/'pipe.jpg')
    for p in (tmp_path/'pipe.jpg', '/dev/zero', '/dev/null'):
        with pytest.raises(ValueError, match='is a pipe or a device'):
            open_image(p)

# ---- HEIC

def test_heic_without_its_library(tmp_path, no_heic):
    "Also where the file has another ending, and as bytes"
    for name in ('d.heic', 'd.jpg'):
        (tmp_path/name).write_bytes(HEIC)
        with pytest.raises(ValueError, match=f'{name}: is a HEIC photo; to open it, pip install'):
            open_image(tmp_path/name)
    with pytest.raises(ValueError, match='bytes: is a HEIC photo'):
        open_image(HEIC)
    # what only begins like one
    with pytest.raises(ValueError, match='not an image'):
        open_image(b'\0\0\0\x18ftypisom' + bytes(99))

def test_heic_with_its_library(tmp_path):
    heif = pytest.importorskip('pillow_heif')
    core._can_open_heic.cache_clear()
    im = Image.fromarray(photos.coffee()).resize((96, 64))
    exif = Image.Exif()
    exif[0x0112] = 6
    heif.from_pillow(im).save(tmp_path/'a.heic')
    heif.from_pillow(im).save(tmp_path/'b.HIF', exif=exif.tobytes())
    (tmp_path/'c.jpg').write_bytes((tmp_path/'a.heic').read_bytes())
    assert found(tmp_path) == (['a.heic', 'b.HIF', 'c.jpg'], [])
    for name, size in (('a.heic', (96, 64)), ('c.jpg', (96, 64))):
        out = open_image(tmp_path/name)
        assert out.size == size and out.mode == 'RGB'
    assert open_image((tmp_path/'a.heic').read_bytes()).size == (96, 64)
    (tmp_path/'cut.heic').write_bytes((tmp_path/'a.heic').read_bytes()[:600])
    with pytest.raises(ValueError, match='cut.heic: ') as e:
        open_image(tmp_path/'cut.heic')
    assert '\n' not in str(e.value)
    r = capdec('caption', tmp_path, '--sidecar', *FAST, ok=False)
    assert len(one_line(r)) == 1 and {o.name for o in tmp_path.glob('*.txt')} == {'a.txt', 'b.txt', 'c.txt'}

def test_the_extra_is_declared():
    import configparser
    cfg = configparser.ConfigParser(delimiters=['='])
    cfg.read(Path(__file__).resolve().parents[1]/'settings.ini')
    assert cfg['DEFAULT']['heic_requirements'].split() == ['pillow-heif']
    assert 'heic' in cfg['DEFAULT']['extras'].split()

# ---- files are closed

LIMITED = """
import resource, sys, warnings
from pathlib import Path
import torch, accelerate
from capdec.captioner import Captioner
from capdec.core import open_image
from capdec.embedding import embed_images, open_small
import os
folder = Path(sys.argv[1])
c = Captioner.from_pretrained('mini', 'cpu')
c(folder/'good.png')
bad = sorted(folder.glob('bad*'))
few = len(os.listdir('/proc/self/fd')) + 40
resource.setrlimit(resource.RLIMIT_NOFILE, (few, few))
warnings.simplefilter('ignore')
paths = [*bad, folder/'good.png']
error = lambda r: r.error
"""

def limited(folder, code, *args):
    "Run `code` in a process that may open 40 files more than it has"
    r = forked(LIMITED + code, folder, *args)
    assert r.returncode == 0, r.stderr
    return r.stdout.strip()

@pytest.fixture(scope='module')
def damaged(tmp_path_factory):
    "300 photos that break off, of every kind that keeps its file open while it is decoded, and a good one"
    d = tmp_path_factory.mktemp('damaged')
    good = photo(d/'good.png', size=(960, 640))
    for kind in ('png', 'jpg', 'tif', 'gif', 'webp', 'bmp'):
        whole = photo(d/f'whole.{kind}', size=(480, 320)).read_bytes()
        for i in range(50):
            (d/f'bad{i:02}.{kind}').write_bytes(whole[:len(whole)//3+i])
        (d/f'whole.{kind}').unlink()
    assert good.exists() and len(list(d.glob('bad*'))) == 300
    return d

@pytest.mark.parametrize('code', [
    'found = c(paths); print(found.count(None), found[-1] is not None)',
    'found = list(c.caption_files(paths, batch_size=400)); print(sum(map(bool, map(error, found))), not found[-1][2])',
    'found = list(map(open_small, paths)); print(sum(isinstance(o, ValueError) for o in found), found[-1].width > 9)',
    's = embed_images(paths, c.encoder, folder/"s", show=False); print(len(s.meta["failed"]), len(s) == 1)'],
    ids=['captioner', 'caption_files', 'open_small', 'embed_images'])
def test_good_photos_after_damaged_ones(damaged, code):
    assert limited(damaged, code) == '300 True'

def test_errors_that_are_kept_hold_on_to_nothing(damaged):
    "Also the errors of `open_image` itself, with their tracebacks"
    code = """
import gc
from PIL import Image
images = lambda: gc.collect() and 0 or sum(isinstance(o, Image.Image) for o in gc.get_objects())
# a plugin of Pillow has an image of its own
Image.init()
before,errors = images(), []
for p in paths[:-1]:
    try:
        open_image(p)
    except ValueError as e:
        errors.append(e)
print(len(errors), images() - before, {e.__context__ for e in errors}, open_image(paths[-1]).size)
"""
    assert limited(damaged, code) == '300 0 {None} (960, 640)'

def test_no_more_files_is_not_damage(damaged):
    "What the system refuses is no photo's fault: nothing is noted about the photo, the run ends with a line"
    code = """
taken = []
try:
    while True:
        taken.append(open(folder/'good.png'))
except OSError as e:
    said = [e.errno]
for f in (open_image, open_small, lambda p: list(c.caption_files([p])), lambda p: c([p])):
    try:
        f(folder/'good.png')
    except OSError as e:
        said.append((e.errno, str(e)))
del taken
print(said == [24] + [(24, f'{folder}/good.png: cannot be opened (Too many open files); allow more open files with '
    '`ulimit -n`')]*4, open_image(folder/'good.png').size)
"""
    assert limited(damaged, code) == 'True (960, 640)'

def test_what_the_disk_says(tmp_path, monkeypatch):
    import builtins
    p, real = photo(tmp_path/'a.jpg'), builtins.open
    for n, why in ((5, 'Input/output error'), (116, 'Stale file handle')):
        def fails(path, *args, **kw):
            if str(path) == str(p):
                raise OSError(n, os.strerror(n), path)
            return real(path, *args, **kw)
        with monkeypatch.context() as m:
            m.setattr(builtins, 'open', fails)
            with pytest.raises(ValueError, match=f'a.jpg: cannot be read .{why}.'):
                open_image(p)

def test_a_file_of_the_users_own_stays_open(tmp_path):
    p = photo(tmp_path/'a.jpg')
    with open(p, 'rb') as f:
        assert open_image(f).size == open_image(f).size == (96, 64) and not f.closed
    with Image.open(p) as im:
        assert open_image(im).size == open_image(im).size == (96, 64)
    (tmp_path/'bad.jpg').write_bytes(p.read_bytes()[:900])
    with open(tmp_path/'bad.jpg', 'rb') as f:
        with pytest.raises(ValueError, match=f'{f.name}: damaged'):
            open_image(f)
        assert not f.closed

# ---- any tree of folders and links

NAMES = st.sampled_from(['a', 'b', 'c', 'd'])

@settings(max_examples=150)
@given(st.lists(st.tuples(st.sampled_from(['photo', 'folder', 'link']), st.lists(NAMES, min_size=1, max_size=4),
    st.lists(st.sampled_from(['a', 'b', 'c', '..', '.']), max_size=4)), max_size=14), st.booleans())
def test_every_photo_of_any_tree_is_found_once(tmp_path_factory, tree, pattern):
    top = tmp_path_factory.mktemp('tree')
    for kind, at, to in tree:
        path = top/'trip'/Path(*at)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if kind == 'photo':
                path.with_suffix('.jpg').touch()
            elif kind == 'folder':
                path.mkdir()
            else:
                path.symlink_to(Path(*to))
        except OSError:
            # a loop of links, or something of that name is there
            continue
    (top/'trip').mkdir(exist_ok=True)
    inside = {os.path.realpath(os.path.join(at, o)) for at, _, names in os.walk(top/'trip') for o in names
        if o.endswith('.jpg')}
    try:
        with warnings.catch_warnings(action='ignore'):
            paths = find_images(f'{top}/trip/**/*.jpg' if pattern else top/'trip')
    except FileNotFoundError:
        paths = []
    real = [os.path.realpath(p) for p in paths]
    # nothing lies outside, so links bring nothing new
    assert len(set(real)) == len(real) and set(real) == inside
