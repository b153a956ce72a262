"What reaches a terminal is text, and a run that is ended from outside ends as with Ctrl-C"
import os
import pty
import signal
import subprocess
import sys

import pytest
from PIL import Image

from shell import capdec, forked

ENV = dict(os.environ, CUDA_VISIBLE_DEVICES='', OMP_NUM_THREADS='1')
# clears the screen; sets the title; the same in eight bits; turns the text around; a line of its own
ODD = 'a\x1b[2J\x1b]0;owned\x07\x9b2J\u202eb\ncapdec: all is well'
CAPDEC = [sys.executable, '-c', 'import sys; from capdec.cli import main; sys.exit(main())']
# sends itself a signal when the n-th file gets its name, or the n-th record is noted
SIGNALLED = """
import os, sys
from capdec import core
from capdec.cli import main
number, left = int(sys.argv[1]), [int(sys.argv[2])]
def count(real):
    def f(*args):
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), number)
        return real(*args)
    return f
os.replace, core.Journal.add = count(os.replace), count(core.Journal.add)
sys.exit(main(sys.argv[3:]))
"""

def heard():
    "Signals that are ignored where the tests run in the background, or under nohup"
    for o in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(o, signal.SIG_DFL)

@pytest.fixture(scope='module')
def odd(tmp_path_factory):
    "A photo and a broken one, whose names hold what a terminal obeys"
    d = tmp_path_factory.mktemp('odd')/'in'
    d.mkdir()
    Image.new('RGB', (40, 30), 'navy').save(d/f'{ODD}.jpg')
    (d/f'{ODD}.png').write_text('no photo')
    return d

def plain(r):
    "Everything printed is text, and no name makes a line of its own"
    for text in (r.stdout, r.stderr):
        assert not (set(text) - {'\n', '\t', '\r'}) & set(map(chr, [*range(32), *range(127, 160), 0x202e])), text
        assert 'capdec: all is well' not in text.splitlines()
    return r

@pytest.mark.parametrize('args', [('caption', '{d}'), ('caption', '{d}', '--out', '{o}/t.csv'),
    ('caption', '{d}', '--sidecar', '--overwrite'), ('caption', '{d}', '--exif', '{o}/{n}'),
    ('predict', '--images', '{d}', '--out', '{o}/p.json'), ('embed', '--images', '{d}', '--clip_model_type', 'mini',
    '--out', '{o}/{n}.store')], ids=lambda o: ' '.join(o)[:20])
def test_names_of_photos(odd, tmp_path, args):
    r = plain(capdec(*[o.format(d=odd, o=tmp_path, n=ODD) for o in args], '--device', 'cpu', ok=False))
    assert r'a\x1b[2J\x1b]0;owned\x07\x9b2J\u202eb' in r.stderr and 'not an image' in r.stderr

@pytest.mark.parametrize('args', [('parse', '{n}'), ('caption', '{n}'), ('embed', '--data', '{n}'), ('noise', '{n}'),
    ('predict', '--data', '{n}'), ('train', '--data', '{n}'), ('evaluate', '{n}'), ('convert', '{n}', 'out'), ('{n}',),
    ('parse', '--{n}', 'x'), ('caption', 'x', '--method', '{n}'), ('caption', 'x', '--num_captions', '{n}'),
    ('data', '{n}'), ('demo', '{n}', '--quick'), ('offset', '{n}'), ('open-text', '{n}')], ids=lambda o: ' '.join(o))
def test_whatever_was_typed(tmp_path, args):
    r = plain(capdec(*[o.format(n=ODD) for o in args], cwd=tmp_path, ok=False))
    assert r.stderr

def test_names_within_files(tmp_path):
    import json
    (tmp_path/'c.json').write_text(json.dumps([dict(image_id=1, caption='A dog.', id=1), dict(image_id=2, caption=ODD,
        id=2), dict(image_id=ODD, caption='  ', id=3)]))
    plain(capdec('parse', tmp_path/'c.json', '--out', tmp_path/f'{ODD}.json', ok=True))
    (tmp_path/'p.json').write_text(json.dumps([dict(image_id=ODD, caption='a dog')]))
    plain(capdec('evaluate', tmp_path/'p.json', '--references', tmp_path/'c.json', '--metrics', ODD, ok=False))
    plain(capdec('predict', '--data', tmp_path/'c.json', '--image_dir', tmp_path, '--out', tmp_path/'o.json', ok=False))

def test_words_of_a_captioner(odd, monkeypatch):
    from capdec.captioner import Captioner, Result
    monkeypatch.setattr(Captioner, 'caption_files', lambda self, paths, **k: (Result(p, [ODD], None) for p in paths))
    r = plain(capdec('caption', odd/f'{ODD}.jpg', '--device', 'cpu'))
    assert r.stdout.count('\n') == 1

@pytest.mark.parametrize('verb,at,number', [('embed', 2, signal.SIGTERM), ('train', 6, signal.SIGTERM),
    ('predict', 4, signal.SIGHUP), ('caption', 2, signal.SIGTERM), ('caption', 2, signal.SIGINT),
    ('parse', 1, signal.SIGHUP)])
def test_ended_in_order(tmp_path, verb, at, number):
    "One line, an exit code that says which signal, nothing half written, and the same command goes on"
    for i in range(4):
        Image.new('RGB', (40, 30), (40*i, 9, 9)).save(tmp_path/f'{i}.jpg')
    (tmp_path/'some.txt').write_text('\n'.join(f'A dog {i}.' for i in range(20)))
    how = dict(embed=['embed', '--data', 'some.txt', '--clip_model_type', 'mini', '--out', 'out/s.store'],
        train=['train', '--data', 'some.txt', '--clip_model_type', 'mini', '--lm', 'mini', '--mapping_type', 'mlp',
        '--prefix_length', '2', '--epochs', '2', '--warmup_steps', '1', '--out_dir', 'out'],
        predict=['predict', '--images', '.', '--out', 'out/p.json', '--batch_size', '1'],
        caption=['caption', '.', '--out', 'out/t.csv', '--batch_size', '1'],
        parse=['parse', 'some.txt', '--out', 'out/c.json'])[verb]
    how += ['--device', 'cpu']*(verb != 'parse')
    r = forked(SIGNALLED, int(number), at, *how, cwd=tmp_path, env=ENV)
    assert r.returncode == 128 + number, r.stderr
    said = [o for o in r.stderr.splitlines() if 'capdec' in o]
    goes_on = verb != 'parse'
    assert said[-1] == 'capdec: stopped' + '; run the same command again to continue'*goes_on and not r.stdout
    assert 'Traceback' not in r.stderr
    assert not [o for o in tmp_path.rglob('.*')]
    assert not (tmp_path/'out'/'c.json').exists()
    capdec(*how, cwd=tmp_path, ok=True)

def test_nohup(tmp_path):
    "What is ignored when we begin stays ignored"
    Image.new('RGB', (40, 30)).save(tmp_path/'a.jpg')
    r = subprocess.run(['nohup', sys.executable, '-c', SIGNALLED, str(int(signal.SIGHUP)), '1', 'caption', 'a.jpg',
        '--out', 't.csv', '--device', 'cpu'], cwd=tmp_path, env=ENV, capture_output=True, text=True, timeout=600)
    assert r.returncode == 0 and '1 photo captioned' in r.stdout and (tmp_path/'t.csv').exists()

def test_the_window_is_closed(tmp_path):
    "The terminal goes away with the signal: nothing can be told, and all is kept"
    for i in range(3):
        Image.new('RGB', (40, 30), (40*i, 9, 9)).save(tmp_path/f'{i}.jpg')
    # says on a pipe that the first photo is noted, then waits for the signal; one that comes just before a wait of any
    # length would be noticed after it
    code = """
import os, sys, time
from capdec import core
from capdec.cli import main
add = core.Journal.add
def add_and_wait(self, records):
    add(self, records)
    os.write(int(sys.argv[1]), b'noted')
    while True:
        time.sleep(.05)
core.Journal.add = add_and_wait
sys.exit(main(sys.argv[2:]))
"""
    told, tell = os.pipe()
    os.set_inheritable(tell, True)
    pid, window = pty.fork()
    if not pid:
        os.chdir(tmp_path)
        heard()
        os.execve(sys.executable, [sys.executable, '-c', code, str(tell), 'caption', '.', '--out', 't.csv', '--device',
            'cpu', '--batch_size', '1'], ENV)
    os.close(tell)
    assert os.read(told, 5) == b'noted'
    os.close(told)
    os.close(window)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 128 + signal.SIGHUP
    assert sorted(o for o in os.listdir(tmp_path) if not o.endswith('.jpg')) == ['t.csv.part']
    r = capdec('caption', '.', '--out', 't.csv', '--device', 'cpu', '--batch_size', '1', cwd=tmp_path, ok=True)
    assert '3 photos captioned' in r.stdout

SAYS = {'>/dev/full': 'capdec: error: the output: No space left on device',
    '>&-': 'capdec: error: the output: is closed', '>&- 2>&-': '', '<&-': '', '<&- >&- 2>&-': ''}

@pytest.mark.parametrize('args,how', [*(('--version', o) for o in SAYS), ('caption a.jpg --device cpu', '>&-'),
    ('caption a.jpg --device cpu --out t.csv', '>/dev/full'),
    ('caption a.jpg --device cpu --out t.csv', '<&- >&- 2>&-')])
def test_closed_and_full_outputs(tmp_path, args, how):
    "An error like a full disk; what was written to files is complete, and nothing else lands in them"
    Image.new('RGB', (40, 30)).save(tmp_path/'a.jpg')
    r = subprocess.run(['sh', '-c', f'exec "$0" -c "$1" {args} {how}', sys.executable, CAPDEC[2]], cwd=tmp_path,
        env=ENV, capture_output=True, text=True, timeout=600)
    assert r.returncode == (0 if how == '<&-' else 1), r.stderr
    assert r.stderr.strip() == SAYS[how]
    if '--out' in args:
        lines = (tmp_path/'t.csv').read_text().splitlines()
        assert len(lines) == 2 and lines[0] == 'file,caption,error' and lines[1].startswith('a.jpg,')
    # what made the table stands beside it
    assert {o.name for o in tmp_path.glob('.*')} <= {'.t.csv.made'} and not list(tmp_path.glob('*.part'))

def test_help_that_nobody_can_read():
    r = subprocess.run(['sh', '-c', 'exec "$0" -c "$1" noise --help >&-', sys.executable, CAPDEC[2]], env=ENV,
        capture_output=True, text=True, timeout=600)
    assert (r.returncode, r.stderr) == (1, 'capdec: error: the output: is closed\n')

@pytest.mark.parametrize('how', ['|', '2>&1 |'])
def test_a_reader_that_goes_away(tmp_path, how):
    for i in range(40):
        Image.new('RGB', (40, 30), (i, 9, 9)).save(tmp_path/f'{i:02}.jpg')
    # the reader is gone before the first caption comes
    r = subprocess.run(['bash', '-c', f'"$0" -c "$1" caption . --device cpu --batch_size 1 {how} exec true; '
        'echo ${PIPESTATUS[0]}', sys.executable, CAPDEC[2]], cwd=tmp_path, env=ENV, capture_output=True, text=True,
        timeout=600)
    assert r.stdout == '141\n' and r.stderr == ''
