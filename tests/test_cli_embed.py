"capdec embed: stores, ids, official pickles"
import json

from PIL import Image
from skimage import data as photos

from shell import capdec, one_line, official

def test_photos_have_the_ids_of_references(tmp_path):
    from capdec.data import image_id_of
    from capdec.embedding import embed_images, load_encoder
    names = ['a/COCO_val2014_000000391895.jpg', 'a/1000092795.jpg', 'a/1000268201_693b08cb0e.jpg', 'a/plain.jpg',
        'b/plain.jpg']
    for n in names:
        (tmp_path/n).parent.mkdir(exist_ok=True)
        Image.fromarray(photos.coffee()).resize((60, 40)).save(tmp_path/n)
    refs = [image_id_of(n.split('/')[1]) for n in names]
    ids = embed_images([tmp_path/n for n in names], load_encoder('mini', 'cpu'), tmp_path/'s', show=False,
        dtype='float32').column('image_id')
    assert ids[:3] == refs[:3] == [391895, 1000092795, 1000268201]
    # two photos of one name, two ids
    assert ids[3:] == [str(tmp_path/o) for o in names[3:]]
    # a second run finds the same
    assert embed_images([tmp_path/n for n in names], load_encoder('mini', 'cpu'), tmp_path/'s', show=False,
        dtype='float32').column('image_id') == ids

def test_a_pickle_with_both_kinds_keeps_both(tmp_path):
    import torch
    from capdec.store import EmbeddingStore, export_official, import_official, read_official_pickle
    t, i = (import_official(official(tmp_path/f'{k}.pkl', image=k == 'i', seed=s), tmp_path/k) for s,
        k in enumerate('ti'))
    both = export_official(t, tmp_path/'both.pkl', i)
    r = capdec('embed', '--data', both, '--out', tmp_path/'again.pkl', ok=True)
    one, two = read_official_pickle(both), read_official_pickle(tmp_path/'again.pkl')
    assert all(torch.equal(one[k], two[k]) for k in ('text', 'image')) and one['captions'] == two[
        'captions'] and 'holds vectors of captions and of photos' not in r.stderr
    r = capdec('embed', '--data', both, '--out', tmp_path/'t.store', ok=True)
    assert 'holds vectors of captions and of photos' in r.stderr and EmbeddingStore(tmp_path/'t.store').meta[
        'kind'] == 'text'
    assert 'holds vectors' not in capdec('embed', '--data', both, '--kind', 'image', '--out', tmp_path/'i.store',
        ok=True).stderr
    assert torch.equal(EmbeddingStore(tmp_path/'i.store').vectors(), i.vectors())
    assert '--kind sound' in capdec('embed', '--data', both, '--kind', 'sound', '--out',
        tmp_path/'x.store').stderr and not (tmp_path/'x.store').exists()

def test_images_and_captions_for_the_official_tools(tmp_path):
    from capdec.core import load_pickle
    (tmp_path/'im').mkdir()
    Image.fromarray(photos.coffee()).resize((60, 40)).save(tmp_path/'im'/'a.jpg')
    (tmp_path/'im'/'b.jpg').write_text('no image')
    (tmp_path/'c.jsonl').write_text('\n'.join(json.dumps(dict(filename=f'{n}.jpg', caption=f'{n} {i}')) for i,
        n in enumerate('aba')))
    small = ('--clip_model_type', 'mini', '--device', 'cpu')
    r = capdec('embed', '--data', tmp_path/'c.jsonl', '--image_dir', tmp_path/'im', '--out', tmp_path/'both.pkl',
        *small, ok=False)
    assert sum('b.jpg: not an image' in l for l in r.stderr.splitlines()
        if 'skipped' in l) == 1 and 'b.jpg: b.jpg' not in r.stderr
    both = load_pickle(tmp_path/'both.pkl', tensors=True)
    assert both['clip_embedding'].shape == both['clip_embedding_text_dave'].shape == (2, 512) and [o['caption']
        for o in both['captions']] == ['a 0', 'a 2']
    assert (both['clip_embedding'] - both['clip_embedding_text_dave']).abs().max() > .1
    capdec('offset', tmp_path/'both.pkl', '--out', tmp_path/'offset.safetensors', ok=True)
    r = capdec('embed', '--images', tmp_path/'im', '--out', tmp_path/'x.pkl', *small, ok=False)
    # said before anything is computed
    assert 'official pickles hold captions' in r.stderr and not (tmp_path/'x.store').exists()

def test_embed_of_what_is_not_there_leaves_nothing(tmp_path):
    for args in (('--data', 'missing.json'), ('--data', 'bad.json'), ('--images', 'missing/*.jpg')):
        (tmp_path/'bad.json').write_text('[{"caption": 3}]')
        r = capdec('embed', *args, '--clip_model_type', 'mini', '--device', 'cpu', '--out', 'x.store', cwd=tmp_path,
            ok=False)
        assert len(one_line(r)) == 1 and args[1].split('/')[0] in r.stderr and [p.name
            for p in tmp_path.iterdir()] == ['bad.json']

def test_several_folders_of_photos(tmp_path, album):
    (tmp_path/'two').mkdir()
    Image.fromarray(photos.coffee()).resize((80, 60)).save(tmp_path/'two'/'b.jpg')
    args = ('embed', '--images', tmp_path/'two', album/'sub', '--clip_model_type', 'mini', '--device', 'cpu')
    assert 'name the store' in capdec(*args, ok=False).stderr
    assert '2 vectors of 512 numbers' in capdec(*args, '--out', tmp_path/'v.store', ok=True).stdout
    capdec('predict', '--images', tmp_path/'two', album/'sub', '--out', tmp_path/'p.json', '--device', 'cpu', ok=True)
    assert len(json.loads((tmp_path/'p.json').read_text())) == 2
    r = capdec('demo', '--photos', tmp_path/'two', album/'sub', '--quick', '--out', tmp_path/'page', ok=True)
    assert 'b.jpg' in r.stdout and 'grey.png' in r.stdout

def test_a_pickle_of_a_store_is_all_that_is_said(tmp_path):
    (tmp_path/'c.txt').write_text('A dog runs.\nA red car.\n')
    capdec('embed', '--data', 'c.txt', '--clip_model_type', 'mini', '--device', 'cpu', cwd=tmp_path, ok=True)
    r = capdec('embed', '--data', 'c.store', '--out', 'x.pkl', cwd=tmp_path, ok=True)
    assert {l.split(': ')[1] for l in r.stdout.splitlines()} == {'x.pkl',
        'c.store'} and not (tmp_path/'x.store').exists()
