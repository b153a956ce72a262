"`capdec convert`: out to official names, by word or by flag, and what has no official form"
import pytest

from shell import capdec, one_line

pytestmark = pytest.mark.usefixtures('one_encoder')

@pytest.mark.parametrize('more,made', [((), 'deaf.safetensors'), (('b.safetensors',), 'b.safetensors'),
    (('--out', 'c.safetensors'), 'c.safetensors')])
def test_the_file_is_named_or_takes_its_name(tmp_path, deaf, more, made):
    capdec('convert', deaf[1], *more, cwd=tmp_path, ok=True)
    assert (tmp_path/made).stat().st_size > 10_000_000 and len(list(tmp_path.glob('*.safetensors'))) == 1

def test_a_decoder_that_is_told_words_has_no_official_form(tmp_path):
    assert 'hint_tokens' in one_line(capdec('convert', 'mini', cwd=tmp_path, ok=False))[0]
    assert not list(tmp_path.iterdir())

@pytest.mark.parametrize('dtype,says', [('foo', "dtype 'foo'"), ('float16', 'official weights stay')])
def test_types_that_official_weights_do_not_have(tmp_path, dtype, says):
    r = capdec('convert', 'mini', 'x.safetensors', '--dtype', dtype, cwd=tmp_path, ok=False)
    assert len(one_line(r)) == 1 and says in r.stderr and not list(tmp_path.iterdir())
