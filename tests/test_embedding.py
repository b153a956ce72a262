"What a story cannot show of capdec.embedding: parity with plain towers, processes that die, encoders, bad input"
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from PIL import Image

import capdec.embedding as E
from capdec.embedding import import_clip
from capdec.embedding import (CLIP_MODELS,ClipTokenizer,Encoder,HFEncoder,OpenAIClip,chunks,embed_captions,embed_images,
    load_encoder,prefix_tree,read_ahead)
from towers import random_clip,save_hf

LONG = ' '.join(['word']*500)
CAPTIONS = ['A dog runs along the beach.', 'A dog runs along the beach.', 'A dog', 'a dog runs',
    'Two men ride horses in the rain, seen from very far away, at night.', 'ein Hund läuft 🐕', '犬が走る',
    'end <|endoftext|> inside', LONG, 'a', '.', 'A dog runs along the road.', ' '.join(['word']*75),
    ' '.join(['word']*76)]

@pytest.fixture(scope='module')
def tiny():
    return OpenAIClip(random_clip(), device='cpu')

def files(path):
    return {o.name: o.read_bytes() for o in path.iterdir() if o.name != '.lock'}
def records(captions):
    return [dict(image_id=i//5, caption=c, id=i, filename=None) for i,c in enumerate(captions)]

# ---- the same vectors as the plain tower at 77 tokens

@pytest.mark.parametrize('name', ['RN50x4', 'ViT-B/32'])
def test_short_context_gives_the_same_vectors(name):
    clip = import_clip()
    model = random_clip(name)
    tokens = clip.tokenize(CAPTIONS, truncate=True)
    with torch.no_grad():
        full = model.encode_text(tokens)
    for batch_size in (None, 3):
        with pytest.warns(UserWarning, match='^captions longer than the 77 tokens that custom CLIP reads, and cut '
                'there: 2$'):
            got = OpenAIClip(model, device='cpu').encode_text(CAPTIONS, batch_size=batch_size, show=False)
        assert full.abs().mean() > 0.1 and (got-full).abs().max() <= 1e-5
    # and they do differ from caption to caption
    assert (got[0]-got[2]).abs().max() > 0.05

ids_of = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=6), min_size=1, max_size=12)
@settings(deadline=None)
@given(ids_of, st.booleans())
def test_prefix_tree(ids, in_order):
    if in_order:
        ids = sorted(ids)
    t = prefix_tree(ids)
    distinct = {tuple(o[:i+1]) for o in ids for i in range(len(o))}
    assert len(t['token']) >= len(distinct) and (len(t['token']) == len(distinct) or not in_order)
    begin = [None]*len(t['token'])
    for o,nodes in zip(ids, t['node'].tolist()):
        # a node stands for one beginning, whichever caption it is met in
        for i in range(len(o)):
            assert begin[nodes[i]] in (None, tuple(o[:i+1]))
            begin[nodes[i]] = tuple(o[:i+1])
            assert t['token'][nodes[i]] == o[i] and t['position'][nodes[i]] == i
    n = max(len(o) for o in ids)
    assert t['end'].tolist() == [i*n+len(o)-1 for i,o in enumerate(ids)]
    assert t['node'].flatten()[t['first']].tolist() == list(range(len(t['token'])))

@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(), st.text(st.characters(max_codepoint=126)),
    st.lists(st.sampled_from(['&amp;','&','<','>',"don't",'<|endoftext|>','\t','  ','A','b1','_','#!','é','“','ﬁ',
    '\x1b[1m','&lt']), max_size=8).map(' '.join)))
def test_tokenizer_is_clips_own(text):
    clip = import_clip()
    row = clip.tokenize([text], truncate=True)[0]
    (ids,),cut = ClipTokenizer()([text])
    assert ids == row[:len(ids)].tolist() and not row[len(ids):].any()
    assert cut == (1 if len(clip.clip._tokenizer.encode(text))+2 > 77 else 0)

def test_a_surrogate_does_not_stop_it(tiny):
    assert torch.isfinite(tiny.encode_text(['half a dog \ud83d'])).all()

def test_windows_and_batches_do_not_matter(tiny, monkeypatch):
    caps = [c for c in CAPTIONS if len(c) < 100]*3
    want = torch.cat([tiny.encode_text([c]) for c in caps])
    monkeypatch.setattr(E, 'WINDOW', 7)
    for b in (1, 2, 5, 100):
        torch.testing.assert_close(tiny.encode_text(caps, batch_size=b, show=False), want, atol=1e-5, rtol=0)
    monkeypatch.setattr(E, 'WINDOW', 1)
    with warnings.catch_warnings(record=True) as w:
        warnings.simplefilter('always')
        tiny.encode_text([LONG, 'a', LONG, LONG], show=False)
    assert [str(o.message)[-12:] for o in w] == ['cut there: 3']

def test_nothing_in_nothing_out(tiny):
    assert tiny.encode_text([]).shape == (0, 16) and tiny.encode_image([]).shape == (0, 16)

def test_vectors_can_be_trained_on(tiny):
    w = torch.zeros(16, 1, requires_grad=True)
    (tiny.encode_text(['a dog']) @ w + tiny.encode_image([Image.new('RGB', (9, 9))]) @ w).sum().backward()
    assert w.grad.abs().sum() > 0

def test_bfloat16_is_near():
    a,b = (OpenAIClip(random_clip('tiny', 'vit'), device='cpu', dtype=d) for d in ('float32','bfloat16'))
    assert b.model.dtype == torch.bfloat16 and b.encode_text(['a dog']).dtype == torch.float32
    assert torch.cosine_similarity(a.encode_text(CAPTIONS[:5]), b.encode_text(CAPTIONS[:5])).min() > 0.99
    im = [Image.effect_noise((80, 60), 90)]
    assert torch.cosine_similarity(a.encode_image(im), b.encode_image(im)).min() > 0.99

@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_half_precision_on_a_gpu():
    a,b = OpenAIClip(random_clip('ViT-B/32', 'vit'), device='cpu'),OpenAIClip(random_clip('ViT-B/32', 'vit'),
        device='cuda')
    assert b.dtype == torch.float16
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        x,y = a.encode_text(CAPTIONS),b.encode_text(CAPTIONS)
    assert y.device.type == 'cuda' and torch.cosine_similarity(x, y.cpu()).min() > 0.999
    im = [Image.effect_noise((80, 60), 90)]*3
    assert torch.cosine_similarity(a.encode_image(im), b.encode_image(im).cpu()).min() > 0.999

@pytest.mark.parametrize('image', ['rn', 'vit'])
def test_images_as_clip_prepares_them(image, tmp_path):
    clip = import_clip()
    model = random_clip('tiny', image)
    rng = np.random.default_rng(0)
    ims = [Image.fromarray(rng.integers(0, 255, (h,w,3), dtype=np.uint8)) for h,
        w in ((64,64), (90,150), (300,70), (10,12), (64,65))]
    with torch.no_grad():
        want = model.encode_image(torch.stack([clip.clip._transform(64)(o) for o in ims]))
    paths = []
    for i,o in enumerate(ims):
        o.save(tmp_path/f'{i}.png')
        paths.append(tmp_path/f'{i}.png')
    enc = OpenAIClip(model, device='cpu')
    for batch_size in (2, 32):
        torch.testing.assert_close(enc.encode_image(paths, batch_size=batch_size, show=False), want, atol=1e-5,
            rtol=1e-5)
    torch.testing.assert_close(enc.encode_image([np.array(o) for o in ims]), want, atol=1e-5, rtol=1e-5)

def test_a_thin_strip_does_not_fill_the_memory(tiny):
    pytest.importorskip('resource')
    # in a process of its own: the peak of this one is that of all tests before
    code = """
import resource, sys
sys.path.insert(0, sys.argv[1])
import torch
from PIL import Image
from capdec.embedding import OpenAIClip
from towers import random_clip
tiny = OpenAIClip(random_clip(), device='cpu')
tiny.encode_image([Image.new('RGB', (64, 64))])
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = peak()
assert torch.isfinite(tiny.encode_image([Image.new('RGB', (60_000, 1)), Image.new('RGB', (1, 60_000))])).all()
print(peak() - before)
"""
    r = subprocess.run([sys.executable, '-c', code, str(Path(__file__).parent)], capture_output=True, text=True)
    # KB; the strip scaled to 64 pixels high has 740 MB
    assert r.returncode == 0 and int(r.stdout) < 200_000, r.stdout + r.stderr[-2000:]

# ---- loading

def test_weights_from_a_file(tmp_path, tiny):
    model = random_clip()
    torch.save({k: v.half() for k,v in model.state_dict().items()}, tmp_path/'my.pt')
    enc = load_encoder(tmp_path/'my.pt', device='cpu')
    assert isinstance(enc, OpenAIClip) and enc.name == 'my.pt' and enc.dim == 16 and enc.size == 64
    assert torch.cosine_similarity(enc.encode_text(['a dog', 'a cat']),
        tiny.encode_text(['a dog', 'a cat'])).min() > 0.999

@pytest.mark.parametrize('content', [b'', b'hello', b'PK\x03\x04' + bytes(100)])
def test_a_file_that_holds_no_clip(tmp_path, content):
    (tmp_path/'bad.pt').write_bytes(content)
    with pytest.raises(ValueError, match='bad.pt: damaged, cut short or no weights') as e:
        load_encoder(str(tmp_path/'bad.pt'), device='cpu')
    assert '\n' not in str(e.value)

def test_a_file_with_other_weights(tmp_path):
    torch.save({'a': torch.zeros(3)}, tmp_path/'other.pt')
    with pytest.raises(ValueError, match='not weights'):
        load_encoder(tmp_path/'other.pt', device='cpu')
    whole = tmp_path/'whole.pt'
    torch.save(random_clip().state_dict(), whole)
    (tmp_path/'cut.pt').write_bytes(whole.read_bytes()[:5000])
    with pytest.raises(ValueError, match='cut.pt: damaged, cut short or no weights'):
        load_encoder(tmp_path/'cut.pt', device='cpu')

def test_no_network(monkeypatch, tmp_path):
    clip = import_clip()
    def fails(*args):
        raise urllib.error.URLError('no network')
    monkeypatch.setattr(clip.clip, '_download', fails)
    with pytest.raises(OSError, match='RN50x4: its weights are not on this machine.*where there is a network, download '
            'https://.*RN50x4.pt.*mini') as e:
        load_encoder('RN50x4', device='cpu', download_root=str(tmp_path))
    assert '\n' not in str(e.value)
    monkeypatch.setattr(E, '_hub_out_of_reach', lambda: True)
    start = time.process_time()
    with pytest.raises(OSError, match='hf download openai/clip-vit-base-patch32 --local-dir.*mini') as e:
        load_encoder('openai/clip-vit-base-patch32', device='cpu', download_root=str(tmp_path))
    assert '\n' not in str(e.value) and time.process_time()-start < 20

@pytest.mark.parametrize('name,error,what', [('ViT-B-32', ValueError, 'use mini, RN50'),
    ('gone.pt', FileNotFoundError, 'no such file'), ('a/b/c', ValueError, 'use mini')])
def test_names_that_are_none(name, error, what):
    with pytest.raises(error, match=what):
        load_encoder(name, device='cpu')

def test_a_folder_that_is_no_encoder(tmp_path):
    with pytest.raises(ValueError, match='not a CLIP or SigLIP folder'):
        load_encoder(tmp_path, device='cpu')

def test_the_mini_encoder_by_name_and_folder():
    a = load_encoder('mini', device='cpu')
    from capdec.core import package_file
    b = load_encoder(package_file('models','mini','encoder'), device='cpu')
    assert isinstance(a, Encoder) and a.dim == b.dim and torch.equal(a.encode_text(['a dog']), b.encode_text(['a dog']))

def test_names_are_those_of_the_package():
    clip = import_clip()
    assert list(CLIP_MODELS) == clip.available_models()

def test_hugging_face_clip(tmp_path):
    model = save_hf(tmp_path/'c', 'clip')
    enc = load_encoder(str(tmp_path/'c'), device='cpu')
    tok,proc = enc.tokenizer,enc.processor
    with torch.no_grad():
        want = model.get_text_features(**tok(CAPTIONS, padding='max_length', truncation=True, max_length=77,
            return_tensors='pt')).pooler_output
    with pytest.warns(UserWarning, match='cut there: 2'):
        got = enc.encode_text(CAPTIONS, batch_size=4, show=False)
    torch.testing.assert_close(got, want, atol=1e-5, rtol=0)
    ims = [Image.effect_noise((50, 40), 90).convert('RGB'), Image.new('RGB', (32, 64), 'red')]
    with torch.no_grad():
        want = model.get_image_features(**proc(images=ims, return_tensors='pt')).pooler_output
    torch.testing.assert_close(enc.encode_image(ims), want, atol=1e-5, rtol=0)
    assert isinstance(enc, Encoder) and enc.dim == 24 and enc.name == 'c'

def test_siglip_sees_all_its_64_tokens(tmp_path):
    model = save_hf(tmp_path/'s', 'siglip')
    enc = HFEncoder(tmp_path/'s', device='cpu')
    caps = ['a dog runs on the beach', 'two men', LONG, 'a cat .']
    with torch.no_grad():
        want = model.get_text_features(**enc.tokenizer(caps, padding='max_length', truncation=True, max_length=64,
            return_tensors='pt')).pooler_output
    with pytest.warns(UserWarning, match='longer than the 64 .* cut there: 1'):
        got = enc.encode_text(caps, show=False)
    torch.testing.assert_close(got, want, atol=1e-5, rtol=0)
    assert enc.dim == 32 and enc.encode_image([Image.new('RGB', (5, 7))]).shape == (1, 32)

# ---- captions into a store

def test_like_encode_text(tiny, tmp_path):
    caps = [f'{a} {b} number {i}' for i in range(9) for a in ('a dog','two men') for b in ('run','ride')]
    s = embed_captions(iter(records(caps)), tiny, tmp_path/'s', shard_rows=10, dtype='float32', show=False,
        meta=dict(source='x'))
    torch.testing.assert_close(s.vectors(), tiny.encode_text(caps, show=False), atol=1e-5, rtol=0)
    assert list(s.rows()) == records(caps) and s.meta['source'] == 'x' and s.meta[
        'encoder'] == 'custom CLIP' and not s.meta['normalised']
    before = files(tmp_path/'s')
    # once more: nothing to do
    embed_captions(records(caps), tiny, tmp_path/'s', shard_rows=10, dtype='float32', show=False, meta=dict(source='x'))
    assert files(tmp_path/'s') == before

def test_what_cannot_be_continued(tiny, tmp_path):
    rows = records(['a', 'b', 'c', 'd', 'e'])
    def breaks(n):
        yield from rows[:n]
        raise RuntimeError
    with pytest.raises(RuntimeError):
        embed_captions(breaks(4), tiny, tmp_path/'s', shard_rows=2, show=False)
    go = lambda r, enc=tiny, **kw: embed_captions(r, enc, tmp_path/'s', **{**dict(shard_rows=2, show=False), **kw})
    for r,what in ((rows[:1], 'row 1 differs'), ([rows[0], rows[2]], 'row 1 differs'),
            ([{**rows[0], 'image_id': '0'}, rows[1]], 'row 0 differs')):
        with pytest.raises(ValueError, match=what):
            go(r)
    with pytest.raises(ValueError, match='batch_size: 64, now 3'):
        go(rows, batch_size=3)
    with pytest.raises(ValueError, match='dtype'):
        go(rows, dtype='float32')
    with pytest.raises(ValueError, match='other weights'):
        go(rows, OpenAIClip(random_clip(seed=1), device='cpu'))
    assert len(go(rows)) == 5
    with pytest.raises(ValueError, match='ended after 5 captions'):
        go(rows + records('f'))
    with pytest.raises(ValueError, match='row 4 differs'):
        go(rows[:4])
    with pytest.raises(ValueError, match='no captions'):
        embed_captions([], tiny, tmp_path/'none', show=False)

def test_one_warning_for_a_whole_data_set(tiny, tmp_path):
    with warnings.catch_warnings(record=True) as w:
        warnings.simplefilter('always')
        embed_captions(records([LONG, 'a', LONG, 'b', LONG]), tiny, tmp_path/'s', shard_rows=2, show=False)
    assert [str(o.message)[-12:] for o in w if o.category is UserWarning] == ['cut there: 3']

def test_any_object_of_the_protocol_will_do(tmp_path):
    class Letters:
        name,dim,device = 'letters',2,torch.device('cpu')
        def encode_text(self, texts, batch_size=256, show=True):
            return torch.tensor([[len(t), t.count('a')] for t in texts]).float()
        def encode_image(self, images, batch_size=32, show=True):
            return torch.tensor([[o.width, o.height] for o in images]).float()
    assert isinstance(Letters(), Encoder)
    assert embed_captions(records(['a dog', 'abba']), Letters(), tmp_path/'t', show=False).vectors().tolist() == [[5,
        1], [4, 2]]
    Image.new('RGB', (3, 4)).save(tmp_path/'i.png')
    class Files(Letters):
        def encode_image(self, images, batch_size=32, show=True):
            from capdec.core import open_image
            return super().encode_image([open_image(o) for o in images])
    assert embed_images([tmp_path/'i.png'], Files(), tmp_path/'i', show=False).vectors().tolist() == [[3, 4]]

def _many(die_at=None):
    for i in range(120):
        if i == die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        yield dict(image_id=i//5, caption=f"{'a dog' if i%3 else 'two men'} {'run'*(i%4)} number {i}", id=i,
            filename=None)

def _embed(out, die_at=None):
    return embed_captions(_many(die_at), OpenAIClip(random_clip(), device='cpu'), out, shard_rows=7, batch_size=4,
        show=False)

def test_kill_minus_nine_and_go_on(tmp_path):
    code = 'import sys; sys.path.insert(0, sys.argv[1]); from test_embedding import _embed; _embed(sys.argv[2], 60)'
    p = subprocess.run([sys.executable, '-c', code, str(Path(__file__).parent), str(tmp_path/'s')],
        stderr=subprocess.DEVNULL)
    assert p.returncode == -signal.SIGKILL
    index = json.loads((tmp_path/'s'/'index.json').read_text())
    assert not index['finished'] and 3 <= len(index['shards']) < 18
    assert len(_embed(tmp_path/'s').verify()) == 120
    _embed(tmp_path/'whole')
    assert files(tmp_path/'s') == files(tmp_path/'whole')

# ---- images into a store

@pytest.fixture
def album(tmp_path):
    "Ten photos, of which number 0, 3, 4, 5 and 9 cannot be read"
    rng = np.random.default_rng(0)
    folder = tmp_path/'album'
    folder.mkdir()
    for i in range(10):
        Image.fromarray(rng.integers(0, 255, (40,50,3), dtype=np.uint8)).save(folder/f'{i}.jpg')
    (folder/'0.jpg').write_text('not a photo')
    (folder/'3.jpg').unlink()
    (folder/'4.jpg').write_bytes(b'')
    (folder/'9.jpg').write_text('nor this')
    (folder/'5.jpg').write_bytes((folder/'6.jpg').read_bytes()[:700])
    return [folder/f'{i}.jpg' for i in range(10)]

@pytest.mark.filterwarnings('ignore:images that could not be read')
@pytest.mark.parametrize('shard_rows', [1, 2, 3, 10, 100])
def test_bad_images_are_left_out_and_named(tiny, album, tmp_path, shard_rows):
    s = embed_images(album, tiny, tmp_path/'s', shard_rows=shard_rows, dtype='float32', show=False)
    assert s.column('image_id') == ['1.jpg','2.jpg','6.jpg','7.jpg','8.jpg'] and [Path(f).name for f,
        _ in s.meta['failed']] == ['0.jpg','3.jpg','4.jpg','5.jpg','9.jpg']
    assert all('\n' not in why for _,why in s.meta['failed'])
    torch.testing.assert_close(s.vectors(), tiny.encode_image([album[i] for i in (1,2,6,7,8)]), atol=1e-5, rtol=1e-5)
    before = files(tmp_path/'s')
    embed_images(album, tiny, tmp_path/'s', shard_rows=shard_rows, dtype='float32', show=False)
    assert files(tmp_path/'s') == before
    # interrupted at every place, it comes to the same
    for stop in range(10):
        def breaks():
            yield from album[:stop]
            raise RuntimeError
        out = tmp_path/f's{stop}'
        with pytest.raises(RuntimeError):
            embed_images(breaks(), tiny, out, shard_rows=shard_rows, dtype='float32', show=False)
        embed_images(album, tiny, out, shard_rows=shard_rows, dtype='float32', show=False)
        assert files(out) == before

@pytest.mark.filterwarnings('ignore:images that could not be read')
def test_other_images_are_refused(tiny, album, tmp_path):
    def breaks():
        yield from album[:6]
        raise RuntimeError
    go = lambda ims: embed_images(ims, tiny, tmp_path/'s', shard_rows=3, show=False)
    with pytest.raises(RuntimeError):
        go(breaks())
    with pytest.raises(ValueError, match='6.jpg is not among them'):
        go([album[6]]+album)
    with pytest.raises(ValueError, match='2.jpg is missing now'):
        go(album[:2])
    go(album)
    with pytest.raises(ValueError, match='6.jpg is not among them'):
        go([album[6]]+album)
    with pytest.raises(ValueError, match='8.jpg is missing now'):
        go(album[:8])
    with pytest.raises(ValueError, match='not among them'):
        go(album+[album[1]])

def test_nothing_that_can_be_read(tiny, album, tmp_path):
    with pytest.raises(ValueError, match='none of the 2 images could be read; the first: .*0.jpg'):
        embed_images([album[0], album[3]], tiny, tmp_path/'s', show=False)
    with pytest.raises(ValueError, match='no images'):
        embed_images([], tiny, tmp_path/'t', show=False)
    with pytest.raises(ValueError, match='record 1: has no filename'):
        embed_images([dict(filename=str(album[1])), dict(caption='a')], tiny, tmp_path/'u', show=False)

def test_captions_share_their_photo(tiny, album, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(OpenAIClip, '_pixels', lambda self, im, f=OpenAIClip._pixels: calls.append(1) or f(self, im))
    rows = [dict(image_id=i//5, caption=f'c{i}', id=i, filename=album[1+i//5].name) for i in range(10)]
    s = embed_images(rows, tiny, tmp_path/'s', root=album[0].parent, show=False)
    assert len(calls) == 2 and list(s.rows()) == rows
    assert (s.vectors()[:5] == s.vectors()[0]).all() and (s.vectors()[5] != s.vectors()[0]).any()

def test_a_name_that_is_not_utf8(tiny, album, tmp_path):
    import os
    box = tmp_path/'named'
    box.mkdir()
    name = os.fsdecode(b'caf\xe9.jpg')
    try:
        (box/name).write_bytes(album[1].read_bytes())
    except OSError:
        pytest.skip('this file system takes UTF-8 names only')
    (box/os.fsdecode(b'b\xe9.jpg')).write_bytes(b'')
    with pytest.warns(UserWarning, match='left out: 1'):
        s = embed_images(sorted(box.iterdir()), tiny, tmp_path/'s', show=False)
    assert s.column('image_id') == [name] and s.column('filename') == [str(box/name)] and os.fsencode(
        s.meta['failed'][0][0]).endswith(b'b\xe9.jpg')
    with pytest.warns(UserWarning, match='left out: 1'):
        assert len(embed_images(sorted(box.iterdir()), tiny, tmp_path/'s', show=False)) == 1

def test_photos_are_prepared_beside_the_tower(tmp_path, album, monkeypatch):
    "Decoding and resizing run in threads for every encoder of the project, the mini one too"
    import threading
    from capdec import mini
    enc,where = load_encoder('mini', device='cpu'),set()
    monkeypatch.setattr(mini, 'to_pixels', lambda *a,
        f=mini.to_pixels: where.add(threading.current_thread() is threading.main_thread()) or f(*a))
    good = [album[i] for i in (1,2,6)]
    s = embed_images(good, enc, tmp_path/'s', dtype='float32', show=False)
    assert where == {False}
    assert torch.equal(s.vectors(), enc.encode_image(good, show=False))

# ---- the pieces

@settings(deadline=None)
@given(st.lists(st.integers(), max_size=30), st.integers(1, 9), st.integers(1, 4))
def test_read_ahead_is_map(items, ahead, workers):
    assert list(read_ahead(lambda x: x+1, iter(items), ahead, workers)) == [x+1 for x in items]

def test_read_ahead_stays_within_its_bound():
    started,taken = [],0
    for _ in read_ahead(started.append, range(100), ahead=5, workers=3):
        taken += 1
        assert len(started) <= taken+5

@given(st.lists(st.integers()), st.integers(1, 9))
def test_chunks(items, n):
    parts = list(chunks(iter(items), n))
    assert sum(parts, []) == items and all(len(p) == n for p in parts[:-1])
