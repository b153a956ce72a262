"The explorer in a real browser: Voila on loopback, headless Chromium. `make browser-test` says how to get both."
import io
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from PIL import Image
from skimage import data as photos

ROOT = Path(__file__).resolve().parents[1]
FLAGS = '--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-component-update --disable-sync'.split()

@pytest.fixture(scope='module')
def page(tmp_path_factory):
    "The explorer's page, its photo chosen and everything computed"
    sync = pytest.importorskip('playwright.sync_api', reason='playwright is not installed: pip install -c constraints.txt playwright')
    pytest.importorskip('voila', reason='voila is not installed: pip install -c constraints.txt voila')
    chromium = shutil.which('chromium') or shutil.which('chromium-browser') or shutil.which('google-chrome')
    if not chromium: pytest.skip('no Chromium here: apt-get install -y chromium (make browser-test says more)')
    import nbformat
    folder = tmp_path_factory.mktemp('voila')
    app = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("from capdec.explore import explore\nexplore(device='cpu')")])
    nbformat.write(app, folder/'app.ipynb')
    with socket.socket() as s: s.bind(('127.0.0.1', 0)); port = s.getsockname()[1]
    env = os.environ | dict(PYTHONPATH=str(ROOT), OMP_NUM_THREADS='1', HOME=str(folder))
    with open(folder/'log', 'w') as log:
        server = subprocess.Popen([sys.executable, '-m', 'voila', 'app.ipynb', '--no-browser', f'--port={port}', '--Voila.ip=127.0.0.1'], cwd=folder, env=env, stdout=log, stderr=log)
    try:
        for _ in range(300):
            try: urllib.request.urlopen(f'http://127.0.0.1:{port}/voila/static/', timeout=1)
            except urllib.error.HTTPError: break
            except OSError:
                if server.poll() is not None: pytest.fail((folder/'log').read_text())
                time.sleep(.1)
        with sync.sync_playwright() as p:
            browser = p.chromium.launch(executable_path=chromium, args=FLAGS)
            page = browser.new_page(viewport=dict(width=1120, height=1180))
            page.outside = []
            page.on('request', lambda r: page.outside.append(r.url) if not re.match(rf'(http|ws)://127\.0\.0\.1:{port}/|data:|blob:', r.url) else None)
            page.goto(f'http://127.0.0.1:{port}/', timeout=400_000)
            page.wait_for_selector('.capdec svg', timeout=400_000)
            yield page
            browser.close()
    finally: server.terminate(); server.wait(20)

def shot(page, name):
    "Screenshots are kept when SCREENSHOTS names a folder"
    if (folder := os.environ.get('SCREENSHOTS')): page.screenshot(path=Path(folder)/f'{name}.png', full_page=True)

def settle(page, until):
    "Wait until `until`, a function in the page, is true; give what the page shows"
    page.wait_for_function(until, timeout=200_000)
    return page.inner_text('.capdec-caption')

def upload(page, path):
    "Choose a file as a user does: ipywidgets keeps its file input out of the page"
    with page.expect_file_chooser() as chooser: page.click('.capdec .widget-upload')
    chooser.value.set_files(path)

def press(page, label, key, n=1):
    "Press a key on the slider called `label`"
    handle = page.locator('.widget-hbox, .widget-inline-hbox').filter(has=page.locator('label', has_text=re.compile(f'^{label}$'))).last.locator('.noUi-handle')
    handle.focus()
    for _ in range(n): handle.press(key)

def test_uploading_moving_and_reading(page, tmp_path):
    from capdec.captioner import Captioner
    from capdec.decoding import generate
    from capdec.explore import VARIANCES, moved
    captioner = Captioner.from_pretrained('mini', 'cpu')
    shot(page, '1 start')
    Image.fromarray(photos.chelsea()).rotate(90, expand=True).save(tmp_path/'my cat.png')
    upload(page, tmp_path/'my cat.png')
    said = settle(page, "document.querySelector('.capdec-photo')?.alt == 'my cat.png' && [...document.querySelectorAll('.capdec svg title')].some(o => o.textContent == 'this photo: my cat.png')")
    assert said == captioner(tmp_path/'my cat.png')
    shot(page, '2 uploaded')
    press(page, 'variance', 'ArrowRight', 4)
    said = settle(page, f"document.querySelector('.capdec-note').innerText.includes('noise variance {VARIANCES[4]:g}') && document.querySelectorAll('.capdec-others li').length == 4")
    x = captioner.embed([tmp_path/'my cat.png'])
    expected = generate(captioner.model, moved(x, VARIANCES[4]), normalize=False, texts=True)
    assert [said, *page.locator('.capdec-others li').all_inner_texts()] == expected
    assert page.inner_text('.capdec-still') == captioner(tmp_path/'my cat.png')
    shot(page, '3 moved')
    assert [o for o in page.outside if 'fontawesome' not in o] == [] # Voila's own page asks for icons, and does without

def test_a_bad_upload_is_one_line(page, tmp_path):
    before = page.inner_text('.capdec-caption')
    (tmp_path/'notes.jpg').write_text('these are my notes')
    upload(page, tmp_path/'notes.jpg')
    page.wait_for_selector('.capdec-error', timeout=200_000)
    assert page.inner_text('.capdec-error') == 'notes.jpg: not an image that can be read' and page.inner_text('.capdec-caption') == before
    shot(page, '4 bad upload')

def test_readable_in_the_dark_theme(page):
    "A dark theme sets the colour of what stands in an HTML widget to white; the explorer keeps its own light ground"
    page.add_style_tag(content='.jp-RenderedHTMLCommon, .widget-html-content, .widget-html, .jupyter-widgets { color: #fff } :root { --jp-widgets-input-background-color: #111; --jp-widgets-input-color: #fff }')
    colours = page.evaluate("""() => ['.capdec-caption', '.capdec-note', '.capdec-near td', '.capdec .widget-label'].map(s => getComputedStyle(document.querySelector(s)).color)""")
    for c in colours: assert max(map(int, re.findall(r'\d+', c)[:3])) < 130, colours
    assert page.evaluate("(o => [o.color, o.backgroundColor])(getComputedStyle(document.querySelector('.capdec select')))") == ['rgb(34, 34, 34)', 'rgb(255, 255, 255)']

@pytest.mark.parametrize('width', [420, 320])
def test_readable_on_a_telephone(page, width):
    "One column, nothing beyond its edge, and letters in the pictures that can be read"
    was = page.viewport_size
    page.set_viewport_size(dict(width=width, height=2100))
    page.wait_for_function(f'innerWidth == {width}')
    beyond,columns,letters = page.evaluate("""() => {
        const edge = document.querySelector('.capdec').getBoundingClientRect().right, box = o => o.getBoundingClientRect(), svg = document.querySelector('.capdec-figure svg')
        return [[...document.querySelectorAll('.capdec *')].filter(o => o.getClientRects().length && box(o).right > edge).map(o => o.outerHTML.slice(0, 80)),
            [...document.querySelector('.capdec > .widget-hbox').children].map(o => [box(o).left, box(o).top, box(o).width]), parseFloat(getComputedStyle(svg).fontSize)*box(svg).width/svg.viewBox.baseVal.width]}""")
    shot(page, f'5 {width} wide')
    page.set_viewport_size(was)
    (x1, y1, w1), (x2, y2, w2) = columns
    assert beyond == [] and (x1, w1) == (x2, w2) and y2 > y1 and letters > width/45
