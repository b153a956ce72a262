"Where captions go beside the table: text files, XMP, copies, a page, lines for pipes; and who wrote them."
import csv
import json
import os
import re

import pytest

from capdec.exif import read_caption, read_notes, write_caption
from capdec.xmp import read_xmp_file, write_xmp
from files import photo
from shell import capdec, caption as run, one_line

pytestmark = pytest.mark.usefixtures('one_encoder')

@pytest.fixture
def trip(tmp_path, monkeypatch):
    for name, turn in (('a.jpg', 0), ('b.jpg', 90), ('c.png', 180)):
        photo(tmp_path/'trip'/name, turn)
    monkeypatch.chdir(tmp_path)
    return tmp_path/'trip'

def said(r):
    return (r.stdout or r.stderr).strip().splitlines()[-1]

# ---- what the last line says

def test_one_photo_is_one_photo(trip):
    assert said(run('trip/a.jpg', '-o', 't.csv')) == '1 photo captioned: t.csv'
    assert said(run('trip/a.jpg', '-o', 't.csv')).startswith(
        '0 photos captioned, 1 was there already (--overwrite does it again)')

# ---- flags that mean the same

def test_names_that_mean_the_same(trip):
    base = run('trip/a.jpg').stdout
    for args in (['--photos', 'trip/a.jpg'], ['--images=trip/a.jpg'], ['--checkpoint', 'mini', 'trip/a.jpg'],
            ['trip/a.jpg', '--num-captions', '1']):
        assert run(*args).stdout == base
    assert run('--photos', 'trip/a.jpg', 'trip/b.jpg', '--model', 'mini').stdout.count('\n') == 2
    assert capdec('caption', '--photos').returncode == 2

def test_a_word_or_a_flag():
    "What stands alone in one verb may do so in all of them"
    from capdec.cli import verb_parser
    for verb, flag in (('parse', 'data'), ('open-text', 'data'), ('noise', 'data'), ('train', 'data'),
            ('embed', 'data'), ('predict', 'data'), ('evaluate', 'predictions'), ('convert', 'source'),
            ('offset', 'images'), ('bridger', 'images'), ('data', 'name')):
        for args in (['x.json'], [f'--{flag}', 'x.json'], [f'--{flag}=x.json']):
            assert getattr(verb_parser(verb).parse_args(args), flag) == 'x.json', (verb, args)
    assert verb_parser('convert').parse_args(['--checkpoint', 'x.pt', 'out']).out == 'out'
    assert verb_parser('predict').parse_args(['--model', 'mine', '-o', 'p.json']).checkpoint == 'mine'
    assert verb_parser('demo').parse_args(['a.jpg', 'b.jpg']).photos == ['a.jpg', 'b.jpg']
    for verb in ('parse', 'embed', 'train', 'evaluate'):
        with pytest.raises(SystemExit):
            verb_parser(verb).parse_args(['x', 'y'])

def test_every_flag_of_caption_has_its_group():
    from capdec.cli import GROUPS, caption, verb_parser
    from capdec.flags import flags_of
    grouped = [o for names in GROUPS['caption'].values() for o in names]
    assert sorted(grouped) == sorted(o[0] for o in flags_of(caption)) and len(set(grouped)) == len(grouped)
    text = verb_parser('caption').format_help()
    places = [text.index(f'\n{title}:') for title in GROUPS['caption']]
    assert places == sorted(places)

# ---- lines for another program

@pytest.mark.parametrize('flag', [['--json'], ['--out', '-'], ['-o', '-']])
def test_json_lines(trip, flag):
    (trip/'bad.jpg').write_text('no photo')
    r = run('trip', *flag, ok=False)
    rows = [json.loads(l) for l in r.stdout.splitlines()]
    assert [o['file'] for o in rows] == ['trip/a.jpg', 'trip/b.jpg', 'trip/bad.jpg', 'trip/c.png']
    assert rows[0]['caption'] and 'not an image' in rows[2]['error'] and 'caption' not in rows[2]
    assert r.stderr.splitlines()[-1] == '3 photos captioned, 1 failed' and not list(trip.parent.glob('*.*'))
    many = [json.loads(l) for l in run('trip/a.jpg', *flag, '--num_captions', 2, '--beam_size', 2).stdout.splitlines()]
    assert len(many[0]['captions']) == 2

def test_json_lines_beside_a_table(trip):
    r = run('trip', '--json', '--out', 't.csv')
    assert len(r.stdout.splitlines()) == 3 == len(list(map(json.loads, r.stdout.splitlines())))
    assert '3 photos captioned: t.csv' in r.stderr
    # the same lines again
    again = run('trip', '--json', '--out', 't.csv')
    assert again.stdout == r.stdout and '3 were there already' in again.stderr
    (trip/'a.txt').write_text('sks, my cup!\n')
    rows = lambda *args: [json.loads(l) for l in run('trip', '--json', *args).stdout.splitlines()]
    beside = ('--sidecar', '--prefix', 'sks, ', '--suffix', '!')
    first = rows(*beside)
    assert {o['file']: o['caption'] for o in first}['trip/a.jpg'] == 'my cup' and rows(*beside) == first
    for where in (['--xmp'], ['--exif', 'copies']):
        found = [rows(*where) for _ in range(2)]
        assert found[0] == found[1] == [json.loads(o) for o in r.stdout.splitlines()]

@pytest.mark.parametrize('where', [[], ['--out', 't.csv'], ['--json'], ['--sidecar']])
def test_what_a_captioner_of_tokens_says_is_tidied(trip, monkeypatch, where):
    "As it learned it, a caption has no capital, and a blank before its full stop"
    from capdec.captioner import Captioner, Result
    says = lambda self, paths, **how: (Result(p, [how['limits'].prompt + 'a cup , hot .'], None) for p in paths)
    monkeypatch.setattr(Captioner, 'caption_files', says)
    run('trip/a.jpg', *where)
    r = run('trip/a.jpg', *where) if where[:1] != ['--out'] else None
    texts = [r.stdout if r else (trip.parent/'t.csv').read_text(), *(o.read_text() for o in trip.glob('*.txt'))]
    assert 'A cup, hot.' in ''.join(texts) and 'hot .' not in ''.join(texts)
    # what you typed stays
    assert 'so: a cup , hot .' in run('trip/b.jpg', '--prompt', 'so: ').stdout

# ---- some of them, none of them

@pytest.mark.parametrize('where', [['--out', 't.csv'], ['--sidecar'], ['--exif', 'copies'], ['--xmp']])
def test_limit_goes_on(trip, where):
    assert said(run('trip', *where, '--limit', 2)).startswith('2 photos captioned, 1 left for the next run (--limit)')
    assert said(run('trip', *where, '--limit', 2)).startswith('1 photo captioned, 2 were there already')
    assert said(run('trip', *where, '--limit', 2)).startswith('0 photos captioned, 3 were there already')
    if where[0] == '--out':
        assert len((trip.parent/'t.csv').read_text().splitlines()) == 4
    assert '--limit -1' in one_line(run('trip', '--limit', '-1', ok=False))[0]

@pytest.mark.parametrize('where,again', [*((o, ['--redo', 'mini']) for o in (['--out', 't.csv'], ['--sidecar'],
    ['--xmp'], ['--exif', 'copies'])), (['--out', 't.csv'], ['--overwrite'])])
def test_limit_goes_on_with_what_is_done_again(trip, where, again):
    "And of a table no caption is lost meanwhile"
    run('trip', *where)
    for i in range(3):
        # what was overwritten is there; the rest of the table is gone on with
        r = run('trip', *where, '--max_words', 4, '--limit', 1, *(again if not i or again[0] == '--redo' else []))
        left = f', {2-i} left for' if i < 2 else ': '
        assert said(r).startswith('1 photo captioned') and left in said(r), (i, said(r))
        if where[0] == '--out':
            rows = list(csv.DictReader((trip.parent/'t.csv').read_text().splitlines()))
            assert len(rows) == 3 and [len(o['caption'].split()) <= 4 for o in rows] == [True]*(i+1) + [False]*(2-i)
    assert said(run('trip', *where, '--max_words', 4, '--limit', 1)).startswith('0 photos captioned, 3 were there')

@pytest.mark.parametrize('where', [['--json'], ['--gallery', 'p.html']])
def test_limit_does_not_go_on_where_nothing_is_kept(trip, where):
    r = run('trip', *where, '--limit', 1)
    assert '2 left out (--limit; nothing is kept, so the next run begins with the same ones)' in r.stdout + r.stderr

def everything(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob('*') if p.is_file()}

def test_a_dry_run_writes_nothing_and_loads_nothing(trip, monkeypatch):
    run('trip/a.jpg', '--out', 't.csv', '--sidecar')
    before = everything(trip.parent)
    monkeypatch.setattr('capdec.captioner.load_captioner', None)
    r = run('trip', '--out', 't.csv', '--sidecar', '--xmp', '--exif', 'new/copies', '--gallery', 'p.html', '--dry_run',
        '--limit', 2, '--style', 'poems.txt')
    lines = r.stdout.splitlines()
    assert lines == ['trip/a.jpg: goes to trip/a.xmp, new/copies/a.jpg, p.html',
        'trip/b.jpg: goes to t.csv, trip/b.txt, trip/b.xmp, new/copies/b.jpg, p.html',
        'trip/c.png: is left for the next run', '2 photos would be captioned and p.html written; nothing was written']
    assert run('trip/a.jpg', '--out', 't.csv', '--sidecar', '--dry-run').stdout.splitlines() == [
        'trip/a.jpg: is there already', '0 photos would be captioned; nothing was written']
    assert run('trip/a.jpg', '--out', 't.csv', '--dry_run', '--redo', 'mini').stdout.splitlines()[0].endswith('t.csv')
    r = run('trip/a.jpg', '--sidecar', '--dry_run', '--redo', 'mimi')
    assert 'mimi: has written nothing here' in one_line(r)[0]
    assert everything(trip.parent) == before

def test_a_plan_says_what_cannot_be_written(trip, monkeypatch):
    "Root may write anywhere, so a folder is closed by hand"
    real, closed = os.access, {str(trip)}
    monkeypatch.setattr(os, 'access', lambda p, mode: str(p) not in closed and real(p, mode))
    r = run('trip/a.jpg', 'gone.jpg', '--sidecar', '--xmp', '--out', 't.csv', '--dry_run', ok=False)
    why = f'({trip}: Permission denied)'
    assert r.stdout.splitlines() == [f'trip/a.jpg: goes to t.csv; cannot go to trip/a.txt {why}; cannot go to '
        f'trip/a.xmp {why}', 'gone.jpg: cannot be read (No such file or directory)',
        '1 photo would be captioned; nothing was written']
    closed.clear()
    (trip/'a.txt').mkdir()
    assert 'a.txt (Is a directory)' in run('trip/a.jpg', '--sidecar', '--dry_run', ok=False).stdout
    # the record in the folder is written, too
    (trip/'.capdec.jsonl').write_text('')
    closed.add(str(trip/'.capdec.jsonl'))
    assert '.capdec.jsonl: Permission denied' in run('trip/b.jpg', '--sidecar', '--dry_run', ok=False).stdout
    assert run('trip/b.jpg', '--gallery', 'p.html', '--dry_run').stdout.startswith('trip/b.jpg: goes to p.html')
    (trip.parent/'p.html').write_text('mine')
    assert 'is no gallery' in one_line(run('trip/b.jpg', '--gallery', 'p.html', '--dry_run', ok=False))[0]

# ---- text files

def test_text_files_for_training(trip):
    (trip/'a.caption').write_text('tag one, tag two')
    args = ('trip', '--sidecar', '--sidecar_ext', 'caption', '--prefix', 'sks, ', '--suffix', ' !')
    assert said(run(*args)).startswith('2 photos captioned, 1 was there already')
    assert (trip/'a.caption').read_text() == 'tag one, tag two'
    text = (trip/'b.caption').read_text()
    assert re.fullmatch(r'sks, A .* !\n', text) and not list(trip.glob('*.txt'))
    assert said(run(*args, '--append')).startswith('1 photo captioned, 2 were there')
    first, second = (trip/'a.caption').read_text().splitlines()
    assert first == 'tag one, tag two' and second.startswith('sks, A ')
    assert said(run(*args, '--append')).startswith('0 photos captioned, 3 were there')
    # with another captioner's caption in its place
    run(*args, '--append', '--redo', 'mini', '--max_words', 4)
    third = (trip/'a.caption').read_text().splitlines()
    assert third[0] == first and len(third) == 2 and third[1] != second

@pytest.mark.parametrize('args,says', [(['--prefix', 'x'], '--prefix'), (['--append'], '--append: belongs'),
    (['--sidecar', '--sidecar_ext', '.xmp'], '--xmp'), (['--sidecar', '--sidecar_ext', 'a/b'], '--sidecar_ext'),
    (['--sidecar', '--sidecar_ext', 'JPG'], '--sidecar_ext'), (['--sidecar', '--sidecar_ext', 'mp4'], '--sidecar_ext'),
    (['--xmp', '--num_captions', 2], '--num_captions'), (['--redo', 'mini'], '--redo'), (['--gallery', 'p.png'],
    '--gallery'), (['--out', 'a.txt'], 'ending')])
def test_what_does_not_fit_is_one_line(trip, args, says):
    r = run('trip', *args, ok=False)
    assert len(one_line(r)) == 1 and says in one_line(r)[0] and list(trip.parent.iterdir()) == [trip]

def test_text_in_another_encoding_is_not_appended_to(trip):
    (trip/'a.txt').write_bytes('schön'.encode('latin-1'))
    r = run('trip', '--sidecar', '--append', ok=False)
    assert 'a.txt: not UTF-8' in r.stderr and (trip/'a.txt').read_bytes() == b'sch\xf6n' and (trip/'b.txt').exists()

def test_captions_with_the_record_beside_them_are_read(trip):
    "As photos with text files, which programs train on"
    run('trip', '--sidecar')
    r = capdec('parse', 'trip', '--out', 'c.json', ok=True)
    assert len(json.loads((trip.parent/'c.json').read_text())) == 3 and '3 captions' in r.stdout

# ---- XMP

def test_an_xmp_that_is_there(trip):
    from test_xmp import LIGHTROOM, without_description
    (trip/'a.xmp').write_text(LIGHTROOM % '', encoding='utf-8')
    write_xmp(trip/'b.jpg.xmp', 'My own words')
    (trip/'c.xmp').write_text('damaged')
    r = run('trip', '--xmp', ok=False)
    assert 'c.xmp: XMP is damaged' in r.stderr and said(r).startswith('1 photo captioned, 1 was there already')
    assert (trip/'c.xmp').read_text() == 'damaged' and read_xmp_file(trip/'b.jpg.xmp')[0] == 'My own words'
    assert without_description((trip/'a.xmp').read_text()) == without_description(LIGHTROOM % '')
    assert read_xmp_file(trip/'a.xmp')[0].startswith('A ') and not (trip/'b.xmp').exists()
    # who wrote it is told, though nothing but the description was changed
    assert 'a.xmp\tmini@' in capdec('made-by', 'trip/a.xmp', 'trip/b.jpg.xmp', ok=True).stdout
    # your words are no caption of ours that could be another one now
    assert one_line(run('trip/b.jpg', '--xmp', '--max_words', 3)) == []
    assert '1 of 1 that we tried' in one_line(run('trip/a.jpg', 'trip/b.jpg', '--xmp', '--max_words', 3))[0]
    run('trip/b.jpg', '--xmp', '--overwrite')
    assert read_xmp_file(trip/'b.jpg.xmp')[0].startswith('A ')

def test_other_texts_beside_a_photo_do_not_move_its_xmp(trip):
    "A text with any ending, subtitles and a phone's edits bear the photo's name, and are no pictures"
    run('trip/a.jpg', '--xmp')
    for ending in ('prompt', 'srt', 'AAE'):
        (trip/f'a.{ending}').write_text('x')
    assert said(run('trip/a.jpg', '--xmp')).startswith('0 photos captioned, 1 was there')
    assert [o.name for o in trip.glob('*.xmp')] == ['a.xmp']

# ---- copies

def test_photos_that_somebody_described(trip):
    write_caption(trip/'a.jpg', trip/'mine.jpg', 'Our first coffee')
    run('trip', '--exif', 'copies')
    copies = trip.parent/'copies'
    assert read_caption(copies/'mine.jpg') == 'Our first coffee' and read_notes(copies/'mine.jpg')['caption']
    assert read_caption(copies/'a.jpg').startswith('A ')
    assert not one_line(run('trip', '--exif', 'copies'))
    run('trip', '--exif', 'copies', '--overwrite')
    assert read_caption(copies/'mine.jpg').startswith('A ')

# ---- who wrote it

def test_the_bundled_captioner_says_its_version():
    from capdec.core import package_file, read_json
    assert read_json(package_file('models', 'mini', 'captioner', 'captioner.json'))['version'].isalnum()

def test_what_an_older_captioner_wrote_is_written_again(trip, mine):
    where = ['--sidecar', '--xmp', '--exif', 'copies', '--out', 't.jsonl']
    run('trip', *where)
    told = dict(l.split('\t') for l in capdec('made-by', 'trip', 'copies', 't.jsonl', ok=True).stdout.splitlines())
    assert len(told) == 10 and len(set(o.split()[0] for o in told.values())) == 1
    label = told['t.jsonl'].split()[0]
    assert re.fullmatch(r'mini@\w+', label)
    # corrected by hand
    (trip/'a.txt').write_text('My cup.\n')
    write_xmp(trip/'b.xmp', 'My cup.')
    before = everything(trip.parent)
    # of other captioners nothing is written again, and a name that nothing has is told
    for other in ('mini@0', 'mine', 'min'):
        line, = one_line(run('trip', *where, '--redo', other))
        assert f'--redo {other}: has written nothing here; {label} wrote what is known' in line
    assert {k: v for k, v in everything(trip.parent).items() if v != before[k]} == {}
    run('trip', *where, '--redo', label, '--model', mine)
    told = dict(l.split('\t') for l in capdec('made-by', 'trip', 'copies', 't.jsonl', ok=True).stdout.splitlines())
    assert len(told) == 8 and all(o.startswith('mine@') and 'beam_size 1' in o for o in told.values())
    assert (trip/'a.txt').read_text() == 'My cup.\n' and read_xmp_file(trip/'b.xmp')[0] == 'My cup.'
    after = everything(trip.parent)
    assert run('trip', *where, '--redo', label, '--model', mine) and everything(trip.parent) == after

def test_no_path_of_yours_is_in_a_copy(trip, mine):
    "Who gets the photo learns the captioner's name, not where it lies"
    run('trip', '--exif', 'copies', '--model', mine)
    assert not [p for p in (trip.parent/'copies').iterdir() if str(mine.parent).encode() in p.read_bytes()]
    assert read_notes(trip.parent/'copies'/'a.jpg')['model'].startswith('mine@')

def test_stars_on_a_copy_stay_when_it_is_described_again(trip):
    run('trip/a.jpg', '--exif', 'copies')
    copy = trip.parent/'copies'/'a.jpg'
    raw = copy.read_bytes()
    assert b'<rdf:Description rdf:about="">' in raw
    starred = raw.replace(b'<rdf:Description rdf:about="">', b'<rdf:Description rdf:about="" s:R="5" xmlns:s="urn:s">')
    at = raw.index(b'http://ns.adobe.com/xap/1.0/') - 2
    size = int.from_bytes(raw[at:at+2], 'big') + len(starred) - len(raw)
    copy.write_bytes(starred[:at] + size.to_bytes(2, 'big') + starred[at+2:])
    run('trip/a.jpg', '--exif', 'copies', '--redo', 'mini', '--max_words', 4)
    assert b's:R="5"' in copy.read_bytes() and len(read_caption(copy).split()) <= 4

def test_what_tells_nothing(trip):
    (trip/'notes.txt').write_text('mine')
    r = capdec('made-by', 'trip/a.jpg', 'trip/notes.txt', ok=True)
    assert r.stdout == 'trip/a.jpg\tnothing tells\ntrip/notes.txt\tnothing tells\n'
    assert 'gone.txt' in one_line(capdec('made-by', 'gone.txt', ok=False))[0]
    r = capdec('made-by', 'trip', ok=True)
    assert r.stdout == '' and one_line(r) == ['capdec: trip: nothing there tells which captioner wrote it']

@pytest.mark.parametrize('line', ['[]', '{"file": "a.txt", "text": "A cup.\\n", "model": 5}', 'x', '{"file": 5}',
    '\xff'])
def test_a_record_that_somebody_has_damaged(trip, line):
    (trip/'a.txt').write_text('A cup.\n')
    (trip/'.capdec.jsonl').write_bytes(line.encode('latin-1') + b'\n')
    r = capdec('made-by', 'trip/a.txt')
    assert 'Traceback' not in r.stderr and (r.returncode == 0 or '.capdec.jsonl' in one_line(r)[0])
    run('trip', '--sidecar')

# ---- a page

def test_a_gallery(trip):
    (trip/'bad.jpg').write_text('no photo')
    (trip/'day 2').mkdir()
    (trip/'a.jpg').rename(trip/'day 2'/'<b>.jpg')
    r = run('trip', '--gallery', 'p.html', '--out', 't.csv', ok=False)
    page = (trip.parent/'p.html').read_text()
    assert said(r).endswith('t.csv and p.html') and page.count('<figure') == 4 and '&lt;b&gt;.jpg' in page
    assert 'not an image' in page and 'href="./trip/day%202/%3Cb%3E.jpg"' in page
    # the same page when all of it was there before
    (trip/'bad.jpg').unlink()
    (trip.parent/'p.html').unlink()
    run('trip', '--gallery', 'p.html', '--out', 't.csv')
    again = (trip.parent/'p.html').read_text()
    captions = re.compile(r'<p class="caption">(.*?)</p>')
    assert captions.findall(again) == captions.findall(page) and again.count('<figure') == 3
    for where in (['--sidecar'], ['--xmp'], ['--exif', 'copies']):
        for _ in range(2):
            run('trip', '--gallery', 'q.html', *where)
            found = captions.findall((trip.parent/'q.html').read_text())
            assert sorted(found) == sorted(captions.findall(page))
    (trip.parent/'mine.html').write_text('<p>mine')
    assert 'is no gallery' in one_line(run('trip', '--gallery', 'mine.html', ok=False))[0]
    assert (trip.parent/'mine.html').read_text() == '<p>mine'
