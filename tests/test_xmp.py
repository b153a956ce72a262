"XMP and IPTC: what others wrote stays, and readers that are not ours find the caption."
import hashlib
import json
import re
import shutil
import struct
import subprocess
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from PIL import Image

from capdec.exif import is_copy, read_caption, read_notes, write_caption
from capdec.xmp import (DC, EMPTY, RDF, _record, iptc_with_caption, read_iptc, read_xmp, write_xmp,
    xmp_with_description, xmp_with_notes)

# as Lightroom, darktable and digiKam lay it out; a property as an attribute, as an element, in a list
LIGHTROOM = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="Adobe XMP Core 7.0">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about=""
    xmlns:xmp="http://ns.adobe.com/xap/1.0/"
    xmlns:crs="http://ns.adobe.com/camera-raw-settings/1.0/"
    xmlns:dc="http://purl.org/dc/elements/1.1/"
   xmp:Rating="4"
   crs:Exposure2012="+0.35">
   <dc:subject><rdf:Bag><rdf:li>cat</rdf:li><rdf:li>home &amp; garden</rdf:li></rdf:Bag></dc:subject>
   <dc:title><rdf:Alt><rdf:li xml:lang="x-default">Mimi</rdf:li></rdf:Alt></dc:title>%s
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
""" + ' '*100 + '\n<?xpacket end="w"?>'
DESCRIBED = ["""
   <dc:description><rdf:Alt><rdf:li xml:lang="x-default">Mine &lt;3</rdf:li></rdf:Alt></dc:description>""",
    """
   <dc:description>
    <rdf:Alt>
     <rdf:li xml:lang="de">Meine</rdf:li>
     <rdf:li xml:lang='x-default'>Mine &lt;3</rdf:li>
    </rdf:Alt>
   </dc:description>""",
    '<dc:description>Mine &lt;3</dc:description>', '<d:description xmlns:d="http://purl.org/dc/elements/1.1/">'
    '<r:Alt xmlns:r="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><r:li xml:lang="x-default">Mine &lt;3</r:li></r:Alt>'
    '</d:description>']
BARE = ['', '<dc:description/>', '<dc:description><rdf:Alt/></dc:description>',
    '<dc:description><rdf:Alt><rdf:li xml:lang="x-default"/></rdf:Alt></dc:description>',
    '<dc:description><rdf:Alt></rdf:Alt></dc:description>']

def without_description(text):
    "What a foreign parser finds beside the description, in order"
    root = ElementTree.fromstring(text)
    out = []
    def walk(e, path):
        if e.tag == f'{{{DC}}}description':
            return
        attributes = {k: v for k, v in e.attrib.items() if k != f'{{{DC}}}description'}
        out.append((path + (e.tag,), attributes, (e.text or '').strip()))
        for o in e:
            walk(o, path + (e.tag,))
    walk(root, ())
    return out

def description(text):
    "The description as a foreign parser finds it"
    root = ElementTree.fromstring(text)
    items = root.findall(f'.//{{{DC}}}description/{{{RDF}}}Alt/{{{RDF}}}li')
    default = [o.text for o in items if o.get('{http://www.w3.org/XML/1998/namespace}lang') == 'x-default']
    attribute = [o.get(f'{{{DC}}}description') for o in root.iter() if o.get(f'{{{DC}}}description')]
    plain = [o.text for o in root.iter(f'{{{DC}}}description') if o.text and o.text.strip()]
    return (default or attribute or plain or [''])[0]

@pytest.mark.parametrize('part', DESCRIBED + BARE)
def test_nothing_but_the_description_changes(part):
    old = (LIGHTROOM % part).encode()
    assert read_xmp(old)[0] == ('Mine <3' if part in DESCRIBED else '')
    for text in ('A cat.', 'Ein "Kätzchen" & <b>\n猫 🐈'):
        new = xmp_with_description(old, text)
        assert without_description(new) == without_description(old)
        assert description(new) == text == read_xmp(new)[0] and b'Mine' not in new
        # byte for byte: what is before and behind
        at = old.index(b'   <dc:title') if part else old.index(b'   <dc:subject')
        assert new.startswith(old[:at].rstrip()) and new.endswith(old[old.rindex(b'</rdf:Description>'):])
    assert b'Meine' in new or 'Meine' not in part

def test_an_attribute_stays_an_attribute():
    old = (LIGHTROOM % '').replace('xmp:Rating="4"', "dc:description='Mine &gt; yours' xmp:Rating=\"4\"").encode()
    new = xmp_with_description(old, "It's > \"a\" cat")
    assert without_description(new) == without_description(old) and description(new) == "It's > \"a\" cat"

@pytest.mark.parametrize('kind', ['utf-16-le', 'utf-16-be', 'utf-32-le'])
def test_other_encodings_stay(kind):
    old = '\ufeff' + LIGHTROOM % DESCRIBED[0]
    new = xmp_with_description(old.encode(kind), 'Kätzchen 🐈')
    assert new.decode(kind).replace('Kätzchen 🐈', 'Mine &lt;3') == old

def test_packets_of_several_descriptions_and_without_any():
    two = (LIGHTROOM % DESCRIBED[0]).replace('</rdf:RDF>', '<rdf:Description rdf:about="" '
        'xmlns:d="http://purl.org/dc/elements/1.1/" d:description="Another"/></rdf:RDF>').encode()
    assert description(xmp_with_description(two, 'A cat.')) == 'A cat.' and b'Another' not in xmp_with_description(
        two, 'A cat.')
    for rdf in ('<rdf:RDF xmlns:rdf="%s"/>' % RDF, '<rdf:RDF xmlns:rdf="%s"></rdf:RDF>' % RDF):
        for bare in (rdf, f'<x:xmpmeta xmlns:x="adobe:ns:meta/">{rdf}</x:xmpmeta>'):
            noted = xmp_with_notes(xmp_with_description(bare.encode(), 'A cat.'), dict(model='mini@1'))
            assert description(noted) == 'A cat.' and read_xmp(noted)[1] == dict(model='mini@1')

def test_notes_that_another_program_has_moved():
    "Exiftool and Adobe's library write properties in places of their own"
    noted = xmp_with_notes((LIGHTROOM % DESCRIBED[0]).encode(), dict(model='mini@1', settings='{}'))
    attributes = re.sub(rb'<capdec:model>(.*?)</capdec:model>', b'', noted).replace(b'xmlns:capdec=',
        b"capdec:model='mini@1' xmlns:capdec=")
    moved = re.sub(rb'<capdec:settings>.*?</capdec:settings></rdf:Description>', b'</rdf:Description>', noted).replace(
        b'<dc:title>', b'<c:settings xmlns:c="urn:capdec:made-by:1#">{}</c:settings><dc:title>')
    for text in (noted, attributes, moved):
        assert read_xmp(text) == ('Mine <3', dict(model='mini@1', settings='{}'))
        again = xmp_with_notes(text, dict(model='mini@2'))
        assert read_xmp(again) == ('Mine <3', dict(model='mini@2')) and b'mini@1' not in again

@settings(max_examples=150, deadline=None)
@given(text=st.text(max_size=60), part=st.sampled_from(DESCRIBED + BARE))
def test_any_text_comes_back(text, part):
    new = xmp_with_description((LIGHTROOM % part).encode(), text)
    ElementTree.fromstring(new)
    legal = re.sub('[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]', ' ', text)
    assert read_xmp(new)[0] == legal.strip()

@settings(max_examples=200, deadline=None)
@given(st.data())
def test_damaged_xmp_is_one_line(data):
    raw = bytearray((LIGHTROOM % DESCRIBED[1]).encode())
    for _ in range(data.draw(st.integers(1, 5))):
        raw[data.draw(st.integers(0, len(raw)-1))] = data.draw(st.integers(0, 255))
    raw = bytes(raw[:data.draw(st.sampled_from([len(raw), len(raw)//2, 30, 1]))])
    try:
        new = xmp_with_notes(xmp_with_description(raw, 'A cat.'), dict(model='m'))
        assert read_xmp(new) == ('A cat.', dict(model='m'))
    except ValueError as e:
        assert '\n' not in str(e)

def test_a_small_file_that_grows_is_not_read():
    bomb = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">' + ''.join(f'<!ENTITY {chr(98+i)} "{f"&{chr(97+i)};"*10}">'
        for i in range(9)) + ']>' + (LIGHTROOM % '<dc:description>&j;</dc:description>').split('?>', 1)[1]
    with pytest.raises(ValueError, match='document type'):
        read_xmp(bomb.encode())

# ---- files

def test_a_file_that_is_there_keeps_all_else(tmp_path):
    f = tmp_path/'a.xmp'
    f.write_text(LIGHTROOM % '', encoding='utf-8')
    write_xmp(f, 'A cat.', dict(model='mini@1'))
    assert 'mini@1' not in f.read_text() and description(f.read_text()) == 'A cat.'
    assert without_description(f.read_text()) == without_description(LIGHTROOM % '')
    for name, raw, says in (('text.xmp', b'my notes', 'XMP is damaged'), ('html.xmp', b'<html/>', 'no XMP in it')):
        (tmp_path/name).write_bytes(raw)
        with pytest.raises(ValueError, match=f'{name}: {says}'):
            write_xmp(tmp_path/name, 'A cat.')
        assert (tmp_path/name).read_bytes() == raw

# ---- IPTC

def blocks(*records, extra=b''):
    iptc = b''.join(_record(*o) for o in records)
    return b'8BIM\x04\x04\x00\x00' + struct.pack('>I', len(iptc)) + iptc + b'\0'*(len(iptc)%2) + extra

@settings(max_examples=100, deadline=None)
@given(st.text(st.characters(blacklist_categories=('Cs',), blacklist_characters='\0'), max_size=80))
def test_any_iptc_caption_comes_back(text):
    for old in (b'', blocks((2, 5, b'Title'), (2, 120, b'old'), (2, 25, b'cat'), (2, 25, b'dog'))):
        new = iptc_with_caption(old, text)
        assert read_iptc(new) == text.strip('\0 ')
        assert iptc_with_caption(new, text) == new

def test_other_blocks_and_records_stay_and_the_checksum_fits():
    iptc = _record(2, 5, 'Büro'.encode('latin-1')) + _record(2, 120, b'old')
    digest = b'8BIM\x04\x25\x00\x00\x00\x00\x00\x10' + hashlib.md5(iptc).digest()
    other = b'8BIM\x03\xed\x03abc\x00\x00\x00\x03xyz\x00'
    new = iptc_with_caption(other + blocks((2, 5, 'Büro'.encode('latin-1')), (2, 120, b'old')) + digest, 'Café')
    assert new.startswith(other) and 'Büro'.encode('latin-1') in new and b'old' not in new and b'\x1b%G' not in new
    at = new.index(b'8BIM\x04\x04') + 8
    n, = struct.unpack_from('>I', new, at)
    assert new.endswith(hashlib.md5(new[at+4:at+4+n]).digest()) and read_iptc(new) == 'Café'

# ---- photos

def photo(path, pixels, **kw):
    Image.fromarray(pixels).save(path, **kw)
    return path

@pytest.mark.parametrize('kind', ['jpg', 'png', 'webp'])
@pytest.mark.parametrize('there', [False, True])
def test_copies_carry_the_caption_everywhere(tmp_path, pixels, kind, there):
    kw = dict(xmp=(LIGHTROOM % '').encode()) if there and kind != 'png' else {}
    if there and kind == 'png':
        from PIL.PngImagePlugin import PngInfo
        kw = dict(pnginfo=PngInfo())
        kw['pnginfo'].add_itxt('XML:com.adobe.xmp', LIGHTROOM % '', zip=True)
    a = photo(tmp_path/f'a.{kind}', pixels, **kw)
    notes = dict(model='mini@1', settings='{}')
    for text in ('A cat.', 'Ein Kätzchen 🐈'):
        b = write_caption(a, tmp_path/f'b.{kind}', text, notes)
        with Image.open(a) as old, Image.open(b) as new:
            assert np.array_equal(np.array(old), np.array(new))
            packet = new.info.get('xmp') or new.info['XML:com.adobe.xmp'].encode()
        assert description(packet) == text == read_caption(b) and read_notes(b) == notes | dict(caption=text)
        if there:
            kept = [o for o in without_description(packet) if 'urn:capdec' not in str(o)]
            assert kept[:len(without_description(LIGHTROOM % ''))] == without_description(LIGHTROOM % '')
        assert is_copy(a, b) and (there or not is_copy(b, a))
        again = write_caption(b, tmp_path/f'c.{kind}', 'Again.', notes)
        assert read_caption(again) == 'Again.' and read_notes(again)['caption'] == 'Again.'

@pytest.mark.parametrize('kind', ['jpg', 'png', 'webp'])
def test_a_description_of_somebody_stays_unless_told(tmp_path, pixels, kind):
    exif = Image.Exif()
    exif[0x010E] = 'Mimi at home'
    only_xmp = dict(xmp=(LIGHTROOM % DESCRIBED[0]).encode()) if kind != 'png' else {}
    for kw, own in ((dict(exif=exif), 'Mimi at home'), (only_xmp, 'Mine <3')):
        if not kw:
            continue
        a = photo(tmp_path/f'a.{kind}', pixels, **kw)
        b = write_caption(a, tmp_path/f'b.{kind}', 'A cat.', dict(model='m@1'), replace=False)
        assert read_caption(b) == own and read_notes(b)['caption'] == 'A cat.' and is_copy(a, b)
        assert read_caption(write_caption(a, tmp_path/f'c.{kind}', 'A cat.')) == 'A cat.'
    exif[0x010E] = 'OLYMPUS DIGITAL CAMERA         '
    a = photo(tmp_path/f'a.{kind}', pixels, exif=exif)
    assert read_caption(write_caption(a, tmp_path/f'b.{kind}', 'A cat.', replace=False)) == 'A cat.'

def test_segments_that_are_there_keep_their_places(tmp_path, pixels):
    "XMP right behind EXIF, Photoshop's data over two segments, none of it in the usual order"
    import capdec.exif as room
    raw = photo(tmp_path/'a.jpg', pixels, xmp=(LIGHTROOM % DESCRIBED[0]).encode()).read_bytes()
    whole = blocks((2, 5, b'Title'), (2, 120, b'old'), extra=b'8BIM\x03\xed\x00\x00\x00\x00\x00\x02xy')
    seg = lambda body: b'\xff\xed' + struct.pack('>H', len(body)+2) + body
    for cut in (0, 9, 30, len(whole)):
        two = raw[:2] + seg(b'Photoshop 3.0\0' + whole[:cut]) + seg(b'Photoshop 3.0\0' + whole[cut:]) + raw[2:]
        (tmp_path/'b.jpg').write_bytes(two)
        c = write_caption(tmp_path/'b.jpg', tmp_path/'c.jpg', 'A cat.', dict(model='m@1'))
        *said, notes = room._said(room._parts(c.read_bytes()))
        assert said == ['A cat.']*3 and notes['model'] == 'm@1' and b'xy' in c.read_bytes()
        assert b'old' not in c.read_bytes() and b'Title' in c.read_bytes() and b'Mine' not in c.read_bytes()
        assert np.array_equal(np.array(Image.open(c)), np.array(Image.open(tmp_path/'a.jpg')))

def test_xmp_that_cannot_be_read_stays(tmp_path, pixels):
    for xmp in (b'what', b'<x/>', (LIGHTROOM % '').encode()[:300]):
        a = photo(tmp_path/'a.jpg', pixels, xmp=xmp)
        b = write_caption(a, tmp_path/'b.jpg', 'A cat.', dict(model='m@1'))
        assert Image.open(b).info['xmp'] == xmp and read_caption(b) == 'A cat.'

@pytest.mark.skipif(not shutil.which('exiftool'), reason='exiftool is not here')
@pytest.mark.parametrize('kind', ['jpg', 'png', 'webp'])
def test_exiftool_reads_it(tmp_path, pixels, kind):
    a = photo(tmp_path/f'a.{kind}', pixels)
    subprocess.run(['exiftool', '-q', '-overwrite_original', '-XMP:Rating=4', '-XMP:Subject=cat',
        *(['-IPTC:Keywords=cat', '-IPTC:ObjectName=Mimi'] if kind == 'jpg' else []), '-EXIF:Artist=me', a], check=True)
    text = 'Ein Kätzchen 🐈'
    b = write_caption(a, tmp_path/f'b.{kind}', text, dict(model='mini@1'))
    write_xmp(tmp_path/'side.xmp', text, dict(model='mini@1'))
    read = lambda f: json.loads(subprocess.run(['exiftool', '-j', '-G', '-a', f],
        capture_output=True, text=True, check=True).stdout)[0]
    said = read(b)
    assert said['XMP:Description'] == text == read(tmp_path/'side.xmp')['XMP:Description']
    assert said['EXIF:ImageDescription'] == text and said['XMP:Rating'] == 4 and said['EXIF:Artist'] == 'me'
    if kind == 'jpg':
        assert (said['IPTC:Caption-Abstract'], said['IPTC:ObjectName']) == (text, 'Mimi')
    assert not [v for k, v in said.items() if 'Warning' in k]
    # and changes it, and we read it again
    subprocess.run(['exiftool', '-q', '-overwrite_original', '-XMP:Rating=2', b], check=True)
    assert read_caption(b) == text and read_notes(b)['model'] == 'mini@1'
