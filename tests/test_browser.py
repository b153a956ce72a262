"""The explorer and the preview of the pages in a real browser: Voila on loopback, headless Chromium.

`make browser-test` says how to get both.
"""
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image
from skimage import data as photos

ROOT = Path(__file__).resolve().parents[1]
FLAGS = ('--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking '
    '--disable-component-update --disable-sync').split()
# How long a state may take to come, in ms: what is waited for comes in seconds, and in minutes on a busy machine.
PATIENCE = 400_000
# What has come when the explorer has computed everything and the browser shows it
SHOWN = ('photo', 'caption', 'note', 'near td', 'figure svg')

def address_of(server, log):
    "Where Voila says that it listens; it chooses a free port itself"
    deadline = time.monotonic() + PATIENCE/1000
    while time.monotonic() < deadline:
        # first whether it lives: what it said before it ended has been written then
        ended = server.poll() is not None
        if found := re.search(r'running at:\s+(http://127\.0\.0\.1:\d+/)', log.read_text()):
            return found[1]
        if ended:
            break
        time.sleep(.1)
    pytest.fail(f'Voila does not listen:\n{log.read_text()}')

@pytest.fixture(scope='module')
def sync():
    "Playwright"
    return pytest.importorskip('playwright.sync_api',
        reason='playwright is not installed: pip install -c constraints.txt playwright')

@pytest.fixture(scope='module')
def browser(sync):
    "The system's Chromium"
    chromium = shutil.which('chromium') or shutil.which('chromium-browser') or shutil.which('google-chrome')
    if not chromium:
        pytest.skip('no Chromium here: apt-get install -y chromium (make browser-test says more)')
    with sync.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=chromium, args=FLAGS, timeout=PATIENCE)
        yield browser
        browser.close()

def window(browser, width, height):
    "A page of this size; a busy machine may take minutes over what takes a second"
    page = browser.new_page(viewport=dict(width=width, height=height))
    page.set_default_timeout(PATIENCE)
    return page

@pytest.fixture(scope='module')
def page(browser, tmp_path_factory):
    "The explorer's page, its photo chosen and everything computed"
    pytest.importorskip('voila', reason='voila is not installed: pip install -c constraints.txt voila')
    import nbformat
    folder = tmp_path_factory.mktemp('voila')
    cell = nbformat.v4.new_code_cell("from capdec.explore import explore\nexplore(device='cpu')")
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), folder/'app.ipynb')
    env = os.environ | dict(PYTHONPATH=str(ROOT), OMP_NUM_THREADS='1', HOME=str(folder))
    with open(folder/'log', 'w') as log:
        server = subprocess.Popen([sys.executable, '-m', 'voila', 'app.ipynb', '--no-browser', '--Voila.ip=127.0.0.1'],
            cwd=folder, env=env, stdout=log, stderr=log)
    try:
        address = address_of(server, folder/'log')
        own = re.compile(rf'(http|ws)://{re.escape(address.removeprefix("http://"))}|data:|blob:')
        page = window(browser, 1120, 1180)
        page.outside = []
        page.on('request', lambda r: None if own.match(r.url) else page.outside.append(r.url))
        page.goto(address)
        for o in SHOWN:
            page.wait_for_selector(f'.capdec .capdec-{o}')
        yield page
        page.close()
    finally:
        server.terminate()
        server.wait(PATIENCE/1000)

def shot(page, name):
    "Screenshots are kept when SCREENSHOTS names a folder"
    if (folder := os.environ.get('SCREENSHOTS')):
        page.screenshot(path=Path(folder)/f'{name}.png', full_page=True)

@pytest.fixture
def shows(page, sync):
    "Wait until what a selector finds reads as expected: one text, or one for each of a list"
    def wait(selector, texts):
        sync.expect(page.locator(selector)).to_have_text(texts, timeout=PATIENCE, use_inner_text=True)
    return wait

def upload(page, path):
    "Choose a file as a user does: ipywidgets keeps its file input out of the page"
    with page.expect_file_chooser() as chooser:
        page.click('.capdec .widget-upload')
    chooser.value.set_files(path)

def press(page, label, key, n=1):
    "Press a key on the slider called `label`"
    row = page.locator('.widget-hbox, .widget-inline-hbox').filter(
        has=page.locator('label', has_text=re.compile(f'^{label}$')))
    handle = row.last.locator('.noUi-handle')
    handle.focus()
    for _ in range(n):
        handle.press(key)

def test_uploading_moving_and_reading(page, shows, tmp_path):
    from capdec.captioner import Captioner
    from capdec.decoding import generate
    from capdec.explore import VARIANCES, moved
    captioner = Captioner.from_pretrained('mini', 'cpu')
    cat = tmp_path/'my cat.png'
    shot(page, '1 start')
    Image.fromarray(photos.chelsea()).rotate(90, expand=True).save(cat)
    upload(page, cat)
    page.wait_for_selector('.capdec-photo[alt="my cat.png"]')
    shows('.capdec-said', 'my cat.png is shown')
    shows('.capdec-caption', captioner(cat))
    page.wait_for_function(
        "[...document.querySelectorAll('.capdec svg title')].some(o => o.textContent == 'this photo: my cat.png')")
    shot(page, '2 uploaded')
    press(page, 'variance', 'ArrowRight', 4)
    x = moved(captioner.embed([cat]), VARIANCES[4])
    told = [o for o, _ in captioner.explain(cat).told]
    expected = generate(captioner.model, x, normalize=False, texts=True, hints=[told]*len(x))
    shows('.capdec-note', re.compile(rf'noise variance {VARIANCES[4]:g}\b'))
    shows('.capdec-caption', expected[0])
    shows('.capdec-others li', expected[1:])
    shows('.capdec-still', captioner(cat))
    shot(page, '3 moved')
    # Voila's own page asks for icons, and does without
    assert [o for o in page.outside if 'fontawesome' not in o] == []

def test_a_bad_upload_is_one_line(page, shows, tmp_path):
    before = page.inner_text('.capdec-caption')
    (tmp_path/'notes.jpg').write_text('these are my notes')
    upload(page, tmp_path/'notes.jpg')
    shows('.capdec-error', 'notes.jpg: not an image that can be read')
    assert page.inner_text('.capdec-caption') == before
    shot(page, '4 bad upload')

def test_readable_in_the_dark_theme(page):
    "A dark theme sets the colour of what stands in an HTML widget to white; the explorer keeps its own light ground"
    page.add_style_tag(content='.jp-RenderedHTMLCommon, .widget-html-content, .widget-html, .jupyter-widgets '
        '{ color: #fff } :root { --jp-widgets-input-background-color: #111; --jp-widgets-input-color: #fff }')
    colours = page.evaluate("""() => ['.capdec-caption', '.capdec-note', '.capdec-near td', '.capdec .widget-label']
        .map(s => getComputedStyle(document.querySelector(s)).color)""")
    for c in colours:
        assert max(map(int, re.findall(r'\d+', c)[:3])) < 130, colours
    box = page.evaluate("""() => {
        const style = getComputedStyle(document.querySelector('.capdec select'))
        return [style.color, style.backgroundColor] }""")
    assert box == ['rgb(34, 34, 34)', 'rgb(255, 255, 255)']

# What keeps a telephone of that width from showing the explorer well
FAULTS = """width => {
    const box = o => o.getBoundingClientRect(), faults = []
    if (innerWidth != width) faults.push(`the page is ${innerWidth} wide`)
    const edge = box(document.querySelector('.capdec')).right
    for (const o of document.querySelectorAll('.capdec *'))
        if (o.getClientRects().length && box(o).right > edge)
            faults.push(`beyond the edge: ${o.outerHTML.slice(0, 80)}`)
    const first = ['.capdec-photo', '.capdec-card', '.capdec .noUi-target', '.capdec-figure svg',
        '.capdec [placeholder^=another]', '.capdec textarea']
    const tops = first.map(o => box(document.querySelector(o)).top)
    if (tops.some((t, i) => i && t <= tops[i-1])) faults.push(`not in order: ${tops}`)
    const svg = document.querySelector('.capdec-figure svg')
    const letters = parseFloat(getComputedStyle(svg).fontSize)*box(svg).width/svg.viewBox.baseVal.width
    if (letters <= width/45) faults.push(`letters of ${letters} pixels in a picture`)
    const words = [...svg.querySelectorAll('text')].map(o => [o.textContent, box(o)])
    for (const [a, p] of words) for (const [b, q] of words)
        if (a < b && p.left < q.right && q.left < p.right && p.top < q.bottom - 1 && q.top < p.bottom - 1)
            faults.push(`one over the other: ${a}, ${b}`)
    return faults
}"""

@pytest.mark.parametrize('width', [420, 320])
def test_readable_on_a_telephone(page, sync, width):
    "Photo, caption, noise and map first, nothing beyond the edge, letters in pictures that can be read"
    was = page.viewport_size
    page.set_viewport_size(dict(width=width, height=2100))
    try:
        # widgets are laid out after the browser has taken on the new size; a layout that is wrong stays so
        page.wait_for_function(f'width => ({FAULTS})(width).length == 0', arg=width)
    except sync.TimeoutError:
        pytest.fail('\n'.join(page.evaluate(FAULTS, width)))
    finally:
        shot(page, f'5 {width} wide')
        page.set_viewport_size(was)

def test_measuring_shows_that_it_works_and_its_chart(page, sync):
    "The button says so while it works, and then the chart is in the window"
    was = page.viewport_size
    page.set_viewport_size(dict(width=420, height=700))
    button = page.locator('.capdec button', has_text=re.compile('Measur'))
    button.click()
    sync.expect(button).to_be_disabled(timeout=PATIENCE)
    page.wait_for_selector('svg[aria-label="What survives the noise"]')
    sync.expect(button).to_have_text('Measure all levels', timeout=PATIENCE)
    sync.expect(page.locator('svg[aria-label="What survives the noise"]')).to_be_in_viewport(timeout=PATIENCE)
    shot(page, '6 measured')
    page.set_viewport_size(was)

def test_tooltips_say_what_the_words_mean(page):
    titles = page.evaluate("[...document.querySelectorAll('.capdec [title]')].filter(o => o.offsetParent)"
        ".map(o => o.title)")
    words = 'carried to where sentences lie', 'the variance of the noise', 'the search keeps in view'
    assert all(any(word in o for o in titles) for word in words)
    assert 'null' not in titles

def test_the_gallery_is_searched_and_sorted(browser, tmp_path):
    "A page of `capdec caption --gallery`, opened as a file"
    from capdec.gallery import Shot, write_gallery
    shots = []
    for name, folder, text in (('cat', 'b', 'A cat.'), ('cup', 'a', 'A cup of coffee.'), ('dog', 'a', 'A <dog>.')):
        (tmp_path/folder).mkdir(exist_ok=True)
        Image.fromarray(photos.chelsea()).save(tmp_path/folder/f'{name}.jpg')
        shots.append(Shot(tmp_path/folder/f'{name}.jpg', [text]))
    file = write_gallery(tmp_path/'page.html', shots)
    for width in (1280, 420, 320):
        page = browser.new_page(viewport=dict(width=width, height=800))
        page.goto(file.as_uri())
        texts = lambda: page.evaluate("[...document.querySelectorAll('figure:not([hidden]) .caption')]"
            ".map(o => o.textContent)")
        assert texts() == ['A cup of coffee.', 'A <dog>.', 'A cat.']
        assert page.evaluate('document.documentElement.scrollWidth - document.documentElement.clientWidth') == 0
        page.select_option('#sort', 'caption')
        assert texts() == ['A <dog>.', 'A cat.', 'A cup of coffee.']
        page.fill('#find', 'coffee a/')
        assert texts() == []
        page.fill('#find', 'CUP coffee')
        assert texts() == ['A cup of coffee.'] and page.inner_text('#count') == '1 of 3'
        page.select_option('#sort', 'folder')
        assert texts() == ['A cup of coffee.'] and page.locator('section:not([hidden])').count() == 1
        page.close()

# How far a page of the preview reaches beyond the window, and its first parts that do
BEYOND = """() => {
    const edge = document.documentElement.clientWidth
    const scrolls = o => o && (getComputedStyle(o).overflowX == 'auto' || scrolls(o.parentElement))
    const beyond = [...document.querySelectorAll('main *')].filter(o => o.getClientRects().length
        && o.getBoundingClientRect().right > edge + 1 && !scrolls(o))
    return [document.documentElement.scrollWidth - edge, beyond.slice(0, 3).map(o => o.outerHTML.slice(0, 80))]
}"""

@pytest.fixture(scope='module')
def preview(tmp_path_factory):
    "A small site made by tools/render_site.py"
    from pages import small_site
    return small_site(tmp_path_factory.mktemp('preview'))

@pytest.mark.parametrize('width', [1280, 900, 420, 320])
def test_preview_never_scrolls_sideways(browser, preview, width):
    page = window(browser, width, 800)
    for name in ('index', 'second', 'a'):
        page.goto((preview/f'{name}.html').as_uri())
        assert page.evaluate(BEYOND) == [0, []], name
    page.close()

def test_preview_has_drawers_on_a_telephone(browser, preview):
    "Lists of pages and headings open by a button, close by choosing; a wide window shows them beside the text"
    page = window(browser, 420, 800)
    page.goto((preview/'second.html').as_uri())
    lists,buttons = ['#pages', '#contents'], ['.to-pages', '.to-contents']
    assert [page.is_visible(o) for o in lists + buttons] == [False, False, True, True]
    page.click('.to-contents')
    page.click('#contents a[href="#thing.do"]')
    page.wait_for_selector('#contents', state='hidden')
    assert page.url.endswith('second.html#thing.do')
    page.click('.to-pages')
    page.wait_for_selector('#pages a[href="a.html"]')
    page.keyboard.press('Escape')
    page.wait_for_selector('#pages', state='hidden')
    page.set_viewport_size(dict(width=1280, height=800))
    page.wait_for_selector('#pages')
    page.wait_for_selector('#contents')
    assert [page.is_visible(o) for o in buttons] == [False, False]
    page.close()

# ---- the demo's page

@pytest.fixture(scope='module')
def demo_page(browser, tmp_path_factory):
    "The page of the demo with a made-up experiment"
    from capdec.core import everyday_photos, open_image
    from capdec.demo import write_page
    right, wrong = everyday_photos(), everyday_photos(right=False)
    items = [(p.name, open_image(p), 'A long caption of a photo, as long as captions are.') for p in right + wrong]
    run = dict(cider=[.1], words=.5, inverted=.1, found=.1, seconds=1, seed=0)
    say = lambda how: [f'A caption {how} noise, as long as captions of photos are.' for _ in right]
    e = dict(size='short', steps=1, sentences=2, corpus=2, photos=1, noisy=1., clean=1., gain=0., low=0., high=0.,
        side_by_side=list(range(6)), runs=[run | dict(variance=0., shown=say('without')),
            run | dict(variance=.003, shown=say('with'))])
    file = write_page(tmp_path_factory.mktemp('demo'), items, e, range(6, 8))[0]
    page = window(browser, 1280, 1400)
    page.goto(file.as_uri())
    yield page
    page.close()

@pytest.mark.parametrize('width', [1280, 420, 320])
def test_the_demos_page_is_readable(demo_page, sync, width):
    "All photos are there, failures are labelled, both captions side by side, and nothing is beyond the edge"
    demo_page.set_viewport_size(dict(width=width, height=1400))
    demo_page.wait_for_function('[...document.images].every(o => o.complete && o.naturalWidth > 0)')
    try:
        demo_page.wait_for_function('width => document.documentElement.scrollWidth <= width', arg=width)
    finally:
        shot(demo_page, f'demo {width} wide')
    assert demo_page.locator('.wrong').count() == 2 and demo_page.locator('.grid figure').count() >= 8
    assert demo_page.get_by_text('without noise', exact=False).count() >= 6
