"The swaps of `capdec embed` and `capdec train`, as a user runs them"
import json

import pytest

from shell import capdec, one_line

@pytest.fixture(scope='module')
def edited(tmp_path_factory):
    "A few captions and a table of terms, in a folder"
    d = tmp_path_factory.mktemp('edited')
    captions = [f'{who} {does} in the {where}.' for who in ('A man', 'An old woman', 'Two boys', 'A dog')
        for does in ('runs', 'waits', 'plays') for where in ('park', 'snow', 'rain')]
    (d/'captions.json').write_text(json.dumps([{'image_id': i//5, 'caption': o, 'id': i} for i,
        o in enumerate(captions)]))
    (d/'age.json').write_text(json.dumps({'groups': ['old', 'young'], 'words': [['old', 'young']]}))
    return d, captions

def test_embed_swaps_terms_and_says_so(edited):
    from capdec.fairness import debias, load_terms
    from capdec.store import EmbeddingStore
    d, captions = edited
    records = json.loads((d/'captions.json').read_text())
    for mode, table in ((1, ''), (2, ''), (3, ''), (1, 'age.json')):
        out = d/f'{mode}{table}.store'
        args = ['embed', '--data', d/'captions.json', '--clip_model_type', 'mini', '--device', 'cpu',
            '--fix_gender_imbalance_mode', mode, '--seed', 3, '--out', out]
        if table:
            args += ['--gender_terms', d/table]
        # the second run finds the first one's store, and reports the same
        said = [capdec(*args, ok=True).stdout for _ in range(2)][1]
        store, kept = EmbeddingStore(out), json.loads((out/'debias.json').read_text())
        want = [o['caption'] for o in debias(records, mode, 3, **({'terms': load_terms(d/table)} if table else {}))]
        assert store.captions(slice(0, len(store))) == want and want != captions
        changed = sum(a != b for a, b in zip(captions, want))
        assert f'{changed} changed' in said and 'before' in said and ('old : young' if table else 'man : woman') in said
        assert kept['changed'] == changed and kept['after'] != kept['before'] and store.meta[
            'fix_gender_imbalance_mode'] == mode and ('gender_terms' in store.meta) == bool(table)

def test_train_learns_the_edited_captions(edited):
    from capdec.store import EmbeddingStore
    d, captions = edited
    r = capdec('train', '--data', d/'captions.json', '--clip_model_type', 'mini', '--lm', 'mini', '--mapping_type',
        'mlp', '--prefix_length', 2, '--max_steps', 1, '--fix_gender_imbalance_mode', 1,
        '--out_dir', d/'run', '--device', 'cpu', ok=True)
    store = EmbeddingStore(d/'run'/'captions.json.train.store')
    told = store.captions(slice(0, len(store)))
    assert told != captions and 'man : woman' in r.stdout and (
        d/'run'/'captions.json.train.store'/'debias.json').exists()

@pytest.mark.parametrize('args,error', [
    (('--fix_gender_imbalance_mode', 7), '--fix_gender_imbalance_mode): use 0 none'),
    (('--gender_terms', 'age.json'), 'give both'), (('--fix_gender_imbalance_mode', 1, '--gender_terms', 'none.json'),
    'none.json'),
    (('--fix_gender_imbalance_mode', 1, '--gender_terms', 'captions.json'), 'captions.json')])
def test_swaps_that_cannot_be_made(edited, args, error):
    d, _ = edited
    r = capdec('embed', '--data', 'captions.json', '--clip_model_type', 'mini', '--device', 'cpu', '--out', 'bad.store',
        *args, cwd=d, ok=False)
    assert len(one_line(r)) == 1 and error in r.stderr and not (d/'bad.store').exists()

def test_vectors_cannot_be_edited(edited, tmp_path):
    d, _ = edited
    capdec('embed', '--data', d/'captions.json', '--clip_model_type', 'mini', '--device', 'cpu', '--out', tmp_path/'s',
        ok=True)
    r = capdec('train', '--data', tmp_path/'s', '--fix_gender_imbalance_mode', 1, '--lm', 'mini', '--out_dir',
        tmp_path/'run', '--device', 'cpu', ok=False)
    assert len(one_line(r)) == 1 and 'pass it to `capdec embed`' in r.stderr
    r = capdec('embed', '--images', d, '--fix_gender_imbalance_mode', 1, '--clip_model_type', 'mini', '--device', 'cpu',
        ok=False)
    assert len(one_line(r)) == 1 and 'must be a file of captions' in r.stderr
