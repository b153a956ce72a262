"The rules of CONTRIBUTING.md that can be read off the source; each sees a fault that is planted."
import ast
from functools import cache

import pytest

from test_repo import ROOT, module_files

@cache
def trees(root=ROOT):
    "`(name after capdec., syntax tree)` of each module"
    return [(name, ast.parse(p.read_text(encoding='utf-8'))) for name, p in module_files(root).items()]

def private(name):
    "Is this a name that only its own module may use?"
    return name.startswith('_') and not name.startswith('__')

def is_ours(node):
    "Does `from ... import` take something of this package?"
    return bool(node.level) or node.module.split('.')[0] == 'capdec'

def plant(tmp, module, line):
    "The package, of which one module alone says what it says, and a line more"
    for name, p in module_files().items():
        copy = tmp/p.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(p.read_text(encoding='utf-8') + f'\n{line}\n' if name == module else '', encoding='utf-8')

def private_imports(root=ROOT):
    "What a module takes of another although its name begins with `_`"
    for name, tree in trees(root):
        taken = [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and is_ours(n)]
        names = [a for n in taken for a in n.names]
        yield from (f'{name} imports {a.name}' for a in names if private(a.name))
        # modules that were imported whole, under this or that name
        whole = {a.asname or a.name for a in names if a.name in module_files(root)}
        for n in ast.walk(tree):
            if isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name) and n.value.id in whole:
                if private(n.attr):
                    yield f'{name} imports {n.attr}'

def test_no_module_uses_private_names_of_another():
    assert list(private_imports()) == []

@pytest.mark.parametrize('module, line, name', [
    ('shards', 'from .album import _row', '_row'),
    ('shards', 'def f():\n    from capdec.album import copies,_row as row', '_row'),
    ('cli', 'def f():\n    from . import album as room\n    return room._row', '_row'),
    ('studies.bench', 'from ..album import _row', '_row')])
def test_a_private_import_is_seen(tmp_path, module, line, name):
    plant(tmp_path, module, line)
    assert list(private_imports(tmp_path)) == [f'{module} imports {name}']

# ---- methods

def assigned_methods(root=ROOT):
    "Functions that are put on a class from outside, where `@patch` should stand"
    for name, tree in trees(root):
        classes = {n.name for n in ast.walk(tree) if isinstance(n, ast.ClassDef)}
        functions = {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}
        ours = [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and is_ours(n)]
        taken = {a.asname or a.name for n in ours for a in n.names}
        classes |= {o for o in taken if o[:1].isupper() and not o.isupper()}
        for n in ast.walk(tree):
            if isinstance(n, ast.Assign):
                targets = [(o.value, o.attr) for o in n.targets if isinstance(o, ast.Attribute)]
                put = isinstance(n.value, ast.Lambda) or getattr(n.value, 'id', '') in functions | taken
            elif isinstance(n, ast.Call) and getattr(n.func, 'id', '') == 'setattr':
                targets, put = [(n.args[0], '...')], True
            else:
                continue
            if put:
                yield from (f'{name}: {o.id}.{attr} = ...' for o, attr in targets
                    if isinstance(o, ast.Name) and o.id in classes)

def test_no_method_is_put_on_a_class_from_outside():
    assert list(assigned_methods()) == []

@pytest.mark.parametrize('line, fault', [
    ('Captioner.words = lambda self: 3', 'captioner: Captioner.words = ...'),
    ('def words(self):\n    pass\nCaptioner.words = words', 'captioner: Captioner.words = ...'),
    ('def words(self):\n    pass\nsetattr(Captioner, "words", words)', 'captioner: Captioner.... = ...'),
    ('CaptionModel.one = one_line', 'captioner: CaptionModel.one = ...')])
def test_a_method_from_outside_is_seen(tmp_path, line, fault):
    plant(tmp_path, 'captioner', line)
    assert list(assigned_methods(tmp_path)) == [fault]

# ---- arguments

MOST = 5 # Arguments without a name in a call of the command line, and in a bag

def size_of(value):
    "Names in a dictionary that is written out, or in several that are joined"
    known = [n for n in ast.walk(value) if isinstance(n, ast.Dict)]
    calls = [n for n in ast.walk(value) if isinstance(n, ast.Call) and getattr(n.func, 'id', '') == 'dict']
    return sum(len(n.keys) for n in known) + sum(len(n.keywords) for n in calls)

def bags(root=ROOT):
    "Dictionaries of more than five arguments that are written out and handed on with `**`; arguments as a whole"
    for name, tree in trees(root):
        for f in (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)):
            assigned = [n for n in ast.walk(f) if isinstance(n, ast.Assign) and isinstance(n.targets[0], ast.Name)]
            sizes = {n.targets[0].id: size_of(n.value) for n in assigned}
            for n in (n for n in ast.walk(f) if isinstance(n, ast.Call)):
                handed = [k.value for k in n.keywords if k.arg is None]
                if any(sizes.get(getattr(o, 'id', ''), size_of(o)) > MOST for o in handed):
                    yield f'{name}.{f.name} hands on a bag'
                if getattr(n.func, 'id', '') in ('locals', 'Namespace') and name != 'flags':
                    yield f'{name}.{f.name} hands on a bag'

def test_no_bag_of_arguments_is_handed_on():
    assert list(bags()) == []

BAG = 'dict(a=1, b=2, c=3, d=4, e=5, f=6)'

@pytest.mark.parametrize('body', [f'how = {BAG}\n    g(**how)', f'g(**{BAG})', 'g(dict(locals()))',
    'how = dict(a=1, b=2, c=3) | dict(d=4, e=5, f=6)\n    g(**how)'])
def test_a_bag_is_seen(tmp_path, body):
    plant(tmp_path, 'album', f'def fill():\n    {body}')
    assert list(bags(tmp_path)) == ['album.fill hands on a bag']

def without_names(root=ROOT):
    "Calls in the command line of more than five arguments without a name"
    calls = (n for n in ast.walk(dict(trees(root))['cli']) if isinstance(n, ast.Call))
    return [f'cli: {ast.unparse(n.func)} gets {len(n.args)} arguments without a name' for n in calls
        if len(n.args) > MOST]

def test_the_command_line_names_its_arguments():
    assert without_names() == []

def test_arguments_without_names_are_seen(tmp_path):
    plant(tmp_path, 'cli', 'def paint():\n    dye(1, 2, 3, 4, 5, 6)')
    assert without_names(tmp_path) == ['cli: dye gets 6 arguments without a name']

def wide_door(root=ROOT):
    "The command line is a door: lines over 600"
    n = len((root/'capdec'/'cli.py').read_text(encoding='utf-8').splitlines())
    return [f'cli: {n} lines'] if n > 600 else []

def test_the_command_line_stays_a_door(tmp_path):
    assert wide_door() == []
    plant(tmp_path, 'cli', '\n'*600)
    assert len(wide_door(tmp_path)) == 1

# ---- tests and studies

def private_door(text):
    "Names of the command line that only it may use, in the text of a test"
    tree = ast.parse(text)
    imported = [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module == 'capdec.cli']
    taken = [a.name for n in imported for a in n.names]
    attributes = [n for n in ast.walk(tree) if isinstance(n, ast.Attribute)]
    named = [n.attr for n in attributes if ast.unparse(n.value) in ('cli', 'capdec.cli')]
    words = [n.value.removeprefix('capdec.cli.') for n in ast.walk(tree) if isinstance(n, ast.Constant)
        and isinstance(n.value, str) and n.value.startswith('capdec.cli.')]
    return [o for o in taken + named + words if private(o)]

def test_no_test_uses_private_names_of_the_command_line():
    found = {p.name: private_door(p.read_text(encoding='utf-8')) for p in sorted((ROOT/'tests').glob('*.py'))}
    assert len(found) > 50 and {k: v for k, v in found.items() if v} == {}

@pytest.mark.parametrize('line', ['from capdec.cli import main,_door', 'import capdec.cli\ncapdec.cli._door()',
    'from capdec import cli\ncli._door()', 'monkeypatch.setattr("capdec.cli.{}", 1)'.format('_door')])
def test_a_private_name_of_the_command_line_is_seen(line):
    assert private_door(line) == ['_door']

def loose_rows(root=ROOT):
    "Studies that write their results without the shared `Rows` or `kept`"
    for name, tree in trees(root):
        if not name.startswith('studies.') or name == 'studies.common':
            continue
        for f in (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)):
            named = {a.arg for a in f.args.args} & {'results'}
            for n in (n for n in ast.walk(f) if isinstance(n, ast.Call)):
                if getattr(n.func, 'id', '') == 'write_json' and named & {o.id for o in ast.walk(n.args[0])
                        if isinstance(o, ast.Name)}:
                    yield f'{name}.{f.name} writes its results by hand'

def test_studies_keep_their_rows_in_one_way():
    assert list(loose_rows()) == []

def test_results_written_by_hand_are_seen(tmp_path):
    plant(tmp_path, 'studies.bench', 'def study(results):\n    write_json(results, {})')
    assert list(loose_rows(tmp_path)) == ['studies.bench.study writes its results by hand']
