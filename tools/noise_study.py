"""The noise sweep on real photos: one captioner per noise variance, trained on Flickr8k's captions alone, scored on photos.

All start from the bundled language model with a new mapper and get the same number of passes over the first captions of each
photo; the validation loss after every pass, and the scores after the first, tell whether that was enough. Settings and bridges are chosen on the first 500 development photos of Flickr8k ('choose'),
the figures to quote are those of the other 500 ('report'); five references, beam 5. Beside the curve stand a captioner of equal
size trained on the photos themselves (ClipCap), the nearest training caption, and the variance that the paper's rule
estimates from captions. Needs ../shared. Runs so far are kept in the results file, an interrupted one continues.
Usage: python tools/noise_study.py [--epochs 3] [--captions 3] [--threads 2] [--only 0:0 0.016:0 clipcap:0]
"""
import argparse, sys, time
from pathlib import Path

import torch
ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent/'shared'
ORDER = [(v, 0) for v in (0., .016, .004, .06, .001, .25)] + [('clipcap', 0)] + [(v, s) for s in (1, 2)
    for v in (0., .016, .25)]

def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('--epochs', type=int, default=3)
    p.add_argument('--threads', type=int, default=2)
    p.add_argument('--captions', type=int, default=3, help='captions of each photo to train on, the first ones')
    p.add_argument('--only', nargs='+', help='runs VARIANCE:SEED or clipcap:SEED instead of all')
    p.add_argument('--out', default=ROOT/'_out'/'noise_study')
    p.add_argument('--results', default=ROOT/'capdec'/'data'/'noise_study.json')
    a = p.parse_args()
    torch.set_num_threads(a.threads)
    from capdec.studies.bench import _machine
    from capdec.captioner import Captioner
    from capdec.core import read_json, write_json
    from capdec.decoding import generate
    from capdec.embedding import embed_captions, embed_images
    from capdec.evaluation import evaluate, text_stats
    from capdec.model import CapDecConfig, CaptionModel
    from capdec.noise import estimate_noise_variance, modality_offset, normalize
    from capdec.studies.recipe import read_pairs
    from capdec.training import TrainConfig, train
    out, results = Path(a.out), Path(a.results)
    encoder = Captioner.from_pretrained('mini', 'cpu').encoder
    pairs = read_pairs(SHARED)
    # without the Unsplash and COCO photos
    flickr = [o for o in pairs['train'] if o[0].parent == pairs['choose'][0][0].parent]
    images = {k: normalize(embed_images([f.name for f, _ in v], encoder, out/f'{k}.images.store',
        root=v[0][0].parent).vectors(range(len(v)))) for k, v in dict(pairs, train=flickr).items()}
    owner = {k: [i for i, (_, cs) in enumerate(v) for _ in cs] for k, v in dict(pairs, train=flickr).items()}
    texts = {k: [c for _, cs in v for c in cs] for k, v in dict(pairs, train=flickr).items()}
    # rows to train on
    read = torch.tensor([j for _, cs in flickr for j in range(len(cs))]) < a.captions
    embedded = lambda k: embed_captions([dict(image_id=i, caption=c, id=j, filename=None) for j,
        (i, c) in enumerate(zip(owner[k], texts[k]))], encoder, out/f'{k}.captions.store')
    vectors = {k: normalize(embedded(k).vectors(range(len(texts[k])))) for k in ('train', 'choose')}
    offset = -modality_offset(images['train'][:1500], vectors['train'][:7500])
    references = {k: {str(i): cs for i, (_, cs) in enumerate(pairs[k])} for k in ('choose', 'report')}

    def score(half, captions):
        captions = [' '.join(c.split()) for c in captions]
        s = evaluate({str(i): c for i, c in enumerate(captions)}, references[half], 'bleu,meteor,rouge,cider').corpus
        return {k: round(100*v, 2) for k, v in s.items()} | dict(distinct=text_stats(captions)['distinct_captions'])

    def scores(model, bridges):
        say = lambda x: generate(model, x, normalize=False, texts=True)
        return {f'{half}, {b}': score(half, say(images[half] if b == 'none' else images[half]+offset))
            for half in references for b in bridges}

    def run(what, seed):
        base = CaptionModel.from_pretrained(ROOT/'capdec'/'models'/'mini'/'captioner')
        torch.manual_seed(seed)
        clip = what == 'clipcap'
        noise = 0. if clip else what
        model = CaptionModel.create(CapDecConfig('mlp', 6, 6, encoder.dim, encoder='mini', noise_variance=noise),
            (base.lm, base.tokenizer))
        x, val = (images['train'][owner['train']], images['choose'][owner['choose']]) if clip else (vectors['train'],
            vectors['choose'])
        x, seen = x[read], [c for c, r in zip(texts['train'], read.tolist()) if r]
        begin = time.time()
        history = train(model, (x, seen), TrainConfig(lr=1e-3, epochs=a.epochs, bs=128, warmup_steps=50, grad_clip=1.,
            noise_variance=noise, seed=seed, checkpoint_steps=100),
            out/f'{what}-{seed}-{a.epochs}x{a.captions}', val=(val, texts['choose']), save_every=99, device='cpu')
        seconds, model = round(time.time()-begin), model.eval()
        r = dict(variance=what, seed=seed, epochs=a.epochs, captions=len(seen), seconds=seconds,
            loss=[round(v, 4) for _, v in history['epochs']], val=[round(v, 4) for _, v in history['val']])
        if not clip:
            sample = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[:500].tolist()
            back = generate(model, x[sample], normalize=False, texts=True, method='greedy')
            r['inverted'] = sum(' '.join(b.split()).lower() == ' '.join(seen[i].split()).lower() for b,
                i in zip(back, sample))/len(sample)
        return r | scores(model, ['none'] if clip else ['none', 'offset'])

    def keep(**new):
        # read again: several processes may share the work (--only)
        done = read_json(results) if results.exists() else dict(command='python tools/noise_study.py', runs=[])
        done['runs'] += new.pop('runs', [])
        if r := new.pop('again', None):
            done['runs'] = [r if (o['variance'], o['seed'], o['epochs'], o['captions']) == (r['variance'], r['seed'],
                r['epochs'], r['captions']) else o for o in done['runs']]
        m = _machine('cpu', a.threads)
        done |= new | dict(machine=f"{m['cpu']}, {m['cores']} cores")
        write_json(results, done)
        return done

    if 'nearest' not in (done := keep()):
        nearest = lambda x: [texts['train'][i] for i in (x@vectors['train'].T).argmax(1).tolist()]
        rows = {f'{h}, {b}': score(h, nearest(images[h] if b == 'none' else normalize(images[h]+offset)))
            for h in references for b in ('none', 'offset')}
        done = keep(nearest=rows, estimate=estimate_noise_variance(vectors['train'], owner['train']))
    known = {(r['variance'], r['seed'], r['epochs'], r['captions']) for r in done['runs']}
    for what, seed in ORDER if not a.only else [(o if o == 'clipcap' else float(o), int(s)) for o,
            s in (e.split(':') for e in a.only)]:
        if (what, seed, a.epochs, int(read.sum())) in known:
            continue
        print((r := run(what, seed)), flush=True)
        keep(runs=[r])
    # what training went through: the captioner after its first pass
    for r in keep()['runs']:
        folder = out/f"{r['variance']}-{r['seed']}-{r['epochs']}x{a.captions}"/'coco_prefix-000'
        if 'after one pass' in r or r['variance'] == 'clipcap' or not folder.exists():
            continue
        say = generate(CaptionModel.from_pretrained(folder), images['report'], normalize=False, texts=True)
        r['after one pass'] = score('report', say)
        keep(again=r)

if __name__ == '__main__':
    sys.exit(main())
