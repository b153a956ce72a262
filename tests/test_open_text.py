"Properties, bad input and streaming of `capdec.open_text`"
import gzip,json,lzma,re,subprocess,sys,tarfile,zipfile
from pathlib import Path

import pytest
from hypothesis import given,settings,strategies as st

import capdec.open_text as ot
from capdec.open_text import CorpusReport,count_words,mix,read_open_text,read_passages,split_sentences

def captions(path, **kwargs):
    return [o['caption'] for o in read_open_text(path, **kwargs)]

prose = st.lists(st.sampled_from('the a dog Mr. Lee ran home. Why? "No!" she said, at 5 p.m. on foot... don\'t 3.50 '
    '(yes) well-worn Straße 狗 Page 12.'.split()), min_size=1, max_size=60)

def test_import_is_light():
    code = ('import sys, capdec.open_text; print([o for o in ("torch","pandas","matplotlib","sentencex","datasets") if '
        'o in sys.modules])')
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True,
        check=True).stdout.strip() == '[]'

@settings(max_examples=200, deadline=None)
@given(st.text(max_size=300))
def test_splitter_loses_nothing(text):
    squeeze = lambda o: ''.join(o.split())
    assert squeeze(''.join(split_sentences(text))) == squeeze(text)

@settings(max_examples=60, deadline=None)
@given(prose)
def test_words_are_counted_without_punctuation(words):
    assert count_words(' -- '.join(words)) == sum(count_words(o) for o in words)

@settings(max_examples=60, deadline=None)
@given(prose, st.integers(1, 9))
def test_wrapping_changes_nothing(tmp_path_factory, words, width):
    # lines in quotes throughout would be those of `alllines.txt`
    words = [o.replace('"', '') for o in words]
    f = tmp_path_factory.mktemp('wrap')/'a.txt'
    f.write_text('\n'.join(' '.join(words[i:i+width]) for i in range(0, len(words), width)), encoding='utf-8')
    g = f.with_name('b.txt')
    g.write_text(' '.join(words), encoding='utf-8')
    def read(p):
        return [s for t in read_passages(p, wrapped=True) for s in split_sentences(t)]
    assert read(f) == read(g)

def test_every_line_is_read_whatever_the_length_of_the_file(tmp_path):
    for n in (1, 499, 500, 501, 1203):
        for end in ('\n', '\r\n'):
            (tmp_path/'a.txt').write_bytes(end.join(f'Here is sentence number {i} of it.' for i in range(n)).encode())
            assert captions(tmp_path/'a.txt') == [f'Here is sentence number {i} of it.' for i in range(n)]

def test_small_pieces_change_nothing(tmp_path, monkeypatch):
    f = tmp_path/'a.txt'
    text = ' '.join(f'Mr. Hale counted {i} boats, and {i+1} more... on Jan. 5.' for i in range(200))
    for layout in (text, text.replace(', ', ',\n'), text + '\n\n' + text.upper()):
        f.write_text(layout)
        monkeypatch.setattr(ot, 'PIECE', 1<<20)
        whole = captions(f), captions(f, official=True)
        monkeypatch.setattr(ot, 'PIECE', 150)
        assert (captions(f), captions(f, official=True)) == whole and whole[0]

def test_endless_line_without_an_end(tmp_path, monkeypatch):
    monkeypatch.setattr(ot, 'PIECE', 1000)
    (tmp_path/'a.txt').write_text('word '*5000)
    report = CorpusReport()
    with pytest.raises(ValueError, match='too long'):
        list(read_open_text(tmp_path/'a.txt', report=report))
    (tmp_path/'a.txt').write_text('word '*5000 + '. A short one after it all.')
    assert captions(tmp_path/'a.txt')[-1] == 'A short one after it all.'

@settings(max_examples=60, deadline=None)
@given(prose, st.integers(1, 6), st.integers(0, 10))
def test_limits_order_ids_and_report(tmp_path_factory, words, lo, more):
    f = tmp_path_factory.mktemp('limits')/'a.txt'
    f.write_text(' '.join(words), encoding='utf-8')
    report = CorpusReport()
    try:
        found = list(read_open_text(f, lo, lo+more, report=report))
    except ValueError as e:
        assert 'none of its' in str(e) and report.kept == 0
        return
    texts = [o['caption'] for o in found]
    assert all(lo <= count_words(o) <= lo+more for o in texts)
    assert len({o.casefold() for o in texts}) == len(texts) == report.kept
    assert [(o['id'], o['image_id'], o['filename']) for o in found] == [(i, i, None) for i in range(len(found))]
    assert report.kept + report.dropped.total() == report.seen == report.words.total()
    assert list(read_open_text(f, lo, lo+more)) == found

def official_plain(text):
    "The official cleaning on a text held whole, by the description of what it does"
    lines = [o for o in text.split('\n') if not o.startswith('Page ')]
    kept = ''.join(c for c in ' '.join(lines) if c in 'abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ". ')
    found = [' '.join(o.split()) for o in kept.split('.')]
    return [o for o in found if 4 <= count_words(o) <= 18]

@settings(max_examples=60, deadline=None)
@given(st.lists(prose, min_size=1, max_size=6))
def test_official_cleaning(tmp_path_factory, lines):
    f = tmp_path_factory.mktemp('official')/'a.txt'
    text = '\n'.join(['Page 7 of a book', *(' '.join(o) for o in lines)])
    f.write_text(text + '\n. One sentence that is surely kept here.', encoding='utf-8')
    found = captions(f, official=True)
    assert found == official_plain(text + '\n. One sentence that is surely kept here.')
    assert all(re.fullmatch('[A-Za-z" ]+', o) for o in found) and not any('of a book' in o for o in found)

def test_official_details(tmp_path):
    (tmp_path/'a.txt').write_text('He didn\'t go there at all. Page 3 is kept here, though.\nPage | 3 Title of the '
        'book\n' + 'w '*19 + '. ' + 'v '*18 + '.\nSame old words again. Same old words again.')
    assert captions(tmp_path/'a.txt', official=True) == ['He didnt go there at all', 'Page is kept here though',
        ' '.join('v'*18), 'Same old words again', 'Same old words again']

def test_shakespeare_keeps_every_line(tmp_path):
    (tmp_path/'alllines.txt').write_text('"ACT I"\n"So shaken as we are, so wan with care,"\n""\n"Find we a '
        'time"\n"Find we a time"\n')
    assert captions(tmp_path/'alllines.txt', shakespeare=True) == ['ACT I', 'So shaken as we are so wan with care',
        'Find we a time', 'Find we a time']
    with pytest.raises(ValueError, match='choose one'):
        read_open_text(tmp_path/'alllines.txt', shakespeare=True, official=True)

def test_quotes_of_dialogue_are_not_taken_off(tmp_path):
    (tmp_path/'a.txt').write_text('"Come to me at once!"\nHe came to her slowly.\n"What is it now?"\n')
    assert captions(tmp_path/'a.txt') == ['"Come to me at once!"', 'He came to her slowly.', '"What is it now?"']

def test_table(tmp_path):
    (tmp_path/'a.csv').write_text('\ufeffid;Article\n1;"One is here; it has; semicolons.\n\nAnd two, a new '
        'paragraph."\n2;\n3;Three is the third one.\n', encoding='utf-8')
    assert captions(tmp_path/'a.csv') == ['One is here; it has; semicolons.', 'And two, a new paragraph.',
        'Three is the third one.']
    (tmp_path/'long.tsv').write_text('n\ttext\n1\t' + 'A very long article it is. '*20_000 + '\n')
    # beyond Python's own limit of 128 kB a field
    assert captions(tmp_path/'long.tsv') == ['A very long article it is.']
    (tmp_path/'b.csv').write_text('one,two\nx,y\n')
    with pytest.raises(ValueError, match='which column'):
        captions(tmp_path/'b.csv')
    with pytest.raises(ValueError, match="no column 'three'; there are one, two"):
        captions(tmp_path/'b.csv', column='three')
    with gzip.open(tmp_path/'c.csv.gz', 'wt') as f:
        f.write('text\nA dog ran home today.\n')
    assert captions(tmp_path/'c.csv.gz') == ['A dog ran home today.']

def test_folder(tmp_path):
    for name,text in {'b.txt':'The second file is here.', 'a/z.txt':'The first file is here.',
            '.hidden.txt':'Nobody reads this at all.', 'notes.md':'Nor is this one read.'}.items():
        (tmp_path/name).parent.mkdir(exist_ok=True)
        (tmp_path/name).write_text(text)
    assert captions(tmp_path) == ['The first file is here.', 'The second file is here.']
    (tmp_path/'none').mkdir()
    with pytest.raises(FileNotFoundError, match='no .txt, .csv or .tsv files in it'):
        captions(tmp_path/'none')
    (tmp_path/'none'/'articles.csv').write_text('text\nA dog ran home today.\n')
    assert captions(tmp_path/'none') == ['A dog ran home today.']

def test_archives_as_they_are_downloaded(tmp_path):
    "Kaggle packs a play, seven books, or tables of articles into a zip"
    for name, files in {'play.zip': {'alllines.txt': '"ACT I"\n"So shaken as we are, so wan with care,"\n"Find we a '
        'time"\n'}, 'books.zip': {'b/2.txt': 'The second file is here.', 'b/1.txt': 'The first file is here.',
        '__MACOSX/b/._1.txt': '\0'},
                        'news.zip': {'archive/n.csv': 'title,article\nx,"A dog ran home today. It was very glad '
                        'there."\n', 'readme.md': 'Nobody reads this at all.'}, 'none.zip': {'a.json': '[]'}}.items():
        with zipfile.ZipFile(tmp_path/name, 'w') as z:
            for k, v in files.items():
                z.writestr(k, v)
    assert captions(tmp_path/'play.zip', shakespeare=True) == ['ACT I', 'So shaken as we are so wan with care',
        'Find we a time']
    assert captions(tmp_path/'books.zip') == ['The first file is here.',
        'The second file is here.'] and captions(tmp_path/'books.zip'/'b'/'2.txt') == ['The second file is here.']
    assert captions(tmp_path/'news.zip') == ['A dog ran home today.',
        'It was very glad there.'] and captions(tmp_path/'news.zip', column='title', min_words=1) == ['x']
    (tmp_path/'1.txt').write_text('The first file is here.')
    (tmp_path/'2.txt').write_text('The second file is here.')
    with tarfile.open(tmp_path/'books.tar.gz', 'w:gz') as t:
        for o in '21':
            t.add(tmp_path/f'{o}.txt', f'b/{o}.txt')
    # the content says what it is
    (tmp_path/'books').write_bytes((tmp_path/'books.tar.gz').read_bytes())
    for name in ('books.tar.gz', 'books'):
        assert captions(tmp_path/name) == captions(tmp_path/'books.zip')
    (tmp_path/'1.txt.xz').write_bytes(lzma.compress((tmp_path/'1.txt').read_bytes()))
    assert captions(tmp_path/'1.txt.xz') == ['The first file is here.']
    with pytest.raises(FileNotFoundError, match='none.zip: no .txt, .csv or .tsv'):
        captions(tmp_path/'none.zip')
    (tmp_path/'bad.zip').write_bytes(b'PK\3\4 and no more')
    with pytest.raises(ValueError, match='bad.zip: damaged archive'):
        captions(tmp_path/'bad.zip')
    (tmp_path/'latin.txt').write_bytes('Die Straße ist heute sehr schön.'.encode('cp1252'))
    with zipfile.ZipFile(tmp_path/'latin.zip', 'w') as z:
        z.write(tmp_path/'latin.txt', 'latin.txt')
    assert captions(tmp_path/'latin.zip', encoding='cp1252') == ['Die Straße ist heute sehr schön.']
    with pytest.raises(ValueError, match='not utf-8 text.*encoding, for example cp1252'):
        captions(tmp_path/'latin.zip')

@pytest.mark.parametrize('name,data,error', [
    ('empty.txt', b'', 'holds no text'), ('blank.txt', b' \n\n\t', 'holds no text'),
    ('empty.csv', b'', 'holds no text'), ('head.csv', b'text\n', 'holds no text'),
    ('latin.txt', 'Die Straße ist heute sehr schön.'.encode('latin-1'), 'not utf-8 text'),
    ('latin.csv', 'text\nDie Straße\n'.encode('latin-1'), 'not utf-8 text'),
    ('utf16.txt', 'A dog ran home.'.encode('utf-16-le'), 'zero bytes'),
    ('cut.txt.gz', gzip.compress(b'A dog ran home today. '*999, mtime=0)[:40], 'damaged archive'),
    ('book.pdf', b'%PDF', '.pdf is not read as text'), ('a.json', b'[]', '.json is not read as text'),
    ('short.txt', b'Too short.', r'none of its 1 sentences has 4 to 20 words \(1 too short\)')])
def test_bad_files_are_named(tmp_path, name, data, error):
    (tmp_path/name).write_bytes(data)
    with pytest.raises(ValueError, match=error) as e:
        captions(tmp_path/name)
    assert name in str(e.value) and '\n' not in str(e.value)

def test_other_bad_input(tmp_path):
    with pytest.raises(FileNotFoundError, match='no such file'):
        captions(tmp_path/'nowhere.txt')
    (tmp_path/'a.txt').write_text('A dog ran home today.')
    with pytest.raises(ValueError, match='`min_words` 9 and `max_words` 3'):
        read_open_text(tmp_path/'a.txt', 9, 3)
    with pytest.raises(ValueError, match='encoding'):
        captions(tmp_path/'a.txt', encoding='klingon')
    (tmp_path/'u.txt').write_text('A dog ran home today.', encoding='utf-16')
    assert captions(tmp_path/'u.txt', encoding='utf-16') == ['A dog ran home today.']
    (tmp_path/'zh.txt').write_text('狗在海滩上跑。🐕 The dog is really happy 🐕!', encoding='utf-8')
    assert len(captions(tmp_path/'zh.txt')) == 2

def test_a_bad_file_does_not_lose_the_others(tmp_path):
    (tmp_path/'a.txt').write_text('A dog ran home today.\n')
    (tmp_path/'b.txt').write_bytes(b'Die Stra\xdfe ist heute lang.')
    (tmp_path/'c.txt').write_text('Two cats slept there too.\n')
    for mode in ({}, {'official': True}, {'shakespeare': True}):
        report = CorpusReport()
        with pytest.warns(UserWarning, match='b.txt.*left out'):
            got = list(read_open_text(tmp_path, report=report, **mode))
        assert [o['caption'].rstrip('.') for o in got] == ['A dog ran home today',
            'Two cats slept there too'] and len(report.failed) == 1
        assert [o['id'] for o in got] == [0, 1]
    for n in 'ac':
        (tmp_path/f'{n}.txt').write_bytes(b'\xff\xfe\xff')
    with pytest.warns(UserWarning), pytest.raises(ValueError, match='a.txt'):
        captions(tmp_path)

def records(n, first=0, what='caption'):
    return [{'image_id': first+i//5, 'caption': f'{what} {i}', 'id': i, 'filename': None} for i in range(n)]

@settings(max_examples=80, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.sampled_from([0, .05, .1, 1/3, .5, .9, 1]), st.booleans(),
    st.integers(0, 3))
def test_mix(n_captions, n_sentences, share, repeat, seed):
    a,b = records(n_captions, 100),[{**o, 'image_id': o['id']} for o in records(n_sentences, 0, 'prose')]
    out = mix(a, b, share, seed, repeat)
    prose = [o for o in out if o['caption'].startswith('prose')]
    assert abs(len(prose) - share*len(out)) <= 1
    assert [o['id'] for o in out] == list(range(len(out)))
    assert not {o['image_id'] for o in prose} & {o['image_id'] for o in a}
    assert out == mix(iter(a), iter(b), share, seed, repeat)
    if not repeat:
        assert len({(o['caption']) for o in out}) == len(out)
    if 0 < share < 1 and repeat:
        assert len(out) >= max(n_captions, n_sentences) - 1

def test_mix_of_text_ids_and_bad_input():
    a = [{'image_id': 'x.jpg', 'caption': 'a', 'id': 0}]
    assert {o['image_id'] for o in mix(a, records(1))} == {'x.jpg', 'text-0'}
    for args in (([], records(3)), (records(3), []), (records(3), records(3), 1.5)):
        with pytest.raises(ValueError):
            mix(*args)

def test_kept_numbers_are_those_of_the_real_corpora(shared):
    kept = json.loads(Path('nbs/data/open_text.json').read_text())
    report = CorpusReport()
    for _ in read_open_text(shared/'data/open_text/wikinews_sentences.txt', report=report):
        pass
    assert (report.seen, report.kept) == (kept['wikinews, sentences']['seen'], kept['wikinews, sentences']['kept'])
    n = sum(1 for o in (shared/'data/open_text/shakespeare_lines.txt').open(encoding='utf-8') if o.strip())
    assert sum(1 for _ in read_open_text(shared/'data/open_text/shakespeare_lines.txt', shakespeare=True)) == n
