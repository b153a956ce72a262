"""Score the bundled captioner, with each bridge, on photos of Flickr8k that neither training nor the choice of settings saw.

The second half of the development photos (500, five references each, beam 5); beside it the nearest training caption. The first half, on which bridges are chosen, is scored with --half choose.
Needs ../shared. Rows so far are kept in the results file; a row that is there is not run again.
Usage: python tools/score_flickr8k.py [--half report] [--model mini] [--results nbs/data/flickr8k_results.json]
"""
import argparse, sys
from pathlib import Path

import torch
ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent/'shared'

def repeats(captions):
    "Captions in which some three words come twice, as in `reading a book while reading a book`"
    words = [c.lower().rstrip('.').split() for c in captions]
    grams = [list(zip(w, w[1:], w[2:])) for w in words]
    return sum(len(set(g)) < len(g) for g in grams)

def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('--half', choices=['choose', 'report'], default='report'); p.add_argument('--model', default='mini', help='captioner to score')
    p.add_argument('--results', default=ROOT/'nbs'/'data'/'flickr8k_results.json'); p.add_argument('--out', default=ROOT/'_out'/'flickr8k')
    p.add_argument('--threads', type=int, default=torch.get_num_threads())
    a = p.parse_args()
    torch.set_num_threads(a.threads)
    from capdec.captioner import Bridge, Captioner
    from capdec.bench import _machine
    from capdec.core import read_json, write_json
    from capdec.decoding import generate
    from capdec.embedding import embed_captions, embed_images
    from capdec.evaluation import evaluate, text_stats
    from capdec.noise import ImageToTextBridge, normalise
    from capdec.recipe import captioner_texts, read_pairs
    out, results = Path(a.out), Path(a.results)
    base = Captioner.from_pretrained(a.model, 'cpu')
    photos = read_pairs(SHARED)[a.half]
    x = normalise(embed_images([p.name for p, _ in photos], base.encoder, out/f'{a.half}.store', root=photos[0][0].parent).vectors(range(len(photos))))
    references = {str(i): cs for i, (_, cs) in enumerate(photos)}
    texts = captioner_texts(SHARED, sources=('flickr8k', 'flickr30k'))
    own = len(captioner_texts(SHARED, sources=('flickr8k',)))
    embedded = lambda name, ts: embed_captions([dict(image_id=i, caption=t, id=i, filename=None) for i, t in enumerate(ts)], base.encoder, out/f'{name}.store')
    memory = lambda name, ts: normalise(embedded(name, ts).vectors(range(len(ts))))
    say = lambda model, bridge: generate(model, bridge(x), normalize=False, texts=True)
    b = base.bridge

    def supervised():
        "The bridge that is trained on pairs, of all captions of Flickr8k's training photos; the official 1e-3 leaves it where it began"
        pairs = [o for o in read_pairs(SHARED)['train'] if o[0].parent == photos[0][0].parent] # without the Unsplash and COCO photos
        images = normalise(embed_images([p.name for p, _ in pairs], base.encoder, out/'train.images.store', root=pairs[0][0].parent).vectors(range(len(pairs))))
        captions = [c for _, cs in pairs for c in cs]
        owner = [i for i, (_, cs) in enumerate(pairs) for _ in cs]
        net = ImageToTextBridge(x.shape[1])
        net.fit(images[owner], memory('pairs', captions), epochs=20, lr=1.)
        with torch.inference_mode(): return generate(base.model, net(x), normalize=False, texts=True)

    systems = {
        'nearest caption of Flickr8k train': lambda: [texts[i] for i in (x@memory('flickr8k', texts[:own]).T).argmax(1).tolist()],
        'bundled captioner, no bridge (strict text-only)': lambda: say(base.model, Bridge()),
        'bundled captioner, modality offset (+ unpaired image statistics)': lambda: say(base.model, Bridge('offset', b.offset)),
        'bundled captioner, memory of its own corpus': lambda: say(base.model, Bridge('memory', memory=b.memory)),
        f'bundled captioner, memory of {len(texts):,} training captions': lambda: say(base.model, Bridge('memory', memory=memory('flickr', texts))),
        'bundled captioner, supervised bridge (30,000 pairs of photo and caption)': supervised}
    done = read_json(results) if results.exists() else dict(images=len(photos), command=f'python tools/score_flickr8k.py --half {a.half}', systems={},
        note="Scored on the second half of Flickr8k's development photos, five references each, beam 5; one run each. "
             'The offset uses the means of 1,500 Flickr8k training photos and of their captions; '
             'the last memory those captions of Flickr8k and Flickr30k on which the captioner was trained.')
    for name, captions in systems.items():
        if name in done['systems']: continue
        captions = [' '.join(c.split()) for c in captions()]
        done['systems'][name] = evaluate({str(i): c for i, c in enumerate(captions)}, references, 'bleu,meteor,rouge,cider').corpus | dict(
            distinct=text_stats(captions)['distinct_captions'], repeats=repeats(captions))
        m = _machine('cpu', a.threads); done['machine'] = f"{m['cpu']}, {m['cores']} cores, {a.threads} threads"; write_json(results, done); write_json(out/f'{a.half}, {name}.json', captions)
        print(name, {k: round(100*v, 1) if isinstance(v, float) else v for k, v in done['systems'][name].items()}, flush=True)

if __name__ == '__main__': sys.exit(main())
