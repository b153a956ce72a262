"""Kill a run with -9 at random moments, start it again, and compare what it leaves with an uninterrupted run.

Each verb (embed, train, predict, caption) is first run once without interruption. Then it is started over and over
and killed at a random moment of that run's length, until so many kills have hit it; whenever a run comes to its end,
every file in its folder must equal the uninterrupted run's, byte for byte, and nothing else may lie there: what the
kills have left is removed by the last run. Then it begins again in an empty folder.

Photos and captions of ../shared where it is, else photos inside installed packages and the bundled corpus.
Usage: python tools/crash_test.py [--kills 30] [--verbs embed train predict caption] [--captions 4000] [--photos 40]
"""
import argparse, contextlib, hashlib, itertools, json, os, random, shutil, signal, sys, time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
os.environ.setdefault('OMP_NUM_THREADS', '1')
os.environ.setdefault('HF_HUB_OFFLINE', '1')
os.environ['TOKENIZERS_PARALLELISM'] = 'false'

def material(folder, n_text, n_photos, shared=True):
    "Captions (one a line) and photos for the runs: where they are, and what they are"
    flickr = ROOT.parent/'shared'/'data'/'flickr8k'
    photos = folder/'photos'
    photos.mkdir(parents=True)
    if shared and flickr.exists():
        from capdec.data import read_captions
        lines = [r['caption'] for r in itertools.islice(
            read_captions(flickr.parent/'karpathy'/'dataset_flickr8k.json.gz', 'train'), n_text)]
        files = sorted((flickr/'images').rglob('*.jpg'))[:n_photos]
        for f in files:
            os.symlink(f, photos/f.name)
        what = f'{len(lines):,} Flickr8k captions, {len(files)} Flickr8k photos'
    else:
        from PIL import Image
        from capdec.core import demo_photos, open_image
        from capdec.demo import corpus
        lines, own = corpus()[:n_text], demo_photos()
        for i in range(n_photos):
            open_image(own[i % len(own)]).resize((320, 240)).rotate(3*i).save(photos/f'{i:03}.jpg')
        what = f'{len(lines):,} sentences of the bundled corpus, {n_photos} variants of {len(own)} packaged photos'
    text = folder/'captions.txt'
    text.write_text('\n'.join(' '.join(o.split()) for o in lines) + '\n', encoding='utf-8')
    return text, photos, what

def jobs(text, photos):
    "What each verb does in an empty folder: a command line; embedding takes small shards, so that it can be continued"
    n = sum(1 for _ in open(text, encoding='utf-8'))
    def embed():
        from capdec.data import read_captions
        from capdec.embedding import embed_captions, load_encoder
        return len(embed_captions(list(read_captions(text)), load_encoder('mini', 'cpu'), 'store',
            shard_rows=max(64, n//8))) != n
    some = text.with_name('some.txt')
    some.write_text(''.join(text.read_text(encoding='utf-8').splitlines(keepends=True)[:max(100, n//8)]),
        encoding='utf-8')
    return dict(embed=embed,
        train=['train', '--data', str(some), '--out_dir', 'out', '--clip_model_type', 'mini', '--lm', 'mini',
        '--mapping_type', 'mlp', '--prefix_length', '4', '--epochs', '3',
            '--bs', '32', '--warmup_steps', '5', '--lr', '1e-3', '--noise_variance', '0.004', '--device', 'cpu'],
        predict=['predict', '--images', str(photos), '--out', 'predictions.json', '--batch_size', '4', '--device',
        'cpu'],
        caption=['caption', str(photos), '--out', 'captions.csv', '--batch_size', '4', '--device', 'cpu'])

def start(job, folder):
    "The job as a process of its own; forked, so that what takes seconds to import is there already"
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        os.chdir(folder)
        # with -9 nobody closes it
        with open(folder.parent/f'{folder.name}.log', 'a') as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        if callable(job):
            code = int(job())
        else:
            sys.argv = ['capdec', *job]
            from capdec.cli import main
            code = main(job)
    finally:
        os._exit(code)

def finish(pid, deadline=None):
    "Wait for the process, kill it at `deadline`: its exit code, or None when it was killed"
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if deadline and time.monotonic() > deadline:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            return None if code == -signal.SIGKILL else code
        time.sleep(.002)

def content(folder):
    "What a run has left: relative path -> SHA-256; its log tells the time, and when it was interrupted"
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.rglob('*'))
        if p.is_file() and p.name != 'train.log'}

# a file that was being written when the process died; what made a table is told beside it in `.captions.csv.made`
def left_over(name):
    return any(part.startswith('.') and not part.endswith('.made') for part in Path(name).parts)

def compare(folder, wanted):
    "What differs from the uninterrupted run (empty: nothing), and how many temporary files are still there"
    found = content(folder)
    diff = [f'{k}: {"missing" if k not in found else "not expected" if k not in wanted else "differs"}'
        for k in sorted(wanted.keys() | found.keys()) if found.get(k) != wanted.get(k)]
    return diff, sum(map(left_over, found))

def crash(verb, job, kills, out, rng):
    "Kill `verb` so many times; what happened, as plain data"
    whole, hit = out/f'{verb}-whole', out/f'{verb}-killed'
    whole.mkdir(parents=True)
    begin = time.monotonic()
    if code := finish(start(job, whole)):
        raise SystemExit(f'{verb}: the uninterrupted run failed with exit code {code}; see {whole}.log')
    length, wanted = time.monotonic() - begin, content(whole)
    r = dict(verb=verb, seconds=round(length, 1), files=len(wanted), kills=0, completed=0, differences=[],
        temporary_files=0)
    while r['kills'] < kills or not r['completed']:
        if hit.exists():
            shutil.rmtree(hit)
        hit.mkdir()
        code = None
        # killed: the same command again; the last one is left alone
        while code is None:
            code = finish(start(job, hit), time.monotonic() + rng.uniform(0, length) if r['kills'] < kills else None)
            if code is None:
                r['kills'] += 1
                print(f'\r{verb}: {r["kills"]} kills, {r["completed"]} runs completed', end='', file=sys.stderr,
                    flush=True)
        if code:
            r['differences'].append(f'exit code {code}; see {hit}.log')
            break
        diff, junk = compare(hit, wanted)
        r['completed'] += 1
        r['differences'] += diff
        r['temporary_files'] += junk
        if diff:
            break
    print(file=sys.stderr)
    return r

def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('--kills', type=int, default=30, help='kills of each verb (30)')
    p.add_argument('--verbs', nargs='+', default=['embed', 'train', 'predict', 'caption'])
    p.add_argument('--captions', type=int, default=4000, help='captions to embed; an eighth of them to train on (4000)')
    p.add_argument('--photos', type=int, default=40, help='photos to caption (40)')
    p.add_argument('--packaged', action='store_true', help='photos and sentences of installed packages, even where '
        '../shared is')
    p.add_argument('--out', type=Path, default=ROOT/'_out'/'crash', help='folder for the runs and report.json '
        '(_out/crash)')
    p.add_argument('--seed', type=int, default=0, help='seed of the moments at which runs are killed')
    a = p.parse_args()
    if a.out.exists():
        shutil.rmtree(a.out)
    out = a.out.resolve()
    out.mkdir(parents=True)
    # noqa: what the verbs import, once
    import torch, accelerate, transformers.models.gpt2.modeling_gpt2, matplotlib.figure, timm
    torch.set_num_threads(1)
    text, photos, what = material(out/'data', a.captions, a.photos, not a.packaged)
    known, rng = jobs(text, photos), random.Random(a.seed)
    if unknown := set(a.verbs) - set(known):
        raise SystemExit(f'--verbs {" ".join(unknown)}: use {" ".join(known)}')
    report = dict(data=what, seed=a.seed, runs=[crash(v, known[v], a.kills, out, rng) for v in a.verbs])
    (out/'report.json').write_text(json.dumps(report, indent=1) + '\n')
    print(what)
    for r in report['runs']:
        print(f'{r["verb"]:8} killed {r["kills"]} times, completed {r["completed"]} times: '
            f'' + ('; '.join(r['differences']) or f'all {r["files"]} files identical to an uninterrupted run '
            f'({r["seconds"]} s)')
            + (f'; {r["temporary_files"]} temporary files left behind' if r['temporary_files'] else ''))
    return 1 if any(r['differences'] for r in report['runs']) else 0

if __name__ == '__main__':
    sys.exit(main())
