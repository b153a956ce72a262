"""How much memory the road from captions to training takes, at the size of COCO.

python tools/memory_check.py [--captions 600000] [--out nbs/data/memory.json] [--work FOLDER]

Makes so many different synthetic captions in Karpathy's layout, and runs each step in a process of its own that may
not allocate more than 3 GB: `parse` (to JSON and to a store), `embed` (vectors of 640 numbers by a CLIP with one small
layer: what is measured is the road, not the tower), the loading and first steps of `train`, with the vectors in
memory and left on the disk, `predict` (with a decoder that always says the same), the writing of an official
pickle with vectors of texts and of images, its conversion into two stores, and the offset and the bridge made from
it. Notes the peak of resident memory,
mapped files included, and the seconds. With a folder for the work, a run that was interrupted goes on after the last
step that it finished.
"""
import argparse, json, platform, random, resource, shutil, subprocess, sys, tempfile, time
from pathlib import Path

LIMIT = 3 << 30

def make(path, n):
    "A file in Karpathy's layout with `n` captions"
    rng, words = random.Random(0), [a + b for a in 'ba de fi go hu ka le mi no pu ra se ti vo wu'.split()
        for b in 'lan rin ster mok tal ven dor pik sun gar'.split()]
    with open(path, 'w') as f:
        f.write('{"images": [')
        for i in range(0, n, 5):
            sentences = [{'raw': ' '.join(rng.choices(words, k=rng.randint(7, 15))) + f' {j}.', 'sentid': j,
                'imgid': i//5} for j in range(i, min(n, i+5))]
            for s in sentences:
                s['tokens'] = s['raw'].split()
            f.write((', ' if i else '') + json.dumps({'filename': f'COCO_train2014_{i//5:012d}.jpg',
                'filepath': 'train2014', 'split': 'train', 'cocoid': i//5, 'imgid': i//5, 'sentences': sentences}))
        f.write('], "dataset": "made up"}')

def encoder():
    import torch
    from capdec.embedding import OpenAIClip, import_clip
    torch.manual_seed(0)
    return OpenAIClip(import_clip().model.CLIP(640, 32, (1,1,1,1), 8, None, 77, 49408, 64, 1, 1), device='cpu')

def captioner(dim):
    from capdec.core import package_file
    from capdec.model import CapDecConfig, CaptionModel
    small = CaptionModel.from_pretrained(package_file('models', 'mini', 'captioner'))
    return CaptionModel.create(CapDecConfig(prefix_size=dim, mapping_type='mlp', prefix_length=4, prefix_length_clip=4),
        (small.lm, small.tokenizer))

def predict(box):
    import capdec.decoding
    from capdec.cli import main
    captioner(640).save(box/'captioner')
    capdec.decoding.generate = lambda model, x, **how: ['a dog that runs on a beach of sand with a ball']*len(x)
    if main(['predict', '--checkpoint', str(box/'captioner'), '--embeddings', str(box/'vectors.store'),
            '--text_autoencoder', '--out', str(box/'predictions.json')]):
        sys.exit('predict failed')
    with open(box/'predictions.json') as f:
        return f.read().count('"caption"')

def pickle(box):
    "As the official tools write it: one row a caption in both tensors"
    import torch
    from capdec.store import EmbeddingStore, export_official
    store = EmbeddingStore(box/'vectors.store')
    other = EmbeddingStore(box/'vectors.store')
    other._index = {**other._index, 'meta': {**other._index['meta'], 'kind': 'image'}}
    export_official(store, box/'official.pkl', other)
    return len(store)

def step(name, box):
    "One step; called in a process of its own"
    from capdec.data import read_captions, write_captions
    box = Path(box)
    if name == 'parse to JSON':
        return write_captions(read_captions(box/'dataset.json'), box/'captions.json')
    from capdec.store import EmbeddingStore, store_captions
    if name == 'parse to a store':
        return store_captions(read_captions(box/'dataset.json'), box/'captions.store')
    if name == 'embed':
        from capdec.embedding import embed_captions
        return len(embed_captions(read_captions(box/'captions.store'), encoder(), box/'vectors.store', show=False))
    if name == 'predict':
        return predict(box)
    if name == 'write an official pickle':
        return pickle(box)
    if name == 'read an official pickle':
        from capdec.cli import main
        for kind in ('text', 'image'):
            if main(['embed', '--data', str(box/'official.pkl'), '--kind', kind, '--out', str(box/f'{kind}.store')]):
                sys.exit('embed failed')
        return len(EmbeddingStore(box/'image.store'))
    if name == 'offset and bridger':
        from capdec.cli import main
        for args in (['offset', str(box/'official.pkl'), '--out', str(box/'o.npz')],
                ['bridger', str(box/'official.pkl'), '--out', str(box/'b.safetensors'), '--epochs', '1', '--bs', '4096',
                '--num_layers', '2']):
            if main(args):
                sys.exit(f'{args[0]} failed')
        return len(EmbeddingStore(box/'vectors.store'))
    import torch
    from capdec.training import TrainConfig, TrainData, epoch_batches, train
    store = EmbeddingStore(box/'vectors.store')
    model = captioner(store.dim)
    if name == 'train, vectors in memory':
        train(model, store, TrainConfig(max_steps=5, bs=64, warmup_steps=1), box/'run', show=False, device='cpu')
    else:
        # two thousand batches from all over the store are fetched; a few are trained on
        data = TrainData(store, model, on_device=False)
        for i, rows in enumerate(epoch_batches(data.captions.lens, 64)[:2000]):
            x, tokens, mask, _ = data.batch(rows)
            if i < 5:
                model(x, tokens, mask).backward()
    return len(store)

STEPS = ('parse to JSON', 'parse to a store', 'embed', 'train, vectors in memory', 'train, vectors on disk', 'predict',
    'write an official pickle', 'read an official pickle', 'offset and bridger')

def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--captions', type=int, default=600_000)
    ap.add_argument('--out', type=Path, default=Path(__file__).resolve().parents[1]/'nbs'/'data'/'memory.json')
    ap.add_argument('--work', type=Path, help='folder for the work; default: a temporary one')
    ap.add_argument('--step', nargs=2, metavar=('NAME', 'FOLDER'), help=argparse.SUPPRESS)
    args = ap.parse_args()
    if args.step:
        resource.setrlimit(resource.RLIMIT_DATA, (LIMIT, LIMIT))
        start, cpu = time.time(), time.process_time()
        n = step(*args.step)
        peak = next(int(l.split()[1])/1024 for l in open('/proc/self/status') if l.startswith('VmHWM'))
        print(json.dumps(dict(step=args.step[0], captions=n, peak_mb=round(peak), seconds=round(time.time()-start),
            cpu_seconds=round(time.process_time()-cpu))))
        return 0
    box = args.work or Path(tempfile.mkdtemp())
    box.mkdir(parents=True, exist_ok=True)
    done = json.loads((box/'steps.json').read_text()) if (box/'steps.json').exists() else []
    rows = done if done and done[0]['captions'] == args.captions else []
    if not rows:
        make(box/'dataset.json', args.captions)
    for name in STEPS[len(rows):]:
        r = subprocess.run([sys.executable, __file__, '--step', name, box], capture_output=True, text=True)
        if r.returncode:
            sys.exit(f'{name}: failed\n{r.stderr[-2000:]}')
        rows.append(json.loads(r.stdout.splitlines()[-1]))
        (box/'steps.json').write_text(json.dumps(rows))
        print('{step:26} {captions:>9,} captions  peak {peak_mb:>5,} MB  {seconds:>5} s ({cpu_seconds} s of '
            'CPU)'.format(**rows[-1]), flush=True)
    size = {o.name: round((sum(p.stat().st_size for p in o.rglob('*') if p.is_file()) if o.is_dir()
        else o.stat().st_size)/1e6) for o in sorted(box.iterdir()) if o.name not in ('run', 'steps.json', 'captioner')}
    if not args.work:
        shutil.rmtree(box)
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from capdec.core import write_json
    write_json(args.out, dict(command=f'python tools/memory_check.py --captions {args.captions}',
        python=platform.python_version(), limit_mb=LIMIT >> 20, size_mb=size, steps=rows))
    if over := [r['step'] for r in rows if r['peak_mb'] > LIMIT >> 20]:
        sys.exit(f'more than {LIMIT >> 20:,} MB: {", ".join(over)}')

if __name__ == '__main__':
    sys.exit(main())
