"""Draw nbs/images/card.png, the picture that social networks show beside a link.

Photos of scikit-image and scikit-learn, captioned by the bundled model.
"""
import textwrap
from pathlib import Path

import matplotlib
matplotlib.use('agg')
import matplotlib.pyplot as plt
from PIL import Image
from skimage import data
from sklearn.datasets import load_sample_image
from capdec.captioner import Captioner
from capdec.core import atomic_path

photos = [data.chelsea(), data.stereo_motorcycle()[0], load_sample_image('flower.jpg')]
captions = Captioner.from_pretrained('mini', device='cpu')(photos)
fig = plt.figure(figsize=(12,6.3), dpi=100, facecolor='#fcfcfa')
fig.text(.05, .86, 'capdec', size=46, weight='bold', color='#2a62b0', va='center')
fig.text(.05, .745, 'Text-only image captioning you can read', size=23, color='#333', va='center')
for i,(photo,caption) in enumerate(zip(photos, captions)):
    h,w = photo.shape[:2]
    side = min(h, int(w/1.3))
    ax = fig.add_axes([.05+.305*i, .22, .285, .42])
    ax.axis('off')
    ax.imshow(photo[(h-side)//2:(h+side)//2, (w-int(side*1.3))//2:(w+int(side*1.3))//2], aspect='auto')
    fig.text(.05+.305*i, .185, '\n'.join(textwrap.wrap(caption, 34)), size=15, color='#222', va='top')
fig.text(.95, .04, 'trained from sentences alone: no photo with its caption', size=13, color='#777', ha='right')
path = Path(__file__).resolve().parents[1]/'nbs'/'images'/'card.png'
with atomic_path(path) as p:
    fig.savefig(p, format='png', facecolor=fig.get_facecolor())
    Image.open(p).convert('RGB').quantize(200).save(p, format='png', optimize=True)
print(path.name, path.stat().st_size//1000, 'KB', *captions, sep='\n')
