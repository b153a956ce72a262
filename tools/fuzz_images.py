"""Pictures of every kind that people have, whole and damaged; a copy with a caption is made of each that opens.

What was only written in another way (more after the end, a comment, another chunk) opens as it was. Whatever opens has
pixels of its size, saved as PNG it is the same picture, and a JPEG, PNG or WebP takes a caption and keeps its pixels.
"""
import io
import struct
import zlib

from fuzzing import Changed, odd_bytes

KINDS = ['jpeg', 'jpeg', 'png', 'png', 'gif', 'webp', 'webp', 'tiff', 'bmp', 'ppm', 'ico', 'mpo', 'tga', 'avif',
    'jpeg2000', 'pcx', 'sgi', 'dds', 'eps']
MODES = dict(jpeg=['RGB', 'L', 'CMYK'], mpo=['RGB'], gif=['P', 'L'], png=['RGB', 'RGBA', 'L', 'LA', 'P', '1', 'I;16'],
    tiff=['RGB', 'RGBA', 'L', 'F', 'I;16', 'CMYK'], webp=['RGB', 'RGBA'])

def picture(mode, w, h, rng):
    from PIL import Image
    im = Image.frombytes('RGB', (w, h), rng.randbytes(w*h*3))
    if mode == 'I;16':
        return Image.frombytes('I;16', (w, h), rng.randbytes(w*h*2))
    return im.convert(mode)

def chunks(raw):
    "The chunks of a PNG, `[kind, content]`"
    at, out = 8, []
    while at+8 <= len(raw):
        n, = struct.unpack('>I', raw[at:at+4])
        out.append([raw[at+4:at+8], raw[at+8:at+8+n]])
        at += n+12
    return out

def png_of(parts):
    return b'\x89PNG\r\n\x1a\n' + b''.join(struct.pack('>I', len(b)) + k + b + struct.pack('>I', zlib.crc32(k+b))
        for k, b in parts)

def odd_png(raw, rng):
    "A chunk changed, with its checksum right"
    parts = chunks(raw)
    how = rng.choice(['head', 'head', 'size', 'content', 'content', 'gone', 'twice', 'order', 'kind'])
    i = 0 if how in ('head', 'size') else rng.randrange(len(parts))
    if how == 'size':
        parts[0][1] = struct.pack('>II', *rng.choice([(0, 1), (1, 2**31-1), (2**31-1, 2**31-1), (40_000, 40_000),
            (13_000, 13_000), (7, 9)])) + parts[0][1][8:]
    elif how in ('head', 'content'):
        parts[i][1] = odd_bytes(parts[i][1], rng)
    elif how == 'gone':
        del parts[i]
    elif how == 'twice':
        parts.insert(i, parts[i])
    elif how == 'order':
        rng.shuffle(parts)
    else:
        parts[i][0] = rng.choice([b'IDAT', b'tEXt', b'zTXt', b'iCCP', b'eXIf', b'acTL', b'tRNS', b'PLTE', b'zzzz'])
    return png_of(parts)

def segments(raw):
    "The segments of a JPEG before its picture, `[kind, content]`, and the rest"
    at, out = 2, []
    while raw[at+1] != 0xDA:
        n, = struct.unpack('>H', raw[at+2:at+4])
        out.append([raw[at+1], raw[at+4:at+2+n]])
        at += 2+n
    return out, raw[at:]

def jpeg_of(parts, rest):
    return b'\xff\xd8' + b''.join(b'\xff' + bytes([k]) + struct.pack('>H', len(b)+2) + b for k, b in parts) + rest

def odd_jpeg(raw, rng):
    "A segment changed, its length right"
    parts, rest = segments(raw)
    i = rng.randrange(len(parts))
    how = rng.choice(['content', 'content', 'gone', 'twice', 'exif', 'exif', 'size', 'rest'])
    if how == 'content':
        parts[i][1] = odd_bytes(parts[i][1], rng)[:65_000]
    elif how == 'gone':
        del parts[i]
    elif how == 'twice':
        parts.insert(i, parts[i])
    elif how == 'exif':
        parts.insert(0, [0xE1, odd_bytes(exif(rng), rng)[:65_000]])
    elif how == 'size':
        frame = next(o for o in parts if o[0] in (0xC0, 0xC2))
        size = struct.pack('>HH', rng.choice([0, 1, 65_535, 500]), rng.choice([0, 9, 65_535]))
        frame[1] = frame[1][:1] + size + frame[1][5:]
    else:
        rest = odd_bytes(rest, rng)
    return jpeg_of(parts, rest)

def exif(rng):
    "EXIF of a camera: a turn, a name, a second directory, and sometimes values of odd types"
    from PIL import Image
    e = Image.Exif()
    e[0x0112], e[0x010F] = rng.choice([0, 1, 3, 6, 8, 9]), 'Camera'
    e.get_ifd(0x8769)[0x9286] = b'ASCII\0\0\0a note'
    return b'Exif\0\0' + e.tobytes().removeprefix(b'Exif\0\0')

def harmless(raw, kind, rng):
    "The same picture, written in another way"
    if kind == 'png':
        parts = chunks(raw)
        parts.insert(1, rng.choice([[b'tEXt', b'Comment\0hello'], [b'zzZz', rng.randbytes(9)], [b'tIME', bytes(7)]]))
        return png_of(parts) + rng.choice([b'', b'more'])
    if kind in ('jpeg', 'mpo'):
        parts, rest = segments(raw)
        parts.insert(rng.randrange(len(parts)), [rng.choice([0xFE, 0xEC]), rng.randbytes(rng.randrange(40))])
        return jpeg_of(parts, rest) + rng.choice([b'', b'more'])
    return raw + rng.choice([b'', bytes(9)])*(kind in ('gif', 'bmp', 'ppm'))

class Images:
    name = 'images'
    door = ('damaged', 'not an image', 'no such', 'empty', 'is EPS', 'cannot identify')
    def ready(self, folder):
        import capdec.core
        import capdec.exif
        from PIL import Image
        Image.init()
        self.kinds = [k for k in KINDS if k.upper() in Image.SAVE]

    def name_of(self, path):
        return str(path)

    def make(self, box, rng):
        kind = rng.choice(self.kinds)
        w, h = rng.choice([(24, 32), (33, 17), (1, 1), (3, 60), (64, 64)])
        im = picture(rng.choice(MODES.get(kind, ['RGB'])), w, h, rng)
        more = {}
        if kind in ('jpeg', 'webp', 'png') and rng.random() < .3:
            more = dict(exif=exif(rng)[6 if kind == 'png' else 0:])
        f = io.BytesIO()
        im.save(f, kind, **more)
        raw = f.getvalue()
        how = rng.choice(['as it is', 'harmless', 'harmless', 'bytes', 'bytes', 'parts', 'parts', 'cut'])
        path = box/f'photo.{kind[:4]}'
        known = None
        if how in ('as it is', 'harmless'):
            (box/'first').write_bytes(raw)
            known = 'first'
            raw = harmless(raw, kind, rng) if how == 'harmless' else raw
        elif how == 'parts' and kind in ('png', 'jpeg', 'mpo'):
            raw = odd_png(raw, rng) if kind == 'png' else odd_jpeg(raw, rng)
        elif how == 'cut':
            raw = raw[:rng.randrange(len(raw))]
        else:
            raw = odd_bytes(raw, rng)
        path.write_bytes(raw)
        return path, f'{kind} {im.mode} {w} x {h}: {how}', known

    def use(self, path, known):
        from capdec.core import open_image
        from capdec.exif import read_caption, write_caption
        im = open_image(path)
        if im.mode != 'RGB' or not im.width*im.height:
            raise AssertionError(f'{im.mode}, {im.size}')
        if known and open_image(path.parent/known).tobytes() != im.tobytes():
            raise Changed('other pixels')
        if path.suffix in ('.jpeg', '.png', '.webp') and im.width*im.height < 10**6:
            out, text = path.with_name('copy' + path.suffix), 'A café = "犬", \n=1+1'
            # a picture that opens may have EXIF data that cannot be added to; that is said
            write_caption(path, out, text)
            if open_image(out).tobytes() != im.tobytes():
                raise Changed('the copy with a caption has other pixels')
            if read_caption(out) != text:
                raise Changed(f'the copy says {read_caption(out)!r}')
        if im.width*im.height > 10**6:
            # to write it takes longer than to read it
            return True, True
        im.save(path.parent/'again.png')
        return im.tobytes() == open_image(path.parent/'again.png').tobytes(), True
