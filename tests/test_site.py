"The site: links and pictures lead somewhere, navigation is whole, versions are pinned; the preview of the pages"
import configparser
import functools
import re
import subprocess
import sys

import nbformat
import pytest
import yaml

from conftest import ROOT
from pages import small_site

sys.path.insert(0, str(ROOT/'tools'))
import home

NBS = ROOT/'nbs'
PAGES = sorted(NBS.glob('*.ipynb')) + sorted(NBS.glob('*.md'))
PAGES += [ROOT/o for o in ('README.md', 'CONTRIBUTING.md', 'CHANGELOG.md')]
# no link begins with it while the repository has no address
OWN = re.escape((home.home() or 'https://no.home.example') + '/')
CONFIG = yaml.safe_load((ROOT/'_quarto.yml').read_text(encoding='utf-8'))

@functools.cache
def markdown(path):
    "A page's Markdown"
    if path.suffix != '.ipynb':
        return path.read_text(encoding='utf-8')
    return '\n\n'.join(c.source for c in nbformat.read(path, 4).cells if c.cell_type == 'markdown')

@functools.cache
def prose(path):
    "A page's Markdown, code left out"
    return re.sub(r'`[^`\n]*`', '', re.sub(r'```.*?```', '', markdown(path), flags=re.S))

def links(path):
    text = prose(path)
    named = [o.split('"')[0].strip() for o in re.findall(r'\]\(([^)]+)\)', text)]
    return named + re.findall(r'(?:src|href)="([^"]+)"', text)

def slug(title):
    return re.sub(r'\s+', '-', re.sub(r'[^\w\s-]', '', re.sub(r'[`*]', '', title).lower()).strip())

def anchors(path):
    return {slug(o) for text in (prose(path), markdown(path)) for o in re.findall(r'^#+ +(.+?)\s*$', text, re.M)}

def tracked():
    ls = ['git', 'ls-files', '--cached', '--others', '--exclude-standard']
    return set(subprocess.run(ls, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines())

@pytest.mark.parametrize('page', PAGES, ids=lambda p: p.name)
def test_links_and_pictures(page):
    wrong = []
    for link in links(page):
        target,_,anchor = link.partition('#')
        if m := re.match(OWN + r'(?:blob|tree|raw)/main/(.+)', target):
            path = ROOT/m[1]
        elif re.match(r'[a-z]+:', target):
            continue
        else:
            path = (page.resolve() if page.is_symlink() else page).parent/target if target else page
        if not path.exists():
            wrong.append(f'{link}: no such file')
        elif anchor and path.suffix in ('.ipynb', '.md') and anchor not in anchors(path):
            wrong.append(f'{link}: no such heading')
    assert wrong == []

@pytest.mark.parametrize('page', [p for p in PAGES if p.parent == NBS], ids=lambda p: p.name)
def test_what_is_a_page_of_the_site_is_linked_there(page):
    "A link to GitHub would leave the site for a page that it has itself; those of tutorials are turned back for it"
    own = {p.resolve() for p in PAGES if p.parent == NBS}
    there = re.findall(r'\]\(([^)]+)\)', home.beside(prose(page)))
    to = [(o, re.match(OWN + r'(?:blob|raw)/main/([^#]+)', o)) for o in there]
    assert [o for o,m in to if m and (ROOT/m[1]).resolve() in own] == []

def test_figures_say_what_they_show():
    "Pictures in Markdown have a text for those who cannot see them"
    assert [f'{p.name}: {o}' for p in PAGES for o in re.findall(r'!\[\]\([^)]*\)', prose(p))] == []

def sidebar():
    "The pages in the order in which the sidebar lists them"
    top = CONFIG['website']['sidebar']['contents']
    entries = [f for o in top for f in ([o] if isinstance(o, str) else o['contents'])]
    return [f['href'] if isinstance(f, dict) else f for f in entries]

def test_every_page_is_in_the_navigation_once():
    names = {o.rpartition('/')[2] for o in tracked()}
    there = sorted(p.name for p in NBS.iterdir() if p.suffix in ('.ipynb', '.md') and p.name in names)
    assert sorted(sidebar()) == there
    web = CONFIG['website']
    for f in (web['favicon'], web['open-graph']['image'], *CONFIG['format']['html']['css']):
        assert (NBS/f).exists(), f

def paragraphs(text, begin):
    "The lessons that each paragraph with this beginning links to"
    found = re.findall(rf'^{re.escape(begin)}.*', text, re.M)
    return [re.findall(r'\]\((\w[\w.]*\.ipynb)(?:#[^)]*)?\)', o) for o in found]

def faults_on_the_way(order, texts):
    "Where a reader who follows the sidebar stumbles: a lesson presumes what comes later, or sends you back"
    at = {o: n for n,o in enumerate(order)}
    faults = []
    for n,name in enumerate(order):
        need,following = paragraphs(texts[name], 'You need:'), paragraphs(texts[name], '**Next:**')
        if len(need) != 1 or len(following) != 1:
            faults.append(f'{name}: "You need" {len(need)} times, "Next" {len(following)} times')
            continue
        after = order[n + 1] if n + 1 < len(order) else 'index.ipynb'
        faults += [f'{name}: presumes {o}, which comes later' for o in need[0] if at.get(o, -1) >= n]
        back = [o for o in following[0] if o != after and at.get(o, -1) <= n]
        faults += [f'{name}: next is {o}, which came before' for o in back]
        if after not in following[0]:
            faults.append(f'{name}: "Next" does not lead to {after}')
    return faults

def lessons():
    return [o for o in sidebar() if o.endswith('.ipynb') and o != 'index.ipynb']

def test_lessons_stand_in_the_order_in_which_they_are_read():
    assert faults_on_the_way(lessons(), {o: home.beside(markdown(NBS/o)) for o in lessons()}) == []

def test_a_lesson_out_of_order_is_seen():
    a = 'You need: Python.\n\n**Next:** [b](b.ipynb).'
    b = 'You need: [a](a.ipynb).\n\n**Next:** [home](index.ipynb).'
    order = ['a.ipynb', 'b.ipynb']
    def told(a, b):
        return faults_on_the_way(order, dict(zip(order, (a, b))))
    assert told(a, b) == []
    assert told(a.replace('Python', '[b](b.ipynb#why)'), b) == ['a.ipynb: presumes b.ipynb, which comes later']
    assert told(a, b.replace('home](index', 'a](a')) == ['b.ipynb: next is a.ipynb, which came before',
        'b.ipynb: "Next" does not lead to index.ipynb']
    assert told(a.replace('[b](b.ipynb)', 'b'), b) == ['a.ipynb: "Next" does not lead to b.ipynb']
    assert told(a, b.replace('**Next:**', 'Then')) == ['b.ipynb: "You need" 1 times, "Next" 0 times']
    moved = faults_on_the_way(order[::-1], dict(zip(order, (a, b))))
    assert 'b.ipynb: presumes a.ipynb, which comes later' in moved

def test_what_the_published_pages_need():
    "Long code is wrapped, `View source` finds the notebooks, and the sidebar shows the section of the page alone"
    assert CONFIG['format']['html']['code-overflow'] == 'wrap'
    assert (ROOT/CONFIG['website']['repo-subdir']).resolve() == NBS
    assert CONFIG['website']['sidebar']['collapse-level'] == 1

def test_links_of_tutorials_are_turned_back_for_the_site():
    from nbdev.processors import FilterDefaults
    import render_site
    assert 'OwnPages' in [o.__name__ for o in FilterDefaults().procs()]
    cell = nbformat.v4.new_markdown_cell('[a](https://github.com/o/r/blob/main/nbs/05a_idea.ipynb#why) '
        '![b](https://github.com/o/r/raw/main/nbs/images/idea.svg) '
        '[c](https://github.com/o/r/blob/main/capdec/models/mini/README.md) [d](https://github.com/o/r/blob/main/x.py)')
    render_site.OwnPages(None)(cell)
    assert cell.source == ('[a](05a_idea.ipynb#why) ![b](images/idea.svg) [c](model_card.md) '
        '[d](https://github.com/o/r/blob/main/x.py)')

def test_no_page_loads_scripts_for_its_outputs():
    "Quarto loads two from another host where an output is HTML or JavaScript"
    from nbdev.processors import FilterDefaults
    import render_site
    kinds = {k for p in NBS.glob('*.ipynb') for c in nbformat.read(p, 4).cells for o in c.get('outputs', [])
        for k in o.get('data', {})}
    assert 'text/html' in kinds and not {k for k in kinds if 'javascript' in k or 'widget' in k}
    assert 'NoScripts' in [o.__name__ for o in FilterDefaults().procs()]
    made = nbformat.v4.new_output('display_data', {'text/html': '<p class="card">A *cat*</p>', 'text/plain': 'cat'})
    cell = nbformat.v4.new_code_cell('', outputs=[made])
    render_site.NoScripts(None)(cell)
    shown = '```{=html}\n<p class="card">A *cat*</p>\n```'
    assert cell.outputs[0].data == {'text/plain': 'cat', 'text/markdown': shown}
    assert '<p class="card">A *cat*</p>' in render_site.render_cell(cell, render_site.Renderer())

def test_tables_are_printed_as_they_are_and_other_lines_are_wrapped():
    from nbdev.processors import FilterDefaults
    import render_site
    assert 'WideOutputs' in [o.__name__ for o in FilterDefaults().procs()]
    table = '\n'.join(f'row {n}    {n}.5    a caption of some words' for n in range(4))
    long = 'one line of many words, ' + 'and words, '*20
    for text, is_one in ((table, True), (long, False), ('', False)):
        for made in (nbformat.v4.new_output('stream', text=text),
                nbformat.v4.new_output('execute_result', {'text/plain': text})):
            cell = nbformat.v4.new_code_cell('print(text)', outputs=[made])
            render_site.WideOutputs(None)(cell)
            assert cell.source == '#| classes: columns\n'*is_one + 'print(text)'
            shown = render_site.render_cell(cell, render_site.Renderer())
            assert ('<pre class=columns>' in shown) == is_one and 'classes' not in shown

def test_symbols_are_linked():
    "Names of public functions in prose become links to their documentation"
    from nbdev.doclinks import NbdevLookup
    text = NbdevLookup().linkify('see `add_noise`')
    assert 'noise.html#add_noise' in text or 'noise_injection.html#add_noise' in text

def test_workflows_are_pinned():
    for p in (ROOT/'.github'/'workflows').glob('*.yaml'):
        text = p.read_text()
        for use in re.findall(r'uses:\s*(\S+)', text):
            assert re.search(r'@(v\d+\.\d+\.\d+|[0-9a-f]{40})$', use), f'{p.name}: {use}'
        assert '-latest' not in text, p.name
    assert re.search(r'version: [\'"]?\d+\.\d+\.\d+', (ROOT/'.github/workflows/docs.yaml').read_text())

def test_the_workflow_begins_with_the_oldest_python():
    settings = configparser.ConfigParser(delimiters=['='])
    settings.read(ROOT/'settings.ini')
    jobs = yaml.safe_load((ROOT/'.github/workflows/test.yaml').read_text())['jobs']
    pythons = jobs['test']['strategy']['matrix']['python']
    assert pythons[0] == settings['DEFAULT']['min_python'] and len(pythons) > 1

def test_private_names_are_no_links():
    "nbdev makes a link of each name of ours in backquotes, but only public names have a heading"
    private = set(re.findall(r"'capdec[\w.]*\.(_\w+)'", (ROOT/'capdec'/'_modidx.py').read_text()))
    found = {f'{p.name}: {o}' for p in PAGES for o in re.findall(r'`(_\w+)`', markdown(p)) if o in private}
    assert private and found == set()

# The preview: tools/render_site.py, on three small pages

@pytest.fixture(scope='module')
def small(tmp_path_factory):
    return small_site(tmp_path_factory.mktemp('site'))

@pytest.fixture(scope='module')
def soup(small):
    "The three pages, parsed"
    from bs4 import BeautifulSoup
    return {p.stem: BeautifulSoup(p.read_text(encoding='utf-8'), 'html.parser') for p in small.glob('*.html')}

def test_preview_fits_the_screen(soup):
    assert len(soup) == 3
    for page in soup.values():
        assert 'width=device-width' in page.find('meta', attrs={'name': 'viewport'})['content']

def test_preview_lists_the_contents(soup):
    "Every heading once, under a name of its own, in order; the link beside it leads to it"
    listed = [(a.text, a['href']) for a in soup['second'].select('#contents a')]
    assert listed == [('Why', '#why'), ('code in a title', '#code-in-a-title'), ('Thing.do', '#thing.do')]
    assert [a['href'] for a in soup['index'].select('#contents a')] == ['#why', '#why-1']
    assert soup['a'].select('#contents') == []
    for page in soup.values():
        for a in page.select('a.anchor'):
            assert a['href'] == '#' + a.parent['id']

def test_preview_turns_pages_in_the_order_of_the_sidebar(soup):
    side = [(a.text, a['href']) for a in soup['index'].select('#pages a')]
    assert side == [('Index', 'index.html'), ('Second', 'second.html'), ('Card', 'a.html')]
    turn = {k: [(a['rel'][0], a['href']) for a in page.select('nav.turn a')] for k,page in soup.items()}
    assert turn == dict(index=[('next', 'second.html')], second=[('prev', 'index.html'), ('next', 'a.html')],
        a=[('prev', 'second.html')])
    for k,page in soup.items():
        assert [a['href'] for a in page.select('#pages [aria-current=page]')] == [f'{k}.html']
    assert [d.has_attr('open') for k in ('index', 'second') for d in soup[k].select('#pages details')] == [False, True]

def test_preview_asks_no_other_host(small, soup):
    for page in soup.values():
        asked = [o.get('src') or o.get('href') for o in page.select('script[src], img, link, iframe, source')]
        assert asked and [o for o in asked if re.match(r'(https?:)?//', o)] == []
    assert re.findall(r'@import|url\(', (small/'site.css').read_text()) == []

def test_preview_draws_formulas_without_a_script(soup):
    maths = soup['second'].select('math')
    assert [m['display'] for m in maths] == ['inline', 'block']
    assert maths[0].select('msqrt') and maths[1].select('mfrac')
    assert '$' not in soup['second'].select_one('main').text

def test_preview_renders_cells_as_quarto_does(soup):
    page = soup['second']
    assert [d.select_one('pre').text.strip() for d in page.select('main details')] == ['fold = 1']
    assert page.select_one('.source a')['href'].endswith('c.py') and '{target' not in page.text
    assert page.select('pre.columns') and not page.find('pre', string=re.compile('^no'))
    # copied from the page, a name is whole
    assert [c.text for c in soup['index'].select('td code')] == ['--use_image_embedding_as_clipcap', '--beam']

def test_preview_links_its_own_pages(small, soup):
    import render_site
    assert [a['href'] for a in soup['index'].select('main p a')] == ['second.html#why', 'a.html']
    assert [a['href'] for a in soup['second'].select('main p a')][-2:] == ['index.html', 'index.html']
    assert list(render_site.broken(small)) == []

def test_preview_of_a_site_without_an_address(tmp_path):
    "nbdev then writes links with a slash in front; what leads elsewhere stays"
    import render_site
    from bs4 import BeautifulSoup
    page = BeautifulSoup((small_site(tmp_path, '')/'second.html').read_text(encoding='utf-8'), 'html.parser')
    assert [a['href'] for a in page.select('main p a')][-2:] == ['index.html', 'index.html']
    assert list(render_site.broken(tmp_path/'out')) == []

def test_preview_finds_broken_links(tmp_path):
    import render_site
    (tmp_path/'x.html').write_text('<a href="#here">a</a><a id="here" href="no.html">b</a><a href="x.html#no">c</a>'
        '<img alt="" src="images/no.png"><a href="https://elsewhere.example">d</a>')
    assert list(render_site.broken(tmp_path)) == ['x.html: images/no.png: no such file',
        'x.html: no.html: no such file', 'x.html: x.html#no: no such heading']

def test_preview_refuses_what_it_cannot_draw():
    import render_site
    with pytest.raises(SystemExit, match=r'b.ipynb: the formula x \\notatexcommand y has \\notatexcommand'):
        render_site.Renderer('b.ipynb').markdown(r'See $x \notatexcommand y$.')
    with pytest.raises(SystemExit, match='the sidebar names gone.ipynb, which is not there'):
        render_site.sidebar(dict(website=dict(sidebar=dict(contents=['gone.ipynb']))), {})

def test_every_formula_can_be_drawn():
    "The converter leaves what it does not know as text, which the preview refuses"
    import render_site
    drawn = 0
    for p in PAGES:
        if p.parent == NBS and '$' in prose(p):
            drawn += render_site.Renderer(p.name).markdown(markdown(p)).count('<math')
    assert drawn > 30

def test_figures_are_not_numbered():
    "The text format loses the captions of labelled figures, so none has a label"
    labelled = [p.name for p in NBS.glob('*.ipynb') for c in nbformat.read(p, 4).cells
        if re.search(r'^#\|\s*label:\s*fig', c.source, re.M)]
    assert labelled == []

def test_figures_of_cells_have_a_text():
    "A figure with a caption also says what it shows to those who cannot see it"
    assert [f'{p.name}: {c.id}' for p in NBS.glob('*.ipynb') for c in nbformat.read(p, 4).cells
        if re.search(r'^#\|\s*fig-cap:', c.source, re.M) and not re.search(r'^#\|\s*fig-alt:', c.source, re.M)] == []

def test_every_page_has_one_title():
    for p in PAGES:
        if p.parent == NBS:
            text = re.sub(r'```.*?```', '', markdown(p), flags=re.S)
            assert len(re.findall(r'^# ', text, re.M)) == 1, p.name

@pytest.mark.parametrize('page', sorted(NBS.glob('*.md')), ids=lambda p: p.name)
def test_a_markdown_page_has_one_title_in_the_window_too(page):
    """Quarto takes the first heading for the title of the page, and the file's name for that of the window unless
    `pagetitle` tells it; `title` beside the heading would be shown a second time"""
    _, head, text = page.read_text(encoding='utf-8').split('---\n', 2)
    named = yaml.safe_load(head)
    assert 'title' not in named and text.lstrip().splitlines()[0] == f'# {named["pagetitle"]}'

def test_the_page_of_the_model_is_a_card_for_the_hub():
    "What only Quarto reads does not keep the hub's own library from reading the rest"
    from huggingface_hub import ModelCard
    card = ModelCard.load(NBS/'model_card.md')
    assert (card.data.library_name, card.data.pipeline_tag, card.data.license) == ('capdec', 'image-to-text', 'other')
    assert card.data.model_name == 'mini' and {o.metric_type for o in card.data.eval_results} >= {'bleu', 'cider'}
    assert card.text.lstrip().startswith('# ') and card.text.count('\n# ') <= 1

def test_symbols_lead_to_their_lines():
    import render_site
    from capdec.core import printable
    file, line = render_site.line_of(printable)
    assert (ROOT/file).read_text().splitlines()[line-1].startswith('def printable(')
    said = ('[source](/blob/main/capdec/core.py#LNone){target="_blank"}\n'
        "    how:Decoding=Decoding(method='beam', seed=None), # How\n")
    shown = render_site.documented(said, printable, 'https://github.com/someone/capdec')
    assert f'someone/capdec/blob/main/capdec/core.py#L{line})' in shown and 'LNone' not in shown
    assert 'how:Decoding=Decoding(), # How' in shown
    # no link where there is no address
    assert 'source' not in render_site.documented(said, printable, '')
    assert render_site.line_of(3) is None

def odd_types(modules):
    "Parameters whose type is shown as that of a command line, or not at all"
    import render_site
    from nbdev.showdoc import show_doc
    for m in modules:
        for name in getattr(m, '__all__', ()):
            symbol = getattr(m, name)
            if callable(symbol) and getattr(symbol, '__module__', '') == m.__name__:
                text = render_site.documented(show_doc(symbol)._repr_markdown_(), symbol, '')
                signature = re.sub(r'#.*', '', text.partition('```python')[2].partition('```')[0])
                yield from (f'{m.__name__}.{name}: {o}' for o in re.findall(ODD, signature, re.M))

# `Param`, the function of a switch, no type at all, a help instead of a type
ODD = r'.*\bParam\b.*|.*\bbool_arg\b.*|(?:^ +|[(,] *)\w+:(?=[=,)]).*|.*:(?:\w+ )?<.*'

def test_signatures_show_the_types_that_functions_get():
    "On the pages of the command line and of the studies, too"
    import importlib
    files = sorted(p.relative_to(ROOT) for p in (ROOT/'capdec').rglob('*.py') if p.stem[0] != '_')
    modules = [importlib.import_module('.'.join(p.with_suffix('').parts)) for p in files]
    assert list(odd_types(modules)) == []

@pytest.mark.parametrize('line', ['    photos:, # Photos', "    images:='', # Photos", 'def f(x:)', 'def f(x:=3)',
    '    only:Param(nargs=2),', '    twice:bool_arg=False,', '    kinds:str <Kinds of them>=None,', 'def f(x:<Kinds>)'])
def test_odd_types_are_seen(line):
    assert re.findall(ODD, line, re.M)

@pytest.mark.parametrize('line', ['    photos:list, # Photos: many', '    kept:dict=<factory>,', ')->None:'])
def test_other_types_are_not_odd(line):
    assert not re.findall(ODD, line.partition('#')[0], re.M)

def test_the_readme_is_ours_after_the_site():
    "nbdev writes one of its own when ours is older than its notebook"
    rule = (ROOT/'Makefile').read_text().split('\ndocs: ')[1].split('\n\n')[0]
    assert rule.startswith('readme ') and rule.rstrip().endswith('tools/build_readme.py')

def test_the_styles_of_the_published_pages():
    "Each was needed when the rendered site was looked at, in the dark, in tables and at 420 pixels"
    css = (NBS/CONFIG['format']['html']['css'][0]).read_text()
    for rule in ('.quarto-dark code:not(.sourceCode)', '.quarto-dark pre > code', '.quarto-dark a > code',
            'main .table a { word-break: normal; }', 'main table col { width: auto !important; }',
            'mjx-container[display="true"]', 'max-width: 767px',
            '.cell-output > pre { max-width: 100%; overflow-x: auto; }',
            '.cell-output > pre > code { white-space: pre-wrap',
            '.cell.columns > .cell-output > pre > code { white-space: pre;'):
        assert rule in css, rule

# One address, in settings.ini

# What a person who wants to harm our readers could own: names like ours at places that are not ours
STRAY = re.compile(r'(?:github\.com|github\.io|gitlab\.com|huggingface\.co|pypi\.org/project)/capdec|'
    r'capdec\.github\.io|pip3? install (?:-\S+ )*[\'"]?capdec\b(?![/.])|(?<![\w.\'])[\'"`]capdec\[\w+\]|'
    r'conda install \S*capdec\b|\bcapdec@[\w.]+')

def strays(text, address):
    "Addresses in a text that may be anyone's; ours, and the line that installs from it, are ours"
    if address:
        text = re.sub(rf'capdec(\[\w+\])? @ git\+{re.escape(address)}(?![\w.-])', '', text).replace(address, '')
    return [m[0] for m in STRAY.finditer(text)]

def test_no_address_that_is_not_ours():
    "The package's short name on PyPI and GitHub may be anyone's"
    address,kinds = home.home(), ('.md', '.py', '.ipynb', '.yml', '.yaml', '.ini', '.txt', '.html', '')
    wrong = []
    for name in sorted(tracked()):
        path = ROOT/name
        if name == 'tests/test_site.py' or path.is_symlink() or path.suffix not in kinds or not path.is_file():
            continue
        text = path.read_text(encoding='utf-8', errors='replace')
        wrong += [f'{name}: {o}' for o in strays(text, address)]
    assert wrong == []

@pytest.mark.parametrize('text', ['https://github.com/capdec/capdec', 'pip install capdec',
    'pip install -U "capdec[heic]"',
    "`pip install 'capdec[train]'` brings it", 'https://capdec.github.io/capdec', '`capdec[heic]` is installed',
    'pip install -q capdec', 'https://pypi.org/project/capdec/', 'capdec@users.example.org'])
def test_stray_addresses_are_seen(text):
    assert strays(text, '') and strays(text, 'https://git.example/us/capdec')

@pytest.mark.parametrize('line', ["pip install 'capdec @ git+https://git.example/us/capdec'",
    "%pip install -q 'capdec[all] @ git+https://git.example/us/capdec'"])
def test_our_address_is_none_unless_it_goes_on(line):
    assert strays(line, 'https://git.example/us/capdec') == [] and strays(line, '')
    assert strays(line.replace("us/capdec'", "us/capdec-2'"), 'https://git.example/us/capdec')

@pytest.mark.parametrize('text', ["pip install -e '.[dev]'", 'pip install dist/capdec-0.1.0-py3-none-any.whl',
    'capdec caption', 'pip install .', 'from capdec import Captioner'])
def test_other_words_are_no_addresses(text):
    assert not STRAY.search(text)

def test_the_address_is_carried_everywhere(tmp_path):
    "With one line in settings.ini all pages name it; without it, they say so"
    import shutil
    assert [str(p) for p,_ in home.changes()] == []
    (tmp_path/'nbs').mkdir()
    for o in [*NBS.glob('2*.ipynb'), NBS/'index.ipynb', NBS/'02_embedding.ipynb']:
        shutil.copy(o, tmp_path/'nbs')
    shutil.copy(ROOT/'_quarto.yml', tmp_path)
    # the file that the page is says which address it has
    (tmp_path/'nbs'/'model_card.md').symlink_to('../capdec/models/mini/README.md')
    settings = (ROOT/'settings.ini').read_text()
    def written(address):
        (tmp_path/'settings.ini').write_text(re.sub(r'^home =.*$', f'home = {address}', settings, flags=re.M))
        for p,text in home.changes(tmp_path):
            p.write_text(text)
        assert not list(home.changes(tmp_path))
        return {p.name: p.read_text() for p in [*(tmp_path/'nbs').glob('*.ipynb'), tmp_path/'_quarto.yml']}
    before = written('')
    with_one = written('https://github.com/someone/capdec')
    for name in home.TUTORIALS:
        text = with_one[f'{name}.ipynb']
        assert "%pip install -q 'capdec[all] @ git+https://github.com/someone/capdec'" in text
        assert f'colab.research.google.com/github/someone/capdec/blob/main/nbs/{name}.ipynb' in text
        assert 'someone/' not in before[f'{name}.ipynb'] and 'Upload notebook' in before[f'{name}.ipynb']
    assert 'git clone https://github.com/someone/capdec' in with_one['index.ipynb']
    # the landing page begins with the one line that installs, and has none where it would lead nowhere
    landing = lambda pages: '\n'.join(c['source'] for c in nbformat.reads(pages['index.ipynb'], 4).cells)
    shown = landing(with_one).split('## Install')[1].split('```')
    assert shown[1] == "sh\npip install 'capdec @ git+https://github.com/someone/capdec'\n"
    assert 'from its repository' in shown[0] and 'from the sources' in shown[2] and 'git clone' in shown[3]
    assert '@ git+' not in landing(before) and home.FROM in landing(before)
    assert all(strays(text, 'https://github.com/someone/capdec') == [] for text in with_one.values())
    assert 'someone/capdec/actions/workflows/test.yaml/badge.svg' in with_one['index.ipynb']
    # who keeps no such workflows has no badges
    assert all('badge.svg' not in o['index.ipynb'] for o in (before, written('https://git.example/us')))
    assert 'https://github.com/someone/capdec/blob/main/tests/test_distributed.py' in with_one['02_embedding.ipynb']
    assert 'href: https://github.com/someone/capdec' in with_one['_quarto.yml']
    # in Colab there is nothing beside the notebook
    start = with_one['20_quick_start.ipynb']
    main = 'https://github.com/someone/capdec/%s/main/nbs/'
    assert f'({main % "raw"}images/explore.png)' in start and f'({main % "blob"}09_captioner.ipynb)' in start
    for name in home.TUTORIALS:
        found = re.findall(r'(?<=\]\()[^)\\]+(?=\))', with_one[f'{name}.ipynb'])
        pages = [o for o in found if re.search(r'\.(ipynb|md|png|svg)', o)]
        assert pages and [o for o in pages if not o.startswith('https:')] == []
    # and on the site all stand beside each other
    turned = home.beside(start)
    assert '(images/explore.png)' in turned and '(09_captioner.ipynb)' in turned
    assert 'colab.research.google.com/github/someone/capdec/blob/main/nbs/20_quick_start.ipynb' in turned
    assert yaml.safe_load(with_one['_quarto.yml'])['website']['navbar']['tools'][0]['icon'] == 'github'
    assert written('') == before
