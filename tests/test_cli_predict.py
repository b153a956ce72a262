"capdec predict: vectors, bridges, checkpoints, continued runs"
import json
import os
from types import SimpleNamespace

import numpy as np
import pytest

from shell import capdec, one_line, COCO_NAMES, official

pytestmark = pytest.mark.usefixtures('one_encoder')

@pytest.mark.parametrize('how', ['--data', '--images'])
def test_predict_then_evaluate(coco, tmp_path, how):
    "The examples of the two verbs, one after the other"
    if how == '--data':
        capdec('predict', '--data', coco/'dataset_coco.json', '--split', 'val', '--image_dir', coco, '--out',
            'predictions.json', '--device', 'cpu', cwd=tmp_path, ok=True)
    else:
        capdec('predict', '--images', coco/'val2014', '--out', 'predictions.json', '--device', 'cpu', cwd=tmp_path,
            ok=True)
    assert [o['image_id'] for o in json.loads((tmp_path/'predictions.json').read_text())] == COCO_NAMES['val']
    r = capdec('evaluate', 'predictions.json', '--references', coco/'dataset_coco.json', '--split', 'val', '--metrics',
        'bleu,cider', '--images', coco/'val2014', '--clip_model_type', 'mini',
        '--device', 'cpu', '--out', 'scores.json', cwd=tmp_path, ok=True)
    scores = json.loads((tmp_path/'scores.json').read_text())
    assert scores['images'] == 2 and 0 <= scores['corpus']['CLIPScore'] <= 2.5 and 'CLIPScore' in r.stdout
    r = capdec('evaluate', 'predictions.json', '--references', coco/'dataset_coco.json', '--metrics', 'bleu',
        '--images', coco/'train2014', '--clip_model_type', 'mini', cwd=tmp_path, ok=False)
    assert 'no photo, or several, for 2 of 2' in one_line(r)[0]

def test_one_prediction_per_image_without_the_encoder(tmp_path, mini_config, monkeypatch):
    def never(*a):
        raise AssertionError('the encoder was loaded')
    monkeypatch.setattr('capdec.folder.load_encoder', never)
    p = official(tmp_path/'e.pkl', n=10, d=mini_config['prefix_size'], per_image=5, image=True)
    capdec('predict', '--embeddings', p, '--out', tmp_path/'p.json', '--device', 'cpu', '--beam', 'false', ok=True)
    assert [o['image_id'] for o in json.loads((tmp_path/'p.json').read_text())] == [0, 1]

def test_vectors_of_another_encoder_are_refused(tmp_path, mini_config):
    from capdec.store import import_official
    import_official(official(tmp_path/'e.pkl', d=mini_config['prefix_size'], image=True), tmp_path/'s',
        encoder='ViT-B/16')
    r = capdec('predict', '--embeddings', tmp_path/'s', '--out', tmp_path/'p.json', '--device', 'cpu', ok=False)
    assert 'vectors of ViT-B/16' in one_line(r)[0]

def test_texts_go_in_without_a_bridge(coco, tmp_path, spy):
    import torch
    from capdec.noise import normalize
    from capdec.store import EmbeddingStore
    for how in (['--text_autoencoder'], ['--dataset_mode', '5']):
        out = tmp_path/f'{how[0]}.json'
        capdec('predict', '--data', coco/'dataset_coco.json', *how, '--out', out, '--device', 'cpu', ok=True)
        s = EmbeddingStore(f'{out}.vectors')
        assert s.meta['kind'] == 'text' and s.column('image_id') == COCO_NAMES['val']
        torch.testing.assert_close(spy.pop(), normalize(s.vectors()))
        # one line each
        assert {o['caption'] for o in json.loads(out.read_text())} == {'a dog runs fast.'}

def test_memory_of_ones_own(coco, album, tmp_path, spy, mini_config):
    import torch
    from capdec.noise import normalize, project_on_memory
    from capdec.store import EmbeddingStore, import_official
    lines = [f'A dog runs after ball number {i}.' for i in range(30)]
    (tmp_path/'m.txt').write_text('\n'.join(lines))
    capdec('embed', '--data', tmp_path/'m.txt', '--clip_model_type', 'mini', '--device', 'cpu', '--out',
        tmp_path/'m.store', ok=True)
    args = ['predict', '--images', coco/'val2014', '--out', tmp_path/'p.json', '--device', 'cpu']
    # another memory is no continuation: captioned again
    for memory in ('m.store', 'm.txt'):
        capdec(*args, '--memory', tmp_path/memory, ok=True)
        x = normalize(EmbeddingStore(tmp_path/'p.json.vectors').vectors())
        torch.testing.assert_close(spy.pop(), project_on_memory(x,
            normalize(EmbeddingStore(tmp_path/'m.store').vectors())), atol=1e-3, rtol=0)
    capdec('predict', '--embeddings', tmp_path/'p.json.vectors', '--memory', tmp_path/'m.txt', '--out',
        tmp_path/'q.json', '--device', 'cpu', ok=True)
    torch.testing.assert_close(spy.pop(), project_on_memory(x, normalize(EmbeddingStore(tmp_path/'m.store').vectors())),
        atol=1e-3, rtol=0)
    import_official(official(tmp_path/'e.pkl', d=mini_config['prefix_size']), tmp_path/'other.store',
        encoder='ViT-B/16')
    for extra, says in ((['--memory', tmp_path/'nowhere'], 'no such file or store'),
        (['--memory', tmp_path/'m.txt', '--bridge', 'offset'], 'needs no memory'),
        (['--memory', tmp_path/'other.store'], 'text vectors of mini'),
            (['--memory', tmp_path/'p.json.vectors'], 'holds image vectors of mini')):
        for verb in (args, ['caption', album/'plain.jpg', '--device', 'cpu']):
            assert says in one_line(capdec(*verb, *extra, ok=False))[0]
    for other in (['--add_modality_offset', 'o.npz'], ['--modality_bridger', 'b.safetensors']):
        assert 'two ways across the gap' in one_line(capdec(*args, *other, '--memory', tmp_path/'m.txt', ok=False))[0]

def test_caption_files_without_file_names(coco, tmp_path, spy):
    "The official parsers write `[{image_id, caption, id}]`; their photos are found by id, wherever below the folder"
    from capdec.store import EmbeddingStore
    capdec('parse', coco/'dataset_coco.json', '--split', 'val', '--out', tmp_path/'named.json', ok=True)
    plain = [{k: o[k] for k in ('image_id','caption','id')} for o in json.loads((tmp_path/'named.json').read_text())]
    (tmp_path/'plain.json').write_text(json.dumps(plain + [dict(image_id=77, caption='A photo that is not there.',
        id=999)]))
    for data, root, code in (('named.json', coco, 0), ('plain.json', coco, 1), ('plain.json', coco/'val2014', 1),
            ('named.json', coco/'val2014', 0)):
        out = tmp_path/f'{data}{root.name}.p.json'
        r = capdec('predict', '--data', tmp_path/data, '--image_dir', root, '--out', out, '--device', 'cpu')
        assert r.returncode == code and [o['image_id'] for o in json.loads(out.read_text())] == COCO_NAMES['val'] and (
            not code or 'image_id 77' in one_line(r)[0])
        assert (spy[-1] == spy[0]).all()
    capdec('embed', '--data', tmp_path/'plain.json', '--image_dir', coco, '--clip_model_type', 'mini', '--device',
        'cpu', '--out', tmp_path/'s', ok=False)
    assert EmbeddingStore(tmp_path/'s').captions() == [o['caption'] for o in plain]
    capdec('train', '--data', tmp_path/'plain.json', '--image_dir', coco, '--use_image_embedding_as_clipcap',
        '--clip_model_type', 'mini', '--lm', 'mini', '--mapping_type', 'mlp', '--prefix_length', 2, '--epochs', 1,
        '--warmup_steps', 0, '--device', 'cpu', '--out_dir', tmp_path/'run', ok=True)
    assert '--image_dir' in one_line(capdec('predict', '--data', tmp_path/'plain.json', '--out', tmp_path/'x.json',
        '--device', 'cpu', ok=False))[0]

def test_vectors_of_another_folder_are_not_taken(coco, tmp_path):
    import shutil
    args = ['predict', '--data', coco/'dataset_coco.json', '--out', tmp_path/'p.json', '--device', 'cpu', '--beam',
        'false', '--image_dir']
    capdec(*args, coco, ok=True)
    shutil.copytree(coco/'val2014', tmp_path/'copy'/'val2014')
    assert 'p.json.vectors' in one_line(capdec(*args, tmp_path/'copy', ok=False))[0]

def test_modality_bridger(coco, tmp_path, spy):
    import torch
    from safetensors.torch import save_file
    from capdec.captioner import Captioner
    from capdec.noise import ImageToTextBridge, normalize
    from capdec.store import EmbeddingStore
    d = Captioner.from_pretrained('mini', 'cpu', encoder=False).model.config.prefix_size
    net = ImageToTextBridge(d, 3)
    torch.nn.init.normal_(net.layers[0].weight, generator=torch.Generator().manual_seed(0))
    save_file(net.state_dict(), tmp_path/'b.safetensors')
    args = ['predict', '--images', coco/'val2014', '--out', tmp_path/'p.json', '--device', 'cpu']
    capdec(*args, '--modality_bridger', tmp_path/'b.safetensors', ok=True)
    torch.testing.assert_close(spy.pop(), net(normalize(EmbeddingStore(tmp_path/'p.json.vectors').vectors())).detach())
    save_file(ImageToTextBridge(d+1, 2).state_dict(), tmp_path/'wrong.safetensors')
    (tmp_path/'cut.safetensors').write_bytes(b'cut')
    for name, says in (('nowhere', 'no such file'), ('wrong', f'vectors of {d+1} numbers, not of {d}'),
            ('cut', 'cut.safetensors: damaged, cut short')):
        assert says in one_line(capdec(*args, '--modality_bridger', tmp_path/f'{name}.safetensors', ok=False))[0]

def test_offset_of_another_width(coco, tmp_path):
    np.savez(tmp_path/'o.npz', center_image=np.ones(7, 'float32'), center_text=np.zeros(7, 'float32'))
    r = capdec('predict', '--images', coco/'val2014', '--add_modality_offset', tmp_path/'o.npz', '--out',
        tmp_path/'p.json', '--device', 'cpu', ok=False)
    assert 'vectors of 7 numbers' in one_line(r)[0]

def test_typed_shape_must_fit_the_checkpoint(coco, tmp_path, mini_config, spy):
    args = ['predict', '--images', coco/'val2014', '--out', tmp_path/'p.json', '--device', 'cpu']
    own = {'mlp': 'mlp', 'transformer': 'transformer_encoder',
        'transformer_decoder': 'transformer_decoder'}[mini_config['mapping_type']]
    capdec(*args, '--prefix_length', mini_config['prefix_length'], '--mapping_type', own, ok=True)
    for flag, v in (('--prefix_length', mini_config['prefix_length']+1),
            ('--mapping_type', 'mlp' if own != 'mlp' else 'transformer'), ('--mapping_type', 'rope')):
        assert flag in one_line(capdec(*args, flag, v, ok=False))[0]

def test_check_shape_overlooks_what_an_mlp_does_not_use():
    from capdec.folder import check_shape
    from capdec.model import CapDecConfig
    check_shape(CapDecConfig('mlp', num_layers=8), num_layers=3, prefix_length_clip=7, mapping_type='mlp',
        prefix_length=0)
    with pytest.raises(ValueError, match='num_layers 8'):
        check_shape(CapDecConfig('transformer', num_layers=8), num_layers=3)

def test_ablations_print_distances(coco, tmp_path):
    args = ['predict', '--data', coco/'dataset_coco.json', '--image_dir', coco, '--device', 'cpu']
    assert 'images 2' in (r := capdec(*args, '--ablation_dist', cwd=tmp_path, ok=True).stdout) and r.count(
        'l2_centre') == 2 and 'after the mapper' in r
    assert '(10 pairs)' in capdec(*args, '--ablation_image_dist', cwd=tmp_path, ok=True).stdout
    assert '--data' in one_line(capdec('predict', '--images', coco, '--ablation_dist', ok=False))[0]

def test_interrupted_run_is_continued_with_the_same_settings_only(coco, tmp_path, monkeypatch):
    def stop(model, x, n=[0], **k):
        n[0] += 1
        if n[0] > 1:
            raise KeyboardInterrupt
        return [[SimpleNamespace(text='A dog.')]]*len(x)
    monkeypatch.setattr('capdec.candidates.generate', stop)
    args = ['predict', '--images', coco/'val2014', '--out', tmp_path/'p.json', '--device', 'cpu', '--batch_size', 1]
    r = capdec(*args)
    assert r.returncode == 130 and 'run the same command again' in r.stderr
    said = [SimpleNamespace(text='A cat.')]
    monkeypatch.setattr('capdec.candidates.generate', lambda model, x, **k: [said]*len(x))
    for other in (['--dont_normalize_prefix'], ['--bridge', 'offset'], ['--beam_size', 2]):
        assert 'other settings' in one_line(capdec(*args, *other, ok=False))[0]
    capdec(*args, ok=True)
    assert [o['caption'] for o in json.loads((tmp_path/'p.json').read_text())] == ['a dog.', 'a cat.']

def test_changed_weights_are_other_settings(tmp_path):
    from capdec.folder import weights_id
    f = tmp_path/'model.safetensors'
    f.write_bytes(b'12345')
    before = weights_id(tmp_path)
    os.utime(f, (1, 1))
    assert before[0] == 5 and weights_id(tmp_path) != before and weights_id('mini')[0] > 1000

@pytest.mark.parametrize('mode,file,more,want', [('0', 'archive.zip', (), ['coco val']),
    ('1', 'archive.zip', (), ['flickr30k val']), ('2', 'FlickrStyle_v0.9.zip', (), 1),
    ('3', 'FlickrStyle_v0.9.zip', (), 1),
    ('4', 'FlickrStyle_v0.9.zip', ('factual.json',), 1), ('5', 'archive.zip', (), ['coco val']),
    ('6', 'archive.zip', (), ['coco train', 'coco restval']), ('8', 'archive.zip', (), ['coco val'])])
def test_every_number_of_the_official_runner_reads_its_part(published, mode, file, more, want):
    "What `predict` captions; 7 needs a list of images and has its own test"
    from capdec.config import Selection
    from capdec.sources import captions_from
    factual = ''.join(str(published/o) for o in more)
    got = [o['caption'] for o in captions_from(published/file, Selection('val', mode, factual=factual), 'predict')]
    assert got == [f'A man of {o}.' for o in want] if isinstance(want, list) else len(got) == want

@pytest.mark.parametrize('name', ['mlp','transformer'])
def test_predict_with_official_checkpoints(golden, shared, tmp_path, name):
    "An official checkpoint and an official pickle in, the official texts out, by command line alone"
    import pickle
    import torch
    query = torch.tensor(np.load(golden/f'official_{name}.npz')['query'])
    (tmp_path/'q.pkl').write_bytes(pickle.dumps(dict(clip_embedding=query, clip_embedding_text_dave=0,
        captions=[dict(image_id=i, caption='?', id=i, clip_embedding=i) for i in range(len(query))]), protocol=4))
    texts = json.loads((golden/'golden.json').read_text())['results'][name]
    common = ('predict', '--checkpoint', golden/f'official_{name}.pt', '--embeddings', tmp_path/'q.pkl', '--tokenizer',
        shared/'data'/'gpt2_bpe', '--official')
    for more, want in ((('--out', tmp_path/'beam.json'), [o[0] for o in texts['beam']]),
            (('--out', tmp_path/'greedy.json', '--beam', 'false'), texts['greedy'])):
        capdec(*common, '--lm_heads', 4, *more, ok=True)
        assert [o['caption'] for o in json.loads((tmp_path/more[1].name).read_text())] == [o.strip().lower()
            for o in want]
    assert '--lm_heads' in capdec(*common, '--out', tmp_path/'x.json', ok=False).stderr
    assert 'is no official checkpoint' in capdec('predict', '--checkpoint', 'mini', '--images', tmp_path, '--out',
        tmp_path/'x.json', '--lm_heads', 4, ok=False).stderr

def test_two_predictions_into_one_file(tmp_path, album):
    from capdec.core import claim, give_back
    lock = claim(tmp_path/'p.json.part')
    r = capdec('predict', '--images', album/'sub', '--out', tmp_path/'p.json', '--device', 'cpu', ok=False)
    assert 'p.json.part: another process is writing it' in one_line(r)[-1]
    give_back(lock)
    capdec('predict', '--images', album/'sub', '--out', tmp_path/'p.json', '--device', 'cpu', ok=True)
    assert not list(tmp_path.glob('.p.json*'))

def test_predictions_of_names_that_are_not_utf8(tmp_path, album):
    (tmp_path/'in').mkdir()
    with open(os.fsencode(tmp_path/'in')+b'/caf\xe9.png', 'wb') as f:
        f.write((album/'sub'/'grey.png').read_bytes())
    capdec('predict', '--images', tmp_path/'in', '--out', tmp_path/'p.json', '--device', 'cpu', ok=True)
    row, = json.loads((tmp_path/'p.json').read_text(encoding='utf-8'))
    assert os.fsencode(row['image_id']) == b'caf\xe9.png' and row['caption']

def test_an_offset_that_is_named_leaves_the_rest_of_the_bridge():
    import torch
    from capdec.folder import load_parts
    own = load_parts('mini', 'cpu', encoder=False).bridge
    own.temperature, own.k = .05, 7
    new = own.shifted(torch.ones(512))
    assert (new.kind, new.temperature, new.k) == ('offset', .05, 7) and new.offset.sum() == 512
    assert new.names == own.names and new.index is own.index and new.sentences is own.sentences

def test_a_bridger_and_a_choice_are_refused(coco, tmp_path):
    "A choice asks for several ways, and the bridger is one; said before a photo is opened"
    import torch
    from capdec.noise import ImageToTextBridge, save_bridge
    save_bridge(tmp_path/'b.safetensors', ImageToTextBridge(512, 1))
    args = ('predict', '--images', coco/'val2014', '--out', tmp_path/'p.json', '--device', 'cpu', '--modality_bridger',
        tmp_path/'b.safetensors')
    for more in (('--choose', 'vote'), ('--choose', 'logprob', '--ways', 'none', 'memory')):
        said, = one_line(capdec(*args, *more, ok=False))
        assert f'--choose {more[1]}: asks for other ways' in said and not (tmp_path/'p.json').exists()

def test_vectors_that_are_chosen_by_the_cosine(coco, tmp_path):
    "The captions need the encoder, though the photos do not"
    args = ('--device', 'cpu', '--choose', 'cosine')
    capdec('predict', '--images', coco/'val2014', '--out', tmp_path/'a.json', *args, ok=True)
    capdec('predict', '--embeddings', tmp_path/'a.json.vectors', '--out', tmp_path/'b.json', *args, ok=True)
    assert json.loads((tmp_path/'a.json').read_text()) == json.loads((tmp_path/'b.json').read_text())
