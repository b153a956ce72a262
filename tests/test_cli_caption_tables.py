"capdec caption: tables, odd photos, kills"
import contextlib
import csv
import io
import json
import os
import signal
import subprocess
import sys

import pytest
from PIL import Image
from skimage import data as photos

from shell import capdec, capdec_process, forked, one_line, GOOD

pytestmark = pytest.mark.usefixtures('one_encoder')

@pytest.mark.parametrize('kind', ['csv', 'json', 'jsonl'])
def test_bad_photos_do_not_stop_the_others(album, tmp_path, kind):
    out = tmp_path/f'c.{kind}'
    r = (capdec_process if kind == 'csv' else capdec)('caption', album, '--out', out, '--batch_size', 2, '--device',
        'cpu')
    # some failed
    assert r.returncode == 1
    assert {l.split(':')[2].split('/')[-1] for l in one_line(r)} == {'text.jpg', 'cut.jpg'}
    text = out.read_text()
    rows = list(csv.DictReader(io.StringIO(text))) if kind == 'csv' else json.loads(text) if kind == 'json' else [
        json.loads(l) for l in text.splitlines()]
    done = {r['file'].split('/')[-1]: r for r in rows}
    assert {k for k, v in done.items() if v.get('caption')} == GOOD
    assert {k for k, v in done.items() if v.get('error')} == {'text.jpg', 'cut.jpg'}
    # the journal is gone; what made the table lies beside it
    assert set(os.listdir(tmp_path)) == {out.name, f'.{out.name}.made'}

def test_caption_prints_and_writes_sidecars(album, tmp_path):
    import shutil
    shutil.copy(album/'plain.jpg', tmp_path)
    r = capdec('caption', tmp_path/'plain.jpg', '--num_captions', 2, '--device', 'cpu', ok=True)
    lines = r.stdout.splitlines()
    assert len(lines) == 2 and all(l.startswith(str(tmp_path/'plain.jpg') + '\t') for l in lines)
    capdec('caption', tmp_path, '--sidecar', '--device', 'cpu', ok=True)
    assert (tmp_path/'plain.txt').read_text().strip() == lines[0].split('\t')[1]

# `capdec`, which ends itself when twelve photos are noted
DIES = """
import os, signal, sys
from capdec.cli import main
from capdec.core import Journal
add, left = Journal.add, [12]
def add_and_die(self, records):
    add(self, records)
    left[0] -= len(records)
    if left[0] <= 0:
        os.kill(os.getpid(), signal.SIGKILL)
Journal.add = add_and_die
sys.exit(main())
"""

def test_killed_captioning_continues(tmp_path):
    d = tmp_path/'many'
    d.mkdir()
    im = Image.fromarray(photos.chelsea()).resize((160, 120))
    for i in range(40):
        im.rotate(i).save(d/f'{i:03}.jpg')
    args = ['caption', str(d), '--batch_size', '4', '--device', 'cpu', '--beam_size', '2']
    child = forked(DIES, *args, '--out', tmp_path/'a.csv')
    assert child.returncode == -signal.SIGKILL
    # a line of settings, and the photos that were done
    assert (tmp_path/'a.csv.part').read_text().count('\n') == 1 + 12 and not (tmp_path/'a.csv').exists()
    capdec(*args, '--out', tmp_path/'a.csv', ok=True)
    capdec(*args, '--out', tmp_path/'b.csv', ok=True)
    assert (tmp_path/'a.csv').read_text() == (tmp_path/'b.csv').read_text()

def test_read_only_folder(tmp_path, album):
    # root may write anywhere: use a place where nobody can
    if os.geteuid() == 0:
        target = '/proc/captions.csv'
    else:
        (tmp_path/'ro').mkdir(mode=0o500)
        target = tmp_path/'ro'/'c.csv'
    r = capdec('caption', album/'plain.jpg', '--out', target, '--device', 'cpu', ok=False)
    # the folder, not a temporary name
    assert len(one_line(r)) == 1 and f'{os.path.dirname(target)}: cannot be written' in one_line(r)[0]

def test_captions_through_a_memory_of_ones_own(album, tmp_path):
    from capdec.captioner import Captioner
    (tmp_path/'m.txt').write_text('A cup of coffee on a table.\nA cat looks into the camera.\n')
    said = capdec('caption', album/'plain.jpg', '--memory', tmp_path/'m.txt', '--device', 'cpu', ok=True).stdout
    assert said.strip().split('\t')[1] == Captioner.from_pretrained('mini',
        'cpu').remember(tmp_path/'m.txt')(album/'plain.jpg')

def test_photos_of_one_stem_keep_their_sidecars(tmp_path, coco):
    photo = next((coco/'val2014').iterdir())
    Image.open(photo).save(tmp_path/'a.jpg')
    Image.open(photo).save(tmp_path/'a.png')
    Image.open(photo).save(tmp_path/'b.jpg')
    # a photo with the name of a text
    (tmp_path/'b.txt').write_bytes(photo.read_bytes())
    capdec('caption', tmp_path/'a.jpg', tmp_path/'a.png', tmp_path/'b.jpg', tmp_path/'b.txt', '--sidecar', '--device',
        'cpu', ok=True)
    assert {o.name for o in tmp_path.iterdir()} == {'a.jpg', 'a.png', 'b.jpg', 'b.txt', 'a.jpg.txt', 'a.png.txt',
        'b.jpg.txt', 'b.txt.txt', '.capdec.jsonl'}
    assert (tmp_path/'b.txt').read_bytes() == photo.read_bytes()

def test_file_name_that_is_not_utf8_is_printed(tmp_path, coco): # in tables: test_cli_caption
    d = tmp_path/'d'
    d.mkdir()
    name = os.path.join(os.fsencode(d), b'caf\xe9.jpg')
    try:
        open(name, 'wb').write(next((coco/'val2014').iterdir()).read_bytes())
    except OSError:
        pytest.skip('this file system takes UTF-8 only')
    env = dict(os.environ, CUDA_VISIBLE_DEVICES='', OMP_NUM_THREADS='1', PYTHONIOENCODING='utf-8')
    r = subprocess.run([sys.executable, '-c', 'import sys; from capdec.cli import main; sys.exit(main())', 'caption',
        str(d), '--device', 'cpu'], env=env, capture_output=True, timeout=600)
    assert r.returncode == 0 and b'caf\xe9.jpg\t' in r.stdout, r.stderr

def test_full_disk_while_captioning(small_disk, album):
    with contextlib.suppress(OSError), open(small_disk/'rest', 'wb', 0) as f:
        while f.write(bytes(4096)):
            pass
    said = one_line(capdec('caption', album/'plain.jpg', '--out', small_disk/'c.csv', '--device', 'cpu', '--beam_size',
        1, ok=False))
    assert len(said) == 1 and 'c.csv' in said[0] and 'No space left on device' in said[0], said
