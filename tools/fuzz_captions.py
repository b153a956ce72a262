"""Files of captions as people write them, whole and damaged; also packed, and as predictions to be scored.

Three answers are known. What was only written in another way (a byte order mark, other line ends, columns in another
order, packed) reads as it was. What was damaged within one row leaves the other rows, or is an error. What was packed
with checksums and then damaged reads as it was, or is an error. Whatever is read is written again by capdec, and must
read the same.
"""
import bz2
import csv
import gzip
import io
import json
import lzma
import tarfile
import zipfile
from collections import Counter

from fuzzing import ODD, agree, odd_bytes, odd_tree

DOOR = ('damaged', 'missing', 'no such', 'not valid JSON', 'not UTF-8', 'is a folder', 'is empty', 'no captions',
    'nested too deeply', 'cut short', 'a page', 'pointer', 'not be unpacked')
WORDS = ('a the dog cat man two red small runs sits on in with beach, "stop" it\'s grass; night: [toy] = 7 é 犬 | #1 '
    '- @home')
NAMES = ['000123.jpg', '1000268201_693b08cb0e.jpg', 'IMG_0001.JPG', 'a b.jpg', 'COCO_val2014_000000123456.jpg',
    '20231225_101112123.jpg', 'été.png', '9007199254740993.jpg', 'sub/x.jpg', 'x.jpg', '7.jpg', '12.jpg']
BAD_IN = {'bars': '|', 'tokens': '\t', 'tabs': '\t"', 'semicolons': '|'}

def rows_of(rng, layout):
    "Some photos with one to three captions each"
    rows, names = [], rng.sample(NAMES, rng.randrange(1, 6))
    banned = BAD_IN.get(layout, '')
    for name in names:
        for _ in range(rng.choice([1, 1, 2, 3])):
            words = rng.choices(WORDS.split(), k=rng.randrange(3, 12))
            text = ' '.join(o for o in words if not set(o) & set(banned))
            rows.append((name, 'A ' + text))
    return rows

def table(rows, rng, sep=',', heading=True, more=True, **kwargs):
    "A table as Python's csv, and with it pandas, writes it"
    columns = {rng.choice(['image', 'filename', 'image_name', 'file_name']): [n for n, _ in rows],
        rng.choice(['caption', 'text', 'sentence', 'description']): [c for _, c in rows]}
    if more and heading and rng.random() < .5:
        columns[rng.choice(['width', 'note', 'score'])] = [rng.choice(['5', 'x', '']) for _ in rows]
    keys = list(columns)
    if heading and rng.random() < .5:
        rng.shuffle(keys)
    f = io.StringIO(newline='')
    w = csv.writer(f, delimiter=sep, lineterminator='\n', **kwargs)
    if heading:
        w.writerow(keys)
    w.writerows(zip(*(columns[k] for k in keys)))
    return f.getvalue()

def grouped(rows):
    out = {}
    for n, c in rows:
        out.setdefault(n, []).append(c)
    return out

def karpathy(rows, rng):
    images = [dict(filename=n, split=rng.choice(['train', 'restval', 'val', 'test']), imgid=i,
        sentences=[dict(raw=c, sentid=10*i+j) for j, c in enumerate(cs)])
        for i, (n, cs) in enumerate(grouped(rows).items())]
    return dict(images=images, dataset='x')

def coco(rows, rng):
    ids = {n: i+1 for i, n in enumerate(grouped(rows))}
    return dict(images=[dict(id=i, file_name=n) for n, i in ids.items()],
        annotations=[dict(image_id=ids[n], id=j, caption=c) for j, (n, c) in enumerate(rows)])

def as_list(rows, rng):
    return [dict(image_id=n, caption=c, id=j) for j, (n, c) in enumerate(rows)]

def json_lines(rows, rng):
    a, b = rng.choice(['file_name', 'image', 'filename']), rng.choice(['text', 'caption'])
    return ''.join(json.dumps({a: n, b: c}, ensure_ascii=rng.random() < .5) + '\n' for n, c in rows)

def tokens(rows, rng):
    count = Counter()
    out = []
    for n, c in rows:
        out.append(f'{n}#{count[n]}\t{c}\n')
        count[n] += 1
    return ''.join(out)

TREES = {'karpathy.json': karpathy, 'coco.json': coco, 'list.json': as_list, 'names.json': lambda r, rng: grouped(r)}
LINES = {
    'comma.csv': table, 'plain.csv': lambda r, rng: table(r, rng, heading=False),
    'all quoted.csv': lambda r, rng: table(r, rng, quoting=csv.QUOTE_ALL),
    'semicolons.csv': lambda r, rng: table(r, rng, sep=';'),
    'tabs.tsv': lambda r, rng: table(r, rng, sep='\t', quoting=csv.QUOTE_MINIMAL),
    'bars.csv': lambda r, rng: 'image_name| comment_number| comment\n' + ''.join(
        f'{n}| {j}| {c}\n' for j, (n, c) in enumerate(r)),
    'lines.jsonl': json_lines, 'photos.token': tokens,
    'text.txt': lambda r, rng: ''.join(f'{c}\n' for _, c in r)}

def layout_of(name):
    return name.split('.')[0]

def right_answer(name, rows):
    "What is to be read: the captions, and which of them are of one photo"
    texts = Counter(c for _, c in rows)
    photos = None if name == 'text.txt' else Counter(tuple(sorted(o)) for o in grouped(rows).values())
    return texts, photos

def read(path):
    from capdec.data import read_captions
    return list(read_captions(path, None))

def seen(records):
    "The same of what was read"
    photos = {}
    for o in records:
        photos.setdefault(o['image_id'], []).append(o['caption'])
    return Counter(o['caption'] for o in records), Counter(tuple(sorted(o)) for o in photos.values())

def plain(counter):
    return sorted(counter.elements()) if counter is not None else None

def again(path, records):
    "What was read, written by capdec and read again"
    from capdec.data import write_captions
    out = path.parent/'again.json'
    write_captions(iter(records), out)
    return [plain(o) for o in seen(read(out))]

class Captions:
    name, door = 'captions', DOOR
    def ready(self, folder):
        "Loaded once, not in each process"
        import capdec.data
        import capdec.evaluation

    def name_of(self, path):
        return str(path)

    def make(self, box, rng):
        name = rng.choice([*TREES, *LINES])
        rows = rows_of(rng, layout_of(name))
        known = dict(zip(('texts', 'photos'), map(plain, right_answer(name, rows))))
        path = box/name
        if name in TREES:
            raw, done, known = self.tree(TREES[name](rows, rng), rng, known)
        else:
            raw, done, known = self.lines(LINES[name](rows, rng), rng, known, rows, name)
        path.write_bytes(raw)
        return path, f'{name}: {done}', known

    def tree(self, tree, rng, known):
        how = rng.choice(['as it is', 'indent', 'mark', 'keys', 'value', 'value', 'value', 'two values', 'bytes'])
        if 'value' in how:
            for _ in range(2 if 'two' in how else 1):
                tree = odd_tree(tree, rng) if isinstance(tree, list|dict) else tree
            known = None
        if how == 'keys' and isinstance(tree, dict) and 'images' in tree:
            tree = dict(reversed(tree.items())) | dict(info=dict(x=[1, None]), licenses=[])
        raw = json.dumps(tree, indent=2 if how == 'indent' else None, ensure_ascii=rng.random() < .5)
        raw = raw.encode('utf-8', 'surrogatepass')
        if how == 'mark':
            raw = b'\xef\xbb\xbf' + raw
        return (odd_bytes(raw, rng), how, None) if how == 'bytes' else (raw, how, known)

    def lines(self, text, rng, known, rows, name):
        how = rng.choice(['as it is', 'mark', 'line ends', 'blank lines', 'row', 'row', 'row', 'row gone', 'rows twice',
            'bytes', 'other coding', 'zeros'])
        raw = text.encode()
        if how == 'mark':
            raw = b'\xef\xbb\xbf' + raw
        elif how == 'line ends':
            raw = raw.replace(b'\n', b'\r\n')
        elif how == 'blank lines':
            raw += b'\n'*rng.randrange(1, 4)
        elif how == 'row':
            return self.odd_row(text, rng, known, rows, name)
        elif how == 'row gone':
            some = text.splitlines(True)
            del some[rng.randrange(len(some))]
            raw, known = ''.join(some).encode(), None
        elif how == 'rows twice':
            raw, known = (text + text).encode(), None
        elif how == 'bytes':
            raw, known = odd_bytes(raw, rng), None
        elif how == 'other coding':
            raw, known = text.encode(rng.choice(['utf-16', 'utf-32', 'latin-1', 'utf-8-sig']), 'replace'), None
        elif how == 'zeros':
            raw, known = raw[:rng.randrange(len(raw))] + bytes(rng.choice([1, 50])) + raw[-20:], None
        return raw, how, known

    def odd_row(self, text, rng, known, rows, name):
        "Something put in or taken out within one row; the others must be read, or nothing"
        some = text.splitlines()
        head = len(some) - len(rows)
        # a row that was told to be a heading, or a first one that may be one, says how to read all others
        i = rng.randrange(head, len(some)) if len(rows) > 1 else head
        line = some[i]
        for _ in range(rng.choice([1, 1, 2])):
            at = rng.randrange(len(line)+1)
            new = rng.choice([',', '"', '""', '|', '\t', ';', "'", '[', '{', ':', '\\', '#', ' ', '\x00', 'x', '.jpg'])
            line = line[:at] + new + line[at:] if rng.random() < .7 else line[:at] + line[at+rng.randrange(1, 9):]
        if rng.random() < .1:
            line = rng.choice(['', ',', '"', ',,,,', 'x', '|', json.dumps(rng.choice(ODD), allow_nan=True)])
        some[i] = line
        if i == head:
            return '\n'.join(some).encode('utf-8', 'replace'), 'first row', None
        rest = Counter(c for j, (_, c) in enumerate(rows) if j != i-head)
        return '\n'.join(some).encode('utf-8', 'replace'), f'row {i}: {line[:80]!r}', dict(rest=plain(rest))

    def use(self, path, known):
        records = read(path)
        texts, photos = seen(records)
        if not all(c.strip() for c in texts):
            raise AssertionError('a caption of blanks')
        if known and 'texts' in known:
            agree(plain(texts), known['texts'], 'captions')
            if known['photos'] is not None:
                agree([list(o) for o in plain(photos)], [list(o) for o in known['photos']], 'captions of a photo')
        elif known and 'rest' in known:
            lost = Counter(known['rest']) - texts
            agree(plain(lost), [], 'rows that were not touched and are gone')
        return [plain(texts), plain(photos)], again(path, records)

# ---- packed

class Archives(Captions):
    name = 'archives'
    def make(self, box, rng):
        name = rng.choice(['list.json', 'comma.csv', 'lines.jsonl', 'text.txt', 'coco.json'])
        rows = rows_of(rng, layout_of(name))
        raw = json.dumps(TREES[name](rows, rng)).encode() if name in TREES else LINES[name](rows, rng).encode()
        known = dict(zip(('texts', 'photos'), map(plain, right_answer(name, rows))))
        kind = rng.choice(['.gz', '.bz2', '.xz', '.zip', '.zip', '.tar', '.tar.gz', '.tgz'])
        how = rng.choice(['as it is', 'as it is', 'bytes', 'bytes', 'cut', 'surplus', 'odd member', 'odd member',
            'two members', 'other name'])
        member = name
        if how == 'other name':
            member = rng.choice(['data/', './', 'a b/', 'été/']) + name
        packed = self.pack(kind, member, raw, rng, how)
        # nothing but the header of a member of a tar has a checksum
        sure = not kind.startswith(('.tar', '.tgz')) or how != 'bytes'
        if how == 'bytes':
            packed = odd_bytes(packed, rng)
        elif how == 'cut':
            packed = packed[:rng.randrange(len(packed))]
        elif how == 'surplus':
            packed += rng.choice([b'\0'*600, b'x', rng.randbytes(40)])
        path = box/(name + kind)
        path.write_bytes(packed)
        return path, f'{path.name}: {how}', known if sure and how not in ('odd member', 'two members') else None

    def pack(self, kind, name, raw, rng, how):
        if kind in ('.gz', '.bz2', '.xz'):
            return {'.gz': gzip, '.bz2': bz2, '.xz': lzma}[kind].compress(raw)
        more = {}
        if how == 'odd member':
            more = {rng.choice(['../evil.txt', '/etc/evil.txt', 'a/../../evil.txt', '__MACOSX/._x', '.DS_Store',
                'x'*300,
                'evil\n.txt', '\x1b[2J.txt', 'con.txt', '']): b'evil'}
        if how == 'two members':
            more = {rng.choice(['more.json', 'more.csv', 'README.md', name]): rng.choice([raw, b'', b'x', b'[]'])}
        f = io.BytesIO()
        if kind == '.zip':
            with zipfile.ZipFile(f, 'w', rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA])) as z:
                for n, b in [(name, raw), *more.items()]:
                    z.writestr(n or 'evil', b)
            return f.getvalue()
        with tarfile.open(fileobj=f, mode='w:' if kind == '.tar' else 'w:gz') as t:
            for n, b in [(name, raw), *more.items()]:
                o = tarfile.TarInfo(n)
                o.size = len(b)
                if b == b'evil' and rng.random() < .5:
                    o.type, o.linkname, o.size = rng.choice([tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE,
                        tarfile.CHRTYPE, tarfile.DIRTYPE]), '/etc/passwd', 0
                t.addfile(o, io.BytesIO(b) if o.size else None)
        return f.getvalue()

# ---- predictions that are scored

class Predictions(Captions):
    name = 'predictions'
    def make(self, box, rng):
        rows = rows_of(rng, 'list')
        tree = [dict(image_id=n, caption=cs[0]) for n, cs in grouped(rows).items()]
        tree = dict(predictions=tree) if rng.random() < .2 else tree
        (box/'references.json').write_text(json.dumps(as_list(rows, rng)))
        how = rng.choice(['as it is', 'value', 'value', 'value', 'values', 'bytes', 'references'])
        right = {n: cs[0] for n, cs in grouped(rows).items()} if how == 'as it is' else None
        if 'value' in how:
            for _ in range(2 if how == 'values' else 1):
                tree = odd_tree(tree, rng) if isinstance(tree, list|dict) else tree
        raw = json.dumps(tree).encode()
        path = box/'predictions.json'
        path.write_bytes(odd_bytes(raw, rng) if how == 'bytes' else raw)
        if how == 'references':
            refs = odd_tree(as_list(rows, rng), rng)
            (box/'references.json').write_text(json.dumps(refs))
        return path, how, dict(right=right) if right else None

    def name_of(self, path):
        # what a comparison of both finds is the fault of neither
        return ''

    def use(self, path, known):
        from capdec.data import read_captions
        from capdec.evaluation import match_ids, read_predictions
        try:
            said, refs = read_predictions(path)
        except ValueError as e:
            if str(path) not in str(e):
                raise AssertionError(f'unnamed: {e}') from None
            raise
        pred, refs, _ = match_ids(said, refs or list(read_captions(path.parent/'references.json', None)))
        if known:
            agree({str(k): v for k, v in said.items()}, known['right'], 'predictions')
        if not all(isinstance(o, str) for o in pred.values()):
            raise AssertionError('a prediction that is no text')
        out = path.parent/'again.json'
        out.write_text(json.dumps([dict(image_id=k, caption=v) for k, v in said.items()]))
        return said, read_predictions(out)[0]

# ---- journals of runs that were interrupted

class Journals(Captions):
    name = 'journals'
    fields = dict(key=str, captions=list|None, error=str|None)
    def make(self, box, rng):
        lines = [dict(model='mini')]
        lines += [dict(key=f'{i}.jpg', captions=['A dog.'], error=None) for i in range(rng.randrange(8))]
        how = rng.choice(['as it is', 'torn', 'value', 'value', 'bytes'])
        if how == 'value':
            i = rng.randrange(len(lines))
            lines[i] = odd_tree(lines[i], rng)
        raw = ''.join(json.dumps(o) + '\n' for o in lines).encode()
        whole = len(lines) - 1
        if how == 'torn' and whole:
            raw, whole = raw[:-rng.randrange(1, 20)], whole-1
        path = box/'t.csv.part'
        path.write_bytes(odd_bytes(raw, rng) if how == 'bytes' else raw)
        return path, how, dict(whole=whole) if how in ('as it is', 'torn') else None

    def use(self, path, known):
        from capdec.core import Journal
        with Journal(path, dict(model='mini')) as j:
            first = list(j.records(self.fields))
        if known:
            agree(len(first), known['whole'], 'records')
        with Journal(path, dict(model='mini')) as j:
            return first, list(j.records(self.fields))
