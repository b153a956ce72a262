"Every flag of the official tools: it parses as there, has its default, and changes what it says it changes."
import json
import pickle
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from capdec.noise import ImageToTextBridge, modality_centres, normalize, save_bridge, save_offset
from shell import capdec, one_line
from towers import kernel_rounding, weights

pytestmark = pytest.mark.usefixtures('one_encoder')

ROOT = Path(__file__).resolve().parents[1]
TABLE = json.loads((ROOT/'nbs'/'data'/'official_tools.json').read_text())
FLAGS = [r for r in TABLE if r['parsed'] is not None]
TRAIN = {r['flag'] for r in FLAGS if r['tool'] == 'train.py'}
PREDICT = {r['flag'] for r in FLAGS if r['tool'] == 'predictions_runner.py'}

# ---- parsing

@pytest.mark.parametrize('row', FLAGS, ids=lambda r: f'{r["tool"]} {r["flag"]}')
def test_flag_parses_as_in_the_official_tool(row):
    from capdec.cli import verb_parser
    p = verb_parser(row['verb'])
    assert getattr(p.parse_args(row['typed'].split()), row['flag']) == row['parsed']
    usual = getattr(p.parse_args([]), row['flag'])
    # the defaults are the official ones
    if row['verb'] == 'train':
        assert usual == (row['default'] or usual) and bool(usual) == bool(row['default'])
    assert usual != row['parsed'] or row['flag'] in ('beam',)
    # a switch, alone or with a value
    if row['default'] is False and row['verb'] != 'embed' and isinstance(row['parsed'], bool):
        for text, value in (('', True), ('true', True), ('False', False), ('1', True), ('0', False)):
            assert getattr(p.parse_args(f'{row["here"]} {text}'.split()), row['flag']) is value

@pytest.mark.parametrize('row', [r for r in TABLE if r['parsed'] is None], ids=lambda r: r['tool'])
def test_tools_without_flags_have_a_verb(row):
    from capdec.cli import verb_parser
    verb_parser(row['verb']).parse_args(row['typed'].split())

def test_the_table_has_every_flag_of_the_specification(shared):
    lines = (shared/'guides'/'spec.md').read_text().splitlines()
    for tool in ('train.py', 'predictions_runner.py', 'embeddings_generator.py'):
        cell = next(l for l in lines if l.startswith(f'| `{tool}` |')).split('|')[3]
        cell = cell.split('`--data COCO`')[0]
        assert {m for part in cell.split(';') for m in re.findall(r'^\s*`(\w+)`', part)} == {r['flag'] for r in FLAGS
            if r['tool'] == tool}

def test_both_official_spellings_of_every_mapper():
    from capdec.model import CapDecConfig
    assert [CapDecConfig(o).mapping_type for o in ('mlp', 'transformer', 'transformer_encoder',
        'transformer_decoder')] == ['mlp', 'transformer', 'transformer', 'transformer_decoder']

# ---- train: what each flag changes

CAPTIONS = [f'a {c} {a} {v} {w}' for c in ('red', 'blue', 'small') for a, v in (('dog', 'runs'), ('cat', 'sleeps'),
    ('bird', 'sings')) for w in ('here', 'there', 'in the snow', 'on the grass', 'far away!')]

def pickle_of(path, n=45, d=640, seed=0):
    "An official embeddings pickle: five captions for each image, both kinds of vectors, not normalised"
    g = torch.Generator().manual_seed(seed)
    text = 3*torch.randn(n, d, generator=g)
    image = (text[::5].repeat_interleave(5, 0) + torch.randn(d, generator=g)).contiguous()
    entries = [dict(image_id=100 + i//5, caption=CAPTIONS[(i*7 + seed) % 45], id=i, clip_embedding=i) for i in range(n)]
    path.write_bytes(pickle.dumps({'clip_embedding': image, 'clip_embedding_text_dave': text, 'captions': entries}))
    return SimpleNamespace(path=path, text=text, image=image, entries=entries)

@pytest.fixture(scope='module')
def lab(tmp_path_factory):
    "A tiny language model, two pickles, and a training run to compare with"
    from capdec.model import train_tokenizer
    from transformers import GPT2Config, GPT2LMHeadModel
    d = tmp_path_factory.mktemp('lab')
    tok = train_tokenizer([c + '.' for c in CAPTIONS], 300)
    torch.manual_seed(0)
    GPT2LMHeadModel(GPT2Config(vocab_size=len(tok), n_embd=32, n_layer=1, n_head=2, n_positions=40, resid_pdrop=0.,
        embd_pdrop=0., attn_pdrop=0., bos_token_id=None, eos_token_id=None)).save_pretrained(d/'lm')
    tok.save_pretrained(d/'lm')
    lab = SimpleNamespace(dir=d, a=pickle_of(d/'a.pkl'), b=pickle_of(d/'b.pkl', n=20, seed=1))
    lab.base = trained(lab, 'base')
    return lab

def trained(lab, name, *flags, ok=True, **kw):
    "Run `capdec train` and keep what went into the model at its first step"
    from capdec.model import CaptionModel
    usual = {'--data': lab.a.path, '--out_dir': lab.dir/name, '--lm': lab.dir/'lm', '--epochs': 2, '--bs': 10,
        '--lr': 1e-3, '--prefix_length': 2, '--prefix_length_clip': 2, '--num_layers': 1,
             '--warmup_steps': 0, '--log_steps': 1, '--mixed_precision': 'no', '--device': 'cpu'} | kw
    seen, forward = [], CaptionModel.forward
    def watched(self, vectors, tokens, *a, **k):
        seen.append(vectors.detach().clone())
        return forward(self, vectors, tokens, *a, **k)
    CaptionModel.forward = watched
    try:
        r = capdec('train', *[o for kv in usual.items() if kv[1] is not None for o in kv], *flags, ok=ok)
    finally:
        CaptionModel.forward = forward
    out = Path(usual['--out_dir'])
    prefix = flags[flags.index('--prefix')+1] if '--prefix' in flags else 'coco_prefix'
    return SimpleNamespace(error=one_line(r), out=out, seen=seen,
        **({} if r.returncode else dict(model=CaptionModel.from_pretrained(out/f'{prefix}_latest'),
        history=json.loads((out/'loss.json').read_text()), losses=json.loads((out/'loss_per_epoch.json').read_text()),
        files={o.name for o in out.iterdir()},
        args=json.loads((out/'train_commandline_args.txt').read_text()))))

def first_rows(source, bs=10, seed=0):
    "The rows of the first batch"
    from capdec.model import train_tokenizer
    from capdec.training import epoch_batches
    tok = train_tokenizer([c + '.' for c in CAPTIONS], 300)
    lens = torch.tensor([len(o) for o in tok([e['caption'] + '.' for e in source.entries])['input_ids']])
    return epoch_batches(lens, bs, seed, 0)[0]

def same(a, b):
    torch.testing.assert_close(a, b, atol=2e-3, rtol=2e-3)

def unit(x):
    return normalize(x.float())

def test_data_and_out_dir_and_the_base(lab):
    # without noise: the text vectors, normalised
    same(lab.base.seen[0], unit(lab.a.text[first_rows(lab.a)]))
    assert lab.base.out == lab.dir/'base' and {'coco_prefix-000', 'coco_prefix-001', 'coco_prefix_latest',
        'loss_per_epoch.json', 'train_commandline_args.txt'} <= lab.base.files
    other = trained(lab, 'data', **{'--data': lab.b.path})
    same(other.seen[0], unit(lab.b.text[first_rows(lab.b)]))
    assert other.out == lab.dir/'data' and len(other.history['steps']) == 4 and len(lab.base.history['steps']) == 10
    assert lab.base.losses['val'] == [] and len(lab.base.losses['train']) == 2 and lab.base.args[
        'bs'] == 10 and lab.base.args['noise_variance'] == 0
    assert lab.base.losses['train'][1] < lab.base.losses['train'][0]

def test_many_flags_at_once(lab):
    r = trained(lab, 'many', '--prefix', 'mine', '--val_pt', lab.b.path, '--save_every', 2, '--mapping_type',
        'transformer_encoder', **{'--epochs': 4, '--bs': 7, '--prefix_length': 3, '--prefix_length_clip': 4,
        '--num_layers': 2})
    # prefix, save_every, val_pt
    assert {o for o in r.files if o.startswith('mine')} == {'mine-000', 'mine-002', 'mine-003', 'mine_latest',
        'mine_best'} and not any(o.startswith('coco') for o in r.files)
    # epochs, val_pt
    assert len(r.losses['train']) == len(r.losses['val']) == 4
    # bs: 45 captions, seven or ten at a time
    assert len(r.history['steps']) == 4*7 and len(lab.base.history['steps']) == 2*5
    m, b = r.model, lab.base.model
    # prefix_length
    assert m.mapper.prefix_const.shape == (3, 32) and b.mapper.prefix_const.shape == (2, 32)
    # prefix_length_clip
    assert m.mapper.linear.weight.shape == (4*32, 640) and b.mapper.linear.weight.shape == (2*32, 640)
    # num_layers
    assert len(m.mapper.transformer.layers) == 2 and len(b.mapper.transformer.layers) == 1
    assert m.config.mapping_type == b.config.mapping_type == 'transformer'

def test_mapping_type_and_only_prefix(lab):
    from transformers import AutoModelForCausalLM
    for kind, name in (('mlp', 'MLPMapper'), ('transformer_decoder', 'TransformerDecoderMapper')):
        r = trained(lab, kind, '--mapping_type', kind, '--only_prefix', **{'--epochs': 1})
        assert type(r.model.mapper).__name__ == name
    lm = AutoModelForCausalLM.from_pretrained(lab.dir/'lm').state_dict()
    # only_prefix
    assert all(torch.equal(v, lm[k]) for k, v in r.model.lm.state_dict().items())
    assert not all(torch.equal(v, lm[k]) for k, v in lab.base.model.lm.state_dict().items())

def test_pretrain_weights_and_lr(lab):
    r = trained(lab, 'pretrained', '--pretrain_weights', lab.base.out/'coco_prefix_latest',
        **{'--lr': 1e-12, '--epochs': 1, '--prefix_length': 2})
    # begins there, and a tiny lr leaves it there
    assert (weights(r.model) - weights(lab.base.model)).abs().max() < 1e-8
    fresh = trained(lab, 'tiny_lr', **{'--lr': 1e-12, '--epochs': 1})
    # lr decides how far base went from the same start
    assert (weights(fresh.model) - weights(lab.base.model)).abs().max() > 1e-3
    r = trained(lab, 'wrong', '--pretrain_weights', lab.base.out/'coco_prefix_latest', ok=False,
        **{'--prefix_length': 5})
    assert 'prefix_length 2' in r.error[0]

def test_noise_flags(lab):
    clean = unit(lab.a.text[first_rows(lab.a)])
    cos = lambda r: (r.seen[0]*clean).sum(1).mean().item()
    gauss = trained(lab, 'noise', '--noise_variance', .016, **{'--epochs': 1})
    assert abs(cos(gauss) - .298) < .05 and gauss.model.config.noise_variance == .016
    assert cos(trained(lab, 'uniform', '--noise_variance', .016, '--uniform_noise', **{'--epochs': 1})) > .98
    raw = trained(lab, 'raw', '--dont_norm', **{'--epochs': 1})
    same(raw.seen[0], lab.a.text[first_rows(lab.a)])
    assert not raw.model.config.normalize_prefix and lab.base.model.config.normalize_prefix
    # noise is small beside vectors of length 76
    assert cos(trained(lab, 'raw_noise', '--dont_norm', '--noise_variance', .016, **{'--epochs': 1})) > .99

def test_add_modality_offset(lab):
    centres = modality_centres(lab.a.image, lab.a.text)
    expected = unit(unit(lab.a.text[first_rows(lab.a)]) + centres['offset_to_add_in_training'])
    same(trained(lab, 'offset', '--add_modality_offset', save_offset(lab.dir/'o.npz', centres),
        **{'--epochs': 1}).seen[0], expected)
    r = trained(lab, 'offset2', '--add_modality_offset', ok=False, **{'--epochs': 1})
    # a warning about so few captions comes first
    assert 'capdec offset' in r.error[-1]
    # the official pickle, found by the bare flag
    official = lab.dir/'CLIP_embeddings_centers_info.pkl'
    official.write_bytes(pickle.dumps({k: v[None] for k, v in centres.items()}))
    same(trained(lab, 'offset3', '--add_modality_offset', **{'--epochs': 1}).seen[0], expected)
    official.unlink()
    r = trained(lab, 'offset4', '--add_modality_offset', lab.dir/'o.npz', '--official', **{'--epochs': 1})
    # at variance 0 the official code skips the step, the offset with it
    same(r.seen[0], unit(lab.a.text[first_rows_official(lab)]))

def first_rows_official(lab):
    from capdec.model import train_tokenizer
    from capdec.training import epoch_batches
    tok = train_tokenizer([c + '.' for c in CAPTIONS], 300)
    return epoch_batches(torch.tensor([len(o) for o in tok([e['caption'] for e in lab.a.entries])['input_ids']]), 10, 0,
        0)[0]

def test_is_not_rn_and_image_embeddings(lab):
    assert 'say' in trained(lab, 'rn', '--is_not_rn', ok=False).error[0]
    small = pickle_of(lab.dir/'small.pkl', n=10, d=512)
    r = trained(lab, 'not_rn', '--is_not_rn', '--use_image_embedding_as_clipcap',
        **{'--data': small.path, '--epochs': 1})
    assert r.model.config.prefix_size == 512
    # the images' vectors; ten rows, one batch
    same(r.seen[0].sort(0)[0], unit(small.image).sort(0)[0])

@pytest.mark.parametrize('d,encoder', [(1024, 'RN50'), (768, 'ViT-L/14')])
def test_widths_that_the_official_code_cannot_train(lab, d, encoder):
    big = pickle_of(lab.dir/f'{d}.pkl', n=10, d=d)
    r = trained(lab, f'd{d}', **{'--data': big.path, '--epochs': 1})
    assert r.model.config.prefix_size == d and r.model.config.encoder == encoder
    same(r.seen[0].sort(0)[0], unit(big.text).sort(0)[0])

def test_photos_with_captions_train_a_clipcap(coco, lab):
    r = trained(lab, 'clipcap', '--use_image_embedding_as_clipcap', '--image_dir', coco, '--clip_model_type', 'mini',
        **{'--data': coco/'dataset_coco.json', '--epochs': 1})
    from capdec.store import EmbeddingStore
    s = EmbeddingStore(r.out/'dataset_coco.json.train.image.store')
    assert s.meta['kind'] == 'image' and len(s) == 10 and len(set(s.column('image_id'))) == 2
    same(r.seen[0].sort(0)[0], unit(s.vectors()).sort(0)[0])

def test_every_flag_of_train_is_covered():
    source = Path(__file__).read_text()
    # what is asserted, not the defaults of a helper
    bodies = ''.join(re.findall(r'^def test_.*?(?=^\S)', source, re.M | re.S))
    # every test of training gives them
    usual = {'data', 'out_dir'}
    assert {f for f in TRAIN-usual if not re.search(rf"--{f}'", bodies)} == set()

# ---- predict: what each flag changes

@pytest.fixture
def predicted(lab, monkeypatch):
    "Run `capdec predict` on the vectors of a pickle and keep what goes into the captioner and how"
    import capdec.candidates as room
    seen, generate = [], room.generate
    def watched(model, x, **k):
        seen.append(SimpleNamespace(x=x.clone(), model=model, **k))
        return generate(model, x, **k)
    monkeypatch.setattr(room, 'generate', watched)
    def run(*flags, ok=True, checkpoint=lab.base.out/'coco_prefix_latest', out=lab.dir/'p.json'):
        seen.clear()
        r = capdec('predict', '--checkpoint', checkpoint, '--embeddings', lab.a.path, *(['--out', out] if out else []),
            '--device', 'cpu', *flags, ok=ok)
        return SimpleNamespace(error=one_line(r), stdout=r.stdout, seen=seen[0] if seen else None,
            captions=json.loads(out.read_text()) if ok and out and out.exists() else None)
    return run

def test_checkpoint_and_out(lab, predicted):
    r = predicted()
    assert [o['image_id'] for o in r.captions] == list(range(100, 109)) and all(o['caption'] == o['caption'].lower()
        for o in r.captions)
    same(r.seen.x, unit(lab.a.image[::5]))
    assert (r.seen.method, r.seen.beam_size) == ('beam', 5)
    other = predicted(checkpoint=lab.base.out/'coco_prefix-000', out=lab.dir/'sub'/'q.json')
    assert not torch.equal(weights(other.seen.model), weights(r.seen.model)) and len(other.captions) == 9
    predicted(checkpoint=lab.base.out/'coco_prefix-000', out=None)
    # beside the checkpoint, under its name
    assert len(json.loads((lab.base.out/'coco_prefix-000.json').read_text())) == 9

def test_beam(predicted):
    assert predicted('--beam').seen.method == 'beam' and predicted('--beam', 'false').seen.method == 'greedy'

def test_dont_normalize_prefix_and_text_autoencoder(lab, predicted):
    same(predicted('--dont_normalize_prefix', out=lab.dir/'raw.json').seen.x, lab.a.image[::5])
    same(predicted('--text_autoencoder', out=lab.dir/'texts.json').seen.x, unit(lab.a.text[::5]))

def test_offset_and_bridger(lab, predicted):
    centres = modality_centres(lab.a.image, lab.a.text)
    # not normalised again
    x = unit(lab.a.image[::5]) + centres['offset_to_add_in_inference']
    same(predicted('--add_modality_offset', save_offset(lab.dir/'o.npz', centres)).seen.x, x)
    assert 'found none' in predicted('--add_modality_offset', ok=False).error[0]
    save_offset(lab.base.out/'offset.safetensors', centres)
    same(predicted('--add_modality_offset', out=None).seen.x, x)
    # the official name
    assert (lab.base.out/'coco_prefix_latestadd_modality_offset.json').exists()
    net = ImageToTextBridge(640, 2)
    torch.nn.init.normal_(net.layers[0].weight, std=.05, generator=torch.Generator().manual_seed(0))
    expected = net(unit(lab.a.image[::5])).detach()
    torch.save(net.state_dict(), lab.dir/'official_bridge.pt')
    same(predicted('--modality_bridger', lab.dir/'official_bridge.pt').seen.x, expected)
    assert 'capdec bridger' in predicted('--modality_bridger', ok=False).error[0]
    save_bridge(lab.base.out/'bridger.safetensors', net)
    same(predicted('--modality_bridger').seen.x, expected)
    same(predicted('--add_modality_offset', lab.dir/'o.npz', '--bridge', 'offset').seen.x,
        predicted('--add_modality_offset', lab.dir/'o.npz').seen.x)
    # neither is dropped in silence
    for other in (('--modality_bridger', lab.dir/'official_bridge.pt'), ('--bridge', 'none'), ('--bridge', 'memory')):
        assert 'two ways across the gap' in predicted('--add_modality_offset', lab.dir/'o.npz', *other,
            ok=False).error[0]
    assert 'two ways across the gap' in predicted('--modality_bridger', lab.dir/'official_bridge.pt', '--bridge',
        'none', ok=False).error[0]

def test_flags_that_the_checkpoint_answers(predicted):
    for flag, good, bad in (('--is_rn', 'true', 'false'), ('--prefix_length', 2, 3), ('--prefix_length_clip', 2, 3),
            ('--num_layers', 1, 8), ('--mapping_type', 'transformer_encoder', 'transformer_decoder')):
        predicted(flag, good)
        assert flag in predicted(flag, bad, ok=False).error[0]

def test_ablations_against_plain_loops(lab, predicted):
    clip = unit(lab.a.text).double()
    after = lab.base.model.prefix(clip.float()).flatten(1).detach().double()
    pairs = [(5*g+i, 5*g+j) for g in range(9) for i in range(5) for j in range(i)]
    mean = lambda x, p, scale: np.mean([(x[i]-x[j]).norm(p=p).item() for i, j in pairs])/scale
    centre = lambda x, p: np.mean([(x[5*g+i] - x[5*g:5*g+5].mean(0)).norm(p=p).item() for g in range(9)
        for i in range(5)])
    out = predicted('--ablation_dist', out=None).stdout
    numbers = [dict(re.findall(r'(\w+) ([\d.]+)', l)) for l in out.splitlines()]
    for x, found in zip((clip, after), numbers):
        d = x.shape[1]
        for k, v in dict(l1=mean(x, 1, d), l2=mean(x, 2, d), l1_centre=centre(x, 1), l2_centre=centre(x, 2)).items():
            assert abs(float(found[k]) - v) < 2e-3*max(1, v)
    # L-infinity in CLIP space only
    assert abs(float(numbers[0]['linf']) - mean(clip, np.inf, 1)) < 1e-4 and 'linf' not in numbers[1] and numbers[0][
        'images'] == '9'
    d = np.mean([(a-b).norm().item() for a, b in zip(unit(lab.a.image), unit(lab.a.text))])
    assert f'{d:.4f} (45 pairs)' in predicted('--ablation_image_dist', out=None).stdout
    centres = modality_centres(lab.a.image, lab.a.text)
    d = np.mean([(a + centres['offset_to_add_in_inference'] - b).norm().item() for a,
        b in zip(unit(lab.a.image), unit(lab.a.text))])
    # across the gap first
    assert f'{d:.4f} (45 pairs)' in predicted('--ablation_image_dist', '--add_modality_offset',
        save_offset(lab.dir/'ablation.npz', centres), out=None).stdout
    net = ImageToTextBridge(640, 2)
    torch.nn.init.normal_(net.layers[0].weight, std=.05, generator=torch.Generator().manual_seed(0))
    moved = net(unit(lab.a.text)).detach()
    numbers = dict(re.findall(r'(\w+) ([\d.]+)', predicted('--ablation_dist', '--modality_bridger',
        save_bridge(lab.dir/'ablation.safetensors', net), out=None).stdout.splitlines()[0]))
    assert abs(float(numbers['l2']) - mean(moved.double(), 2, 640)) < 2e-3
    assert 'nowhere.npz' in predicted('--ablation_image_dist', '--add_modality_offset', lab.dir/'nowhere.npz', out=None,
        ok=False).error[0]

def test_dataset_mode(coco, monkeypatch, tmp_path):
    "The numbers of predictions_runner.py: which images are captioned"
    ids = []
    def watched(images, *a, **k):
        ids.append([r['image_id'] for r in images])
        raise ValueError('seen enough')
    monkeypatch.setattr('capdec.predict.embed_images', watched)
    for mode in ('0', '6', 'coco/train'):
        capdec('predict', '--data', coco/'dataset_coco.json', '--dataset_mode', mode, '--out', tmp_path/'p.json',
            '--device', 'cpu', ok=False)
    assert ids == [[391895, 522418], [11, 12], [11, 12]]

def test_every_flag_of_predict_is_covered():
    source = Path(__file__).read_text().split('# ---- predict')[1]
    assert {f for f in PREDICT if not re.search(rf"--{f}'", source)} == set()

# ---- a data set that does not fit one run

def test_predictions_continue_with_the_same_batches(lab, predicted, monkeypatch):
    import capdec.candidates as decoding
    whole = predicted('--batch_size', 4, out=lab.dir/'whole.json').captions
    real, n = decoding.generate, [0]
    def stop(model, x, **k):
        n[0] += 1
        if n[0] == 2:
            raise KeyboardInterrupt
        return real(model, x, **k)
    monkeypatch.setattr(decoding, 'generate', stop)
    predicted('--batch_size', 4, ok=False, out=lab.dir/'part.json')
    part = lab.dir/'part.json.part'
    # as a kill leaves it
    with open(part, 'a') as f:
        f.write('{"image_id": 104, "caption": "whole line of a batch that was cut"}\n{"image_id": 105, "capt')
    monkeypatch.setattr(decoding, 'generate', real)
    assert predicted('--batch_size', 4, out=lab.dir/'part.json').captions == whole and not part.exists()

def test_predictions_are_not_held_in_memory(tmp_path):
    "200,000 images: what grows are the pages of the mapped store, not lists (600,000 rows: 70 MB)"
    import subprocess
    import sys
    code = """if True:
        import sys
        from types import SimpleNamespace
        import torch
        import capdec.candidates as candidates
        import capdec.predict as predict
        from capdec.config import Candidates
        from capdec.store import EmbeddingStore
        n = 200_000
        peak = lambda: next(int(l.split()[1])/1024 for l in open('/proc/self/status') if l.startswith('VmHWM'))
        with EmbeddingStore.create('v.store', 16, {'kind': 'image'}) as s:
            for i in range(0, n, 8000):
                rows = [dict(image_id=f'photo_{j:08}.jpg', caption='a', id=j, filename=None) for j in range(i, i+8000)]
                s.append(rows, torch.zeros(8000, 16))
        said = [SimpleNamespace(text='a dog runs over the green hill.')]
        candidates.generate = lambda model, x, **k: [said]*len(x)
        model = SimpleNamespace(unit=lambda x: x, config=SimpleNamespace(hint_tokens=0))
        c = SimpleNamespace(device='cpu', bridge=lambda x: x, model=model, pool=Candidates())
        store, before = EmbeddingStore('v.store'), peak()
        predict.run_settings = lambda *a: dict(a=1)
        assert predict.caption_store(c, store, 'p.json', predict.StoreRun(batch_size=200)) == n
        print(peak() - before)"""
    r = subprocess.run([sys.executable, '-c', code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert len(json.loads((tmp_path/'p.json').read_text())) == 200_000 and float(r.stdout) < 60, r.stdout

def test_failed_images_are_listed(coco, tmp_path):
    from PIL import Image
    for i in range(3):
        Image.new('RGB', (40, 30), (80*i, 90, 20)).save(tmp_path/f'{i}.jpg')
    (tmp_path/'bad.jpg').write_text('no photo')
    r = capdec('predict', '--images', tmp_path, '--out', tmp_path/'p.json', '--device', 'cpu', '--beam', 'false')
    assert r.returncode == 1 and len(json.loads((tmp_path/'p.json').read_text())) == 3
    assert '1 image failed' in r.stdout
    report = json.loads((tmp_path/'p.failed.json').read_text())
    assert len(report) == 1 and report[0]['file'].endswith('bad.jpg') and 'not an image' in report[0]['error']

# ---- the official token handling, and checkpoints by name

def test_official_switch_of_predict(lab):
    from capdec.predict import official_stops
    m = lab.base.model
    assert [m.tokenizer.decode([i]) for i in official_stops(m, True)] == ['.']

def test_golden_checkpoint_through_the_command_line(golden, shared, tmp_path, monkeypatch):
    "Official `.pt` -> folder -> predictions (texts exactly) -> official names -> official `.pt`, bit for bit"
    from safetensors.torch import load_file
    info = json.loads((golden/'golden.json').read_text())['results']
    (tmp_path/'gpt2').symlink_to(shared/'data'/'gpt2_bpe')
    # where GPT-2's tokenizer is looked for
    monkeypatch.setenv('CAPDEC_WEIGHTS', str(tmp_path))
    for name in ('mlp', 'transformer'):
        capdec('convert', golden/f'official_{name}.pt', tmp_path/name, '--lm_heads', 4, ok=True)
        query = np.load(golden/f'official_{name}.npz')['query']
        entries = [dict(image_id=i, caption='', id=i, clip_embedding=i) for i in range(len(query))]
        (tmp_path/'q.pkl').write_bytes(pickle.dumps({'clip_embedding': torch.tensor(query),
            'clip_embedding_text_dave': 0, 'captions': entries}))
        for method, flags in (('beam', []), ('greedy', ['--beam', 'false'])):
            out = tmp_path/f'{name}.{method}.json'
            capdec('predict', '--checkpoint', tmp_path/name, '--embeddings', tmp_path/'q.pkl', '--official', *flags,
                '--out', out, '--device', 'cpu', ok=True)
            wanted = [(o[0] if method == 'beam' else o).strip().lower() for o in info[name][method]]
            assert [o['caption'] for o in json.loads(out.read_text())] == [' '.join(o.split()) for o in wanted]
        capdec('convert', tmp_path/name, tmp_path/f'{name}.safetensors', ok=True)
        # the one line that the error message of `--out x.pt` gives
        torch.save(load_file(tmp_path/f'{name}.safetensors'), tmp_path/f'{name}.pt')
        back, before = (torch.load(o, weights_only=True) for o in (tmp_path/f'{name}.pt', golden/f'official_{name}.pt'))
        assert back.keys() == before.keys() and all(torch.equal(back[k], v) for k, v in before.items())
    r = capdec('convert', tmp_path/'mlp', tmp_path/'x.pt', ok=False)
    assert 'never as a pickle' in one_line(r)[0] and 'torch.save' in one_line(r)[0]

def test_golden_decoder_checkpoint_there_and_back(golden, shared, tmp_path, monkeypatch):
    "The third mapper is golden by itself; with the language model of another golden file it is a whole checkpoint"
    from capdec.model import CaptionModel
    from safetensors.torch import load_file
    lm, mapper = (torch.load(golden/f'official_{o}.pt', weights_only=True) for o in ('mlp', 'transformer_decoder'))
    state = {k: v for k, v in lm.items() if k.startswith('gpt.')} | mapper
    torch.save(state, tmp_path/'d.pt')
    capdec('convert', tmp_path/'d.pt', tmp_path/'d', '--lm_heads', 4, '--tokenizer', shared/'data'/'gpt2_bpe',
        '--clip_model_type', 'mini', ok=True)
    model, z = CaptionModel.from_pretrained(tmp_path/'d'), np.load(golden/'official_transformer_decoder.npz')
    assert model.config.mapping_type == 'transformer_decoder' and (model.config.prefix_length,
        model.config.prefix_length_clip, model.config.num_layers) == (6, 5, 2)
    with torch.no_grad():
        torch.testing.assert_close(model.mapper(torch.tensor(z['x'])), torch.tensor(z['y']), atol=1e-5, rtol=1e-5)
    capdec('convert', tmp_path/'d', tmp_path/'d.safetensors', ok=True)
    back = load_file(tmp_path/'d.safetensors')
    assert back.keys() == state.keys() and all(torch.equal(back[k], v) for k, v in state.items())
    # and is trained on as it is
    store = pickle_of(tmp_path/'s.pkl', n=20, d=model.config.prefix_size).path
    args = ['train', '--data', store, '--out_dir', tmp_path/'run', '--max_steps', 1, '--bs', 4, '--lr', 1e-12,
        '--device', 'cpu', '--pretrain_weights']
    capdec(*args, tmp_path/'d.pt', '--lm_heads', 4, '--tokenizer', shared/'data'/'gpt2_bpe', ok=True)
    torch.testing.assert_close(weights(CaptionModel.from_pretrained(tmp_path/'run'/'coco_prefix_latest')),
        weights(model), atol=1e-6, rtol=0)
    for given, says in (([], 'heads cannot be read off the shapes'), (['--lm_heads', 5], 'is not 5')):
        # before anything is embedded
        assert says in one_line(capdec(*args[:4], 'early', *args[5:], tmp_path/'d.pt', '--tokenizer',
            shared/'data'/'gpt2_bpe', *given, cwd=tmp_path, ok=False))[0] and not (tmp_path/'early').exists()
    for start, says in ((['mini'], 'records its lm_heads itself'), ([''], 'belongs to official --pretrain_weights')):
        assert says in one_line(capdec(*args, *start, '--lm_heads', 4, '--restart', ok=False))[0]

def test_official_loss_of_training_is_the_golden_one(golden, shared):
    "One batch of the official data set, packed by the trainer, has the official loss"
    from capdec.model import gpt2_tokenizer, load_official
    from capdec.training import TrainConfig, TrainData, text_side
    from capdec.store import read_official_pickle
    z = np.load(golden/'official_mlp.npz')
    model = load_official(golden/'official_mlp.pt', gpt2_tokenizer(shared/'data'/'gpt2_bpe'), lm_heads=4)
    data = read_official_pickle(golden/'captions.pkl')
    td = TrainData((data['text'].float(), [r['caption'] for r in data['captions']]), model, official=True)
    x, tokens, mask, r = td.batch(torch.arange(8))
    # as wide as there: logits reach tens, and another shape rounds otherwise
    tokens = torch.nn.functional.pad(tokens, (0, z['tokens'].shape[1] - tokens.shape[1]))
    assert torch.equal(tokens, torch.tensor(z['tokens']).long())
    with torch.no_grad():
        loss = model(text_side(td, TrainConfig(official=True))(x, r), tokens, None, True)
        assert abs(loss.item() - z['loss'].item()) < 1e-5 + kernel_rounding(model, x, tokens)

def test_published_names(tmp_path, monkeypatch, coco):
    "A name resolves to what lies in the weights folder; without it one sentence says what to do"
    import shutil
    from capdec.captioner import Captioner
    from capdec.core import package_file
    monkeypatch.setenv('CAPDEC_WEIGHTS', str(tmp_path))
    for args in (['predict', '--checkpoint', 'capdec-coco-0.015', '--images', coco, '--out', tmp_path/'p.json'],
        ['caption', coco, '--model', 'capdec-coco-0.015'],
                 ['train', '--data', 'x', '--pretrain_weights', 'capdec-coco-0.015']):
        if args[0] == 'train':
            args[2] = pickle_of(tmp_path/'x.pkl', n=5).path
            args += ['--out_dir', tmp_path/'o']
        r = capdec(*args, '--device', 'cpu', ok=False)
        assert len(one_line(r)) == 1 and 'where there is a network' in one_line(r)[
            0] and 'https://huggingface.co/johko/capdec_015/resolve/main/model.pt' in one_line(r)[0]
    with pytest.raises(ValueError, match='not published'):
        Captioner.from_pretrained('capdec-coco-0.02')
    shutil.copytree(package_file('models', 'mini', 'captioner'), tmp_path/'capdec-coco-0.015')
    assert Captioner.from_pretrained('capdec-coco-0.015', 'cpu').encoder.dim == 512
    monkeypatch.setenv('CAPDEC_HUB', 'us')
    monkeypatch.setattr('capdec.official.hub_folder', lambda name: tmp_path/'capdec-coco-0.015'
        if name == 'us/capdec-coco-0.1' else None)
    from capdec.official import find_weights
    assert find_weights('capdec-coco-0.1') == tmp_path/'capdec-coco-0.015'

# ---- the verbs of noise injection

def test_noise_offset_and_bridger_of_a_pickle(lab, tmp_path):
    from capdec.noise import estimate_noise_variance, load_bridge, load_offset
    v = estimate_noise_variance(lab.a.text, [e['image_id'] for e in lab.a.entries])
    assert f'--noise_variance {v:.4g} ' in capdec('noise', lab.a.path, ok=True).stdout
    few = estimate_noise_variance(lab.a.text[:15], [e['image_id'] for e in lab.a.entries[:15]])
    assert f'--noise_variance {few:.4g} ' in capdec('noise', lab.a.path, '--max_images', 3, ok=True).stdout
    capdec('offset', lab.a.path, '--out', tmp_path/'o.npz', ok=True)
    same(load_offset(tmp_path/'o.npz'), modality_centres(lab.a.image, lab.a.text)['offset_to_add_in_training'])
    capdec('offset', lab.a.path, '--rows', 10, '--out', tmp_path/'o.safetensors', ok=True)
    same(load_offset(tmp_path/'o.safetensors'), modality_centres(lab.a.image[:10],
        lab.a.text[:10])['offset_to_add_in_training'])
    r = capdec('bridger', lab.a.path, '--epochs', 2, '--num_layers', 3, '--lr', 1, '--out', tmp_path/'b.safetensors',
        '--device', 'cpu', ok=True)
    assert '45 pairs' in r.stdout and len(load_bridge(tmp_path/'b.safetensors').layers) == 3
    from capdec.store import EmbeddingStore
    for k, encoder in (('i', 'one'), ('t', 'another')):
        with EmbeddingStore.create(tmp_path/k, 4, dict(encoder=encoder, kind=dict(i='image', t='text')[k])) as s:
            s.append([dict(image_id=1, caption='a dog', id=1)], torch.ones(1, 4))
    for verb in ('offset', 'bridger'):
        assert 'must come from the same encoder' in one_line(capdec(verb, tmp_path/'i', '--texts', tmp_path/'t',
            '--out', tmp_path/'x.safetensors', ok=False))[0]
    for args in (('offset', '--rows', -5), ('bridger', '--epochs', 0), ('bridger', '--bs', 0)):
        assert f'{args[1]} {args[2]}: at least' in one_line(capdec(args[0], lab.a.path, *args[1:], '--out',
            tmp_path/'x.npz', ok=False))[0]

def test_noise_keeps_the_shape_of_differences(lab, tmp_path):
    from capdec.gap import difference_covariance, pair_covariance
    from capdec.textside import load_shape
    ids, f, g = [e['image_id'] for e in lab.a.entries], tmp_path/'texts.safetensors', tmp_path/'pairs.safetensors'
    r = capdec('noise', lab.a.path, '--out', f, ok=True)
    assert '--noise_variance' in r.stdout and f'from 45 captions: {f}' in r.stdout
    same(load_shape(f, lab.a.text.shape[1]), difference_covariance(torch.as_tensor(lab.a.text), ids))
    capdec('noise', lab.a.path, '--out', g, '--images', lab.a.path, ok=True)
    first = {k: ids.index(k) for k in ids}
    owner = torch.tensor([first[o] for o in ids])
    same(load_shape(g, lab.a.text.shape[1]), pair_covariance(torch.as_tensor(lab.a.image), torch.as_tensor(lab.a.text),
        owner))
    assert '--images' in one_line(capdec('noise', lab.a.path, '--images', lab.a.path, ok=False))[0]
    for out in (f, g):
        trained(lab, out.stem, '--noise_variance', .016, '--noise_shape', out, **{'--epochs': 1})

def test_noise_of_real_clip_vectors(golden):
    "50 photos with five captions in the official pickle: ViT-B/32, near the paper's 0.016"
    out = capdec('noise', golden/'captions.pkl', ok=True).stdout
    assert '50 images, 250 captions' in out and .012 < float(out.split()[1]) < .02
