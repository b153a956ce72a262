"capdec train: data, presets, what is noted"
import json

import pytest

from shell import capdec, one_line, COCO_NAMES, official

pytestmark = pytest.mark.usefixtures('one_encoder')

def test_official_flags_of_train_are_understood():
    from capdec.cli import verb_parser
    a = verb_parser('train').parse_args('--data x.pkl --val_pt y.pkl --pretrain_weights w.pt --out_dir o '
        '--add_modality_offset c.npz --prefix p --noise_variance 0.016 --uniform_noise --dont_norm '
        '--lr 1e-4 --epochs 3 --save_every 2 --prefix_length 10 --prefix_length_clip 12 --bs 7 --only_prefix '
        '--mapping_type transformer_encoder --num_layers 3 --is_not_rn '
        '--use_image_embedding_as_clipcap'.split())
    assert (a.noise_variance, a.bs, a.uniform_noise, a.mapping_type, a.is_not_rn) == (.016, 7, True,
        'transformer_encoder', True)
    d = verb_parser('train').parse_args(['--data', 'x'])
    assert (d.lr, d.epochs, d.bs, d.prefix_length, d.prefix_length_clip, d.num_layers, d.save_every, d.mapping_type,
        d.prefix, d.out_dir, d.noise_variance) == (
        2e-5, 10, 34, 40, 40, 8, 1, 'transformer', 'coco_prefix', './checkpoints', 0.)

def test_pickles_of_one_name_do_not_collide(tmp_path):
    from capdec.sources import training_data
    a, b = official(tmp_path/'train'/'emb.pkl'), official(tmp_path/'val'/'emb.pkl', n=4, seed=1)
    stores = [training_data(str(p), tmp_path/'out', 'RN50x4', 'cpu') for p in (a, b, a)]
    assert [len(s) for s in stores] == [6, 4, 6] and stores[0].path == stores[2].path != stores[1].path
    # 512 numbers cannot be RN50x4's
    assert stores[0].meta['encoder'] == 'ViT-B/32'
    assert training_data(str(a), tmp_path/'out2', 'ViT-B/16', 'cpu').meta['encoder'] == 'ViT-B/16'
    capdec('embed', '--data', a, '--out', tmp_path/'s', ok=True)
    from capdec.store import EmbeddingStore
    assert EmbeddingStore(tmp_path/'s').meta['encoder'] == 'ViT-B/32'

def test_caption_files_make_a_store_for_each_split(coco, tmp_path):
    capdec('train', '--data', coco/'dataset_coco.json', '--val_pt', coco/'dataset_coco.json', '--out_dir', tmp_path,
        '--clip_model_type', 'mini', '--lm', 'mini', '--mapping_type', 'mlp',
        '--prefix_length', 2, '--epochs', 1, '--bs', 4, '--warmup_steps', 1, '--device', 'cpu', ok=True)
    from capdec.store import EmbeddingStore
    for split, ids in COCO_NAMES.items():
        assert set(EmbeddingStore(tmp_path/f'dataset_coco.json.{split}.store').column('image_id')) == set(ids)

def test_vectors_of_the_other_kind_are_refused(album, tmp_path):
    from capdec.sources import training_data
    from capdec.store import import_official
    import_official(official(tmp_path/'i.pkl', image=True), tmp_path/'i')
    import_official(official(tmp_path/'t.pkl'), tmp_path/'t')
    with pytest.raises(ValueError, match='pass `use_image_embedding_as_clipcap`'):
        training_data(str(tmp_path/'i'), tmp_path, 'mini', 'cpu')
    with pytest.raises(ValueError, match='leave `use_image_embedding_as_clipcap`'):
        training_data(str(tmp_path/'t'), tmp_path, 'mini', 'cpu', image=True)
    assert len(training_data(str(tmp_path/'i'), tmp_path, 'mini', 'cpu', image=True)) == 6

def test_pretrained_captioner_notes_the_new_training():
    from types import SimpleNamespace
    from capdec.config import TrainConfig
    from capdec.start import model_for_training
    from capdec.core import package_file
    from capdec.model import CaptionModel
    store = SimpleNamespace(meta=dict(encoder='another'), dim=0, path='a.store')
    m = model_for_training(CaptionModel.from_pretrained(package_file('models', 'mini', 'captioner')), 'mini', store,
        training=TrainConfig(noise_variance=.25, dont_norm=True), only_prefix=True)
    assert (m.config.encoder, m.config.noise_variance, m.config.normalize_prefix, m.config.only_prefix) == ('another',
        .25, False, True)
    assert not any(p.requires_grad for p in m.lm.parameters())

def origin(start):
    "What a captioner was, before a training goes on from it"
    from capdec.folder import Origin, load_parts
    if not start:
        return None
    parts = load_parts(start, 'cpu', encoder=False)
    return Origin(parts.model.config, parts.encoder, parts.bridge, parts.pool)

@pytest.fixture
def trained(tmp_path):
    "Save a captioner into the folder of a training, hand the bridge of another one on, and load it"
    from dataclasses import replace
    from capdec.folder import keep_bridge, load_parts
    def make(start='', store=None, **notes):
        model = load_parts('mini', 'cpu', encoder=False).model
        model.config = replace(model.config, **notes)
        model.save(tmp_path/'run'/'own_latest')
        keep_bridge(origin(start), tmp_path/'run', 'own', store)
        notes = tmp_path/'run'/'own_latest'/'captioner.json'
        return json.loads(notes.read_text())['bridge'] if notes.exists() else 'none'
    return make

@pytest.fixture
def shifted(tmp_path):
    "The bundled captioner, with the offset as its own way"
    from capdec.folder import load_parts, save_parts
    return save_parts(load_parts('mini', 'cpu', bridge='offset', encoder=False), tmp_path/'shifted')

def test_a_bridge_is_handed_on_where_it_fits(trained, shifted, tmp_path):
    from capdec.folder import load_parts
    run = tmp_path/'run'/'own_latest'
    assert trained(shifted) == load_parts(shifted, 'cpu', encoder=False).bridge.kind == 'offset'
    # of another encoder, or learned without the mean: the way of the old one leads elsewhere
    assert trained(shifted, encoder='another') == 'none'
    assert trained(shifted, centred=True) == 'none'
    with pytest.raises(ValueError, match='use the bridge mean'):
        load_parts(run, 'cpu', encoder=False)

def test_captions_that_were_retrieved_stay_with_a_training_that_retrieves(trained, tmp_path):
    import shutil
    import torch
    from capdec.folder import load_parts
    from capdec.store import EmbeddingStore
    run, old = tmp_path/'run'/'own_latest', tmp_path/'old'
    tower = load_parts('mini', 'cpu', encoder=False).encoder
    with EmbeddingStore.create(tmp_path/'s', tower.dim, dict(kind='text', encoder=tower.name)) as store:
        store.append([dict(image_id=i, caption=o, id=i) for i, o in enumerate('abcde')], torch.eye(5, tower.dim))
    trained(store=store, retrieved=.3, retrieved_k=2)
    parts = load_parts(shutil.copytree(run, old), 'cpu', encoder=False)
    assert (parts.bridge.kind, parts.bridge.k, parts.bridge.sentences) == ('none+nearest:0.3', 2, list('abcde'))
    # the memory stays, for `nearest`; photos are not mixed with it
    trained(old)
    parts = load_parts(run, 'cpu', encoder=False)
    assert (parts.bridge.kind, parts.bridge.sentences) == ('none', list('abcde'))

def test_a_bridge_that_lay_there_is_not_that_of_a_new_training(trained, shifted, tmp_path):
    "`--restart` in the same folder, from nothing; what you changed in the folder since its training stays"
    from capdec.folder import keep_bridge, load_parts, save_parts
    run = tmp_path/'run'/'own_latest'
    assert trained(shifted) == 'offset' and (run/'bridge.safetensors').exists()
    assert trained() == 'none' and not (run/'bridge.safetensors').exists()
    parts = load_parts(run, 'cpu', encoder=False)
    save_parts(parts._replace(bridge=load_parts(shifted, 'cpu', encoder=False).bridge), run)
    keep_bridge(None, tmp_path/'run', 'own')
    assert load_parts(run, 'cpu', encoder=False).bridge.kind == 'offset'
    # ... whatever the training started from
    keep_bridge(origin('mini'), tmp_path/'run', 'own')
    assert load_parts(run, 'cpu', encoder=False).bridge.kind == 'offset'

@pytest.mark.parametrize('later', [-1, 0, 1])
def test_a_copied_folder_keeps_its_bridge(trained, shifted, tmp_path, later):
    "Files that are copied get times in any order, and a training that has ended is run again"
    import os
    from capdec.folder import keep_bridge, load_parts
    run = tmp_path/'run'/'own_latest'
    trained(shifted)
    for f in run.iterdir():
        os.utime(f, (1e9, 1e9))
    os.utime(run/'captioner.json', (1e9 + later, 1e9 + later))
    before = {o.name: o.read_bytes() for o in run.iterdir()}
    for start in ('', 'mini'):
        keep_bridge(origin(start), tmp_path/'run', 'own')
        assert {o.name: o.read_bytes() for o in run.iterdir()} == before
    b = load_parts(run, 'cpu', encoder=False).bridge
    assert b.kind == 'offset' and b.memory is not None and b.concepts.names

def test_words_are_kept_where_the_way_does_not_fit(trained, shifted, tmp_path):
    "After image vectors, or an offset in training: its words and its materials, and no way; of another encoder nothing"
    from capdec.folder import keep_bridge, load_parts
    run, names = tmp_path/'run', load_parts('mini', 'cpu', encoder=False).bridge.concepts.names
    for encoder, kept in (('mini@2', names), ('another', None)):
        trained(encoder=encoder)
        keep_bridge(origin(shifted), run, 'own', fits=False)
        b = load_parts(run/'own_latest', 'cpu', encoder=False).bridge
        assert b.kind == 'none' and getattr(b.concepts, 'names', None) == kept and (b.memory is None) == (kept is None)

def test_a_captioner_is_trained_on_in_its_own_folder(tmp_path):
    "Its folder is written over by the training that goes on from it; words, memory and offset stay"
    from capdec.folder import load_parts, save_parts
    from capdec.store import EmbeddingStore
    import torch
    with EmbeddingStore.create(tmp_path/'v.store', 512, dict(kind='text', encoder='mini@2')) as s:
        s.append([dict(image_id=i, caption=f'A dog runs on a {o}.', id=i) for i, o in enumerate(('bed', 'hill'))],
            torch.eye(2, 512))
    latest = save_parts(load_parts('mini', 'cpu', bridge='offset', encoder=False), tmp_path/'run'/'coco_prefix_latest')
    old = load_parts(latest, 'cpu', encoder=False)
    for start in (latest, tmp_path/'run'):
        capdec('train', tmp_path/'v.store', '--pretrain_weights', start, '--out_dir', tmp_path/'run', '--epochs', 1,
            '--bs', 2, '--warmup_steps', 0, '--device', 'cpu', '--restart', ok=True)
        new = load_parts(latest, 'cpu', encoder=False)
        assert new.bridge.kind == 'offset' and torch.equal(new.bridge.offset, old.bridge.offset)
        assert new.bridge.names == old.bridge.names and new.bridge.sentences == old.bridge.sentences
        assert not torch.equal(new.model.mapper.model[0].weight, old.model.mapper.model[0].weight)

def test_a_folder_with_an_index_of_its_own(tmp_path):
    "No validation data is named, and that is not the folder where the command runs"
    (tmp_path/'index.json').write_text('[]')
    (tmp_path/'t.txt').write_text('A dog.\nA cat.\n')
    capdec('train', 't.txt', '--clip_model_type', 'mini', '--lm', 'mini', '--mapping_type', 'mlp', '--prefix_length', 2,
        '--epochs', 1, '--bs', 2, '--device', 'cpu', '--out_dir', 'run', cwd=tmp_path, ok=True)

@pytest.mark.parametrize('how', ['offset', 'images'])
def test_a_captioner_that_trains_on_keeps_its_words(tmp_path, how):
    import torch
    from safetensors.torch import save_file
    from capdec.folder import load_parts
    from capdec.store import EmbeddingStore
    data = tmp_path/'v.store'
    with EmbeddingStore.create(data, 512, dict(kind='image' if how == 'images' else 'text', encoder='mini@2')) as s:
        s.append([dict(image_id=i, caption=f'A dog runs on a {o}.', id=i) for i, o in enumerate(('bed', 'hill'))],
            torch.eye(2, 512))
    save_file(dict(offset=torch.ones(512)*.01), tmp_path/'o.safetensors')
    more = dict(images=['--use_image_embedding_as_clipcap'],
        offset=['--add_modality_offset', tmp_path/'o.safetensors'])[how]
    r = capdec('train', data, '--pretrain_weights', 'mini', *more, '--epochs', 1, '--bs', 2, '--warmup_steps', 0,
        '--device', 'cpu', '--out_dir', tmp_path/'run', ok=True)
    assert 'told beside the vector: things of ' in r.stderr
    parts = load_parts(tmp_path/'run', 'cpu', encoder=False)
    assert parts.model.config.hint_tokens and parts.bridge.kind == 'none'
    assert parts.bridge.concepts.names == load_parts('mini', 'cpu', encoder=False).bridge.concepts.names

def test_training_without_the_mean_goes_on_from_a_captioner_with_an_offset(tmp_path):
    texts = tmp_path/'c.txt'
    texts.write_text(''.join(f'A {c} dog {v} in the {p}.\n' for c in ('red', 'blue') for v in ('runs', 'sleeps')
        for p in ('snow', 'grass')))
    r = capdec('train', '--data', texts, '--clip_model_type', 'mini', '--pretrain_weights', 'mini', '--remove_mean',
        '--epochs', 1, '--bs', 4, '--warmup_steps', 1, '--device', 'cpu', '--out_dir', tmp_path/'run', ok=True)
    assert 'captioner: ' in r.stdout
    notes = json.loads((tmp_path/'run'/'coco_prefix_latest'/'captioner.json').read_text())
    assert notes['bridge'] == 'none'

@pytest.mark.parametrize('name,store,bs', [('COCO', 'coco.store', 30), ('FLICKR', 'flickr30k.store', 16)])
def test_presets_of_train(tmp_path, monkeypatch, name, store, bs):
    from capdec.store import import_official
    r = capdec('train', '--data', name, cwd=tmp_path, ok=False)
    assert store in one_line(r)[0] and 'capdec embed' in one_line(r)[0]
    import_official(official(tmp_path/'x.pkl'), tmp_path/store)
    seen = []
    monkeypatch.setattr('capdec.training.train', lambda model, data, config, *a, **k: seen.append(config.bs)
        or dict(epochs=[]))
    small = ['--lm', 'mini', '--mapping_type', 'mlp', '--prefix_length', 2]
    capdec('train', '--data', name, *small, cwd=tmp_path, ok=True)
    capdec('train', '--data', name, '--bs', 5, *small, cwd=tmp_path, ok=True)
    assert seen == [bs, 5]

def test_full_disk_in_training(small_disk, tmp_path):
    (tmp_path/'some.txt').write_text('\n'.join(f'A dog {i}.' for i in range(20)))
    capdec('embed', '--data', tmp_path/'some.txt', '--clip_model_type', 'mini', '--device', 'cpu', '--out',
        tmp_path/'v.store', ok=True)
    said = one_line(capdec('train', '--data', tmp_path/'v.store', '--lm', 'mini', '--mapping_type', 'mlp',
        '--prefix_length', 2, '--epochs', 1, '--device', 'cpu', '--warmup_steps', 0, '--out_dir', small_disk/'run',
        ok=False))
    assert 'cannot be written (No space left on device)' in said[-1] and str(small_disk) in said[-1], said

def test_a_folder_in_which_another_run_trains(tmp_path):
    from capdec.core import claimed
    (tmp_path/'some.txt').write_text('\n'.join(f'A dog {i}.' for i in range(20)))
    out = tmp_path/'out'
    how = ('train', '--data', tmp_path/'some.txt', '--clip_model_type', 'mini', '--lm', 'mini', '--mapping_type', 'mlp',
        '--prefix_length', 2, '--epochs', 1, '--device', 'cpu', '--warmup_steps', 0, '--out_dir', out)
    with claimed(out, lock=out/'.lock'):
        said = one_line(capdec(*how, ok=False))
    assert said[-1] == (f'capdec: error: {out}: another run is training in this folder; wait until it has ended, or '
        'name another folder')
    # nothing is noted for a run that was refused
    assert sorted(o.name for o in out.iterdir()) == ['some.txt.train.store']
    capdec(*how, '--lr', '1e-3', ok=True)
    assert json.loads((out/'train_commandline_args.txt').read_text())['lr'] == 1e-3
    # a run with other settings is refused, and what the first one was told stays
    capdec(*how, '--lr', '1e-4', ok=False)
    assert json.loads((out/'train_commandline_args.txt').read_text())['lr'] == 1e-3

def test_two_that_restyle_into_one_folder(tmp_path, monkeypatch):
    from capdec import restyle as room
    from capdec.folder import load_parts
    from capdec.model import CaptionModel
    mini, said, texts = load_parts('mini', 'cpu'), [], [f'A dog {i} runs, how lovely.' for i in range(12)]
    again = lambda: room.restyle(mini, texts, tmp_path/'s', steps=2, bs=4, show=False)
    real = room.save_parts
    def save(parts, folder):
        "The training has ended, and its folder is still there"
        if not said:
            with pytest.raises(ValueError) as e:
                again()
            said.append(str(e.value))
        return real(parts, folder)
    monkeypatch.setattr(room, 'save_parts', save)
    a = again()
    assert said == [f'{tmp_path}/s: another process is restyling into this folder; wait until it has ended']
    assert not (tmp_path/'s'/'training').exists() and not [o for o in tmp_path.rglob('.*')]
    # killed before its working folder was removed: the next run removes it
    (tmp_path/'s'/'training').mkdir()
    b = again()
    assert not (tmp_path/'s'/'training').exists()
    assert all((a.model.state_dict()[k] == v).all() for k,v in b.model.state_dict().items())
    assert CaptionModel.from_pretrained(tmp_path/'s')

def test_training_tells_what_it_does(tmp_path, monkeypatch):
    "In the shell, without a terminal: what it is given, an epoch a line, the next command; and too few captions"
    monkeypatch.chdir(tmp_path)
    (tmp_path/'note.txt').write_text('Groceries\n')
    small = ('--clip_model_type', 'mini', '--lm', 'mini', '--mapping_type', 'mlp', '--prefix_length', 2,
        '--warmup_steps', 1, '--device', 'cpu', '--epochs', 2, '--bs', 8)
    r = capdec('train', 'note.txt', '--out_dir', 'one', *small, ok=True)
    assert 'capdec: note.txt: 1 caption, too few to learn from' in r.stderr
    images = [dict(split=s, filename=f'{s}{i}.jpg', imgid=i, sentences=[dict(raw=f'A dog {i}.', sentid=i)])
        for s, n in (('train', 101), ('val', 3)) for i in range(n)]
    (tmp_path/'k.json').write_text(json.dumps(dict(images=images, dataset='x')))
    r = capdec('train', '--data', 'k.json', '--out_dir', "my out", *small, ok=True)
    lines = r.stderr.splitlines()
    assert 'capdec: 101 captions, 3 of other parts left out, 13 steps an epoch, 26 in all' in lines
    assert any(l.startswith('capdec: epoch 2 of 2: loss ') for l in lines) and 'too few' not in r.stderr
    assert r.stdout.splitlines()[-1] == ("caption photos with it: capdec caption PHOTOS --model "
        "'my out/coco_prefix_latest'")
    # nothing is left to do, and that is told as well
    r = capdec('train', '--data', 'k.json', '--out_dir', "my out", *small, ok=True)
    assert 'capdec: finished by an earlier run at step 26; ' in r.stderr and '--restart' in r.stderr
    assert 'going on' not in r.stderr and 'embedding' not in r.stderr
    r = capdec('train', '--data', 'k.json', '--out_dir', "my out", *small, '--log_to', 'paper', ok=False)
    assert "--log_to 'paper': use" in r.stderr

def test_a_program_that_is_not_there_is_told_before_anything_is_embedded(tmp_path):
    (tmp_path/'a.txt').write_text('A dog runs.\nA cat sleeps.\n')
    said = one_line(capdec('train', 'a.txt', '--clip_model_type', 'mini', '--lm', 'mini', '--log_to', 'nonsense',
        '--out_dir', 'out', cwd=tmp_path, ok=False))
    assert len(said) == 1 and 'log_to' in said[0] and [o.name for o in tmp_path.iterdir()] == ['a.txt']
