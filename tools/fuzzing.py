"""What the fuzzers share: one input in a process of its own, its end, and a histogram of ends.

A kind of input is a class with three methods. `ready(folder)` makes the good inputs once. `make(box, rng)` makes one
input in an empty folder and says what was done to it and what is known of it. `use(path, known)` does with the input
what people do, and gives two things that must be equal: what was read, and what is read after it was written again.
Where `make` knows the right answer, `use` compares with it itself (`agree`).
"""
import copy
import json
import os
import random
import resource
import select
import shutil
import signal
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path

LIMIT_S, LIMIT_BYTES = 20, 3_000_000_000
GOOD = ('read', 'refused inside', 'refused at the door')

class Changed(Exception):
    "What was read is not what is in the file"

def agree(got, right, what):
    if got != right:
        raise Changed(f'{what}: {str(got)[:300]!r} instead of {str(right)[:300]!r}')

def outcome(kind, path, known):
    "The end of one input: `(end, line)`"
    try:
        with warnings.catch_warnings(record=True):
            warnings.simplefilter('always')
            first, again = kind.use(path, known)
        return ('read', '') if first == again else ('changed', f'{first} became {again}'[:800])
    except Changed as e:
        return 'changed', str(e)
    except (ValueError, OSError) as e:
        said = str(e)
        # other odd characters are printed as such, see `capdec.core.printable`
        if len(said.splitlines()) > 1:
            return 'several lines', repr(said)
        if kind.name_of(path) not in said:
            return 'unnamed', said
        return ('refused at the door' if any(o in said for o in kind.door) else 'refused inside'), said
    except BaseException as e:
        return 'traceback', ''.join(traceback.format_exception(e))[-1500:]

def run(kind, path, known, box):
    "The end of one input, in a process of its own; hangs and too much memory are ends, too"
    get, put = os.pipe()
    with warnings.catch_warnings():
        # the fuzzer of addresses has a thread that answers
        warnings.simplefilter('ignore', DeprecationWarning)
        pid = os.fork()
    if not pid:
        os.close(get)
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, 1)
        os.dup2(devnull, 2)
        os.chdir(box)
        resource.setrlimit(resource.RLIMIT_CPU, (2*LIMIT_S, 2*LIMIT_S))
        with os.fdopen(put, 'w') as o:
            o.write(json.dumps(outcome(kind, path, known)))
        os._exit(0)
    os.close(put)
    end, said = time.monotonic()+LIMIT_S, b''
    while select.select([get], [], [], max(0, end-time.monotonic()))[0]:
        if not (part := os.read(get, 1 << 16)):
            break
        said += part
    else:
        os.kill(pid, signal.SIGKILL)
    os.close(get)
    _, status, used = os.wait4(pid, 0)
    if not said:
        return ('hang', f'{LIMIT_S} s') if time.monotonic() >= end else ('crash', f'status {status}')
    if (box/'EVIL').exists():
        return 'code ran', ''
    # Linux counts in KB
    if used.ru_maxrss*1000 > LIMIT_BYTES:
        return 'memory', f'{used.ru_maxrss/1e6:.1f} GB'
    return tuple(json.loads(said))

def numbers(kind, first, n, tmp, keep='', show=10):
    "Try inputs number `first` to `first+n`, each a function of its number; the ends, counted, and the bad ones in full"
    ends, bad, box = Counter(), [], Path(tmp)/'box'
    for i in range(first, first+n):
        rng = random.Random(f'{kind.name} {i}')
        box.mkdir()
        path, done, known = kind.make(box, rng)
        end, line = run(kind, path, known, box)
        ends[end] += 1
        if end not in GOOD:
            if len(bad) < show:
                bad.append(f'{kind.name} {i}: {done}: {end}\n  {line}')
            if keep:
                shutil.copytree(box, Path(keep)/f'{kind.name}-{i}-{end.replace(" ", "_")}', symlinks=True,
                    ignore=lambda d, names: [o for o in names if not (Path(d)/o).is_file()], dirs_exist_ok=True)
        shutil.rmtree(box)
    return ends, bad

# ---- changes that any kind may suffer

def odd_bytes(raw, rng):
    "A few bytes changed, cut out, put in or repeated"
    b = bytearray(raw)
    for _ in range(rng.choice([1, 1, 2, 5])):
        at = rng.randrange(min(len(b), 80) if rng.random() < .4 else len(b)) if b else 0
        how = rng.choice(['change', 'change', 'cut', 'insert', 'end', 'twice'])
        if how == 'change' and b:
            b[at] = rng.randrange(256)
        elif how == 'cut':
            del b[at:at+rng.randrange(1, 40)]
        elif how == 'insert':
            b[at:at] = rng.randbytes(rng.randrange(1, 9))
        elif how == 'twice':
            b[at:at] = b[at:at+rng.randrange(1, 200)]
        elif rng.random() < .3:
            del b[at:]
    return bytes(b)

ODD = [None, True, False, 0, 1, -1, 2, 7, 3.5, -0.5, 1e-300, 1e308, float('nan'), float('inf'), 10**4, 10**6, 10**9,
    10**12, 10**19, 10**30, -10**9, '', ' ',
    'evil', '.', '../..', '/etc/passwd', 'a'*100_000, '\x00', '\x1b[2J', '\ud800', 'a\nb', [], [1], {}, {'a': 1}, [[]],
    ['evil'], [None], [10**9]*3, [0]*1000, {'': {}}]

def places(o, path=()):
    "Every place in a tree of JSON"
    yield path
    items = o.items() if isinstance(o, dict) else enumerate(o[:50]) if isinstance(o, list) else ()
    for k, v in list(items)[:200]:
        yield from places(v, (*path, k))

def odd_tree(tree, rng, path=None, known=None):
    """Another value, or another key, somewhere in a tree of JSON, which is changed in place. `path`: where; `known`:
    values that keys of such files must not have"""
    path = rng.choice(list(places(tree))) if path is None else path
    parent = tree
    for k in path[:-1]:
        parent = parent[k]
    how = rng.choice(['value', 'value', 'delete', 'key', 'type'] + ['value', 'known']*bool(known))
    if how == 'known' and isinstance(parent, dict):
        k = rng.choice(list(known))
        parent[k] = known[k]
    elif not path:
        return copy.deepcopy(rng.choice(ODD))
    elif how == 'delete':
        del parent[path[-1]]
    elif how == 'key' and isinstance(parent, dict):
        parent[rng.choice(['', 'evil', '__class__', f'{path[-1]} '])] = parent.pop(path[-1])
    elif how == 'type':
        v = parent[path[-1]]
        parent[path[-1]] = rng.choice([str(v)[:50], [v], {'v': v}])
    else:
        parent[path[-1]] = copy.deepcopy(rng.choice(ODD))
    return tree
