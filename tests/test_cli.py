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
    def __init__(self, returncode, stdout, stderr):
        self.returncode, self.stdout, self.stderr = returncode, stdout, stderr

def capdec(*args, cwd=None, ok=None):
    "Run the command in this process (importing torch anew takes seconds); an error that is not one line escapes"
    from capdec.cli import main
    out, err, here = io.StringIO(), io.StringIO(), os.getcwd()
    if cwd:
        os.chdir(cwd)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main([str(a) for a in args])
    except SystemExit as e:
        code = e.code
    finally:
        os.chdir(here)
    if ok is not None:
        assert (code == 0) == ok, (code, out.getvalue(), err.getvalue())
    return Result(code, out.getvalue(), err.getvalue())

def capdec_process(*args, cwd=None, ok=None):
    "Run the command in a process of its own; never a traceback"
    env = dict(os.environ, CUDA_VISIBLE_DEVICES='', OMP_NUM_THREADS='1', HF_HUB_OFFLINE='1')
    r = subprocess.run([sys.executable, '-c', 'import sys; from capdec.cli import main; sys.exit(main())',
        *map(str, args)], cwd=cwd, env=env, capture_output=True, text=True, timeout=300)
    assert 'Traceback' not in r.stderr, r.stderr
    if ok is not None:
        assert (r.returncode == 0) == ok, (r.returncode, r.stdout, r.stderr)
    return r

def one_line(r):
    return [l for l in r.stderr.splitlines() if l.startswith('capdec')]

@pytest.fixture(scope='module')
def album(tmp_path_factory):
    "Photos of every kind, and files that only look like photos"
    d = tmp_path_factory.mktemp('album')
    coffee = Image.fromarray(photos.coffee())
    coffee.save(d/'plain.jpg')
    Image.fromarray(photos.chelsea()).convert('CMYK').save(d/'cmyk.jpg')
    rgba = coffee.convert('RGBA')
    rgba.putalpha(128)
    rgba.save(d/'alpha.png')
    Image.fromarray((photos.camera().astype(np.uint16)*257)).save(d/'sixteen.png')
    exif = Image.Exif()
    exif[0x0112] = 8
    Image.fromarray(photos.rocket()).save(d/'rotated.jpg', exif=exif)
    (d/'sub').mkdir()
    Image.fromarray(photos.camera()).save(d/'sub'/'grey.png')
    (d/'text.jpg').write_text('I am a text file.')
    (d/'cut.jpg').write_bytes((d/'plain.jpg').read_bytes()[:2000])
    (d/'notes.txt').write_text('no photo')
    return d

GOOD = {'plain.jpg', 'cmyk.jpg', 'alpha.png', 'sixteen.png', 'rotated.jpg', 'grey.png'}

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
    # the journal is gone
    assert os.listdir(tmp_path) == [out.name]

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
    assert r.returncode == 1 and one_line(r) == ['capdec: skipped: nowhere.jpg: no such '
        'file'] and len(r.stdout.splitlines()) == 1

def test_what_an_apple_gpu_lacks_is_one_line(monkeypatch):
    from capdec.cli import VERBS
    def lacking():
        raise NotImplementedError("The operator 'aten::rev' is not currently implemented for the MPS device. If you "
            "want this op to be considered\n for addition please comment. WARNING: slow")
    monkeypatch.setitem(VERBS, 'data', lacking)
    assert one_line(capdec('data', ok=False)) == ["capdec: error: the Apple GPU cannot do this (The operator "
        "'aten::rev' is not currently implemented for the MPS device); set PYTORCH_ENABLE_MPS_FALLBACK=1 in the "
        "environment, or pass --device cpu"]
    def other():
        raise NotImplementedError('a method that a class lacks')
    monkeypatch.setitem(VERBS, 'data', other)
    with pytest.raises(NotImplementedError):
        capdec('data')

@pytest.mark.parametrize('args,says', [
    (['caption', '{empty}'], 'no images in this folder'), (['caption', '{album}', '--out', 'c.doc'], '.csv'),
    (['embed', '--data', '{text}', '--clip_model_type', 'mini', '--device', 'mps'], 'no Apple GPU here; use cpu'), (['predict', '--images', '{album}', '--out', 'p.json', '--device', 'mps'], 'no Apple GPU here; use cpu'), (['train', '--data', '{text}', '--clip_model_type', 'mini', '--lm', 'mini', '--device', 'mps'], 'no Apple GPU here; use cpu'),
    (['caption', '{album}', '--model', '{empty}'], 'config.json'), (['caption', '{album}', '--device', 'cuda'], 'CUDA'), (['caption', '{album}', '--bridge', 'rope'], 'none, offset, memory'), (['caption', '{album}', '--device', 'cpu', '--beam_size', '0'], 'beam_size 0: at least 1'),
    (['train', '--data', '{empty_json}'], 'no captions'), (['train', '--data', '{shape_json}'], 'shape.json'),
    (['train', '--data', 'missing.json'], 'no such file'), (['train'], '--data'),
    (['parse', '{broken_json}'], 'line 1'), (['parse', '{latin}'], 'UTF-8'), (['embed'], '--data'),
    (['embed', '--data', '{text}', '--clip_model_type', 'RN51'], 'RN51'),
    (['predict', '--checkpoint', '{half}', '--images', '{album}', '--out', 'p.json'], 'cut short'),
    (['predict', '--images', '{album}'], '--out'),
    (['evaluate', '{empty_json}', '--references', '{text}'], 'empty.json'),
    (['data', '--name', 'nothing', '--path', '.'], 'nothing'), (['open-text', '{empty}'], 'empty'),
])
def test_bad_input_is_one_line(tmp_path, album, half_model, args, says):
    (tmp_path/'empty').mkdir()
    (tmp_path/'empty.json').write_text('[]')
    (tmp_path/'shape.json').write_text('{"a": {"b": 1}}')
    (tmp_path/'broken.json').write_text('[{"caption": "a dog"')
    (tmp_path/'latin.txt').write_bytes('Ein Bär läuft über die Straße.\n'.encode('latin-1'))
    (tmp_path/'text.txt').write_text('A dog runs.\n')
    names = dict(empty=tmp_path/'empty', album=album, empty_json=tmp_path/'empty.json',
        shape_json=tmp_path/'shape.json', broken_json=tmp_path/'broken.json', latin=tmp_path/'latin.txt',
        text=tmp_path/'text.txt', half=half_model)
    r = capdec(*[a.format(**names) for a in args], *(['--clip_model_type', 'mini', '--lm', 'mini'] if args[0] == 'train'
        else []), cwd=tmp_path, ok=False)
    lines = one_line(r)
    assert len(lines) == 1 and lines[0].startswith('capdec: error:') and says in lines[0], r.stderr

@pytest.fixture(scope='module')
def half_model(tmp_path_factory):
    "A captioner whose weights were cut in half"
    import shutil
    from capdec.core import package_file
    d = tmp_path_factory.mktemp('half')/'m'
    shutil.copytree(package_file('models', 'mini', 'captioner'), d)
    f = d/'model.safetensors'
    f.write_bytes(f.read_bytes()[:f.stat().st_size//2])
    return d

def test_checkpoint_of_other_dimensions(tmp_path, album):
    import shutil
    from capdec.core import package_file, read_json, write_json
    shutil.copytree(package_file('models', 'mini', 'captioner'), tmp_path/'m')
    c = read_json(tmp_path/'m'/'config.json')
    c['prefix_size'] = 640
    write_json(tmp_path/'m'/'config.json', c)
    r = capdec('caption', album, '--model', tmp_path/'m', '--device', 'cpu', ok=False)
    assert len(one_line(r)) == 1 and '640' in r.stderr and 'shape' in r.stderr

ODD = ['🐕 läuft 🏖️ schnell.', '一只狗在沙滩上奔跑。', ' '.join(['very']*500) + ' long.', 'A dog runs.', 'A cat sleeps.',
    'Two girls play chess in the park.']

def test_text_in_captions_out(tmp_path, album):
    "The whole road: sentences (odd ones among them) -> captioner -> captions, scores; a second run of train has nothing left to do"
    (tmp_path/'s.txt').write_text('\n'.join(ODD + [f'A {c} dog number {i} runs.' for i in range(20)
        for c in ('red', 'blue')]) + '\n')
    args = ['train', '--data', 's.txt', '--out_dir', 'out', '--clip_model_type', 'mini', '--lm', 'mini',
        '--mapping_type', 'mlp', '--prefix_length', 2, '--epochs', 2, '--bs', 8,
            '--warmup_steps', 1, '--lr', '1e-3', '--noise_variance', '.01', '--device', 'cpu']
    r = capdec(*args, cwd=tmp_path, ok=True)
    assert {'coco_prefix-000', 'coco_prefix-001', 'coco_prefix_latest', 'loss.png', 'loss_per_epoch.json',
        'train_commandline_args.txt'} <= set(os.listdir(tmp_path/'out'))
    first = (tmp_path/'out'/'coco_prefix_latest'/'model.safetensors').read_bytes()
    assert capdec_process(*args, cwd=tmp_path, ok=True).stdout == r.stdout
    assert (tmp_path/'out'/'coco_prefix_latest'/'model.safetensors').read_bytes() == first
    r = capdec(*args, '--noise_variance', '.02', cwd=tmp_path, ok=False)
    assert 'holds a run with noise_variance' in one_line(r)[0]
    # what the run was told stays on record
    assert json.loads((tmp_path/'out'/'train_commandline_args.txt').read_text())['noise_variance'] == .01
    good = tmp_path/'photos'
    good.mkdir()
    for n in ('plain.jpg', 'cmyk.jpg'):
        (good/n).write_bytes((album/n).read_bytes())
    capdec('predict', '--checkpoint', 'out/coco_prefix_latest', '--images', 'photos', '--out', 'p.json', '--device',
        'cpu', cwd=tmp_path, ok=True)
    pred = json.loads((tmp_path/'p.json').read_text())
    assert len(pred) == 2 and all(p['caption'] == p['caption'].lower() for p in pred)
    (tmp_path/'refs.json').write_text(json.dumps([dict(image_id=p['image_id'], caption='a cup of coffee on a table',
        id=i) for i, p in enumerate(pred)]))
    r = capdec('evaluate', 'p.json', '--references', 'refs.json', '--metrics', 'bleu,cider', '--out', 'scores.json',
        cwd=tmp_path, ok=True)
    assert 'CIDEr' in r.stdout and (tmp_path/'scores.json').exists()

def test_killed_captioning_continues(tmp_path):
    d = tmp_path/'many'
    d.mkdir()
    im = Image.fromarray(photos.chelsea()).resize((160, 120))
    for i in range(40):
        im.rotate(i).save(d/f'{i:03}.jpg')
    args = ['caption', str(d), '--batch_size', '4', '--device', 'cpu', '--beam_size', '2']
    env = dict(os.environ, CUDA_VISIBLE_DEVICES='', OMP_NUM_THREADS='1')
    child = subprocess.Popen([sys.executable, '-c', 'import sys; from capdec.cli import main; sys.exit(main())', *args,
        '--out', str(tmp_path/'a.csv')], env=env, stderr=subprocess.DEVNULL)
    part = tmp_path/'a.csv.part'
    end = time.time() + 120
    while time.time() < end and child.poll() is None and not (part.exists() and part.read_text().count('\n') > 8):
        time.sleep(.02)
    child.send_signal(signal.SIGKILL)
    child.wait()
    done = part.read_text().count('\n')
    assert 1 < done < 41 and not (tmp_path/'a.csv').exists()
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

def test_every_verb_has_help_with_examples():
    from capdec.cli import VERBS
    listing = capdec('--help', ok=True).stdout
    for v in VERBS:
        assert v in listing
        out = capdec(v, '--help', ok=True).stdout
        assert 'examples:' in out and f'capdec {v}' in out.split('examples:')[1]
    assert capdec('paint').returncode == 2 and capdec('caption', '--colour').returncode == 2

def test_examples_of_the_help_are_understood():
    import shlex
    from capdec.cli import VERBS, examples, verb_parser
    for verb in VERBS:
        assert examples(verb)
        for line in examples(verb):
            words = shlex.split(line)
            assert words[:2] == ['capdec', verb]
            verb_parser(verb).parse_args(words[2:])

def test_the_input_is_not_overwritten(tmp_path):
    (tmp_path/'a.txt').write_text('A dog runs on grass.\nA cat sits on a mat.\n')
    for verb in ('parse', 'open-text'):
        assert 'is the file that is read' in one_line(capdec(verb, tmp_path/'a.txt', '--out', tmp_path/'a.txt',
            ok=False))[0]
    (tmp_path/'p.json').write_text(json.dumps([dict(image_id=1, caption='a dog')]))
    (tmp_path/'r.json').write_text(json.dumps([dict(image_id=1, caption='a dog runs', id=1)]))
    for o in ('p.json', 'r.json'):
        assert 'is the file that is read' in one_line(capdec('evaluate', tmp_path/'p.json', '--references',
            tmp_path/'r.json', '--out', tmp_path/o, ok=False))[0]
    assert (tmp_path/'a.txt').read_text().startswith('A dog') and len(json.loads((tmp_path/'p.json').read_text())) == 1

def test_official_flags_of_train_are_understood():
    from capdec.cli import verb_parser
    a = verb_parser('train').parse_args('--data x.pkl --val_pt y.pkl --pretrain_weights w.pt --out_dir o '
        '--add_modality_offset c.npz --prefix p --noise_variance 0.016 --uniform_noise --dont_norm '
        '--lr 1e-4 --epochs 3 --save_every 2 --prefix_length 10 --prefix_length_clip 12 --bs 7 --only_prefix '
        '--mapping_type transformer_encoder --num_layers 3 --is_not_rn '
        '--use_image_embedding_as_clipcap'.split())
    assert (a.noise_variance, a.bs, a.uniform_noise, a.mapping_type, a.is_not_rn) == (.016, 7, True,
        'transformer_encoder', True)
    d = verb_parser('train').parse_args(['--data', 'x'])
    assert (d.lr, d.epochs, d.bs, d.prefix_length, d.prefix_length_clip, d.num_layers, d.save_every, d.mapping_type,
        d.prefix, d.out_dir, d.noise_variance) == (
        2e-5, 10, 34, 40, 40, 8, 1, 'transformer', 'coco_prefix', './checkpoints', 0.)

# ---- data sets, ids, and verbs that fit together

COCO_NAMES = {'train': [11, 12], 'val': [391895, 522418]}

@pytest.fixture(scope='module')
def coco(tmp_path_factory):
    "A folder like COCO's: Karpathy's file, and photos in val2014/ and train2014/"
    d = tmp_path_factory.mktemp('coco')
    ims, n = [], 0
    for split, ids in COCO_NAMES.items():
        (d/f'{split}2014').mkdir()
        for i in ids:
            name = f'COCO_{split}2014_{i:012}.jpg'
            Image.fromarray(photos.coffee()).resize((120, 80)).rotate(i % 40).save(d/f'{split}2014'/name)
            ims.append(dict(filename=name, filepath=f'{split}2014', split=split, cocoid=i,
                sentences=[dict(raw=f'A cup {k} of coffee {i}.', sentid=(n := n+1)) for k in 'abcde']))
    (d/'dataset_coco.json').write_text(json.dumps(dict(images=ims, dataset='coco')))
    (d/'ids.txt').write_text('391895\n')
    return d

def test_official_numbers_are_those_of_the_verb(coco):
    from capdec.config import Selection
    from capdec.sources import captions_from
    def ids(mode, verb='embed', images=''):
        which = Selection('all', mode, str(images))
        return list(dict.fromkeys(r['image_id'] for r in captions_from(coco/'dataset_coco.json', which, verb)))
    # embeddings_generator.py, predictions_runner.py
    assert ids('0') == COCO_NAMES['train'] and ids('0', verb='predict') == COCO_NAMES['val']
    assert ids('6', verb='predict') == COCO_NAMES['train'] and ids('5', verb='predict') == COCO_NAMES['val']
    assert ids('8', images=coco/'ids.txt') == [391895] and ids('7', images=coco/'ids.txt', verb='predict') == [391895]
    with pytest.raises(ValueError, match='dataset_mode.*number'):
        ids('5')

def test_name_of_a_data_set_alone_leaves_the_part_to_split(coco):
    "`--dataset_mode coco` with `--split val` has once read the test captions too"
    from capdec.config import Selection
    from capdec.sources import captions_from
    ids = lambda split, mode: list(dict.fromkeys(r['image_id'] for r in captions_from(coco/'dataset_coco.json',
        Selection(split, mode))))
    assert ids('train', 'coco') == COCO_NAMES['train'] and ids('val', 'coco') == COCO_NAMES['val'] and len(ids('all',
        'coco')) == sum(map(len, COCO_NAMES.values()))
    # a part that is named is meant
    assert ids('val', 'coco/train') == ids('val', '0') == COCO_NAMES['train']

def test_lists_of_images_and_factual_are_flags_of_three_verbs(coco, tmp_path):
    # parse had the shorter name
    for list_flag in ('--images_list', '--images'):
        capdec('parse', coco/'dataset_coco.json', '--dataset_mode', 8, list_flag, coco/'ids.txt', '--out',
            tmp_path/'p.json', ok=True)
        assert {o['image_id'] for o in json.loads((tmp_path/'p.json').read_text())} == {391895}
    r = capdec('embed', '--data', coco/'dataset_coco.json', '--dataset_mode', 8, '--images_list', coco/'ids.txt',
        '--clip_model_type', 'mini', '--device', 'cpu', '--out', tmp_path/'s', ok=True)
    assert '5 vectors' in r.stdout
    capdec('predict', '--data', coco/'dataset_coco.json', '--dataset_mode', 7, '--images_list', coco/'ids.txt',
        '--image_dir', coco, '--beam', 'false', '--device', 'cpu', '--out', tmp_path/'q.json', ok=True)
    assert [o['image_id'] for o in json.loads((tmp_path/'q.json').read_text())] == [391895]
    for args in (['parse', coco/'dataset_coco.json'], ['embed', '--data', coco/'dataset_coco.json', '--clip_model_type',
            'mini'], ['predict', '--data', coco/'dataset_coco.json', '--out', 'x.json']):
        r = capdec(*args, '--factual', 'x', cwd=tmp_path, ok=False)
        assert '--dataset_mode' in one_line(r)[0]

@pytest.mark.parametrize('how', ['--data', '--images'])
def test_predict_then_evaluate(coco, tmp_path, how):
    "The examples of the two verbs, one after the other"
    if how == '--data':
        capdec('predict', '--data', coco/'dataset_coco.json', '--split', 'val', '--image_dir', coco, '--out',
            'predictions.json', '--device', 'cpu', cwd=tmp_path, ok=True)
    else:
        capdec('predict', '--images', coco/'val2014', '--out', 'predictions.json', '--device', 'cpu', cwd=tmp_path,
            ok=True)
    assert [o['image_id'] for o in json.loads((tmp_path/'predictions.json').read_text())] == COCO_NAMES['val']
    r = capdec('evaluate', 'predictions.json', '--references', coco/'dataset_coco.json', '--split', 'val', '--metrics',
        'bleu,cider', '--images', coco/'val2014', '--clip_model_type', 'mini',
        '--device', 'cpu', '--out', 'scores.json', cwd=tmp_path, ok=True)
    scores = json.loads((tmp_path/'scores.json').read_text())
    assert scores['images'] == 2 and 0 <= scores['corpus']['CLIPScore'] <= 2.5 and 'CLIPScore' in r.stdout
    r = capdec('evaluate', 'predictions.json', '--references', coco/'dataset_coco.json', '--metrics', 'bleu',
        '--images', coco/'train2014', '--clip_model_type', 'mini', cwd=tmp_path, ok=False)
    assert 'no photo for 2 of 2' in one_line(r)[0]

def test_spice_is_asked_for_unless_told_otherwise():
    from capdec.cli import verb_parser
    assert 'spice' in verb_parser('evaluate').parse_args(['p.json']).metrics.split(',')

def test_photos_have_the_ids_of_references(tmp_path):
    from capdec.data import image_id_of
    from capdec.embedding import embed_images, load_encoder
    names = ['a/COCO_val2014_000000391895.jpg', 'a/1000092795.jpg', 'a/1000268201_693b08cb0e.jpg', 'a/plain.jpg',
        'b/plain.jpg']
    for n in names:
        (tmp_path/n).parent.mkdir(exist_ok=True)
        Image.fromarray(photos.coffee()).resize((60, 40)).save(tmp_path/n)
    refs = [image_id_of(n.split('/')[1]) for n in names]
    ids = embed_images([tmp_path/n for n in names], load_encoder('mini', 'cpu'), tmp_path/'s', show=False,
        dtype='float32').column('image_id')
    assert ids[:4] == refs[:4] == [391895, 1000092795, 1000268201, 'plain.jpg']
    # two photos, two ids
    assert ids[4] == str(tmp_path/names[4])
    # a second run finds the same
    assert embed_images([tmp_path/n for n in names], load_encoder('mini', 'cpu'), tmp_path/'s', show=False,
        dtype='float32').column('image_id') == ids

# ---- official pickles and stores

def official(path, n=6, d=512, per_image=1, image=False, seed=0):
    import pickle
    import torch
    v = torch.randn(n, d, generator=torch.Generator().manual_seed(seed)).half()
    path.parent.mkdir(parents=True, exist_ok=True)
    entries = [dict(image_id=i//per_image, caption=f'A dog {i}.', id=i, clip_embedding=i) for i in range(n)]
    path.write_bytes(pickle.dumps({'clip_embedding': v if image else 0, 'clip_embedding_text_dave': 0 if image else v,
        'captions': entries}))
    return path

def test_pickles_of_one_name_do_not_collide(tmp_path):
    from capdec.sources import training_data
    a, b = official(tmp_path/'train'/'emb.pkl'), official(tmp_path/'val'/'emb.pkl', n=4, seed=1)
    stores = [training_data(str(p), tmp_path/'out', 'RN50x4', 'cpu') for p in (a, b, a)]
    assert [len(s) for s in stores] == [6, 4, 6] and stores[0].path == stores[2].path != stores[1].path
    # 512 numbers cannot be RN50x4's
    assert stores[0].meta['encoder'] == 'ViT-B/32'
    assert training_data(str(a), tmp_path/'out2', 'ViT-B/16', 'cpu').meta['encoder'] == 'ViT-B/16'
    capdec('embed', '--data', a, '--out', tmp_path/'s', ok=True)
    from capdec.store import EmbeddingStore
    assert EmbeddingStore(tmp_path/'s').meta['encoder'] == 'ViT-B/32'

def test_a_pickle_with_both_kinds_keeps_both(tmp_path):
    import torch
    from capdec.store import EmbeddingStore, export_official, import_official, read_official_pickle
    t, i = (import_official(official(tmp_path/f'{k}.pkl', image=k == 'i', seed=s), tmp_path/k) for s,
        k in enumerate('ti'))
    both = export_official(t, tmp_path/'both.pkl', i)
    r = capdec('embed', '--data', both, '--out', tmp_path/'again.pkl', ok=True)
    one, two = read_official_pickle(both), read_official_pickle(tmp_path/'again.pkl')
    assert all(torch.equal(one[k], two[k]) for k in ('text', 'image')) and one['captions'] == two[
        'captions'] and 'holds vectors of captions and of photos' not in r.stderr
    r = capdec('embed', '--data', both, '--out', tmp_path/'t.store', ok=True)
    assert 'holds vectors of captions and of photos' in r.stderr and EmbeddingStore(tmp_path/'t.store').meta[
        'kind'] == 'text'
    assert 'holds vectors' not in capdec('embed', '--data', both, '--kind', 'image', '--out', tmp_path/'i.store',
        ok=True).stderr
    assert torch.equal(EmbeddingStore(tmp_path/'i.store').vectors(), i.vectors())
    assert '--kind sound' in capdec('embed', '--data', both, '--kind', 'sound', '--out',
        tmp_path/'x.store').stderr and not (tmp_path/'x.store').exists()

def test_caption_files_make_a_store_for_each_split(coco, tmp_path):
    r = capdec('train', '--data', coco/'dataset_coco.json', '--val_pt', coco/'dataset_coco.json', '--out_dir', tmp_path,
        '--clip_model_type', 'mini', '--lm', 'mini', '--mapping_type', 'mlp',
        '--prefix_length', 2, '--epochs', 1, '--bs', 4, '--warmup_steps', 1, '--device', 'cpu', ok=True)
    from capdec.store import EmbeddingStore
    for split, ids in COCO_NAMES.items():
        assert set(EmbeddingStore(tmp_path/f'dataset_coco.json.{split}.store').column('image_id')) == set(ids)

def test_vectors_of_the_other_kind_are_refused(album, tmp_path):
    from capdec.sources import training_data
    from capdec.store import import_official
    import_official(official(tmp_path/'i.pkl', image=True), tmp_path/'i')
    import_official(official(tmp_path/'t.pkl'), tmp_path/'t')
    with pytest.raises(ValueError, match='pass `use_image_embedding_as_clipcap`'):
        training_data(str(tmp_path/'i'), tmp_path, 'mini', 'cpu')
    with pytest.raises(ValueError, match='leave `use_image_embedding_as_clipcap`'):
        training_data(str(tmp_path/'t'), tmp_path, 'mini', 'cpu', image=True)
    assert len(training_data(str(tmp_path/'i'), tmp_path, 'mini', 'cpu', image=True)) == 6

def test_pretrained_captioner_notes_the_new_training():
    from types import SimpleNamespace
    from capdec.config import TrainConfig
    from capdec.start import model_for_training
    from capdec.core import package_file
    from capdec.model import CaptionModel
    store = SimpleNamespace(meta=dict(encoder='another'), dim=0)
    m = model_for_training(CaptionModel.from_pretrained(package_file('models', 'mini', 'captioner')), 'mini', store,
        training=TrainConfig(noise_variance=.25, dont_norm=True), only_prefix=True)
    assert (m.config.encoder, m.config.noise_variance, m.config.normalize_prefix, m.config.only_prefix) == ('another',
        .25, False, True)
    assert not any(p.requires_grad for p in m.lm.parameters())

@pytest.mark.parametrize('name,store,bs', [('COCO', 'coco.store', 30), ('FLICKR', 'flickr30k.store', 16)])
def test_presets_of_train(tmp_path, monkeypatch, name, store, bs):
    from capdec.store import import_official
    r = capdec('train', '--data', name, cwd=tmp_path, ok=False)
    assert store in one_line(r)[0] and 'capdec embed' in one_line(r)[0]
    import_official(official(tmp_path/'x.pkl'), tmp_path/store)
    seen = []
    monkeypatch.setattr('capdec.training.train', lambda model, data, config, *a: seen.append(config.bs)
        or dict(epochs=[]))
    small = ['--lm', 'mini', '--mapping_type', 'mlp', '--prefix_length', 2]
    capdec('train', '--data', name, *small, cwd=tmp_path, ok=True)
    capdec('train', '--data', name, '--bs', 5, *small, cwd=tmp_path, ok=True)
    assert seen == [bs, 5]

# ---- predict

@pytest.fixture(scope='module')
def mini_config():
    from capdec.core import package_file, read_json
    return read_json(package_file('models', 'mini', 'captioner', 'config.json'))

def test_one_prediction_per_image_without_the_encoder(tmp_path, mini_config, monkeypatch):
    def never(*a):
        raise AssertionError('the encoder was loaded')
    monkeypatch.setattr('capdec.folder.load_encoder', never)
    p = official(tmp_path/'e.pkl', n=10, d=mini_config['prefix_size'], per_image=5, image=True)
    capdec('predict', '--embeddings', p, '--out', tmp_path/'p.json', '--device', 'cpu', '--beam', 'false', ok=True)
    assert [o['image_id'] for o in json.loads((tmp_path/'p.json').read_text())] == [0, 1]

def test_vectors_of_another_encoder_are_refused(tmp_path, mini_config):
    from capdec.store import import_official
    import_official(official(tmp_path/'e.pkl', d=mini_config['prefix_size'], image=True), tmp_path/'s',
        encoder='ViT-B/16')
    r = capdec('predict', '--embeddings', tmp_path/'s', '--out', tmp_path/'p.json', '--device', 'cpu', ok=False)
    assert 'vectors of ViT-B/16' in one_line(r)[0]

@pytest.fixture
def spy(monkeypatch):
    "What goes into the captioner, instead of captions"
    # it keeps the true function
    import capdec.captioner
    seen = []
    monkeypatch.setattr('capdec.predict.generate', lambda model, x, **k: seen.append(x.clone())
        or ['A dog\n runs\tFAST.']*len(x))
    return seen

def test_texts_go_in_without_a_bridge(coco, tmp_path, spy):
    import torch
    from capdec.noise import normalize
    from capdec.store import EmbeddingStore
    for how in (['--text_autoencoder'], ['--dataset_mode', '5']):
        out = tmp_path/f'{how[0]}.json'
        capdec('predict', '--data', coco/'dataset_coco.json', *how, '--out', out, '--device', 'cpu', ok=True)
        s = EmbeddingStore(f'{out}.vectors')
        assert s.meta['kind'] == 'text' and s.column('image_id') == COCO_NAMES['val']
        torch.testing.assert_close(spy.pop(), normalize(s.vectors()))
        # one line each
        assert {o['caption'] for o in json.loads(out.read_text())} == {'a dog runs fast.'}

def test_memory_of_ones_own(coco, album, tmp_path, spy, mini_config):
    import torch
    from capdec.noise import normalize, project_on_memory
    from capdec.store import EmbeddingStore, import_official
    lines = [f'A dog runs after ball number {i}.' for i in range(30)]
    (tmp_path/'m.txt').write_text('\n'.join(lines))
    capdec('embed', '--data', tmp_path/'m.txt', '--clip_model_type', 'mini', '--device', 'cpu', '--out',
        tmp_path/'m.store', ok=True)
    args = ['predict', '--images', coco/'val2014', '--out', tmp_path/'p.json', '--device', 'cpu']
    # another memory is no continuation: captioned again
    for memory in ('m.store', 'm.txt'):
        capdec(*args, '--memory', tmp_path/memory, ok=True)
        x = normalize(EmbeddingStore(tmp_path/'p.json.vectors').vectors())
        torch.testing.assert_close(spy.pop(), project_on_memory(x,
            normalize(EmbeddingStore(tmp_path/'m.store').vectors())), atol=1e-3, rtol=0)
    capdec('predict', '--embeddings', tmp_path/'p.json.vectors', '--memory', tmp_path/'m.txt', '--out',
        tmp_path/'q.json', '--device', 'cpu', ok=True)
    torch.testing.assert_close(spy.pop(), project_on_memory(x, normalize(EmbeddingStore(tmp_path/'m.store').vectors())),
        atol=1e-3, rtol=0)
    import_official(official(tmp_path/'e.pkl', d=mini_config['prefix_size']), tmp_path/'other.store',
        encoder='ViT-B/16')
    for extra, says in ((['--memory', tmp_path/'nowhere'], 'no such file or store'),
        (['--memory', tmp_path/'m.txt', '--bridge', 'offset'], 'two ways across the gap'),
        (['--memory', tmp_path/'other.store'], 'text vectors of mini'),
            (['--memory', tmp_path/'p.json.vectors'], 'holds image vectors of mini')):
        for verb in (args, ['caption', album/'plain.jpg', '--device', 'cpu']):
            assert says in one_line(capdec(*verb, *extra, ok=False))[0]
    for other in (['--add_modality_offset', 'o.npz'], ['--modality_bridger', 'b.safetensors']):
        assert 'two ways across the gap' in one_line(capdec(*args, *other, '--memory', tmp_path/'m.txt', ok=False))[0]

def test_captions_through_a_memory_of_ones_own(album, tmp_path):
    from capdec.captioner import Captioner
    (tmp_path/'m.txt').write_text('A cup of coffee on a table.\nA cat looks into the camera.\n')
    said = capdec('caption', album/'plain.jpg', '--memory', tmp_path/'m.txt', '--device', 'cpu', ok=True).stdout
    assert said.strip().split('\t')[1] == Captioner.from_pretrained('mini',
        'cpu').remember(tmp_path/'m.txt')(album/'plain.jpg')

def test_flags_of_captions_without_captions(coco, tmp_path):
    for flag in (['--dataset_mode', 99], ['--images_list', 'l.txt'], ['--factual', 'f.json'], ['--image_dir', coco]):
        assert 'belongs to --data' in one_line(capdec('predict', '--images', coco, *flag, '--out', tmp_path/'x.json',
            ok=False))[0]
        assert 'belongs to --data' in one_line(capdec('embed', '--images', coco, *flag, '--clip_model_type', 'mini',
            '--out', tmp_path/'x', ok=False))[0]
    for flag in (['--dataset_mode', 5], ['--text_autoencoder']):
        assert 'captions go in' in one_line(capdec('predict', '--images', coco, *flag, '--out', tmp_path/'x.json',
            ok=False))[0]

def test_caption_files_without_file_names(coco, tmp_path, spy):
    "The official parsers write `[{image_id, caption, id}]`; their photos are found by id, wherever they lie below the folder"
    from capdec.store import EmbeddingStore
    capdec('parse', coco/'dataset_coco.json', '--split', 'val', '--out', tmp_path/'named.json', ok=True)
    plain = [{k: o[k] for k in ('image_id','caption','id')} for o in json.loads((tmp_path/'named.json').read_text())]
    (tmp_path/'plain.json').write_text(json.dumps(plain + [dict(image_id=77, caption='A photo that is not there.',
        id=999)]))
    for data, root, code in (('named.json', coco, 0), ('plain.json', coco, 1), ('plain.json', coco/'val2014', 1),
            ('named.json', coco/'val2014', 0)):
        out = tmp_path/f'{data}{root.name}.p.json'
        r = capdec('predict', '--data', tmp_path/data, '--image_dir', root, '--out', out, '--device', 'cpu')
        assert r.returncode == code and [o['image_id'] for o in json.loads(out.read_text())] == COCO_NAMES['val'] and (
            not code or 'image_id 77' in one_line(r)[0])
        assert (spy[-1] == spy[0]).all()
    capdec('embed', '--data', tmp_path/'plain.json', '--image_dir', coco, '--clip_model_type', 'mini', '--device',
        'cpu', '--out', tmp_path/'s', ok=False)
    assert EmbeddingStore(tmp_path/'s').captions() == [o['caption'] for o in plain]
    capdec('train', '--data', tmp_path/'plain.json', '--image_dir', coco, '--use_image_embedding_as_clipcap',
        '--clip_model_type', 'mini', '--lm', 'mini', '--mapping_type', 'mlp', '--prefix_length', 2, '--epochs', 1,
        '--warmup_steps', 0, '--device', 'cpu', '--out_dir', tmp_path/'run', ok=True)
    assert '--image_dir' in one_line(capdec('predict', '--data', tmp_path/'plain.json', '--out', tmp_path/'x.json',
        '--device', 'cpu', ok=False))[0]

def test_vectors_of_another_folder_are_not_taken(coco, tmp_path):
    import shutil
    args = ['predict', '--data', coco/'dataset_coco.json', '--out', tmp_path/'p.json', '--device', 'cpu', '--beam',
        'false', '--image_dir']
    capdec(*args, coco, ok=True)
    shutil.copytree(coco/'val2014', tmp_path/'copy'/'val2014')
    assert 'p.json.vectors' in one_line(capdec(*args, tmp_path/'copy', ok=False))[0]

def test_modality_bridger(coco, tmp_path, spy):
    import torch
    from safetensors.torch import save_file
    from capdec.captioner import Captioner
    from capdec.noise import ImageToTextBridge, normalize
    from capdec.store import EmbeddingStore
    d = Captioner.from_pretrained('mini', 'cpu', encoder=False).model.config.prefix_size
    net = ImageToTextBridge(d, 3)
    torch.nn.init.normal_(net.layers[0].weight, generator=torch.Generator().manual_seed(0))
    save_file(net.state_dict(), tmp_path/'b.safetensors')
    args = ['predict', '--images', coco/'val2014', '--out', tmp_path/'p.json', '--device', 'cpu']
    capdec(*args, '--modality_bridger', tmp_path/'b.safetensors', ok=True)
    torch.testing.assert_close(spy.pop(), net(normalize(EmbeddingStore(tmp_path/'p.json.vectors').vectors())).detach())
    save_file(ImageToTextBridge(d+1, 2).state_dict(), tmp_path/'wrong.safetensors')
    (tmp_path/'cut.safetensors').write_bytes(b'cut')
    for name, says in (('nowhere', 'no such file'), ('wrong', f'vectors of {d+1} numbers, not of {d}'),
            ('cut', 'not the weights')):
        assert says in one_line(capdec(*args, '--modality_bridger', tmp_path/f'{name}.safetensors', ok=False))[0]

def test_offset_of_another_width(coco, tmp_path):
    np.savez(tmp_path/'o.npz', center_image=np.ones(7, 'float32'), center_text=np.zeros(7, 'float32'))
    r = capdec('predict', '--images', coco/'val2014', '--add_modality_offset', tmp_path/'o.npz', '--out',
        tmp_path/'p.json', '--device', 'cpu', ok=False)
    assert 'vectors of 7 numbers' in one_line(r)[0]

def test_typed_shape_must_fit_the_checkpoint(coco, tmp_path, mini_config, spy):
    args = ['predict', '--images', coco/'val2014', '--out', tmp_path/'p.json', '--device', 'cpu']
    own = {'mlp': 'mlp', 'transformer': 'transformer_encoder',
        'transformer_decoder': 'transformer_decoder'}[mini_config['mapping_type']]
    capdec(*args, '--prefix_length', mini_config['prefix_length'], '--mapping_type', own, ok=True)
    for flag, v in (('--prefix_length', mini_config['prefix_length']+1),
            ('--mapping_type', 'mlp' if own != 'mlp' else 'transformer'), ('--mapping_type', 'rope')):
        assert flag in one_line(capdec(*args, flag, v, ok=False))[0]

def test_check_shape_overlooks_what_an_mlp_does_not_use():
    from capdec.folder import check_shape
    from capdec.model import CapDecConfig
    check_shape(CapDecConfig('mlp', num_layers=8), num_layers=3, prefix_length_clip=7, mapping_type='mlp',
        prefix_length=0)
    with pytest.raises(ValueError, match='num_layers 8'):
        check_shape(CapDecConfig('transformer', num_layers=8), num_layers=3)

def test_ablations_print_distances(coco, tmp_path):
    args = ['predict', '--data', coco/'dataset_coco.json', '--image_dir', coco, '--device', 'cpu']
    assert 'images 2' in (r := capdec(*args, '--ablation_dist', cwd=tmp_path, ok=True).stdout) and r.count(
        'l2_centre') == 2 and 'after the mapper' in r
    assert '(10 pairs)' in capdec(*args, '--ablation_image_dist', cwd=tmp_path, ok=True).stdout
    assert '--data' in one_line(capdec('predict', '--images', coco, '--ablation_dist', ok=False))[0]

@pytest.mark.parametrize('args', [['caption', '{d}'], ['predict', '--images', '{d}', '--out', 'x.json'],
    ['embed', '--images', '{d}', '--clip_model_type', 'mini']])
def test_batch_size_zero(coco, tmp_path, args):
    r = capdec(*[a.format(d=coco/'val2014') for a in args], '--batch_size', 0, cwd=tmp_path, ok=False)
    assert '--batch_size 0' in one_line(r)[0]

# ---- interruption

def test_interrupted_run_is_continued_with_the_same_settings_only(coco, tmp_path, monkeypatch):
    def stop(model, x, n=[0], **k):
        n[0] += 1
        if n[0] > 1:
            raise KeyboardInterrupt
        return ['A dog.']*len(x)
    monkeypatch.setattr('capdec.predict.generate', stop)
    args = ['predict', '--images', coco/'val2014', '--out', tmp_path/'p.json', '--device', 'cpu', '--batch_size', 1]
    r = capdec(*args)
    assert r.returncode == 130 and 'run the same command again' in r.stderr
    monkeypatch.setattr('capdec.predict.generate', lambda model, x, **k: ['A cat.']*len(x))
    for other in (['--dont_normalize_prefix'], ['--bridge', 'none'], ['--beam_size', 2]):
        assert 'other settings' in one_line(capdec(*args, *other, ok=False))[0]
    capdec(*args, ok=True)
    assert [o['caption'] for o in json.loads((tmp_path/'p.json').read_text())] == ['a dog.', 'a cat.']

def test_changed_weights_are_other_settings(tmp_path):
    from capdec.folder import weights_id
    f = tmp_path/'model.safetensors'
    f.write_bytes(b'12345')
    before = weights_id(tmp_path)
    os.utime(f, (1, 1))
    assert before[0] == 5 and weights_id(tmp_path) != before and weights_id('mini')[0] > 1000

def test_stopped_where_nothing_can_be_continued(monkeypatch, tmp_path):
    def stop(*a):
        raise KeyboardInterrupt
    monkeypatch.setattr('capdec.sources.write_captions', stop)
    (tmp_path/'t.txt').write_text('A dog runs.\n')
    r = capdec('parse', tmp_path/'t.txt', '--out', tmp_path/'o.json')
    assert r.returncode == 130 and r.stderr.strip() == 'capdec: stopped'

# ---- file names, warnings

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
        'b.jpg.txt', 'b.txt.txt'}
    assert (tmp_path/'b.txt').read_bytes() == photo.read_bytes()

def test_file_name_that_is_not_utf8_is_printed(tmp_path, coco): # in tables: test_caption_cli
    d = tmp_path/'d'
    d.mkdir()
    name = os.path.join(os.fsencode(d), b'caf\xe9.jpg')
    try:
        open(name, 'wb').write(next((coco/'val2014').iterdir()).read_bytes())
    except OSError:
        pytest.skip('this file system takes UTF-8 only')
    env = dict(os.environ, CUDA_VISIBLE_DEVICES='', OMP_NUM_THREADS='1', PYTHONIOENCODING='utf-8')
    r = subprocess.run([sys.executable, '-c', 'import sys; from capdec.cli import main; sys.exit(main())', 'caption',
        str(d), '--device', 'cpu'], env=env, capture_output=True, timeout=120)
    assert r.returncode == 0 and b'caf\xe9.jpg\t' in r.stdout, r.stderr

def test_warnings_are_one_line(tmp_path):
    (tmp_path/'c.json').write_text(json.dumps([dict(image_id=1, caption='A dog runs.', id=1),
        dict(image_id=2, caption=' ', id=2)]))
    r = capdec('parse', tmp_path/'c.json', '--out', tmp_path/'o.json', ok=True)
    assert r.stderr.splitlines() == [f'capdec: {tmp_path}/c.json: 1 empty caption skipped, 1 kept']


# --- styles, open text, ClipCap

def test_evaluate_measures_style_and_draws(tmp_path):
    "Style in the table, the JSON and for each image; odd languages and empty captions do no harm"
    Image.fromarray(photos.coffee()).resize((90, 60)).save(tmp_path/'1.jpg')
    Image.fromarray(photos.chelsea()).resize((90, 60)).save(tmp_path/'2.jpg')
    for i in (3, 4, 5):
        (tmp_path/f'{i}.jpg').write_bytes((tmp_path/'1.jpg').read_bytes())
    pred = ['a dog runs, full of joy', 'a cat sleeps', '一只狗在跑。', '', '🐕 $x$']
    (tmp_path/'p.json').write_text(json.dumps([dict(image_id=f'{i}.jpg', caption=c) for i, c in enumerate(pred, 1)]))
    (tmp_path/'refs.json').write_text(json.dumps([dict(image_id=f'{i}.jpg', caption='a dog runs.')
        for i in range(1, 6)]))
    lines = [f'a {c} {a} {v}' for c in ('red', 'big', 'old') for a in ('dog', 'cat', 'man') for v in ('runs', 'sleeps')]
    (tmp_path/'plain.txt').write_text('\n'.join(lines) + '\n')
    (tmp_path/'fond.txt').write_text('\n'.join(f'{o}, full of joy' for o in lines) + '\n')
    args = ['evaluate', 'p.json', '--references', 'refs.json', '--metrics', 'rouge', '--out', 's.json']
    r = capdec(*args, '--style', 'fond.txt', '--factual', 'plain.txt', '--images', '.', '--clip_model_type', 'none',
        '--gallery', 'g.png', '--by', 'rouge-l', '--training', 'plain.txt', cwd=tmp_path, ok=True)
    s = json.loads((tmp_path/'s.json').read_text())
    assert s['text']['judge_accuracy'] > .9 and s['text']['vocabulary'] >= 12 and s['text'][
        'novel'] == 1 and 'style_shown' in r.stdout
    style = {o['image_id']: o['style'] for o in s['per_image']}
    assert style['1.jpg'] > .5 > style['2.jpg'] and len(style) == 5
    assert Image.open(tmp_path/'g.png').width > 100
    for more, why in ((['--style', 'gone.txt', '--factual', 'plain.txt'], 'gone.txt'),
            (['--style', 'fond.txt'], 'give both'), (['--gallery', 'g.png'], 'needs --images'),
            (['--training', 'gone.txt'], 'gone.txt')):
        assert why in one_line(capdec(*args, *more, cwd=tmp_path, ok=False))[0]
    for more, why in ((['--gallery', 'g.png', '--by', 'CIDEr'], 'is not among what is scored'),
            (['--gallery', 'g.png', '--by', 'SPICE'], 'is not among what is scored'),
            (['--by', 'ROUGE_L'], 'in --gallery; leave it out'),
            (['--gallery', args[1]], f'--gallery {args[1]}: is the file')):
        assert why in one_line(capdec(*args, '--images', '.', '--clip_model_type', 'none', *more, cwd=tmp_path,
            ok=False))[0]

def test_image_start_then_text(tmp_path):
    "The README's road: first with images, then on open text; what a captioner was trained on decides whether it keeps its bridge"
    from capdec.captioner import Captioner
    Image.fromarray(photos.coffee()).resize((90, 60)).save(tmp_path/'a.jpg')
    Image.fromarray(photos.chelsea()).resize((90, 60)).save(tmp_path/'b.jpg')
    (tmp_path/'c.json').write_text(json.dumps([dict(image_id=f, caption=c, id=i, filename=f) for i,
        (f, c) in enumerate([('a.jpg', 'A cup of coffee.'), ('a.jpg', 'Coffee on a table.'), ('b.jpg', 'A cat.')])]))
    (tmp_path/'book.txt').write_bytes('Der Müller ging am 5. Mai nach Hause. Er schlief sehr lange. Niemand sah ihn '
        'dort. Es war still.'.encode('cp1252'))
    capdec('open-text', 'book.txt', '--encoding', 'cp1252', '--language', 'de', '--min_words', 3, '--mix', 'c.json',
        '--share', '0.25', '--out', 'm.json', cwd=tmp_path, ok=True)
    mixed = [o['caption'] for o in json.loads((tmp_path/'m.json').read_text())]
    assert len(mixed) == 4 and sum(o.startswith(('Der', 'Er', 'Niemand', 'Es')) for o in mixed) == 1
    r = capdec('open-text', 'book.txt', '--mix', 'c.json', '--share', 7, '--encoding', 'cp1252', cwd=tmp_path, ok=False)
    assert '0..1' in one_line(r)[0]
    r = capdec('embed', '--data', 'c.json', '--image_dir', '.', '--clip_model_type', 'mini', '--device', 'cpu', '--out',
        'i.store', cwd=tmp_path, ok=True)
    assert '3 vectors' in r.stdout
    fit = lambda out, start, *a: capdec('train', *a, '--pretrain_weights', start, '--clip_model_type', 'mini',
        '--epochs', 1, '--warmup_steps', 1, '--device', 'cpu', '--out_dir', out, cwd=tmp_path, ok=True)
    fit('clipcap', 'mini', '--data', 'i.store', '--use_image_embedding_as_clipcap')
    fit('voice', 'clipcap/coco_prefix_latest', '--data', 'm.json', '--noise_variance', '.004')
    fit('text', 'mini', '--data', 'm.json', '--noise_variance', '.004')
    kind = lambda f: Captioner.from_pretrained(tmp_path/f/'coco_prefix_latest', 'cpu', encoder=False).bridge
    assert kind('clipcap').kind == kind('voice').kind == 'none' and kind('text').kind == 'offset'
    assert kind('text').memory is not None
    assert '--image_dir' in one_line(capdec('embed', '--images', '.', '--image_dir', '.', '--clip_model_type', 'mini',
        cwd=tmp_path, ok=False))[0]
    r = capdec('embed', '--data', 'book.txt', '--image_dir', '.', '--clip_model_type', 'mini', cwd=tmp_path, ok=False)
    assert len(one_line(r)) == 1


# ---- data and embedding

@pytest.fixture(scope='module')
def published(tmp_path_factory):
    "Tiny copies of what the sources publish, under their own names"
    import pickle
    import zipfile
    d = tmp_path_factory.mktemp('published')
    # Kaggle's
    with zipfile.ZipFile(d/'archive.zip', 'w') as z:
        for name in ('coco', 'flickr8k', 'flickr30k'):
            z.writestr(f'dataset_{name}.json', json.dumps({'dataset': name,
                'images': [dict(filename=f'{i+1:012d}.jpg', split=s, cocoid=i+1,
                sentences=[dict(raw=f'A man of {name} {s}.', sentid=i)]) for i,
                s in enumerate(('train', 'restval', 'val', 'test'))]}))
    with zipfile.ZipFile(d/'FlickrStyle_v0.9.zip', 'w') as z:
        names = [f'{10**6+i}_0123456789.jpg' for i in range(7)]
        for folder, text in (('humor', 'funny_train.txt'), ('romantic', 'romantic_train.txt')):
            z.writestr(f'FlickrStyle_v0.9/{folder}/{text}', '\n'.join(f'a {folder} dog {i} .' for i in range(7)))
            z.writestr(f'FlickrStyle_v0.9/{folder}/train.p', pickle.dumps(names))
    (d/'factual.json').write_text(json.dumps([dict(image_id=10**6+i, caption=f'a plain dog {i} .', id=i, filename=n)
        for i, n in enumerate(names)]))
    (d/'women.txt').write_text('2\n3\n')
    (d/'books').mkdir()
    (d/'books'/'one.txt').write_text('It was a bright cold day in spring. The clocks were striking again.')
    (d/'alllines.txt').write_text('"So shaken as we are, so wan with care,"\n"Find we a time for frighted peace to '
        'pant,"\n')
    (d/'news.csv').write_text('title,text\nDog wins,"A dog has won the race in the park. Its owner was very happy."\n')
    return d

@pytest.mark.parametrize('mode,file,more,want', [('0', 'archive.zip', (), ['A man of coco train.', 'A man of coco restval.']), ('0.5', 'archive.zip', (), ['A man of coco val.']),
    ('1', 'archive.zip', (), ['A man of flickr30k train.', 'A man of flickr30k restval.']),
    ('1.5', 'archive.zip', (), ['A man of flickr30k val.']), ('2', 'FlickrStyle_v0.9.zip', (), 6), ('3', 'FlickrStyle_v0.9.zip', (), 6),
    ('4', 'FlickrStyle_v0.9.zip', ('--factual', 'factual.json'), 6),
    ('6', 'books', (), ['It was a bright cold day in spring.', 'The clocks were striking again.']),
    ('7', 'news.csv', (), 2),
    ('8', 'archive.zip', ('--images_list', 'women.txt'), ['A man of coco restval.', 'A man of coco val.']),
    ('9', 'alllines.txt', (), ['So shaken as we are so wan with care', 'Find we a time for frighted peace to pant'])])
def test_every_official_number_reads_its_source_as_published(published, tmp_path, mode, file, more, want):
    capdec('parse', file, '--dataset_mode', mode, '--out', tmp_path/'c.json', *more, cwd=published, ok=True)
    got = [o['caption'].strip('"') for o in json.loads((tmp_path/'c.json').read_text())]
    assert got == want if isinstance(want, list) else len(got) == want

@pytest.mark.parametrize('mode,file,more,want', [('0', 'archive.zip', (), ['coco val']),
    ('1', 'archive.zip', (), ['flickr30k val']), ('2', 'FlickrStyle_v0.9.zip', (), 1),
    ('3', 'FlickrStyle_v0.9.zip', (), 1),
    ('4', 'FlickrStyle_v0.9.zip', ('factual.json',), 1), ('5', 'archive.zip', (), ['coco val']),
    ('6', 'archive.zip', (), ['coco train', 'coco restval']), ('8', 'archive.zip', (), ['coco val'])])
def test_every_number_of_the_official_runner_reads_its_part(published, mode, file, more, want):
    "What `predict` captions; 7 needs a list of images and has its own test"
    from capdec.config import Selection
    from capdec.sources import captions_from
    factual = ''.join(str(published/o) for o in more)
    got = [o['caption'] for o in captions_from(published/file, Selection('val', mode, factual=factual), 'predict')]
    assert got == [f'A man of {o}.' for o in want] if isinstance(want, list) else len(got) == want

def test_books_and_plays_as_kaggle_packs_them(published, tmp_path):
    import zipfile
    for name, files in (('play.zip', ['alllines.txt']), ('books.zip', ['books/one.txt']), ('news.zip', ['news.csv'])):
        with zipfile.ZipFile(tmp_path/name, 'w') as z:
            for o in files:
                z.write(published/o, o)
    for mode, file, plain in (('6', 'books.zip', 'books'), ('7', 'news.zip', 'news.csv'),
            ('9', 'play.zip', 'alllines.txt')):
        for i, path in enumerate((tmp_path/file, published/plain)):
            capdec('parse', path, '--dataset_mode', mode, '--out', tmp_path/f'{i}.json', ok=True)
        assert (tmp_path/'0.json').read_text() == (tmp_path/'1.json').read_text()

def test_a_bad_book_does_not_lose_the_others(tmp_path):
    "What can be read is kept, what cannot is told, and the exit code says so"
    from capdec.store import EmbeddingStore
    (tmp_path/'books').mkdir()
    (tmp_path/'books'/'a.txt').write_text('A dog ran over the hill.')
    (tmp_path/'books'/'b.txt').write_bytes(b'Das Caf\xe9 ist heute zu.')
    for mode in ('harry-potter', '7', 'shakespeare'):
        r = capdec('parse', tmp_path/'books', '--dataset_mode', mode, '--out', tmp_path/'c.json')
        assert r.returncode == 1 and len(json.loads((tmp_path/'c.json').read_text())) == 1 and len(
            one_line(r)) == 1 and 'b.txt' in r.stderr
    # also when the store is there already
    for _ in range(2):
        r = capdec('embed', '--data', tmp_path/'books', '--dataset_mode', 'news', '--clip_model_type', 'mini',
            '--device', 'cpu', '--out', tmp_path/'c.store')
        assert r.returncode == 1 and EmbeddingStore(tmp_path/'c.store').captions() == ['A dog ran over the '
            'hill.'] and 'b.txt' in r.stderr
    (tmp_path/'books'/'b.txt').write_text('The cat sat on a mat.')
    capdec('parse', tmp_path/'books', '--dataset_mode', 7, '--out', tmp_path/'c.json', ok=True)

def test_seed_of_the_style_split(published, tmp_path):
    "Another seed draws another test part, the same for every verb; train and test share no photo"
    from capdec.store import EmbeddingStore
    def names(part, seed=None, mode='humorous', more=()):
        capdec('parse', published/'FlickrStyle_v0.9.zip', '--dataset_mode', f'{mode}/{part}',
            *(() if seed is None else ('--split_seed', seed)), *more, '--out', tmp_path/'c.json', ok=True)
        return {o['filename'] for o in json.loads((tmp_path/'c.json').read_text())}
    test = [names('test', s) for s in range(6)]
    assert names('test') == test[0] and len(set(map(frozenset, test))) > 1
    seed = next(s for s, o in enumerate(test) if o != test[0])
    for s in (0, seed):
        for mode, more in (('humorous', ()), ('romantic', ()), ('factual', ('--factual', published/'factual.json'))):
            train = names('train', s, mode, more)
            assert len(train) == 6 and not train & test[s] and names('test', s, mode, more) == test[s]
    capdec('embed', '--data', published/'FlickrStyle_v0.9.zip', '--dataset_mode', 2, '--split_seed', seed,
        '--clip_model_type', 'mini', '--device', 'cpu', '--out', tmp_path/'s.store', ok=True)
    assert not set(EmbeddingStore(tmp_path/'s.store').column('filename')) & test[seed]
    capdec('predict', '--data', published/'FlickrStyle_v0.9.zip', '--dataset_mode', 2, '--split_seed', seed,
        '--text_autoencoder', '--beam', 'false', '--device', 'cpu', '--out', tmp_path/'p.json', ok=True)
    assert {o['image_id'] for o in json.loads((tmp_path/'p.json').read_text())} == {int(o.split('_')[0])
        for o in test[seed]}
    for mode in ((), ('--dataset_mode', 'coco')):
        assert '--split_seed: belongs' in one_line(capdec('parse', published/'archive.zip', *mode, '--split_seed', 1,
            ok=False))[0]

def test_lengths_and_output_of_open_text(published, tmp_path):
    "The lengths count with the official cleanings too; a name that ends in .store makes a store, and goes in again by its data set's number"
    from capdec.store import EmbeddingStore
    run = lambda *a, ok=True: capdec('open-text', published/'books', *a, '--out', tmp_path/'o.json', ok=ok)
    for more, n in (((), 2), (('--official',), 2), (('--official', '--min_words', 7), 1),
            (('--shakespeare', '--min_words', 1, '--max_words', 5), 0)):
        r = run(*more, ok=bool(n))
        if n:
            assert len(json.loads((tmp_path/'o.json').read_text())) == n
        else:
            assert 'change --min_words or --max_words' in one_line(r)[0]
    assert '--min_words 30 and --max_words 20' in one_line(run('--min_words', 30, ok=False))[0] and '--share' in one_line(
        run('--mix', published/'factual.json', '--share', 2, ok=False))[0]
    capdec('open-text', published/'books', '--out', tmp_path/'b.store', ok=True)
    assert EmbeddingStore(tmp_path/'b.store').captions() == ['It was a bright cold day in spring.',
        'The clocks were striking again.']
    capdec('parse', tmp_path/'b.store', '--dataset_mode', 6, '--out', tmp_path/'again.json', ok=True)
    assert len(json.loads((tmp_path/'again.json').read_text())) == 2

def test_wrong_files_and_numbers_name_the_flag(published, tmp_path):
    (tmp_path/'two.csv').write_text('one,two\nx,y\n')
    (tmp_path/'lines.txt').write_text('A man walks his dog.\n')
    (tmp_path/'p.json').write_text('[{"image_id": 1, "caption": "a"}]')
    for args, says in ((('parse', 'lines.txt', '--dataset_mode', 0), '--dataset_mode'), (('parse', 'lines.txt', '--dataset_mode', 5), '--dataset_mode'), (('parse', published/'archive.zip'/'dataset_coco.json', '--dataset_mode', 1), '--dataset_mode'),
                       (('parse', 'two.csv', '--dataset_mode', 7), '--column'), (('open-text', 'two.csv'), '--column'),
                       (('open-text', 'lines.txt', '--official', '--shakespeare'), '--shakespeare'),
                       (('train', '--data', 'lines.txt', '--val_pt', 'gone.pkl', '--clip_model_type', 'mini',
                       '--device', 'cpu'), '--val_pt'), (('embed', '--data', 'lines.txt', '--clip_model_type', 'vit'),
                       '--clip_model_type'),
                       (('evaluate', 'p.json'), '--references'), (('data', '--path', 'lines.txt'), '--name')):
        said = one_line(capdec(*args, cwd=tmp_path, ok=False))
        assert len(said) == 1 and says in said[0] and '=...' not in said[0], said

def test_the_json_file_of_a_folder_is_meant(tmp_path):
    (tmp_path/'a.txt').write_text('A dog.\n')
    (tmp_path/'b.json').write_bytes(b'PK\3\4 no more')
    assert 'b.json: not JSON of captions' in one_line(capdec('parse', tmp_path, '--out', tmp_path/'out'/'d.json',
        ok=False))[0]

def test_parse_embed_and_back_to_the_official_tools(published, tmp_path):
    from capdec.core import load_pickle
    from capdec.store import EmbeddingStore
    capdec('parse', published/'archive.zip', '--dataset_mode', 'coco/all', '--out', tmp_path/'c.store', ok=True)
    small = ('--clip_model_type', 'mini', '--device', 'cpu')
    capdec('embed', '--data', tmp_path/'c.store', *small, ok=True)
    store = EmbeddingStore(tmp_path/'c.vectors.store')
    assert len(store) == 4 and store.meta['encoder'] == 'mini' and store.column('filename')[0] == '000000000001.jpg'
    assert capdec('embed', '--data', tmp_path/'c.vectors.store', '--out', tmp_path/'o.pkl',
        ok=True).stdout.startswith('official pickle')
    assert load_pickle(tmp_path/'o.pkl', tensors=True)['clip_embedding_text_dave'].shape == (4, 512)
    capdec('embed', '--data', tmp_path/'o.pkl', '--out', tmp_path/'again.store', ok=True)
    assert (EmbeddingStore(tmp_path/'again.store').vectors() == store.vectors()).all() and list(
        EmbeddingStore(tmp_path/'again.store').rows()) == list(store.rows())
    # the flag edits what is embedded and what is stored
    for mode, all_men in ((1, False), (3, True)):
        capdec('embed', '--data', tmp_path/'c.store', '--out', tmp_path/f'{mode}.store', '--fix_gender_imbalance_mode',
            mode, '--seed', 1, *small, ok=True)
        edited = EmbeddingStore(tmp_path/f'{mode}.store')
        assert all('man of' in c for c in edited.captions()) and edited.meta['fix_gender_imbalance_mode'] == mode
        assert all(c.startswith('A man') for c in edited.captions()) == all_men
        changed = [a != b for a, b in zip(edited.captions(), store.captions())]
        assert [bool((a != b).any()) for a, b in zip(edited.vectors(), store.vectors())] == changed

def test_images_and_captions_for_the_official_tools(tmp_path):
    from capdec.core import load_pickle
    (tmp_path/'im').mkdir()
    Image.fromarray(photos.coffee()).resize((60, 40)).save(tmp_path/'im'/'a.jpg')
    (tmp_path/'im'/'b.jpg').write_text('no image')
    (tmp_path/'c.jsonl').write_text('\n'.join(json.dumps(dict(filename=f'{n}.jpg', caption=f'{n} {i}')) for i,
        n in enumerate('aba')))
    small = ('--clip_model_type', 'mini', '--device', 'cpu')
    r = capdec('embed', '--data', tmp_path/'c.jsonl', '--image_dir', tmp_path/'im', '--out', tmp_path/'both.pkl',
        *small, ok=False)
    assert sum('b.jpg: not an image' in l for l in r.stderr.splitlines()
        if 'skipped' in l) == 1 and 'b.jpg: b.jpg' not in r.stderr
    both = load_pickle(tmp_path/'both.pkl', tensors=True)
    assert both['clip_embedding'].shape == both['clip_embedding_text_dave'].shape == (2, 512) and [o['caption']
        for o in both['captions']] == ['a 0', 'a 2']
    assert (both['clip_embedding'] - both['clip_embedding_text_dave']).abs().max() > .1
    capdec('offset', tmp_path/'both.pkl', '--out', tmp_path/'offset.safetensors', ok=True)
    r = capdec('embed', '--images', tmp_path/'im', '--out', tmp_path/'x.pkl', *small, ok=False)
    # said before anything is computed
    assert 'official pickles hold captions' in r.stderr and not (tmp_path/'x.store').exists()

@pytest.mark.parametrize('name', ['mlp','transformer'])
def test_predict_with_official_checkpoints(golden, shared, tmp_path, name):
    "An official checkpoint and an official pickle in, the official texts out, by command line alone"
    import pickle
    import torch
    query = torch.tensor(np.load(golden/f'official_{name}.npz')['query'])
    (tmp_path/'q.pkl').write_bytes(pickle.dumps(dict(clip_embedding=query, clip_embedding_text_dave=0,
        captions=[dict(image_id=i, caption='?', id=i, clip_embedding=i) for i in range(len(query))]), protocol=4))
    texts = json.loads((golden/'golden.json').read_text())['results'][name]
    common = ('predict', '--checkpoint', golden/f'official_{name}.pt', '--embeddings', tmp_path/'q.pkl', '--tokenizer',
        shared/'data'/'gpt2_bpe', '--official')
    for more, want in ((('--out', tmp_path/'beam.json'), [o[0] for o in texts['beam']]),
            (('--out', tmp_path/'greedy.json', '--beam', 'false'), texts['greedy'])):
        capdec(*common, '--lm_heads', 4, *more, ok=True)
        assert [o['caption'] for o in json.loads((tmp_path/more[1].name).read_text())] == [o.strip().lower()
            for o in want]
    assert '--lm_heads' in capdec(*common, '--out', tmp_path/'x.json', ok=False).stderr
    assert 'is no official checkpoint' in capdec('predict', '--checkpoint', 'mini', '--images', tmp_path, '--out',
        tmp_path/'x.json', '--lm_heads', 4, ok=False).stderr

def test_full_disk_is_one_line_and_what_was_there_stays(small_disk, tmp_path):
    (tmp_path/'many.txt').write_text('\n'.join(f'A dog runs along the beach number {i}.' for i in range(5000)))
    (tmp_path/'some.txt').write_text('\n'.join(f'A dog {i}.' for i in range(400)))
    (small_disk/'c.json').write_text('old')
    for args in (('parse', tmp_path/'many.txt', '--out', small_disk/'c.json'), ('parse', tmp_path/'many.txt', '--out',
        small_disk/'c.store'), ('open-text', tmp_path/'many.txt', '--out', small_disk/'c.json'),
            ('embed', '--data', tmp_path/'some.txt', '--clip_model_type', 'mini', '--device', 'cpu', '--out',
            small_disk/'v.store')):
        said = one_line(capdec(*args, ok=False))
        assert len(said) == 1 and 'cannot be written (No space left on device)' in said[0] and str(small_disk) in said[
            0], said
        assert (small_disk/'c.json').read_text() == 'old' and not list(small_disk.rglob('*.tmp')) and not (
            small_disk/'c.store').exists()

def test_full_disk_while_captioning(small_disk, album):
    with contextlib.suppress(OSError), open(small_disk/'rest', 'wb', 0) as f:
        while f.write(bytes(4096)):
            pass
    said = one_line(capdec('caption', album/'plain.jpg', '--out', small_disk/'c.csv', '--device', 'cpu', '--beam_size',
        1, ok=False))
    assert len(said) == 1 and 'c.csv' in said[0] and 'No space left on device' in said[0], said

def test_full_disk_in_training(small_disk, tmp_path):
    (tmp_path/'some.txt').write_text('\n'.join(f'A dog {i}.' for i in range(20)))
    capdec('embed', '--data', tmp_path/'some.txt', '--clip_model_type', 'mini', '--device', 'cpu', '--out',
        tmp_path/'v.store', ok=True)
    said = one_line(capdec('train', '--data', tmp_path/'v.store', '--lm', 'mini', '--mapping_type', 'mlp',
        '--prefix_length', 2, '--epochs', 1, '--device', 'cpu', '--warmup_steps', 0, '--out_dir', small_disk/'run',
        ok=False))
    assert 'cannot be written (No space left on device)' in said[-1] and str(small_disk) in said[-1], said

@pytest.mark.parametrize('content', ['', '{', '[1, 2', '[{"image_id": 1, "caption": "a d',
    '{"images": [{"split": "train"}]}', '[[[[[[', '{"annotations": [{"image_id": 1}]}', '["a", 3]', 'PK\3\4',
    '[{"caption": null}]', '"x"', '[{"image_id": {}, "caption": "a"}]',
    '{"a.jpg": ["a"], "b": 3}', '[' + '1'*6000])
def test_broken_json_is_one_line(tmp_path, content):
    (tmp_path/'b.json').write_text(content)
    r = capdec('parse', tmp_path/'b.json', '--out', tmp_path/'out.json', ok=False)
    assert len([l for l in one_line(r) if 'error' in l]) == 1 and 'b.json' in r.stderr and not (
        tmp_path/'out.json').exists()

def test_embed_of_what_is_not_there_leaves_nothing(tmp_path):
    for args in (('--data', 'missing.json'), ('--data', 'bad.json'), ('--images', 'missing/*.jpg')):
        (tmp_path/'bad.json').write_text('[{"caption": 3}]')
        r = capdec('embed', *args, '--clip_model_type', 'mini', '--device', 'cpu', '--out', 'x.store', cwd=tmp_path,
            ok=False)
        assert len(one_line(r)) == 1 and args[1].split('/')[0] in r.stderr and [p.name
            for p in tmp_path.iterdir()] == ['bad.json']

def test_several_folders_of_photos(tmp_path, album):
    (tmp_path/'two').mkdir()
    Image.fromarray(photos.coffee()).resize((80, 60)).save(tmp_path/'two'/'b.jpg')
    args = ('embed', '--images', tmp_path/'two', album/'sub', '--clip_model_type', 'mini', '--device', 'cpu')
    assert 'name the store' in capdec(*args, ok=False).stderr
    assert '2 vectors of 512 numbers' in capdec(*args, '--out', tmp_path/'v.store', ok=True).stdout
    capdec('predict', '--images', tmp_path/'two', album/'sub', '--out', tmp_path/'p.json', '--device', 'cpu', ok=True)
    assert len(json.loads((tmp_path/'p.json').read_text())) == 2
    r = capdec('demo', '--photos', tmp_path/'two', album/'sub', '--quick', '--out', tmp_path/'page', ok=True)
    assert 'b.jpg' in r.stdout and 'grey.png' in r.stdout

def test_a_pickle_of_a_store_is_all_that_is_said(tmp_path):
    (tmp_path/'c.txt').write_text('A dog runs.\nA red car.\n')
    capdec('embed', '--data', 'c.txt', '--clip_model_type', 'mini', '--device', 'cpu', cwd=tmp_path, ok=True)
    r = capdec('embed', '--data', 'c.store', '--out', 'x.pkl', cwd=tmp_path, ok=True)
    assert {l.split(': ')[1] for l in r.stdout.splitlines()} == {'x.pkl',
        'c.store'} and not (tmp_path/'x.store').exists()

def test_two_predictions_into_one_file(tmp_path, album):
    from capdec.core import claim, give_back
    lock = claim(tmp_path/'p.json.part')
    r = capdec('predict', '--images', album/'sub', '--out', tmp_path/'p.json', '--device', 'cpu', ok=False)
    assert 'p.json.part: another process is writing it' in one_line(r)[-1]
    give_back(lock)
    capdec('predict', '--images', album/'sub', '--out', tmp_path/'p.json', '--device', 'cpu', ok=True)
    assert not list(tmp_path.glob('.p.json*'))

@pytest.mark.parametrize('args,says', [(['convert', 'mini', 'x.safetensors', '--dtype', 'foo'], "dtype 'foo'"),
    (['convert', 'mini', 'x.safetensors', '--dtype', 'float16'], 'official weights stay'),
    (['open-text', 'a.txt', '--column', 'text'], 'is no table')])
def test_options_that_mean_nothing_here(tmp_path, args, says):
    (tmp_path/'a.txt').write_text('A dog runs in the snow.\n')
    r = capdec(*args, cwd=tmp_path, ok=False)
    assert len(one_line(r)) == 1 and says in r.stderr and len(list(tmp_path.iterdir())) == 1

def test_predictions_of_names_that_are_not_utf8(tmp_path, album):
    (tmp_path/'in').mkdir()
    with open(os.fsencode(tmp_path/'in')+b'/caf\xe9.png', 'wb') as f:
        f.write((album/'sub'/'grey.png').read_bytes())
    capdec('predict', '--images', tmp_path/'in', '--out', tmp_path/'p.json', '--device', 'cpu', ok=True)
    row, = json.loads((tmp_path/'p.json').read_text(encoding='utf-8'))
    assert os.fsencode(row['image_id']) == b'caf\xe9.png' and row['caption']

@pytest.mark.parametrize('e', [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to "
    "allocate 9 bytes"), RuntimeError('CUDA out of memory. Tried to allocate 9 GiB')])
def test_full_memory_is_one_line(tmp_path, monkeypatch, e):
    def fail(*a, **k):
        raise e
    monkeypatch.setattr('capdec.sources.read_captions', fail)
    (tmp_path/'a.txt').write_text('A dog runs.')
    assert 'out of memory; take smaller batches' in one_line(capdec('parse', tmp_path/'a.txt', '--out',
        tmp_path/'o.json', ok=False))[0]

def test_other_faults_are_not_called_full_memory(tmp_path, monkeypatch):
    def fail(*a, **k):
        raise RuntimeError('mat1 and mat2 shapes cannot be multiplied')
    monkeypatch.setattr('capdec.sources.read_captions', fail)
    (tmp_path/'a.txt').write_text('A dog runs.')
    with pytest.raises(RuntimeError, match='mat1'):
        capdec('parse', tmp_path/'a.txt', '--out', tmp_path/'o.json')
