"`capdec data`: the known data sets, and what a local copy of one holds"
from shell import capdec, one_line

def test_one_data_set_or_all():
    assert 'Flickr8k, Karpathy' in capdec('data', 'flickr8k', ok=True).stdout
    every = capdec('data', ok=True).stdout
    assert 'Flickr8k, Karpathy' in every and every.count('\n') > 10
    assert capdec('data', '--name', 'flickr8k', ok=True).stdout == capdec('data', 'flickr8k', ok=True).stdout

def test_a_copy_that_lacks_what_it_should_hold(tmp_path):
    (tmp_path/'ids').mkdir()
    assert 'no lists of ids' in one_line(capdec('data', 'snowboard', tmp_path/'ids', ok=False))[0]
    assert '--name' in one_line(capdec('data', '--path', tmp_path/'ids', ok=False))[0]
    assert 'nothing' in one_line(capdec('data', 'nothing', ok=False))[0]
