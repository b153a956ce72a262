"""Run the demo's experiment and note what it gave, with the machine, in capdec/data/demo_experiments.json, which the demo's page and lesson 10a show.

Usage: python tools/record_demo.py [short] [full]        (both: about a quarter of an hour on two cores)
"""
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
OUT = ROOT/'capdec'/'data'/'demo_experiments.json'

def row(e):
    "What is kept of an experiment"
    from capdec.studies.bench import _machine
    m = _machine('cpu', 1)
    runs = [dict(variance=r['variance'], seed=r['seed'], words=round(r['words'], 3), exact=round(r['inverted'], 3),
        cider=round(float(np.mean(r['cider'])), 2), found=round(r['found'], 3)) for r in e['runs']]
    return dict(machine=f'{m["cpu"]}, {m["cores"]} cores, CPU only',
        command='capdec demo' + ' --full'*(e['size'] == 'full'),
        **{k: e[k] for k in ('steps', 'sentences', 'corpus', 'photos')}, runs=runs,
        **{k: round(float(e[k]), 2) for k in ('clean', 'noisy', 'gain', 'low', 'high')})

def main(sizes):
    from capdec.core import read_json, write_json
    from capdec.demo import SIZES, experiment
    for size in sizes or SIZES:
        write_json(OUT, {**read_json(OUT), size: row(experiment(size))})

if __name__ == '__main__':
    main(sys.argv[1:])
