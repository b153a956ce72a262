"""Render the site without Quarto, to look at its pages and to check their links: python tools/render_site.py [--out _out/site]

nbdev prepares the notebooks as it does for Quarto (`nbdev.serve.proc_nbs`), nbconvert makes HTML of them. Quarto's
cell options that the project uses are honoured: echo, output, code-fold, fig-cap, fig-alt. The page layout here is only for looking;
what is published is Quarto's.
"""
import argparse, base64, html, os, re, shutil, sys
from pathlib import Path

import nbformat, yaml
from execnb.shell import CaptureShell
from nbdev.process import Processor

ROOT = Path(__file__).resolve().parents[1]
STYLE = '''body{margin:0;font:16px/1.6 system-ui,Helvetica,Arial,sans-serif;color:#222;background:#fff} nav{position:fixed;top:0;left:0;width:230px;height:100vh;overflow:auto;padding:18px;box-sizing:border-box;background:#f6f7f9;font-size:14px}
nav a{display:block;color:#345;text-decoration:none;padding:2px 0} nav b{display:block;margin-top:12px} nav a.here{font-weight:bold;color:#2a62b0} main{margin-left:250px;max-width:860px;padding:10px 24px 60px} pre{background:#f6f7f9;padding:9px 12px;overflow-x:auto;font-size:13px;line-height:1.45;border-radius:4px}
.out pre{background:none;border-left:2px solid lightsalmon;border-radius:0;margin-left:12px} img,svg{max-width:100%} table{border-collapse:collapse;font-size:14px;display:block;overflow-x:auto} td,th{border-bottom:1px solid #ddd;padding:4px 9px;text-align:left;vertical-align:top} code{font-size:90%} figure{margin:12px 0} figcaption{font-size:14px;color:#555} .desc{color:#555;font-size:18px} summary{cursor:pointer;color:#777;font-size:13px} blockquote{border-left:3px solid #ccc;margin-left:0;padding-left:14px;color:#555}
@media (prefers-color-scheme:dark){body{background:#1e2126;color:#ddd} nav,pre{background:#272b31} nav a,a{color:#8ab4f8} td,th{border-color:#444} figure img{background:#fff} figcaption,.desc,blockquote{color:#aaa}}'''

class ShowSymbols(Processor):
    "Fill in the documentation of exported names; unlike nbdev's own step it takes them from the modules and runs no other code"
    def begin(self):
        self.shell = CaptureShell()
        self.shell.run_cell('from nbdev.showdoc import show_doc')
        source = nbformat.read(self.nb.path_, 4)
        for name in {m[1] for c in source.cells if (m := re.search(r'^#\|\s*default_exp\s+(\S+)', c.source, re.M))}:
            self.shell.run_cell(f"import capdec.{name} as _m; globals().update({{k: v for k,v in vars(_m).items() if not k.startswith('__') or k == '__call__'}})")

    def __call__(self, cell):
        if cell.cell_type != 'code' or not re.search(r'^show_doc', cell.source, re.M): return
        self.shell.cell(cell)
        if self.shell.exc: raise Exception(f'{self.nb.path_}: {cell.source}') from self.shell.exc

def options(source):
    "Quarto's cell options, and the source without them"
    opts = dict(re.findall(r'^#\|\s*([\w-]+):\s*(.+?)\s*$', source, re.M))
    return {k: v.strip('"\'') for k,v in opts.items()}, re.sub(r'^#\|.*\n?', '', source, flags=re.M).strip()

def render_output(o, opts, markdown):
    data = o.get('data', {})
    if o.output_type == 'stream': return f'<div class="out"><pre>{html.escape(o.text)}</pre></div>'
    if kind := next((o for o in ('image/png','image/jpeg') if o in data), None):
        cap,alt = opts.get('fig-cap', ''),opts.get('fig-alt', opts.get('fig-cap', ''))
        return f'<figure><img src="data:{kind};base64,{data[kind].strip()}" alt="{html.escape(alt)}">' + (f'<figcaption>{markdown(cap)}</figcaption>' if cap else '') + '</figure>'
    if 'image/svg+xml' in data: return f'<figure>{data["image/svg+xml"]}</figure>'
    if 'text/markdown' in data: return markdown(re.sub(r'\{target=[^}]*\}', '', data['text/markdown']))
    if 'text/html' in data: return f'<div class="out">{data["text/html"]}</div>'
    return f'<div class="out"><pre>{html.escape(data.get("text/plain", ""))}</pre></div>'

def render_cell(c, markdown):
    if c.cell_type == 'raw': return ''
    if c.cell_type == 'markdown': return markdown(c.source)
    opts,source = options(c.source)
    if opts.get('include') == 'false': return ''
    parts = []
    if source and opts.get('echo') != 'false':
        from pygments import highlight
        from pygments.formatters import HtmlFormatter
        from pygments.lexers import PythonLexer
        code = highlight(source, PythonLexer(), HtmlFormatter(noclasses=True, nobackground=True))
        parts.append(f'<details{" open" if opts.get("code-fold") == "show" else ""}><summary>{html.escape(opts.get("code-summary", "Code"))}</summary>{code}</details>' if 'code-fold' in opts and opts['code-fold'] != 'false' else code)
    if opts.get('output') != 'false': parts += [render_output(o, opts, markdown) for o in c.outputs]
    return '\n'.join(parts)

def pages(folder):
    "Every processed notebook: file name of its page, title, description, notebook"
    for p in sorted(Path(folder).rglob('*.ipynb')):
        nb = nbformat.read(p, 4)
        front = next((yaml.safe_load(c.source.strip().strip('-')) for c in nb.cells if c.cell_type == 'raw' and c.source.startswith('---')), {}) or {}
        yield p.relative_to(folder).as_posix(), front.get('output-file') or p.with_suffix('.html').name, front.get('title', p.stem), front.get('description', ''), nb

    for p in sorted(Path(folder).rglob('*.md')):
        text = re.sub(r'\A---\n.*?\n---\n', '', p.read_text(encoding='utf-8'), flags=re.S)
        title,_,rest = text.lstrip().partition('\n')
        yield p.relative_to(folder).as_posix(), p.with_suffix('.html').name, title.lstrip('# '), '', nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(rest)])

def navigation(here, titles):
    config = yaml.safe_load((ROOT/'_quarto.yml').read_text())
    out = []
    for o in config['website']['sidebar']['contents']:
        for f in ([o] if isinstance(o, str) else [f'<b>{o["section"]}</b>', *o['contents']]):
            f,text = (f['href'], f.get('text')) if isinstance(f, dict) else (f, None)
            if f.startswith('<b>'): out.append(f); continue
            if f not in titles: raise SystemExit(f'_quarto.yml: the sidebar names {f}, which is not there')
            name,title = titles[f]; title = text or title
            out.append(f'<a href="{name}"{" class=here" if f == here else ""}>{html.escape(title)}</a>')
    return '\n'.join(out)

def render(out):
    "Write the site to the folder `out`; returns its pages"
    from nbconvert.filters.markdown_mistune import markdown2html_mistune as markdown
    from nbdev.serve import proc_nbs
    proc_nbs(force=True)
    out = Path(out); shutil.rmtree(out, ignore_errors=True); out.mkdir(parents=True)
    shutil.copytree(ROOT/'nbs'/'images', out/'images')
    for o in yaml.safe_load((ROOT/'_quarto.yml').read_text())['project']['resources']:
        (out/o).parent.mkdir(parents=True, exist_ok=True); shutil.copy(ROOT/'nbs'/o, out/o)
    found = list(pages(ROOT/'_proc'))
    titles = {f: (name, title) for f,name,title,_,_ in found}
    for f,name,title,desc,nb in found:
        body = '\n'.join(render_cell(c, markdown) for c in nb.cells)
        body = re.sub(r'href="(?:https://capdec\.github\.io/capdec/)?([\w/]+\.(?:ipynb|md))', lambda m: f'href="{titles[m[1]][0]}' if m[1] in titles else m[0], body)
        body = body.replace('href="https://capdec.github.io/capdec/', 'href="')
        (out/name).write_text(f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)} – capdec</title><style>{STYLE}</style>'
            '<script src="https://cdn.jsdelivr.net/npm/mathjax@3/es5/tex-mml-chtml.js" async></script></head>'
            f'<body><nav>{navigation(f, titles)}</nav><main><h1>{html.escape(title)}</h1><p class="desc">{html.escape(desc)}</p>{body}</main></body></html>', encoding='utf-8')
    return sorted(o[1] for o in found)

if __name__ == '__main__':
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument('--out', default='_out/site', help='folder to write to')
    args = ap.parse_args()
    sys.path.insert(0, str(ROOT)); os.environ['PYTHONPATH'] = os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')])
    os.chdir(ROOT)
    made = render(args.out)
    print(f'{len(made)} pages in {args.out}; open {args.out}/index.html')
