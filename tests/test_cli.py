"What all verbs share: whole roads, help, bad input, interruption"
import json
import os

import pytest
from PIL import Image
from skimage import data as photos

from shell import capdec, capdec_process, one_line, COCO_NAMES

pytestmark = pytest.mark.usefixtures('one_encoder')

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
    (['embed', '--data', '{text}', '--clip_model_type', 'mini', '--device', 'mps'], 'no Apple GPU here; use cpu'),
    (['predict', '--images', '{album}', '--out', 'p.json', '--device', 'mps'], 'no Apple GPU here; use cpu'),
    (['train', '--data', '{text}', '--clip_model_type', 'mini', '--lm', 'mini', '--device', 'mps'],
        'no Apple GPU here; use cpu'),
    (['caption', '{album}', '--model', '{empty}'], 'config.json'),
    (['caption', '{album}', '--device', 'cuda'], 'CUDA'),
    (['caption', '{album}', '--bridge', 'rope'], 'none, offset, mean'),
    (['caption', '{album}', '--device', 'cpu', '--beam_size', '0'], 'beam_size 0: at least 1'),
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
    "The whole road: sentences, odd ones too -> captioner -> captions, scores; a second run of train has nothing to do"
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
    # a warning about so few captions comes first
    assert 'holds a run with noise_variance' in one_line(r)[-1]
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

def test_every_verb_has_help_with_examples():
    from capdec.cli import VERBS
    listing = capdec('--help', ok=True).stdout
    for v in VERBS:
        assert v in listing
        out = capdec(v, '--help', ok=True).stdout
        assert 'examples:' in out and f'capdec {v}' in out.split('examples:')[1]
    assert capdec('paint').returncode == 2 and capdec('caption', '--colour').returncode == 2

def test_the_help_shows_what_may_stand_without_its_flag():
    "The usage begins with it, and beside it stand its flags; other flags are named as one types them"
    import re
    from capdec.cli import LOOSE, VERBS, verb_parser
    assert capdec('styles', '--help', ok=True).stdout.startswith('usage: capdec styles [NAMES ...] [flags]\n')
    for v in VERBS:
        parser, text = verb_parser(v), capdec(v, '--help', ok=True).stdout
        usage = text.splitlines()[0]
        needed = [a.dest for a in parser._actions if not a.option_strings]
        words = [o.upper() for o in needed] + [f'[{o.upper()}' for o in LOOSE.get(v, ())]
        assert [o.rstrip(']') for o in usage.split()[3:-1] if o.strip('.]')] == words, usage
        for o in (*needed, *LOOSE.get(v, ())):
            assert re.search(rf'^  {o.upper()}( \.\.\.)?, -', text, re.M) and f'--{o}' in text, (v, o)
        flags = {a.dest for a in parser._actions}
        assert [o for o in re.findall(r'`(\w+)`', text) if o in flags] == [], v
        # what is shown is taken
        for o in needed:
            given = [f'--{o}', 'x'], ['x']
            assert len({str(parser.parse_args([w for k in needed for w in ([f'--{k}', 'x'] if k != o else one)]))
                for one in given}) == 1

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

@pytest.mark.parametrize('args', [['caption', '{d}'], ['predict', '--images', '{d}', '--out', 'x.json'],
    ['embed', '--images', '{d}', '--clip_model_type', 'mini']])
def test_batch_size_zero(coco, tmp_path, args):
    r = capdec(*[a.format(d=coco/'val2014') for a in args], '--batch_size', 0, cwd=tmp_path, ok=False)
    assert '--batch_size 0' in one_line(r)[0]

def test_stopped_where_nothing_can_be_continued(monkeypatch, tmp_path):
    def stop(*a):
        raise KeyboardInterrupt
    monkeypatch.setattr('capdec.sources.write_captions', stop)
    (tmp_path/'t.txt').write_text('A dog runs.\n')
    r = capdec('parse', tmp_path/'t.txt', '--out', tmp_path/'o.json')
    assert r.returncode == 130 and r.stderr.strip() == 'capdec: stopped'

def test_warnings_are_one_line(tmp_path):
    (tmp_path/'c.json').write_text(json.dumps([dict(image_id=1, caption='A dog runs.', id=1),
        dict(image_id=2, caption=' ', id=2)]))
    r = capdec('parse', tmp_path/'c.json', '--out', tmp_path/'o.json', ok=True)
    assert r.stderr.splitlines() == [f'capdec: {tmp_path}/c.json: 1 empty caption skipped, 1 kept']

def test_image_start_then_text(tmp_path):
    """The README's road: first with images, then on open text; what a captioner was trained on decides whether it keeps
    its bridge"""
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
    # a captioner with a way of its own
    Captioner.from_pretrained('mini', 'cpu', bridge='offset').save(tmp_path/'start')
    fit('clipcap', 'start', '--data', 'i.store', '--use_image_embedding_as_clipcap')
    fit('voice', 'clipcap/coco_prefix_latest', '--data', 'm.json', '--noise_variance', '.004')
    fit('text', 'start', '--data', 'm.json', '--noise_variance', '.004')
    bridge = lambda f: Captioner.from_pretrained(tmp_path/f/'coco_prefix_latest', 'cpu', encoder=False).bridge
    assert [bridge(o).kind for o in ('clipcap', 'voice', 'text')] == ['none', 'none', 'offset']
    assert all(bridge(o).memory is not None and bridge(o).concepts.names for o in ('clipcap', 'voice', 'text'))
    assert '--image_dir' in one_line(capdec('embed', '--images', '.', '--image_dir', '.', '--clip_model_type', 'mini',
        cwd=tmp_path, ok=False))[0]
    r = capdec('embed', '--data', 'book.txt', '--image_dir', '.', '--clip_model_type', 'mini', cwd=tmp_path, ok=False)
    assert len(one_line(r)) == 1

def test_wrong_files_and_numbers_name_the_flag(published, tmp_path):
    (tmp_path/'two.csv').write_text('one,two\nx,y\n')
    (tmp_path/'lines.txt').write_text('A man walks his dog.\n')
    (tmp_path/'p.json').write_text('[{"image_id": 1, "caption": "a"}]')
    for args, says in (
            (('parse', 'lines.txt', '--dataset_mode', 0), '--dataset_mode'),
            (('parse', 'lines.txt', '--dataset_mode', 5), '--dataset_mode'),
            (('parse', published/'archive.zip'/'dataset_coco.json', '--dataset_mode', 1), '--dataset_mode'),
                       (('parse', 'two.csv', '--dataset_mode', 7), '--column'), (('open-text', 'two.csv'), '--column'),
                       (('open-text', 'lines.txt', '--official', '--shakespeare'), '--shakespeare'),
                       (('train', '--data', 'lines.txt', '--val_pt', 'gone.pkl', '--clip_model_type', 'mini',
                       '--device', 'cpu'), '--val_pt'), (('embed', '--data', 'lines.txt', '--clip_model_type', 'vit'),
                       '--clip_model_type'),
                       (('evaluate', 'p.json'), '--references'), (('data', '--path', 'lines.txt'), '--name')):
        said = one_line(capdec(*args, cwd=tmp_path, ok=False))
        assert len(said) == 1 and says in said[0] and '=...' not in said[0], said

def test_parse_embed_and_back_to_the_official_tools(published, tmp_path):
    from capdec.core import load_pickle
    from capdec.store import EmbeddingStore
    capdec('parse', published/'archive.zip', '--dataset_mode', 'coco/all', '--out', tmp_path/'c.store', ok=True)
    small = ('--clip_model_type', 'mini', '--device', 'cpu')
    capdec('embed', '--data', tmp_path/'c.store', *small, ok=True)
    store = EmbeddingStore(tmp_path/'c.vectors.store')
    assert len(store) == 4 and store.meta['encoder'] == 'mini@2' and store.column('filename')[0] == '000000000001.jpg'
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

def test_full_disk_is_one_line_and_what_was_there_stays(small_disk, tmp_path):
    (tmp_path/'many.txt').write_text('\n'.join(f'A dog runs along the beach number {i}.' for i in range(5000)))
    (tmp_path/'some.txt').write_text('\n'.join(f'A dog {i}.' for i in range(400)))
    (small_disk/'c.json').write_text('["old"]')
    for args in (('parse', tmp_path/'many.txt', '--out', small_disk/'c.json'), ('parse', tmp_path/'many.txt', '--out',
        small_disk/'c.store'), ('open-text', tmp_path/'many.txt', '--out', small_disk/'c.json'),
            ('embed', '--data', tmp_path/'some.txt', '--clip_model_type', 'mini', '--device', 'cpu', '--out',
            small_disk/'v.store')):
        said = one_line(capdec(*args, ok=False))
        assert len(said) == 1 and 'cannot be written (No space left on device)' in said[0] and str(small_disk) in said[
            0], said
        assert (small_disk/'c.json').read_text() == '["old"]' and not list(small_disk.rglob('*.tmp')) and not (
            small_disk/'c.store').exists()

@pytest.mark.parametrize('content', ['', '{', '[1, 2', '[{"image_id": 1, "caption": "a d',
    '{"images": [{"split": "train"}]}', '[[[[[[', '{"annotations": [{"image_id": 1}]}', '["a", 3]', 'PK\3\4',
    '[{"caption": null}]', '"x"', '[{"image_id": {}, "caption": "a"}]',
    '{"a.jpg": ["a"], "b": 3}', '[' + '1'*6000])
def test_broken_json_is_one_line(tmp_path, content):
    (tmp_path/'b.json').write_text(content)
    r = capdec('parse', tmp_path/'b.json', '--out', tmp_path/'out.json', ok=False)
    assert len([l for l in one_line(r) if 'error' in l]) == 1 and 'b.json' in r.stderr and not (
        tmp_path/'out.json').exists()

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

def test_flags_of_captions_without_captions(coco, tmp_path):
    for flag in (['--dataset_mode', 99], ['--images_list', 'l.txt'], ['--factual', 'f.json'], ['--image_dir', coco]):
        assert 'belongs to --data' in one_line(capdec('predict', '--images', coco, *flag, '--out', tmp_path/'x.json',
            ok=False))[0]
        assert 'belongs to --data' in one_line(capdec('embed', '--images', coco, *flag, '--clip_model_type', 'mini',
            '--out', tmp_path/'x', ok=False))[0]
    for flag in (['--dataset_mode', 5], ['--text_autoencoder']):
        assert 'captions go in' in one_line(capdec('predict', '--images', coco, *flag, '--out', tmp_path/'x.json',
            ok=False))[0]

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

@pytest.mark.parametrize('args,says', [
    (['capton', 'a.jpg'], "no verb 'capton'; did you mean caption?"),
    (['xyz'], "no verb 'xyz'; use demo, caption"),
    (['caption', 'a.jpg', '--modle', 'mini'], 'no flag --modle; did you mean --model?'),
    (['train', '--data', 'a.json', '--noise_varience=0.01'],
        'no flag --noise_varience; did you mean --noise_variance?'),
    (['data', 'flickr8k', 'a', 'b'], "what is 'b' for?")])
def test_mistyped_words_are_asked_about(args, says):
    r = capdec(*args)
    assert r.returncode == 2 and says in one_line(r)[0] and len(r.stderr.splitlines()) == 1
