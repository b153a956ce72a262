"Tables that spreadsheets open: no field begins as a formula, and all are read back as they were"
import csv
import json
import os
import string
from pathlib import Path

import pytest
from hypothesis import given, strategies as st
from PIL import Image

from capdec.album import earlier_captions, write_table
from capdec.captioner import Captioner, Result
from capdec.core import as_cell, of_cell
from capdec.data import read_captions
from capdec.open_text import _column
from shell import capdec

SIGNS = '=+-@\t\r\uff1d\uff0b\uff0d\uff20'
EVIL = ['=HYPERLINK("http://x","y"), a dog', '+1', '-2 dogs', '@SUM(A1)', '\uff1d1', "'=1", "''+1", "'tis a dog", "'",
    'A dog.', '"=1"', ' =1']

def begins_as_formula(path):
    with open(path, encoding='utf-8', newline='') as f:
        return [o for row in csv.reader(f) for o in row if o[:1] and o[0] in SIGNS]

@pytest.mark.hypothesis
@given(st.text(st.sampled_from([*SIGNS, "'", ' ', *string.ascii_lowercase[:3], '\n', '"', ',']), max_size=6))
def test_any_text_comes_back(text):
    assert of_cell(as_cell(text)) == text and as_cell(text)[:1] not in tuple(SIGNS)

@pytest.mark.parametrize('n', [1, 2])
def test_tables(tmp_path, n):
    out = str(tmp_path/'t.csv')
    rows = [dict(key=f'{t}.jpg', captions=[t]*n, error=None) for t in EVIL]
    write_table(out, [*rows, dict(key='=bad.jpg', captions=[], error='=bad.jpg: not an image')], n)
    assert not begins_as_formula(out)
    assert earlier_captions(out, n) == {o['key']: o['captions'] for o in rows}
    # as captions with their photos, and as text
    records = list(read_captions(out))
    assert [(o['filename'], o['caption']) for o in records] == [(o['key'].strip(), t.strip()) for o in rows
        for t in o['captions']]
    column = 'caption' if n == 1 else 'caption_2'
    assert list(_column(Path(out), column, 'utf-8')) == [*EVIL, '']

def test_tables_of_others_stay_as_they_are(tmp_path):
    (tmp_path/'t.csv').write_text("image,caption\na.jpg,'-2 dogs\nb.jpg,=1\n")
    assert [o['caption'] for o in read_captions(tmp_path/'t.csv')] == ["'-2 dogs", '=1']

def test_captioning_goes_on_with_such_names(tmp_path, monkeypatch):
    "The second run finds every photo in the table"
    monkeypatch.chdir(tmp_path)
    for name in ('=1+1.jpg', "'@x.jpg", '-v.jpg'):
        Image.new('RGB', (30, 20), 'navy').save(name)
    monkeypatch.setattr(Captioner, 'caption_files', lambda self, paths, **k: (Result(p, ['=cmd()'], None)
        for p in paths))
    for said in ('3 photos captioned', '3 were there already'):
        r = capdec('caption', './=1+1.jpg', "'@x.jpg", './-v.jpg', '--out', 't.csv', '--device', 'cpu', ok=True)
        assert said in r.stdout
    assert not begins_as_formula('t.csv') and set(earlier_captions('t.csv')) == {'=1+1.jpg', "'@x.jpg", '-v.jpg'}
    capdec('parse', 't.csv', '--out', 'c.json', ok=True)
    assert {(o['filename'], o['caption']) for o in json.loads((tmp_path/'c.json').read_text())} == {(o, '=cmd()')
        for o in os.listdir() if o.endswith('.jpg')}
