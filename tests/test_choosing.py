"Choosing among captions: agreement is CIDEr, whatever the captions"
import random

import numpy as np
import pytest

from capdec.choosing import Choice, Rarity, agreement, caption_merits, choose, ngrams, parse_choice
from capdec.decoding import Caption
from capdec.evaluation import caption_words

WORDS = 'a a a the dog cat man red blue runs sits on in grass street two teapot'.split()

def salad(r, most=14):
    return ' '.join(r.choice(WORDS) for _ in range(r.randint(0, most)))

@pytest.mark.parametrize('seed', range(10))
def test_agreement_is_the_toolbox_s_cider(seed):
    "Words said again and again, empty captions, unlike lengths"
    from pycocoevalcap.cider.cider_scorer import CiderScorer
    r = random.Random(seed)
    hyps = [salad(r) for _ in range(40)]
    refs = [[salad(r) or 'a' for _ in range(r.randint(1, 5))] for _ in hyps]
    scorer = CiderScorer()
    for h, rs in zip(hyps, refs):
        scorer += (' '.join(caption_words(h)), [' '.join(caption_words(o)) for o in rs])
    _, theirs = scorer.compute_score()
    rarity = Rarity.count(refs)
    ours = [agreement([h], rs, rarity).mean() for h, rs in zip(hyps, refs)]
    assert np.abs(np.array(ours) - theirs).max() < 1e-4 and max(theirs) > 0

def test_the_rest_of_the_heap_changes_nothing():
    "A pair's agreement does not depend on what else is compared"
    r = random.Random(1)
    heap = [salad(r) for _ in range(30)]
    rarity = Rarity.count(heap)
    whole = agreement(heap, heap, rarity)
    for i, j in ((0, 1), (7, 22), (29, 3)):
        assert abs(agreement([heap[i]], [heap[j]], rarity)[0, 0] - whole[i, j]) < 1e-4

def test_frequencies_survive_the_disk(tmp_path):
    r = random.Random(2)
    groups = [[salad(r) for _ in range(3)] for _ in range(50)]
    rarity = Rarity.count(groups)
    back = Rarity.load(rarity.save(tmp_path/'r.safetensors'))
    keys = np.concatenate([k for k, _ in ngrams([c for g in groups for c in g] + ['never seen before'])[0]])
    assert np.array_equal(back(keys), rarity(keys))

@pytest.mark.parametrize('text', ['vote', 'retrieved', 'logprob', 'vote:1,retrieved:2,logprob:0.5'])
def test_the_order_is_that_of_the_merits(text):
    r = random.Random(4)
    found = [Caption(salad(r), -r.random(), []) for _ in range(25)]
    memory, rarity = [salad(r) for _ in range(9)], Rarity.count([salad(r) for _ in range(200)])
    merit = dict()
    for c, m in zip(found, caption_merits(found, rarity, parse_choice(text), memory)):
        merit[c.text] = max(m, merit.get(c.text, -9e9))
    ordered = [merit[c.text] for c in choose(found, rarity, parse_choice(text), memory)]
    assert ordered == sorted(ordered, reverse=True) and len(ordered) == len(merit)

def test_weights_add_up():
    "The merit of two reasons is the sum of both"
    r = random.Random(5)
    found = [Caption(salad(r), -r.random(), []) for _ in range(9)]
    rarity = Rarity.count([salad(r) for _ in range(99)])
    of = lambda **k: caption_merits(found, rarity, Choice(**(dict(vote=0, retrieved=0) | k)), ['a dog'])
    assert np.allclose(of(vote=2, logprob=3), 2*of(vote=1) + 3*of(logprob=1), atol=1e-4)
