"How sure a captioner is: a column that survives resumed runs, and an order that photos and captions give"
import copy
import csv
import json

import pytest
import torch
from PIL import Image
from skimage import data as photos

from capdec.captioner import Sure
from capdec.folder import Parts
from capdec.sureness import usual
from shell import capdec, one_line

pytestmark = pytest.mark.usefixtures('one_encoder')

@pytest.fixture
def trip(tmp_path):
    d = tmp_path/'trip'
    d.mkdir()
    for n in ('chelsea', 'coffee', 'rocket'):
        Image.fromarray(getattr(photos, n)()).save(d/f'{n}.png')
    return d

def rows(file):
    with open(file, newline='') as f:
        return {r['file'].rpartition('/')[2]: r for r in csv.DictReader(f)}

def test_beside_the_caption(mini, trip):
    files = sorted(trip.iterdir())
    found = mini(files, sureness=True)
    assert all(isinstance(o, Sure) for o in found) and [o.caption for o in found] == mini(files)
    # alone or in a batch: the same
    assert mini(files[1], sureness=True).sureness == pytest.approx(found[1].sureness, abs=1e-3)
    assert [r.sureness for r in mini.caption_files(files, sureness=True)] == pytest.approx(
        [o.sureness for o in found], abs=1e-3)
    assert [r.sureness for r in mini.caption_files(files)] == [None]*3
    with pytest.warns(UserWarning, match='cannot be read'):
        assert mini([files[0], trip/'none.png'], sureness=True)[1] is None

def test_another_photos_caption_is_doubted(mini, trip):
    from capdec.folder import photo_vectors
    from capdec.candidates import captions_of
    from capdec.sureness import sureness
    x = photo_vectors(mini, sorted(trip.iterdir()))
    said = [o[0] for o in captions_of(mini, x)]
    own, other = sureness(mini, x, said), sureness(mini, x, said[1:] + said[:1])
    assert sum(own) > sum(other) + 3

def test_a_column_of_a_table(trip, tmp_path):
    out = tmp_path/'t.csv'
    capdec('caption', trip/'chelsea.png', trip/'coffee.png', '--out', out, '--sureness', ok=True)
    first = rows(out)
    assert list(first['coffee.png']) == ['file', 'caption', 'sureness', 'error']
    assert all(-9 < float(r['sureness']) < 9 for r in first.values())
    # a photo more: what stood there keeps its number
    capdec('caption', trip, '--out', out, '--sureness', ok=True)
    again = rows(out)
    assert len(again) == 3 and again['rocket.png']['sureness']
    assert {k: again[k]['sureness'] for k in first} == {k: v['sureness'] for k, v in first.items()}
    # and so it does in a run that does not ask
    Image.fromarray(photos.camera()).save(trip/'camera.png')
    capdec('caption', trip, '--out', out, ok=True)
    last = rows(out)
    assert last['camera.png']['sureness'] == '' and last['coffee.png']['sureness'] == first['coffee.png']['sureness']

def test_json_lines_and_the_terminal(trip, tmp_path):
    r = capdec('caption', trip/'coffee.png', '--sureness', '--json', ok=True)
    row = json.loads(r.stdout)
    assert isinstance(row['sureness'], float)
    name, caption, sure = capdec('caption', trip/'coffee.png', '--sureness', ok=True).stdout.rstrip('\n').split('\t')
    assert float(sure) == pytest.approx(row['sureness'], abs=2e-3) and caption == row['caption']
    capdec('caption', trip, '--sureness', '--out', tmp_path/'t.json', ok=True)
    assert all('sureness' in o for o in json.loads((tmp_path/'t.json').read_text()))
    # without the flag nothing of it is told
    assert 'sureness' not in capdec('caption', trip/'coffee.png', '--json', ok=True).stdout

def test_the_page_is_sorted_by_it(trip, tmp_path):
    capdec('caption', trip, '--sureness', '--gallery', tmp_path/'page.html', ok=True)
    page = (tmp_path/'page.html').read_text()
    assert page.count('data-sureness=') >= 3 and 'value="sureness"' in page

def test_where_it_cannot_be_shown(trip, tmp_path):
    assert '--sureness' in one_line(capdec('caption', trip, '--sureness', '--sidecar', ok=False))[0]
    assert not list(trip.glob('*.txt'))

def test_damaged_photos_have_none(trip, tmp_path):
    (trip/'bad.png').write_bytes(b'no photo')
    out = tmp_path/'t.csv'
    capdec('caption', trip, '--out', out, '--sureness')
    bad = rows(out)['bad.png']
    assert bad['error'] and bad['sureness'] == ''

def parts_of(c, **other):
    return Parts(**dict(model=c.model, encoder=c.encoder, bridge=c.bridge, pool=c.pool) | other)

def test_a_copy_that_is_trained_on_has_its_own_usual(mini):
    own, model = usual(parts_of(mini)), copy.deepcopy(mini.model)
    assert usual(parts_of(mini, model=model)) == own
    with torch.no_grad():
        for p in model.mapper.parameters():
            p.mul_(1.2)
    assert usual(parts_of(mini, model=model)) != own == usual(parts_of(mini))

def test_every_way_across_the_gap_has_its_own_usual(mini):
    "One measure for all made captions of the second way look surer, or less sure, than they are"
    a, b, again = (usual(parts_of(mini, bridge=mini.bridge.using(o))) for o in ('none', 'offset', 'none'))
    assert a == again != b
