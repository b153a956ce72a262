"capdec.studies.bench: the plain algorithms are the official ones (recorded numbers), and capdec's give the same"
import json

import numpy as np
import pytest
import torch

from capdec.studies.bench import (FLOORS, ROWS, best_batch, compare, padded_to, plain_beam_search, plain_captions,
    plain_logits, plain_loss, report, run_benchmark)
from capdec.decoding import generate
from capdec.model import gpt2_tokenizer,load_official

@pytest.fixture(scope='module', params=['mlp','transformer'])
def official(request, golden, shared):
    name = request.param
    z,info = np.load(golden/f'official_{name}.npz'),json.loads((golden/'golden.json').read_text())['results'][name]
    return load_official(golden/f'official_{name}.pt', gpt2_tokenizer(shared/'data/gpt2_bpe'), lm_heads=4),z,info

def test_plain_loss_is_the_official_loss(official):
    model,z,info = official
    x,tokens,mask = torch.tensor(z['prefix']),torch.tensor(z['tokens']),torch.tensor(z['mask'])[:, 10:] > 0
    assert torch.equal(padded_to([t[m].tolist() for t,m in zip(tokens, mask)], tokens.shape[1])[0], tokens)
    with torch.no_grad():
        # see test_model.test_official_outputs
        assert abs(plain_loss(model, x, tokens, mask).item() - z['loss'].item()) < 5e-5
        # pads too: the mask is the official one
        assert torch.allclose(plain_logits(model, x, tokens, mask)[..., :64], torch.tensor(z['logits_head']), rtol=1e-5,
            atol=1e-5)
        assert abs(plain_loss(model, x, tokens, mask).item() - model(x, tokens, mask).item()) < 1e-5

def test_plain_beam_search_is_the_official_one(official):
    model,z,info = official
    query = torch.tensor(z['query'])
    with torch.no_grad():
        prefix = model.prefix(query)
    texts = [[model.tokenizer.decode(t).strip() for t,_ in plain_beam_search(model, p, 5, 67, [13])]
        for p in prefix[:4]]
    assert texts == [[o.strip() for o in caps] for caps in info['beam'][:4]]
    assert plain_captions(model, query[:2]) == generate(model, query[:2], texts=True)

def test_ratios():
    from types import SimpleNamespace as S
    # 2 and 4 per second, 4 and 6 per second of CPU time
    result,first = compare(lambda: (2, S(clock=(1., .5))), lambda: (6, S(clock=(1.5, 1.)), ), repeats=2)
    assert (result['ratio'], result['ratios'], result['cpu_ratio'], result['plain']['per_second']) == (2., [2., 2.],
        1.5, 2.)

def test_best_batch_stops_where_memory_ends():
    def seconds(n):
        if n > 64:
            raise torch.OutOfMemoryError
        return 1/n
    assert best_batch(seconds, 16, 8.) == dict(batch_size=64, per_second=64., ratio=8.)

def test_the_saved_results_are_whole():
    from conftest import ROOT
    results = json.loads((ROOT/'nbs'/'data'/'bench.json').read_text())
    assert set(results['rows']) == set(FLOORS) and set(ROWS) <= {*results, *results['rows']}
    assert all(r['size'] and r['load'] and 0 < r['ratio'] for r in results['rows'].values())
    assert report(results).count('\n') >= 5

def test_rows_without_an_opponent_leave_a_table_without_lines(tmp_path, monkeypatch):
    from capdec.studies import bench
    monkeypatch.setattr(bench, 'start_row', lambda: dict(import_capdec=.1, help=.2))
    run_benchmark(out=str(tmp_path/'bench.json'), rows='start', device='cpu', threads=torch.get_num_threads())
    results = json.loads((tmp_path/'bench.json').read_text())
    assert results['rows'] == {} and results['start']['help'] == .2
    assert set(results) == {'rows', 'start', 'machine', 'data'}

def test_bad_input(tmp_path):
    with pytest.raises(SystemExit, match='--rows speed: use text, image'):
        run_benchmark(rows='speed')
    with pytest.raises(SystemExit, match='nowhere.json: no such file or folder'):
        run_benchmark(captions=str(tmp_path/'nowhere.json'), rows='start')
