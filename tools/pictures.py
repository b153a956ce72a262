"""Draw nbs/images/card.jpg, which social networks show beside a link, captions.jpg, which the README opens with, and
the gallery of all fresh photos that may be shown (nbs/gallery.md).

The photos are fresh ones, which `python tools/fresh_photos.py` fetches, under licences that let everybody show them.
Two readers graded their captions (nbs/data/fresh_grades.json); what both call wrong is labelled so.
"""
import argparse
import configparser
import html
import re
import shutil
import textwrap
from pathlib import Path

import matplotlib
matplotlib.use('agg')
import matplotlib.pyplot as plt
from PIL import Image
from capdec.captioner import Captioner
from capdec.core import atomic_path, open_image, read_json

ROOT = Path(__file__).resolve().parents[1]
CARD = ('animals-12', 'animals-18', 'vehicles-02')
RIGHT = ('animals-12', 'vehicles-09', 'animals-18', 'city-13', 'animals-05', 'vehicles-02')
WRONG = ('objects-14', 'food-03')

BADGE = """<svg xmlns="http://www.w3.org/2000/svg" width="{w}" height="20" viewBox="0 0 {w} 20" role="img"
  aria-label="{name}: {value}" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11">
<title>{name}: {value}</title>
<rect width="{w}" height="20" rx="3" fill="#444"/>
<path d="M{at} 0h{rest}a3 3 0 0 1 3 3v14a3 3 0 0 1 -3 3h-{rest}z" fill="{colour}"/>
<text x="{half}" y="14" fill="#fff" text-anchor="middle" textLength="{left}">{name}</text>
<text x="{middle}" y="14" fill="#fff" text-anchor="middle" textLength="{right}">{value}</text>
</svg>
"""

def badge(
    name, # What stands on the left
    value, # What stands on the right
    colour, # Colour of the right part
): # SVG
    "A small sign for the head of the README, which needs no other address"
    left, right = (round(6.1*len(o)) for o in (name, value))
    at, w = left + 12, left + right + 24
    return BADGE.format(name=name, value=value, colour=colour, w=w, at=at, rest=w - at - 3, half=at/2, left=left,
        middle=at + (w - at)/2, right=right)

def badges(): # `{file name: SVG}`
    "What settings.ini says of the licence and of Python, and that nothing is sent anywhere"
    cfg = configparser.ConfigParser(delimiters=['='])
    cfg.read(ROOT/'settings.ini', encoding='utf-8')
    told = cfg['DEFAULT']
    return {'badge-licence.svg': badge('licence', dict(apache2='Apache-2.0')[told['license']], '#1c5fa8'),
        'badge-python.svg': badge('python', f"{told['min_python']} to {told['max_python']}", '#1c5fa8'),
        'badge-offline.svg': badge('captions', 'offline, on a CPU', '#2a7f3e')}

def captioned(
    ids, # Names of photos
    folder:Path, # Where they lie
): # A dict: name -> `(photo, caption, was it right?)`; an error where a caption is not the one that was graded
    "Photos with their captions and grades"
    graded = {o['photo']: o for o in read_json(ROOT/'nbs'/'data'/'fresh_grades.json') if o['captioner'] == 'edition 2'}
    files = {o: next(folder.glob(f'{o}.*'), None) for o in ids}
    if missing := [o for o, f in files.items() if f is None]:
        raise SystemExit(f'{folder}: {missing[0]} is missing; run python tools/fresh_photos.py')
    captions = Captioner.from_pretrained('mini', device='cpu', dtype='float32')(list(files.values()))
    for name, caption in zip(ids, captions):
        if caption != graded[name]['caption']:
            raise SystemExit(f'{name}: {caption!r} is not what was graded ({graded[name]["caption"]!r})')
        if graded[name]['grades'] not in (['right']*2, ['wrong']*2):
            raise SystemExit(f'{name}: graded {" and ".join(graded[name]["grades"])}; a picture shows what both '
                'readers call right, or wrong')
    return {o: (open_image(files[o]), c, graded[o]['grades'] == ['right']*2) for o, c in zip(ids, captions)}

def show(ax, photo, ratio=1.3):
    "The middle of a photo, in that ratio of width to height"
    w, h = photo.size
    side = min(h, int(w/ratio))
    wide = int(side*ratio)
    ax.imshow(photo.crop(((w-wide)//2, (h-side)//2, (w+wide)//2, (h+side)//2)), aspect='auto')
    ax.axis('off')

def save(fig, name):
    "In true colours: a palette bands the sky of a photo"
    path = ROOT/'nbs'/'images'/name
    with atomic_path(path) as p:
        fig.savefig(p, format='png', facecolor=fig.get_facecolor())
        im = Image.open(p).convert('RGB')
        im.save(p, format='jpeg', quality=90, subsampling=0, optimize=True)
    print(path.name, path.stat().st_size//1000, 'KB')

def draw_card(photos):
    "The name, a line, three photos"
    fig = plt.figure(figsize=(12, 6.3), dpi=100, facecolor='#fcfcfa')
    fig.text(.05, .86, 'capdec', size=46, weight='bold', color='#2a62b0', va='center')
    fig.text(.05, .745, 'Text-only image captioning you can read', size=23, color='#333', va='center')
    for i, name in enumerate(CARD):
        photo, caption, _ = photos[name]
        show(fig.add_axes([.05+.305*i, .22, .285, .42]), photo)
        fig.text(.05+.305*i, .185, '\n'.join(textwrap.wrap(caption, 34)), size=15, color='#222', va='top')
    fig.text(.95, .04, 'the captioner learned from sentences alone', size=13, color='#777', ha='right')
    save(fig, 'card.jpg')

def draw_captions(photos):
    "Right captions, and two that are wrong"
    fig, axs = plt.subplots(2, 4, figsize=(11, 5.2), dpi=100, facecolor='#fcfcfa')
    for ax, name in zip(axs.flat, (*RIGHT[:3], WRONG[0], *RIGHT[3:], WRONG[1])):
        photo, caption, right = photos[name]
        show(ax, photo)
        text = caption if right else f'wrong: {caption}'
        ax.set_title('\n'.join(textwrap.wrap(text, 30)), size=11, color='#222' if right else '#a3271b')
    fig.tight_layout()
    save(fig, 'captions.jpg')
    # the card shows it too, on a hub and in the docs
    beside = ROOT/'capdec'/'models'/'mini'/'images'
    beside.mkdir(exist_ok=True)
    shutil.copy(ROOT/'nbs'/'images'/'captions.jpg', beside)

OPEN = re.compile(r'CC0|Public Domain|MIT|Expat|Apache|BSD|CC-BY-[0-9]')

def may_be_shown(photo):
    "Do all licences of a photo, or one that you may choose, let us show it under no other terms than naming it?"
    some = [o.strip() for o in re.split(r' or ', photo['licence'])]
    return any(OPEN.search(o) and not re.search(r'GPL|GFDL|SA-|WTFPL', o) for o in some)

HEAD = """---
pagetitle: Gallery
---

# Gallery

These are the fresh photos of [the results](16_results.ipynb) that we may show: {n} of 131, every one whose licence
allows it, whatever its caption. No model was trained on them. The bundled captioner (edition 2) captioned them, and two
readers graded each caption without knowing of each other: **right** (every word is), a wrong **detail**, or **wrong**
(an invented main actor or thing, or the main subject is missed). Of all 131, {right} % are right, {detail} % have a
wrong detail and {wrong} % are wrong; `make card` draws this page.
"""

def draw_gallery(folder, own):
    "Thumbnails of the photos that may be shown, and a page of them with captions and grades"
    photos = {o['id']: o for o in read_json(ROOT/'nbs'/'data'/'fresh_photos.json')}
    graded = {o['photo']: o for o in read_json(ROOT/'nbs'/'data'/'fresh_grades.json') if o['captioner'] == 'edition 2'}
    # the themes that it knows best come first
    known = lambda theme: sum(o['grades'].count('right') for k,o in graded.items() if photos[k]['theme'] == theme)
    shown = sorted((o for o in photos.values() if may_be_shown(o)), key=lambda o: -known(o['theme']))
    captions = dict(zip((o['id'] for o in shown), own([next(folder.glob(f"{o['id']}.*")) for o in shown])))
    all_grades = [g for o in graded.values() for g in o['grades']]
    share = {g: f'{100*all_grades.count(g)/len(all_grades):.0f}' for g in ('right', 'detail', 'wrong')}
    lines,theme = [HEAD.format(n=len(shown), **share)],''
    at = ROOT/'nbs'/'images'/'gallery'
    at.mkdir(exist_ok=True)
    for o in shown:
        if captions[o['id']] != graded[o['id']]['caption']:
            raise SystemExit(f"{o['id']}: {captions[o['id']]!r} is not what was graded")
        im = open_image(next(folder.glob(f"{o['id']}.*")))
        im.thumbnail((240, 240))
        with atomic_path(at/f"{o['id']}.jpg") as p:
            im.save(p, format='jpeg', quality=78, optimize=True)
        if o['theme'] != theme:
            theme = o['theme']
            lines += ['</div>\n']*bool(len(lines) > 1) + [f'## {theme.capitalize()}\n', '<div class="gallery">']
        grades = ' / '.join(dict.fromkeys(graded[o['id']]['grades']))
        caption = html.escape(captions[o['id']])
        lines.append(f'<figure class="{grades.split(" ")[0]}"><img src="images/gallery/{o["id"]}.jpg" alt="{caption}" '
            f'loading="lazy"><figcaption>{caption}<br><small>{grades}</small></figcaption></figure>')
    sources = ', '.join(sorted({f"{o['package']} ({o['licence']})" for o in shown}))
    lines += ['</div>\n', f'The photos come from these packages of Debian and PyPI: {sources}.\n']
    with atomic_path(ROOT/'nbs'/'gallery.md') as p:
        p.write_text('\n'.join(lines), encoding='utf-8')
    print('gallery.md', len(shown), 'photos', sum(p.stat().st_size for p in at.iterdir())//1000, 'KB')

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--photos', default=ROOT/'_out'/'fresh', type=Path, help='folder of the fresh photos')
    at = parser.parse_args().photos
    for name, svg in badges().items():
        (ROOT/'nbs'/'images'/name).write_text(svg, encoding='utf-8')
    photos = captioned(sorted({*CARD, *RIGHT, *WRONG}), at)
    draw_card(photos)
    draw_captions(photos)
    draw_gallery(at, Captioner.from_pretrained('mini', device='cpu', dtype='float32'))

if __name__ == '__main__':
    main()
