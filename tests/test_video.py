"Videos: one caption for a clip, one for each scene, subtitles; made of photos that packages ship."
import json
import re
import sys

import pytest
from PIL import Image
from skimage import data as photos

from shell import capdec,caption as run,one_line

av = pytest.importorskip('av')
pytestmark = pytest.mark.usefixtures('one_encoder')

def clip(path, pictures, seconds=2, rate=5, size=(320, 240)):
    "A clip that shows each picture for some seconds"
    with av.open(str(path), 'w') as out:
        stream = out.add_stream('mpeg4', rate=rate)
        stream.width, stream.height = size
        stream.pix_fmt = 'yuv420p'
        for p in pictures:
            im = Image.fromarray(p).convert('RGB').resize(size)
            for _ in range(seconds*rate):
                out.mux(stream.encode(av.VideoFrame.from_image(im)))
        out.mux(stream.encode())
    return path

@pytest.fixture
def trip(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    clip('cat.mp4', [photos.chelsea()])
    clip('two.mov', [photos.chelsea(), photos.rocket()])
    return tmp_path

def test_a_clip_has_one_caption(trip):
    r = run('cat.mp4')
    name, text = r.stdout.strip().split('\t')
    assert name == 'cat.mp4' and 'cat' in text.lower()
    rows = [json.loads(l) for l in run('*.mp4', '*.mov', '--json').stdout.splitlines()]
    assert [o['file'] for o in rows] == ['cat.mp4', 'two.mov'] and rows[0]['caption'] == text

def test_clips_and_photos_in_one_album(trip):
    "Tables, files beside them and the page take both; a table is gone on with"
    Image.fromarray(photos.coffee()).save('cup.jpg')
    (trip/'bad.mp4').write_text('no video')
    names = ['cup.jpg', 'cat.mp4', 'bad.mp4']
    for n, there in ((2, 0), (0, 2)):
        r = run(*names, '--out', 't.jsonl', '--sidecar', '--xmp', '--gallery', 'p.html', ok=False)
        assert 'bad.mp4: not a video that can be read' in one_line(r)[0]
        assert r.stdout.startswith(f'{n} files captioned') and ('2 were there' in r.stdout) == bool(there)
    rows = {o['file']: o for o in map(json.loads, (trip/'t.jsonl').read_text().splitlines())}
    assert (trip/'cat.txt').read_text() == rows['cat.mp4']['caption'] + '\n' and (trip/'cat.xmp').exists()
    assert (trip/'p.html').read_text().count('<img') == 2
    r = run('cat.mp4', '--exif', 'copies', ok=False)
    assert 'JPEG, PNG and WebP' in r.stderr

@pytest.mark.parametrize('kind', ['srt', 'vtt'])
def test_subtitles(trip, kind):
    r = run('two.mov', '--out', f'two.{kind}', '--interval', .5)
    assert r.stdout.strip() == f'1 video captioned: two.{kind}'
    text = (trip/f'two.{kind}').read_text()
    point = ',' if kind == 'srt' else '.'
    assert text.startswith('WEBVTT') == (kind == 'vtt')
    assert f'00:00:00{point}000 --> 00:00:02{point}000\n' in text and text.count('-->') == 2
    assert '1 was there already' in run('two.mov', '--out', f'two.{kind}').stdout
    run('*.mp4', '*.mov', '--sidecar', '--sidecar_ext', kind)
    assert (trip/f'cat.{kind}').read_text().count('-->') == 1 and (trip/f'two.{kind}').read_text() == text

def test_subtitles_tell_who_wrote_them(trip):
    "And are written again by that name; what this run would write in the same way stays"
    made_by = lambda: capdec('made-by', 'two.vtt', 'two.srt', ok=True).stdout.splitlines()
    for kind in ('vtt', 'srt'):
        run('two.mov', '--out', f'two.{kind}')
    assert all(re.fullmatch(r'two\.(vtt|srt)\tmini@\w+ with .*interval 1.0.*', o) for o in made_by())
    before = (trip/'two.srt').read_text()
    r = run('two.mov', '--out', 'two.srt', '--redo', 'mini')
    assert 'would write in the same way, and that stay: 1' in one_line(r)[0] and '1 was there already' in r.stdout
    r = run('two.mov', '--out', 'two.srt', '--redo', 'mimi', '--max_words', 3)
    assert re.search(r'--redo mimi: has written nothing here; mini@\w+ wrote what', one_line(r)[0])
    assert (trip/'two.srt').read_text() == before
    assert run('two.mov', '--out', 'two.srt', '--redo', 'mini', '--max_words', 3).stdout.startswith('1 video captioned')
    assert 'max_words 3' in made_by()[1] and (trip/'two.srt').read_text() != before
    # corrected by hand: yours
    (trip/'two.srt').write_text(before.replace('A ', 'My '))
    assert '1 was there already' in run('two.mov', '--out', 'two.srt', '--redo', 'mini').stdout
    assert made_by()[1] == 'two.srt\tnothing tells'

def test_a_plan_and_a_limit_for_scenes(trip):
    args = ('cat.mp4', 'two.mov', '--sidecar', '--sidecar_ext', 'srt')
    assert run(*args, '--limit', 1).stdout.strip() == ('1 video captioned, 1 left for the next run (--limit): beside '
        'the videos')
    assert run(*args, '--dry_run').stdout.splitlines() == ['cat.mp4: is there already', 'two.mov: goes to two.srt',
        '1 video would be captioned; nothing was written']
    assert run(*args, '--limit', 1).stdout.startswith('1 video captioned, 1 was there already')
    assert run('cat.mp4', '--scenes', '--dry_run').stdout.startswith('cat.mp4: goes to the terminal')

def test_a_folder_of_videos(trip, monkeypatch):
    "Each gets a caption, as a photo does; a photo keeps the short name of its text file"
    (trip/'day').mkdir()
    for name in ('cat.mp4', 'two.mov'):
        (trip/name).rename(trip/'day'/name)
    (trip/'day'/'music.ogg').write_text('no video')
    texts = dict(l.split('\t') for l in run('day').stdout.splitlines())
    assert list(texts) == ['day/cat.mp4', 'day/two.mov'] and 'cat' in texts['day/cat.mp4'].lower()
    assert len(run('day/*.m*').stdout.splitlines()) == 2
    Image.fromarray(photos.coffee()).save('day/cat.jpg')
    assert run('day', '--sidecar').stdout.strip() == '3 files captioned: beside the files'
    assert {o.name for o in (trip/'day').glob('*.txt')} == {'cat.txt', 'cat.mp4.txt', 'two.txt'}
    assert (trip/'day'/'cat.mp4.txt').read_text().strip() == texts['day/cat.mp4']
    # copies are for photos
    r = run('day', '--exif', 'copies')
    assert r.stdout.startswith('1 photo captioned') and 'left out: 2 videos' in r.stderr
    assert 'day/cat.jpg: is no video' in one_line(run('day', '--scenes', ok=False))[0]
    monkeypatch.setitem(sys.modules, 'av', None)
    r = run('day')
    assert len(r.stdout.splitlines()) == 1 and one_line(r)[0].endswith('; for videos: pip install av')

def test_scenes_are_printed(trip):
    lines = run('two.mov', '--scenes').stdout.splitlines()
    assert [l.split('\t')[:2] for l in lines] == [['two.mov', '0:00-0:02'], ['two.mov', '0:02-0:04']]
    rows = [json.loads(l) for l in run('two.mov', '--scenes', '--json').stdout.splitlines()]
    assert [(o['start'], o['end']) for o in rows] == [(0, 2), (2, 4)]
    # as photos have it
    assert rows[0]['caption'] == lines[0].split('\t')[2]
    rows = run('two.mov', '--scenes', '--json', '--num_captions', 2, '--beam_size', 2).stdout.splitlines()
    assert len(json.loads(rows[0])['captions']) == 2

@pytest.mark.parametrize('args,says', [(['cat.mp4', 'two.mov', '--out', 'a.srt'], 'of one video, and 2 were named'),
    (['cup.jpg', '--scenes'], 'is no video'), (['cat.mp4', '--scenes', '--out', 't.csv'], '--scenes'),
    (['cat.mp4', '--interval', '0'], 'interval 0'), (['cat.mp4', '--out', 'a.srt', '--sureness'], '--sureness'),
    (['cat.mp4', '--sureness'], '--sureness'), (['cat.mp4', '--sidecar', '--sidecar_ext', 'srt', '--prefix', 'x'],
    '--prefix'), (['cat.mp4', '--scenes', '--xmp'], '--scenes')])
def test_what_does_not_fit(trip, args, says):
    Image.fromarray(photos.coffee()).save('cup.jpg')
    r = run(*args, ok=False)
    assert len(one_line(r)) == 1 and says in one_line(r)[0]

def test_turned_and_cut_off_videos(trip):
    from capdec.video import frames
    raw = (trip/'two.mov').read_bytes()
    # the header of a .mov stands at its end, that of a transport stream is everywhere
    (trip/'half.mov').write_bytes(raw[:len(raw)//2])
    with pytest.raises(ValueError, match='half.mov: not a video that can be read'):
        list(frames('half.mov'))
    clip('two.ts', [photos.chelsea(), photos.rocket()])
    whole = (trip/'two.ts').read_bytes()
    (trip/'half.ts').write_bytes(whole[:len(whole)//2])
    n = len(list(frames('half.ts', .5)))
    assert 0 < n < len(list(frames('two.ts', .5)))

@pytest.mark.parametrize('text', ['#EXTM3U\n#EXTINF:1,\nhttp://localhost:1/a.ts\n#EXT-X-ENDLIST\n',
    'ffconcat version 1.0\nfile cat.mp4\n'])
def test_lists_of_other_files_are_not_read(trip, text):
    "A file that is called a video could have others read, or ask the network"
    (trip/'list.mp4').write_text(text)
    assert 'not a video that can be read' in one_line(run('list.mp4', ok=False))[0]

def test_without_pyav(trip, monkeypatch):
    monkeypatch.setitem(sys.modules, 'av', None)
    assert "capdec's extra [video]" in one_line(run('cat.mp4', ok=False))[0]

@pytest.mark.parametrize('where', [(), ('--scenes',), ('--out', 't.csv')])
def test_another_encoder_does_not_judge_videos(trip, monkeypatch, other_encoder, where):
    "It is told once, before a frame is decoded and before the judge is loaded"
    monkeypatch.setattr('capdec.video.frames', None)
    monkeypatch.setattr('capdec.candidates.load_encoder', None)
    r = run('cat.mp4', 'two.mov', *where, '--choose', 'cosine', '--judge', 'mini', '--clip_model_type', other_encoder,
        ok=False)
    line, = one_line(r)
    assert line.startswith('capdec: error: --judge mini@2: looks at photos, and a video is captioned by the mean of')
    assert not (trip/'t.csv').exists()

def test_the_own_encoder_judges_videos(trip, other_encoder):
    "By its name it is no other; photos alone have any judge"
    assert run('cat.mp4', '--choose', 'cosine', '--judge', 'mini').stdout == run('cat.mp4', '--choose', 'cosine').stdout
    Image.fromarray(photos.coffee()).save('cup.jpg')
    run('cup.jpg', '--choose', 'cosine', '--judge', 'mini', '--clip_model_type', other_encoder)

def test_python_refuses_before_it_decodes(trip, monkeypatch, other_encoder):
    from capdec.captioner import Captioner
    from capdec.config import Candidates
    from capdec.video import WithVideos, caption_clip, caption_scenes, write_scenes
    monkeypatch.setattr('capdec.video.frames', None)
    c = Captioner.from_pretrained('mini', 'cpu', clip_model_type=str(other_encoder))
    c.pool = Candidates('cosine', judge='mini')
    for f in (lambda: caption_clip(c, 'cat.mp4'), lambda: caption_scenes(c, 'cat.mp4'), lambda: WithVideos(c),
            lambda: write_scenes(c, ['cat.mp4'], {})):
        with pytest.raises(ValueError, match='`judge` mini@2: looks at photos, and a video'):
            f()
