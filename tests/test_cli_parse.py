"capdec parse: every source as it is published"
import json

import pytest

from shell import capdec, one_line

@pytest.mark.parametrize('mode,file,more,want', [
    ('0', 'archive.zip', (), ['A man of coco train.', 'A man of coco restval.']),
    ('0.5', 'archive.zip', (), ['A man of coco val.']),
    ('1', 'archive.zip', (), ['A man of flickr30k train.', 'A man of flickr30k restval.']),
    ('1.5', 'archive.zip', (), ['A man of flickr30k val.']),
    ('2', 'FlickrStyle_v0.9.zip', (), 6),
    ('3', 'FlickrStyle_v0.9.zip', (), 6),
    ('4', 'FlickrStyle_v0.9.zip', ('--factual', 'factual.json'), 6),
    ('6', 'books', (), ['It was a bright cold day in spring.', 'The clocks were striking again.']),
    ('7', 'news.csv', (), 2),
    ('8', 'archive.zip', ('--images_list', 'women.txt'), ['A man of coco restval.', 'A man of coco val.']),
    ('9', 'alllines.txt', (), ['So shaken as we are so wan with care', 'Find we a time for frighted peace to pant'])])
def test_every_official_number_reads_its_source_as_published(published, tmp_path, mode, file, more, want):
    capdec('parse', file, '--dataset_mode', mode, '--out', tmp_path/'c.json', *more, cwd=published, ok=True)
    got = [o['caption'].strip('"') for o in json.loads((tmp_path/'c.json').read_text())]
    assert got == want if isinstance(want, list) else len(got) == want

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

def test_the_json_file_of_a_folder_is_meant(tmp_path):
    (tmp_path/'a.txt').write_text('A dog.\n')
    (tmp_path/'b.json').write_bytes(b'PK\3\4 no more')
    assert 'b.json: not JSON of captions' in one_line(capdec('parse', tmp_path, '--out', tmp_path/'out'/'d.json',
        ok=False))[0]
