"A memory of any size: in pieces, from a file, and by faiss"
import sys
import warnings

import pytest
import torch

from capdec import index as room
from capdec.bridges import Bridge
from capdec.candidates import materials_of, pool_notes
from capdec.captioner import Captioner
from capdec.config import Candidates
from capdec.core import demo_photos
from capdec.folder import Packed, Parts, load_memory
from capdec.index import INDEX_FILE, CaptionIndex, Mapped, exact_nearest, in_memory, recall
from capdec.noise import normalize, project_on_memory
from capdec.store import EmbeddingStore

D, N = 24, 3000

@pytest.fixture(scope='module')
def clouds():
    "Captions in clusters, as sentences about like things are, and questions beside them"
    g = torch.Generator().manual_seed(1)
    middle = torch.randn(60, D, generator=g)
    memory = normalize(middle[torch.randint(60, (N,), generator=g)] + .6*torch.randn(N, D, generator=g))
    asks = normalize(memory[::30] + .25*torch.randn(100, D, generator=g))
    return memory, asks

def store_of(path, vectors, captions=None, encoder='mini@2'):
    with EmbeddingStore.create(path, vectors.shape[1], dict(kind='text', encoder=encoder), dtype='float32') as s:
        for i in range(0, len(vectors), 700):
            rows = [dict(image_id=j, caption=captions[j] if captions else f'caption {j}', id=j)
                for j in range(i, min(i+700, len(vectors)))]
            s.append(rows, vectors[i:i+700])
    return s

@pytest.fixture
def small(monkeypatch):
    "A few hundred vectors are many, and pieces hold a hundred"
    monkeypatch.setattr(room, 'IN_MEMORY', 200)
    monkeypatch.setattr(room, '_PIECE', 100)

@pytest.fixture
def by_faiss(small, monkeypatch):
    "... and faiss is asked"
    pytest.importorskip('faiss', reason="faiss is not installed: pip install '.[faiss]'")
    monkeypatch.setattr(room, 'APPROXIMATE_FROM', 1000)

@pytest.mark.parametrize('piece', [1, 7, 100, 5000])
@pytest.mark.parametrize('k', [1, 30, 4000])
def test_pieces_of_any_size_find_the_same(clouds, monkeypatch, piece, k):
    memory, x = clouds
    monkeypatch.setattr(room, '_PIECE', piece)
    memory = memory[:500] if piece == 1 else memory
    want = (x[:9]@memory.T).topk(min(k, len(memory)))
    cosines, rows = exact_nearest(x[:9], memory, k)
    assert torch.allclose(cosines, want.values, atol=1e-5) and recall(rows, want.indices) > .999

def test_no_more_than_a_piece_is_held(clouds, small):
    "Each row is read once, a piece at a time, whatever the number of questions"
    memory, x = clouds
    read = []
    def rows(at):
        read.append(len(range(N)[at]) if isinstance(at, slice) else len(at))
        return memory[at]
    mapped = Mapped(rows, N, D)
    exact_nearest(x, mapped, 5)
    assert max(read) == 100 and sum(read) == N
    read.clear()
    project_on_memory(x, mapped, chunk=100)
    assert max(read) == 100 and sum(read) == N

def test_a_bridge_is_the_same_from_a_file(clouds, small, tmp_path):
    "All ways of the memory, the sentences, and what is noted"
    memory, x = clouds
    store_of(tmp_path/'m.store', memory*2)
    mapped = in_memory(EmbeddingStore(tmp_path/'m.store'))
    assert isinstance(mapped, Mapped) and torch.allclose(mapped.half().float(), memory, atol=1e-3)
    names = [f's{i}' for i in range(N)]
    one, two = Bridge('memory', memory=memory, sentences=names), Bridge('memory', memory=mapped, sentences=names)
    for way in ('memory', 'nearest', 'none+nearest:0.3'):
        assert torch.allclose(one.using(way)(x), two.using(way)(x), atol=1e-5), way
    assert [[s for s, _ in o] for o in one.nearest(x, 3)] == [[s for s, _ in o] for o in two.nearest(x, 3)]
    assert two.materials()['memory'].shape == (1024, D)

def test_a_memory_from_a_store(clouds, small, tmp_path):
    "In the machine's memory up to the border that `in_memory` has, with unit length, and not normalised twice"
    from types import SimpleNamespace
    memory, tower = clouds[0], SimpleNamespace(dim=D, name='mini@2')
    for n, kind in ((200, torch.Tensor), (201, Mapped)):
        store = store_of(tmp_path/f'{n}.store', memory[:n]*3)
        vectors = load_memory(tmp_path/f'{n}.store', tower)[1]
        assert isinstance(vectors, kind) and torch.equal(vectors[:], in_memory(store)[:])
    with EmbeddingStore.create(tmp_path/'c.store', 0, dict(kind='text')) as s:
        s.append([dict(image_id=i, caption='A dog.', id=i) for i in range(300)])
    with pytest.raises(ValueError, match='c.store: holds captions without vectors'):
        load_memory(tmp_path/'c.store', tower)

def test_a_captioner_remembers_a_large_store(small, tmp_path):
    "Vectors stay in the store, and in the captioner's folder; captions are the same"
    mini = Captioner.from_pretrained('mini', device='cpu')
    b, photos = mini.bridge, demo_photos()[:2]
    store_of(tmp_path/'m.store', b.memory, b.sentences)
    sentences, vectors = load_memory(tmp_path/'m.store', mini.encoder)
    assert isinstance(vectors, Mapped) and sentences == b.sentences
    mini.remember(tmp_path/'m.store', use='offset+memory')
    mini.pool = Candidates('vote', ['offset', 'nearest'])
    mini.save(tmp_path/'c')
    back = Captioner.from_pretrained(tmp_path/'c', device='cpu')
    assert type(mini.bridge.memory) is type(back.bridge.memory) is Mapped
    room.IN_MEMORY = 1 << 18
    packed, plain = (Captioner.from_pretrained('mini', device='cpu') for _ in range(2))
    plain.remember(b.sentences, b.memory[:], use='offset+memory')
    assert isinstance(packed.bridge.memory, Packed) and isinstance(plain.bridge.memory, torch.Tensor)
    how = dict(choose='vote', ways=['offset', 'nearest'])
    assert mini(photos) == back(photos) == packed(photos, **how) == plain(photos, **how)
    words = {'concepts', 'concepts.names'}
    assert set(materials_of(mini)) == set(materials_of(back)) == {'memory', 'offset'} | words
    with pytest.warns(UserWarning, match='2 different sentences'):
        styled = mini.train_on(['A dog barks.', 'A cat sleeps.']*20, steps=1, show=False)
    assert styled.bridge.memory is mini.bridge.memory

def test_without_faiss_search_is_exact_and_told_once(clouds, monkeypatch):
    memory, x = clouds
    monkeypatch.setitem(sys.modules, 'faiss', None)
    room._faiss.cache_clear()
    try:
        with pytest.warns(UserWarning, match=r'exact and slow.*extra \[faiss\]'):
            found = CaptionIndex(memory, approximate_from=1000).search(x, 9)
        with warnings.catch_warnings(action='error'):
            assert torch.equal(found[1], CaptionIndex(memory, approximate_from=1000).search(x, 9)[1])
            assert not CaptionIndex(memory).approximate
    finally:
        room._faiss.cache_clear()
    assert torch.equal(found[1], exact_nearest(x, memory, 9)[1])

def test_few_captions_never_ask_for_faiss(clouds, monkeypatch):
    monkeypatch.setattr(room, '_faiss', lambda: pytest.fail('asked'))
    assert len(CaptionIndex(clouds[0]).search(clouds[1], 3)[1]) == 100


# ---- with faiss

def test_all_lists_are_exact_search(clouds, by_faiss):
    memory, x = clouds
    index = CaptionIndex(memory)
    index.lists().nprobe = index.lists().nlist
    for k in (1, 9, 30, 2990, 5000):
        cosines, rows = index.search(x, k)
        want = exact_nearest(x, memory, k)
        assert torch.allclose(cosines, want[0], atol=1e-5) and recall(rows, want[1]) > .999
    assert index.search(x[:0], 3)[1].shape == (0, 3) and index.search(x, 0)[1].shape == (100, 0)

def test_nearly_all_is_found_in_few_lists(clouds, by_faiss):
    "At least 95 of 100, with the cosines that exact search gives"
    memory, x = clouds
    index = CaptionIndex(memory)
    cosines, rows = index.search(x, 30)
    want = exact_nearest(x, memory, 30)
    assert recall(rows, want[1]) >= .95 and index.lists().nprobe < index.lists().nlist
    assert torch.allclose(cosines, (x[:, None]*memory[rows]).sum(2), atol=1e-5)
    assert (cosines.diff(dim=1) <= 0).all()
    # each photo for itself
    assert torch.equal(torch.cat([index.search(o[None], 30)[1] for o in x[:20]]), rows[:20])

def test_an_index_is_made_once(clouds, by_faiss, tmp_path, monkeypatch):
    "By the same seed the same; kept in the store; made again for other captions, or where the file is of no use"
    memory, x = clouds
    store_of(tmp_path/'m.store', memory)
    made = []
    centres = CaptionIndex._centres
    monkeypatch.setattr(CaptionIndex, '_centres', lambda self: made.append(1) or centres(self))
    load = lambda: CaptionIndex(in_memory(EmbeddingStore(tmp_path/'m.store')))
    first = load()
    rows = first.search(x, 9)[1]
    first.search(x, 3)
    assert len(made) == 1 and torch.equal(load().search(x, 9)[1], rows) and len(made) == 1
    assert torch.equal(CaptionIndex(memory).search(x, 9)[1], rows) and len(made) == 2
    file = tmp_path/'m.store'/INDEX_FILE
    from safetensors.torch import load_file, save_file
    kept = load_file(file)
    assert kept['lists'].shape == (N,) and EmbeddingStore(tmp_path/'m.store').verify()
    for k, v in dict(lists=kept['lists'][:9].clone(), look=torch.tensor(0), centres=kept['centres'][:, :3].clone(),
            digits=kept['digits']+1).items():
        save_file(kept | {k: v}, file)
        made.clear()
        assert torch.equal(load().search(x, 9)[1], rows) and len(made) == 1, k
    save_file(kept | dict(lists=kept['lists']*0 + len(kept['centres'])), file)
    assert torch.equal(load().search(x, 9)[1], rows)
    file.write_bytes(b'x'*99)
    assert torch.equal(load().search(x, 9)[1], rows)

def test_captions_by_faiss(small, tmp_path, monkeypatch):
    "The bundled captioner with its memory in a store: nearest sentences, a vote, what is noted"
    pytest.importorskip('faiss', reason="faiss is not installed: pip install '.[faiss]'")
    mini = Captioner.from_pretrained('mini', device='cpu')
    # an eighth of its memory: to make the lists of all takes half a minute
    sentences, memory = mini.bridge.sentences[::8], mini.bridge.memory[:][::8]
    mini.remember(sentences, memory)
    want = mini.nearest(demo_photos(), 5)
    # from here on, so that the first search is exact
    monkeypatch.setattr(room, 'APPROXIMATE_FROM', 1000)
    store_of(tmp_path/'m.store', memory, sentences)
    mini.remember(tmp_path/'m.store', use='offset+nearest')
    found = mini.nearest(demo_photos(), 5)
    same = [len({s for s, _ in a} & {s for s, _ in b}) for a, b in zip(want, found)]
    assert mini.bridge.index.approximate and sum(same) >= .95*5*len(same)
    assert mini.bridge.using('nearest').index is mini.bridge.index
    words = pool_notes(Captioner.from_pretrained('mini', device='cpu'))
    assert set(words) == {'concepts'} and pool_notes(mini) == dict(search='faiss') | words
    assert pool_notes(Parts(mini.model, mini.encoder, mini.bridge.using('none'))) == words
    # told nothing
    mute = Captioner(mini.model, mini.encoder, mini.bridge.telling(None))
    assert pool_notes(mute) == dict(search='faiss')
    mini.save(tmp_path/'c')
    back = Captioner.from_pretrained(tmp_path/'c', device='cpu')
    assert back(demo_photos()[0]) == mini(demo_photos()[0]) and (tmp_path/'c'/INDEX_FILE).exists()
    # saved again, with other captions: the lists that lie there are not taken for theirs
    mini.remember(mini.bridge.sentences[::-1], mini.bridge.memory[:].flip(0), use='offset+nearest')
    mini.save(tmp_path/'c')
    back = Captioner.from_pretrained(tmp_path/'c', device='cpu')
    assert back(demo_photos()[0]) == mini(demo_photos()[0])

def test_a_folder_that_cannot_be_written_to(clouds, by_faiss, tmp_path):
    (tmp_path/'file').write_text('')
    assert len(CaptionIndex(clouds[0], tmp_path/'file').search(clouds[1], 3)[1]) == 100
