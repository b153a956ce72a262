"What happens to captions in training: noise with a shape, another caption as target, the mean taken off"
import pytest
import torch
from capdec.captioner import Captioner
from capdec.config import CapDecConfig, TrainConfig
from capdec.folder import fit_parts
from capdec.gap import difference_covariance, noise_shape, shaped
from capdec.model import CaptionModel, train_tokenizer
from capdec.noise import add_noise, keyed_randn, normalize
from capdec.store import EmbeddingStore
from capdec.textside import OtherCaptions, group_numbers, save_shape
from capdec.training import TrainData, text_side, train

SAID = [f'{a} {b} {c}.' for a in ('a dog', 'the dog', 'one dog') for b in ('runs', 'sits')
    for c in ('here', 'there', 'away')]

def tiny(seed=0, **config):
    from transformers import GPT2Config, GPT2LMHeadModel
    torch.manual_seed(seed)
    tok = train_tokenizer(SAID, 300)
    lm = GPT2LMHeadModel(GPT2Config(vocab_size=len(tok), n_embd=16, n_layer=1, n_head=2, n_positions=32))
    return CaptionModel.create(CapDecConfig('mlp', 2, prefix_size=8, lm='tiny', **config), (lm, tok))

def vectors():
    return torch.randn(len(SAID), 8, generator=torch.Generator().manual_seed(1)) + 1

IMAGES = [i//3 for i in range(len(SAID))]
HOW = dict(noise_variance=.02, noise_shape='captions', target='another', remove_mean=True, bs=4, lr=1e-3, epochs=3,
    warmup_steps=0, checkpoint_steps=2, mixed_precision='no')

def test_the_side_is_the_steps_by_hand():
    "Mean off, noise of that shape, normalised"
    x, c = vectors(), TrainConfig(**HOW)
    side = text_side(TrainData((x, SAID, IMAGES), tiny()), c)
    rows = torch.tensor([3, 11, 0])
    shape = noise_shape(difference_covariance(x, IMAGES))
    centred = normalize(x)[rows] - normalize(x).mean(0)
    want = add_noise(centred, .02, noise=shaped(keyed_randn(rows, 8, 0, 2), shape))
    assert torch.allclose(side(x[rows], rows, 2), want, atol=1e-6)

@pytest.mark.parametrize('where', ['memory', 'store'])
def test_a_run_that_is_interrupted_ends_with_the_same_weights(where, tmp_path):
    "Shape, targets and mean are functions of the data, the seed, the epoch and the row"
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

def test_targets_are_other_captions_of_the_image(monkeypatch):
    "What the model learns to say is never the caption whose vector it reads"
    import capdec.training as room
    seen = []
    batch = room.TrainData.batch
    def spy(self, rows, targets=None):
        seen.append((rows, targets))
        return batch(self, rows, targets)
    monkeypatch.setattr(room.TrainData, 'batch', spy)
    train(tiny(), (vectors(), SAID, IMAGES), TrainConfig(**HOW), device='cpu', show=False)
    pairs = [(r, t) for r, t in seen if t is not None]
    assert len(pairs) >= 3*5
    for rows, targets in pairs:
        assert (rows != targets).all() and (rows//3 == targets//3).all()
    # every row once an epoch
    assert sorted(torch.cat([r for r, _ in pairs]).tolist()) == sorted(list(range(len(SAID)))*3)

@pytest.mark.parametrize('how, says', [
    (dict(target='other'), "'own' or 'another'"), (dict(uniform_noise=True, noise_shape='captions'), 'uniform_noise'),
    (dict(official=True, target='another'), 'official'), (dict(official=True, remove_mean=True), 'official')])
def test_settings_that_do_not_fit(how, says):
    with pytest.raises(ValueError, match=says):
        TrainConfig(**how)

def test_captions_that_stand_alone_are_refused(tmp_path):
    "A silent fall back to round noise would be a wrong result"
    alone = list(range(len(SAID)))
    for how in (dict(noise_shape='captions', noise_variance=.1), dict(target='another')):
        with pytest.raises(ValueError, match='two captions|same image'):
            train(tiny(), (vectors(), SAID, alone), TrainConfig(epochs=1, **how), device='cpu', show=False)
        with pytest.raises(ValueError, match='same image'):
            train(tiny(), (vectors(), SAID), TrainConfig(epochs=1, **how), device='cpu', show=False)

def test_a_shape_from_a_file_is_the_shape(tmp_path):
    x = vectors()
    f = save_shape(tmp_path/'s.safetensors', difference_covariance(x, IMAGES))
    data = TrainData((x, SAID, IMAGES), tiny())
    a, b = (text_side(data, TrainConfig(noise_variance=.1, noise_shape=o)) for o in (str(f), 'captions'))
    assert torch.allclose(a.shape, b.shape, atol=1e-5)
    # another file is another run
    save_shape(f, torch.eye(8))
    assert not torch.allclose(text_side(data, TrainConfig(noise_variance=.1, noise_shape=str(f))).shape, b.shape)

def test_others_are_a_permutation_free_of_luck():
    "Each of the others is as likely as the next, whatever the seed"
    other = OtherCaptions(group_numbers([0]*5 + [1]*2 + [2]), seed=3)
    drawn = torch.stack([other(torch.arange(8), e) for e in range(400)])
    counts = torch.bincount(drawn[:, 0], minlength=8)
    assert counts[0] == 0 and counts[5:].sum() == 0 and counts[1:5].min() > 60
    assert set(drawn[:, 5].tolist()) == {6} and set(drawn[:, 7].tolist()) == {7}

def test_a_centred_captioner_crosses_by_the_mean_alone():
    "Photos with their mean, or texts of a memory, would lie where it never learned"
    from capdec.bridges import Bridge
    from capdec.gap import alignment, modality_moments
    class Encoder:
        dim, name = 8, 'tiny'
    onto = alignment(modality_moments(vectors(), vectors() - 2))
    centred = tiny(centred=True)
    assert fit_parts(centred, Encoder, Bridge('mean', onto=onto))
    for bridge in (None, Bridge('standard', onto=onto), Bridge('memory', memory=normalize(vectors()))):
        with pytest.raises(ValueError, match='without their mean'):
            fit_parts(centred, Encoder, bridge)
    with pytest.raises(ValueError, match='remove_mean'):
        fit_parts(tiny(), Encoder, Bridge('mean', onto=onto))
