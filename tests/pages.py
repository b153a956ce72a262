"A small site of three pages for tests, made by tools/render_site.py"
import shutil
import sys

import nbformat

from conftest import ROOT

sys.path.insert(0, str(ROOT/'tools'))

FORMULA = r'The blur $\sqrt{d v}$ of a vector, and $$\tilde e = \frac{e + \sqrt{v}\,g}{\lVert e \rVert}$$ in full.'
LONG = "words = '" + ' '.join(['wide']*60) + "' + '" + 'x'*300 + "'"
TABLE = '| flag | here | remark |\n|---|---|---:|\n| `--use_image_embedding_as_clipcap` | `--beam` | 4 |'
SIDEBAR = dict(contents=['index.ipynb', dict(section='Part', contents=['b.ipynb', dict(href='a.md', text='Card')])])

def notebook(title, *cells):
    "A notebook as nbdev hands it to Quarto"
    front = f'---\ntitle: {title}\noutput-file: {title.lower()}.html\ndescription: What {title} is about\n---'
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_raw_cell(front), *cells])

def small_site(folder, address='https://small.example/docs'):
    "Three pages made by the preview, of a site that has this address; returns the folder of the site"
    import render_site
    made = nbformat.v4.new_output('execute_result', {'text/plain': "'wide'"})
    symbol = '[source](https://small.example/c.py){target="_blank" style="float:right"}\n\n### Thing.do\n\n*Does it*'
    shown = nbformat.v4.new_output('display_data', {'text/markdown': symbol})
    printed = nbformat.v4.new_output('stream', text='\n'.join(f'row {i}      {"1.0   "*18}' for i in range(4)))
    text = f'## Why\n\n[on](b.ipynb#why) [card](a.md)\n\n## Why\n\n{TABLE}'
    home = notebook('Index', nbformat.v4.new_markdown_cell(text))
    second = notebook('Second', nbformat.v4.new_markdown_cell(f'## Why\n\n{FORMULA}\n\n## `code` in a title'),
        nbformat.v4.new_code_cell(LONG, outputs=[made, printed]),
        nbformat.v4.new_code_cell('#| code-fold: true\nfold = 1'),
        nbformat.v4.new_code_cell('#| echo: false\nno', outputs=[shown]),
        nbformat.v4.new_markdown_cell(f'[home]({address}/index.html) [back](index.ipynb)'))
    (folder/'in').mkdir()
    (folder/'out').mkdir()
    nbformat.write(home, folder/'in'/'index.ipynb')
    nbformat.write(second, folder/'in'/'b.ipynb')
    (folder/'in'/'a.md').write_text('# The card\n\nWords.\n')
    shutil.copy(ROOT/'nbs'/'favicon.svg', folder/'out')
    config = dict(project=dict(resources=[]), website={'title': 'small', 'site-url': address, 'sidebar': SIDEBAR})
    render_site.write_site(folder/'in', folder/'out', config)
    return folder/'out'
