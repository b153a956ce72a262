"The command line, run as a user runs it: whole roads, bad input, interruption."
import contextlib
import csv
import io
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image
from skimage import data as photos

class Result:
    def __init__(self, returncode, stdout, stderr): self.returncode, self.stdout, self.stderr = returncode, stdout, stderr

def capdec(*args, cwd=None, ok=None):
    "Run the command in this process (importing torch anew takes seconds); an error that is not one line escapes"
    from capdec.cli import main
    out, err, here = io.StringIO(), io.StringIO(), os.getcwd()
    if cwd: os.chdir(cwd)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err): code = main([str(a) for a in args])
    except SystemExit as e: code = e.code
    finally: os.chdir(here)
    if ok is not None: assert (code == 0) == ok, (code, out.getvalue(), err.getvalue())
    return Result(code, out.getvalue(), err.getvalue())

def capdec_process(*args, cwd=None, ok=None):
    "Run the command in a process of its own; never a traceback"
    env = dict(os.environ, CUDA_VISIBLE_DEVICES='', OMP_NUM_THREADS='1', HF_HUB_OFFLINE='1')
    r = subprocess.run([sys.executable, '-c', 'import sys; from capdec.cli import main; sys.exit(main())', *map(str, args)], cwd=cwd, env=env, capture_output=True, text=True, timeout=300)
    assert 'Traceback' not in r.stderr, r.stderr
    if ok is not None: assert (r.returncode == 0) == ok, (r.returncode, r.stdout, r.stderr)
    return r

def one_line(r): return [l for l in r.stderr.splitlines() if l.startswith('capdec')]

@pytest.fixture(scope='module')
def album(tmp_path_factory):
    "Photos of every kind, and files that only look like photos"
    d = tmp_path_factory.mktemp('album')
    coffee = Image.fromarray(photos.coffee())
    coffee.save(d/'plain.jpg')
    Image.fromarray(photos.chelsea()).convert('CMYK').save(d/'cmyk.jpg')
    rgba = coffee.convert('RGBA'); rgba.putalpha(128); rgba.save(d/'alpha.png')
    Image.fromarray((photos.camera().astype(np.uint16)*257)).save(d/'sixteen.png')
    exif = Image.Exif(); exif[0x0112] = 8
    Image.fromarray(photos.rocket()).save(d/'rotated.jpg', exif=exif)
    (d/'sub').mkdir(); Image.fromarray(photos.camera()).save(d/'sub'/'grey.png')
    (d/'text.jpg').write_text('I am a text file.')
    (d/'cut.jpg').write_bytes((d/'plain.jpg').read_bytes()[:2000])
    (d/'notes.txt').write_text('no photo')
    return d

GOOD = {'plain.jpg', 'cmyk.jpg', 'alpha.png', 'sixteen.png', 'rotated.jpg', 'grey.png'}

@pytest.mark.parametrize('kind', ['csv', 'json', 'jsonl'])
def test_bad_photos_do_not_stop_the_others(album, tmp_path, kind):
    out = tmp_path/f'c.{kind}'
    r = (capdec_process if kind == 'csv' else capdec)('caption', album, '--out', out, '--batch_size', 2, '--device', 'cpu')
    assert r.returncode == 1 # some failed
    assert {l.split(':')[2].split('/')[-1] for l in one_line(r)} == {'text.jpg', 'cut.jpg'}
    text = out.read_text()
    rows = list(csv.DictReader(io.StringIO(text))) if kind == 'csv' else json.loads(text) if kind == 'json' else [json.loads(l) for l in text.splitlines()]
    done = {r['file'].split('/')[-1]: r for r in rows}
    assert {k for k, v in done.items() if v.get('caption')} == GOOD
    assert {k for k, v in done.items() if v.get('error')} == {'text.jpg', 'cut.jpg'}
    assert os.listdir(tmp_path) == [out.name] # the journal is gone

def test_caption_prints_and_writes_sidecars(album, tmp_path):
    import shutil
    shutil.copy(album/'plain.jpg', tmp_path)
    r = capdec('caption', tmp_path/'plain.jpg', '--num_captions', 2, '--device', 'cpu', ok=True)
    lines = r.stdout.splitlines()
    assert len(lines) == 2 and all(l.startswith(str(tmp_path/'plain.jpg') + '\t') for l in lines)
    capdec('caption', tmp_path, '--sidecar', '--device', 'cpu', ok=True)
    assert (tmp_path/'plain.txt').read_text().strip() == lines[0].split('\t')[1]

def test_missing_photo_beside_a_good_one(album, tmp_path):
    r = capdec_process('caption', 'nowhere.jpg', album/'plain.jpg', '--device', 'cpu')
    assert r.returncode == 1 and one_line(r) == ['capdec: skipped: nowhere.jpg: no such file'] and len(r.stdout.splitlines()) == 1

@pytest.mark.parametrize('args,says', [
    (['caption', '{empty}'], 'no images in this folder'), (['caption', '{album}', '--out', 'c.doc'], '.csv'),
    (['caption', '{album}', '--model', '{empty}'], 'config.json'), (['caption', '{album}', '--device', 'cuda'], 'CUDA'), (['caption', '{album}', '--bridge', 'rope'], 'none, offset, memory'),
    (['train', '--data', '{empty_json}'], 'no captions'), (['train', '--data', '{shape_json}'], 'shape.json'), (['train', '--data', 'missing.json'], 'no such file'), (['train'], '--data'),
    (['parse', '{broken_json}'], 'line 1'), (['parse', '{latin}'], 'UTF-8'), (['embed'], '--data'), (['embed', '--data', '{text}', '--clip_model_type', 'RN51'], 'RN51'),
    (['predict', '--checkpoint', '{half}', '--images', '{album}', '--out', 'p.json'], 'cut short'), (['predict', '--images', '{album}'], '--out'),
    (['evaluate', '{empty_json}', '--references', '{text}'], 'empty.json'), (['data', '--name', 'nothing', '--path', '.'], 'nothing'), (['open-text', '{empty}'], 'empty'),
])
def test_bad_input_is_one_line(tmp_path, album, half_model, args, says):
    (tmp_path/'empty').mkdir()
    (tmp_path/'empty.json').write_text('[]'); (tmp_path/'shape.json').write_text('{"a": {"b": 1}}'); (tmp_path/'broken.json').write_text('[{"caption": "a dog"')
    (tmp_path/'latin.txt').write_bytes('Ein Bär läuft über die Straße.\n'.encode('latin-1')); (tmp_path/'text.txt').write_text('A dog runs.\n')
    names = dict(empty=tmp_path/'empty', album=album, empty_json=tmp_path/'empty.json', shape_json=tmp_path/'shape.json', broken_json=tmp_path/'broken.json', latin=tmp_path/'latin.txt',
        text=tmp_path/'text.txt', half=half_model)
    r = capdec(*[a.format(**names) for a in args], *(['--clip_model_type', 'mini', '--lm', 'mini'] if args[0] == 'train' else []), cwd=tmp_path, ok=False)
    lines = one_line(r)
    assert len(lines) == 1 and lines[0].startswith('capdec: error:') and says in lines[0], r.stderr

@pytest.fixture(scope='module')
def half_model(tmp_path_factory):
    "A captioner whose weights were cut in half"
    import shutil
    from capdec.core import package_file
    d = tmp_path_factory.mktemp('half')/'m'
    shutil.copytree(package_file('models', 'mini', 'captioner'), d)
    f = d/'model.safetensors'; f.write_bytes(f.read_bytes()[:f.stat().st_size//2])
    return d

def test_checkpoint_of_other_dimensions(tmp_path, album):
    import shutil
    from capdec.core import package_file, read_json, write_json
    shutil.copytree(package_file('models', 'mini', 'captioner'), tmp_path/'m')
    c = read_json(tmp_path/'m'/'config.json'); c['prefix_size'] = 640; write_json(tmp_path/'m'/'config.json', c)
    r = capdec('caption', album, '--model', tmp_path/'m', '--device', 'cpu', ok=False)
    assert len(one_line(r)) == 1 and '640' in r.stderr and 'shape' in r.stderr

ODD = ['🐕 läuft 🏖️ schnell.', '一只狗在沙滩上奔跑。', ' '.join(['very']*500) + ' long.', 'A dog runs.', 'A cat sleeps.', 'Two girls play chess in the park.']

def test_text_in_captions_out(tmp_path, album):
    "The whole road: sentences (odd ones among them) -> captioner -> captions, scores; a second run of train has nothing left to do"
    (tmp_path/'s.txt').write_text('\n'.join(ODD + [f'A {c} dog number {i} runs.' for i in range(20) for c in ('red', 'blue')]) + '\n')
    args = ['train', '--data', 's.txt', '--out_dir', 'out', '--clip_model_type', 'mini', '--lm', 'mini', '--mapping_type', 'mlp', '--prefix_length', 2, '--epochs', 2, '--bs', 8,
            '--warmup_steps', 1, '--lr', '1e-3', '--noise_variance', '.01', '--device', 'cpu']
    r = capdec(*args, cwd=tmp_path, ok=True)
    assert {'coco_prefix-000', 'coco_prefix-001', 'coco_prefix_latest', 'loss.png', 'loss_per_epoch.json', 'train_commandline_args.txt'} <= set(os.listdir(tmp_path/'out'))
    first = (tmp_path/'out'/'coco_prefix_latest'/'model.safetensors').read_bytes()
    assert capdec_process(*args, cwd=tmp_path, ok=True).stdout == r.stdout
    assert (tmp_path/'out'/'coco_prefix_latest'/'model.safetensors').read_bytes() == first
    r = capdec(*args, '--noise_variance', '.02', cwd=tmp_path, ok=False)
    assert 'holds a run with noise_variance' in one_line(r)[0]
    good = tmp_path/'photos'; good.mkdir()
    for n in ('plain.jpg', 'cmyk.jpg'): (good/n).write_bytes((album/n).read_bytes())
    capdec('predict', '--checkpoint', 'out/coco_prefix_latest', '--images', 'photos', '--out', 'p.json', '--device', 'cpu', cwd=tmp_path, ok=True)
    pred = json.loads((tmp_path/'p.json').read_text())
    assert len(pred) == 2 and all(p['caption'] == p['caption'].lower() for p in pred)
    (tmp_path/'refs.json').write_text(json.dumps([dict(image_id=p['image_id'], caption='a cup of coffee on a table', id=i) for i, p in enumerate(pred)]))
    r = capdec('evaluate', 'p.json', '--references', 'refs.json', '--metrics', 'bleu,cider', '--out', 'scores.json', cwd=tmp_path, ok=True)
    assert 'CIDEr' in r.stdout and (tmp_path/'scores.json').exists()

def test_killed_captioning_continues(tmp_path):
    d = tmp_path/'many'; d.mkdir()
    im = Image.fromarray(photos.chelsea()).resize((160, 120))
    for i in range(60): im.rotate(i).save(d/f'{i:03}.jpg')
    args = ['caption', str(d), '--batch_size', '4', '--device', 'cpu', '--beam_size', '2']
    env = dict(os.environ, CUDA_VISIBLE_DEVICES='', OMP_NUM_THREADS='1')
    child = subprocess.Popen([sys.executable, '-c', 'import sys; from capdec.cli import main; sys.exit(main())', *args, '--out', str(tmp_path/'a.csv')], env=env, stderr=subprocess.DEVNULL)
    part = tmp_path/'a.csv.part'
    end = time.time() + 120
    while time.time() < end and child.poll() is None and not (part.exists() and part.read_text().count('\n') > 8): time.sleep(.02)
    child.send_signal(signal.SIGKILL); child.wait()
    done = part.read_text().count('\n')
    assert 1 < done < 61 and not (tmp_path/'a.csv').exists()
    capdec(*args, '--out', tmp_path/'a.csv', ok=True); capdec(*args, '--out', tmp_path/'b.csv', ok=True)
    assert (tmp_path/'a.csv').read_text() == (tmp_path/'b.csv').read_text()

def test_read_only_folder(tmp_path, album):
    if os.geteuid() == 0: # root may write anywhere: use a place where nobody can
        target = '/proc/captions.csv'
    else: (tmp_path/'ro').mkdir(mode=0o500); target = tmp_path/'ro'/'c.csv'
    r = capdec('caption', album/'plain.jpg', '--out', target, '--device', 'cpu', ok=False)
    assert len(one_line(r)) == 1

def test_every_verb_has_help_with_examples():
    from capdec.cli import VERBS
    listing = capdec('--help', ok=True).stdout
    for v in VERBS:
        assert v in listing
        out = capdec(v, '--help', ok=True).stdout
        assert 'examples:' in out and f'capdec {v}' in out.split('examples:')[1]
    assert capdec('paint').returncode == 2 and capdec('caption', '--colour').returncode == 2

def test_official_flags_of_train_are_understood():
    from capdec.cli import _parser
    a = _parser('train').parse_args('--data x.pkl --val_pt y.pkl --pretrain_weights w.pt --out_dir o --add_modality_offset c.npz --prefix p --noise_variance 0.016 --uniform_noise --dont_norm '
        '--lr 1e-4 --epochs 3 --save_every 2 --prefix_length 10 --prefix_length_clip 12 --bs 7 --only_prefix --mapping_type transformer_encoder --num_layers 3 --is_not_rn '
        '--use_image_embedding_as_clipcap'.split())
    assert (a.noise_variance, a.bs, a.uniform_noise, a.mapping_type, a.is_not_rn) == (.016, 7, True, 'transformer_encoder', True)
    d = _parser('train').parse_args(['--data', 'x'])
    assert (d.lr, d.epochs, d.bs, d.prefix_length, d.prefix_length_clip, d.num_layers, d.save_every, d.mapping_type, d.prefix, d.out_dir, d.noise_variance) == (
        2e-5, 10, 34, 40, 40, 8, 1, 'transformer', 'coco_prefix', './checkpoints', 0.)
