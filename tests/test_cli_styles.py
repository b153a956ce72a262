"`capdec styles`: what `caption --style` has kept, listed and deleted"
import re

import pytest
from PIL import Image
from skimage import data as photos

from shell import FAST, capdec, one_line

pytestmark = pytest.mark.usefixtures('one_encoder')

@pytest.fixture
def photo(tmp_path):
    Image.fromarray(photos.coffee()).resize((96, 64)).save(tmp_path/'a.jpg')
    return tmp_path/'a.jpg'

def test_restyling_tells_what_it_does(photo, tmp_path, monkeypatch):
    "In the shell, where the output goes into a file: what it is given, its loss, and when it ends"
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path/'cache'))
    monkeypatch.setattr('capdec.restyle._SECONDS', 0)
    (tmp_path/'poems.txt').write_text(''.join(f'Lo, the hound {i} doth run.\n' for i in range(12)))
    r = capdec('caption', photo, '--style', tmp_path/'poems.txt', '--style_steps', 45, *FAST, ok=True)
    lines = [o.split(': ', 1)[1] for o in one_line(r)]
    assert lines[1] == '12 sentences, 45 steps of 32, on cpu'
    told = [re.fullmatch(r'step (\d+) of 45: loss \d+\.\d+ nats per token; \d+ s(, about \d+ s to go)?', o)
        for o in lines[3:6]]
    assert [(o[1], bool(o[2])) for o in told] == [('20', True), ('40', True), ('45', False)]
    assert 'kept in' in lines[6]

def test_styles_are_listed_and_deleted(photo, tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path/'cache'))
    monkeypatch.setattr('capdec.restyle.restyle', lambda captioner, text, folder, steps, mix: captioner.save(folder))
    # a program that reads the list reads nothing
    r = capdec('styles', ok=True)
    assert r.stdout == '' and 'no style is kept yet' in one_line(r)[0]
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
