"""Claim one file from several processes, over and over, and count how often two of them held it at once.

A process that holds the claim makes a file that must not be there yet, and removes it again. A second holder would
meet that file.
Usage: python tools/lock_stress.py [--processes 6] [--seconds 20] [--folder _out/locks]
"""
import argparse, json, multiprocessing, os, sys, tempfile, time
from pathlib import Path

from capdec.core import claim, give_back, write_json

def work(path, seconds, wanted, results):
    "Claim and give back, until the time is over or `wanted` claims are made: claims, refusals, claims with two holders"
    claims = refused = double = 0
    sign, end = path.with_name('held'), time.monotonic() + seconds
    while time.monotonic() < end and claims != wanted:
        try:
            lock = claim(path)
        except ValueError:
            refused += 1
            continue
        claims += 1
        try:
            os.close(os.open(sign, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            double += 1
        else:
            # let others run while we hold it
            os.sched_yield()
            os.unlink(sign)
        give_back(lock)
    results.put((claims, refused, double))

def stress(folder, processes=6, seconds=600., claims=None):
    "Claims, refusals, and claims with two holders, of all processes together"
    results, path = multiprocessing.Queue(), Path(folder)/'table.csv'
    team = [multiprocessing.Process(target=work, args=(path, seconds, claims, results)) for _ in range(processes)]
    for p in team:
        p.start()
    out = [results.get() for _ in team]
    for p in team:
        p.join()
    return tuple(map(sum, zip(*out)))

def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('--processes', type=int, default=6, help='processes (6)')
    p.add_argument('--seconds', type=float, default=20, help='seconds (20)')
    p.add_argument('--folder', type=Path, help='folder for the file (default: a temporary one)')
    p.add_argument('--out', type=Path, help='file for the counts, as the lesson on trust shows them (its part `locks`)')
    a = p.parse_args()
    with tempfile.TemporaryDirectory(dir=a.folder) as folder:
        claims, refused, double = stress(folder, a.processes, a.seconds)
        left = sorted(o.name for o in Path(folder).iterdir())
    print(f'{claims:,} claims by {a.processes} processes, {refused:,} refused, {double:,} with two holders; '
        f'left behind: {", ".join(left) or "nothing"}')
    if a.out:
        kept = json.loads(a.out.read_text()) if a.out.exists() else {}
        kept['locks'] = dict(command=f'python tools/lock_stress.py --processes {a.processes} --seconds {a.seconds:g}',
            processes=a.processes, claims=claims, refused=refused, double=double)
        write_json(a.out, kept)
    return 1 if double or left or not claims else 0

if __name__ == '__main__':
    sys.exit(main())
