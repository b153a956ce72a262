"Caption readers and writers: real files, properties, bad input, memory"
import csv
import gzip
import io
import json
import os
import pickle
import subprocess
import sys
import tarfile
import time
import warnings
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from capdec import data
from capdec.data import (SOURCES, dataset_mode, image_id_of, json_items, read_captions, read_coco, read_dataset,
    read_flickrstyle, read_karpathy, read_table, read_text, references, select_images, sniff, style_part,
    verify_source, write_captions, write_metrics_layout)

ROOT = Path(__file__).resolve().parents[1]
RECORDS = [dict(image_id=5, caption='A dog 🐕 runs .', id=3, filename='a/5.jpg'),
    dict(image_id='x.jpg', caption='两只狗\n在跑', id=9, filename=None),
           dict(image_id=5, caption='word '*500, id=11, filename='a/5.jpg')]


# --- round trips and properties

def in_lines(records):
    "What is read: a line break or a run of blanks is one blank"
    return [{**o, 'caption': ' '.join(o['caption'].split())} for o in records]


def test_write_and_read_again(tmp_path):
    assert write_captions(iter(RECORDS), tmp_path/'c.json') == 3
    assert list(read_captions(tmp_path/'c.json')) == in_lines(RECORDS)
    assert write_metrics_layout(iter(RECORDS), tmp_path/'m.json') == 3
    assert json.loads((tmp_path/'m.json').read_text(encoding='utf-8'))['images'] == [{'id': 5}, {'id': 'x.jpg'}]
    assert references(read_captions(tmp_path/'m.json')) == references(in_lines(RECORDS))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(min_size=1).filter(str.strip), min_size=1, max_size=8))
def test_any_caption_survives_json(tmp_path_factory, captions):
    p = tmp_path_factory.mktemp('any')/'c.json'
    write_captions((dict(image_id=i, caption=c, id=i, filename=None) for i, c in enumerate(captions)), p)
    assert [o['caption'] for o in read_captions(p)] == [' '.join(o.split()) for o in captions]


json_values = st.recursive(st.none() | st.booleans() | st.integers(-10**12, 10**12) | st.floats(allow_nan=False,
    allow_infinity=False) | st.text(max_size=8),
                           lambda o: st.lists(o, max_size=4) | st.dictionaries(st.text(max_size=4), o, max_size=4),
                           max_leaves=12)


@settings(max_examples=150, deadline=None)
@given(st.lists(json_values, max_size=5) | st.dictionaries(st.text(max_size=4), json_values, max_size=5),
    st.integers(1, 9), st.sampled_from([None, 1]))
def test_streamed_json_is_json(tmp_path_factory, value, chunk, indent):
    "Whatever the size of the pieces that the file is read in"
    p = tmp_path_factory.mktemp('json')/'v.json'
    p.write_text(json.dumps(value, indent=indent, ensure_ascii=False), encoding='utf-8')
    old, data._JsonPieces.chunk = data._JsonPieces.chunk, chunk
    try:
        got = list(json_items(p))
    finally:
        data._JsonPieces.chunk = old
    if isinstance(value, list):
        want = [(None, o) for o in value]
    else:
        want = [(k, o) for k, v in value.items() for o in (v if isinstance(v, list) else [v])]
    assert got == want


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=60) | st.text(alphabet='[]{}",:#\t\na1.\\', max_size=40).map(str.encode),
    st.sampled_from(['x.json', 'x.jsonl', 'x.csv', 'x.txt', 'x.zip', 'x.gz']))
def test_rubbish_is_refused_in_one_line(tmp_path_factory, content, name):
    p = tmp_path_factory.mktemp('fuzz')/name
    p.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        try:
            got = list(read_captions(p))
        except (ValueError, OSError) as e:
            assert str(p) in str(e)
            assert '\n' not in str(e)
        else:
            assert got and all(o['caption'].strip() for o in got)


@pytest.mark.parametrize('cut', range(1, 60, 7))
def test_truncated_json_is_refused(tmp_path, cut):
    write_captions(RECORDS[:1], tmp_path/'c.json')
    whole = (tmp_path/'c.json').read_bytes().rstrip()
    (tmp_path/'cut.json').write_bytes(whole[:-cut])
    with pytest.raises(ValueError):
        list(read_captions(tmp_path/'cut.json'))


def _karpathy(rows):
    images = {}
    for i, c in enumerate(rows):
        images.setdefault(i//3, []).append({'raw': c, 'sentid': i})
    return json.dumps({'images': [{'filename': f'{k}.jpg', 'split': ('train', 'restval', 'val')[k % 3], 'cocoid': k,
        'sentences': v} for k, v in images.items()], 'dataset': 'x'})

def _csv(rows):
    f = io.StringIO(newline='')
    w = csv.writer(f)
    w.writerow(['image', 'caption'])
    for i, c in enumerate(rows):
        w.writerow([f'{i//3}.jpg', c])
    return f.getvalue()

LAYOUTS = { # how the same captions are written elsewhere
    'k.json': _karpathy,
    'coco.json': lambda rows: json.dumps({'annotations': [{'image_id': i//3, 'id': i, 'caption': c} for i,
    c in enumerate(rows)], 'images': [{'id': i, 'file_name': f'{i}.jpg'} for i in range(len(rows))]}),
    'list.json': lambda rows: json.dumps([{'image_id': i//3, 'id': i, 'caption': c} for i, c in enumerate(rows)]),
    'names.json': lambda rows: json.dumps({f'{i}.jpg': [c] for i, c in enumerate(rows)}),
    'm.jsonl': lambda rows: '\n'.join(json.dumps({'file_name': f'{i//3}.jpg', 'text': c}) for i, c in enumerate(rows)),
    't.csv': _csv,
    'tok.token': lambda rows: '\n'.join(f'{i//3}.jpg#{i%3}\t{c}' for i, c in enumerate(rows)),
    'plain.txt': lambda rows: '\n'.join(rows)}
one_line_text = st.text(st.characters(exclude_categories=['Cs'], exclude_characters='\0\r\n'), min_size=1,
    max_size=20).filter(str.strip)


@settings(max_examples=25, deadline=None)
@given(st.lists(one_line_text, min_size=1, max_size=10))
def test_every_layout_gives_the_captions_back(tmp_path_factory, captions):
    box = tmp_path_factory.mktemp('layouts')
    for name, write in LAYOUTS.items():
        # a text that looks like a table is a table
        if name == 'plain.txt' and sniffs_otherwise(captions[0]):
            continue
        (box/name).write_bytes(write(captions).encode())
        got = list(read_captions(box/name, None))
        assert [o['caption'] for o in got] == [' '.join(o.split()) for o in captions], name
        assert len({o['id'] for o in got}) == len(got) and got == list(read_captions(box/name, None)), name


def sniffs_otherwise(first):
    return first.lstrip()[:1] in '[{\ufeff' or '\t' in first or '#' in first or any(d in first for d in ',;|')


@settings(max_examples=120, deadline=None)
@given(st.sampled_from(sorted(LAYOUTS)), st.data())
def test_damaged_files_are_refused_in_one_line_or_read(tmp_path_factory, name, draw):
    "A file of each layout with bytes changed, cut out or put in: no traceback, no hang"
    whole = LAYOUTS[name](['A dog runs .', 'zwei Hunde 🐕', 'a "quoted" one', 'the last'])
    b = bytearray(whole.encode())
    for _ in range(draw.draw(st.integers(1, 6))):
        i, what = draw.draw(st.integers(0, max(0, len(b)-1))), draw.draw(st.sampled_from(['change', 'cut', 'insert',
            'repeat']))
        if what == 'change' and b:
            b[i] = draw.draw(st.integers(0, 255))
        elif what == 'cut':
            del b[i:i+draw.draw(st.integers(1, 30))]
        elif what == 'insert':
            b[i:i] = draw.draw(st.binary(max_size=4) | st.sampled_from([b'{', b'[', b'"', b'\\', b'\n', b'1'*5000]))
        else:
            b[i:i] = b[i:i+20]
    p = tmp_path_factory.mktemp('damaged')/name
    p.write_bytes(bytes(b))
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        begin = time.process_time()
        for split in ('train', None):
            try:
                got = list(read_captions(p, split))
            except (ValueError, OSError) as e:
                assert str(p) in str(e) and '\n' not in str(e)
            else:
                assert got and write_captions(got, p.with_suffix('.out')) == len(got)
        assert time.process_time() - begin < 20


def test_a_key_with_a_line_break_is_told_in_one_line(tmp_path):
    for name, text in (('a.json', r'{"a\notations": [1]}'), ('b.json', r'[{"image_id": 1, "te\nxt": 2}]'),
            ('c.json', r'{"images": [{"sp\nlit": 1}]}')):
        (tmp_path/name).write_text(text)
        with pytest.raises(ValueError, match=name) as e:
            list(read_captions(tmp_path/name))
        assert '\n' not in str(e.value)


# --- Parquet and Arrow

def _shards(box, stream=True):
    import pyarrow as pa
    import pyarrow.parquet as pq
    box.mkdir(exist_ok=True)
    t = pa.table({'image': pa.array([{'bytes': b'x'*1000, 'path': f'{i}.jpg'} for i in range(10)]),
        'caption': [[f'a dog {i}', f'ein Hund {i} 🐕'] for i in range(10)],
        'split': ['train']*6 + ['restval']*2 + ['test']*2})
    pq.write_table(t, box/'a.parquet', row_group_size=3)
    with pa.OSFile(str(box/'b.arrow'), 'wb') as f, (pa.ipc.new_stream if stream else pa.ipc.new_file)(f, t.schema) as w:
        w.write_table(t, max_chunksize=4)
    return box

@pytest.mark.parametrize('stream', [True, False])
def test_parquet_and_arrow_shards(tmp_path, stream):
    box = _shards(tmp_path/'box', stream)
    a, b, both = (list(read_captions(box/o, None)) for o in ('a.parquet', 'b.arrow', ''))
    assert a == b == [dict(image_id=f'{i}.jpg', caption=c, id=2*i+k, filename=f'{i}.jpg') for i in range(10) for k,
        c in enumerate((f'a dog {i}', f'ein Hund {i} 🐕'))]
    assert len(both) == 40 and [len(list(read_captions(box/'a.parquet', o))) for o in ('train', 'test')] == [16, 4]
    with pytest.raises(ValueError, match="none of its 10 rows belongs to the part 'val'"):
        list(read_captions(box/'a.parquet', 'val'))
    write_captions(read_captions(box, None), tmp_path/'c.json')
    assert len(list(read_captions(tmp_path/'c.json'))) == 40

def test_pixels_in_the_shards_are_not_read(tmp_path):
    "Photos packed beside the captions would fill the memory"
    import pyarrow as pa
    from capdec import data as D
    files = D._shards(_shards(tmp_path/'box'))
    for f in files:
        assert all(set(o) == {'image', 'caption', 'split'} and isinstance(o['image'], str) for o in D._arrow_objects(f))
    for b in D._batches(files[0]):
        assert [c.type for c in b.columns if pa.types.is_struct(c.type)][0].num_fields == 1

def test_damaged_shards_never_crash(tmp_path):
    _shards(tmp_path/'box')
    code = """
import random, sys, warnings
from pathlib import Path
from capdec.data import read_captions
warnings.simplefilter('ignore')
rng = random.Random(0); clear = 0
for name in ('a.parquet', 'b.arrow'):
    whole = (Path(sys.argv[1])/name).read_bytes()
    for i in range(150):
        b = bytearray(whole)
        for _ in range(rng.choice([1, 8, 64])): b[rng.randrange(len(b))] = rng.randrange(256)
        if i % 5 == 0: b = b[:rng.randrange(len(b))]
        p = Path(sys.argv[1])/f'{i}{name}'; p.write_bytes(b)
        try: list(read_captions(p, None))
        except ValueError as e: assert str(p) in str(e) and '\\n' not in str(e), e; clear += 1
        p.unlink()
print(clear)
"""
    r = subprocess.run([sys.executable, '-c', code, str(tmp_path/'box')], cwd=ROOT, capture_output=True, text=True,
        timeout=600)
    assert r.returncode == 0, r.stderr[-2000:]
    assert int(r.stdout) > 100

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
    (tmp_path/'deep').mkdir()
    (tmp_path/'deep'/'c.json').write_bytes(raw)
    for name, mode in (('one.tar', 'w'), ('one.tar.gz', 'w:gz'), ('one.tgz', 'w:gz'), ('one.tar.bz2', 'w:bz2'),
            ('one.tar.xz', 'w:xz')):
        with tarfile.open(tmp_path/name, mode) as t:
            t.add(tmp_path/'deep', './deep')
    for p in ('c.json', 'c.json.gz', 'one.zip', 'one.zip/deep/c.json', 'two.zip/b.json.gz', 'one.tar', 'one.tar.gz',
            'one.tgz', 'one.tar.bz2', 'one.tar.xz', 'one.tar.gz/deep/c.json'):
        assert list(read_captions(tmp_path/p)) == in_lines(RECORDS), p
    for p in ('one.zip', 'one.tar.gz'):
        with pytest.raises(FileNotFoundError, match='no such member; it holds .*deep/c.json'):
            list(read_captions(tmp_path/p/'other.json'))


def test_damaged_archives(tmp_path):
    write_captions(RECORDS*50, tmp_path/'c.json')
    raw = (tmp_path/'c.json').read_bytes()
    (tmp_path/'cut.gz').write_bytes(gzip.compress(raw)[:-30])
    with zipfile.ZipFile(tmp_path/'ok.zip', 'w', zipfile.ZIP_DEFLATED) as z:
        z.writestr('c.json', raw)
    (tmp_path/'cut.zip').write_bytes((tmp_path/'ok.zip').read_bytes()[:-40])
    for mode in ('w', 'w:gz', 'w:bz2'):
        with tarfile.open(tmp_path/'ok.tar', mode) as t:
            t.add(tmp_path/'c.json', 'c.json')
        (tmp_path/f'cut{len(mode)}.tar').write_bytes((raw := (tmp_path/'ok.tar').read_bytes())[:len(raw)//2])
    for name in ('cut.gz', 'cut.zip', 'cut1.tar', 'cut4.tar', 'cut5.tar'):
        with pytest.raises(ValueError, match='damaged archive'):
            list(read_captions(tmp_path/name))


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
    assert [o['caption'] for o in read_text(tmp_path/'t.txt')] == ['one still one', 'two still two']


def test_empty_captions_are_counted_once(tmp_path):
    (tmp_path/'t.txt').write_text('a dog\n\n  \na cat\n')
    with pytest.warns(UserWarning, match='2 empty captions skipped, 2 kept') as seen:
        got = list(read_text(tmp_path/'t.txt'))
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
    with pytest.raises(ValueError, match='line 2'):
        write_captions(broken(), tmp_path/'c.json')
    assert list(read_captions(tmp_path/'c.json')) == in_lines(RECORDS)
    assert [o.name for o in tmp_path.iterdir()] == ['c.json']


# --- FlickrStyle: a pickle from strangers

class Payload:
    def __init__(self, path):
        self.path = path
    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_malicious_pickle_runs_nothing(tmp_path):
    box = tmp_path/'humor'
    box.mkdir()
    (box/'funny_train.txt').write_text('a dog .')
    target = tmp_path/'it_ran'
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        (box/'train.p').write_bytes(pickle.dumps([Payload(target)], protocol=protocol))
        with pytest.raises(ValueError, match='can run code'):
            list(read_flickrstyle(tmp_path))
    assert not target.exists()
    pickle.load(io.BytesIO((box/'train.p').read_bytes()))
    # the plain unpickler does run it: the test can fail
    assert target.exists()


def test_style_split_is_pinned():
    "The same on every machine and in every later version: a changed split would leak test images into training"
    names = [f'{i}.jpg' for i in range(70)]
    assert sorted(style_part(names, 'test'), key=lambda o: int(o[:-4])) == ['2.jpg', '8.jpg', '17.jpg', '41.jpg',
        '46.jpg', '53.jpg', '60.jpg', '61.jpg', '67.jpg', '68.jpg']
    assert style_part(names, 'test', seed=1) != style_part(names, 'test')


# --- ids and names

@pytest.mark.parametrize('name,want', [('COCO_train2014_000000000009.jpg', 9), ('val2014/COCO_val2014_000000000042.jpg',
    42), ('000000397133.jpg', 397133), ('2513260012_03d33305cf.jpg', 2513260012),
    ('1000092795.jpg', 1000092795), ('kite.jpg', 'kite.jpg'), ('a/1.jpg', 'a/1.jpg'),
    ('IMG_20240101.jpg', 'IMG_20240101.jpg')])
def test_image_ids(name, want):
    assert image_id_of(name) == want


def test_modes_name_known_sources():
    for verb, modes in data.DATASET_MODES.items():
        for k, (name, part) in modes.items():
            assert dataset_mode(k, verb) == dataset_mode(float(k), verb) == (name, part)
            assert name in SOURCES and (part is None or part in SOURCES[name].counts or name == 'harry-potter')
    assert set(data.DATASET_MODES['embed']) == set('0 0.5 1 1.5 2 3 4 6 7 8 9'.split())
    assert set(data.DATASET_MODES['predict']) == set('012345678')


def test_unknown_dataset_is_one_clear_line():
    with pytest.raises(ValueError, match='use a number'):
        dataset_mode('imagenet')


def test_kaggles_zip_of_three(tmp_path):
    "All official numbers of Karpathy's data sets find their file in the archive as it is downloaded"
    with zipfile.ZipFile(tmp_path/'archive.zip', 'w') as z:
        for name in ('coco', 'flickr8k', 'flickr30k'):
            z.writestr(f'dataset_{name}.json', _karpathy([f'{name} {i}' for i in range(9)]))
    got = {(m, v): [o['caption'] for o in read_dataset(m, tmp_path/'archive.zip', v)] for v in ('embed', 'predict')
        for m, (name, part) in data.DATASET_MODES[v].items() if SOURCES[name].layout == 'karpathy'}
    assert got['0', 'embed'] == [f'coco {i}' for i in range(6)] and got['0.5', 'embed'] == got['0',
        'predict'] == [f'coco {i}' for i in (6, 7, 8)]
    assert got['1.5', 'embed'] == got['1', 'predict'] == [f'flickr30k {i}' for i in (6, 7, 8)]
    assert [r['captions'] for r in verify_source(tmp_path/'archive.zip', 'flickr8k')] == [3, 3, 0, 3]
    assert [o['caption'] for o in read_dataset(8, tmp_path/'archive.zip', images=[1])] == ['coco 3', 'coco 4', 'coco 5']
    with pytest.raises(ValueError, match='3 files in it fit; name one'):
        list(read_captions(tmp_path/'archive.zip'))

def test_cocos_annotation_zip(tmp_path):
    ann = lambda n: json.dumps({'annotations': [{'image_id': i, 'id': i, 'caption': 'a'} for i in range(n)]})
    with zipfile.ZipFile(tmp_path/'annotations_trainval2014.zip', 'w') as z:
        for o, n in (('captions_train2014', 3), ('captions_val2014', 2)):
            z.writestr(f'annotations/{o}.json', ann(n))
            z.writestr(f'annotations/{o.replace("captions", "instances")}.json', '{}')
    assert len(list(read_dataset('coco-captions/val2014', tmp_path/'annotations_trainval2014.zip'))) == 2
    assert [(r['part'], r['captions'], r['verdict']) for r in verify_source(tmp_path/'annotations_trainval2014.zip',
        'coco-captions')] == [('train2014', 3, 'differs'), ('val2014', 2, 'differs')]

def test_parts_of_the_token_file(tmp_path):
    (tmp_path/'Flickr8k.token.txt').write_text('a.jpg#0\tone .\nb.jpg#0\ttwo .\n')
    (tmp_path/'Flickr_8k.devImages.txt').write_text('b.jpg\n')
    (tmp_path/'Flickr_8k.trainImages.txt').write_text('a.jpg\n')
    (tmp_path/'Flickr_8k.testImages.txt').write_text('b.jpg\n')
    assert [o['caption'] for o in read_dataset('flickr8k/val', tmp_path/'Flickr8k.token.txt')] == ['two .']
    assert [r['captions'] for r in verify_source(tmp_path/'Flickr8k.token.txt', 'flickr8k')] == [1, 1, 1]
    # a part that is asked for is not lost when the file is read without the data set's name
    for file in (tmp_path, tmp_path/'Flickr8k.token.txt'):
        assert [[o['caption'] for o in read_captions(file, s)] for s in ('train', 'val', 'test', None)] == [['one .'],
            ['two .'], ['two .'], ['one .', 'two .']]
    (tmp_path/'Flickr8k.lemma.token.txt').write_text('a.jpg#0\tone .\nb.jpg#0\tno .\n')
    (tmp_path/'readme.txt').write_text('read me')
    (tmp_path/'ExpertAnnotations.txt').write_text('a.jpg b.jpg#0 1')
    # as it is published, the lemmas beside the captions
    with zipfile.ZipFile(tmp_path/'Flickr8k_text.zip', 'w') as z:
        for o in tmp_path.glob('*.txt'):
            z.write(o, o.name)
    for o in (tmp_path/'Flickr8k_text.zip', tmp_path):
        assert [c['caption'] for c in read_captions(o, 'val')] == [c['caption'] for c in read_dataset('flickr8k/val',
            o)] == ['two .']
        assert [r['captions'] for r in verify_source(o, 'flickr8k')] == [1, 1, 1]
    (tmp_path/'Flickr8k.lemma.token.txt').unlink()
    (tmp_path/'Flickr8k_text.zip').unlink()
    for o in tmp_path.glob('*Images.txt'):
        o.unlink()
    # no list, no parts
    assert [len(list(read_captions(tmp_path/'Flickr8k.token.txt', s))) for s in ('train', 'val', 'restval',
        None)] == [2, 2, 2, 2]

def test_a_part_that_nothing_tells_of_is_told(tmp_path, capsys):
    from capdec.cli import main
    files = {'t.txt': 'A dog runs.\n', 'c.json': '[{"image_id": 1, "caption": "A dog runs."}]',
        'c.csv': 'image,caption\na.jpg,A dog runs.\n', 't.token': 'a.jpg#0\tA dog runs.\n',
        'o.json': '{"images": [], "annotations": [{"image_id": 1, "caption": "A dog runs."}]}'}
    for name, text in files.items():
        (tmp_path/name).write_text(text)
        for split, told in (('train', False), ('all', False), ('test', True)):
            assert main(['parse', str(tmp_path/name), '--split', split, '--out', str(tmp_path/'out.json')]) == 0
            assert ("belongs to the part 'test'" in capsys.readouterr().err) == told, (name, split)
    (tmp_path/'captions_test.json').write_text(files['o.json'])
    (tmp_path/'s.csv').write_text('image,caption,split\na.jpg,A dog runs.,test\n')
    for name in ('captions_test.json', 's.csv'):
        assert main(['parse', str(tmp_path/name), '--split', 'test', '--out',
            str(tmp_path/'out.json')]) == 0 and 'part' not in capsys.readouterr().err

def test_data_sets_refuse_what_cannot_be_theirs(tmp_path):
    (tmp_path/'lines.txt').write_text('A man walks his dog.\nA woman feeds her cat.\n')
    for name in ('coco', 'flickr30k'):
        (tmp_path/f'dataset_{name}.json').write_text(_karpathy([f'{name} {i}' for i in range(9)]))
    for mode, verb in [(m, 'embed') for m in ('0', '0.5', '1', '1.5', 'flickr8k/val', 'coco-captions')] + [(m,
            'predict') for m in '01568']:
        with pytest.raises(ValueError, match='lines.txt: is plain text.*--dataset_mode'):
            list(read_dataset(mode, tmp_path/'lines.txt', verb))
    with pytest.raises(ValueError, match='is plain text'):
        list(read_dataset('8', tmp_path/'lines.txt', images=[1]))
    for mode, file, own in (('1', 'coco', 'flickr30k'), ('0', 'flickr30k', 'coco'), ('flickr8k', 'coco', 'flickr8k')):
        with pytest.raises(ValueError,
                match=rf'is the file of {file}; the data set {own} \(--dataset_mode\) is in dataset_{own}.json'):
            list(read_dataset(mode, tmp_path/f'dataset_{file}.json'))
    with pytest.raises(ValueError, match='is the file of flickr30k; the data set coco-balanced'):
        list(read_dataset('8', tmp_path/'dataset_flickr30k.json', images=[1]))
    assert len(list(read_dataset('1', tmp_path/'dataset_flickr30k.json'))) == len(list(read_dataset('0',
        tmp_path/'dataset_coco.json'))) == 6
    write_captions(read_captions(tmp_path/'dataset_coco.json'), tmp_path/'dataset.json')
    # the official tools' own list, under any name
    assert len(list(read_dataset('0', tmp_path/'dataset.json'))) == 6
    with pytest.raises(ValueError, match="not in Karpathy's layout"):
        verify_source(tmp_path/'lines.txt', 'coco')

# --- the real files

@pytest.mark.parametrize('name', ['flickr8k', 'flickr30k', 'coco'])
def test_karpathy_equals_plain_json(shared, name):
    path = shared/f'data/karpathy/dataset_{name}.json.gz'
    with gzip.open(path) as f:
        images = json.load(f)['images']
    for split in ('val', 'train'):
        want = [(' '.join(s['raw'].split()), s['sentid']) for o in images if o['split'] in ((split,) if split == 'val'
            else ('train', 'restval')) for s in o['sentences']]
        got = list(read_karpathy(path, split))
        assert [(o['caption'], o['id']) for o in got] == want
    if name == 'coco':
        assert {o['image_id'] for o in got} == {o['cocoid'] for o in images if o['split'] == 'restval'}
    else:
        assert len({o['image_id'] for o in read_karpathy(path, None)}) == len(images)


def test_copies_are_complete(shared):
    for name, path in {'flickr8k': 'karpathy/dataset_flickr8k.json.gz', 'humorous': 'flickrstyle/FlickrStyle_v0.9',
            'factual': 'flickrstyle/FlickrStyle_v0.9', 'romantic': 'flickrstyle/FlickrStyle_v0.9',
            'snowboard': 'women_snowboard'}.items():
        assert {o['verdict'] for o in verify_source(shared/'data'/path, name)} == {'ok'}, name


def test_flickrstyle_equals_the_table(shared, tmp_path):
    "The zip's layout and the table hold the same captions; one line of the romantic text is not UTF-8"
    box = shared/'data/flickrstyle'
    with zipfile.ZipFile(tmp_path/'FlickrStyle_v0.9.zip', 'w') as z:
        for p in (box/'FlickrStyle_v0.9').rglob('*.*'):
            if p.is_file():
                z.write(p, p.relative_to(box))
    for style, table in {'humorous': 'funny.tsv', 'romantic': 'romantic.tsv'}.items():
        a, b = list(read_flickrstyle(tmp_path/'FlickrStyle_v0.9.zip', style)), list(read_captions(box/table))
        assert [(o['image_id'], o['filename']) for o in a] == [(o['image_id'], o['filename']) for o in b]
        differ = [(x['caption'], y['caption']) for x, y in zip(a, b) if x['caption'].strip() != y['caption'].strip()]
        assert len(differ) == (style == 'romantic') and all('，' in x and '\ufffd' in y for x, y in differ)


def test_factual_captions_of_styled_images(shared):
    box = shared/'data'
    parts = {p: list(read_flickrstyle(box/'flickrstyle/FlickrStyle_v0.9', 'factual', p,
        factual=box/'karpathy/dataset_flickr8k.json.gz')) for p in ('train', 'test')}
    assert [len(o) for o in parts.values()] == [30000, 5000]
    styled = {o['image_id'] for o in read_flickrstyle(box/'flickrstyle/FlickrStyle_v0.9', 'romantic', 'test')}
    assert {o['image_id'] for o in parts['test']} == styled


def test_no_flickr8k_left_in_flickr30k(shared):
    box = shared/'data/karpathy'
    held = {o['image_id'] for split in ('val', 'test') for o in read_karpathy(box/'dataset_flickr8k.json.gz', split)}
    left = {o['filename'] for o in select_images(read_karpathy(box/'dataset_flickr30k.json.gz', None), held, drop=True)}
    marked = {o['filename'] for k, o in json_items(box/'dataset_flickr30k.json.gz') if k == 'images'
        and o.get('flickr8k_split') in ('val', 'test')}
    assert len(marked) == 1863 and not left & marked and len(left) == 31014 - 1863


def test_balanced_coco(shared):
    box = shared/'data'
    got = list(read_dataset(8, box/'karpathy/dataset_coco.json.gz',
        images=box/'women_snowboard/balanced_split/test_woman.txt'))
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
caption = "a man with hat number %d rides an old bicycle down the street"
write_captions((dict(image_id=i//5, caption=caption % i, id=i, filename=f"{{i//5:012d}}.jpg") for i in range(n)), p)
assert write_metrics_layout(read_captions(p), q) == n
assert sum(1 for _ in read_captions(q)) == n
assert 'torch' not in sys.modules
print(next(int(l.split()[1])/1024 for l in open('/proc/self/status') if l.startswith('VmHWM')))
'''
    mb = float(subprocess.run([sys.executable, '-c', code], cwd=ROOT, check=True, capture_output=True,
        text=True).stdout)
    assert mb < 300, f'{mb:.0f} MB'


@pytest.mark.parametrize('zipped', [False, True])
def test_cocos_annotations_hold_a_file_for_each_split(tmp_path, zipped):
    names = {f'{k}_{s}2014.json': s for k in ('captions','instances') for s in ('train','val')}
    if zipped:
        z = zipfile.ZipFile(tmp_path/'annotations_trainval2014.zip', 'w')
    for n, s in names.items():
        rows = [dict(image_id=1, id=7, caption=f'a {s} dog')] if n.startswith('captions') else [dict(image_id=1, id=7,
            bbox=[])]
        text = json.dumps(dict(images=[dict(id=1, file_name='1.jpg')], annotations=rows))
        if zipped:
            z.writestr(f'annotations/{n}', text)
        else:
            (tmp_path/n).write_text(text)
    if zipped:
        z.close()
    at = tmp_path/'annotations_trainval2014.zip' if zipped else tmp_path
    for split in ('train','val'):
        assert [o['caption'] for o in read_captions(at, split)] == [f'a {split} dog']
        assert [o['caption'] for o in read_dataset(f'coco/{split}', at)] == [f'a {split} dog']
    with pytest.raises(ValueError, match='2 files in it fit'):
        list(read_captions(at, None))


def test_karpathys_parts_that_a_file_does_not_know(tmp_path):
    "COCO's own files and tables without a column split are read whole, with one warning; files made for a part without"
    own = lambda n: json.dumps(dict(images=[dict(id=i, file_name=f'{i}.jpg') for i in range(n)],
        annotations=[dict(image_id=i, id=i, caption='a') for i in range(n)]))
    for n in ('captions_train2014.json', 'captions_val2014.json', 'mine.json'):
        (tmp_path/n).write_text(own(3))
    with zipfile.ZipFile(tmp_path/'ann.zip', 'w') as z:
        z.writestr('annotations/captions_train2014.json', own(3))
        z.writestr('annotations/instances_train2014.json', '{}')
    (tmp_path/'results.csv').write_text('image_name| comment_number| comment\n1.jpg| 0| a dog .\n2.jpg| 1| a cat .\n')
    (tmp_path/'split.csv').write_text('filename,caption,split\n1.jpg,a,train\n2.jpg,b,test\n')
    for mode, verb, file, n, says in ((0, 'embed', 'captions_train2014.json', 3,
        "Karpathy's train.*all of them.*train2014 and 30,504 images of val2014.*dataset_coco.json"),
        (0, 'embed', 'ann.zip', 3, 'train2014 and'),
        ('coco/train', 'embed', 'captions_val2014.json', 3, 'train2014 and'),
                                     (0, 'predict', 'captions_val2014.json', 3,
                                     r"Karpathy's val.*\(--dataset_mode coco/val\) is 5,000 images of val2014"),
                                     (1, 'embed', 'results.csv', 2, '29,000 images.*dataset_flickr30k.json')):
        with pytest.warns(UserWarning, match=says) as told:
            assert len(list(read_dataset(mode, tmp_path/file, verb))) == n
        assert len(told) == 1
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        for mode, file, n in (('coco/all', 'captions_val2014.json', 3),
                ('coco-captions/train2014', 'captions_train2014.json', 3), (0, 'mine.json', 3),
                ('flickr30k/test', 'split.csv', 1)):
            assert len(list(read_dataset(mode, tmp_path/file))) == n
        assert len(list(read_dataset(8, tmp_path/'captions_val2014.json', images=[1]))) == 1
    with pytest.raises(ValueError, match='is the file of coco-captions; the data set flickr30k'):
        read_dataset(1, tmp_path/'captions_train2014.json')


def test_a_styles_own_folder(tmp_path):
    for folder, text in (('humor','funny_train.txt'), ('romance','romantic_train.txt')):
        (tmp_path/folder).mkdir()
        (tmp_path/folder/'train.p').write_bytes(pickle.dumps(['1_a.jpg','2_b.jpg']))
        (tmp_path/folder/text).write_text(f'a {folder} dog .\na {folder} cat .\n')
    for where in (tmp_path, tmp_path/'humor'):
        assert [(o['caption'], o['filename']) for o in read_flickrstyle(where, 'humorous')] == [('a humor dog .',
            '1_a.jpg'), ('a humor cat .','2_b.jpg')]
        # as plain text the names would be lost
        with pytest.raises(ValueError, match='is FlickrStyle10K'):
            list(read_captions(where))
    with zipfile.ZipFile(tmp_path/'published.zip', 'w') as z:
        z.write(tmp_path/'humor'/'funny_train.txt', 'FlickrStyle_v0.9/humor/funny_train.txt')
    with pytest.raises(ValueError, match='is FlickrStyle10K'):
        list(read_captions(tmp_path/'published.zip'))
    assert [o['filename'] for o in read_captions(tmp_path/'humor'/'funny_train.txt')] == [None, None]

def test_token_files_are_counted(tmp_path):
    "Flickr8k's and Flickr30k's own captions, by name, in an archive or a folder"
    from capdec.data import SOURCES, read_dataset, verify_source
    rows = 'a.jpg#0\tA dog .\na.jpg#1\tA dog runs .\nb.jpg#0\tA cat .\n'
    with zipfile.ZipFile(tmp_path/'Flickr8k_text.zip', 'w') as z:
        for name in ('Flickr8k.token.txt', 'Flickr8k.lemma.token.txt'):
            z.writestr(name, rows)
    (tmp_path/'30k').mkdir()
    (tmp_path/'30k'/'results_20130124.token').write_text(rows)
    with tarfile.open(tmp_path/'flickr30k.tar.gz', 'w:gz') as t:
        t.add(tmp_path/'30k'/'results_20130124.token', 'results_20130124.token')
    for name, path in (('flickr8k-tokens', tmp_path/'Flickr8k_text.zip'), ('flickr30k-tokens', tmp_path/'30k'),
            ('flickr30k-tokens', tmp_path/'flickr30k.tar.gz')):
        row, = verify_source(path, name)
        assert (row['images'], row['captions'], row['verdict']) == (2, 3,
            'differs') and row['expected_captions'] == SOURCES[name].counts['all'][1]
        assert [r['caption'] for r in read_dataset(name, path)] == ['A dog .', 'A dog runs .', 'A cat .']
    with pytest.raises(FileNotFoundError, match='dataset_flickr30k.json'):
        list(read_dataset('flickr30k/train', tmp_path/'flickr30k.tar.gz'))

def test_an_archive_of_many_files_is_gone_through_once(tmp_path):
    "Not a whole archive for each of its files"
    from capdec.data import _tar, open_utf8
    (tmp_path/'a.txt').write_text('A dog runs.')
    with tarfile.open(tmp_path/'many.tar.gz', 'w:gz') as t:
        for i in range(300):
            t.add(tmp_path/'a.txt', f'{i}.txt')
    before = _tar.cache_info().misses
    for i in range(300):
        with open_utf8(tmp_path/'many.tar.gz'/f'{i}.txt') as f:
            assert f.read() == 'A dog runs.'
    assert _tar.cache_info().misses == before+1
