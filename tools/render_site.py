"""Make the pages without Quarto, to look at and to check: python tools/render_site.py [--out _out/site]

nbdev prepares the notebooks as it does for Quarto (`nbdev.serve.proc_nbs`); nbconvert turns their Markdown into HTML.
Quarto's cell options that the project uses are honoured: echo, output, include, code-fold, code-summary, fig-cap and
fig-alt. The layout is in site.html and site.css. No page asks another host for anything. What is published is Quarto's.
"""
import argparse
import base64
import html
import inspect
import io
import os
import re
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import nbformat
import yaml
from execnb.shell import CaptureShell
from jinja2 import Environment, FileSystemLoader
from latex2mathml.converter import convert
from markupsafe import Markup
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbdev.process import Processor
from PIL import Image
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

sys.path.insert(0, str(Path(__file__).resolve().parent))
from home import beside,home

ROOT = Path(__file__).resolve().parents[1]
# TeX that the converter does not know
TEX = {r'\arg': r'\operatorname{arg}'}

def line_of(symbol):
    "`(file below the repository, line)` of a function or class; None where nobody can tell"
    symbol = inspect.unwrap(getattr(symbol, '__func__', symbol))
    try:
        file, line = Path(inspect.getsourcefile(symbol)).resolve(), inspect.getsourcelines(symbol)[1]
    except (TypeError, OSError):
        return None
    return (file.relative_to(ROOT).as_posix(), line) if file.is_relative_to(ROOT) else None

def documented(text, symbol, address):
    "What nbdev shows of a symbol, with a link that leads to its line, and types that can be read"
    place = line_of(symbol)
    link = f'[source]({address}/blob/main/{place[0]}#L{place[1]})' if address and place else ''
    text = re.sub(r'\[source\]\([^)]*\)(\{[^}]*\})?', lambda m: link + (m[1] or '') if link else '', text)
    # a configuration is shown on its own page, field by field
    return re.sub(r'(:(\w+)=\2)\([^()\n]*\)', r'\1()', text)

class ShowSymbols(Processor):
    "Fill in the documentation of exported names, from the modules: unlike nbdev's own step it runs no other code"
    def begin(self):
        self.shell = CaptureShell()
        self.shell.run_cell('from nbdev.showdoc import show_doc')
        source = nbformat.read(self.nb.path_, 4)
        for name in {m[1] for c in source.cells if (m := re.search(r'^#\|\s*default_exp\s+(\S+)', c.source, re.M))}:
            self.shell.run_cell(f'import capdec.{name} as _m\n'
                "globals().update({k: v for k,v in vars(_m).items() if not k.startswith('__') or k == '__call__'})")

    def __call__(self, cell):
        if cell.cell_type != 'code' or not re.search(r'^show_doc', cell.source, re.M):
            return
        self.shell.cell(cell)
        if self.shell.exc:
            raise Exception(f'{self.nb.path_}: {cell.source}') from self.shell.exc
        named = re.search(r'^show_doc\(([\w.]+)', cell.source, re.M)
        symbol = eval(named[1], self.shell.user_ns) if named else None
        for o in cell.outputs:
            for kind,text in o.get('data', {}).items():
                if kind == 'text/markdown':
                    text = ''.join(text)
                    o['data'][kind] = documented(text, symbol, home())

class OwnPages(Processor):
    "Links of tutorials, which are whole for Colab's sake, lead to the pages of the site"
    def __call__(self, cell):
        if cell.cell_type == 'markdown':
            cell.source = beside(cell.source)

class NoScripts(Processor):
    "HTML among the outputs goes on as Markdown: beside HTML as such, Quarto loads scripts from another host"
    def __call__(self, cell):
        for o in cell.get('outputs', []):
            data = o.get('data', {})
            if 'text/html' in data:
                data['text/markdown'] = '```{=html}\n' + ''.join(data.pop('text/html')) + '\n```'

def is_table(text):
    "Are these lines of printed text a table? Then none of them is broken"
    lines = text.rstrip('\n').splitlines()
    columns = sum(bool(re.search(r'\S {2,}\S', o)) for o in lines)
    return columns > 2 and columns > len(lines)/2 and max(map(len, lines)) < 140

class WideOutputs(Processor):
    "A cell that prints a table says so: in styles.css other lines are wrapped, and those of a table scroll"
    def __call__(self, cell):
        if cell.cell_type != 'code' or cell.source.startswith('%%'):
            return
        said = (o.get('text') or o.get('data', {}).get('text/plain', '') for o in cell.get('outputs', []))
        if any(is_table(''.join(o)) for o in said):
            cell.source = f'#| classes: columns\n{cell.source}'

class Renderer(IPythonRenderer):
    "HTML of Markdown, as Quarto makes it: pandoc's names of headings, formulas as MathML; keeps the list of headings"
    def __init__(self, name=''):
        super().__init__(escape=False)
        self.name = name
        self.headings = []

    def heading(self, text, level, **attrs):
        # to Markdown the underscores of `Bridge.__call__` are bold type
        text = re.sub(r'(?<=\.)<strong>(\w+)</strong>', r'__\1__', text)
        title = html.unescape(re.sub(r'<[^>]+>', '', text)).strip()
        slug = re.sub(r'\s+', '-', re.sub(r'[^\w\s.-]', '', title.replace('__', '').lower()).strip())
        slug = re.sub(r'^[^a-z]+', '', slug) or 'section'
        same = sum(o.slug == slug for o in self.headings)
        anchor = f'{slug}-{same}' if same else slug
        shown = re.sub(r'(?<=[\w.])[._](?=\w)', r'\g<0><wbr>', html.escape(title))
        self.headings.append(SimpleNamespace(level=level, title=Markup(shown), slug=slug, anchor=anchor))
        link = f'<a class="anchor" href="#{anchor}" aria-label="Link to this heading">#</a>'
        return f'<h{level} id="{anchor}">{text}{link}</h{level}>\n'

    def formula(self, tex, display):
        "MathML of a formula; browsers draw it without a script"
        for k,v in TEX.items():
            tex = re.sub(re.escape(k) + r'(?![a-zA-Z])', lambda m: v, tex)
        made = convert(tex.strip(), display=display)
        # what it does not know, the converter leaves in the text
        if unknown := re.search(r'\\[a-zA-Z]+', made):
            raise SystemExit(f'{self.name}: the formula {tex.strip()} has {unknown[0]}, which latex2mathml does not '
                'know; write it otherwise, or add it to TEX in tools/render_site.py')
        return made

    def block_math(self, body):
        return f'<span class="formula">{self.formula(body, "block")}</span>'

    def inline_math(self, body):
        return self.formula(body, 'inline')

    def codespan(self, text):
        # a line may end after a part of a name, but not between a flag's hyphens and its name
        parts = re.sub(r'(?<=\w)[_/](?=\w)', r'\g<0><wbr>', html.escape(text))
        return '<code>' + re.sub(r'(?<!\S)--?\w', r'<span class="flag">\g<0></span>', parts) + '</code>'

    def block_code(self, code, info=None):
        if info == '{=html}':
            return f'<div class="out">{code}</div>'
        # nor within a number
        made = super().block_code(code, info)
        whole = r'(?<![\w-])--?\w[\w-]*|\b\d[\d.]*e-\d+|\butf-8'
        return re.sub(rf'(<[^>]*>)|{whole}', lambda m: m[1] or f'<span class="flag">{m[0]}</span>', made)

    def table(self, text):
        return f'<div class="table"><table>\n{text}</table></div>\n'

    def markdown(self, text):
        "HTML of `text`; an attribute that only Quarto reads is left out, a link to the source is set aside"
        made = MarkdownWithMath(renderer=self).render(re.sub(r'\{target=[^}]*\}', '', text))
        return re.sub(r'<p>(<a href="[^"]*">source</a>)</p>', r'<p class="source">\1</p>', made)

def options(source):
    "Quarto's cell options, and the source without them"
    opts = dict(re.findall(r'^#\|\s*([\w-]+):\s*(.+?)\s*$', source, re.M))
    return {k: v.strip('"\'') for k,v in opts.items()}, re.sub(r'^#\|.*\n?', '', source, flags=re.M).strip()

def printed(text):
    "A box of printed text; its lines are wrapped, but for those of a table"
    text = text.rstrip('\n')
    return f'<div class="out"><pre{" class=columns" if is_table(text) else ""}>{html.escape(text)}</pre></div>'

def figure(data, kind, opts, render):
    "A picture with its caption"
    caption = opts.get('fig-cap', '')
    alt = html.escape(opts.get('fig-alt', caption))
    below = f'<figcaption>{render.markdown(caption)}</figcaption>' if caption else ''
    width = Image.open(io.BytesIO(base64.b64decode(data[kind]))).width
    image = f'<img src="data:{kind};base64,{data[kind].strip()}" alt="{alt}" style="--width: {width}px">'
    return f'<figure><div class="picture">{image}</div>{below}</figure>'

def render_output(o, opts, render):
    "HTML of one output of a cell"
    if o.output_type == 'stream':
        return printed(o.text)
    data = o.get('data', {})
    if kind := next((k for k in ('image/png', 'image/jpeg') if k in data), None):
        return figure(data, kind, opts, render)
    if 'image/svg+xml' in data:
        return f'<figure>{data["image/svg+xml"]}</figure>'
    if 'text/markdown' in data:
        return render.markdown(data['text/markdown'])
    return printed(data.get('text/plain', ''))

def render_cell(c, render):
    "HTML of one cell with its outputs"
    if c.cell_type == 'raw':
        return ''
    if c.cell_type == 'markdown':
        return render.markdown(c.source)
    opts,source = options(c.source)
    if opts.get('include') == 'false':
        return ''
    parts = []
    if source and opts.get('echo') != 'false':
        code = highlight(source, PythonLexer(), HtmlFormatter())
        if opts.get('code-fold', 'false') != 'false':
            shown = ' open' if opts['code-fold'] == 'show' else ''
            summary = html.escape(opts.get('code-summary', 'Code'))
            code = f'<details{shown}><summary>{summary}</summary>{code}</details>'
        parts.append(code)
    if opts.get('output') != 'false':
        parts += [render_output(o, opts, render) for o in c.outputs]
    return '\n'.join(parts)

def pages(folder):
    "Every page of a folder: its source's path there, its name on the site, its title, description and cells"
    for p in sorted(Path(folder).rglob('*.ipynb')):
        cells = nbformat.read(p, 4).cells
        first = next((c.source for c in cells if c.cell_type == 'raw' and c.source.startswith('---')), '')
        front = yaml.safe_load(first.strip().strip('-')) or {}
        yield SimpleNamespace(source=p.relative_to(folder).as_posix(), cells=cells, title=front.get('title', p.stem),
            name=front.get('output-file') or p.with_suffix('.html').name, description=front.get('description', ''))

    for p in sorted(Path(folder).rglob('*.md')):
        text = re.sub(r'\A---\n.*?\n---\n', '', p.read_text(encoding='utf-8'), flags=re.S)
        title,_,rest = text.lstrip().partition('\n')
        yield SimpleNamespace(source=p.relative_to(folder).as_posix(), cells=[nbformat.v4.new_markdown_cell(rest)],
            title=title.lstrip('# '), name=p.with_suffix('.html').name, description='')

def sidebar(config, found):
    "The sidebar's sections, each with a title (none for a page that stands alone) and entries of page and text"
    def entry(o):
        source,text = (o['href'], o.get('text')) if isinstance(o, dict) else (o, None)
        if source not in found:
            raise SystemExit(f'_quarto.yml: the sidebar names {source}, which is not there')
        return SimpleNamespace(page=found[source], text=text or found[source].title)
    alone = lambda o: isinstance(o, str) or 'section' not in o
    return [SimpleNamespace(title=None, entries=[entry(o)]) if alone(o) else
        SimpleNamespace(title=o['section'], entries=[entry(p) for p in o['contents']])
        for o in config['website']['sidebar']['contents']]

def write_site(
    folder, # Processed notebooks and Markdown files
    out, # Folder to write to
    config, # What _quarto.yml says
):
    "Write every page of `folder` to `out`; returns the pages"
    out = Path(out)
    found = {o.source: o for o in pages(folder)}
    sections = sidebar(config, found)
    order = [e for s in sections for e in s.entries]
    # nbdev writes links to our own pages with the site's address, while there is none with a slash alone
    own = re.escape(config['website'].get('site-url', '').rstrip('/'))
    template = Environment(loader=FileSystemLoader(ROOT/'tools'), autoescape=True).get_template('site.html')
    for page in found.values():
        render = Renderer(page.source)
        body = '\n'.join(render_cell(c, render) for c in page.cells)
        to = lambda m: f'href="{found[m[1]].name}' if m[1] in found else m[0]
        body = re.sub(rf'href="(?:{own}/)?([\w/]+\.(?:ipynb|md))', to, body)
        body = re.sub(rf'href="{own}/(?!/)', 'href="', body)
        at = next((i for i,e in enumerate(order) if e.page is page), None)
        before = order[at-1] if at else None
        after = order[at+1] if at is not None and at+1 < len(order) else None
        contents = [o for o in render.headings if o.level < 4]
        (out/page.name).write_text(template.render(page=page, body=body, contents=contents, sections=sections,
            before=before, after=after, site=config['website']['title']), encoding='utf-8')
    css = '\n'.join(p.read_text(encoding='utf-8') for p in (ROOT/'tools'/'site.css', ROOT/'nbs'/'gallery.css'))
    light,dark = (HtmlFormatter(style=o).get_style_defs('.highlight') for o in ('default', 'github-dark'))
    css += f'\n{light}\n@media (prefers-color-scheme: dark) {{\n{dark}\n}}\n'
    (out/'site.css').write_text(css, encoding='utf-8')
    return list(found.values())

def broken(
    out, # Folder of the site
):
    "Links of the pages in `out` to a page, a picture or a heading that is not there"
    text = {p.name: p.read_text(encoding='utf-8') for p in sorted(Path(out).glob('*.html'))}
    ids = {k: set(re.findall(r'\bid="([^"]+)"', v)) for k,v in text.items()}
    for name,page in text.items():
        for link in sorted(set(re.findall(r'<(?:a|img|link)\b[^>]*?\b(?:href|src)="([^"]*)"', page))):
            target,_,anchor = html.unescape(link).partition('#')
            if re.match(r'[a-z]+:', target):
                continue
            target = target or name
            if not (Path(out)/target).exists():
                yield f'{name}: {link}: no such file'
            elif anchor and anchor not in ids.get(target, ()):
                yield f'{name}: {link}: no such heading'

def render(
    out, # Folder to write to; what is in it is deleted
):
    "Prepare the notebooks and write the site to `out`; returns its pages"
    from nbdev.serve import proc_nbs
    proc_nbs(force=True)
    out = Path(out)
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    shutil.copytree(ROOT/'nbs'/'images', out/'images')
    config = yaml.safe_load((ROOT/'_quarto.yml').read_text(encoding='utf-8'))
    # nbdev writes what settings.ini says, such as the site's address
    made = yaml.safe_load((ROOT/'nbs'/'nbdev.yml').read_text(encoding='utf-8'))
    config['website'] = made['website'] | config['website']
    for o in [*config['project']['resources'], config['website']['favicon']]:
        (out/o).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT/'nbs'/o, out/o)
    return write_site(ROOT/'_proc', out, config)

if __name__ == '__main__':
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--out', default='_out/site', help='folder to write to; what is in it is deleted')
    args = ap.parse_args()
    # nbdev's workers import this file as tools.render_site, and the modules that it documents
    sys.path.insert(0, str(ROOT))
    os.environ['PYTHONPATH'] = os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')])
    os.chdir(ROOT)
    made = render(args.out)
    print(f'{len(made)} pages in {args.out}; open {args.out}/index.html')
    if wrong := list(broken(args.out)):
        sys.exit('\n'.join(['links that lead nowhere:', *wrong]))
