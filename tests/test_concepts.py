"Words beside the vector: drawn in training by seed, epoch and row, kept with a run, and copied by the decoder"
import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from capdec.concepts import Hints, Vocabulary
from capdec.config import CapDecConfig, TrainConfig
from capdec.decoding import generate
from capdec.model import CaptionModel
from capdec.training import TrainData, hints_of, train
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
