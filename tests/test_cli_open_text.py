"capdec open-text: sentences of any text"
import json

from shell import capdec, one_line

def test_lengths_and_output_of_open_text(published, tmp_path):
    """The lengths count with the official cleanings too; a name that ends in .store makes a store, and goes in again by
    its data set's number"""
    from capdec.store import EmbeddingStore
    run = lambda *a, ok=True: capdec('open-text', published/'books', *a, '--out', tmp_path/'o.json', ok=ok)
    for more, n in (((), 2), (('--official',), 2), (('--official', '--min_words', 7), 1),
            (('--shakespeare', '--min_words', 1, '--max_words', 5), 0)):
        r = run(*more, ok=bool(n))
        if n:
            assert len(json.loads((tmp_path/'o.json').read_text())) == n
        else:
            assert 'change --min_words or --max_words' in one_line(r)[0]
    assert '--min_words 30 and --max_words 20' in one_line(run('--min_words', 30, ok=False))[0]
    assert '--share' in one_line(run('--mix', published/'factual.json', '--share', 2, ok=False))[0]
    capdec('open-text', published/'books', '--out', tmp_path/'b.store', ok=True)
    assert EmbeddingStore(tmp_path/'b.store').captions() == ['It was a bright cold day in spring.',
        'The clocks were striking again.']
    capdec('parse', tmp_path/'b.store', '--dataset_mode', 6, '--out', tmp_path/'again.json', ok=True)
    assert len(json.loads((tmp_path/'again.json').read_text())) == 2

def test_a_text_has_no_columns(tmp_path):
    (tmp_path/'a.txt').write_text('A dog runs in the snow.\n')
    r = capdec('open-text', 'a.txt', '--column', 'text', cwd=tmp_path, ok=False)
    assert len(one_line(r)) == 1 and 'is no table' in r.stderr and len(list(tmp_path.iterdir())) == 1
