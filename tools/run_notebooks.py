"""Execute notebooks in place and keep their outputs, so that readers see results.

Cells flagged `slow`, `cuda`, `net`, `ray` or `notest`, or `eval: false`, are left as they are (with the outputs
they have) unless the flag is named with --flags. Usage: python tools/run_notebooks.py [--flags slow] nbs/03*.ipynb
"""
import argparse, re, sys, time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

SKIP = ('notest', 'slow', 'cuda', 'net', 'ray')

def skipped(source, run):
    "Does a flag of this cell say not to run it? The export cell writes modules, which no test does."
    flags = {f.strip() for f in re.findall(r'^#\|\s*(\S[^\n]*)', source, re.M)}
    if 'nbdev_export()' in source:
        return True
    return any(f in flags and f not in run for f in SKIP) or any(re.fullmatch(r'eval:\s*false', f) for f in flags)

def tidy(cell):
    "Drop what differs from run to run and says nothing: progress bars, widget states, counters."
    outs = []
    for o in cell.outputs:
        if o.output_type == 'stream':
            if o.name == 'stderr' and ('%|' in o.text or '\r' in o.text or 'tokens per second' in o.text):
                continue
            # what Ray's C++ parts log, with time and process
            if o.name == 'stderr' and re.match(r'\[\d{4}-\d\d-\d\d [^\]]*\] (\(\S+\) )?\w+\.cc:', o.text):
                continue
            o.text = '\n'.join(l for l in o.text.split('\n') if not l.startswith('Writing model shards'))
            if not o.text.strip():
                continue
        data = o.get('data', {})
        if 'application/vnd.jupyter.widget-view+json' in data:
            # a progress bar
            if re.search(r'\[\d\d:\d\d', data.get('text/plain', '')):
                continue
            data.pop('application/vnd.jupyter.widget-view+json')
        o.get('metadata', {}).clear()
        # printed in a row, one box
        if outs and o.output_type == 'stream' and o.name == outs[-1].get('name'):
            outs[-1].text += o.text
        else:
            outs.append(o)
    cell.outputs, cell.execution_count = outs, None
    for o in outs:
        if 'execution_count' in o:
            o['execution_count'] = None

def run(path, flags=()):
    nb = nbformat.read(path, 4)
    client = NotebookClient(nb, timeout=3600, kernel_name='python3', resources={'metadata': {'path': str(path.parent)}})
    start = time.time()
    with client.setup_kernel():
        for i, cell in enumerate(nb.cells):
            if cell.cell_type != 'code' or skipped(cell.source, flags):
                continue
            try:
                client.execute_cell(cell, i, execution_count=1)
            except CellExecutionError as e:
                print(f'{path}: cell {i} failed\n{cell.source}\n{e}', file=sys.stderr)
                return False
            tidy(cell)
    nb.metadata = {'kernelspec': {'display_name': 'python3', 'language': 'python', 'name': 'python3'}}
    for cell in nb.cells:
        cell.metadata = {}
    nbformat.write(nb, path)
    print(f'{path}: {time.time()-start:.1f} s')
    return True

if __name__ == '__main__':
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument('notebooks', nargs='+', type=Path)
    ap.add_argument('--flags', default='', help='flags to run although they are skipped by default, space separated')
    args = ap.parse_args()
    sys.exit(not all([run(p, args.flags.split()) for p in args.notebooks]))
