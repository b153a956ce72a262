"The rules of CONTRIBUTING.md that can be read off the source; each sees a fault that is planted."
import ast

import pytest

from test_repo import ROOT, copied, module_files

def trees(root=ROOT):
    "`(name after capdec., syntax tree)` of each module"
    for name, p in module_files(root).items():
        yield name, ast.parse(p.read_text(encoding='utf-8'))

def private(name):
    "Is this a name that only its own module may use?"
    return name.startswith('_') and not name.startswith('__')

def is_ours(node):
    "Does `from ... import` take something of this package?"
    return bool(node.level) or node.module.split('.')[0] == 'capdec'

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

def plant(tmp, module, line):
    "A copy of the package with a line more in one module"
    copied(tmp, 'capdec')
    with (tmp/'capdec'/f'{module.replace(".", "/")}.py').open('a', encoding='utf-8') as f:
        f.write(f'\n{line}\n')
