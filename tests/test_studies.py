"Studies: each starts as a command, and what they share does not lose a row"
import json
import multiprocessing
import runpy
import sys
import warnings

import pytest
import torch

from capdec.studies.common import Rows, kept
from conftest import ROOT

STUDIES = sorted(p.stem for p in (ROOT/'capdec'/'studies').glob('*.py') if p.stem not in ('__init__', 'common'))

def test_all_studies_are_here():
    assert STUDIES == ['across', 'bench', 'demo_record', 'fairness', 'flickr8k', 'noise_sweep', 'recipe',
        'restyle_sweep', 'styles', 'tuning']

@pytest.mark.parametrize('name', STUDIES)
def test_a_study_is_a_command(name, monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', [f'{name}.py', '--help'])
    with pytest.raises(SystemExit) as e, warnings.catch_warnings():
        # imported before, and now run
        warnings.simplefilter('ignore', RuntimeWarning)
        runpy.run_module(f'capdec.studies.{name}', run_name='__main__', alter_sys=True)
    assert not e.value.code
    told = capsys.readouterr().out
    assert told.startswith('usage:') and 'show this help message' in told

def test_a_stopped_study_goes_on(tmp_path):
    rows, made = Rows(tmp_path/'rows.json', command='x'), []
    def make(i):
        if i == 2 and len(made) < 3:
            made.append('stopped')
            raise KeyboardInterrupt
        made.append(i)
        return dict(value=i)
    with pytest.raises(KeyboardInterrupt):
        for i in range(4):
            rows.add(dict(i=i), lambda: make(i), 'runs')
    for i in range(4):
        Rows(tmp_path/'rows.json', command='x').add(dict(i=i), lambda: make(i), 'runs')
    assert made == [0, 1, 'stopped', 2, 3]
    assert json.loads((tmp_path/'rows.json').read_text()) == dict(command='x', runs=[dict(i=i, value=i)
        for i in range(4)])

def _add(path, i):
    Rows(path).add(f'row {i}', lambda: dict(value=i), show=False)

def test_rows_of_other_processes_are_kept(tmp_path):
    rows = Rows(tmp_path/'rows.json')
    for i in range(3):
        p = multiprocessing.get_context('spawn').Process(target=_add, args=(tmp_path/'rows.json', i))
        p.start()
        p.join()
        rows.add(f'own {i}', lambda: dict(value=-i), show=False)
    assert set(rows.data['rows']) == {f'{who} {i}' for who in ('row', 'own') for i in range(3)}

def test_a_stage_that_fails_leaves_no_file(tmp_path):
    for name in ('a.json', 'a.safetensors'):
        with pytest.raises(ZeroDivisionError):
            kept(tmp_path/name, lambda: 1/0)
        with pytest.raises((TypeError, AttributeError, ValueError)):
            # neither JSON nor a dict of tensors
            kept(tmp_path/name, lambda: {'x': object()})
    assert list(tmp_path.iterdir()) == []
    x = kept(tmp_path/'a.safetensors', lambda: dict(x=torch.arange(6.).view(2, 3).T))['x']
    assert torch.equal(x, torch.tensor([[0., 3], [1, 4], [2, 5]]))

def test_saved_commands_exist():
    "The command in a file of results is one that runs"
    import re
    for p in [*(ROOT/'nbs'/'data').glob('*.json'), *(ROOT/'capdec'/'data').glob('*.json')]:
        found = json.loads(p.read_text(encoding='utf-8'))
        command = found.get('command', '') if isinstance(found, dict) else ''
        if m := re.match(r'python -m capdec\.studies\.(\w+)', command):
            assert m[1] in STUDIES, (p.name, command)
        elif m := re.match(r'python (tools/\S+)', command):
            assert (ROOT/m[1]).exists(), (p.name, command)

def test_rows_of_two_encoders_do_not_meet(tmp_path):
    "Also where the file does not name one; what has no rows of an encoder is nobody's"
    from capdec.studies.common import Rows
    path = tmp_path/'r.json'
    Rows(path, encoder='mini@2').note(rows=[1])
    assert Rows(path, encoder='mini@2').data['rows'] == [1] and Rows(path).data['encoder'] == 'mini@2'
    Rows(tmp_path/'old.json').note(rows=[1])
    for file, theirs in ((path, 'mini@2'), (tmp_path/'old.json', 'an encoder that it does not name')):
        with pytest.raises(ValueError, match=f'{file.name}: its rows were measured with {theirs}, and this is another'):
            Rows(file, encoder='another')
