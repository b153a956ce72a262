"""Does captioning 10,000 photos take constant memory?

Runs `capdec caption` over links to packaged photos and samples its memory.

Prints the resident memory while the second and the last tenth of the photos are captioned (medians), its peak, and
photos per second; exit code 1 if the medians differ by more than 150 MB.

Usage: python tools/caption_memory.py [--photos 10000] [--beam_size 5]
"""
import argparse, json, os, statistics, sys, tempfile, threading, time
from pathlib import Path

def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('--photos', type=int, default=10_000)
    p.add_argument('--beam_size', type=int, default=5)
    p.add_argument('--batch_size', type=int, default=32)
    a = p.parse_args()
    import psutil
    from capdec.cli import main as capdec
    from capdec.core import demo_photos
    samples, me = [], psutil.Process()
    with tempfile.TemporaryDirectory() as tmp:
        own, album, out = demo_photos(), Path(tmp)/'album', Path(tmp)/'captions.csv'
        for i in range(a.photos):
            f = album/f'{i//1000:03}'/f'{i:06}{own[i%len(own)].suffix}'
            f.parent.mkdir(parents=True, exist_ok=True)
            os.symlink(own[i%len(own)], f)
        stop = threading.Event()
        def watch():
            part, done = Path(f'{out}.part'), 0
            with_part = lambda: part.open('rb') if part.exists() else None
            f = None
            while not stop.wait(.2):
                f = f or with_part()
                if f:
                    done += f.read().count(b'\n')
                samples.append((time.monotonic(), done, me.memory_info().rss/1e6))
        t = threading.Thread(target=watch)
        t.start()
        begin, cpu = time.monotonic(), time.process_time()
        code = capdec(['caption', str(album), '--out', str(out), '--device', 'cpu', '--beam_size', str(a.beam_size),
            '--batch_size', str(a.batch_size)])
        seconds, cpu = time.monotonic()-begin, time.process_time()-cpu
        stop.set()
        t.join()
        rows = sum(1 for _ in open(out))-1
    tenth = lambda lo, hi: round(statistics.median([m for _, n, m in samples if lo*a.photos <= n <= hi*a.photos]
        or [samples[-1][2]]))
    r = dict(photos=rows, exit_code=code, mb_second_tenth=tenth(.1, .2), mb_last_tenth=tenth(.9, 1),
        mb_peak=round(max(m for *_, m in samples)),
        seconds=round(seconds, 1), cpu_seconds=round(cpu, 1), photos_per_second=round(rows/seconds, 1),
        photos_per_cpu_second=round(rows/cpu, 1))
    print(json.dumps(r))
    return int(code != 0 or rows != a.photos or abs(r['mb_last_tenth'] - r['mb_second_tenth']) > 150)

if __name__ == '__main__':
    sys.exit(main())
