"""Draw nbs/images/card.png, which social networks show beside a link, and captions.png, which the README opens with.

The photos are fresh ones, which `python tools/fresh_photos.py` fetches, under licences that let everybody show them.
Two readers graded their captions (nbs/data/fresh_grades.json); what both call wrong is labelled so.
"""
import argparse
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
    "As a small PNG"
    path = ROOT/'nbs'/'images'/name
    with atomic_path(path) as p:
        fig.savefig(p, format='png', facecolor=fig.get_facecolor())
        Image.open(p).convert('RGB').quantize(256).save(p, format='png', optimize=True)
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
    save(fig, 'card.png')

def draw_captions(photos):
    "Right captions, and two that are wrong"
    fig, axs = plt.subplots(2, 4, figsize=(11, 5.2), dpi=100, facecolor='#fcfcfa')
    for ax, name in zip(axs.flat, (*RIGHT[:3], WRONG[0], *RIGHT[3:], WRONG[1])):
        photo, caption, right = photos[name]
        show(ax, photo)
        text = caption if right else f'wrong: {caption}'
        ax.set_title('\n'.join(textwrap.wrap(text, 30)), size=11, color='#222' if right else '#a3271b')
    fig.tight_layout()
    save(fig, 'captions.png')

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument('--photos', default=ROOT/'_out'/'fresh', type=Path, help='folder of the fresh photos')
photos = captioned(sorted({*CARD, *RIGHT, *WRONG}), parser.parse_args().photos)
draw_card(photos)
draw_captions(photos)
