"`capdec explore`: the explorer in a browser, on this machine alone unless told otherwise."
import ast
import sys

import pytest

from shell import capdec, one_line

@pytest.fixture
def started(monkeypatch):
    "What would be started"
    import capdec.explore as room
    seen = []
    class Server:
        def __init__(self, command, cwd, env):
            import nbformat
            seen.append((command, nbformat.read(f'{cwd}/app.ipynb', 4).cells[0].source, env))
        def wait(self):
            return 0
        def terminate(self):
            pass
    monkeypatch.setattr(room.subprocess, 'Popen', Server)
    return seen

def test_it_listens_on_this_machine_alone(started):
    r = capdec('explore', '--no_browser', ok=True)
    command, cell, _ = started[0]
    assert command[:3] == [sys.executable, '-m', 'voila'] and '--Voila.ip=127.0.0.1' in command
    assert '--no-browser' in command and not one_line(r)
    assert cell.splitlines()[1] == "explore(['mini'], None, None)"
    r = capdec('explore', '--ip', '0.0.0.0', '--port', 0, ok=True)
    assert '--Voila.ip=0.0.0.0' in started[1][0] and '--no-browser' not in started[1][0]
    assert 'everybody who reaches this machine' in one_line(r)[0]
    # Voila would say that it listens at port 0
    port, = (int(o.removeprefix('--port=')) for o in started[1][0] if o.startswith('--port='))
    assert port > 1000 and '--port=8866' in started[0][0]

def test_photos_and_captioners_have_their_whole_paths(started, tmp_path, monkeypatch):
    from PIL import Image
    monkeypatch.chdir(tmp_path)
    (tmp_path/"my 'holiday'").mkdir()
    Image.new('RGB', (40, 30)).save("my 'holiday'/a.jpg")
    capdec('explore', "my 'holiday'", '--checkpoint', 'mini', 'someone/model', '--device', 'cpu', ok=True)
    call = ast.parse(started[0][1].splitlines()[1]).body[0].value
    found = [ast.literal_eval(o) for o in call.args]
    assert found == [['mini', 'someone/model'], [str(tmp_path/"my 'holiday'")], 'cpu']

def test_what_cannot_be_is_one_line(started, monkeypatch):
    assert 'no file matches' in one_line(capdec('explore', 'gone*.jpg', ok=False))[0]
    assert '--port -1' in one_line(capdec('explore', '--port', '-1', ok=False))[0]
    import importlib.util
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name, *a: None if name == 'voila' else real(name, *a))
    assert 'voila: this package is not installed' in one_line(capdec('explore', ok=False))[0] and not started
