"""How far and how fast to restyle: learning rate, steps and the share of rehearsed sentences of `Captioner.train_on`, measured.

The bundled captioner is restyled from sentences of FlickrStyle10K (1,000 of each style) with each setting; captions of
Flickr8k development photos (the first 100 of the half on which choices are made) are judged by CIDEr against
their five references (does it still say what is there?) and by a classifier of styled against factual captions (does the
style show?). Needs ../shared. Results so far are kept in nbs/data/restyle.json; run again to continue.
Usage: python tools/restyle_sweep.py [--n 1000] [--photos 100]
"""
import argparse, csv, itertools, random, sys, time
from pathlib import Path

import torch
ROOT = Path(__file__).resolve().parents[1]
SHARED, OUT = ROOT.parent/'shared'/'data', ROOT/'nbs'/'data'/'restyle.json'
STYLES = {'humorous': 'funny', 'romantic': 'romantic'}
GRID = [dict(steps=s, lr=lr, mix=m) for s, lr, m in ((300, 5e-4, .5), (300, 5e-4, 0.), (100, 5e-4, .5), (900, 5e-4, .5),
    (300, 2e-4, .5), (300, 1e-3, .5))]

def styled(name, seed=0):
    "Captions of a style as `(for training, held out)`, split by image"
    rows = [r for r in csv.reader(open(SHARED/'flickrstyle'/f'{STYLES[name]}.tsv', encoding='utf-8'), delimiter='\t',
        quoting=csv.QUOTE_NONE) if len(r) == 2]
    random.Random(seed).shuffle(rows)
    return [r[1] for r in rows[:5000]], [r[1] for r in rows[5000:]]

def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('--n', type=int, default=1000, help='sentences to train on')
    p.add_argument('--photos', type=int, default=100)
    p.add_argument('--styles', nargs='+', default=list(STYLES))
    a = p.parse_args()
    from capdec.captioner import Captioner
    from capdec.core import read_json, write_json
    from capdec.data import read_karpathy
    from capdec.decoding import generate
    from capdec.evaluation import StyleClassifier, evaluate
    from capdec.studies.recipe import read_pairs
    torch.set_num_threads(1)
    factual = [r['caption'] for r in read_karpathy(SHARED/'karpathy'/'dataset_flickr8k.json.gz', 'train')][::5]
    photos = read_pairs(SHARED.parent)['choose'][:a.photos]
    references = [dict(image_id=i, caption=c) for i, (_, captions) in enumerate(photos) for c in captions]
    base = Captioner.from_pretrained('mini', 'cpu')
    x = base.embed([o for o, _ in photos])
    done = read_json(OUT) if OUT.exists() else dict(what='see tools/restyle_sweep.py', photos=a.photos, runs=[])
    for style in a.styles:
        train, rest = styled(style)
        judge = StyleClassifier(train, factual[:5000])
        def score(c):
            texts = generate(c.model, x, beam_size=3, normalize=False, texts=True)
            s = evaluate([dict(image_id=i, caption=t) for i, t in enumerate(texts)], references, ['cider'])
            return dict(cider=round(100*s.corpus['CIDEr'], 1), style=round(judge.share(texts), 3),
                words=round(sum(len(t.split()) for t in texts)/len(texts), 2), distinct=len(set(texts)),
                samples=texts[:4])
        for g in [None, *GRID]:
            key = dict(style=style, n=a.n, **(g or {}))
            if any(r['setting'] == key for r in done['runs']):
                continue
            begin, cpu = time.time(), time.process_time()
            c = base.train_on(train[:a.n], show=False, **g) if g else base
            r = dict(setting=key, seconds=round(time.time()-begin, 1), cpu_seconds=round(time.process_time()-cpu, 1),
                **score(c))
            if not g:
                r.update(judge_accuracy=round(judge.accuracy(rest, factual[5000:]), 3))
            done['runs'].append(r)
            write_json(OUT, done)
            print(r, flush=True)

if __name__ == '__main__':
    sys.exit(main())
