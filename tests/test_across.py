"The harness: every kind of lever from captions and photos to a row, and nothing of another run taken for its own"
import json

import pytest

from capdec.core import bundled
from capdec.studies import across
from capdec.terminal import run_command

LEVERS = ('half memory', 'noise as captions differ', 'noise as pairs differ', 'another caption as target',
    'mean removed', 'captions like it, in training', 'words', 'whitening', 'vote, mirror image', 'words, vote')

def run(shared, out, *args):
    return run_command(across.across_study, 'across', ['--shared', str(shared), '--out', str(out), '--results',
        str(out/'rows.json'), '--worlds', 'flickr', '--seeds', '0', '--steps', '2', '--threads', '1', *args])

def rows(out):
    return json.loads((out/'rows.json').read_text())['rows']

def test_every_kind_of_lever(small_shared, tmp_path, capsys):
    assert run(small_shared, tmp_path, '--halves', 'choose', '--levers', *LEVERS) == 0
    found = rows(tmp_path)
    assert [o['lever'] for o in found] == [across.CAPDEC, *LEVERS]
    told = {o['lever']: o['knows'] for o in found}
    assert told['noise as pairs differ'] == 'pairs' and told['whitening'] == told['mean removed'] == 'images, unpaired'
    assert told['half memory'] == told['words'] == 'captions alone'
    assert all(o['encoder'] == 'mini@2' and o['photos'] == 'choose' for o in found)
    # decoders are shared by rows that differ at inference alone: 1 + 5 trainings + 1 with words
    assert len(list(tmp_path.glob('*/decoder'))) == 7
    # another set of photos: only that is made
    before = {p: p.stat().st_mtime_ns for p in tmp_path.glob('*.json') if p.name != 'rows.json'}
    assert run(small_shared, tmp_path, '--halves', 'choose', 'coco_choose', '--levers', 'half memory') == 0
    assert len(rows(tmp_path)) == len(found) + 2 and rows(tmp_path)[:len(found)] == found
    assert {p: p.stat().st_mtime_ns for p in before} == before
    # times are noted beside the rows, and no row changes
    told = rows(tmp_path)
    assert run(small_shared, tmp_path, '--halves', 'choose', '--levers', 'half memory', '--timed', '3') == 0
    times = json.loads((tmp_path/'rows.json').read_text())['times of flickr']
    assert rows(tmp_path) == told and list(times) == [across.CAPDEC, 'half memory'] and times[across.CAPDEC] == 1
    # other steps: other decoders and captions
    assert run(small_shared, tmp_path, '--halves', 'choose', '--levers', 'half memory', '--steps', '3') == 0
    assert len(rows(tmp_path)) == len(found) + 4 and len(list(tmp_path.glob('*/decoder'))) == 8
    capsys.readouterr()

def test_an_encoder_without_a_classifier_tells_no_words(small_shared, tmp_path, capsys):
    # the pair's classifier lies beside its captioner: it comes with the name, not with the folder
    args = ['--halves', 'choose', '--clip_model_type', str(bundled('mini', 'encoder')), '--levers', 'words',
        'half memory']
    assert run(small_shared, tmp_path, *args) == 0
    assert 'left out, as the encoder brings no classifier: words' in capsys.readouterr().err
    assert [o['lever'] for o in rows(tmp_path)] == [across.CAPDEC, 'half memory']

@pytest.mark.parametrize('flag, bad, way_out', [('--levers', 'luck', 'use noise alone'),
    ('--halves', 'all', 'use choose'), ('--worlds', 'mars', 'use flickr, coco'), ('--steps', '0', 'at least 1'),
    ('--shared', 'nowhere', 'data/karpathy')])
def test_bad_input_is_one_line(flag, bad, way_out, capsys):
    assert run_command(across.across_study, 'across', [flag, bad]) == 1
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and said[0].startswith(f'capdec: error: {flag}') and way_out in said[0]
