"Addresses: the time limit is that of the whole download, half a file is none, and a server's words are only words"
import io
import socket
import threading
import time

import pytest
from hypothesis import given, strategies as st
from PIL import Image

from capdec.core import open_image, pieces_of, read_url
from shell import capdec

def photo():
    f = io.BytesIO()
    Image.new('RGB', (30, 20), 'navy').save(f, 'png')
    return f.getvalue()

PHOTO = photo()
OK = b'HTTP/1.1 200 OK\r\n'
SENDS = {
    'whole': OK + b'Content-Length: %d\r\n\r\n' % len(PHOTO) + PHOTO,
    'more': OK + b'Content-Length: %d\r\n\r\n' % len(PHOTO) + PHOTO + b'surplus',
    'until it closes': OK + b'\r\n' + PHOTO,
    'chunks': OK + b'Transfer-Encoding: chunked\r\n\r\n' + b'%x\r\n' % len(PHOTO) + PHOTO + b'\r\n0\r\n\r\n',
    'half': OK + b'Content-Length: %d\r\n\r\n' % len(PHOTO) + PHOTO[:20],
    'half a chunk': OK + b'Transfer-Encoding: chunked\r\n\r\n' + b'%x\r\n' % len(PHOTO) + PHOTO[:20],
    'a chunk, no end': OK + b'Transfer-Encoding: chunked\r\n\r\n' + b'%x\r\n' % len(PHOTO) + PHOTO + b'\r\n',
    'half of the head': OK + b'Content-Le',
    'nothing': b'',
    'nonsense': b'\x1b]0;owned\x07\r\n\r\n',
    'long line': OK + b'X: ' + b'x'*100_000,
    'many lines': OK + b''.join(b'X%d: y\r\n' % i for i in range(1000)) + b'\r\n',
    'says much': b'HTTP/1.1 404 \x1b[2J\x1b]0;owned\x07 not here\x9b31m\r\nContent-Length: 0\r\n\r\n',
    'to a file': b'HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\n\r\n',
    'to ftp': b'HTTP/1.1 302 Found\r\nLocation: ftp://127.0.0.1/x.jpg\r\n\r\n',
    'in circles': b'HTTP/1.1 302 Found\r\nLocation: /in%20circles\r\nContent-Length: 0\r\n\r\n',
    'to a mess': b'HTTP/1.1 302 Found\r\nLocation: http://[::1/\x1b[2J\r\n\r\n',
    'odd length': OK + b'Content-Length: \x1b[2J\r\n\r\n' + PHOTO,
    'too large': OK + b'Content-Length: 9999999999\r\n\r\n',
}
# a first part at once; then a byte whenever the client has waited for a while
DRIPS = {
    'status line': (b'HTTP', b'x'),
    'headers': (OK, b'X: y\r\n'),
    'body': (OK + b'Content-Length: 1000\r\n\r\n', b'x'),
    'chunk lines': (OK + b'Transfer-Encoding: chunked\r\n\r\n', b'0'),
    'chunks': (OK + b'Transfer-Encoding: chunked\r\n\r\n', b'1\r\nx\r\n'),
    'redirects': (b'', b'HTTP/1.1 302 Found\r\nLocation: /drips/redirects\r\nContent-Length: 0\r\n\r\n'),
    'continue': (b'', b'HTTP/1.1 100 Continue\r\n\r\n'),
    'silence': (OK, b''),
}

class Server:
    "Sends bytes as they stand, and notes when a client hangs up"
    def __init__(self):
        self.socket, self.gone = socket.create_server(('127.0.0.1', 0)), threading.Semaphore(0)
        self.url = f'http://127.0.0.1:{self.socket.getsockname()[1]}'
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                client, _ = self.socket.accept()
            except OSError:
                return
            threading.Thread(target=self.answer, args=(client,), daemon=True).start()

    def answer(self, client):
        with client:
            asked = client.recv(9999).split()[1].decode().replace('%20', ' ')[1:]
            try:
                if asked in SENDS:
                    client.sendall(SENDS[asked])
                    # half of it is no reset
                    client.shutdown(socket.SHUT_WR)
                    while client.recv(9999):
                        pass
                elif asked == 'endless':
                    client.sendall(OK + b'\r\n')
                    while True:
                        client.sendall(b'x'*10_000)
                elif (asked := asked.removeprefix('drips/')) in DRIPS:
                    self.drip(client, *DRIPS[asked])
            except OSError:
                self.gone.release()

    def drip(self, client, first, more):
        client.sendall(first)
        if more.startswith(b'HTTP/1.1 3'):
            # slower than the limit only together
            time.sleep(.2)
            client.sendall(more)
            return
        client.settimeout(.1)
        while True:
            try:
                if not client.recv(9999):
                    raise ConnectionError
            except TimeoutError:
                client.sendall(more)

@pytest.fixture(scope='module')
def server():
    with pytest.MonkeyPatch.context() as m:
        m.setenv('no_proxy', '127.0.0.1')
        s = Server()
        yield s
        s.socket.close()

@pytest.mark.parametrize('what', ['whole', 'more', 'until it closes', 'chunks', 'odd length'])
def test_whole_files(server, what):
    assert read_url(f'{server.url}/{what}') == PHOTO
    assert open_image(f'{server.url}/{what}').size == (30, 20)

@pytest.mark.parametrize('what,said', [('half', f'it broke off after 20 of {len(PHOTO)} bytes'),
    ('half a chunk', 'it broke off'), ('a chunk, no end', 'it broke off'), ('nothing', 'Remote end closed'),
    ('half of the head', 'is empty'), ('nonsense', r'\x1b]0;owned\x07'), ('long line', 'got more than 65536 bytes'),
    ('many lines', 'got more than 100 headers'),
    ('says much', r'the server answers 404 \x1b[2J\x1b]0;owned\x07 not here'),
    ('to a file', 'the server answers 302'), ('to ftp', 'unknown url type: ftp'), ('in circles', 'infinite loop'),
    ('to a mess', 'Invalid IPv6 URL'), ('too large', 'larger than 64,000,000 bytes')])
def test_what_is_not_there_or_not_whole(server, what, said):
    with pytest.raises(ValueError) as e:
        read_url(f'{server.url}/{what}')
    text = str(e.value)
    assert text.startswith(f'{server.url}/{what}: ') and said in text and text.isprintable(), text

@pytest.mark.parametrize('what', DRIPS)
def test_the_limit_is_that_of_the_whole_download(server, what):
    with pytest.raises(ValueError, match='not there after 1 seconds; download it yourself and pass the file'):
        read_url(f'{server.url}/drips/{what}', timeout=1)
    # the connection is closed, not only forgotten
    assert what == 'redirects' or server.gone.acquire(timeout=20)

def test_a_fast_server_that_never_ends(server):
    with pytest.raises(ValueError, match='larger than 1,000,000 bytes'):
        read_url(f'{server.url}/endless', limit=1_000_000)
    with pytest.raises(ConnectionError, match='not there after 1 seconds'):
        for _ in pieces_of(f'{server.url}/endless', timeout=1):
            pass
    # who reads no further hangs up
    for _ in range(server.gone._value):
        server.gone.acquire()
    pieces = pieces_of(f'{server.url}/endless')
    assert next(pieces) is None and next(pieces)
    pieces.close()
    assert server.gone.acquire(timeout=20)

def test_large_files_earn_time(server, monkeypatch):
    "... by the bytes that come"
    now = [0.]
    monkeypatch.setattr(time, 'monotonic', lambda real=time.monotonic: now[0])
    pieces, size = pieces_of(f'{server.url}/endless', timeout=10, pace=1000), 0
    assert next(pieces) is None
    while size < 100_000:
        size += len(next(pieces))
    now[0] = 10 + size/1000 - 1
    size += len(next(pieces))
    now[0] = 11 + size/1000
    with pytest.raises(ConnectionError, match='not there after 10 seconds'):
        next(pieces)

@pytest.mark.parametrize('url', ['http://', 'http://[::1', 'http://a b/', 'http://x:port/', 'http://\x1b[2J/',
    f'http://{"x"*80}.org/', 'http://127.0.0.1:99999/', 'http:///x.jpg', 'https://127.0.0.1:9/x.jpg'])
def test_addresses_that_are_none(url):
    with pytest.raises(ValueError, match=r'(?s)http.*: cannot be fetched \(.+\); download it yourself and pass the '
            'file'):
        read_url(url, timeout=5)

def test_threads_end(server):
    "A thousand slow addresses must not fill a process with threads"
    for _ in range(5):
        with pytest.raises(ValueError):
            read_url(f'{server.url}/drips/headers', timeout=.2)
    for t in threading.enumerate():
        if 'work' in t.name:
            t.join(20)
            assert not t.is_alive()

@pytest.mark.hypothesis
@given(st.sampled_from(sorted(SENDS)), st.lists(st.tuples(st.integers(0, 300), st.binary(max_size=4)), max_size=6),
    st.integers(0, 400))
def test_whatever_a_server_sends(server, base, changes, length):
    "The bytes of a file, or one line"
    data = bytearray(SENDS[base][:2000])
    for at, new in changes:
        data[at:at+len(new)] = new
    with pytest.MonkeyPatch.context() as m:
        m.setitem(SENDS, 'any', bytes(data[:length]))
        try:
            assert read_url(f'{server.url}/any', timeout=5)
        except ValueError as e:
            text = str(e)
            assert text.startswith(f'{server.url}/any: ') and text.isprintable(), text
            assert 'not there after' not in text

def test_photos_that_break_off_are_told(server, tmp_path):
    r = capdec('caption', *(f'{server.url}/{o}' for o in ('whole', 'half', 'says%20much')), '--device', 'cpu', ok=False)
    assert r.stdout.count('\n') == 1 and r.stdout.startswith(f'{server.url}/whole\t')
    assert 'half: cannot be fetched (it broke off after 20' in r.stderr and 'the server answers 404' in r.stderr
    assert '\x1b' not in r.stderr and '\x07' not in r.stderr and '\x9b' not in r.stderr

# ---- published checkpoints

@pytest.fixture
def drive(server, tmp_path, monkeypatch):
    "What stands in for Google Drive sends: `drive(bytes)`, all at once"
    from capdec import official
    monkeypatch.setenv('CAPDEC_WEIGHTS', str(tmp_path/'weights'))
    monkeypatch.setattr(official, '_offline', lambda: False)
    monkeypatch.setattr(official, '_PAUSE', 0)
    monkeypatch.delenv('CAPDEC_HUB', raising=False)
    monkeypatch.setattr(official, 'DRIVE_URL', f'{server.url}/drive?{{}}')
    def send(data):
        # the id of the file stands behind the question mark
        monkeypatch.setitem(SENDS, f'drive?{official.PUBLISHED["capdec-coco-0.1"].drive}', data)
    return send

def checkpoint(old):
    import torch
    f = io.BytesIO()
    torch.save({'clip_project.linear.weight': torch.arange(1000.)}, f, _use_new_zipfile_serialization=not old)
    return f.getvalue()

def with_length(data, length=None):
    return OK + b'Content-Length: %d\r\n\r\n' % (len(data) if length is None else length) + data

@pytest.mark.parametrize('old', [False, True])
def test_a_checkpoint_that_breaks_off_is_fetched_again(drive, tmp_path, old):
    from capdec.official import find_weights
    whole = checkpoint(old)
    kept = tmp_path/'weights'/'capdec-coco-0.1.pt'
    flipped = bytearray(whole)
    flipped[len(whole)//2] ^= 1
    damaged = [
        (with_length(whole[:2000], len(whole)), 'not be downloaded .*it broke off after 2,000'),
        (OK + b'Transfer-Encoding: chunked\r\n\r\n%x\r\n' % len(whole) + whole, 'it broke off'),
        (OK + b'\r\n' + whole[:2000], 'Google Drive sent a damaged file.; download'),
        (with_length(b''), 'sent nothing'), (with_length(b'<html>'), 'sent a page')]
    if not old:
        damaged.append((with_length(bytes(flipped)), 'sent a damaged file'))
    for sent, said in damaged:
        drive(sent)
        with pytest.raises(FileNotFoundError, match=said):
            find_weights('capdec-coco-0.1')
        # what broke off may go on another day
        left = [o.name for o in (tmp_path/'weights').iterdir()]
        assert left == ['capdec-coco-0.1.pt.part']*('broke off' in said)
        for o in left:
            (tmp_path/'weights'/o).unlink()
    drive(with_length(whole))
    assert find_weights('capdec-coco-0.1') == kept and kept.read_bytes() == whole

def test_half_a_checkpoint_of_an_earlier_version(drive, tmp_path):
    (tmp_path/'weights').mkdir()
    (tmp_path/'weights'/'capdec-coco-0.1.pt').write_bytes(checkpoint(False)[:2000])
    from capdec.official import load_checkpoint
    with pytest.raises(ValueError, match=r'damaged, [^;]*\); remove the file and it is downloaded again'):
        load_checkpoint('capdec-coco-0.1')
