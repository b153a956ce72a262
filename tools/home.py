"""Put the repository's address where readers need it: python tools/home.py [--check]

The address stands in settings.ini (`home`) and nowhere else by hand. While it is empty, pages say "in a clone of this
repository", and no page names a place that may be somebody else's.
"""
import argparse
import re
import sys
from configparser import ConfigParser
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[1]
NAME = 'capdec'
# The line of a tutorial that installs us
INSTALL = rf"^%pip install -q '(\.\.|{NAME}).*'$"
TUTORIALS = ('20_quick_start', '21_train_on_your_text', '22_noise_sweep', '23_clip_gpt2', '24_own_code')
BADGE = 'https://colab.research.google.com/assets/colab-badge.svg'
COLAB = 'https://colab.research.google.com'
# Links to files that are no page of the site: `name`, or [name](address) when there is an address
FILES = ('CONTRIBUTING.md', 'tests/test_distributed.py', 'tools/memory_check.py')

def home(root=ROOT):
    "The repository's address, such as https://github.com/OWNER/capdec; empty while it has none"
    cfg = ConfigParser(delimiters=['='])
    cfg.read(root/'settings.ini', encoding='utf-8')
    return cfg['DEFAULT'].get('home', '').strip().rstrip('/')

def badge(address, name):
    "A line that opens a tutorial in Colab, or what to do there by hand"
    where = re.sub(r'^https://github\.com/', '', address)
    if where != address:
        return f'[![Open in Colab]({BADGE})]({COLAB}/github/{where}/blob/main/nbs/{name}.ipynb)'
    return f'In [Colab]({COLAB}): *File, Upload notebook*, and this file.'

def badges(source, address):
    "The first picture of the landing page, below what the workflows say of themselves, where there are any"
    source = re.sub(r'\A\[!\[tests\].*\n\n', '', source)
    if not (source.startswith('![') and address.startswith('https://github.com/')):
        return source
    one = lambda name, file: f'[![{name}]({address}/actions/workflows/{file}/badge.svg)]({address}/actions)'
    return f'{one("tests", "test.yaml")} {one("site", "docs.yaml")}\n\n{source}'

def install(address):
    "The tutorials' first cell"
    if address:
        return f"#| net\n%pip install -q '{NAME}[all] @ git+{address}'"
    return '#| net\n# a clone of this repository is the folder above; in Colab, upload the wheel and name it here\n' \
        "%pip install -q '..[all]'"

def clone(address):
    "How one gets the sources"
    return f'git clone {address} capdec && cd capdec' if address else 'cd capdec       # your clone of this repository'

# What the landing page says before the lines that install from a clone, and what else it says with an address
FROM = 'So you install it from the sources:'
FROM_HOME = 'So you install it from its repository, in an environment of your own:'
SOURCES = 'Or you install it from the sources, which `make demo` and `make test` below need:'

def installed(text, address):
    "The landing page's first way to install: the line with the address, where there is one"
    text = re.sub(rf'{re.escape(FROM_HOME)}\n\n```sh\n.*?\n```\n\n{re.escape(SOURCES)}', FROM, text, flags=re.S)
    if not address:
        return text
    line = f"pip install '{NAME} @ git+{address}'"
    return text.replace(FROM, f'{FROM_HOME}\n\n```sh\n{line}\n```\n\n{SOURCES}')

def linked(text, address):
    "Text with the files of the repository as links, where there is an address"
    for file in FILES:
        plain = f'`{file}`'
        text = re.sub(rf'\[`?{re.escape(file)}`?\]\([^)]*\)', plain, text)
        if address:
            text = text.replace(plain, f'[`{file}`]({address}/blob/main/{file})')
    return text

# A page or a picture of the repository in a link, as it is beside us and as it is at an address
BESIDE = r'\]\((?=[\w.-])([\w.-]+\.(?:ipynb|md)|images/[\w.-]+)(#[^)\s]*)?\)'
AWAY = r'\]\(https?://(?!colab\.)[^)\s]+?/(?:blob|raw)/main/((?:nbs|capdec)/[^)\s#]+)(#[^)\s]*)?\)'

def real(page, root=ROOT):
    "The file that a page of the site is; GitHub does not follow links to files"
    return (root/'nbs'/page).resolve().relative_to(root.resolve()).as_posix()

def beside(text, root=ROOT):
    "Text whose links to pages and pictures lead to the files beside it, as on the site"
    card = real('model_card.md', root)
    page = lambda file: 'model_card.md' if file == card else file.removeprefix('nbs/')
    return re.sub(AWAY, lambda m: f']({page(m[1])}{m[2] or ""})', text)

def away(text, address, root=ROOT):
    "Text whose links to pages and pictures lead there from anywhere, such as from a notebook in Colab"
    def whole(m):
        kind = 'raw' if m[1].startswith('images/') else 'blob'
        return f']({address}/{kind}/main/{real(m[1], root)}{m[2] or ""})'
    return re.sub(BESIDE, whole, text)

def cell_source(cell, address, name, root=ROOT):
    "What a cell says with this address"
    source = cell.source
    if name in TUTORIALS and cell.cell_type == 'code' and re.search(INSTALL, source, re.M):
        return install(address)
    if name in TUTORIALS and source.startswith('# '):
        source = re.sub(r'^(\[!\[Open in Colab\]|In \[Colab\]).*$', badge(address, name), source, flags=re.M)
    if cell.cell_type == 'markdown' and name in TUTORIALS:
        source = away(beside(source, root), address, root) if address else beside(source, root)
    if cell.cell_type == 'markdown':
        source = re.sub(r'^(git clone \S+ capdec && cd capdec|cd capdec  +# your clone of this repository)$',
            clone(address), source, flags=re.M)
        source = linked(source, address)
        return badges(installed(source, address), address) if name == 'index' else source
    return source

def site(text, address):
    "_quarto.yml: the link to the repository in the bar"
    tool = f'    tools:\n      - icon: github\n        href: {address}\n'*bool(address)
    return re.sub(r'(    # home\n).*?(    # end of home\n)', lambda m: m[1] + tool + m[2], text, flags=re.S)

def changes(root=ROOT):
    "`(file, new text)` of each file that says something else than settings.ini"
    address = home(root)
    for path in sorted((root/'nbs').glob('*.ipynb')):
        nb = nbformat.read(path, 4)
        new = [cell_source(c, address, path.stem, root) for c in nb.cells]
        if new != [c.source for c in nb.cells]:
            for c,source in zip(nb.cells, new):
                c.source = source
            yield path, nbformat.writes(nb) + '\n'
    quarto = root/'_quarto.yml'
    text = quarto.read_text(encoding='utf-8')
    if (new := site(text, address)) != text:
        yield quarto, new

if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--check', action='store_true', help='only say what is not as settings.ini has it')
    found = list(changes())
    if parser.parse_args().check:
        sys.exit('\n'.join(f'{p.relative_to(ROOT)}: another address than in settings.ini; make home' for p,_ in found))
    for path,text in found:
        path.write_text(text, encoding='utf-8')
        print(path.relative_to(ROOT))
