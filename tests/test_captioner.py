"The captioner: what it loads and saves, and files by the thousand."
import io
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import capdec.captioner as module
import capdec.folder as folder
from capdec.embedding import open_small
from capdec.captioner import Bridge, Captioner
from capdec.config import Candidates

@pytest.fixture(scope='module')
def mini():
    return Captioner.from_pretrained('mini', 'cpu', bridge='none')

@pytest.fixture
def remembering(mini, tmp_path):
    "A captioner with a memory, saved"
    c = Captioner(mini.model, mini.encoder).remember(['A cat looks at me.', 'A cup of coffee.', 'Two\n  dogs run.'])
    return c.save(tmp_path/'mine')

def test_memory_survives(mini, remembering):
    b = Captioner.from_pretrained(remembering, 'cpu').bridge
    assert (b.kind, b.sentences) == ('memory', ['A cat looks at me.', 'A cup of coffee.', 'Two dogs run.'])

def test_saving_over_a_captioner_leaves_nothing_of_it(mini, remembering):
    Captioner(mini.model, mini.encoder).save(remembering)
    assert not (remembering/'memory.txt').exists() and not (remembering/'bridge.safetensors').exists()
    assert Captioner.from_pretrained(remembering, 'cpu').bridge.memory is None

def test_a_folder_without_a_name_is_not_this_folder(mini, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for o in (mini, mini.model):
        with pytest.raises(ValueError, match="folder '': has no name"):
            o.save('')
    Image.new('RGB', (40, 30), 'navy').save(tmp_path/'a.jpg')
    with pytest.raises(FileNotFoundError, match='a photo without a name'):
        mini('')
    with pytest.raises(ValueError, match='no captioner is named'):
        Captioner.from_pretrained('')
    with pytest.raises(ValueError, match='out_dir: is empty'):
        mini.train_on(['A dog.'], out_dir='')
    assert [o.name for o in tmp_path.iterdir()] == ['a.jpg']

def test_the_home_folder(mini, tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert mini.save('~/mine') == tmp_path/'mine' and not (tmp_path/'~').exists()
    assert Captioner.from_pretrained('~/mine', 'cpu', encoder=False).model.config == mini.model.config

def test_a_list_is_not_lost_for_an_empty_folder(mini, tmp_path):
    (tmp_path/'empty').mkdir()
    Image.new('RGB', (40, 30), 'navy').save(tmp_path/'a.jpg')
    with pytest.warns(UserWarning, match='empty: no images in this folder'):
        got = mini([tmp_path/'empty', tmp_path/'a.jpg'])
    assert got == [mini(tmp_path/'a.jpg')]
    with pytest.raises(FileNotFoundError, match='no images in this folder'):
        mini([tmp_path/'empty'])

def test_what_a_seed_says_can_be_explained(mini, tmp_path):
    Image.new('RGB', (40, 30), 'navy').save(tmp_path/'a.jpg')
    said = {s: mini(tmp_path/'a.jpg', method='sample', seed=s) for s in (1, 2, 3)}
    assert len(set(said.values())) > 1 and all(mini.explain(tmp_path/'a.jpg', 0, method='sample', seed=s).caption == t
        for s, t in said.items())

def test_damaged_bridge(remembering):
    f, t = remembering/'bridge.safetensors', remembering/'memory.txt'
    text = t.read_text()
    t.write_text(text.split('\n', 1)[1])
    with pytest.raises(ValueError, match='2 sentences, bridge.safetensors 3 vectors'):
        Captioner.from_pretrained(remembering, 'cpu')
    t.write_text(text)
    f.write_bytes(f.read_bytes()[:-50])
    with pytest.raises(ValueError, match='bridge.safetensors: damaged, cut short or no weights'):
        Captioner.from_pretrained(remembering, 'cpu')

def test_bridge_of_another_width(mini):
    with pytest.raises(ValueError, match='vectors of 5 numbers'):
        Captioner(mini.model, mini.encoder, Bridge('offset', torch.ones(5)))
    with pytest.raises(ValueError, match='vectors of 5 numbers'):
        Captioner(mini.model, mini.encoder, Bridge('memory', memory=torch.eye(5), sentences=list('abcde')))

def test_without_encoder(monkeypatch):
    def never(*a):
        raise AssertionError('loaded')
    monkeypatch.setattr(folder, 'load_encoder', never)
    c = Captioner.from_pretrained('mini', 'cpu', encoder=False)
    with pytest.raises(ValueError, match='without its encoder'):
        c([np.zeros((4, 4, 3), 'uint8')])

def test_large_photos_wait_small(mini, tmp_path, monkeypatch):
    for n, size in (('large', (3000, 1000)), ('tall', (900, 2048)), ('small', (640, 480))):
        Image.new('RGB', size, 'navy').save(tmp_path/f'{n}.jpg')
    assert [open_small(tmp_path/f'{n}.jpg').size for n in ('large', 'tall', 'small')] == [(1024, 341), (450, 1024),
        (640, 480)]
    assert isinstance(open_small(tmp_path/'none.jpg'), FileNotFoundError)
    most = []
    real = mini.encoder.encode_image
    monkeypatch.setattr(mini.encoder, 'encode_image', lambda images, **k: most.extend(max(o.size) for o in images)
        or real(images, **k))
    assert len(list(mini.caption_files([tmp_path/'large.jpg', tmp_path/'small.jpg'], beam_size=1))) == 2 and most == [
        1024, 640]

def test_captions_are_one_line(mini, tmp_path, monkeypatch):
    Image.new('RGB', (64, 64)).save(tmp_path/'a.jpg')
    class Text:
        text = ' A dog\n\truns. '
    monkeypatch.setattr('capdec.candidates.generate', lambda model, x, num_captions, **k: [[Text]*num_captions
        for _ in x])
    assert [r.captions for r in mini.caption_files([tmp_path/'a.jpg'], num_captions=2)] == [['A dog runs.']*2]
    assert [r.captions for r in mini.caption_files([tmp_path/'a.jpg'])] == [['A dog runs.']]

def test_batch_size_zero(mini):
    with pytest.raises(ValueError, match='batch_size 0'):
        list(mini.caption_files(['a.jpg'], batch_size=0))

# ---- what goes in

def test_every_kind_of_input_is_the_same_photo(mini, tmp_path):
    from skimage import data
    a = data.coffee()
    im = Image.fromarray(a)
    im.save(tmp_path/'cup.png')
    raw = (tmp_path/'cup.png').read_bytes()
    with open(tmp_path/'cup.png', 'rb') as f:
        kinds = [tmp_path/'cup.png', str(tmp_path/'cup.png'), im, a, torch.tensor(a),
            torch.tensor(a).permute(2, 0, 1)/255, raw, io.BytesIO(raw), f]
        assert len(set(mini(kinds, beam_size=1))) == 1
    assert mini(f'{tmp_path}/*.png', beam_size=1) == mini([a], beam_size=1)
    with pytest.raises(FileNotFoundError, match='no file matches this pattern'):
        mini(f'{tmp_path}/*.jpg')
    assert mini(tmp_path, beam_size=1) == [mini(a, beam_size=1)] == mini(torch.tensor(a)[None], beam_size=1)

@pytest.fixture
def web(tmp_path, monkeypatch):
    "A server on loopback: files of a folder, an endless one, and one that never answers"
    import threading, time
    from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(tmp_path))
        def log_message(self, *args):
            pass
        def do_GET(self):
            if self.path not in ('/endless', '/slow'):
                return super().do_GET()
            self.send_response(200)
            self.end_headers()
            try:
                while True:
                    self.wfile.write(b'x'*(100_000 if self.path == '/endless' else 1))
                    self.wfile.flush()
                    if self.path == '/slow':
                        time.sleep(.05)
            except OSError:
                # the client has gone
                pass
    server = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    yield f'http://127.0.0.1:{server.server_port}'
    server.shutdown()
    server.server_close()

def test_photos_from_the_web(mini, web, tmp_path):
    from capdec.core import read_url
    Image.new('RGB', (64, 48), 'navy').save(tmp_path/'a b.png')
    (tmp_path/'t.jpg').write_text('no photo')
    assert mini(f'{web}/a b.png', beam_size=1) == mini(tmp_path/'a b.png', beam_size=1)
    results = list(mini.caption_files([f'{web}/a b.png', f'{web}/none.png', f'{web}/t.jpg'], beam_size=1))
    assert [r.error and r.error.split(': ')[-1] for r in results] == [None, 'the server answers 404 File not found',
        'not an image that can be read']
    assert results[0].path == f'{web}/a b.png' and results[0].captions
    with pytest.raises(ValueError, match='larger than 1,000,000 bytes'):
        read_url(f'{web}/endless', limit=1_000_000)
    with pytest.raises(ValueError, match='not there after 3 seconds'):
        read_url(f'{web}/slow', timeout=3)

@pytest.mark.parametrize('what', [None, 3, dict(a=1)],
    ids=lambda o: type(o).__name__)
def test_what_is_no_photo_is_told_what_is(mini, what):
    with pytest.raises(ValueError, match=f'{type(what).__name__}: not an image; use a path'):
        mini(what)

def test_photos_come_in_anything_that_holds_several(mini, tmp_path):
    "A column of a table, a generator, a set, an array of names"
    import pyarrow as pa
    names = []
    for i, shade in enumerate(('navy', 'white', 'red')):
        Image.new('RGB', (64, 48), shade).save(tmp_path/f'{i}.png')
        names.append(str(tmp_path/f'{i}.png'))
    want = mini(names, beam_size=1)
    class Series(list):
        "As pandas': one dimension, no list to isinstance"
        ndim = 1
    many = [np.array(names), np.array(names, dtype=object), set(names), pa.chunked_array([names]), Series(names),
        dict.fromkeys(names).keys()]
    for o in many:
        assert mini(o, beam_size=1) == want
    assert mini((o for o in names), beam_size=1) == want
    assert mini([], beam_size=1) == mini((o for o in ()), beam_size=1) == []

def test_no_network(mini):
    with pytest.raises(ValueError, match='http://nowhere.invalid/a.jpg: cannot be fetched .*pass the file'):
        mini('http://nowhere.invalid/a.jpg')

def test_a_seed_gives_a_photo_its_captions(mini, tmp_path):
    "Whatever it is called, whatever is captioned with it, however it comes in"
    from skimage import data
    kw = dict(method='sample', temperature=1.5, max_length=12)
    for n, a in dict(cup=data.coffee(), cat=data.chelsea(), large=np.tile(data.coffee(), (1, 2, 1))).items():
        Image.fromarray(a).save(tmp_path/f'{n}.png', compress_level=1)
    paths = [tmp_path/f'{n}.png' for n in ('cup', 'cat', 'large')]
    cup, cat, large = mini(paths, seed=1, num_captions=2, **kw)
    assert cup != cat and len({*cup, *cat, *large}) > 3
    again = list(mini.caption_files([paths[2], tmp_path/'none.png', *paths[:2]], seed=1, num_captions=2, batch_size=1,
        **kw))
    assert [r.captions for r in again] == [large, [], cup, cat]
    assert mini(data.coffee(), seed=1, num_captions=2, **kw) == cup != mini(data.coffee(), seed=2, num_captions=2, **kw)
    # a photo that is there twice
    assert mini([paths[0]]*2, seed=1, num_captions=2, **kw) == [cup]*2
    for k, says in ((dict(method='beam'), "seed 1: only method 'sample' draws"),
            (kw | dict(generator=torch.Generator()), 'give one of the two')):
        with pytest.raises(ValueError, match=says):
            mini(paths[0], seed=1, **k)

# ---- devices and types

def test_an_apple_gpu_that_does_not_work_is_left(monkeypatch):
    # there is none here: every use of it fails
    monkeypatch.setattr(torch.backends.mps, 'is_available', lambda: True)
    with pytest.warns(UserWarning, match='Apple GPU cannot run this captioner'):
        c = Captioner.from_pretrained('mini', 'mps')
    assert c.device.type == 'cpu'

def test_weights_in_half_precision(mini):
    import copy
    # what a GPU runs, slowly
    c = Captioner(copy.deepcopy(mini.model).to(torch.bfloat16), mini.encoder)
    best = c(np.full((32, 32, 3), 200, 'uint8'), beam_size=2, scores=True)
    assert best.text and abs(best.score - mini(np.full((32, 32, 3), 200, 'uint8'), beam_size=2, scores=True).score) < .2

# ---- restyling, sharing

POEMS = [f'Lo, the {a} doth {b} by the {c}.' for a in ('hound', 'maid', 'knight') for b in ('run', 'sleep')
    for c in ('sea', 'hill')]

def test_train_on_returns_a_new_captioner(mini, tmp_path, monkeypatch):
    before = {k: v.clone() for k, v in mini.model.state().items()}
    (tmp_path/'poems.txt').write_text('\n'.join(POEMS) + '\n\n')
    kw = dict(steps=6, bs=8, lr=2e-3, show=False)
    new = mini.train_on(tmp_path/'poems.txt', tmp_path/'poet', **kw)
    assert all(torch.equal(v, before[k]) for k, v in mini.model.state().items()) and not mini.model.training
    assert any(not torch.equal(v, before[k]) for k, v in new.model.state().items())
    own = new.model.config.provenance['restyled']
    assert (own['sentences'], own['noise_variance'], own['mix']) == (12, mini.model.config.noise_variance,
        0) and 'restyled' not in mini.model.config.provenance
    # the checkpoints are gone
    assert not (tmp_path/'poet'/'training').exists()
    again = Captioner.from_pretrained(tmp_path/'poet', 'cpu')
    # judges choose among what it says, also when it is loaded or found again; the one it came from keeps its way
    assert new.pool == again.pool == Candidates('judges', ['none', 'none+memory:0.5'])
    assert mini.pool.choose in ('', 'beam')
    assert all(torch.equal(v, again.model.state()[k]) for k,
        v in new.model.state().items()) and again.bridge.sentences == mini.bridge.sentences
    # a list, nothing kept: the same captioner
    other = mini.train_on(POEMS, **kw)
    assert all(torch.equal(v, other.model.state()[k]) for k, v in new.model.state().items())
    monkeypatch.setattr('capdec.restyle.train', lambda *a, **k: pytest.fail('trained again'))
    done = mini.train_on(POEMS, tmp_path/'poet', **kw)
    assert done.pool == new.pool
    assert all(torch.equal(v, done.model.state()[k]) for k, v in new.model.state().items())
    with pytest.raises(ValueError, match='poet: holds another captioner'):
        mini.train_on(POEMS[1:], tmp_path/'poet', **kw)

def test_train_on_goes_on_where_it_was_stopped(mini, tmp_path, monkeypatch):
    import capdec.training as t
    kw, step, n = dict(steps=4, bs=8, show=False), t._one_step, []
    def stop(*args):
        if len(n) == 3:
            raise KeyboardInterrupt
        n.append(1)
        return step(*args)
    # after 2 steps instead of 100
    monkeypatch.setattr(t.TrainConfig, '__post_init__', lambda self: object.__setattr__(self, 'checkpoint_steps', 2))
    whole = mini.train_on(POEMS*4, mix=0, **kw)
    monkeypatch.setattr(t, '_one_step', stop)
    with pytest.raises(KeyboardInterrupt):
        mini.train_on(POEMS*4, tmp_path/'poet', mix=0, **kw)
    monkeypatch.setattr(t, '_one_step', step)
    new = mini.train_on(POEMS*4, tmp_path/'poet', mix=0, **kw)
    assert all(torch.equal(v, new.model.state()[k]) for k, v in whole.model.state().items())

def test_train_on_refuses(mini, tmp_path):
    (tmp_path/'empty.txt').write_text('\n')
    for s, kw, says in (([], {}, 'no sentences'), ([' ', ''], {}, 'no sentences'),
            (['a', 3], {}, 'text was expected, not int'), (POEMS, dict(mix=1), 'mix 1'),
            (POEMS, dict(steps=0), 'steps 0'), (tmp_path/'empty.txt', {}, 'empty.txt')):
        with pytest.raises(ValueError, match=says):
            mini.train_on(s, **kw)
    with pytest.raises(FileNotFoundError, match='nowhere.txt'):
        mini.train_on('nowhere.txt')

def test_push_to_hub_and_back(mini, tmp_path, monkeypatch):
    import huggingface_hub
    from types import SimpleNamespace
    class Api: # a hub in a folder
        def __init__(self, token=None):
            self.token = token
        def create_repo(self, repo_id, private, exist_ok):
            if self.token == 'wrong':
                raise RuntimeError('401\nInvalid token')
            return SimpleNamespace(repo_id=repo_id if '/' in repo_id else f'me/{repo_id}')
        def model_info(self, repo_id, **kwargs):
            return SimpleNamespace(siblings=[])
        def upload_folder(self, repo_id, folder_path, commit_message):
            shutil.copytree(folder_path, tmp_path/'hub'/repo_id)
            return f'https://hub/{repo_id}/commit/1'
    monkeypatch.setattr(huggingface_hub, 'HfApi', Api)
    monkeypatch.setattr(huggingface_hub, 'snapshot_download', lambda name, **k: str(tmp_path/'hub'/name))
    c = Captioner(mini.model, mini.encoder).remember(['A cat.', 'A cup of coffee.'])
    assert c.push_to_hub('poet', dtype='float16') == 'https://hub/me/poet/commit/1'
    card = (tmp_path/'hub'/'me'/'poet'/'README.md').read_text()
    assert 'from_pretrained("me/poet")' in card and '| encoder | mini@2 |' in card and '{' not in card
    again = Captioner.from_pretrained('me/poet', 'cpu')
    assert (again.bridge.kind, again.bridge.sentences) == ('memory', ['A cat.', 'A cup of coffee.'])
    with pytest.raises(ValueError, match='poet: could not be uploaded .*401 Invalid token'):
        c.push_to_hub('poet', token='wrong')

def head_of(card):
    "A card's head, as the hub reads it"
    from huggingface_hub import ModelCard
    return ModelCard(card).data

def test_a_card_tells_how_the_captioner_scores(mini, tmp_path):
    from capdec.evaluation import Scores
    from capdec.folder import card_text
    told = Scores(dict(BLEU_4=.1884, ROUGE_L=.448, CIDEr=.472), {'1': dict(caption='A cat.', CIDEr=.4)})
    file = told.save(tmp_path/'scores.json')
    for scores in (file, str(file), told.corpus):
        card = card_text(mini, 'me/poet', scores=scores, dataset='Flickr8k, test')
        head = head_of(card)
        found = {o.metric_name: (o.metric_type, o.metric_value) for o in head.eval_results}
        assert found == {'BLEU-4': ('bleu', 18.8), 'ROUGE-L': ('rouge', 44.8), 'CIDEr': ('cider', 47.2)}
        assert (head.model_name, head.eval_results[0].dataset_name) == ('poet', 'Flickr8k, test')
        assert '| BLEU_4 | ROUGE_L | CIDEr |' in card and '| 18.8 | 44.8 | 47.2 |' in card
    bare = card_text(mini, 'me/poet')
    assert head_of(bare).eval_results is None and '## Scores' not in bare and 'model-index' not in bare
    # a card of one's own
    assert card_text(mini, 'me/poet', '{name} by {encoder}, {lm}, {bridge}') == 'poet by mini@2, mini, none'

def test_a_picture_goes_with_the_card(mini, tmp_path, monkeypatch):
    import huggingface_hub
    from types import SimpleNamespace
    class Api:
        def __init__(self, token=None):
            pass
        def create_repo(self, repo_id, private, exist_ok):
            return SimpleNamespace(repo_id=repo_id)
        def upload_folder(self, repo_id, folder_path, commit_message):
            shutil.copytree(folder_path, tmp_path/'hub', dirs_exist_ok=True)
    monkeypatch.setattr(huggingface_hub, 'HfApi', Api)
    Image.new('RGB', (8, 8)).save(tmp_path/'sheet.png')
    c = Captioner(mini.model, mini.encoder)
    c.push_to_hub('me/poet', picture=tmp_path/'sheet.png')
    assert '(sheet.png)' in (tmp_path/'hub'/'README.md').read_text() and (tmp_path/'hub'/'sheet.png').exists()
    # told before anything is sent
    monkeypatch.setattr(huggingface_hub, 'HfApi', None)
    for kw, says in ((dict(picture='gone.png'), 'gone.png'), (dict(scores=dict(CIDEr=.4)), '`dataset`'),
            (dict(scores='gone.json', dataset='x'), 'gone.json')):
        with pytest.raises((ValueError, FileNotFoundError), match=says):
            c.push_to_hub('me/poet', **kw)

def test_the_bundled_card_has_the_hubs_form():
    "Its scores are those of the results page"
    from capdec.core import package_file, read_json
    root = Path(__file__).resolve().parents[1]
    head = head_of(package_file('models', 'mini', 'README.md').read_text(encoding='utf-8'))
    systems = read_json(root/'nbs'/'data'/'flickr8k_results.json')['systems']
    measured = systems['bundled captioner, no bridge (strict text-only)']
    told = {o.metric_name.replace('-', '_'): o.metric_value for o in head.eval_results}
    assert told == {k: round(100*measured[k], 1) for k in ('BLEU_1', 'BLEU_4', 'METEOR', 'ROUGE_L', 'CIDEr')}
    assert (head.library_name, head.pipeline_tag, head.license) == ('capdec', 'image-to-text', 'other')

def test_the_bundled_card_tells_the_measured_scores():
    "CIDEr of the ways on the choose halves, of the captioner and its vote on the report halves"
    from capdec.core import package_file, read_json
    card = package_file('models', 'mini', 'README.md').read_text(encoding='utf-8')
    results = read_json(Path(__file__).resolve().parents[1]/'nbs'/'data'/'flickr8k_results.json')
    cider = lambda part, row: f"{100*results[part][row]['CIDEr']:.1f}"
    vote, own = 'vote over no bridge and half its memory', 'memory of its own corpus'
    for row, told in (('no bridge', 'none'), ('modality offset', 'offset'), (own, own), (vote, '`none+memory:0.5`')):
        assert f"{told} {cider('choose', row)} / {cider('coco_choose', row)}" in card
    columns = {o.split(',')[0].strip('| '): o.strip('| ').split(' | ')[2:] for o in card.splitlines()
        if o.startswith(('| Flickr8k, 500', '| COCO, 196'))}
    bundled = 'bundled captioner, '
    assert columns == {
        'Flickr8k': [cider('systems', bundled+'no bridge (strict text-only)'), cider('systems', bundled+vote)],
        'COCO': [cider('coco', 'no bridge'), cider('coco', vote)]}

def test_push_without_a_network(mini): # HF_HUB_OFFLINE is set for all tests
    with pytest.raises(ValueError, match='me/poet: could not be uploaded'):
        Captioner(mini.model, mini.encoder).push_to_hub('me/poet', token='hf_none')

def test_explain_reads_a_file_of_sentences(mini, tmp_path):
    (tmp_path/'s.txt').write_text('A dog on a beach.\nA red car in a street.\n')
    photo = np.full((32, 32, 3), 200, 'uint8')
    assert [s for s, _ in mini.explain(photo, sentences=tmp_path/'s.txt').nearest] == [s for s,
        _ in mini.explain(photo, sentences=(tmp_path/'s.txt').read_text().splitlines()).nearest]

def test_counts_must_be_whole_numbers(mini):
    import capdec.explain
    photo = np.full((32, 32, 3), 200, 'uint8')
    for call, says in (
            (lambda: mini.explain(photo, n=-1), 'n -1: at least 0'),
            (lambda: mini.nearest(photo, n=2.5), 'n 2.5: a whole number'),
            (lambda: mini(photo, num_captions='2'), "num_captions '2'"),
            (lambda: mini(photo, batch_size=0), 'batch_size 0'),
            (lambda: mini.train_on(['A dog.'], steps=1.5), 'steps 1.5'),
            (lambda: next(mini.caption_files(['a.jpg'], batch_size='3')), "batch_size '3'"),
            (lambda: mini.train_on(POEMS, bs=2.5), 'bs 2.5: a whole number'), (lambda: mini.train_on(POEMS, bs=0),
            'bs 0: at least 1'), (lambda: mini.train_on(POEMS, seed=1.5), 'seed 1.5'),
            (lambda: mini.embed([photo], 2.5), 'batch_size 2.5'),
            (lambda: capdec.explain.likely_words(mini, mini.embed([photo]), samples=2.5), 'samples 2.5'),
            (lambda: capdec.explain.prefix_tokens(mini.model, mini.embed([photo]), 0), 'n 0: at least 1'),
            (lambda: mini(photo, method='sample', seed=1.5), 'seed 1.5')):
        with pytest.raises(ValueError, match=says):
            call()

def test_explanations_show_the_highest_bar_on_top():
    from capdec.explain import Explanation
    e = Explanation('A dog runs.', -.5, [('A', .2), ('dog', .9), ('runs', .5)],
        [('one', .1), ('two', .3), ('three', .2)], [('cat', .4), ('dog', .6)], [[('a', .1)]], .1)
    words, near, likely = (next(ax for ax in e.plot().axes if ax.get_title().startswith(o))
        for o in ('How sure', 'Nearest', 'Words'))
    for ax, heights, names in ((near, [.3, .2, .1], ['two', 'three', 'one']), (likely, [.6, .4], ['dog', 'cat'])):
        assert ax.yaxis_inverted() and [o.get_width() for o in ax.patches] == heights and [o.get_text().split()[0]
            for o in ax.texts] == names
    # as they are read
    assert [o.get_height() for o in words.patches] == [.2, .9, .5] and [o.get_text()
        for o in words.get_xticklabels()] == ['A', 'dog', 'runs']

def test_a_learning_rate_that_destroys_is_told(mini):
    with pytest.warns(UserWarning, match='lr 1: a loss of .* cannot speak'):
        mini.train_on([f'A dog number {i} runs.' for i in range(20)], steps=20, bs=4, lr=1, show=False)
