"The site: every link and picture of the notebooks, README and the other pages leads somewhere; navigation is whole; versions are pinned"
import functools,re,subprocess

import nbformat
import pytest
import yaml

from conftest import ROOT

NBS = ROOT/'nbs'
PAGES = sorted(NBS.glob('*.ipynb')) + sorted(NBS.glob('*.md')) + [ROOT/o for o in ('README.md','CONTRIBUTING.md','CHANGELOG.md')]
OWN = 'https://github.com/capdec/capdec/'

@functools.cache
def prose(path):
    "A page's Markdown, code blocks left out"
    text = '\n\n'.join(c.source for c in nbformat.read(path, 4).cells if c.cell_type == 'markdown') if path.suffix == '.ipynb' else path.read_text(encoding='utf-8')
    return re.sub(r'`[^`\n]*`', '', re.sub(r'```.*?```', '', text, flags=re.S))

def links(path):
    text = prose(path)
    return [o.split('"')[0].strip() for o in re.findall(r'\]\(([^)]+)\)', text)] + re.findall(r'(?:src|href)="([^"]+)"', text)

def slug(title): return re.sub(r'\s+', '-', re.sub(r'[^\w\s-]', '', re.sub(r'[`*]', '', title).lower()).strip())

def anchors(path): return {slug(o) for o in re.findall(r'^#+ +(.+?)\s*$', prose(path), re.M)} | {slug(o) for o in re.findall(r'^#+ +(.+?)\s*$', _raw(path), re.M)}

def _raw(path): return '\n'.join(c.source for c in nbformat.read(path, 4).cells if c.cell_type == 'markdown') if path.suffix == '.ipynb' else path.read_text(encoding='utf-8')

def tracked(): return set(subprocess.run(['git','ls-files','--cached','--others','--exclude-standard'], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines())

@pytest.mark.parametrize('page', PAGES, ids=lambda p: p.name)
def test_links_and_pictures(page):
    wrong = []
    for link in links(page):
        target,_,anchor = link.partition('#')
        if m := re.match(OWN + r'(?:blob|tree)/main/(.+)', target): path = ROOT/m[1]
        elif re.match(r'[a-z]+:', target): continue
        else: path = (page.resolve() if page.is_symlink() else page).parent/target if target else page
        if not path.exists(): wrong.append(f'{link}: no such file')
        elif anchor and path.suffix in ('.ipynb','.md') and anchor not in anchors(path): wrong.append(f'{link}: no such heading')
    assert wrong == []

@pytest.mark.parametrize('page', [p for p in PAGES if p.parent == NBS], ids=lambda p: p.name)
def test_what_is_a_page_of_the_site_is_linked_there(page):
    "A link to GitHub would leave the site for a page that it has itself"
    own = {p.resolve() for p in PAGES if p.parent == NBS}
    assert [o for o in links(page) if (m := re.match(OWN + r'blob/main/([^#]+)', o)) and (ROOT/m[1]).resolve() in own] == []

def test_figures_say_what_they_show():
    "Pictures in Markdown have a text for those who cannot see them"
    assert [f'{p.name}: {o}' for p in PAGES for o in re.findall(r'!\[\]\([^)]*\)', prose(p))] == []

def test_every_page_is_in_the_navigation_once():
    config = yaml.safe_load((ROOT/'_quarto.yml').read_text())
    listed = [f['href'] if isinstance(f, dict) else f for o in config['website']['sidebar']['contents'] for f in ([o] if isinstance(o, str) else o['contents'])]
    assert sorted(listed) == sorted(p.name for p in NBS.iterdir() if p.suffix in ('.ipynb','.md') and p.name in {o.rpartition('/')[2] for o in tracked()})
    for f in (config['website']['favicon'], config['website']['open-graph']['image'], config['format']['html']['css']): assert (NBS/f).exists(), f

def test_symbols_are_linked():
    "Names of public functions in prose become links to their documentation"
    from nbdev.doclinks import NbdevLookup
    assert 'noise.html#add_noise' in NbdevLookup().linkify('see `add_noise`') or 'noise_injection.html#add_noise' in NbdevLookup().linkify('see `add_noise`')

def test_workflows_are_pinned():
    for p in (ROOT/'.github'/'workflows').glob('*.yaml'):
        text = p.read_text()
        for use in re.findall(r'uses:\s*(\S+)', text): assert re.search(r'@(v\d+\.\d+\.\d+|[0-9a-f]{40})$', use), f'{p.name}: {use}'
        assert '-latest' not in text, p.name
    assert re.search(r'version: [\'"]?\d+\.\d+\.\d+', (ROOT/'.github/workflows/docs.yaml').read_text())
