"Files that people have: parts, ids, tables that no program quoted, photos with texts beside them"
import csv
import gzip
import io
import json
import tarfile
import warnings
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from capdec.data import IdIndex, image_id_of, read_captions, read_table, sniff, write_captions

def captions(path, split=None, **kwargs):
    return [o['caption'] for o in read_captions(path, split, **kwargs)]

def table(path, *texts):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({'caption': list(texts)}), path)

# --- parts

TREES = {
    'a folder for each': {'default/train/0000.parquet': 'train', 'default/test/0000.parquet': 'test'},
    'DatasetDict': {'train/data-00000-of-00001.parquet': 'train', 'test/data-00000-of-00001.parquet': 'test'},
    'hive': {'split=train/a.parquet': 'train', 'split=test/a.parquet': 'test'},
    'the name ends in it': {'flickr8k-train.parquet': 'train', 'flickr8k-test.parquet': 'test'},
    'in capitals': {'Flickr8kTrain.parquet': 'train', 'Flickr8kTest.parquet': 'test'},
    'nearest first': {'test/train.parquet': 'train', 'train/test.parquet': 'test'},
    'with a year': {'train2017.parquet': 'train', 'test2017.parquet': 'test'},
    'eval is no part of training': {'data/train.parquet': 'train', 'data/eval.parquet': 'eval'}}

@pytest.mark.parametrize('name', TREES)
def test_a_folder_or_a_name_says_the_part(tmp_path, name):
    "Whatever the folders above are called"
    root = tmp_path/'test'/'my_eval'
    for file, part in TREES[name].items():
        table(root/file, f'a {part} caption')
    parts = set(TREES[name].values())
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        for part in parts:
            assert captions(root, part) == [f'a {part} caption']
    assert sorted(captions(root)) == sorted(f'a {o} caption' for o in parts)
    with pytest.raises(ValueError, match="has no file of the part 'val'; there are"):
        captions(root, 'val')

@pytest.mark.parametrize('suffix', ['csv', 'json', 'jsonl', 'zip'])
def test_files_of_any_kind_say_their_part(tmp_path, suffix):
    write = dict(csv=lambda o: f'image,caption\n{o}.jpg,a {o} caption\n', json=lambda o: json.dumps([f'a {o} caption']),
        jsonl=lambda o: json.dumps({'caption': f'a {o} caption'}) + '\n')
    kind = 'csv' if suffix == 'zip' else suffix
    files = {f'{o}/metadata.{kind}': write[kind](o) for o in ('train', 'validation', 'test')}
    root = tmp_path/'data'
    if suffix == 'zip':
        root = tmp_path/'data.zip'
        with zipfile.ZipFile(root, 'w') as z:
            for name, text in files.items():
                z.writestr(name, text)
    else:
        for name, text in files.items():
            (root/name).parent.mkdir(parents=True)
            (root/name).write_text(text)
    assert captions(root, 'train') == ['a train caption']
    assert captions(root, 'dev') == captions(root, 'val') == ['a validation caption']

def test_a_file_of_several_parts_is_named(tmp_path):
    table(tmp_path/'d'/'flickr_trainval.parquet', 'a caption')
    with pytest.raises(ValueError, match='flickr_trainval.parquet: holds captions of several parts'):
        captions(tmp_path/'d', 'train')
    assert captions(tmp_path/'d') == ['a caption']

def test_the_name_of_the_file_that_you_named_counts(tmp_path):
    table(tmp_path/'flickr8k-test.parquet', 'a caption')
    with pytest.raises(ValueError, match="belongs to the part test, says its name, and not to 'train'"):
        captions(tmp_path/'flickr8k-test.parquet', 'train')
    assert captions(tmp_path/'flickr8k-test.parquet', 'test') == ['a caption']
    # a word is a whole word
    table(tmp_path/'contest.parquet', 'a caption')
    assert captions(tmp_path/'contest.parquet', 'train') == ['a caption']

def test_what_is_left_out_is_said(tmp_path):
    table(tmp_path/'d'/'train.parquet', 'a train caption')
    table(tmp_path/'d'/'more.parquet', 'one more')
    with pytest.warns(UserWarning, match='more.parquet: not read, since the name does not say'):
        assert captions(tmp_path/'d', 'train') == ['a train caption']

NAMES = ['train', 'Training', 'testing', 'eval', 'holdout', 'test ', 'TEST', 'valid', 'dev', 'val2014', '', None, 7]

@pytest.mark.parametrize('layout', ['csv', 'jsonl', 'karpathy', 'parquet'])
def test_names_of_parts_mean_the_same_in_every_layout(tmp_path, layout):
    names = [str(o or '') for o in NAMES] if layout in ('csv', 'parquet') else NAMES
    rows = [dict(image=f'{i}.jpg', caption=f'caption {i}', split=o) for i, o in enumerate(names)]
    p = tmp_path/f'a.{layout}'
    if layout == 'csv':
        with open(p, 'w', newline='') as f:
            w = csv.DictWriter(f, rows[0])
            w.writeheader()
            w.writerows(rows)
    elif layout == 'jsonl':
        p.write_text('\n'.join(map(json.dumps, rows)))
    elif layout == 'parquet':
        pq.write_table(pa.Table.from_pylist(rows), p)
    else:
        p = tmp_path/'dataset_a.json'
        p.write_text(json.dumps({'images': [dict(filename=o['image'], split=o['split'],
            sentences=[dict(raw=o['caption'])]) for o in rows]}))
    with pytest.warns(UserWarning, match="left out: 'eval' .1., 'holdout' .1."):
        assert captions(p, 'train') == ['caption 0', 'caption 1']
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        assert captions(p, 'test') == ['caption 2', 'caption 5', 'caption 6']
        assert captions(p, 'validation') == ['caption 7', 'caption 8', 'caption 9']
        assert captions(p, 'holdout') == ['caption 4']
    assert len(captions(p)) == len(NAMES)

# --- ids

def test_two_photos_of_one_number_are_two(tmp_path):
    "In every layout that gives ids by names"
    rows = [('cats/12345.jpg', 'A cat'), ('dogs/12345.jpg', 'A dog'), ('dogs/67890.jpg', 'One dog')]
    want = ['cats/12345.jpg', 'dogs/12345.jpg', 67890]
    (tmp_path/'a.csv').write_text('image,caption\n' + ''.join(f'{a},{b}\n' for a, b in rows))
    (tmp_path/'a.jsonl').write_text('\n'.join(json.dumps(dict(file_name=a, text=b)) for a, b in rows))
    (tmp_path/'a.json').write_text(json.dumps([dict(file_name=a, text=b) for a, b in rows]))
    (tmp_path/'names.json').write_text(json.dumps({a: [b] for a, b in rows}))
    (tmp_path/'a.token').write_text(''.join(f'{a}#0\t{b}\n' for a, b in rows))
    (tmp_path/'a.txt').write_text(''.join(f'{a} : {b}\n' for a, b in rows))
    (tmp_path/'dataset_a.json').write_text(json.dumps({'images': [dict(filename=a, split='train',
        sentences=[dict(raw=b)]) for a, b in rows]}))
    pq.write_table(pa.table(dict(image=[a for a, _ in rows], caption=[b for _, b in rows])), tmp_path/'a.parquet')
    for p in tmp_path.iterdir():
        for split in (None, 'train'):
            assert [o['image_id'] for o in read_captions(p, split)] == want, p.name
    assert [o['image_id'] for o in read_table(tmp_path/'a.csv')] == want

@pytest.mark.parametrize('name', ['20231225_101112345.jpg', '20231225_1011123456.jpg', '00001.jpg', 'IMG_0001.jpg',
    '1703512345678.jpg', '1234567890123456789.jpg', '12345_67890.jpg'])
def test_a_number_that_is_no_id_is_none(name):
    assert image_id_of(f'day/{name}') == f'day/{name}'

def test_ids_of_nineteen_digits(tmp_path):
    big = 1234567890123456789
    (tmp_path/'a.json').write_text(json.dumps([dict(image_id=str(big), caption='a cat')]))
    (tmp_path/'a.csv').write_text(f'image_id,caption\n{big},a cat\n')
    (tmp_path/'b.csv').write_text(f'image,caption\n{big}.jpg,a cat\n')
    ids = [next(read_captions(tmp_path/o))['image_id'] for o in ('a.json', 'a.csv', 'b.csv')]
    assert ids == [big, big, f'{big}.jpg']
    assert IdIndex([f'{big}.jpg']).find(str(big)) == f'{big}.jpg' and IdIndex([big]).find(f'{big}.jpg') == big

def test_scores_find_photos_however_they_are_written():
    from capdec.evaluation import match_ids
    refs = [dict(image_id='cats/00001.jpg', caption='a cat'), dict(image_id='dogs/00001.jpg', caption='a dog'),
        dict(image_id=23431, caption='a cup', filename='VizWiz_val_00000000.jpg'),
        dict(image_id=391895, caption='a bus')]
    pred = {'/photos/cats/00001.jpg': 'one cat', 'VizWiz_val_00000000.jpg': 'one cup',
        'val/COCO_val2014_000000391895.jpg': 'one bus'}
    got, found, _ = match_ids(pred, refs)
    assert got == {'cats/00001.jpg': 'one cat', 23431: 'one cup', 391895: 'one bus'}
    assert found == {'cats/00001.jpg': ['a cat'], 23431: ['a cup'], 391895: ['a bus']}
    # a name that fits two photos fits none
    with pytest.raises(ValueError, match='belongs to an image that has references'):
        match_ids({'00001.jpg': 'one cat'}, refs)
    # and what version 0.1 wrote
    assert match_ids({20231225: 'a'}, {'20231225_101112345.jpg': ['a']})[0] == {'20231225_101112345.jpg': 'a'}

# --- tables

TEXTS = ['A plain one', 'A dog, a cat, and a man', 'A "big" day', '"Stop" sign, red', 'It is 5" long', "a 'quoted' one",
    'A dog; a cat', 'zwei Hunde 🐕, 狗', 'a [tag] here', 'one: two', 'x = "y"', '', 'Two "signs"']

def pandas_like(f, rows, **kwargs):
    csv.writer(f, lineterminator='\n', **kwargs).writerows(rows)

def naive(sep):
    return lambda f, rows: f.writelines(sep.join(map(str, row)) + '\n' for row in rows)

WRITERS = {
    'pandas.csv': lambda f, rows: pandas_like(f, [('image', 'caption'), *rows]),
    'pandas_index.csv': lambda f, rows: pandas_like(f, [('', 'image', 'caption'),
        *((i, *o) for i, o in enumerate(rows))]),
    'no_heading.csv': pandas_like,
    'no_heading_index.csv': lambda f, rows: pandas_like(f, [(i, *o) for i, o in enumerate(rows)]),
    'all_quoted.csv': lambda f, rows: pandas_like(f, [('image', 'caption'), *rows], quoting=csv.QUOTE_ALL),
    'semicolons.csv': lambda f, rows: pandas_like(f, [('image', 'caption'), *rows], delimiter=';'),
    'tabs.tsv': lambda f, rows: pandas_like(f, [('image', 'caption'), *rows], delimiter='\t'),
    'no_heading.tsv': lambda f, rows: pandas_like(f, rows, delimiter='\t'),
    'bars.csv': lambda f, rows: naive('| ')(f, [('image_name', 'comment_number', 'comment'),
        *((a, 0, b) for a, b in rows)]),
    'naive.csv': lambda f, rows: naive(',')(f, [('image', 'caption'), *rows]),
    'naive_no_heading.csv': naive(','),
    'naive_no_heading.txt': naive(','),
    'bars.txt': naive('|'),
    'colons.txt': naive(' : '),
    'naive.tsv': lambda f, rows: naive('\t')(f, [('image', 'caption'), *rows]),
    'lines.jsonl': lambda f, rows: f.writelines(json.dumps(dict(image=a, caption=b)) + '\n' for a, b in rows)}

@pytest.mark.parametrize('name', WRITERS)
def test_every_writer_gives_the_captions_back(tmp_path, name):
    rows = [(f'{i}.jpg', o) for i, o in enumerate(TEXTS)]
    with open(tmp_path/name, 'w', encoding='utf-8', newline='') as f:
        WRITERS[name](f, rows)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        got = list(read_captions(tmp_path/name, None))
    assert [(o['filename'], o['caption']) for o in got] == [(a, b) for a, b in rows if b]

@pytest.mark.parametrize('name', WRITERS)
def test_thirty_thousand_captions_through_every_writer(shared, tmp_path, name):
    with gzip.open(shared/'data/karpathy/dataset_flickr8k.json.gz') as f:
        images = [o for o in json.load(f)['images'] if o['split'] == 'train']
    rows = [(o['filename'], ' '.join(s['raw'].split())) for o in images for s in o['sentences']]
    with open(tmp_path/name, 'w', encoding='utf-8', newline='') as f:
        WRITERS[name](f, rows)
    got = [(o['filename'], o['caption']) for o in read_captions(tmp_path/name, None)]
    assert len(rows) == 30_000 and got == rows

BROKEN = {
    'image,caption\na.jpg,"A dog runs\nb.jpg,A cat sits\n': 'row 1: a quote opens and is never closed',
    'image,caption\na.jpg,A cat\nb.jpg,"A dog runs\n': 'row 2: a quote opens',
    'image,caption\na.jpg,A dog\nb.jpg\n': 'row 2: 1 field under a heading of 2',
    'caption,image\nA dog, a cat,a.jpg\n': 'row 1: 3 fields under a heading of 2',
    '17,A dog\n18,A cat\n': 'row 1 names no column of captions',
    'photo,headline\na.jpg,A dog\n': 'names no column of captions .it has photo, headline.*caption_column'}

@pytest.mark.parametrize('text', BROKEN)
def test_what_cannot_be_decided_names_the_row(tmp_path, text):
    (tmp_path/'a.csv').write_text(text)
    with pytest.raises(ValueError, match=BROKEN[text]) as e:
        captions(tmp_path/'a.csv')
    assert '\n' not in str(e.value)

def test_the_row_of_flickr30k_without_its_bar(tmp_path):
    (tmp_path/'results.csv').write_text('image_name| comment_number| comment\n1000092795.jpg| 0| Two men .\n'
        '2199200615.jpg| 4   A dog runs .\n1000092795.jpg| 2| A | pipe .\n')
    with pytest.warns(UserWarning, match='row 2: a bar is missing between 4 and the caption'):
        assert captions(tmp_path/'results.csv') == ['Two men .', 'A dog runs .', 'A | pipe .']

def test_line_breaks_in_quoted_fields(tmp_path):
    (tmp_path/'a.csv').write_text('image,caption\na.jpg,"A dog,\nand  a cat"\nb.jpg,A bird\n')
    assert captions(tmp_path/'a.csv') == ['A dog, and a cat', 'A bird']

LISTS = [json.dumps(['A "dog" .', 'One dog .']), repr(['A "dog" .', 'One dog .']), """['A "dog" .' 'One dog .']""",
    """['A "dog" .'\n 'One dog .']"""]

@pytest.mark.parametrize('written', LISTS)
def test_a_field_that_is_a_list_is_that_list(tmp_path, written):
    "JSON's, Python's, or numpy's, which has no commas"
    with open(tmp_path/'a.csv', 'w', newline='') as f:
        csv.writer(f).writerows([('image', 'captions'), ('a.jpg', written)])
    assert captions(tmp_path/'a.csv') == ['A "dog" .', 'One dog .']

def test_brackets_that_are_no_list(tmp_path):
    (tmp_path/'a.csv').write_text('image,caption\na.jpg,[laughs] Good day!\nb.jpg,[inaudible]\nc.jpg,"[1, 2]"\n')
    assert captions(tmp_path/'a.csv') == ['[laughs] Good day!', '[inaudible]', '[1, 2]']

def test_columns_can_be_named(tmp_path):
    pq.write_table(pa.table(dict(photo=['a.jpg'], headline=['A dog'], url=['http://x.example'])), tmp_path/'a.parquet')
    (tmp_path/'a.csv').write_text('photo,headline\na.jpg,A dog\n')
    (tmp_path/'a.jsonl').write_text('{"photo": "a.jpg", "headline": "A dog"}\n')
    (tmp_path/'b.json').write_text('[{"photo": "a.jpg", "headline": "A dog"}]')
    for name in ('a.parquet', 'a.csv', 'a.jsonl', 'b.json'):
        if name != 'a.jsonl':
            with pytest.raises(ValueError, match='photo, headline.*caption_column'):
                captions(tmp_path/name)
        o, = read_captions(tmp_path/name, caption_column='headline', image_column='photo')
        assert (o['caption'], o['filename']) == ('A dog', 'a.jpg')
    (tmp_path/'a.txt').write_text('A dog\n')
    with pytest.raises(ValueError, match='has no columns to choose from'):
        captions(tmp_path/'a.txt', caption_column='headline')

def test_several_columns_of_captions(tmp_path):
    pq.write_table(pa.table(dict(image=['a.jpg'], caption_0=['A dog'], caption_1=['One dog'])), tmp_path/'a.parquet')
    (tmp_path/'a.csv').write_text('image,caption,caption\na.jpg,A dog,One dog\n')
    assert captions(tmp_path/'a.parquet') == captions(tmp_path/'a.csv') == ['A dog', 'One dog']

# --- what is not the data

PAGE = '<!DOCTYPE html><html><head><title>Virus scan warning</title></head></html>'
POINTER = 'version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 1234\n'

@pytest.mark.parametrize('name', ['a.json', 'a.jsonl', 'a.csv', 'a.tsv', 'a.txt', 'a.parquet', 'a.arrow', 'a.token',
    'a.json.gz', 'a.zip', 'a.tar'])
@pytest.mark.parametrize('text', [PAGE, '\ufeff\n ' + PAGE.lower(), POINTER])
def test_a_page_or_a_pointer_is_no_data(tmp_path, name, text):
    (tmp_path/name).write_text(text)
    with pytest.raises(ValueError, match='is a web page, not the data|is a pointer of Git LFS, not the data'):
        captions(tmp_path/name)

def test_a_page_in_place_of_a_pickle_or_json(tmp_path):
    from capdec.core import load_pickle, read_json
    for read in (load_pickle, read_json):
        for text in (PAGE, POINTER):
            (tmp_path/'a').write_text(text)
            with pytest.raises(ValueError, match='not the data'):
                read(tmp_path/'a')

def test_workbooks(tmp_path):
    with zipfile.ZipFile(tmp_path/'a.xlsx', 'w') as z:
        z.writestr('xl/workbook.xml', '<workbook/>')
    (tmp_path/'a.xls').write_bytes(b'\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1' + bytes(100))
    for name in ('a.xlsx', 'a.xls'):
        with pytest.raises(ValueError, match=r'save the sheet as CSV \(UTF-8\)'):
            captions(tmp_path/name)

# --- layouts that people have

def photo(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', (8, 8)).save(path)

def test_photos_with_their_captions_beside_them(tmp_path):
    for name in ('train/a.jpg', 'train/b.png', 'test/c.jpg', 'train/d.jpg'):
        photo(tmp_path/name)
    (tmp_path/'train/a.txt').write_text('A dog.\nOne dog.\n')
    (tmp_path/'train/b.caption').write_text('\ufeffA cat.')
    (tmp_path/'test/c.txt').write_text('A cow.')
    assert sniff(tmp_path) == 'sidecars'
    with pytest.warns(UserWarning, match='1 of 4 photos have no text file beside them'):
        got = list(read_captions(tmp_path, None))
    assert [(o['image_id'], o['caption']) for o in got] == [('test/c.jpg', 'A cow.'), ('train/a.jpg', 'A dog.'),
        ('train/a.jpg', 'One dog.'), ('train/b.png', 'A cat.')]
    with pytest.warns(UserWarning, match='1 of 3'):
        assert captions(tmp_path, 'train') == ['A dog.', 'One dog.', 'A cat.']
    (tmp_path/'test/c.txt').write_bytes(b'\xff\xfeA')
    with pytest.raises(ValueError, match='c.txt: not UTF-8 text'):
        captions(tmp_path)

def test_what_capdec_writes_beside_photos_is_read_again(tmp_path):
    from shell import capdec
    for name, shade in (('a.jpg', 'navy'), ('a.png', 'white'), ('b.jpg', 'red')):
        Image.new('RGB', (64, 48), shade).save(tmp_path/name)
    capdec('caption', tmp_path, '--sidecar', '--device', 'cpu', ok=True)
    capdec('caption', tmp_path, '--out', tmp_path.parent/'told.csv', '--device', 'cpu', ok=True)
    told = {o['filename'].rpartition('/')[2]: o['caption'] for o in read_captions(tmp_path.parent/'told.csv')}
    assert {o['filename']: o['caption'] for o in read_captions(tmp_path)} == told and len(told) == 3

def add(t, name, content):
    info = tarfile.TarInfo(name)
    info.size = len(content)
    t.addfile(info, io.BytesIO(content))

@pytest.mark.parametrize('ends', [('txt',), ('json',), ('json', 'txt')])
def test_webdataset(tmp_path, ends):
    for n in range(2):
        with tarfile.open(tmp_path/f'{n:05}.tar', 'w') as t:
            for i in range(3):
                key = f'{n:05}{i:04}'
                add(t, f'{key}.jpg', b'x')
                for end in ends:
                    add(t, f'{key}.{end}', (f'thing {key}' if end == 'txt' else json.dumps(
                        dict(caption=f'thing {key}', url='http://x.example'))).encode())
    want = [(f'{n:05}{i:04}.jpg', f'thing {n:05}{i:04}') for n in range(2) for i in range(3)]
    assert [(o['filename'], o['caption']) for o in read_captions(tmp_path)] == want
    assert [(o['image_id'], o['caption']) for o in read_captions(tmp_path/'00001.tar')] == want[3:]

def test_textcaps_kohya_and_lists(tmp_path):
    (tmp_path/'TextCaps_0.1_train.json').write_text(json.dumps(dict(dataset_type='train', data=[dict(image_id='c0a8',
        image_path='train/c0a8.jpg', caption_id=1, caption_str='The sign says hi.', reference_strs=['x'])])))
    o, = read_captions(tmp_path/'TextCaps_0.1_train.json')
    assert (o['image_id'], o['filename'], o['caption']) == ('c0a8', 'train/c0a8.jpg', 'The sign says hi.')
    with pytest.warns(UserWarning), pytest.raises(ValueError, match="belongs to the part 'val'"):
        captions(tmp_path/'TextCaps_0.1_train.json', 'val')
    (tmp_path/'meta.json').write_text(json.dumps({'/d/a.jpg': dict(caption='a dog', tags='dog'),
        '/d/b.jpg': dict(tags='x')}))
    with pytest.warns(UserWarning, match='1 empty caption skipped'):
        assert captions(tmp_path/'meta.json') == ['a dog']

def test_vizwiz_and_nocaps(tmp_path):
    (tmp_path/'val.json').write_text(json.dumps(dict(images=[dict(id=23431, file_name='VizWiz_val_00000000.jpg')],
        annotations=[dict(image_id=23431, id=1, caption='a cup', is_precanned=False, is_rejected=False),
            dict(image_id=23431, id=2, caption='Quality issues', is_precanned=True, is_rejected=True)])))
    with pytest.warns(UserWarning, match='1 of 2 captions are marked as rejected'):
        o, = read_captions(tmp_path/'val.json', 'val')
    assert (o['image_id'], o['caption'], o['filename']) == (23431, 'a cup', 'VizWiz_val_00000000.jpg')

def test_conceptual_captions(tmp_path):
    (tmp_path/'cc.tsv').write_text('a bus station\thttp://x.example/1.jpg\nit "looks" big\thttp://x.example/2\n')
    assert [(o['image_id'], o['caption']) for o in read_captions(tmp_path/'cc.tsv')] == [('http://x.example/1.jpg',
        'a bus station'), ('http://x.example/2', 'it "looks" big')]

def test_wrong_types_in_json_are_one_line(tmp_path):
    "Each field of each layout, replaced by something else"
    whole = {
        'karpathy': {'images': [dict(filename='a.jpg', split='train', cocoid=1,
            sentences=[dict(raw='A dog', sentid=1)])]},
        'coco': {'images': [dict(id=1, file_name='a.jpg')], 'annotations': [dict(image_id=1, id=1, caption='A dog')]},
        'list': [dict(image_id=1, caption='A dog', id=1, filename='a.jpg')],
        'names': {'a.jpg': ['A dog']}}
    odd = [None, True, 1.5, 'x', [], [[]], {}, {'a': []}, 10**30, -1]
    def variants(o):
        yield from odd
        if isinstance(o, dict):
            for k, v in o.items():
                yield from ({**o, k: w} for w in variants(v))
        if isinstance(o, list):
            yield from ([w, *o[1:]] for v in o[:1] for w in variants(v))
    n = read = 0
    for name, o in whole.items():
        for w in variants(o):
            n += 1
            (tmp_path/f'{name}.json').write_text(json.dumps(w))
            with warnings.catch_warnings():
                warnings.simplefilter('ignore')
                try:
                    rows = list(read_captions(tmp_path/f'{name}.json', None))
                    write_captions(rows, tmp_path/'out.json')
                    assert [r['caption'] for r in rows] == captions(tmp_path/'out.json')
                    read += 1
                except (ValueError, OSError) as e:
                    assert '\n' not in str(e)
    assert n > 200 and read > 20

# --- what fuzzing found

@pytest.mark.parametrize('name,write', [
    ('names.json', lambda o: json.dumps({'a.jpg': o, 'b.jpg': ['A cat.']})),
    ('list.json', lambda o: json.dumps([dict(image_id=1, caption=o, id=5), dict(image_id=2, caption='A cat.', id=6)])),
    ('coco.json', lambda o: json.dumps(dict(images=[], annotations=[dict(image_id=1, caption=o, id=5),
        dict(image_id=2, caption='A cat.', id=6)]))),
    ('lines.jsonl', lambda o: json.dumps(dict(image_id=1, caption=o)) + '\n' + json.dumps(dict(image_id=2,
        caption='A cat.')))])
def test_a_text_that_is_written_as_a_list(tmp_path, name, write):
    "Is the captions in it, in every layout, so that what we write reads as what we read"
    (tmp_path/name).write_text(write(json.dumps(['A dog.', 'One dog.'])))
    assert captions(tmp_path/name) == ['A dog.', 'One dog.', 'A cat.']
    rows = list(read_captions(tmp_path/name, None))
    write_captions(rows, tmp_path/'again.json')
    assert captions(tmp_path/'again.json') == ['A dog.', 'One dog.', 'A cat.']
    (tmp_path/name).write_text(write(json.dumps(['A dog.'])))
    assert captions(tmp_path/name) == ['A dog.', 'A cat.']

@pytest.mark.parametrize('end', ['gz', 'bz2', 'xz', 'zip', 'tar', 'tgz'])
@pytest.mark.parametrize('left', [b'P', b'BZh91AY', b'abc', b"B h-1AY&SY'"])
def test_a_few_letters_of_an_archive_are_no_caption(tmp_path, end, left):
    f = tmp_path/f'captions.txt.{end}'
    f.write_bytes(left)
    with pytest.raises(ValueError, match=f'captions.txt.{end}: damaged archive'):
        captions(f)

@pytest.mark.parametrize('end', ['zip', 'tar', 'tgz'])
def test_a_small_file_in_an_archive_is_whole(tmp_path, end):
    f = tmp_path/f'a.{end}'
    if end == 'zip':
        with zipfile.ZipFile(f, 'w') as z:
            z.writestr('captions.txt', 'A dog.')
    else:
        with tarfile.open(f, 'w' if end == 'tar' else 'w:gz') as t:
            add(t, 'captions.txt', b'A dog.')
    assert captions(f) == ['A dog.']

def test_a_zip_that_ends_before_it_begins(tmp_path):
    f = io.BytesIO()
    with zipfile.ZipFile(f, 'w') as z:
        z.writestr('captions.txt', 'A dog.\nA cat.\n')
    raw = bytearray(f.getvalue())
    at = raw.rindex(b'PK\5\6')
    # where the list of members begins
    for value in (b'\xff\xff\xff\x7f', b'\x00\x00\x01\x00'):
        raw[at+16:at+20] = value
        (tmp_path/'a.zip').write_bytes(raw)
        with pytest.raises((ValueError, FileNotFoundError)) as e:
            captions(tmp_path/'a.zip')
        assert str(tmp_path/'a.zip') in str(e.value) and '\n' not in str(e.value)

def test_what_tarfile_tried_is_one_line(tmp_path):
    with tarfile.open(tmp_path/'a.tar', 'w') as t:
        add(t, 'captions.txt', b'A dog.\n')
    raw = bytearray((tmp_path/'a.tar').read_bytes())
    raw[148] ^= 1
    (tmp_path/'a.tar').write_bytes(raw)
    with pytest.raises(ValueError) as e:
        captions(tmp_path/'a.tar')
    assert 'a.tar: damaged archive' in str(e.value) and '\n' not in str(e.value)

def test_did_you_mean():
    from capdec.data import sources_table
    with pytest.raises(ValueError, match="source 'flikr8k': not known; did you mean flickr8k"):
        sources_table(['flikr8k'])

@pytest.mark.parametrize('name,tree', [('names.json', {'': ['A dog.', 'One dog.'], 'b.jpg': ['A cat.']}),
    ('karpathy.json', dict(images=[dict(filename=' ', split='train', sentences=[dict(raw='A dog.')])])),
    ('coco.json', dict(images=[], annotations=[dict(image_id='', caption='A dog.', id=1)]))])
def test_captions_under_an_empty_name(tmp_path, name, tree):
    "Would be those of several photos when they are read again"
    (tmp_path/name).write_text(json.dumps(tree))
    with pytest.raises(ValueError, match=f'{name}, caption 1: the name of its image is empty'):
        captions(tmp_path/name)

@pytest.mark.parametrize('spellings', [
    [391895, '391895', '000000391895', '000000391895.jpg', 'COCO_val2014_000000391895',
     'COCO_val2014_000000391895.jpg', 'val2014/COCO_val2014_000000391895.jpg'],
    [1000268201, '1000268201', '1000268201_693b08cb0e', '1000268201_693b08cb0e.jpg',
     'photos/1000268201_693b08cb0e.jpg']],
    ids=['COCO', 'Flickr'])
def test_one_photo_in_all_spellings(spellings):
    "Names without their ending are ids to many"
    for known in spellings:
        index = IdIndex([known, 'other.jpg', 7])
        assert [index.find(o) for o in spellings] == [known]*len(spellings)
        assert index.find('another.jpg') is None and index.find(8) is None

def test_the_first_row_without_a_heading_may_have_a_quote(tmp_path):
    "That goes on in the next line, or is never closed"
    f = tmp_path/'a.csv'
    f.write_text('a.jpg,"A dog, ""x""\nruns."\nb.jpg,A cat sits.\n')
    assert captions(f) == ['A dog, "x" runs.', 'A cat sits.']
    f.write_text('a.jpg,"A dog runs.\nb.jpg,A cat sits.\n')
    with pytest.raises(ValueError, match='a.csv, row 1: a quote opens and is never closed'):
        captions(f)
