"Captions that a photo would find, in training and at the door"
import pytest
import torch
from PIL import Image

from capdec.core import tidied
from capdec.bridges import Bridge
from capdec.captioner import Captioner, load_captioner
from capdec.config import Crossing, TrainConfig
from capdec.folder import fit_parts
from capdec.noise import keyed_randn, add_noise, normalize
from capdec.store import EmbeddingStore
from capdec.textside import Retrieved
from capdec.training import TrainData, text_side, train, validation_loss
from shell import capdec, one_line
from test_text_side import IMAGES, SAID, tiny, vectors

HOW = dict(noise_variance=.02, retrieve=.4, retrieve_k=4, bs=4, lr=1e-3, epochs=3, warmup_steps=0, checkpoint_steps=2,
    mixed_precision='no')

def by_hand(x, memory, row, epoch, share=.4, k=4):
    "Noise, the nearest of other images one by one, their mean, the mixture"
    own = add_noise(x[row][None], .02, noise=keyed_randn(torch.tensor([row]), 8, 0, epoch))[0]
    others = sorted((i for i in range(len(x)) if IMAGES[i] != IMAGES[row]), key=lambda i: -float(own@memory[i]))[:k]
    return normalize((1-share)*own + share*normalize(memory[others].mean(0)))

def test_the_side_is_the_steps_by_hand():
    x, rows = vectors(), torch.tensor([3, 11, 0])
    side = text_side(TrainData((x, SAID, IMAGES), tiny()), TrainConfig(**HOW))
    assert torch.allclose(side.retrieved.memory.float(), normalize(x), atol=1e-3)
    want = torch.stack([by_hand(x, side.retrieved.memory.float(), r, 2) for r in rows.tolist()])
    assert torch.allclose(side(x[rows], rows, 2), want, atol=1e-5)

def test_pieces_of_the_memory_make_no_difference(monkeypatch):
    x, rows = vectors(), torch.arange(len(SAID))
    near = Retrieved(x, torch.tensor(IMAGES), .4, 4)
    whole = near.nearest(normalize(x), rows)
    monkeypatch.setattr('capdec.index._PIECE', 5)
    assert torch.equal(near.nearest(normalize(x), rows), whole)
    # nor does who asks beside
    assert torch.equal(near.nearest(normalize(x)[7:8], rows[7:8]), whole[7:8])

@pytest.mark.parametrize('images', [True, False])
def test_never_itself_nor_its_sisters(images):
    x, rows = vectors(), torch.arange(len(SAID))
    data = TrainData((x, SAID, IMAGES) if images else (x, SAID), tiny())
    near = text_side(data, TrainConfig(**HOW)).retrieved
    of = torch.tensor(IMAGES) if images else rows
    assert (of[near.nearest(normalize(x), rows)] != of[:, None]).all()
    # captions of a validation set may find any
    assert torch.equal(near.elsewhere().nearest(near.memory.float(), rows)[:, 0], rows)

def test_training_and_use_agree():
    "What a photo gets by the bridge is what a caption of another image gets in training"
    x, rows = vectors(), torch.arange(len(SAID))
    side = text_side(TrainData((x, SAID, IMAGES), tiny()), TrainConfig(**HOW | dict(noise_variance=0.)))
    bridge = Bridge('none+nearest:0.4', memory=side.retrieved.memory.float(), sentences=SAID, k=4)
    photos = normalize(torch.randn(len(SAID), 8, generator=torch.Generator().manual_seed(9)))
    assert torch.allclose(side.elsewhere()(photos, rows), bridge(photos), atol=1e-5)

@pytest.mark.parametrize('where', ['memory', 'store'])
def test_a_run_that_is_interrupted_ends_with_the_same_weights(where, tmp_path):
    data = vectors(), SAID, IMAGES
    if where == 'store':
        with EmbeddingStore.create(tmp_path/'v.store', 8, dict(encoder='tiny', kind='text')) as w:
            w.append([dict(image_id=i, caption=c, id=k, filename='')
                for k, (i, c) in enumerate(zip(IMAGES, SAID))], vectors())
        data = EmbeddingStore(tmp_path/'v.store')
    whole = tiny()
    train(whole, data, TrainConfig(**HOW), tmp_path/'whole', device='cpu', show=False)
    class Stop(Exception):
        pass
    def stop(step, loss):
        if step == 7:
            raise Stop
    parts = dict(HOW, log_steps=1)
    with pytest.raises(Stop):
        train(tiny(), data, TrainConfig(**parts), tmp_path/'parts', device='cpu', show=False, callback=stop)
    again = tiny(5)
    train(again, data, TrainConfig(**parts), tmp_path/'parts', device='cpu', show=False)
    for a, b in zip(whole.state_dict().values(), again.state_dict().values()):
        assert torch.equal(a, b)
    # it was not without effect
    plain = tiny()
    train(plain, data, TrainConfig(**HOW | dict(retrieve=0.)), device='cpu', show=False)
    assert any(not torch.equal(a, b) for a, b in zip(whole.state_dict().values(), plain.state_dict().values()))

def test_validation_hides_nothing():
    "Row numbers of a validation set are not those of the captions that are trained on"
    x, model = vectors(), tiny()
    side = text_side(TrainData((x, SAID, IMAGES), model), TrainConfig(**HOW))
    val = TrainData((vectors().flip(0), SAID[::-1]), model)
    a = validation_loss(model, val, TrainConfig(**HOW), side=side)
    assert a == validation_loss(model, val, TrainConfig(**HOW), side=side.elsewhere())

@pytest.mark.parametrize('how, says', [(dict(retrieve=1.), 'share'), (dict(retrieve=-.1), 'share'),
    (dict(retrieve=.3, retrieve_k=0), 'retrieve_k'), (dict(retrieve=.3, remove_mean=True), 'remove_mean'),
    (dict(retrieve=.3, dont_norm=True), 'dont_norm'), (dict(retrieve=.3, official=True), 'official')])
def test_settings_that_do_not_fit(how, says):
    with pytest.raises(ValueError, match=says):
        TrainConfig(**how)

def test_too_few_captions_are_told():
    with pytest.raises(ValueError, match='retrieve_k 16: beside the captions of one image there are only 15'):
        train(tiny(), (vectors(), SAID, IMAGES), TrainConfig(**HOW | dict(retrieve_k=16)), device='cpu', show=False)

def test_other_ways_are_refused():
    "A photo without the help, or with more of it, would lie where the decoder never learned"
    class Encoder:
        dim, name = 8, 'tiny'
    model, memory = tiny(retrieved=.4, retrieved_k=4), normalize(vectors())
    own = dict(memory=memory, sentences=SAID, k=4)
    for kind in ('none+nearest:0.4', 'memory+nearest:0.4'):
        assert fit_parts(model, Encoder, Bridge(kind, **own)).bridge.kind == kind
    for bridge in (None, Bridge('nearest', **own), Bridge('none+nearest:0.3', **own), Bridge('memory', **own),
            Bridge('none+nearest:0.4', **own | dict(k=9))):
        with pytest.raises(ValueError, match='learned with a share of 0.4 of 4 retrieved captions; use the bridge'):
            fit_parts(model, Encoder, bridge)

def test_from_text_to_captions(tmp_path):
    "One command trains; the captioner brings what it needs, and says when it is used otherwise"
    texts = tmp_path/'c.txt'
    texts.write_text(''.join(f'A {c} {a} {v} in the {p}.\n' for c in ('red', 'blue') for a in ('dog', 'cat', 'bird')
        for v in ('runs', 'sleeps') for p in ('snow', 'grass')))
    photo = tmp_path/'a.jpg'
    Image.new('RGB', (60, 40), (9, 120, 30)).save(photo)
    run = ['train', '--data', texts, '--clip_model_type', 'mini', '--lm', 'mini', '--mapping_type', 'mlp',
        '--prefix_length', 2, '--epochs', 1, '--bs', 8, '--retrieve', .3, '--retrieve_k', 5, '--device', 'cpu',
        '--out_dir', tmp_path/'run', '--prefix', 'own']
    capdec(*run, ok=True)
    folder = tmp_path/'run'/'own_latest'
    c = Captioner.from_pretrained(folder, 'cpu', dtype='float32')
    assert (c.bridge.kind, c.bridge.k, len(c.bridge.sentences)) == ('none+nearest:0.3', 5, 24)
    assert (c.model.config.retrieved, c.model.config.retrieved_k) == (.3, 5)
    told = capdec('caption', photo, '--model', folder, '--device', 'cpu', '--dtype', 'float32', ok=True).stdout
    assert tidied(c(photo)) in told
    c.save(tmp_path/'copy')
    assert Captioner.from_pretrained(tmp_path/'copy', 'cpu', dtype='float32')(photo) == c(photo)
    for more in (['--bridge', 'none'], ['--memory', texts], ['--bridge', 'none+nearest:0.5']):
        r = capdec('caption', photo, '--model', folder, '--device', 'cpu', *more, ok=False)
        assert 'retrieved captions; use the bridge none+nearest:0.3' in one_line(r)[-1]
    # another memory, the same way
    other = load_captioner(folder, device='cpu', crossing=Crossing('none+nearest:0.3', texts))
    assert other.bridge.kind == 'none+nearest:0.3' and other.bridge.k == 5
    # a run that is complete is left alone, and still gives the captions
    capdec(*run, ok=True)
    assert Captioner.from_pretrained(folder, 'cpu').bridge.kind == 'none+nearest:0.3'
