"The capdec command for tests: in this process, or in one of its own"
import contextlib
import io
import os
import subprocess
import sys

class Result:
    def __init__(self, returncode, stdout, stderr):
        self.returncode, self.stdout, self.stderr = returncode, stdout, stderr

def capdec(*args, cwd=None, ok=None):
    "Run the command in this process (importing torch anew takes seconds); an error that is not one line escapes"
    from capdec.cli import main
    out, err, here = io.StringIO(), io.StringIO(), os.getcwd()
    if cwd:
        os.chdir(cwd)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main([str(a) for a in args])
    except SystemExit as e:
        code = e.code
    finally:
        os.chdir(here)
    if ok is not None:
        assert (code == 0) == ok, (code, out.getvalue(), err.getvalue())
    return Result(code, out.getvalue(), err.getvalue())

def capdec_process(*args, cwd=None, ok=None):
    "Run the command in a process of its own; never a traceback"
    env = dict(os.environ, CUDA_VISIBLE_DEVICES='', OMP_NUM_THREADS='1', HF_HUB_OFFLINE='1')
    r = subprocess.run([sys.executable, '-c', 'import sys; from capdec.cli import main; sys.exit(main())',
        *map(str, args)], cwd=cwd, env=env, capture_output=True, text=True, timeout=600)
    assert 'Traceback' not in r.stderr, r.stderr
    if ok is not None:
        assert (r.returncode == 0) == ok, (r.returncode, r.stdout, r.stderr)
    return r

def one_line(r):
    return [l for l in r.stderr.splitlines() if l.startswith('capdec')]

GOOD = {'plain.jpg', 'cmyk.jpg', 'alpha.png', 'sixteen.png', 'rotated.jpg', 'grey.png'}

COCO_NAMES = {'train': [11, 12], 'val': [391895, 522418]}

def official(path, n=6, d=512, per_image=1, image=False, seed=0):
    import pickle
    import torch
    v = torch.randn(n, d, generator=torch.Generator().manual_seed(seed)).half()
    path.parent.mkdir(parents=True, exist_ok=True)
    entries = [dict(image_id=i//per_image, caption=f'A dog {i}.', id=i, clip_embedding=i) for i in range(n)]
    path.write_bytes(pickle.dumps({'clip_embedding': v if image else 0, 'clip_embedding_text_dave': 0 if image else v,
        'captions': entries}))
    return path
