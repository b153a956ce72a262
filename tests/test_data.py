"Caption readers and writers: real files, properties, bad input, memory"
import gzip
import io
import json
import os
import pickle
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from capdec import data
from capdec.data import (SOURCES, dataset_mode, image_id_of, json_items, read_captions, read_coco, read_dataset, read_flickrstyle, read_flickr8k_tokens,
                         read_karpathy, read_table, read_text, references, select_images, sniff, style_part, verify_source, write_captions, write_metrics_layout)

ROOT = Path(__file__).resolve().parents[1]
RECORDS = [dict(image_id=5, caption='A dog 🐕 runs .', id=3, filename='a/5.jpg'), dict(image_id='x.jpg', caption='两只狗\n在跑', id=9, filename=None),
           dict(image_id=5, caption='word '*500, id=11, filename='a/5.jpg')]


# --- round trips and properties

def test_write_and_read_again(tmp_path):
    assert write_captions(iter(RECORDS), tmp_path/'c.json') == 3
    assert list(read_captions(tmp_path/'c.json')) == RECORDS
    assert write_metrics_layout(iter(RECORDS), tmp_path/'m.json') == 3
    assert json.loads((tmp_path/'m.json').read_text(encoding='utf-8'))['images'] == [{'id': 5}, {'id': 'x.jpg'}]
    assert references(read_captions(tmp_path/'m.json')) == references(RECORDS)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(min_size=1).filter(str.strip), min_size=1, max_size=8))
def test_any_caption_survives_json(tmp_path_factory, captions):
    p = tmp_path_factory.mktemp('any')/'c.json'
    write_captions((dict(image_id=i, caption=c, id=i, filename=None) for i, c in enumerate(captions)), p)
    assert [o['caption'] for o in read_captions(p)] == captions


json_values = st.recursive(st.none() | st.booleans() | st.integers(-10**12, 10**12) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
                           lambda o: st.lists(o, max_size=4) | st.dictionaries(st.text(max_size=4), o, max_size=4), max_leaves=12)


@settings(max_examples=150, deadline=None)
@given(st.lists(json_values, max_size=5) | st.dictionaries(st.text(max_size=4), json_values, max_size=5), st.integers(1, 9), st.sampled_from([None, 1]))
def test_streamed_json_is_json(tmp_path_factory, value, chunk, indent):
    "Whatever the size of the pieces that the file is read in"
    p = tmp_path_factory.mktemp('json')/'v.json'
    p.write_text(json.dumps(value, indent=indent, ensure_ascii=False), encoding='utf-8')
    old, data._JsonPieces.chunk = data._JsonPieces.chunk, chunk
    try: got = list(json_items(p))
    finally: data._JsonPieces.chunk = old
    if isinstance(value, list): want = [(None, o) for o in value]
    else: want = [(k, o) for k, v in value.items() for o in (v if isinstance(v, list) else [v])]
    assert got == want


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=60) | st.text(alphabet='[]{}",:#\t\na1.\\', max_size=40).map(str.encode), st.sampled_from(['x.json', 'x.jsonl', 'x.csv', 'x.txt', 'x.zip', 'x.gz']))
def test_rubbish_is_refused_in_one_line(tmp_path_factory, content, name):
    p = tmp_path_factory.mktemp('fuzz')/name
    p.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        try: got = list(read_captions(p))
        except (ValueError, OSError) as e:
            assert str(p) in str(e)
            assert '\n' not in str(e)
        else: assert got and all(o['caption'].strip() for o in got)


@pytest.mark.parametrize('cut', range(1, 60, 7))
def test_truncated_json_is_refused(tmp_path, cut):
    write_captions(RECORDS[:1], tmp_path/'c.json')
    whole = (tmp_path/'c.json').read_bytes().rstrip()
    (tmp_path/'cut.json').write_bytes(whole[:-cut])
    with pytest.raises(ValueError): list(read_captions(tmp_path/'cut.json'))


# --- where files lie

def test_gz_zip_and_gz_in_zip_read_the_same(tmp_path):
    write_captions(RECORDS, tmp_path/'c.json')
    raw = (tmp_path/'c.json').read_bytes()
    (tmp_path/'c.json.gz').write_bytes(gzip.compress(raw))
    with zipfile.ZipFile(tmp_path/'one.zip', 'w', zipfile.ZIP_DEFLATED) as z:
        z.writestr('__MACOSX/._c.json', 'x')
        z.writestr('deep/c.json', raw)
    with zipfile.ZipFile(tmp_path/'two.zip', 'w') as z:
        z.writestr('a.json', '[]')
        z.writestr('b.json.gz', gzip.compress(raw))
    for p in ('c.json', 'c.json.gz', 'one.zip', 'one.zip/deep/c.json', 'two.zip/b.json.gz'): assert list(read_captions(tmp_path/p)) == RECORDS, p
    with pytest.raises(FileNotFoundError, match='no such member'): list(read_captions(tmp_path/'one.zip/other.json'))


def test_damaged_archives(tmp_path):
    write_captions(RECORDS*50, tmp_path/'c.json')
    raw = (tmp_path/'c.json').read_bytes()
    (tmp_path/'cut.gz').write_bytes(gzip.compress(raw)[:-30])
    with zipfile.ZipFile(tmp_path/'ok.zip', 'w', zipfile.ZIP_DEFLATED) as z: z.writestr('c.json', raw)
    (tmp_path/'cut.zip').write_bytes((tmp_path/'ok.zip').read_bytes()[:-40])
    for name in ('cut.gz', 'cut.zip'):
        with pytest.raises(ValueError, match='damaged archive'): list(read_captions(tmp_path/name))


def test_folder_of_images_with_a_table(tmp_path):
    (tmp_path/'photo.jpg').write_bytes(b'')
    (tmp_path/'metadata.csv').write_text('file_name,text\nphoto.jpg,"a ""quoted"" photo, here"\n')
    want = [dict(image_id='photo.jpg', caption='a "quoted" photo, here', id=0, filename='photo.jpg')]
    assert list(read_table(tmp_path)) == want == list(read_captions(tmp_path))


def test_open_quote_in_a_tsv_swallows_nothing(tmp_path):
    (tmp_path/'t.tsv').write_text('image\tcaption\na.jpg\t"Stop, he said\nb.jpg\t"all of it"\n')
    assert [o['caption'] for o in read_table(tmp_path/'t.tsv')] == ['"Stop, he said', 'all of it']


def test_text_that_begins_oddly_is_text(tmp_path):
    for first in ('[laughs] Good day !', '{sic} he wrote .', 'Comment, he said .', 'Text; nothing else .'):
        (tmp_path/'t.txt').write_text(first + '\nA dog runs .\n')
        assert sniff(tmp_path/'t.txt') == 'text'
        assert [o['caption'] for o in read_captions(tmp_path/'t.txt')] == [first, 'A dog runs .']


def test_only_line_feeds_end_a_line(tmp_path):
    (tmp_path/'t.txt').write_bytes('\ufeffone\u2028still one\r\ntwo\x0bstill two'.encode())
    assert [o['caption'] for o in read_text(tmp_path/'t.txt')] == ['one\u2028still one', 'two\x0bstill two']


def test_empty_captions_are_counted_once(tmp_path):
    (tmp_path/'t.txt').write_text('a dog\n\n  \na cat\n')
    with pytest.warns(UserWarning, match='2 empty captions skipped, 2 kept') as seen: got = list(read_text(tmp_path/'t.txt'))
    assert len(seen) == 1 and [o['id'] for o in got] == [0, 3]


def test_half_an_emoji_can_be_written_again(tmp_path):
    (tmp_path/'c.json').write_text('[{"image_id": 1, "caption": "dog \\ud83d"}]')
    assert write_captions(read_captions(tmp_path/'c.json'), tmp_path/'d.json') == 1


@pytest.mark.parametrize('name', ['coco', 'list'])
def test_order_of_keys_does_not_matter(tmp_path, name):
    images, anns = [{'id': 1, 'file_name': '000000000001.jpg'}], [{'image_id': 1, 'id': 8, 'caption': 'a'}]
    for order in (('images', 'annotations'), ('annotations', 'images')):
        (tmp_path/'c.json').write_text(json.dumps({k: {'images': images, 'annotations': anns}[k] for k in order}))
        assert list(read_coco(tmp_path/'c.json'))[0]['filename'] == '000000000001.jpg'


def test_a_failed_write_leaves_the_old_file(tmp_path):
    write_captions(RECORDS, tmp_path/'c.json')
    def broken():
        yield RECORDS[0]
        raise ValueError('line 2 is bad')
    with pytest.raises(ValueError, match='line 2'): write_captions(broken(), tmp_path/'c.json')
    assert list(read_captions(tmp_path/'c.json')) == RECORDS
    assert [o.name for o in tmp_path.iterdir()] == ['c.json']


# --- FlickrStyle: a pickle from strangers

class Payload:
    def __init__(self, path): self.path = path
    def __reduce__(self): return os.mkdir, (str(self.path),)


def test_malicious_pickle_runs_nothing(tmp_path):
    box = tmp_path/'humor'
    box.mkdir()
    (box/'funny_train.txt').write_text('a dog .')
    target = tmp_path/'it_ran'
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        (box/'train.p').write_bytes(pickle.dumps([Payload(target)], protocol=protocol))
        with pytest.raises(ValueError, match='can run code'): list(read_flickrstyle(tmp_path))
    assert not target.exists()
    pickle.load(io.BytesIO((box/'train.p').read_bytes()))
    assert target.exists() # the plain unpickler does run it: the test can fail


def test_style_split_is_pinned():
    "The same on every machine and in every later version: a changed split would leak test images into training"
    names = [f'{i}.jpg' for i in range(70)]
    assert sorted(style_part(names, 'test'), key=lambda o: int(o[:-4])) == ['2.jpg', '8.jpg', '17.jpg', '41.jpg', '46.jpg', '53.jpg', '60.jpg', '61.jpg', '67.jpg', '68.jpg']
    assert style_part(names, 'test', seed=1) != style_part(names, 'test')


# --- ids and names

@pytest.mark.parametrize('name,want', [('COCO_train2014_000000000009.jpg', 9), ('val2014/COCO_val2014_000000000042.jpg', 42), ('000000397133.jpg', 397133), ('2513260012_03d33305cf.jpg', 2513260012),
    ('1000092795.jpg', 1000092795), ('kite.jpg', 'kite.jpg'), ('a/1.jpg', 'a/1.jpg'), ('IMG_20240101.jpg', 'IMG_20240101.jpg')])
def test_image_ids(name, want): assert image_id_of(name) == want


def test_modes_name_known_sources():
    for verb, modes in data.MODES.items():
        for k, (name, part) in modes.items():
            assert dataset_mode(k, verb) == dataset_mode(float(k), verb) == (name, part)
            assert name in SOURCES and (part is None or part in SOURCES[name].counts or name == 'harry-potter')
    assert set(data.MODES['embed']) == set('0 0.5 1 1.5 2 3 4 6 7 8 9'.split()) and set(data.MODES['predict']) == set('012345678')


def test_unknown_dataset_is_one_clear_line():
    with pytest.raises(ValueError, match='use a number'): dataset_mode('imagenet')


# --- the real files

@pytest.mark.parametrize('name', ['flickr8k', 'flickr30k', 'coco'])
def test_karpathy_equals_plain_json(shared, name):
    path = shared/f'data/karpathy/dataset_{name}.json.gz'
    with gzip.open(path) as f: images = json.load(f)['images']
    for split in ('val', 'train'):
        want = [(s['raw'], s['sentid']) for o in images if o['split'] in ((split,) if split == 'val' else ('train', 'restval')) for s in o['sentences']]
        got = list(read_karpathy(path, split))
        assert [(o['caption'], o['id']) for o in got] == want
    if name == 'coco': assert {o['image_id'] for o in got} == {o['cocoid'] for o in images if o['split'] == 'restval'}
    else: assert len({o['image_id'] for o in read_karpathy(path, None)}) == len(images)


def test_copies_are_complete(shared):
    for name, path in {'flickr8k': 'karpathy/dataset_flickr8k.json.gz', 'humorous': 'flickrstyle/FlickrStyle_v0.9', 'romantic': 'flickrstyle/FlickrStyle_v0.9', 'snowboard': 'women_snowboard'}.items():
        assert {o['verdict'] for o in verify_source(shared/'data'/path, name)} == {'ok'}, name


def test_flickrstyle_equals_the_table(shared, tmp_path):
    "The zip's layout and the table hold the same captions; one line of the romantic text is not UTF-8"
    box = shared/'data/flickrstyle'
    with zipfile.ZipFile(tmp_path/'FlickrStyle_v0.9.zip', 'w') as z:
        for p in (box/'FlickrStyle_v0.9').rglob('*.*'):
            if p.is_file(): z.write(p, p.relative_to(box))
    for style, table in {'humorous': 'funny.tsv', 'romantic': 'romantic.tsv'}.items():
        a, b = list(read_flickrstyle(tmp_path/'FlickrStyle_v0.9.zip', style)), list(read_captions(box/table))
        assert [(o['image_id'], o['filename']) for o in a] == [(o['image_id'], o['filename']) for o in b]
        differ = [(x['caption'], y['caption']) for x, y in zip(a, b) if x['caption'].strip() != y['caption'].strip()]
        assert len(differ) == (style == 'romantic') and all('，' in x and '\ufffd' in y for x, y in differ)


def test_factual_captions_of_styled_images(shared):
    box = shared/'data'
    parts = {p: list(read_flickrstyle(box/'flickrstyle/FlickrStyle_v0.9', 'factual', p, factual=box/'karpathy/dataset_flickr8k.json.gz')) for p in ('train', 'test')}
    assert [len(o) for o in parts.values()] == [30000, 5000]
    styled = {o['image_id'] for o in read_flickrstyle(box/'flickrstyle/FlickrStyle_v0.9', 'romantic', 'test')}
    assert {o['image_id'] for o in parts['test']} == styled


def test_no_flickr8k_left_in_flickr30k(shared):
    box = shared/'data/karpathy'
    held = {o['image_id'] for split in ('val', 'test') for o in read_karpathy(box/'dataset_flickr8k.json.gz', split)}
    left = {o['filename'] for o in select_images(read_karpathy(box/'dataset_flickr30k.json.gz', None), held, drop=True)}
    marked = {o['filename'] for k, o in json_items(box/'dataset_flickr30k.json.gz') if k == 'images' and o.get('flickr8k_split') in ('val', 'test')}
    assert len(marked) == 1863 and not left & marked and len(left) == 31014 - 1863


def test_balanced_coco(shared):
    box = shared/'data'
    got = list(read_dataset(8, box/'karpathy/dataset_coco.json.gz', images=box/'women_snowboard/balanced_split/test_woman.txt'))
    ids = set(map(int, (box/'women_snowboard/balanced_split/test_woman.txt').read_text().split()))
    assert got and {o['image_id'] for o in got} <= ids


# --- memory

@pytest.mark.skipif(not Path('/proc/self/status').exists(), reason='peak memory is read from /proc')
def test_600_000_captions_in_little_memory(tmp_path):
    "Reading, writing and reading again in a process that is not allowed to grow"
    code = f'''
import sys
from capdec.data import *
n = 600_000
p, q = r"{tmp_path}/big.json", r"{tmp_path}/metrics.json"
write_captions((dict(image_id=i//5, caption=f"a man with hat number {{i}} rides an old bicycle down the street", id=i, filename=f"{{i//5:012d}}.jpg") for i in range(n)), p)
assert write_metrics_layout(read_captions(p), q) == n
assert sum(1 for _ in read_captions(q)) == n
assert 'torch' not in sys.modules
print(next(int(l.split()[1])/1024 for l in open('/proc/self/status') if l.startswith('VmHWM')))
'''
    mb = float(subprocess.run([sys.executable, '-c', code], cwd=ROOT, check=True, capture_output=True, text=True).stdout)
    assert mb < 300, f'{mb:.0f} MB'
