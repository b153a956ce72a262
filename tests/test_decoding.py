"capdec.decoding: the official texts, the plain algorithm against the batched cached one, every option"
import dataclasses,json

import numpy as np
import pytest
import torch
from hypothesis import given,settings,strategies as st
from safetensors.torch import load_file

import capdec.decoding
from capdec.config import Limits
from capdec.core import package_file
from capdec.decoding import MAY_COME_TWICE,Caption,beam_search,drawn,generate,greedy,sample
from capdec.folder import captioner_folder
from capdec.model import CapDecConfig,CaptionModel,gpt2_tokenizer,load_official,train_tokenizer
from capdec.studies.bench import plain_beam_search

TOK = train_tokenizer(['a brown dog runs along the beach.', 'a red bus.'], 300)

def tiny(lm='gpt2', seed=0, v=None, h=16, k=3, sharp=4.):
    "A random captioner in float64, so that sums in another order cannot swap two beams"
    from transformers import AutoConfig,AutoModelForCausalLM
    torch.manual_seed(seed)
    sizes = {
        'gpt2': dict(n_embd=h, n_layer=2, n_head=2, n_positions=64),
        'llama': dict(hidden_size=h, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64),
        'opt': dict(hidden_size=h, ffn_dim=32, num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=64,
        word_embed_proj_dim=h),
        'gpt_neox': dict(hidden_size=h, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=64),
        'bloom': dict(hidden_size=h, n_layer=2, n_head=2),
        'gemma2': dict(hidden_size=h, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8, max_position_embeddings=64),
        'mistral': dict(hidden_size=h, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=64)}
    cfg = AutoConfig.for_model(lm, vocab_size=v or len(TOK), bos_token_id=0, eos_token_id=0, pad_token_id=0,
        **sizes[lm])
    net = AutoModelForCausalLM.from_config(cfg)
    model = CaptionModel(CapDecConfig('mlp', k, k, 12), net, TOK).eval().double()
    # less like guessing
    with torch.no_grad():
        model.lm.get_output_embeddings().weight.mul_(sharp)
    return model

def same(found, reference):
    assert [o.tokens for o in found] == [t for t,_ in reference]
    assert np.allclose([o.score for o in found], [s for _,s in reference], atol=1e-5)

@pytest.mark.parametrize('name', ['mlp','transformer'])
def test_official_texts(golden, shared, name):
    info = json.loads((golden/'golden.json').read_text())['results'][name]
    model = load_official(golden/f'official_{name}.pt', gpt2_tokenizer(shared/'data/gpt2_bpe'), lm_heads=4)
    query = torch.tensor(np.load(golden/f'official_{name}.npz')['query'])
    for size in (8, 3, 1):
        found = generate(model, query, batch_size=size, num_captions=5, stop_ids=[13])
        assert [[o.text for o in caps] for caps in found] == [[o.strip() for o in caps] for caps in info['beam']]
    assert generate(model, query, 'greedy', texts=True, stop_ids=[13, 764]) == [o.strip() for o in info['greedy']]

@pytest.mark.parametrize('seed', range(6))
@pytest.mark.parametrize('beam_size,max_length', [(1, 9), (2, 1), (3, 12), (5, 20), (8, 7)])
def test_equals_reference(seed, beam_size, max_length):
    model = tiny(seed=seed)
    g = torch.Generator().manual_seed(seed)
    # many stops: beams finish at different steps
    stops = torch.randperm(len(TOK), generator=g)[:(4, 20, 60)[seed%3]].tolist()
    prefix = 3*torch.randn(4, 3, 16, generator=g, dtype=torch.float64)
    found = beam_search(model, prefix, beam_size, max_length=max_length, stop_ids=stops)
    for p,caps in zip(prefix, found):
        same(caps, plain_beam_search(model, p, beam_size, max_length, stops))

@pytest.mark.parametrize('lm', ['gpt2','llama','opt','gpt_neox','bloom','gemma2','mistral'])
def test_equals_reference_for_other_language_models(lm):
    model = tiny(lm)
    prefix = torch.randn(3, 3, 16, dtype=torch.float64)
    stops = list(range(0, 300, 9))
    # longer than the room that is reserved at once
    found = beam_search(model, prefix, 4, max_length=25, stop_ids=stops)
    for p,caps in zip(prefix, found):
        same(caps, plain_beam_search(model, p, 4, 25, stops))

@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6), b=st.integers(1, 6), beam_size=st.integers(1, 6), max_length=st.integers(1, 15),
    temperature=st.sampled_from([0.5, 1., 2.]), n_stops=st.integers(0, 120))
def test_properties(seed, b, beam_size, max_length, temperature, n_stops):
    model = tiny(seed=seed%5)
    g = torch.Generator().manual_seed(seed)
    stops = torch.randperm(len(TOK), generator=g)[:n_stops].tolist()
    prefix = 3*torch.randn(b, 3, 16, generator=g, dtype=torch.float64)
    found = beam_search(model, prefix, beam_size, max_length=max_length, temperature=temperature, stop_ids=stops)
    for p,caps in zip(prefix, found):
        same(caps, plain_beam_search(model, p, beam_size, max_length, stops, temperature))
        assert [o.score for o in caps] == sorted((o.score for o in caps), reverse=True)
        for o in caps:
            assert 1 <= len(o.tokens) == len(o.token_logprobs) <= max_length
            assert not set(o.tokens[:-1]) & set(stops) and (o.tokens[-1] in stops or len(o.tokens) == max_length)
            assert abs(np.mean(o.token_logprobs) - o.score) < 1e-9

def test_one_beam_is_greedy():
    for seed in range(5):
        model = tiny(seed=seed)
        prefix = 3*torch.randn(6, 3, 16, dtype=torch.float64)
        kw = dict(max_length=15, stop_ids=list(range(0, 300, 11)))
        assert [o[0].tokens for o in greedy(model, prefix, **kw)] == [o[0].tokens for o in beam_search(model, prefix, 1,
            **kw)]

@pytest.mark.parametrize('method', ['beam','greedy','sample'])
def test_batch_is_one_by_one(method):
    model = tiny()
    x = torch.randn(7, 12)
    kw = dict(method=method, max_length=12, num_captions=1 if method == 'greedy' else 3,
        stop_ids=list(range(0, 300, 7)))
    runs = [generate(model, x, batch_size=size, generator=torch.Generator().manual_seed(5), **kw) for size in (1, 2, 7)]
    for other in runs[1:]:
        assert [[o.tokens for o in caps] for caps in other] == [[o.tokens for o in caps] for caps in runs[0]]

def test_token_logprobs_are_the_models():
    model = tiny()
    x = torch.randn(2, 12).double()
    for method in ('beam','greedy','sample'):
        for v,caps in zip(x, generate(model, x, method, max_length=10, normalize=False)):
            ids = torch.tensor([caps[0].tokens])
            with torch.no_grad():
                lp = model.logits(v[None].float(), ids).log_softmax(-1).gather(-1, ids[..., None])[0, :, 0]
            assert np.allclose(lp.tolist(), caps[0].token_logprobs, atol=1e-5)

def test_normalisation():
    "Vectors come to unit length as the config says, unless told otherwise"
    model = tiny()
    x = torch.randn(3, 12)
    unit = torch.nn.functional.normalize(x, dim=-1)
    tokens = lambda x,**kw: [o[0].tokens for o in generate(model, x, max_length=6, **kw)]
    assert tokens(5*x) == tokens(x) == tokens(unit, normalize=False) != tokens(50*x, normalize=False)
    model.config = dataclasses.replace(model.config, normalize_prefix=False)
    assert tokens(50*x) == tokens(50*x, normalize=False) and tokens(50*x, normalize=True) == tokens(unit)

@pytest.mark.parametrize('method', ['beam','greedy','sample'])
def test_lengths(method):
    model = tiny()
    x,stops = torch.randn(5, 12),list(range(0, 300, 3))
    for low,high in [(0, 4), (6, 9), (7, 7)]:
        caps = [o for c in generate(model, x, method, min_length=low, max_length=high, stop_ids=stops) for o in c]
        assert all(max(low, 1) <= len(o.tokens) <= high for o in caps)
        assert all(len(o.tokens) == high or o.tokens[-1] in stops for o in caps)

@pytest.mark.parametrize('method', ['beam','greedy','sample'])
@pytest.mark.parametrize('n', [1, 2, 3])
def test_no_repeats(method, n):
    model = tiny(sharp=8.)
    grams = lambda t: list(zip(*(t[i:] for i in range(n))))
    x,kw = torch.randn(5, 12),dict(max_length=25, stop_ids=[])
    free = [grams(o.tokens) for c in generate(model, x, 'greedy', **kw) for o in c]
    # this model does repeat itself
    assert any(len(set(o)) < len(o) for o in free)
    # 'Ġa' after a blank, 'a' at the beginning: the same to a reader
    spelled = lambda t: [o.lstrip('Ġ').lower() for o in TOK.convert_ids_to_tokens(t)]
    caps = [grams(spelled(TOK('a dog')['input_ids'] + o.tokens)) for c in generate(model, x, method, no_repeat_ngram=n,
        prompt='a dog', **kw) for o in c]
    assert all(len(set(o)) == len(o) for o in caps)

def test_no_repeats_by_default():
    "The captioner's own setting holds unless the caller has another"
    model = tiny(sharp=8.)
    x,kw = torch.randn(5, 12),dict(method='greedy', max_length=25, stop_ids=[], texts=True)
    free,never = generate(model, x, **kw),generate(model, x, no_repeat_ngram=2, **kw)
    assert free != never
    model.config = dataclasses.replace(model.config, no_repeat_ngram=2)
    assert generate(model, x, **kw) == never and generate(model, x, no_repeat_ngram=0, **kw) == free
    with pytest.raises(ValueError, match='no_repeat_ngram -1: at least 0'):
        dataclasses.replace(model.config, no_repeat_ngram=-1)

def dev_vectors(n):
    return load_file(package_file('data','flickr8k_dev_vectors.safetensors'))['image'][:n].float()

def content(text):
    "The words of a caption that may come once, a plural counted with its singular"
    words = [o.removesuffix('s') for o in text.lower().replace('.', ' ').split()]
    return [o for o in words if len(o) > 2 and o not in MAY_COME_TWICE]

@pytest.mark.parametrize('method', ['beam','greedy','sample'])
def test_no_thing_twice(method):
    model = CaptionModel.from_pretrained(captioner_folder('mini'), 'cpu')
    x = dev_vectors(100)
    whole = {o[1:].removesuffix('s').lower() for o in model.raw_tokenizer.get_vocab() if o[:1] == 'Ġ'}
    # words of one token each
    said = lambda found: [[w for w in content(o) if w in whole] for o in found]
    twice = lambda found: [o for o in said(found) if len(set(o)) < len(o)]
    kw = dict(texts=True, max_length=20, generator=torch.Generator().manual_seed(0) if method == 'sample' else None)
    free = generate(model, x, method, no_repeat_words=False, **kw)
    assert len(twice(free)) >= 3
    for prompt in ('', 'A dog'):
        assert not twice(generate(model, x, method, no_repeat_words=True, prompt=prompt, **kw))

def test_no_thing_twice_by_default():
    "The captioner's own setting holds unless the caller has another"
    model = CaptionModel.from_pretrained(captioner_folder('mini'), 'cpu')
    x,kw = dev_vectors(60),dict(method='greedy', texts=True)
    found = {o: generate(model, x, no_repeat_words=o, **kw) for o in (False, True)}
    assert found[False] != found[True]
    for o in (False, True):
        model.config = dataclasses.replace(model.config, no_repeat_words=o)
        assert generate(model, x, **kw) == found[o]

def test_prompt():
    "A prompt is what the model has already said: a forced first part of the caption"
    model = tiny()
    x,ids = torch.randn(2, 12),TOK('a brown dog')['input_ids']
    with torch.no_grad():
        prefix = model.prefix(x)
    longer = torch.cat([prefix, model.lm.get_input_embeddings()(torch.tensor(ids)).detach().expand(2, -1, -1)], 1)
    a = beam_search(model, prefix, 3, max_length=8, prompt='a brown dog ')
    b = beam_search(model, longer, 3, max_length=8)
    assert [[o.tokens for o in c] for c in a] == [[o.tokens for o in c] for c in b]
    assert all(o.text.startswith('a brown dog') for c in a for o in c)
    assert all(o[0].text.startswith('a red') for m in ('greedy','sample') for o in generate(model, x, m, prompt='a red',
        max_length=5))

def test_room():
    "Never more tokens than the language model has positions"
    model = tiny(k=3)
    assert model.room == 61
    for prompt in ('', 'a dog '*10):
        for m in ('beam','greedy','sample'):
            n = len(TOK(prompt.rstrip())['input_ids'])
            assert len(generate(model, torch.randn(1, 12), m, max_length=500, stop_ids=[],
                prompt=prompt)[0][0].tokens) == 62 - n
    with pytest.raises(ValueError, match='has room for 61'):
        generate(model, torch.randn(1, 12), prompt='a dog '*100)

def test_sampling_by_generator():
    model = tiny()
    x = torch.randn(4, 12)
    draw = lambda seed,**kw: [[o.tokens for o in c] for c in generate(model, x, 'sample', num_captions=3, max_length=8,
        generator=torch.Generator().manual_seed(seed), **kw)]
    assert draw(1) == draw(1) != draw(2)
    g = torch.Generator().manual_seed(1)
    assert len({tuple(o.tokens) for o in sample(model, model.prefix(x).detach(), 5, generator=g, max_length=8)[0]}) > 1
    assert [c[0] for c in draw(1, top_p=1e-9)] == [c[0].tokens for c in generate(model, x, 'greedy', max_length=8)]
    assert [c[0] for c in draw(1, temperature=1e-4)] == [c[0].tokens for c in generate(model, x, 'greedy',
        max_length=8)]

def test_nucleus_frequencies():
    "First tokens of many samples against the model's own odds, cut to the nucleus"
    model = tiny(sharp=30.)
    with torch.no_grad():
        prefix = model.prefix(torch.randn(1, 12))
        p,order = model.head(model.lm.base_model(inputs_embeds=prefix).last_hidden_state[0,
            -1]).softmax(-1).sort(descending=True)
    keep = (p.cumsum(0) - p) < 0.6
    expected = torch.zeros(len(TOK), dtype=p.dtype).index_put((order[keep],), p[keep]/p[keep].sum())
    caps = sample(model, prefix, 4000, top_p=0.6, max_length=1, generator=torch.Generator().manual_seed(0))[0]
    found = torch.tensor([o.tokens[0] for o in caps]).bincount(minlength=len(TOK))/4000
    assert (found[expected == 0] == 0).all() and (found - expected).abs().max() < 0.04

def test_training_mode_is_kept():
    model = tiny().train()
    generate(model, torch.randn(2, 12), max_length=3)
    assert model.training and model.lm.training
    model.eval()
    generate(model, torch.randn(2, 12), max_length=3)
    assert not model.training

def test_half_precision():
    "bfloat16 weights and autocast run, with scores near the exact ones"
    model = tiny().float()
    x = torch.randn(3, 12)
    exact = [o[0].score for o in generate(model, x, max_length=8)]
    with torch.autocast('cpu', torch.bfloat16):
        assert np.allclose([o[0].score for o in generate(model, x, max_length=8)], exact, atol=0.1)
    model.bfloat16()
    assert np.allclose([o[0].score for o in generate(model, x, max_length=8)], exact, atol=0.1)

def test_bad_input():
    model = tiny()
    x = torch.randn(2, 12)
    for kw,message in [(dict(method='best'), 'use beam'), (dict(num_captions=0), 'at least 1'),
            (dict(beam_size=0), 'beam_size 0'), (dict(max_length=0), 'max_length 0'),
            (dict(min_length=9, max_length=5), 'min_length 9'), (dict(temperature=0), 'temperature 0'),
            (dict(no_repeat_ngram=-1), 'no_repeat_ngram -1'), (dict(method='sample', top_p=1.5), 'top_p 1.5'),
            (dict(method='greedy', num_captions=2), 'greedy search finds one'),
            (dict(num_captions='2'), "num_captions '2': a whole number"), (dict(num_captions=1.5), 'num_captions 1.5'),
            (dict(beam_size=2.5), 'beam_size 2.5'), (dict(max_words=3.5), 'max_words 3.5'),
            (dict(min_words=100), 'min_words 100: a caption has'),
            (dict(batch_size=-1), 'batch_size -1: at least 1'), (dict(batch_size=2.5), 'batch_size 2.5'),
            (dict(method='sample', max_length=2.5), 'max_length 2.5'),
            (dict(method='sample', uniform=torch.rand(1, 1, 67)), r'uniform of shape \(1, 1, 67\): \(2, 1, 67\)')]:
        with pytest.raises(ValueError, match=message):
            generate(model, x, **kw)
    with pytest.raises(ValueError, match=r'takes \(b, 12\)'):
        generate(model, torch.randn(2, 13))
    assert generate(model, x[:0]) == [] and generate(model, x[:0], 'sample') == []
    assert isinstance(generate(model, x, max_length=3)[0][0], Caption) and isinstance(generate(model, x, max_length=3,
        texts=True)[0], str)

def words(text):
    return sum(any(c.isalnum() for c in w) for w in text.split())

@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 5), least=st.integers(0, 5), more=st.integers(0, 3),
    prompt=st.sampled_from(['', 'a', 'two brown']), method=st.sampled_from(['beam','greedy','sample']))
def test_words_are_counted(seed, least, more, prompt, method):
    model, most = tiny(seed=seed), max(2, least + more)
    g = torch.Generator().manual_seed(seed)
    for o in generate(model, torch.randn(3, 12, generator=g), method, prompt=prompt, min_words=min(least, most),
            max_words=most, max_length=40, generator=g if method == 'sample' else None):
        assert words(o[0].text) <= most
        assert words(o[0].text) >= least or len(o[0].tokens) >= 40

def test_words_that_cannot_be():
    model, x = tiny(), torch.randn(1, 12)
    for kw, says in ((dict(min_words=5, max_words=3), 'min_words 5, max_words 3'), (dict(min_words=-1), 'min_words -1'),
            (dict(max_words=1, prompt='a red bus'), 'the prompt alone has 3 words')):
        with pytest.raises(ValueError, match=says):
            generate(model, x, **kw)

def test_no_bounds_on_words_change_nothing():
    model, x = tiny(), torch.randn(2, 12, generator=torch.Generator().manual_seed(0))
    assert generate(model, x, max_words=50, max_length=12, texts=True) == generate(model, x, max_length=12, texts=True)

def half(model):
    "The same captioner in float32, every weight of which fits into 16 bits: on x86 they are packed"
    model = model.half().float()
    assert all(torch.equal(o, o.half().float()) for o in model.parameters())
    return model

def both_ways(monkeypatch, *args, **kwargs):
    "What `generate` gives by the quick path and by the library's own"
    found = []
    for fast in (True, False):
        monkeypatch.setattr(capdec.decoding, 'FAST', fast)
        found.append(generate(*args, **kwargs))
    return found

def same_captions(ours, theirs, ties=0):
    """Captions are equal but for a share of `ties` of them, and where they are, so are their scores

    Two sums of the same numbers in another order differ in the last digit, and a number that is drawn, or a beam that
    is as good as another, may lie between them.
    """
    pairs = [(a, b) for o,t in zip(ours, theirs, strict=True) for a,b in zip(o, t, strict=True)]
    equal = [(a.score, b.score) for a,b in pairs if a.tokens == b.tokens]
    assert len(pairs) - len(equal) <= ties*len(pairs)
    assert np.allclose(*zip(*equal), atol=1e-4)

@pytest.mark.parametrize('config', [{}, dict(scale_attn_by_inverse_layer_idx=True), dict(scale_attn_weights=False),
    dict(activation_function='relu'), dict(tie_word_embeddings=False)])
@pytest.mark.parametrize('packed', [False, True])
def test_gpt2_read_directly_equals_the_library(config, packed, monkeypatch):
    from transformers import GPT2Config,GPT2LMHeadModel
    torch.manual_seed(1)
    net = GPT2LMHeadModel(GPT2Config(vocab_size=len(TOK), n_embd=16, n_layer=3, n_head=2, n_positions=64,
        bos_token_id=0, eos_token_id=0, **config))
    model = CaptionModel(CapDecConfig('mlp', 3, 3, 12), net, TOK).eval()
    for o in model.parameters():
        o.data.mul_(5)
    if packed:
        model = half(model)
    x = torch.randn(4, 12, generator=torch.Generator().manual_seed(2))
    for m in ('beam','greedy'):
        same_captions(*both_ways(monkeypatch, model, x, m, prompt='a brown', max_length=15))

@pytest.mark.parametrize('lm', ['llama','gemma2','mistral'])
def test_the_quick_cache_equals_the_library(lm, monkeypatch):
    "Other language models are read through the library either way; their cache is not"
    model,x = tiny(lm),torch.randn(4, 12, generator=torch.Generator().manual_seed(2))
    kw = dict(max_length=20, stop_ids=list(range(0, 300, 9)))
    same_captions(*both_ways(monkeypatch, model, x, num_captions=4, **kw))
    u = torch.rand(4, 3, 20, generator=torch.Generator().manual_seed(3))
    same_captions(*both_ways(monkeypatch, model, x, 'sample', 3, uniform=u, **kw))

@pytest.fixture(scope='module')
def bundled():
    "The bundled captioner and what is bundled for it: 500 photos as vectors, and the demo's photos, across its bridge"
    from capdec.captioner import Captioner
    from capdec.core import demo_photos
    c = Captioner.from_pretrained('mini', 'cpu')
    with torch.inference_mode():
        x = c.bridge(c.model.unit(dev_vectors(None)))
        return c.model,torch.cat([x, c.embed(demo_photos())])

@pytest.mark.parametrize('method,step,kw', [('beam', 3, {}), ('greedy', 2, {}), ('sample', 5, dict(num_captions=2)),
    ('beam', 5, dict(num_captions=5, min_words=8, max_words=12, prompt='a photo of', no_repeat_ngram=0))])
def test_quick_and_library_give_the_same_captions(bundled, method, step, kw, monkeypatch):
    "The switch `FAST` changes how long a caption takes, and nothing else"
    model,x = bundled[0],bundled[1][::step]
    assert capdec.decoding.FAST and capdec.decoding.is_plain_gpt2(model.lm) and len(bundled[1]) > 500
    if method == 'sample':
        kw = dict(kw, uniform=torch.rand(len(x), 2, 67, generator=torch.Generator().manual_seed(0)))
    same_captions(*both_ways(monkeypatch, model, x, method, normalize=False, **kw), ties=.02)

@pytest.mark.parametrize('method', ['beam','greedy','sample'])
def test_limits_as_a_record_or_loose(method):
    model,x = tiny(),torch.randn(3, 12, generator=torch.Generator().manual_seed(0))
    draw = lambda **kw: generate(model, x, method, generator=torch.Generator().manual_seed(1), **kw)
    assert draw(limits=Limits(max_length=7, prompt='a red')) == draw(max_length=7, prompt='a red')
    # what is loose replaces what the record says
    assert draw(limits=Limits(max_length=7, prompt='a red'), max_length=4) == draw(max_length=4, prompt='a red')
    for f in (generate, {'beam': beam_search, 'greedy': greedy, 'sample': sample}[method]):
        with pytest.raises(TypeError, match='max_lenght') as e:
            f(model, x if f is generate else model.prefix(x), max_lenght=4)
        assert '\n' not in str(e.value)
    with pytest.raises(TypeError, match='top_p: not an option here' if method != 'sample' else 'beam_size: not an'):
        draw(**{'beam_size': 3} if method == 'sample' else {'top_p': .5})

def test_a_photo_draws_the_same_numbers_wherever_it_is():
    from PIL import Image
    red,blue = (Image.new('RGB', (4, 4), o) for o in ('red', 'blue'))
    draw = drawn(3, 2, 'sample', max_length=5)
    assert torch.equal(draw(red), drawn(3, 2, 'sample', Limits(max_length=5))(red)) and draw(red).shape == (2, 5)
    other = drawn(4, 2, 'sample', max_length=5)
    assert not torch.equal(draw(red), draw(blue)) and not torch.equal(draw(red), other(red))
    # the same pixels in another shape are another photo
    assert not torch.equal(draw(red), draw(red.resize((2, 8))))
    for kw,says in [(dict(seed=-1), 'seed -1: at least 0'), (dict(method='greedy'), 'greedy finds the same captions'),
            (dict(generator=torch.Generator()), 'give one of the two'), (dict(num_captions=0), 'num_captions 0'),
            (dict(max_length=1.5), 'max_length 1.5')]:
        with pytest.raises(ValueError, match=says):
            drawn(**{'seed': 0, 'method': 'sample', **kw})

def test_captions_follow_the_weights():
    "What decoding keeps of a language model is made again after a step of training and when a state is loaded"
    model = half(tiny())
    x = torch.randn(3, 12, generator=torch.Generator().manual_seed(2))
    before,state = generate(model, x, max_length=8),{k: v.clone() for k,v in model.state_dict().items()}
    model.train()
    opt = torch.optim.AdamW(model.parameters(), lr=.1, fused=True)
    model(x, *model.tokenize(['a red bus.']*3)).backward()
    opt.step()
    after = generate(model, x, max_length=8)
    assert [o[0].score for o in after] != [o[0].score for o in before]
    # never captioned before, so nothing old can be kept
    twin = tiny().float()
    twin.load_state_dict(model.state_dict())
    assert [o[0].tokens for o in after] == [o[0].tokens for o in generate(twin, x, max_length=8)]
    model.load_state_dict(state)
    again = generate(model, x, max_length=8)
    assert [o[0].tokens for o in again] == [o[0].tokens for o in before] and np.allclose([o[0].score for o in again],
        [o[0].score for o in before], atol=1e-6)
