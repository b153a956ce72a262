"""A Hugging Face hub, a Google Drive and OpenAI's storage on this machine

They speak as their clients expect: the hub's API, redirects to where large files lie, ranges, uploads; Drive's pages
that ask to confirm, or say that a quota is used up. `faults` says what goes wrong with the next answers.
"""
import base64
import hashlib
import json
import os
import re
import threading
import urllib.parse
from collections import deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

LARGE = ('.pt', '.bin', '.safetensors')  # What lies elsewhere, under its hash, as with Git LFS

FORM = """<!DOCTYPE html><html><head><title>Google Drive - Virus scan warning</title></head><body>
<form action="/search"><input type="hidden" name="q" value="nothing"></form>
<form id="download-form" action="{action}" method="get"><input type="submit" value="Download"/>
<input type="hidden" name="id" value="{id}"><input type="hidden" name="export" value="download">
<input type="hidden" name="confirm" value="t"><input type="hidden" name="uuid" value="5d1c-{id}"></form></body>
</html>"""
QUOTA = """<!DOCTYPE html><html><head><title>Google Drive - Quota exceeded</title></head><body>
<p>Sorry, you can't view or download this file at this time.</p>
<form action="/search"><input name="q"></form></body></html>"""

class Loopback(ThreadingHTTPServer):
    "`repos`: repository -> {file: path}; `moved`: old name -> new; `drive`: id -> path; `files`: other address -> path"
    daemon_threads = True
    def __init__(self, folder):
        super().__init__(('127.0.0.1', 0), Handler)
        self.folder, self.url = Path(folder), f'http://127.0.0.1:{self.server_port}'
        # large files lie on another host, as the hub's do
        self.cdn = f'http://localhost:{self.server_port}'
        self.repos, self.moved, self.drive, self.files, self.uploads = {}, {}, {}, {}, {}
        # 'form', 'quota': pages of Drive; every path's faults: ('cut', bytes), ('status', code), ('flip',), ...
        self.pages, self.faults, self.log = {}, {}, []
        self.hashes, self.asked_for_token = {}, None
        threading.Thread(target=self.serve_forever, args=(.05,), daemon=True).start()

    def handle_error(self, *args):
        "A client that hangs up is what the tests are about"

    def sha(self, path):
        if (key := (str(path), os.stat(path).st_mtime_ns)) not in self.hashes:
            with open(path, 'rb') as f:
                self.hashes[key] = hashlib.file_digest(f, 'sha256').hexdigest()
        return self.hashes[key]

    def add(self, repo, **files):
        "A repository; names of files with `__` for a point"
        self.repos[repo] = {k.replace('__', '.'): Path(v) for k, v in files.items()}

    def add_folder(self, repo, folder):
        self.repos[repo] = {p.name: p for p in Path(folder).iterdir() if p.is_file()}

    def commit(self, repo):
        told = json.dumps([(k, self.sha(p)) for k, p in sorted(self.repos[repo].items())])
        return hashlib.sha1(told.encode()).hexdigest()

    def fail(self, path, *faults):
        "What goes wrong with the next answers to requests for `path`, one after the other; the last one stays"
        self.faults[path] = deque(faults)

    def asked(self, what):
        "The requests whose line has this in it"
        return [o for o in self.log if what in o]

class Handler(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'

    def log_message(self, *args):
        "Say nothing"

    def answer(self, code, body=b'', **headers):
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(code)
        for k, v in {'Content-Length': len(body), 'Content-Type': 'application/json', **headers}.items():
            self.send_header(k.replace('_', '-'), str(v))
        self.end_headers()
        if self.command != 'HEAD':
            self.wfile.write(body)

    def body(self):
        return self.rfile.read(int(self.headers.get('Content-Length') or 0))

    def fault(self, path):
        waiting = self.server.faults.get(path)
        if not waiting:
            return ()
        return waiting.popleft() if len(waiting) > 1 else waiting[0]

    def file(self, path, **headers):
        "A file, or the part of it that a range asks for, and what goes wrong on the way"
        kind, *value = self.fault(urllib.parse.unquote(self.path.split('?')[0])) or ('',)
        if kind == 'status':
            return self.answer(value[0], b'no')
        size, start = path.stat().st_size, 0
        asked = re.fullmatch(r'bytes=(\d+)-', self.headers.get('Range') or '')
        if asked and kind != 'no ranges':
            start = int(asked[1])
            if start >= size:
                return self.answer(416, b'', Content_Range=f'bytes */{size}')
            headers['Content-Range'] = f'bytes {start}-{size-1}/{size}'
        self.send_response(206 if 'Content-Range' in headers else 200)
        for k, v in {'Content-Length': size-start, 'Content-Type': 'application/octet-stream', **headers}.items():
            self.send_header(k.replace('_', '-'), str(v))
        self.end_headers()
        if self.command == 'HEAD':
            return
        most = value[0] if kind in ('cut', 'no ranges') and value else size
        with open(path, 'rb') as f:
            f.seek(start)
            while most > 0 and (part := f.read(min(1 << 20, most))):
                if kind == 'flip':
                    part = part[:len(part)//2] + bytes([part[len(part)//2] ^ 1]) + part[len(part)//2+1:]
                    kind = ''
                most -= len(part)
                self.wfile.write(part)
        self.close_connection = kind == 'cut' or self.close_connection

    def do_GET(self):
        s, path = self.server, urllib.parse.unquote(self.path.split('?')[0])
        query = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(self.path).query))
        s.log.append(f'{self.command} {self.path} {self.headers.get("Range") or ""}'.strip())
        if s.asked_for_token and path.startswith('/api') and self.headers.get('Authorization') != s.asked_for_token:
            return self.answer(401, {'error': 'Invalid credentials'})
        if path in s.files:
            return self.file(s.files[path])
        if path.startswith('/cdn/'):
            found = next(p for files in s.repos.values() for p in files.values() if s.sha(p) == path.split('/')[-1])
            return self.file(found)
        if path in ('/uc', '/download'):
            return self.send_drive(query)
        if path.startswith('/api/models/'):
            return self.send_api(path.removeprefix('/api/models/'))
        if m := re.fullmatch(r'/((?:[\w.-]+/)?[\w.-]+)/resolve/([\w.-]+)/(.+)', path):
            return self.send_resolved(*m.groups())
        s.log.append(f'404 {path}')
        self.answer(404, {'error': 'not here'})
    do_HEAD = do_GET

    def redirected(self, repo, path):
        "Has a repository another name now? Then the client is sent there"
        if repo not in self.server.moved:
            return False
        self.answer(307, b'', Location=path.replace(repo, self.server.moved[repo], 1))
        return True

    def missing(self):
        self.answer(404, {'error': 'Repository not found'}, X_Error_Code='RepoNotFound', X_Error_Message='not found')

    def send_api(self, rest):
        s, m = self.server, re.fullmatch(r'((?:[\w.-]+/)?[\w.-]+?)(?:/(revision|tree)/([\w.-]+)(/.*)?)?', rest)
        repo = m[1] if m else rest
        if self.redirected(repo, self.path):
            return
        if repo not in s.repos:
            return self.missing()
        kind, *value = self.fault(f'/api/models/{repo}') or ('',)
        if kind == 'status':
            return self.answer(value[0], {'error': 'no'}, X_Error_Code='GatedRepo' if value[0] == 403 else '')
        lfs = lambda p: {'sha256': s.sha(p), 'oid': s.sha(p), 'size': p.stat().st_size, 'pointerSize': 134}
        files = sorted(s.repos[repo].items())
        if m[4]:
            return self.answer(404, {'error': 'no folder'}, X_Error_Code='EntryNotFound')
        if m[2] == 'tree':
            return self.answer(200, [dict(type='file', oid=s.sha(p)[:40], size=p.stat().st_size, path=k)
                | ({'lfs': lfs(p)} if k.endswith(LARGE) else {}) for k, p in files])
        self.answer(200, dict(id=repo, modelId=repo, sha=s.commit(repo), private=False, tags=[], downloads=0, likes=0,
            siblings=[dict(rfilename=k, size=p.stat().st_size, blobId=s.sha(p)[:40])
                | ({'lfs': lfs(p)} if k.endswith(LARGE) else {}) for k, p in files]))

    def send_resolved(self, repo, revision, name):
        s = self.server
        if self.redirected(repo, self.path):
            return
        if repo not in s.repos:
            return self.missing()
        commit = s.commit(repo)
        if name not in s.repos[repo]:
            return self.answer(404, {'error': 'no file'}, X_Error_Code='EntryNotFound', X_Repo_Commit=commit)
        path = s.repos[repo][name]
        if name.endswith(LARGE):
            return self.answer(302, b'', Location=f'{s.cdn}/cdn/{s.sha(path)}', X_Repo_Commit=commit,
                X_Linked_Size=path.stat().st_size, X_Linked_Etag=f'"{s.sha(path)}"')
        self.file(path, X_Repo_Commit=commit, ETag=f'"{s.sha(path)[:40]}"')

    def send_drive(self, query):
        s, id = self.server, query.get('id')
        if id not in s.drive:
            return self.answer(404, b'<html>not here</html>', Content_Type='text/html')
        page = s.pages.get(id)
        if page == 'quota':
            return self.answer(200, QUOTA.encode(), Content_Type='text/html; charset=utf-8')
        if page == 'form' and query.get('uuid') != f'5d1c-{id}' or page == 'form again':
            form = FORM.format(action=f'{s.url}/download', id=id)
            return self.answer(200, form.encode(), Content_Type='text/html; charset=utf-8')
        self.file(s.drive[id])

    # ---- uploads

    def do_POST(self):
        s, path, body = self.server, urllib.parse.unquote(self.path.split('?')[0]), self.body()
        s.log.append(f'POST {self.path}')
        if s.asked_for_token and self.headers.get('Authorization') != s.asked_for_token:
            return self.answer(401, {'error': 'Invalid credentials in Authorization header'})
        if path == '/api/repos/create':
            told = json.loads(body)
            repo = f'{told.get("organization") or "me"}/{told["name"]}'
            there = repo in s.repos
            s.repos.setdefault(repo, {})
            return self.answer(409 if there else 200, {'url': f'{s.url}/{repo}', 'name': repo, 'id': repo})
        if path == '/api/validate-yaml':
            return self.answer(200, {'errors': [], 'warnings': []})
        if m := re.fullmatch(r'/api/models/(.+)/preupload/main', path):
            return self.answer(200, {'files': [dict(path=o['path'], shouldIgnore=False,
                uploadMode='lfs' if o['path'].endswith(LARGE) else 'regular') for o in json.loads(body)['files']]})
        if m := re.fullmatch(r'/(.+)\.git/info/lfs/objects/batch', path):
            return self.answer(200, {'transfer': 'basic', 'objects': [dict(oid=o['oid'], size=o['size'],
                actions={'upload': {'href': f'{s.url}/upload/{o["oid"]}'}}) for o in json.loads(body)['objects']]},
                Content_Type='application/vnd.git-lfs+json')
        if m := re.fullmatch(r'/api/models/(.+)/commit/main', path):
            return self.take(m[1], [json.loads(o) for o in body.splitlines()])
        s.log.append(f'404 {path}')
        self.answer(404, {'error': 'not here'})

    def do_PUT(self):
        sha = self.path.split('/')[-1]
        self.server.log.append(f'PUT {self.path}')
        data = self.body()
        if hashlib.sha256(data).hexdigest() != sha:
            return self.answer(400, {'error': 'another hash'})
        self.server.uploads[sha] = data
        self.answer(200)

    def take(self, repo, lines):
        "A commit"
        s = self.server
        for o in lines:
            v = o['value']
            if o['key'] == 'file':
                data = base64.b64decode(v['content'])
            elif o['key'] == 'lfsFile':
                data = s.uploads[v['oid']]
            else:
                continue
            to = s.folder/'pushed'/repo/v['path']
            to.parent.mkdir(parents=True, exist_ok=True)
            to.write_bytes(data)
            s.repos[repo][v['path']] = to
        self.answer(200, {'success': True, 'commitUrl': f'{s.url}/{repo}/commit/{s.commit(repo)}',
            'commitOid': s.commit(repo), 'hookOutput': '', 'pullRequestUrl': None})
