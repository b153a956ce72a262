"""Write README.md from nbs/index.ipynb, with links to the documented symbols.

--check: only say whether it is current.
"""
import re, sys
from pathlib import Path

import nbformat
from nbdev.config import get_config
from nbdev.doclinks import NbdevLookup

def render():
    "The README's text"
    cfg, parts = get_config(), []
    nb = nbformat.read(cfg.config_path/'nbs'/'index.ipynb', 4)
    for cell in nb.cells:
        if re.search(r'^#\|\s*(hide|include: false)', cell.source, re.M):
            continue
        if cell.cell_type == 'markdown':
            parts.append(cell.source)
        elif cell.cell_type == 'code' and cell.source.strip():
            code = '\n'.join(l for l in cell.source.split('\n') if not l.startswith('#|'))
            parts.append(f'```python\n{code.strip()}\n```')
            for o in cell.outputs:
                text = o.get('text') or o.get('data', {}).get('text/plain')
                if text and 'image/png' not in o.get('data', {}):
                    parts.append('    ' + text.strip().replace('\n', '\n    '))
    text = NbdevLookup().linkify('\n\n'.join(parts))
    text = re.sub(r'\]\((images/[^)]+)\)', r'](nbs/\1)', text)
    text = re.sub(r'src="(images/[^"]+)"', r'src="nbs/\1"', text)
    text = re.sub(r'\]\(([\w/]+\.ipynb(?:#[\w-]+)?)\)', r'](nbs/\1)', text)
    # GitHub does not follow links to files
    real = lambda name: (cfg.config_path/'nbs'/name).resolve().relative_to(cfg.config_path.resolve()).as_posix()
    text = re.sub(r'\]\((\w+\.md)\)', lambda m: f']({real(m[1])})', text)
    # a file beside the README
    text = text.replace('`CONTRIBUTING.md`', '[CONTRIBUTING.md](CONTRIBUTING.md)')
    return '<!-- Made from nbs/index.ipynb by tools/build_readme.py: edit the notebook. -->\n\n' + text + '\n'

if __name__ == '__main__':
    path = get_config().config_path/'README.md'
    if '--check' in sys.argv:
        if not path.exists() or path.read_text(encoding='utf-8') != render():
            sys.exit('README.md is not current: make readme')
    else:
        path.write_text(render(), encoding='utf-8')
