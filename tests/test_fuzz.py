"Image files with damage of every kind: an image or one clear line, never a traceback, never a hang."
import io
import os
import time
import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from PIL import Image
from skimage import data

from capdec.core import open_image

def encoded():
    "The same small photo in many formats"
    im, out = Image.fromarray(data.coffee()[::12, ::12].copy()), {}
    exif = Image.Exif()
    exif[0x0112] = 6
    exif.get_ifd(0x8769)[0x9286] = b'comment'
    deep = Image.fromarray((np.arange(2000).reshape(40, 50)*30).astype('uint16'))
    for name, image, fmt, kw in (('jpeg', im, 'jpeg', dict(exif=exif)),
        ('progressive', im, 'jpeg', dict(progressive=True)), ('cmyk', im.convert('CMYK'), 'jpeg', {}),
        ('png', im, 'png', dict(exif=exif)),
        ('palette', im.convert('P'), 'png', dict(transparency=3)), ('16 bit', deep, 'png', {}),
        ('gif', im, 'gif', dict(save_all=True, append_images=[im.rotate(9)])),
        ('tiff', im, 'tiff', dict(compression='tiff_lzw')),
        ('float tiff', Image.fromarray(np.random.default_rng(0).random((40, 50), 'float32')), 'tiff', {}),
        ('webp', im, 'webp', {}), ('bmp', im, 'bmp', {}), ('ppm', im, 'ppm', {})):
        buf = io.BytesIO()
        image.save(buf, fmt, **kw)
        out[name] = buf.getvalue()
    return out

FILES = encoded()

@st.composite
def damaged(draw):
    raw = bytearray(FILES[draw(st.sampled_from(sorted(FILES)))])
    for _ in range(draw(st.integers(0, 8))):
        raw[draw(st.integers(0, min(draw(st.sampled_from([40, 300, 100_000])), len(raw))-1))] = draw(st.integers(0,
            255))
    if draw(st.booleans()):
        del raw[draw(st.integers(0, len(raw))):]
    if raw and draw(st.integers(0, 4)) == 0:
        at = draw(st.integers(0, len(raw)-1))
        del raw[at:at+draw(st.integers(1, 200))]
    return bytes(raw)

def opened(raw):
    "RGB, or ValueError of one line, within 20 seconds of work"
    begin = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        try:
            im = open_image(raw)
            assert im.mode == 'RGB' and min(im.size) > 0
        except ValueError as e:
            assert str(e) and len(str(e).splitlines()) == 1
    assert time.process_time() - begin < 20

@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(damaged())
def test_damaged_images(raw):
    opened(raw)

@settings(max_examples=40, deadline=None)
@given(st.sampled_from([b'', b'\xff\xd8', b'\x89PNG\r\n\x1a\n', b'GIF89a', b'II*\0', b'MM\0*', b'RIFF\0\0\0\0WEBP',
    b'BM', b'P6 ', b'\0\0\1\0', b'8BPS', b'%PDF']), st.binary(max_size=300))
def test_noise_with_a_magic_number(magic, raw):
    opened(magic + raw)

@pytest.mark.parametrize('name', sorted(FILES))
def test_whole_files_open(name):
    assert open_image(FILES[name]).size in ((50, 34), (34, 50), (50, 40))

def test_captioning_damaged_files(tmp_path):
    "Through the captioner: a caption or an error for each, and the good one is not lost"
    import random
    from capdec.captioner import Captioner
    rng, d = random.Random(0), tmp_path/'d'
    d.mkdir()
    for i, (name, raw) in enumerate(sorted(FILES.items())*2):
        raw = bytearray(raw)
        for _ in range(6):
            raw[rng.randrange(len(raw))] = rng.randrange(256)
        (d/f'{i:02}.jpg').write_bytes(raw[:rng.choice([len(raw), len(raw)//2, 12])])
    (d/'good.jpg').write_bytes(FILES['jpeg'])
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        results = list(Captioner.from_pretrained('mini', 'cpu').caption_files(sorted(d.iterdir()), beam_size=1))
    assert len(results) == len(os.listdir(d)) and all(bool(r.captions) != bool(r.error) for r in results)
    assert results[-1].path.name == 'good.jpg' and results[-1].captions and sum(bool(r.error) for r in results) > 5
