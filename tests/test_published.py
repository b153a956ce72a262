"Published weights: from the hub, else from Drive, whole or not at all; both stand on this machine"
import hashlib
import shutil

import pytest
import torch

from capdec import official
from capdec.captioner import Captioner
from capdec.core import package_file
from capdec.embedding import import_clip, load_encoder
from capdec.model import CapDecConfig, CaptionModel, gpt2_tokenizer, to_official, train_tokenizer
from capdec.official import PUBLISHED, find_weights, load_checkpoint
from loopback import Loopback
from shell import capdec
from towers import save_hf

@pytest.fixture
def hub(tmp_path, monkeypatch):
    "A hub and a Drive on this machine; caches are empty"
    from huggingface_hub import constants
    s = Loopback(tmp_path/'hub')
    (tmp_path/'hub').mkdir()
    monkeypatch.setattr(constants, 'ENDPOINT', s.url)
    where = f'{s.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}'
    monkeypatch.setattr(constants, 'HUGGINGFACE_CO_URL_TEMPLATE', where)
    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', False)
    monkeypatch.setattr('huggingface_hub.hf_api.api.endpoint', s.url)
    # made at its first use, and kept
    monkeypatch.setattr('transformers.utils.hub._hf_api', None)
    # its newer transport, which needs servers of its own
    monkeypatch.setattr(constants, 'HF_HUB_DISABLE_XET', True)
    monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(tmp_path/'cache'))
    monkeypatch.setattr(constants, 'HF_TOKEN_PATH', str(tmp_path/'token'))
    monkeypatch.setattr(official, 'DRIVE_URL', f'{s.url}/uc?id={{}}&export=download')
    monkeypatch.setattr(official, '_PAUSE', 0)
    for k, v in dict(CAPDEC_WEIGHTS=str(tmp_path/'weights'), no_proxy='127.0.0.1,localhost',
            HF_HUB_OFFLINE='0').items():
        monkeypatch.setenv(k, v)
    monkeypatch.delenv('CAPDEC_HUB', raising=False)
    # its client waits a second before it goes on
    monkeypatch.setattr('huggingface_hub.file_download.time.sleep', lambda s: None)
    yield s
    s.shutdown()
    s.server_close()

@pytest.fixture(scope='module')
def small(tmp_path_factory):
    "A small official checkpoint of CapDec's kind, its model and its tokenizer's folder"
    from transformers import GPT2Config, GPT2LMHeadModel
    torch.manual_seed(0)
    d = tmp_path_factory.mktemp('small')
    tok = train_tokenizer(['A dog runs.', 'A cat sleeps on the bed.']*5, 300)
    lm = GPT2LMHeadModel(GPT2Config(vocab_size=len(tok), n_embd=64, n_layer=1, n_head=1, n_positions=48,
        bos_token_id=None, eos_token_id=None))
    m = CaptionModel.create(CapDecConfig('transformer', 4, 4, 640, num_layers=1), (lm, tok)).eval()
    torch.save(to_official(m), d/'model.pt')
    tok.save_pretrained(d/'gpt2')
    return d, m

def sha(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()

def publish(monkeypatch, name, path, **change):
    "Let a published name stand for another file"
    from dataclasses import replace
    known = replace(PUBLISHED[name], **dict(sha256=sha(path) if PUBLISHED[name].sha256 else '') | change)
    monkeypatch.setitem(PUBLISHED, name, known)
    return known

def same(m, n):
    x = torch.randn(2, 640, generator=torch.Generator().manual_seed(1))
    return torch.equal(m.prefix(x), n.prefix(x))

# ---- where each is

def test_where_each_published_checkpoint_is():
    at = {k.removeprefix('capdec-coco-'): (o.hub.removeprefix('johko/capdec'), bool(o.drive))
        for k, o in PUBLISHED.items()}
    assert at == {'0.0': ('_0', True), '0.0001': ('', True), '0.001': ('_001', True), '0.005': ('_005', False),
        '0.015': ('_015', True), '0.025': ('_025', False), '0.05': ('_05', False), '0.1': ('', True), '2.5': ('', True)}
    assert official.DRIVE_FOLDER == '17axuxZ90uRD3-ohhXBhXvQJf1R6kolVw'
    assert all(k == f'capdec-coco-{o.noise_variance}' for k, o in PUBLISHED.items())

@pytest.mark.parametrize('name', PUBLISHED)
def test_each_is_fetched_from_where_it_is(hub, small, monkeypatch, name):
    "... the hub first, then Drive; the next time the network is not needed"
    d, m = small
    o = publish(monkeypatch, name, d/'model.pt')
    if o.hub:
        hub.add(o.hub, model__pt=d/'model.pt')
    if o.drive:
        hub.drive[o.drive] = d/'model.pt'
    got = find_weights(name)
    assert got.read_bytes() == (d/'model.pt').read_bytes()
    assert bool(hub.asked('/uc?')) == (not o.hub)
    hub.shutdown()
    assert find_weights(name) == got
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_OFFLINE', True)
    model = load_checkpoint(name, d/'gpt2', lm_heads=1)
    assert same(model, m) and (model.config.encoder, model.config.noise_variance) == ('RN50x4', o.noise_variance)

def test_without_the_hub_drive_is_asked(hub, small, monkeypatch):
    d, m = small
    o = publish(monkeypatch, 'capdec-coco-0.015', d/'model.pt')
    hub.drive[o.drive] = d/'model.pt'
    assert find_weights('capdec-coco-0.015').parent.name == 'weights'
    hub.drive.clear()
    with pytest.raises(FileNotFoundError) as e:
        find_weights('capdec-coco-0.0')
    text = str(e.value)
    assert 'the Hugging Face hub: RepositoryNotFoundError' in text and 'Google Drive: ' in text and '404' in text
    assert 'johko/capdec_0/resolve/main/model.pt where there is a network' in text and '\n' not in text
    assert not list((d.parent).glob('*.part'))

def test_another_file_than_the_published_one(hub, small, monkeypatch):
    d, _ = small
    publish(monkeypatch, 'capdec-coco-0.015', d/'model.pt', sha256='0'*64, drive='')
    hub.add('johko/capdec_015', model__pt=d/'model.pt')
    with pytest.raises(FileNotFoundError, match=r'hub sent a damaged file \(its SHA-256 is not 00000000'):
        find_weights('capdec-coco-0.015')
    # the repository's own name: told before anything is fetched
    hub.log.clear()
    with pytest.raises(ValueError, match='johko/capdec_015: model.pt is not the file that was published'):
        find_weights('johko/capdec_015')
    assert not hub.asked('/cdn/')

# ---- the hub

def test_any_repository_with_one_checkpoint(hub, small, monkeypatch, tmp_path):
    d, m = small
    (tmp_path/'README.md').write_text('---\nlicense: mit\n---\nClipCap\n')
    hub.add('someone/clipcap', coco_weights__pt=d/'model.pt', README__md=tmp_path/'README.md')
    assert same(load_checkpoint('someone/clipcap', d/'gpt2', lm_heads=1), m)
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_OFFLINE', True)
    assert same(load_checkpoint('someone/clipcap', d/'gpt2', lm_heads=1), m)
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_OFFLINE', False)
    hub.add('someone/two', a__pt=d/'model.pt', b__pt=d/'model.pt')
    with pytest.raises(ValueError, match='someone/two: holds 2 checkpoints, a.pt, b.pt; choose one, `hf download') as e:
        load_checkpoint('someone/two', d/'gpt2')
    assert '\n' not in str(e.value)
    for repo in ('someone/nothing', 'someone/empty'):
        hub.repos.setdefault('someone/empty', {'README.md': tmp_path/'README.md'})
        with pytest.raises(FileNotFoundError, match=repo if 'nothing' in repo else 'config.json: missing') as e:
            load_checkpoint(repo)
        assert '\n' not in str(e.value)

def test_convert_takes_a_repository(hub, small, tmp_path, monkeypatch):
    d, m = small
    monkeypatch.chdir(tmp_path)
    hub.add('johko/capdec_05', model__pt=d/'model.pt')
    r = capdec('convert', 'johko/capdec_05', '--tokenizer', d/'gpt2', '--lm_heads', 1, ok=True)
    assert 'captioner: capdec_05' in r.stdout
    assert CaptionModel.from_pretrained('capdec_05').config.noise_variance == .05

def test_a_download_that_breaks_off_goes_on(hub, small, monkeypatch):
    d, _ = small
    # a part of this size is kept, 10 MB as a rule
    monkeypatch.setattr('huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE', 500)
    hub.add('johko/capdec_05', model__pt=d/'model.pt')
    size, cdn = (d/'model.pt').stat().st_size, f'/cdn/{sha(d/"model.pt")}'
    hub.fail(cdn, ('cut', 1000), ('cut', 2000), ())
    assert find_weights('capdec-coco-0.05').stat().st_size == size
    ranges = [o.split()[-1] for o in hub.asked('GET /cdn/')]
    assert [o for o in ranges if o.startswith('bytes')] == ['bytes=1000-', 'bytes=3000-']

def test_a_server_that_cannot_go_on_starts_again(hub, small):
    d, _ = small
    hub.add('johko/capdec_05', model__pt=d/'model.pt')
    hub.fail(f'/cdn/{sha(d/"model.pt")}', ('cut', 1000), ('no ranges',))
    assert sha(find_weights('capdec-coco-0.05')) == sha(d/'model.pt')

def test_a_damaged_file_is_fetched_once_more(hub, small, tmp_path):
    d, _ = small
    hub.add('johko/capdec_05', model__pt=d/'model.pt')
    cdn = f'/cdn/{sha(d/"model.pt")}'
    hub.fail(cdn, ('flip',), ())
    # the hub's listing tells the hash
    assert sha(find_weights('johko/capdec_05')) == sha(d/'model.pt')
    shutil.rmtree(tmp_path/'cache')
    hub.fail(cdn, ('flip',))
    with pytest.raises(FileNotFoundError, match='model.pt could not be downloaded .*sent a damaged file') as e:
        find_weights('johko/capdec_05')
    assert '\n' not in str(e.value) and not list((tmp_path/'cache').rglob('model.pt'))
    # a published name goes by the file's own checksums, where no hash is known
    with pytest.raises(FileNotFoundError, match='the Hugging Face hub sent a damaged file'):
        find_weights('capdec-coco-0.05')

@pytest.mark.parametrize('code', [401, 403, 404, 500])
def test_the_hub_says_no(hub, small, code, tmp_path):
    d, _ = small
    hub.add('johko/capdec_05', model__pt=d/'model.pt')
    hub.fail(f'/cdn/{sha(d/"model.pt")}', ('status', code))
    with pytest.raises(FileNotFoundError, match=f'capdec-coco-0.05: not on this machine .*{code}') as e:
        find_weights('capdec-coco-0.05')
    assert '\n' not in str(e.value)
    hub.fail('/api/models/johko/capdec_05', ('status', code))
    with pytest.raises((FileNotFoundError, ValueError)) as e:
        load_checkpoint('johko/capdec_05')
    assert 'johko/capdec_05' in str(e.value) and '\n' not in str(e.value)

def test_offline_nothing_is_asked(hub, small, monkeypatch):
    d, _ = small
    hub.add('johko/capdec_05', model__pt=d/'model.pt')
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_OFFLINE', True)
    with pytest.raises(FileNotFoundError, match='HF_HUB_OFFLINE forbids the network'):
        find_weights('capdec-coco-0.05')
    with pytest.raises(FileNotFoundError, match='johko/capdec_05: neither a folder here .*offline mode is enabled'):
        load_checkpoint('johko/capdec_05')
    assert not hub.log

def test_pushed_and_loaded_back(hub, tmp_path, monkeypatch):
    "A captioner goes to the hub and comes back, also offline; without its token it does not"
    c = Captioner.from_pretrained('mini', 'cpu')
    hub.asked_for_token = 'Bearer hf_secret'
    with pytest.raises(ValueError, match='me/mine: could not be uploaded .*hf auth login'):
        c.push_to_hub('me/mine', token='hf_wrong')
    assert c.push_to_hub('me/mine', token='hf_secret', private=True).startswith(f'{hub.url}/me/mine/commit/')
    assert 'Captioner.from_pretrained("me/mine")' in hub.repos['me/mine']['README.md'].read_text()
    hub.asked_for_token = None
    assert hub.asked('PUT /upload/')
    x = torch.randn(1, 512)
    for offline in (False, True):
        monkeypatch.setattr('huggingface_hub.constants.HF_HUB_OFFLINE', offline)
        back = Captioner.from_pretrained('me/mine', 'cpu')
        assert torch.equal(back.model.prefix(x), c.model.prefix(x)) and back.bridge.kind == c.bridge.kind
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_OFFLINE', False)
    # again, over what is there
    c.model.push_to_hub('me/mine', token='hf_secret')

# ---- Google Drive

@pytest.fixture
def drive(hub, small):
    d, _ = small
    o = PUBLISHED['capdec-coco-0.1']
    hub.drive[o.drive] = d/'model.pt'
    hub.id = o.drive
    return hub

def test_drives_form_is_filled_in(drive, small):
    drive.pages[drive.id] = 'form'
    assert sha(find_weights('capdec-coco-0.1')) == sha(small[0]/'model.pt')
    assert all('uuid=5d1c' in o and 'confirm=t' in o for o in drive.asked('/download?'))

def test_drives_quota(drive, tmp_path):
    drive.pages[drive.id] = 'quota'
    with pytest.raises(FileNotFoundError, match='Google Drive sent a page instead of the file .its download quota'):
        find_weights('capdec-coco-0.1')
    drive.pages[drive.id] = 'form again'
    with pytest.raises(FileNotFoundError, match='Google Drive asks again and again'):
        find_weights('capdec-coco-0.1')
    assert not list((tmp_path/'weights').iterdir())

def test_drive_says_no(drive):
    drive.fail('/uc', ('status', 403))
    with pytest.raises(FileNotFoundError, match='could not be downloaded .Google Drive: .*the server answers 403') as e:
        find_weights('capdec-coco-0.1')
    assert 'save it as' in str(e.value) and '\n' not in str(e.value)

@pytest.mark.parametrize('page', [None, 'form'])
def test_what_drive_broke_off_goes_on(drive, small, tmp_path, monkeypatch, page):
    if page:
        drive.pages[drive.id] = page
    path, size = f'/{"download" if page else "uc"}', (small[0]/'model.pt').stat().st_size
    # the first look, then two tries
    monkeypatch.setattr(official, '_TRIES', 2)
    drive.fail(path, ('cut', 100), ('cut', 1000), ('cut', 3000), ('cut', 9))
    with pytest.raises(FileNotFoundError, match='it broke off'):
        find_weights('capdec-coco-0.1')
    assert [o.name for o in (tmp_path/'weights').iterdir()] == ['capdec-coco-0.1.pt.part']
    assert (tmp_path/'weights'/'capdec-coco-0.1.pt.part').stat().st_size == 4000
    # the next run goes on
    drive.fail(path, ())
    drive.log.clear()
    assert find_weights('capdec-coco-0.1').stat().st_size == size
    assert [o for o in drive.log if 'bytes=' in o][0].endswith('bytes=4000-')
    assert sha(find_weights('capdec-coco-0.1')) == sha(small[0]/'model.pt')
    assert [o.name for o in (tmp_path/'weights').iterdir()] == ['capdec-coco-0.1.pt']

def test_drive_starts_again_where_it_cannot_go_on(drive, small, tmp_path):
    drive.fail('/uc', ('cut', 100), ('cut', 1000), ('no ranges',))
    assert sha(find_weights('capdec-coco-0.1')) == sha(small[0]/'model.pt')

def test_half_of_another_file_is_thrown_away(drive, small, tmp_path):
    (tmp_path/'weights').mkdir()
    (tmp_path/'weights'/'capdec-coco-0.1.pt.part').write_bytes(b'PK' + bytes(5000))
    assert sha(find_weights('capdec-coco-0.1')) == sha(small[0]/'model.pt')
    # one that is longer than the file
    (tmp_path/'weights'/'capdec-coco-0.1.pt').unlink()
    (tmp_path/'weights'/'capdec-coco-0.1.pt.part').write_bytes(bytes(10_000_000))
    assert sha(find_weights('capdec-coco-0.1')) == sha(small[0]/'model.pt')

def test_a_damaged_file_of_drive_is_not_kept(drive, tmp_path):
    drive.fail('/uc', (), ('flip',))
    with pytest.raises(FileNotFoundError, match='Google Drive sent a damaged file'):
        find_weights('capdec-coco-0.1')
    assert not list((tmp_path/'weights').iterdir())

# ---- encoders, tokenizers, and all together

def openai(hub, monkeypatch, tmp_path, path):
    "Let OpenAI's RN50x4 be this file"
    clip = import_clip()
    where = f'/clip/models/{sha(path)}/RN50x4.pt'
    hub.files[where] = path
    monkeypatch.setitem(clip.clip._MODELS, 'RN50x4', f'{hub.url}{where}')
    monkeypatch.setenv('HOME', str(tmp_path))
    return where

@pytest.fixture
def tower(tmp_path, monkeypatch):
    "A tiny CLIP with vectors of 640 numbers"
    from capdec.studies.bench import TOWERS
    from towers import random_clip
    monkeypatch.setitem(TOWERS, '640', dict(embed_dim=640, transformer_width=64, transformer_heads=1,
        transformer_layers=1))
    model = random_clip('640').float()
    torch.save(model.state_dict(), tmp_path/'RN50x4.pt')
    return tmp_path/'RN50x4.pt'

def test_clips_own_download(hub, tower, tmp_path, monkeypatch):
    where = openai(hub, monkeypatch, tmp_path, tower)
    hub.fail(where, ('cut', 1000), ())
    with pytest.raises(OSError, match='RN50x4: its weights are not on this machine and could not be downloaded') as e:
        load_encoder('RN50x4', 'cpu')
    assert '\n' not in str(e.value)
    with pytest.warns(UserWarning, match='does not match; re-downloading'):
        got = load_encoder('RN50x4', 'cpu')
    assert torch.equal(got.encode_text(['a dog']), load_encoder(tower, 'cpu').encode_text(['a dog']))
    hub.shutdown()
    load_encoder('RN50x4', 'cpu')

def test_the_download_of_transformers(hub, tmp_path, monkeypatch):
    save_hf(tmp_path/'clip')
    hub.add_folder('openai/clip-tiny', tmp_path/'clip')
    want = load_encoder(tmp_path/'clip', 'cpu').encode_text(['a dog'])
    got = load_encoder('openai/clip-tiny', 'cpu')
    assert torch.equal(got.encode_text(['a dog']), want) and got.name == 'openai/clip-tiny'
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_OFFLINE', True)
    assert torch.equal(load_encoder('openai/clip-tiny', 'cpu').encode_text(['a dog']), want)
    with pytest.raises(OSError, match='openai/other: not on this machine'):
        load_encoder('openai/other', 'cpu')

def test_a_photo_with_published_weights(hub, small, tower, tmp_path, monkeypatch):
    "Checkpoint from the hub, encoder from OpenAI, GPT-2's tokenizer from a repository that has moved; then offline"
    from PIL import Image
    d, _ = small
    publish(monkeypatch, 'capdec-coco-0.015', d/'model.pt')
    hub.add('johko/capdec_015', model__pt=d/'model.pt')
    hub.add_folder('openai-community/gpt2', d/'gpt2')
    hub.moved['gpt2'] = 'openai-community/gpt2'
    openai(hub, monkeypatch, tmp_path, tower)
    Image.new('RGB', (64, 48), 'navy').save(tmp_path/'a.jpg')
    said = set()
    for offline in (False, True):
        monkeypatch.setattr('huggingface_hub.constants.HF_HUB_OFFLINE', offline)
        for model in ('johko/capdec_015', 'capdec-coco-0.015'):
            r = capdec('caption', tmp_path/'a.jpg', '--model', model, '--device', 'cpu', ok=True)
            said.add(r.stdout)
        log, hub.log = hub.log, []
        assert offline == (not log)
    assert len(said) == 1 and said.pop().startswith(f'{tmp_path}/a.jpg\t')
