"The capdec command for tests: in this process, or in one of its own"
import contextlib
import io
import os
import signal
import sys
import tempfile
import time
import traceback

class Result:
    def __init__(self, returncode, stdout, stderr):
        self.returncode, self.stdout, self.stderr = returncode, stdout, stderr

def capdec(*args, cwd=None, ok=None):
    "Run the command in this process (importing torch again takes seconds); an error that is not one line escapes"
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
    r = forked('import sys; from capdec.cli import main; sys.exit(main())', *args, cwd=cwd)
    assert 'Traceback' not in r.stderr, r.stderr
    if ok is not None:
        assert (r.returncode == 0) == ok, (r.returncode, r.stdout, r.stderr)
    return r

# what makes captions quick
FAST = ('--device', 'cpu', '--beam_size', 1)

def caption(*args, ok=True):
    "Caption quickly"
    return capdec('caption', *args, *FAST, ok=ok)

def said(r):
    "The last line of what a command printed"
    return r.stdout.strip().splitlines()[-1]

def one_line(r):
    return [l for l in r.stderr.splitlines() if l.startswith('capdec')]

def _become(code, args, cwd, env, files):
    "In a forked process: run `code` as `python -c` would, and end"
    import torch
    code_out = 1
    try:
        # after a fork PyTorch makes a new pool of threads at the first call; two threads at once would find none
        torch.set_num_threads(1)
        for fd, f in enumerate(files):
            os.dup2(f.fileno(), fd)
        # the tests may run in the background or under nohup, where signals are ignored
        for o in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
            signal.signal(o, signal.default_int_handler if o == signal.SIGINT else signal.SIG_DFL)
        sys.stdin = open(0, closefd=False)
        sys.stdout, sys.stderr = (open(fd, 'w', encoding='utf-8', errors='surrogateescape', closefd=False,
            buffering=1) for fd in (1, 2))
        os.environ.update(env)
        os.chdir(cwd or '.')
        sys.argv = ['-c', *map(str, args)]
        try:
            exec(compile(code, '-c', 'exec'), {'__name__': '__main__'})
            code_out = 0
        except SystemExit as e:
            code_out = e.code if isinstance(e.code, int) else int(e.code is not None)
        except BaseException:
            traceback.print_exc()
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
    finally:
        os._exit(code_out)

def forked(code, *args, cwd=None, env=(), timeout=600):
    "What `python -c CODE ARGS` gives, from a copy of this process: one that need not import torch takes no seconds"
    # once, and not in each copy
    import torch, timm, transformers.models.gpt2.modeling_gpt2
    torch.set_num_threads(1)
    with open(os.devnull) as no, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        if not (pid := os.fork()):
            _become(code, args, cwd, dict(env), (no, out, err))
        end = time.monotonic() + timeout
        while not (ended := os.waitpid(pid, os.WNOHANG))[0]:
            if time.monotonic() > end:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                raise TimeoutError(f'{args}: more than {timeout} s')
            time.sleep(.01)
        for f in (out, err):
            f.seek(0)
        return Result(os.waitstatus_to_exitcode(ended[1]), *(f.read().decode('utf-8', 'surrogateescape')
            for f in (out, err)))

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
