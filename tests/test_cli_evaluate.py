"capdec evaluate: scores, style, pictures"
import json

from PIL import Image
from skimage import data as photos

from shell import capdec, one_line

def test_spice_is_asked_for_unless_told_otherwise():
    from capdec.cli import verb_parser
    assert 'spice' in verb_parser('evaluate').parse_args(['p.json']).metrics.split(',')

def test_evaluate_measures_style_and_draws(tmp_path):
    "Style in the table, the JSON and for each image; odd languages and empty captions do no harm"
    Image.fromarray(photos.coffee()).resize((90, 60)).save(tmp_path/'1.jpg')
    Image.fromarray(photos.chelsea()).resize((90, 60)).save(tmp_path/'2.jpg')
    for i in (3, 4, 5):
        (tmp_path/f'{i}.jpg').write_bytes((tmp_path/'1.jpg').read_bytes())
    pred = ['a dog runs, full of joy', 'a cat sleeps', '一只狗在跑。', '', '🐕 $x$']
    (tmp_path/'p.json').write_text(json.dumps([dict(image_id=f'{i}.jpg', caption=c) for i, c in enumerate(pred, 1)]))
    (tmp_path/'refs.json').write_text(json.dumps([dict(image_id=f'{i}.jpg', caption='a dog runs.')
        for i in range(1, 6)]))
    lines = [f'a {c} {a} {v}' for c in ('red', 'big', 'old') for a in ('dog', 'cat', 'man') for v in ('runs', 'sleeps')]
    (tmp_path/'plain.txt').write_text('\n'.join(lines) + '\n')
    (tmp_path/'fond.txt').write_text('\n'.join(f'{o}, full of joy' for o in lines) + '\n')
    args = ['evaluate', 'p.json', '--references', 'refs.json', '--metrics', 'rouge', '--out', 's.json']
    r = capdec(*args, '--style', 'fond.txt', '--factual', 'plain.txt', '--images', '.', '--clip_model_type', 'none',
        '--gallery', 'g.png', '--by', 'rouge-l', '--training', 'plain.txt', cwd=tmp_path, ok=True)
    s = json.loads((tmp_path/'s.json').read_text())
    assert s['text']['judge_accuracy'] > .9 and s['text']['vocabulary'] >= 12 and s['text'][
        'novel'] == 1 and 'style_shown' in r.stdout
    style = {o['image_id']: o['style'] for o in s['per_image']}
    assert style['1.jpg'] > .5 > style['2.jpg'] and len(style) == 5
    assert Image.open(tmp_path/'g.png').width > 100
    for more, why in ((['--style', 'gone.txt', '--factual', 'plain.txt'], 'gone.txt'),
            (['--style', 'fond.txt'], 'give both'), (['--gallery', 'g.png'], 'needs --images'),
            (['--training', 'gone.txt'], 'gone.txt')):
        assert why in one_line(capdec(*args, *more, cwd=tmp_path, ok=False))[0]
    for more, why in ((['--gallery', 'g.png', '--by', 'CIDEr'], 'is not among what is scored'),
            (['--gallery', 'g.png', '--by', 'SPICE'], 'is not among what is scored'),
            (['--by', 'ROUGE_L'], 'in --gallery; leave it out'),
            (['--gallery', args[1]], f'--gallery {args[1]}: is the file')):
        assert why in one_line(capdec(*args, '--images', '.', '--clip_model_type', 'none', *more, cwd=tmp_path,
            ok=False))[0]
