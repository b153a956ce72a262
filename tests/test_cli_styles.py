"`capdec styles`: what `caption --style` has kept, listed and deleted"
import pytest
from PIL import Image
from skimage import data as photos

from shell import capdec, one_line

FAST = ('--device', 'cpu', '--beam_size', 1)
pytestmark = pytest.mark.usefixtures('one_encoder')

@pytest.fixture
def photo(tmp_path):
    Image.fromarray(photos.coffee()).resize((96, 64)).save(tmp_path/'a.jpg')
    return tmp_path/'a.jpg'

def test_styles_are_listed_and_deleted(photo, tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path/'cache'))
    monkeypatch.setattr('capdec.restyle.restyle', lambda captioner, text, folder, steps, mix: captioner.save(folder))
    assert capdec('styles', ok=True).stdout == ''
    poems = tmp_path/'poems.txt'
    poems.write_text('Lo, the hound doth run.\n')
    for more in ([], ['--style_mix', .5]):
        capdec('caption', photo, '--style', poems, *more, *FAST, ok=True)
    listed = capdec('styles', ok=True).stdout.splitlines()
    assert [o.split(':')[0] for o in listed] == ['poems', 'poems-mix-0.5']
    assert f'mini on {poems}' in listed[0] and str(tmp_path/'cache'/'capdec'/'styles'/'poems') in listed[0]
    assert capdec('styles', 'poems-mix-0.5', ok=True).stdout.splitlines() == listed[1:]
    # another file of that name does not take its place
    (tmp_path/'more').mkdir()
    (tmp_path/'more'/'poems.txt').write_text('Ahoy!\n')
    r = capdec('caption', photo, '--style', tmp_path/'more'/'poems.txt', *FAST, ok=False)
    assert 'capdec styles poems --delete' in one_line(r)[-1]
    # what an interrupted run has left goes, too
    (tmp_path/'cache'/'capdec'/'styles'/'.poems-01234567').mkdir()
    assert capdec('styles', 'poems', '--delete', ok=True).stdout.startswith('deleted poems: ')
    assert [o.name for o in (tmp_path/'cache'/'capdec'/'styles').iterdir()] == ['poems-mix-0.5']
    for args, says in ((['--delete'], '--delete: name the styles'), (['poems'], 'poems: is not kept'),
            (['../styles', '--delete'], 'is not kept'), (['poems-mix-0.5', 'gone', '--delete'], 'gone: is not kept')):
        assert says in one_line(capdec('styles', *args, ok=False))[0]
    assert (tmp_path/'cache'/'capdec'/'styles'/'poems-mix-0.5').exists()
    # and the name is free
    capdec('caption', photo, '--style', tmp_path/'more'/'poems.txt', *FAST, ok=True)
