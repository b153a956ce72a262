"""Answers of web servers, whole and damaged: what is downloaded is what was sent, or one line says why not.

The answer of a server on this machine is a good one with changes in its head or its body. Where it says how long it
is, and ends before, nothing of it may be kept.
"""
import gzip
import socket
import threading

from fuzzing import agree, odd_bytes

BODY = b'\x89PNG\r\n\x1a\n' + bytes(range(256))*3
OK = b'HTTP/1.1 200 OK\r\nServer: x\r\n'

def chunked(body, sizes):
    out, at = b'', 0
    for n in sizes:
        out += b'%x\r\n' % len(body[at:at+n]) + body[at:at+n] + b'\r\n' if body[at:at+n] else b''
        at += n
    return out + (b'%x\r\n' % len(body[at:]) + body[at:] + b'\r\n' if body[at:] else b'') + b'0\r\n\r\n'

class Addresses:
    name = 'addresses'
    door = ('no server', 'Remote end closed', 'BadStatusLine', 'is empty', 'Connection', 'unknown url type', 'not http')

    def ready(self, folder):
        from capdec.core import read_url
        self.answer = b''
        self.socket = socket.create_server(('127.0.0.1', 0))
        self.port = self.socket.getsockname()[1]
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            client, _ = self.socket.accept()
            threading.Thread(target=self.talk, args=(client, self.answer), daemon=True).start()

    def talk(self, client, answer):
        with client:
            try:
                client.settimeout(5)
                client.recv(9999)
                client.sendall(answer)
                client.shutdown(socket.SHUT_WR)
                while client.recv(9999):
                    pass
            except OSError:
                # hung up on, which it may
                return

    def name_of(self, path):
        return f'http://127.0.0.1:{self.port}/'

    def make(self, box, rng):
        kind = rng.choice(['length', 'length', 'chunks', 'chunks', 'until it closes', 'redirect', 'error', 'packed'])
        sure = BODY
        if kind == 'length':
            head, body = OK + b'Content-Length: %d\r\n\r\n' % len(BODY), BODY
        elif kind == 'chunks':
            sizes = [rng.randrange(1, 400) for _ in range(4)]
            head, body = OK + b'Transfer-Encoding: chunked\r\n\r\n', chunked(BODY, sizes)
        elif kind == 'until it closes':
            head, body = OK + b'\r\n', BODY
        elif kind == 'redirect':
            to = rng.choice(['file:///etc/passwd', 'ftp://127.0.0.1/x', '/again', 'http://[', '//\x1b[2J', 'data:,x',
                '', 'http://127.0.0.1:1/x', 'http://127.0.0.1:99999/'])
            head, body, sure = f'HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n'.encode(), b'', None
        elif kind == 'error':
            code = rng.choice([404, 403, 500, 301, 204, 206, 999, 100])
            head = b'HTTP/1.1 %d \x1b[2J no\r\nContent-Length: 3\r\n\r\n' % code
            body, sure = b'no\n', None
        else:
            body, sure = gzip.compress(BODY), None
            head = OK + b'Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n' % len(body)
        how = rng.choice(['as it is', 'as it is', 'more', 'cut', 'cut', 'head', 'head', 'body'])
        if how == 'more':
            body += b'surplus' if kind in ('length', 'chunks') else b''
        elif how == 'cut':
            body = body[:rng.randrange(max(1, len(body)))]
            # nobody can know
            sure = sure if kind != 'until it closes' else None
        elif how == 'head':
            head, sure = odd_bytes(head, rng), None
        elif how == 'body':
            body, sure = odd_bytes(body, rng), None
        self.answer = head + body
        return box/'answer', f'{kind}: {how}: {self.answer[:200]!r}', dict(body=sure, must=how in ('as it is', 'more'))

    def use(self, path, known):
        from capdec.core import read_url
        url = f'http://127.0.0.1:{self.port}/x'
        try:
            got = read_url(url, timeout=10)
        except ValueError:
            if known['body'] and known['must']:
                raise AssertionError('a good answer was refused')
            raise
        if known['body']:
            agree(got, known['body'], 'the file')
        return True, True
