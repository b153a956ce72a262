"`capdec caption`: sidecars, copies with EXIF, styles, addresses, and files that are not what they seem."
import json
import re

import pytest
from PIL import Image
from skimage import data as photos

from files import photo
from shell import FAST, capdec, one_line, said # the command in this process

@pytest.fixture
def trip(tmp_path):
    "A folder with a folder in it"
    d = tmp_path/'trip'
    photo(d/'a.jpg')
    photo(d/'a.png')
    photo(d/'day 2'/'b.jpg', 90)
    return d

pytestmark = pytest.mark.usefixtures('one_encoder')

# ---- beside the photos

def test_sidecars_do_not_clash_across_runs(trip):
    # a.png is not named, but it is there
    capdec('caption', trip/'a.jpg', '--sidecar', *FAST, ok=True)
    capdec('caption', trip/'a.png', '--sidecar', *FAST, ok=True)
    assert {o.name for o in trip.iterdir()} == {'a.jpg', 'a.png', 'day 2', 'a.jpg.txt', 'a.png.txt', '.capdec.jsonl'}

def test_a_note_of_the_users_own_is_not_replaced(trip):
    (trip/'day 2'/'b.txt').write_text('my notes of the day')
    r = capdec('caption', trip, '--sidecar', *FAST, ok=True)
    assert said(r) == '2 photos captioned, 1 was there already (--overwrite does it again): beside the photos'
    assert (trip/'day 2'/'b.txt').read_text() == 'my notes of the day'
    r = capdec('caption', trip, '--sidecar', '--overwrite', *FAST, ok=True)
    assert said(r).startswith('3 photos captioned') and 'notes' not in (trip/'day 2'/'b.txt').read_text()

def test_an_interrupted_sidecar_run_goes_on(trip, monkeypatch):
    import capdec.captioner as c
    real, seen = c.Captioner.caption_files, []
    def once(self, paths, *args, **kw):
        for r in real(self, paths, *args, **kw):
            seen.append(r.path.name)
            yield r
            if len(seen) == 2:
                raise KeyboardInterrupt
    monkeypatch.setattr(c.Captioner, 'caption_files', once)
    r = capdec('caption', trip, '--sidecar', *FAST, '--batch_size', 1)
    assert r.returncode == 130 and 'run the same command again' in r.stderr
    capdec('caption', trip, '--sidecar', *FAST, '--batch_size', 1, ok=True)
    # each once
    assert sorted(seen) == ['a.jpg', 'a.png', 'b.jpg']

# ---- copies

def test_exif_copies(trip, tmp_path):
    from capdec.exif import read_caption
    Image.new('RGB', (50, 50)).save(trip/'c.gif')
    Image.new('RGB', (50, 50)).save(trip/'d.webp')
    (trip/'day 2'/'text.jpg').write_text('no photo')
    before = {p: p.read_bytes() for p in trip.rglob('*.*')}
    r = capdec('caption', trip, '--exif', tmp_path/'out', '--out', tmp_path/'c.json', *FAST)
    at = tmp_path/'c.json'
    assert r.returncode == 1 and one_line(r) == [f'capdec: no copy: {trip/"c.gif"}: captions can be written into JPEG, '
        f'PNG and WebP files only; its caption is in {at}', f'capdec: skipped: {trip/"day 2"/"text.jpg"}: not an image '
        f'that can be read']
    assert said(r) == f'5 photos captioned, 1 of them not in every place, 1 failed: {at} and {tmp_path/"out"}'
    assert {p: p.read_bytes() for p in trip.rglob('*.*')} == before
    rows = {o['file'].split('trip/')[1]: o for o in json.loads((tmp_path/'c.json').read_text())}
    copies = {str(p.relative_to(tmp_path/'out')): read_caption(p) for p in (tmp_path/'out').rglob('*.*')}
    assert copies == {k: rows[k]['caption'] for k in ('a.jpg', 'a.png', 'd.webp', 'day 2/b.jpg')} and rows['c.gif'][
        'caption'] and rows['c.gif']['error']
    # what failed is tried again, the copies are left alone
    r = capdec('caption', trip, '--exif', tmp_path/'out', *FAST)
    # nothing is left of the caption without a table
    assert said(
        r) == f'0 photos captioned, 4 were there already (--overwrite does them again), 2 failed: {tmp_path/"out"}'
    assert len(one_line(r)) == 2
    r = capdec('caption', trip/'c.gif', '--exif', tmp_path/'out', '--sidecar', *FAST)
    assert r.returncode == 1 and one_line(r)[0].endswith('its caption is in the .txt beside '
        'it') and said(r).startswith('1 photo captioned, 1 of them not in every place: ') and (trip/'c.txt').exists()

def test_says_every_place(trip, tmp_path):
    r = capdec('caption', trip/'a.jpg', '--exif', tmp_path/'out', '--sidecar', '--out', tmp_path/'c.json', *FAST,
        ok=True)
    assert said(r) == f'1 photo captioned: {tmp_path/"c.json"} and {tmp_path/"out"} and beside the photos'
    assert (tmp_path/'c.json').read_text().endswith(']\n')

def test_copies_of_one_name_keep_their_folders(trip, tmp_path):
    (trip/'day 2'/'a.jpg').write_bytes((trip/'a.jpg').read_bytes())
    capdec('caption', trip/'a.jpg', trip/'day 2'/'a.jpg', trip/'day 2'/'..'/'a.jpg', '--exif', tmp_path/'o', *FAST,
        ok=True)
    assert sorted(str(p.relative_to(tmp_path/'o')) for p in (tmp_path/'o').rglob('*.*')) == ['a.jpg', 'day 2/a.jpg']

def test_photos_in_the_folder_for_copies_are_told(trip):
    r = capdec('caption', trip, '--exif', trip/'day 2', *FAST, ok=True)
    assert '1 photos in this folder, such as b.jpg, are left out' in one_line(r)[0] and said(r).startswith('2 photos '
        'captioned')

def test_exif_folder_within_the_album(trip):
    for _ in range(2):
        capdec('caption', trip, '--exif', trip/'captioned', *FAST, ok=True)
    assert sorted(str(p.relative_to(trip)) for p in trip.rglob('*.*')) == ['a.jpg', 'a.png', 'captioned/a.jpg',
        'captioned/a.png', 'captioned/day 2/b.jpg', 'day 2/b.jpg']

@pytest.mark.parametrize('args,says', [
    (['{d}', '--exif', '{d}'], 'where the photos are'), (['{d}/a.jpg', '--exif', '{d}'], 'where the photos are'),
    (['http://localhost/a.jpg', '--sidecar'], 'no folder beside'), (['http://localhost/a.jpg', '--exif', '{d}/o'],
    'copies are made of files'),
    (['{d}', '--max_words', '2', '--min_words', '3'], 'min_words 3'), (['{d}', '--temperature', '0'], 'temperature 0'),
    (['{d}', '--method', 'guess'], "method 'guess'"), (['{d}', '--dtype', 'int8'], 'int8')])
def test_what_cannot_be_is_one_line(trip, args, says):
    r = capdec('caption', *[a.format(d=trip) for a in args], '--device', 'cpu')
    assert r.returncode == 1 and len(one_line(r)) == 1 and says in one_line(r)[0], r.stderr

# ---- tables

@pytest.mark.parametrize('kind,n', [('csv', 2), ('json', 2), ('jsonl', 1)])
def test_a_finished_table_is_gone_on_with(trip, tmp_path, kind, n):
    "New photos join it, those that are in it are left alone, and --overwrite begins again"
    out,args = tmp_path/f'c.{kind}', ('--num_captions', n, '--device', 'cpu', '--beam_size', n)
    bad = trip/'bad.jpg'
    bad.write_text('no photo')
    r = capdec('caption', trip, '--out', out, *args, ok=False)
    first = out.read_text()
    assert said(r) == f'3 photos captioned, 1 failed: {out}' and 'bad.jpg' in first
    bad.write_bytes((trip/'a.jpg').read_bytes())
    # what failed is tried again
    r = capdec('caption', trip, '--out', out, *args, ok=True)
    assert said(r) == f'1 photo captioned, 3 were there already (--overwrite does them again): {out}'
    whole = out.read_text()
    # photos that are not named stay
    r = capdec('caption', trip/'a.jpg', '--out', out, *args, ok=True)
    assert said(r).startswith('0 photos captioned, 1 was there') and sorted(out.read_text().split('\n')) == sorted(
        whole.split('\n'))
    r = capdec('caption', trip, '--out', out, '--overwrite', *args, ok=True)
    assert said(r) == f'4 photos captioned: {out}' and out.read_text() == whole
    # no journal, no lock; what made the table
    assert {p.name for p in tmp_path.iterdir() if p.name.startswith(('c.', '.c.'))} == {out.name, f'.{out.name}.made'}

def test_another_number_of_captions_is_another_table(trip, tmp_path):
    out = tmp_path/'c.csv'
    capdec('caption', trip/'a.jpg', '--out', out, '--num_captions', 2, '--device', 'cpu', ok=True)
    first = out.read_text()
    r = capdec('caption', trip/'a.png', '--out', out, '--device', 'cpu', ok=False)
    assert 'has 2 captions for each photo; pass --num_captions 2' in one_line(r)[0] and out.read_text() == first
    assert said(capdec('caption', trip/'a.png', '--out', out, '--overwrite', '--device', 'cpu',
        ok=True)) == f'1 photo captioned: {out}'

@pytest.mark.parametrize('name,text', [('c.csv', 'id;title\n1;x\n'), ('c.json', '{"a": 1}'), ('c.jsonl', 'hello\n'),
    ('c.csv', 'a line of notes\n'), ('c.csv', 'file,label\na.jpg,cat\n'),
    ('c.csv', 'file,caption,error,rating\na.jpg,A cat.,,5\n'),
    ('c.jsonl', '{"file": "a.jpg", "caption": "A cat.", "stars": 3}\n')])
def test_a_file_that_is_no_table_is_not_replaced(trip, tmp_path, name, text):
    (tmp_path/name).write_text(text)
    r = capdec('caption', trip/'a.jpg', '--out', tmp_path/name, *FAST, ok=False)
    assert 'is there already and is no table of captions' in one_line(r)[0] and (tmp_path/name).read_text() == text

def test_an_empty_caption_is_none(trip, tmp_path):
    (tmp_path/'c.csv').write_text(f'file,caption,error\n{trip/"a.jpg"},,\n')
    assert said(capdec('caption', trip/'a.jpg', '--out', tmp_path/'c.csv', *FAST, ok=True)).startswith('1 photo '
        'captioned')

def test_options_without_effect_are_refused(trip, tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    lone = tmp_path/'capdec'/'styles'/'lone'
    lone.mkdir(parents=True)
    (lone/'captioner.json').write_text('{}')
    for args, says in ((['--num_captions', 2, '--exif', tmp_path/'x'], 'a copy holds one caption'),
        (['--style_steps', 5], 'belongs to --style'),
        (['--seed', 3], '--seed 3: belongs to --method sample'),
        (['--seed', -1, '--method', 'sample'], '--seed -1: at least 0'),
        (['--style', 'lone', '--style_mix', 0.1], 'leave --style_mix 0.1 out'),
            (['--style', 'lone', '--model', trip], 'leave --model'),
            (['--style', 'lon*'], 'neither a captioner'),
            (['--style', 'gone.txt', '--style_steps', 5], 'neither a captioner'),
            (['--memory', trip], 'no store of captions')):
        assert says in one_line(capdec('caption', trip/'a.jpg', *args, *FAST, ok=False))[0], args

def test_the_gallery_knows_how_sure_it_was(trip, tmp_path):
    "Where it was asked; the table keeps it for the next run"
    from capdec import Captioner
    page = tmp_path/'g.html'
    sure = lambda: [float(o) for o in re.findall('data-sureness="([^"]+)"', page.read_text())]
    run = ['caption', trip/'a.jpg', '--gallery', page, '--out', tmp_path/'c.csv', '--dtype', 'float32', *FAST]
    capdec(*run, '--sureness', ok=True)
    best = Captioner.from_pretrained('mini', 'cpu', dtype='float32')([trip/'a.jpg'], sureness=True, beam_size=1)[0]
    assert sure() == [pytest.approx(best.sureness, abs=2e-3)] and 'value="sureness"' in page.read_text()
    capdec(*run, '--sureness', ok=True)
    assert sure() == [pytest.approx(best.sureness, abs=2e-3)] and best.caption in page.read_text()
    # nobody asked
    capdec('caption', trip/'a.jpg', '--gallery', page, '--out', tmp_path/'d.csv', *FAST, ok=True)
    assert sure() == []

def test_two_runs_on_one_table(trip, tmp_path):
    from capdec.core import Journal
    with Journal(tmp_path/'c.csv.part', {}):
        r = capdec('caption', trip/'a.jpg', '--out', tmp_path/'c.csv', *FAST, ok=False)
    assert len(one_line(r)) == 1 and 'c.csv.part: another process is writing it' in r.stderr

def test_a_sampled_table_can_be_repeated(trip, tmp_path, monkeypatch):
    "With a seed the captions are the same in one run or in several; an interrupted run goes on with its own seed alone"
    from capdec.captioner import Captioner
    table = lambda name, seed, *more, ok=True, photos=trip: capdec('caption', photos, '--method', 'sample', '--device',
        'cpu', '--out', tmp_path/name, '--seed', seed, *more, ok=ok)
    rows = lambda name: sorted((tmp_path/name).read_text().split('\n'))
    table('a.csv', 3)
    table('b.csv', 3, '--batch_size', 1, photos=trip/'day 2')
    table('b.csv', 3)
    with monkeypatch.context() as m:
        real = Captioner.caption_files
        def stop(*args, **kw):
            yield next(real(*args, **kw))
            raise KeyboardInterrupt
        m.setattr(Captioner, 'caption_files', stop)
        assert table('c.csv', 3, ok=False).returncode == 130
    assert 'was begun with other settings' in one_line(table('c.csv', 4, ok=False))[0]
    table('c.csv', 3)
    assert rows('a.csv') == rows('b.csv') == rows('c.csv')

@pytest.mark.parametrize('kind', ['csv', 'json', 'jsonl'])
def test_names_that_are_not_utf8(trip, tmp_path, kind):
    import csv, os
    f = os.fsencode(trip)+b'/caf\xe9.jpg'
    with open(f, 'wb') as o:
        o.write((trip/'a.jpg').read_bytes())
    for _ in range(2):
        r = capdec('caption', os.fsdecode(f), '--out', tmp_path/f'c.{kind}', *FAST, ok=True)
        # any program can read it
        text = (tmp_path/f'c.{kind}').read_text(encoding='utf-8')
    assert '1 was there' in said(r)
    if kind == 'csv':
        assert list(csv.DictReader(text.splitlines()))[0]['file'].endswith('caf\\udce9.jpg')
    else:
        assert os.fsencode(json.loads(text)[0]['file'] if kind == 'json' else json.loads(text)['file']) == f

def test_sources_without_photos_are_failures(trip, tmp_path):
    (tmp_path/'empty').mkdir()
    r = capdec('caption', tmp_path/'empty', trip/'a.jpg', trip/'*.gif', *FAST)
    assert r.returncode == 1 and len(r.stdout.splitlines()) == 1 and [('no images' in l, 'no file matches' in l)
        for l in one_line(r)] == [(True, False), (False, True)]

# ---- wording

def test_words_and_prompt(trip):
    r = capdec('caption', trip/'a.jpg', '--max_words', 6, '--prompt', 'A photo of', '--num_captions', 2, '--device',
        'cpu', ok=True)
    texts = [l.split('\t')[1] for l in r.stdout.splitlines()]
    assert len(set(texts)) == 2 and all(t.startswith('A photo of') and len(t.split()) <= 6 for t in texts)
    r = capdec('caption', trip/'a.jpg', '--method', 'sample', '--temperature', 1.5, '--num_captions', 3, '--min_words',
        12, '--device', 'cpu', ok=True)
    assert len(r.stdout.splitlines()) == 3 and all(len(l.split('\t')[1].split()) >= 12 for l in r.stdout.splitlines())

def test_style(trip, tmp_path, monkeypatch):
    made = []
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path/'cache'))
    monkeypatch.setattr('capdec.restyle.restyle', lambda captioner, text, folder, steps, mix: made.append((text.name,
        steps, mix)) or captioner.save(folder))
    poems = tmp_path/'my poems.txt'
    poems.write_text('Lo, the hound doth run.\n')
    r = capdec('caption', trip, '--style', poems, '--out', tmp_path/'a.csv', *FAST, ok=True)
    assert 'restyling mini on' in r.stderr and made == [('my poems.txt', 400, 0.)] and 'kept in' in r.stderr
    assert re.search(r'capdec: 0 of \d captions sound like my poems, to a classifier of its sentences\n', r.stderr)
    # kept
    capdec('caption', trip, '--style', poems, '--out', tmp_path/'b.csv', *FAST, ok=True)
    # by its name
    capdec('caption', trip, '--style', 'my poems', '--out', tmp_path/'c.csv', *FAST, ok=True)
    folder, = (tmp_path/'cache'/'capdec'/'styles').iterdir()
    capdec('caption', trip, '--style', folder, '--out', tmp_path/'d.csv', *FAST, ok=True)
    assert len(made) == 1 and len({(tmp_path/f'{o}.csv').read_text() for o in 'abcd'}) == 1
    poems.write_text('Ahoy!\n')
    capdec('caption', trip, '--style', poems, *FAST, ok=True)
    # another text, another captioner, in the place of the old one
    assert len(made) == 2
    capdec('caption', trip, '--style', poems, '--style_steps', 500, '--style_mix', .5, *FAST, ok=True)
    # another setting is another captioner, too, under a name of its own
    assert made[2] == ('my poems.txt', 500, .5)
    assert sorted(o.name for o in folder.parent.iterdir()) == ['my poems', 'my poems-steps-500-mix-0.5']
    for args, says in ((['--style', folder, '--model', folder], 'is a captioner itself'),
            (['--style', 'limericks'], 'neither a captioner')):
        assert says in one_line(capdec('caption', trip, *args, *FAST, ok=False))[0]

def test_every_run_tells_how_many_took_the_style(trip, tmp_path, monkeypatch):
    "Shards and the scenes of videos as well as photos; captions that were there are not counted"
    import io
    import tarfile
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path/'cache'))
    monkeypatch.setattr('capdec.restyle.restyle', lambda captioner, text, folder, steps, mix: captioner.save(folder))
    poems = tmp_path/'poems.txt'
    poems.write_text('Lo, the hound doth run.\n')
    for name, members in (('one', ('a.jpg', 'a.jpg')), ('two', ('a.jpg',))):
        with tarfile.open(tmp_path/f'{name}.tar', 'w') as t:
            for i, o in enumerate(members):
                t.add(trip/o, f'{i}.jpg')
            info = tarfile.TarInfo('bad.jpg')
            info.size = 3
            t.addfile(info, io.BytesIO(b'bad'))
    shards = ('caption', *(tmp_path/f'{o}.tar' for o in ('one', 'two')), '--out', tmp_path/'c.jsonl', '--style', poems)
    told = lambda r: [o for o in r.stderr.splitlines() if 'like poems' in o]
    assert told(capdec(*shards, *FAST, ok=False)) == ['capdec: 0 of 3 captions sound like poems, to a classifier of '
        'its sentences']
    assert told(capdec(*shards, *FAST, ok=True)) == []
    av = pytest.importorskip('av')
    with av.open(str(tmp_path/'clip.mp4'), 'w') as out:
        stream = out.add_stream('mpeg4', rate=5)
        stream.width, stream.height, stream.pix_fmt = 320, 240, 'yuv420p'
        for name in ('chelsea', 'rocket'):
            im = Image.fromarray(getattr(photos, name)()).convert('RGB').resize((320, 240))
            for _ in range(10):
                out.mux(stream.encode(av.VideoFrame.from_image(im)))
        out.mux(stream.encode())
    for out in (['--out', tmp_path/'clip.srt'], ['--scenes'], ['--scenes', '--json']):
        r = capdec('caption', tmp_path/'clip.mp4', '--style', poems, *out, *FAST, ok=True)
        assert told(r) == ['capdec: 0 of 2 captions sound like poems, to a classifier of its sentences']
    r = capdec('caption', tmp_path/'clip.mp4', '--style', poems, '--out', tmp_path/'clip.srt', *FAST, ok=True)
    assert told(r) == []

def test_empty_style(trip, tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path/'cache'))
    (tmp_path/'empty.txt').write_text('\n \n')
    r = capdec('caption', trip, '--style', tmp_path/'empty.txt', *FAST, ok=False)
    assert len([l for l in one_line(r) if 'error' in l]) == 1 and 'empty.txt' in r.stderr and 'kept in' not in r.stderr

# ---- checkpoints

def test_damaged_official_checkpoint(trip, tmp_path):
    import torch
    f = tmp_path/'coco-007.pt'
    torch.save({f'gpt.transformer.h.{i}.attn.c_attn.weight': torch.zeros(64, 192) for i in range(4)}, f)
    f.write_bytes(f.read_bytes()[:f.stat().st_size//2])
    r = capdec('caption', trip, '--model', f, '--clip_model_type', 'mini', *FAST, ok=False)
    assert len(one_line(r)) == 1 and 'coco-007.pt' in r.stderr

def test_store_of_other_dimensions(tmp_path):
    import torch
    from capdec.store import EmbeddingStore
    with EmbeddingStore.create(tmp_path/'s', 640, dict(kind='image'), ('image_id', 'filename'), 'float16') as s:
        s.append([dict(image_id=1, filename='a.jpg')], torch.randn(1, 640))
        s.finish({})
    r = capdec('predict', '--embeddings', tmp_path/'s', '--out', tmp_path/'p.json', '--device', 'cpu', ok=False)
    assert len(one_line(r)) == 1 and '640' in r.stderr and '512' in r.stderr

# ---- a reader that goes away

def test_broken_pipe(tmp_path):
    import subprocess, sys
    for args in (['--help'], ['caption', '--help']):
        child = subprocess.Popen([sys.executable, '-c', 'import sys; from capdec.cli import main; sys.exit(main())',
            *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        child.stdout.close()
        err = child.stderr.read()
        child.stderr.close()
        assert child.wait(60) in (0, 141) and not err, err
