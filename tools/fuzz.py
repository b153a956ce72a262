"""Give capdec files and answers that nobody meant well, and count what becomes of them.

    python tools/fuzz.py --n 50000

Each input is a good one with a few changes that know its structure, and a function of its number: `--only images
--first 123 --n 1` tries one again, `--keep folder` keeps those that end badly. There are two good ends: it is read,
and reads the same after it was written again; or one line names the file. The others are bad, are shown, and make the
exit code 1: a traceback, an error of several lines or without the file's name, a crash, more than 20 seconds (hang),
more than 3 GB of memory, code that ran, and, worst, something that was read and is not what was in the file (changed).
"""
import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

os.environ.update(HF_HUB_OFFLINE='1', OMP_NUM_THREADS='1', TOKENIZERS_PARALLELISM='false', no_proxy='127.0.0.1')
from fuzzing import GOOD, numbers
import fuzz_captions
import fuzz_images
import fuzz_web

# of a hundred inputs
SHARES = dict(captions=46, archives=14, predictions=6, journals=4, images=20, addresses=6, folders=4)

def kind_named(name):
    if name == 'folders':
        # takes a second to load
        import fuzz_folders
        return fuzz_folders.Folders()
    kinds = [fuzz_captions.Captions, fuzz_captions.Archives, fuzz_captions.Predictions, fuzz_captions.Journals,
        fuzz_images.Images, fuzz_web.Addresses]
    return next(k for k in kinds if k.name == name)()

def job(args):
    "Some inputs of one kind, in a process that makes its good ones itself"
    name, first, n, keep = args
    kind = kind_named(name)
    with tempfile.TemporaryDirectory(prefix='fuzz-') as tmp:
        kind.ready(Path(tmp))
        return name, *numbers(kind, first, n, tmp, keep)

def jobs(n, only, first, keep):
    "Work in pieces of at most 500 inputs, the slow kinds first"
    total = sum(SHARES[k] for k in only)
    for name in reversed(list(SHARES)):
        todo = round(n*SHARES[name]/total) if name in only else 0
        for at in range(0, todo, 500):
            yield name, first+at, min(500, todo-at), keep

def histogram(ends):
    "A line for each end, the good ones last"
    total = Counter()
    for (_, end), v in ends.items():
        total[end] += v
    for end in sorted(total, key=lambda k: (k in GOOD, k)):
        each = ', '.join(f'{name} {ends[name, end]:,}' for name in SHARES if ends[name, end])
        print(f'{end:20}{total[end]:>8,}  ({each})')
    tried = sum(total.values())
    print(f'{1 - total[GOOD[2]]/tried:.0%} of {tried:,} inputs got past the first check of their files')

def keep_counts(args, ends, seconds):
    "Put the counts into a file that may hold those of other tools"
    from capdec.core import write_json
    from capdec.studies.common import machine_name
    kept = json.loads(args.out.read_text()) if args.out.exists() else {}
    kept['fuzz'] = dict(command=f'make fuzz N={args.n}', machine=machine_name(), seconds=seconds,
        ends={k: {end: v for (name, end), v in ends.items() if name == k} for k in SHARES})
    write_json(args.out, kept)

def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('--n', type=int, default=50_000, help='number of inputs')
    p.add_argument('--first', type=int, default=0, help='number of the first input of each kind')
    p.add_argument('--only', default=','.join(SHARES), help=f'kinds, with commas (default: {",".join(SHARES)})')
    p.add_argument('--workers', type=int, default=os.cpu_count(), help='processes')
    p.add_argument('--out', type=Path, help='file for the counts, as the lesson on trust shows them (its part `fuzz`)')
    p.add_argument('--keep', default='', help='folder for the inputs that end badly')
    args = p.parse_args()
    only = args.only.split(',')
    if wrong := set(only) - set(SHARES):
        p.error(f'--only {",".join(sorted(wrong))}: choose from {", ".join(SHARES)}')
    ends, bad, start = Counter(), [], time.monotonic()
    work = list(jobs(args.n, only, args.first, args.keep))
    with multiprocessing.get_context('spawn').Pool(min(args.workers, len(work)), maxtasksperchild=1) as pool:
        for i, (name, counted, worst) in enumerate(pool.imap_unordered(job, work), 1):
            ends.update({(name, end): v for end, v in counted.items()})
            bad += worst
            print(f'{sum(ends.values()):,} of {args.n:,} inputs, {len(bad)} bad ends shown below', file=sys.stderr)
    print('\n\n'.join(bad[:40]))
    print(f'{sum(ends.values()):,} inputs in {time.monotonic()-start:.0f} s, {args.workers} processes')
    histogram(ends)
    if args.out:
        keep_counts(args, ends, round(time.monotonic()-start))
    return any(end not in GOOD for _, end in ends)

if __name__ == '__main__':
    sys.exit(main())
