"""Time two checkouts of capdec in turn on the same photos: one at a time, in batches, and from a fresh shell.

    python tools/compare_checkouts.py OLDER [NEWER] --photos FOLDER

OLDER and NEWER are folders with a `capdec` package; `git worktree add OLDER edition-1` makes one, and NEWER is this
checkout if you leave it out. Each round starts a fresh process for each side: a busy machine does the same to both.
"""
import argparse
import json
import os
import subprocess
import sys
import time
from itertools import cycle, islice
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]

def measure(photos, n, dtype, threads, how):
    "In a process of its own: what one side takes, in milliseconds"
    import torch
    torch.set_num_threads(threads)
    from capdec import Captioner
    captioner = Captioner.from_pretrained('mini', device='cpu', dtype=dtype)
    files = list(islice(cycle(photos), n))
    captioner(files[:2], **how)
    alone = []
    for o in files[:24]:
        start = time.perf_counter()
        captioner(o, **how)
        alone.append(time.perf_counter() - start)
    start = time.perf_counter()
    captioner(files, show=False, **how)
    return dict(alone=1e3*median(alone), batch=1e3*(time.perf_counter() - start)/n)

def from_shell(environment, photo):
    "Milliseconds of the whole command for one photo"
    start = time.perf_counter()
    subprocess.run([sys.executable, '-m', 'capdec.cli', 'caption', str(photo), '--device', 'cpu'], env=environment,
        check=True, capture_output=True)
    return 1e3*(time.perf_counter() - start)

def one_side(checkout, args, how):
    "A round of one side"
    environment = os.environ | dict(PYTHONPATH=str(checkout), OMP_NUM_THREADS=str(args.threads))
    told = json.dumps(dict(photos=args.files, n=args.n, dtype=args.dtype, threads=args.threads, how=how))
    r = subprocess.run([sys.executable, __file__, '--measure', told], env=environment, capture_output=True, text=True)
    if r.returncode:
        sys.exit(f'{checkout}: {r.stderr.strip().splitlines()[-1]}')
    return json.loads(r.stdout.splitlines()[-1]) | dict(shell=from_shell(environment, args.files[0]))

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('older', type=Path)
    parser.add_argument('newer', type=Path, nargs='?', default=ROOT)
    parser.add_argument('--photos', type=Path, required=True, help='folder of JPEG files')
    parser.add_argument('--n', type=int, default=96, help='photos in a batch run (default: 96)')
    parser.add_argument('--rounds', type=int, default=3, help='rounds (default: 3)')
    parser.add_argument('--dtype', default='float32', help='type to compute in (default: float32)')
    parser.add_argument('--threads', type=int, default=1, help='CPU threads (default: 1)')
    parser.add_argument('--choose', default='', help='what the newer side chooses by, such as vote or judges')
    parser.add_argument('--ways', nargs='+', default=(), help='ways across the gap of the newer side')
    args = parser.parse_args()
    args.files = [str(o) for o in sorted(args.photos.glob('*.jp*g'))[:args.n]]
    if not args.files:
        sys.exit(f'{args.photos}: holds no JPEG file')
    how = {k: v for k, v in dict(choose=args.choose, ways=list(args.ways)).items() if v}
    found = {side: [] for side in ('older', 'newer')}
    for _ in range(args.rounds):
        for side, theirs in (('older', {}), ('newer', how)):
            found[side].append(one_side(getattr(args, side), args, theirs))
    print('| | older, ms | newer, ms | newer takes, times |\n|---|---:|---:|---:|')
    for kind, what in (('alone', 'a photo alone'), ('batch', 'a photo of many'), ('shell', 'the command, one photo')):
        a, b = (median(o[kind] for o in found[side]) for side in found)
        print(f'| {what} | {a:.1f} | {b:.1f} | {b/a:.2f} |')

if __name__ == '__main__':
    if sys.argv[1:2] == ['--measure']:
        print(json.dumps(measure(**json.loads(sys.argv[2]))))
    else:
        main()
