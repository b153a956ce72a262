"Two processes train as one: the same loss curve at the same global batch."
import json
import os
import subprocess
import sys
from pathlib import Path

from test_training import config, run, tiny, weights

CHILD = '''
import sys, torch; sys.path.insert(0, {tests!r}); torch.set_num_threads(1)
from test_training import *
m = tiny(dropout=0)
run(m, config(epochs=2, bs=20), {out!r})
'''

def test_two_processes_train_as_one(tmp_path):
    code = tmp_path/'child.py'
    code.write_text(CHILD.format(tests=str(Path(__file__).parent), out=str(tmp_path/'two')))
    env = dict(os.environ, OMP_NUM_THREADS='1', CUDA_VISIBLE_DEVICES='', ACCELERATE_USE_CPU='true')
    r = subprocess.run([sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node', '2', str(code)], env=env, capture_output=True, text=True, timeout=200)
    assert r.returncode == 0, r.stderr[-3000:]
    one = tiny(dropout=0); h1 = run(one, config(epochs=2, bs=20), tmp_path/'one')
    h2 = json.loads((tmp_path/'two'/'loss.json').read_text())
    assert [s for s, _ in h1['steps']] == [s for s, _ in h2['steps']]
    assert max(abs(a-b) for (_, a), (_, b) in zip(h1['steps'] + h1['epochs'], h2['steps'] + h2['epochs'])) < 1e-4
    from capdec.model import CaptionModel
    assert (weights(one) - weights(CaptionModel.from_pretrained(tmp_path/'two'/'coco_prefix_latest'))).abs().max() < 1e-4
