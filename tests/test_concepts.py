"Words beside the vector: drawn in training by seed, epoch and row, kept with a run, and copied by the decoder"
import dataclasses
import shutil

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from capdec.core import tidied
from capdec.candidates import candidates
from capdec.concepts import Hints, Vocabulary
from capdec.config import CapDecConfig, TrainConfig
from capdec.decoding import generate
from capdec.folder import load_parts
from capdec.model import CaptionModel
from capdec.training import TrainData, hints_of, train
import tellers
from shell import capdec, one_line

THINGS = [f'thing{i}' for i in range(20)]
PLACES = ['here', 'there', 'outside', 'inside']
CAPTIONS = [f'a {o} stands {p} .' for o in THINGS for p in PLACES]

def told_model(hint_tokens=3, seed=0):
    "A small captioner that knows the words of CAPTIONS; each place has a direction, and things have none"
    words = ['<pad>', '<eos>', '.', ',', *sorted({w for c in CAPTIONS for w in c.split()} - {'.'})]
    t = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token='<pad>'))
    t.pre_tokenizer = pre_tokenizers.Whitespace()
    tok = PreTrainedTokenizerFast(tokenizer_object=t, pad_token='<pad>', eos_token='<eos>', unk_token='<pad>')
    torch.manual_seed(seed)
    lm = GPT2LMHeadModel(GPT2Config(vocab_size=len(words), n_embd=48, n_layer=2, n_head=4, n_positions=24,
        bos_token_id=1, eos_token_id=1, resid_pdrop=0., embd_pdrop=0., attn_pdrop=0.))
    return CaptionModel.create(CapDecConfig('mlp', 2, 2, 8, hint_tokens=hint_tokens), (lm, tok))

def vectors():
    "The place alone is in the vector"
    d = torch.nn.functional.normalize(torch.randn(4, 8, generator=torch.Generator().manual_seed(1)), dim=1)
    return d[torch.arange(len(CAPTIONS)) % 4]

HOW = TrainConfig(lr=3e-3, epochs=40, bs=20, warmup_steps=10, noise_variance=.001, mixed_precision='no',
    checkpoint_steps=3, hint_none=.2, hint_false=0.)

@pytest.fixture
def names(tmp_path):
    f = tmp_path/'names.txt'
    f.write_text('\n'.join(THINGS))
    return str(f)

def test_a_decoder_learns_to_copy_what_it_is_told(names):
    model = told_model()
    train(model, (vectors(), CAPTIONS), dataclasses.replace(HOW, vocabulary=names), device='cpu', show=False)
    said = generate(model, vectors(), hints=[[c.split()[1]] for c in CAPTIONS], texts=True, method='greedy')
    assert sum(a == b for a, b in zip(said, CAPTIONS)) > .9*len(CAPTIONS)
    # without a word the vector cannot tell the thing, and still tells the place
    bare = generate(model, vectors(), texts=True, method='greedy')
    assert sum(a.split()[-2] == b.split()[-2] for a, b in zip(bare, CAPTIONS)) > .9*len(CAPTIONS)
    assert sum(a == b for a, b in zip(bare, CAPTIONS)) < .2*len(CAPTIONS)

def test_a_run_that_goes_on_draws_the_same_words(names, tmp_path):
    how = dataclasses.replace(HOW, vocabulary=names, epochs=4)
    whole = told_model()
    train(whole, (vectors(), CAPTIONS), how, tmp_path/'whole', device='cpu', show=False)
    class Stop(Exception):
        pass
    def stop(step, loss):
        if step == 7:
            raise Stop
    parts = told_model()
    with pytest.raises(Stop):
        train(parts, (vectors(), CAPTIONS), dataclasses.replace(how, log_steps=1), tmp_path/'parts', device='cpu',
            show=False, callback=stop)
    again = told_model(seed=3)
    train(again, (vectors(), CAPTIONS), how, tmp_path/'parts', device='cpu', show=False)
    for a, b in zip(whole.state_dict().values(), again.state_dict().values()):
        assert torch.equal(a, b)

def test_another_list_of_names_is_another_run(names, tmp_path):
    how = dataclasses.replace(HOW, vocabulary=names, epochs=1, warmup_steps=0)
    train(told_model(), (vectors(), CAPTIONS), how, tmp_path/'run', device='cpu', show=False)
    other = tmp_path/'other.txt'
    other.write_text('thing1\nthing2\n')
    with pytest.raises(ValueError, match='holds a run with'):
        train(told_model(), (vectors(), CAPTIONS), dataclasses.replace(how, vocabulary=str(other), epochs=2),
            tmp_path/'run', device='cpu', show=False)

def test_words_belong_to_the_caption_that_is_said():
    "With another caption of the image as target, its things are told, not those of the vector's caption"
    captions, images = ['a thing1 stands here .', 'a thing2 stands here .'], [0, 0]
    x = torch.nn.functional.normalize(torch.randn(2, 8), dim=1)
    hints = Hints(captions, Vocabulary(THINGS), none=0., false=0.)
    asked = []
    class Listening(Hints):
        def __call__(self, rows, epoch=0):
            asked.append((rows.tolist(), super().__call__(rows, epoch)))
            return asked[-1][1]
    hints.__class__ = Listening
    how = dataclasses.replace(HOW, epochs=2, warmup_steps=0, target='another', bs=2)
    train(told_model(), (x, captions, images), how, device='cpu', show=False, hints=hints)
    for rows, words in asked:
        assert words == [[f'thing{r+1}'] for r in rows]

@given(none=st.floats(0, 1), false=st.floats(0, 1), most=st.integers(1, 4), epoch=st.integers(0, 5),
    rows=st.lists(st.integers(0, len(CAPTIONS)-1), min_size=1, max_size=9))
def test_what_may_be_drawn(none, false, most, epoch, rows):
    hints = Hints(CAPTIONS, Vocabulary([*THINGS, 'stands', 'here']), none, false, most)
    drawn = hints(torch.tensor(rows), epoch)
    assert len(drawn) == len(rows)
    for r, words in zip(rows, drawn):
        assert len(words) <= most and set(words) <= set(hints.names)
        # a row draws the same by itself
        assert hints(torch.tensor([r]), epoch)[0] == words
        if false == 0:
            assert set(words) <= set(CAPTIONS[r].split())
            assert len(set(words)) == len(words)

def test_a_captioner_that_takes_no_words_is_told_none(names):
    model = told_model(0)
    assert hints_of(TrainData((vectors(), CAPTIONS), model), model, HOW) is None

def test_train_by_the_command(tmp_path, names):
    "`--hint_tokens` and `--vocabulary`: noted in the captioner's folder, told in the log"
    from capdec.store import EmbeddingStore
    records = [dict(image_id=i, caption=c, id=i) for i, c in enumerate(CAPTIONS)]
    with EmbeddingStore.create(tmp_path/'v.store', 8, dict(encoder='none', kind='text')) as s:
        s.append(records, vectors())
    args = ('train', tmp_path/'v.store', '--lm', 'mini', '--mapping_type', 'mlp', '--prefix_length', 2, '--epochs', 1,
        '--warmup_steps', 0, '--bs', 40, '--hint_tokens', 5, '--out_dir', tmp_path/'run', '--device', 'cpu')
    r = capdec(*args, '--vocabulary', names, ok=True)
    assert 'things of 20 names' in r.stderr
    assert CaptionModel.from_pretrained(tmp_path/'run'/'coco_prefix_latest').config.hint_tokens == 5
    assert 'none.txt: no such file' in capdec(*args, '--vocabulary', tmp_path/'none.txt', '--restart', ok=False).stderr
    assert '--hint_none 3' in one_line(capdec(*args, '--hint_none', 3, ok=False))[0]

def test_names_that_a_captioner_knows(tmp_path):
    "Told in training; it knows none and the captions have no nouns: no words, and no list of names that are told"
    bare = (vectors()[:3], ['runs.']*3)
    how = dataclasses.replace(HOW, epochs=1, warmup_steps=0)
    fit = lambda out, **more: train(told_model(), bare, how, tmp_path/out, device='cpu', show=False, **more)
    fit('known', names=['dog', 'zebra'])
    assert (tmp_path/'known'/'vocabulary.txt').read_text() == 'dog\nzebra\n'
    with pytest.warns(UserWarning, match='no words are told'):
        fit('none', names=[])
    said = (tmp_path/'none'/'train.log').read_text()
    assert 'told beside the vector: no words' in said and ' names' not in said
    assert not (tmp_path/'none'/'vocabulary.txt').exists()
    # from nothing that is asked for in vain
    with pytest.raises(ValueError, match='no noun comes 3 times in 3 captions; name a file with a name a line'):
        fit('new')
    # captions with nouns, of a captioner that knows none
    model = told_model()
    hints = hints_of(TrainData((vectors(), ['A dog on the grass.']*len(CAPTIONS)), model), model, HOW, [])
    assert set(hints.names) == {'dog', 'grass'}

# ---- at the door: what a captioner is told of a photo

@pytest.fixture(scope='module')
def teller(tmp_path_factory):
    "A captioner that takes words; saved"
    c = tellers.teller()
    return c, c.save(tmp_path_factory.mktemp('teller')/'captioner')

def photo():
    from skimage import data
    return data.coffee()

def test_saved_and_loaded_it_tells_the_same(teller):
    from capdec import Captioner
    c, folder = teller
    again = Captioner.from_pretrained(folder, 'cpu', dtype='float32')
    assert again.bridge.concepts.names == c.bridge.concepts.names and again.bridge.concepts.least == .2
    x = c.encoder.encode_image([photo()], show=False)
    x = torch.nn.functional.normalize(x, dim=-1)
    told, heard = c.bridge.told(x)[0], again.bridge.told(x)[0]
    assert told and [o for o, _ in told] == [o for o, _ in heard]
    assert again(photo()) == c(photo())

def test_the_caption_equals_the_steps_by_hand(teller):
    from capdec.folder import photo_vectors
    c = teller[0]
    x = photo_vectors(c, [photo()])
    words = [name for name, _ in c.bridge.concepts.concepts(x)[0]]
    by_hand = generate(c.model, c.bridge(x), normalize=False, texts=True, hints=[words])
    assert c(photo()) == by_hand[0]
    assert c(photo(), concepts=[]) == generate(c.model, c.bridge(x), normalize=False, texts=True)[0]
    mine = generate(c.model, c.bridge(x), normalize=False, texts=True, hints=[['sunflower', 'tractor']])[0]
    assert c(photo(), concepts='sunflower, tractor') == c(photo(), concepts=['sunflower', 'tractor']) == mine
    # with a vote some candidates are told, and some are not
    assert c(photo(), choose='vote', ways=['offset', 'none'], concepts='sunflower')

def test_candidates_are_told_and_not_told(teller):
    c, x = load_parts(teller[1], 'cpu'), torch.randn(3, 512, generator=torch.Generator().manual_seed(5))
    words = [['sunflower'], [], ['tractor', 'dog']]
    crossed = [c.bridge.using(o)(x) for o in ('offset', 'none')]
    told = generate(c.model, crossed[0], num_captions=2, normalize=False, hints=words)
    bare = [generate(c.model, o, num_captions=2, normalize=False) for o in crossed]
    # the first way alone tells them; where there is no other, its captions without words come too
    for ways, by_hand in ((['offset', 'none'], [a + b for a, b in zip(told, bare[1])]),
            (['offset'], [a + b*bool(w) for a, b, w in zip(told, bare[0], words)])):
        found = candidates(c, x, ways, 2, hints=words)
        assert [[o.text for o in photo_found] for photo_found in found] == [[o.text for o in p] for p in by_hand]

def test_words_for_every_photo_are_saved(teller, tmp_path):
    from capdec import Captioner
    c = teller[0]
    mine = Captioner(c.model, c.encoder, c.bridge.telling(['sunflower', 'tractor']))
    mine.save(tmp_path/'mine')
    again = Captioner.from_pretrained(tmp_path/'mine', 'cpu', dtype='float32')
    assert again.bridge.concepts == ['sunflower', 'tractor'] and again(photo()) == mine(photo())
    # saved over a captioner with a classifier: its file goes
    c.save(tmp_path/'two')
    mine.save(tmp_path/'two')
    assert not (tmp_path/'two'/'concepts.safetensors').exists()

def test_explain_shows_what_was_told(teller):
    c = teller[0]
    e = c.explain(photo())
    assert [o for o, _ in e.told] == [o for o, _ in c.bridge.told(torch.nn.functional.normalize(
        c.encoder.encode_image([photo()], show=False), dim=-1))[0]] and e.caption == c(photo())
    titles = [ax.get_title() for ax in e.plot().axes]
    assert any(t.startswith('told: ') and e.told[0][0] in t for t in titles)

def test_another_decoder_refuses_words(teller, deaf):
    from capdec import Captioner
    c, folder = deaf
    with pytest.raises(ValueError, match='takes a vector and no words'):
        c(photo(), concepts=['cup'])
    with pytest.raises(ValueError, match='takes a vector and no words'):
        Captioner(c.model, c.encoder, c.bridge.telling(['cup']))
    from capdec.concepts import ConceptHead
    with pytest.raises(ValueError, match='vectors of 4 numbers'):
        c = teller[0]
        Captioner(c.model, c.encoder, c.bridge.telling(ConceptHead(['a'], torch.zeros(1, 4), torch.zeros(1))))

def test_by_the_command(teller, deaf, tmp_path):
    from PIL import Image
    c, folder = teller
    Image.fromarray(photo()).save(tmp_path/'cup.png')
    own = capdec('caption', tmp_path/'cup.png', '--model', folder, '--dtype', 'float32', ok=True).stdout
    line = lambda *args: capdec('caption', tmp_path/'cup.png', '--model', folder, '--dtype', 'float32', '--concepts',
        *args, ok=True).stdout
    assert tidied(c(photo())) in own and tidied(c(photo(), concepts=[])) in line('none')
    assert tidied(c(photo(), concepts=['sunflower', 'tractor'])) in line('sunflower, tractor')
    (tmp_path/'names.txt').write_text('cat\ncup of coffee\nstreet\n')
    assert line(tmp_path/'names.txt')
    bad = lambda *args: one_line(capdec('caption', tmp_path/'cup.png', *args, ok=False))[0]
    assert 'gone.txt' in bad('--model', folder, '--concepts', tmp_path/'gone.txt')
    assert '--concepts' in bad('--model', deaf[1], '--concepts', 'cup')

def test_a_table_is_not_continued_with_other_words(teller, tmp_path):
    "Rows that were told something else are another captioner's"
    from PIL import Image
    Image.fromarray(photo()).save(tmp_path/'cup.png')
    args = ('caption', tmp_path/'cup.png', '--model', teller[1], '--out', tmp_path/'t.csv')
    capdec(*args, '--concepts', 'sunflower', ok=True)
    first = (tmp_path/'t.csv').read_text()
    r = capdec(*args, '--concepts', 'tractor')
    assert (tmp_path/'t.csv').read_text() == first and (r.returncode or 'overwrite' in r.stdout + r.stderr)

def test_a_restyled_captioner_still_takes_words(teller, tmp_path):
    c = teller[0]
    new = c.train_on([f'O {o}, thou art fair.' for o in ('cat', 'dog', 'boat', 'street')]*5, steps=4, show=False,
        out_dir=tmp_path/'new')
    assert new.bridge.concepts.names == c.bridge.concepts.names and new(photo(), concepts=['boat'])
    from capdec import Captioner
    assert Captioner.from_pretrained(tmp_path/'new', 'cpu').bridge.concepts.names == c.bridge.concepts.names

def mute(teller):
    "The captioner, knowing no names"
    from capdec import Captioner
    c = teller[0]
    return Captioner(c.model, c.encoder, c.bridge.telling(None))

def test_a_captioner_without_names_is_restyled_without_words(teller, monkeypatch):
    from capdec import restyle as room
    told = []
    monkeypatch.setattr(room, 'train', lambda *a, hints=None, **k: told.append(hints) or dict(steps=[]))
    for c in (mute(teller), teller[0]):
        room.restyle(c, [f'The dog {i} sleeps in a boat.' for i in range(12)], steps=1, mix=0, show=False)
    none, some = told
    assert none.names == [] and none(torch.arange(3)) == [[], [], []]
    assert some.names == tellers.NAMES and some.none == .3

def test_names_are_found_wherever_the_captioner_lies(teller, tmp_path, monkeypatch):
    "In a folder of training, at home, on the hub"
    from capdec.start import starting_model
    shutil.copytree(teller[1], tmp_path/'run'/'coco_prefix_latest')
    monkeypatch.setenv('HOME', str(tmp_path))
    monkeypatch.setattr('capdec.official._hub_checkpoint', lambda *a: None)
    for room in ('folder', 'model'):
        monkeypatch.setattr(f'capdec.{room}.hub_folder', lambda *a: teller[1])
    assert starting_model('') == (None, None)
    for name in (str(teller[1]), '~/run/coco_prefix_latest', '~/run', str(tmp_path/'run'), 'me/teller'):
        model, was = starting_model(name)
        assert model.config.hint_tokens and was.bridge.names == tellers.NAMES, name
    mute(teller).save(tmp_path/'mute')
    assert starting_model(str(tmp_path/'mute'))[1].bridge.names == []

def test_training_that_goes_on_tells_the_names_it_knows(teller, tmp_path):
    texts = tmp_path/'t.txt'
    texts.write_text('Runs.\nSleeps.\nHow lovely!\n')
    mute(teller).save(tmp_path/'mute')
    shutil.copytree(teller[1], tmp_path/'old'/'coco_prefix_latest')
    fit = lambda start, out: capdec('train', '--data', texts, '--clip_model_type', 'mini', '--pretrain_weights', start,
        '--epochs', 1, '--bs', 3, '--warmup_steps', 0, '--device', 'cpu', '--out_dir', tmp_path/out, ok=True).stderr
    assert 'told beside the vector: things of 6 names' in fit(tmp_path/'old', 'a')
    assert (tmp_path/'a'/'vocabulary.txt').read_text().splitlines() == tellers.NAMES
    said = fit(tmp_path/'mute', 'b')
    assert 'no words are told' in said and 'told beside the vector: no words' in said
    assert not (tmp_path/'b'/'vocabulary.txt').exists()

def test_a_damaged_classifier_is_told(teller, tmp_path):
    import shutil
    shutil.copytree(teller[1], tmp_path/'c')
    f = tmp_path/'c'/'concepts.safetensors'
    f.write_bytes(f.read_bytes()[:100])
    from capdec import Captioner
    with pytest.raises(ValueError, match='concepts.safetensors'):
        Captioner.from_pretrained(tmp_path/'c', 'cpu')

def test_words_of_yours_are_explained(monkeypatch, teller):
    "What the decoder is told is what the explanation says, and what its likely words are drawn with"
    from skimage import data as photos
    seen = []
    monkeypatch.setattr('capdec.explain.likely_words', lambda c, x, **told: seen.append(told) or [[]])
    assert teller[0].explain(photos.coffee(), hints=[['rocket']]).told == [('rocket', 1.)]
    assert teller[0].explain(photos.coffee(), hints=[[]]).told == []
    assert seen == [dict(hints=[['rocket']]), {}]
