"Captions inside photos: what was there stays, byte by byte."
import io
import struct

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from PIL import ExifTags, Image
from skimage import data

from capdec.core import open_image
from capdec.exif import DESCRIPTION, EXIF_IFD, USER_COMMENT, XP_COMMENT, exif_with_caption, read_caption, write_caption

def camera_exif(order):
    "EXIF as a camera writes it: orientation, maker's note, GPS, and a preview in a second directory"
    exif = Image.Exif()
    exif.endian = order
    exif[0x0110], exif[0x0112] = 'Model X', 6
    # the maker's note
    exif.get_ifd(EXIF_IFD)[0x927C] = bytes(range(100))
    exif.get_ifd(ExifTags.IFD.GPSInfo)[1] = 'N'
    tiff = exif.tobytes().removeprefix(b'Exif\0\0')
    o = tiff[:2] == b'II' and '<' or '>'
    at, = struct.unpack_from(o+'I', tiff, 4)
    n, = struct.unpack_from(o+'H', tiff, at)
    second = len(tiff) + len(tiff)%2
    preview = b'\xff\xd8preview\xff\xd9'
    ifd = struct.pack(o+'HHHIIHHIII', 2, 0x0201, 4, 1, second+30, 0x0202, 4, 1, len(preview), 0)
    return tiff[:at+2+12*n] + struct.pack(o+'I', second) + tiff[at+6+12*n:] + b'\0'*(len(tiff)%2) + ifd + preview

@pytest.mark.parametrize('order', ['<', '>'])
def test_what_a_camera_wrote_stays(tmp_path, pixels, order):
    Image.fromarray(pixels).save(tmp_path/'a.jpg', exif=b'Exif\0\0' + camera_exif(order), icc_profile=b'profile')
    raw = (tmp_path/'a.jpg').read_bytes()
    new = write_caption(tmp_path/'a.jpg', tmp_path/'c'/'a.jpg', 'Ein Hündchen 🐕').read_bytes()
    assert (tmp_path/'a.jpg').read_bytes() == raw
    # profile, tables, picture
    assert new[new.index(b'\xff\xe2'):] == raw[raw.index(b'\xff\xe2'):]
    im = Image.open(io.BytesIO(new))
    exif = im.getexif()
    assert (exif[0x0110], exif[0x0112], exif.get_ifd(EXIF_IFD)[0x927C],
        exif.get_ifd(ExifTags.IFD.GPSInfo)[1]) == ('Model X', 6, bytes(range(100)), 'N')
    preview = exif.get_ifd(ExifTags.IFD.IFD1)
    assert (preview[0x0201], preview[0x0202]) == (Image.open(tmp_path/'a.jpg').getexif().get_ifd(ExifTags.IFD.IFD1)[
        0x0201], 11) and b'\xff\xd8preview\xff\xd9' in new
    assert read_caption(tmp_path/'c'/'a.jpg') == 'Ein Hündchen 🐕'

@settings(max_examples=40, deadline=None)
@given(text=st.text(st.characters(blacklist_categories=('Cs',), blacklist_characters='\0'), min_size=1, max_size=60),
    order=st.sampled_from('<>'), twice=st.booleans())
def test_any_caption_comes_back(text, order, twice):
    tiff = exif_with_caption(camera_exif(order), text)
    if twice:
        tiff = exif_with_caption(exif_with_caption(tiff, 'something else'), text)
    exif = Image.Exif()
    exif.load(b'Exif\0\0' + tiff)
    assert exif[DESCRIPTION].encode('latin-1').decode() == text
    assert bytes(exif[XP_COMMENT]).decode('utf-16-le') == text + '\0'
    comment = exif.get_ifd(EXIF_IFD)[USER_COMMENT]
    assert comment[8:].decode('ascii' if comment[:5] == b'ASCII' else 'utf-16-le' if order == '<'
        else 'utf-16-be') == text

@settings(max_examples=80, deadline=None)
@given(st.data())
def test_damage_is_an_error_of_one_line(tmp_path_factory, pixels, data):
    kind = data.draw(st.sampled_from(['jpeg', 'png', 'webp']))
    buf = io.BytesIO()
    Image.fromarray(pixels).save(buf, kind, exif=b'Exif\0\0' + camera_exif('<'))
    raw = bytearray(buf.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, min(400, len(raw)-1)))] = data.draw(st.integers(0, 255))
    raw = raw[:data.draw(st.sampled_from([len(raw), len(raw)//2, 300, 30, 3]))]
    d = tmp_path_factory.getbasetemp()
    (d/'damaged').write_bytes(raw)
    try:
        write_caption(d/'damaged', d/'out', 'A cat.')
    except ValueError as e:
        assert 'damaged' in str(e) and '\n' not in str(e)

def chunks(raw):
    "The chunks of a WebP file"
    at, out = 12, []
    while at < len(raw):
        kind, n = struct.unpack_from('<4sI', raw, at)
        out.append((kind, raw[at+8:at+8+n]))
        at += 8 + n + n%2
    assert struct.unpack_from('<I', raw, 4)[0] == at-8 == len(raw)-8
    return out

@pytest.mark.parametrize('kind', ['lossy', 'lossless', 'alpha', 'lossless alpha', 'camera', 'animation'])
def test_webp_keeps_its_picture(tmp_path, pixels, kind):
    # odd sizes
    im = Image.fromarray(pixels[:-1, :-2])
    clear = im.convert('RGBA')
    clear.putalpha(Image.linear_gradient('L').resize(im.size))
    camera = dict(exif=b'Exif\0\0' + camera_exif('<'), icc_profile=b'profile', xmp=b'<x/>')
    {'lossy': lambda f: im.save(f), 'lossless': lambda f: im.save(f, lossless=True), 'alpha': lambda f: clear.save(f),
        'lossless alpha': lambda f: clear.save(f, lossless=True),
        'camera': lambda f: im.save(f, **camera), 'animation': lambda f: im.save(f, save_all=True,
        append_images=[im.rotate(180)])}[kind](tmp_path/'a.webp')
    write_caption(tmp_path/'a.webp', tmp_path/'b.webp', 'Ein Hündchen 🐕')
    old, new = (chunks((tmp_path/o).read_bytes()) for o in ('a.webp', 'b.webp'))
    # XMP that is there and is none stays as well
    rest = lambda o: [c for c in o if c[0] not in (b'VP8X', b'EXIF') and not c[1].startswith(b'<?xpacket')]
    # all else byte for byte
    assert rest(old) == rest(new) and new[0][0] == b'VP8X' and [k for k, _ in new].count(b'EXIF') == 1
    a, b = (Image.open(tmp_path/o) for o in ('a.webp', 'b.webp'))
    assert (a.size, a.mode, getattr(a, 'n_frames', 1)) == (b.size, b.mode,
        getattr(b, 'n_frames', 1)) and np.array_equal(np.array(a),
        np.array(b)) and read_caption(tmp_path/'b.webp') == 'Ein Hündchen 🐕'
    w, h = (int.from_bytes(new[0][1][i:i+3], 'little') + 1 for i in (4, 7))
    assert (w, h) == a.size and bool(new[0][1][0] & 16) == (a.mode == 'RGBA')
    if kind == 'camera':
        assert (b.info['icc_profile'], b.info['xmp'], b.getexif()[0x0110], [k for k, _ in new][-1]) == (b'profile',
            b'<x/>', 'Model X', b'XMP ')
    # another one in its place
    write_caption(tmp_path/'b.webp', tmp_path/'c.webp', 'A cat.')
    assert read_caption(tmp_path/'c.webp') == 'A cat.' and [k for k,
        _ in chunks((tmp_path/'c.webp').read_bytes())] == [k for k, _ in new]

def test_full_exif(tmp_path, pixels):
    exif = Image.Exif()
    exif.get_ifd(EXIF_IFD)[0x927C] = bytes(65_000)
    Image.fromarray(pixels).save(tmp_path/'a.jpg', exif=exif)
    with pytest.raises(ValueError, match='no room left'):
        write_caption(tmp_path/'a.jpg', tmp_path/'b.jpg', 'A caption. '*50)
    assert not (tmp_path/'b.jpg').exists()

def test_png_text_is_replaced(tmp_path, pixels):
    from PIL.PngImagePlugin import PngInfo
    info = PngInfo()
    info.add_text('Description', 'old')
    info.add_text('Author', 'me')
    Image.fromarray(pixels).save(tmp_path/'a.png', pnginfo=info)
    write_caption(tmp_path/'a.png', tmp_path/'b.png', '一杯咖啡')
    im = Image.open(tmp_path/'b.png')
    assert im.text.pop('XML:com.adobe.xmp') and im.text == {'Description': '一杯咖啡', 'Author': 'me'}
    assert read_caption(tmp_path/'b.png') == '一杯咖啡'
    assert np.array_equal(np.array(im), pixels)

def test_what_follows_the_end_of_a_png_is_no_part_of_it(tmp_path):
    "An EXIF chunk behind the end turned the copy"
    im = Image.new('RGB', (30, 20), 'navy')
    im.putpixel((0, 0), (255, 0, 0))
    im.save(tmp_path/'a.png')
    exif = Image.Exif()
    exif[0x0112] = 6
    im.save(tmp_path/'turned.png', exif=exif)
    raw = (tmp_path/'turned.png').read_bytes()
    at = raw.index(b'eXIf') - 4
    chunk = raw[at:at+12+int.from_bytes(raw[at:at+4], 'big')]
    for more in (chunk, b'more', chunk[:9]):
        (tmp_path/'b.png').write_bytes((tmp_path/'a.png').read_bytes() + more)
        write_caption(tmp_path/'b.png', tmp_path/'c.png', 'A dog.')
        assert open_image(tmp_path/'c.png').tobytes() == open_image(tmp_path/'b.png').tobytes() == im.tobytes()
        assert read_caption(tmp_path/'c.png') == 'A dog.' and (tmp_path/'c.png').read_bytes().endswith(more)
