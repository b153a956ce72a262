"capdec reproduce: plans of every experiment, what is missing, runs that go on, published beside obtained"
import json
import pickle
import re
import zipfile

import pytest
from PIL import Image
from skimage import data as photos

import capdec.reproduce as room
from capdec.core import write_json
from capdec.reproduce import (EXPERIMENTS, PAPER_LEVERS, PUBLISHED_SCORES, SCALES, Plan, Step, missing, plan_of,
    run_steps, table_rows)
from shell import capdec, one_line

pytestmark = pytest.mark.usefixtures('one_encoder')

def all_plans(data='nowhere'):
    "Every experiment at every scale, with every lever that it may have"
    for scale in SCALES:
        for name in EXPERIMENTS:
            for lever in [None, *(PAPER_LEVERS if name in PUBLISHED_SCORES else [])]:
                if scale == 'mini' and (lever == 'weights' or lever == 'shape' and name.startswith('coco')):
                    continue
                yield plan_of(name, scale, data, 'out', lever and [lever], seed=3)

def test_each_command_of_each_plan_is_one_that_capdec_takes():
    from capdec.cli import VERBS, verb_parser
    from capdec.flags import arguments_of
    parsers = {o: verb_parser(o) for o in ('parse', 'open-text', 'embed', 'train', 'offset', 'noise', 'predict',
        'evaluate')}
    steps, seen = {o.words: o for plan in all_plans() for o in plan.steps}, set()
    for step in steps.values():
        argv = step.argv('cpu')
        flags = vars(parsers[argv[0]].parse_args(argv[1:]))
        # what it makes is what it is told to make
        assert str(step.makes[0]).startswith(str(flags.get('out_dir') or flags['out'])), argv
        seen.add(argv[0])
        if argv[0] == 'train':
            # configurations check themselves when they are made
            arguments_of(VERBS['train'], flags)
    assert seen == set(parsers) and len(steps) > 100

def test_what_a_step_reads_an_earlier_one_makes_or_you_bring():
    for plan in all_plans():
        domains = SCALES[plan.scale].domains.values()
        brought = {f'nowhere/{n}' for d in domains for o in (d.captions, d.photos, d.test_captions, d.others, d.factual)
            for n in o} | {f'nowhere/{n}' for n in room._PLAYS}
        made = set()
        for step in plan.steps:
            for o in step.needs:
                assert o in made or str(o) in brought, (plan.name, plan.scale, step, o)
            assert not set(step.makes) & made
            made |= set(step.makes)
        assert plan.rows and {o.scores for o in plan.rows} <= made

def test_seeds_and_levels_have_captioners_of_their_own():
    trained = lambda p: [str(o.makes[0].parent.name) for o in p.steps if o.words[0] == 'train']
    assert trained(plan_of('coco', levers=['another', 'memory'], seed=1)) == ['coco.capdec.seed-1',
        'coco.another.seed-1']
    sweep = trained(plan_of('noise-sweep'))
    assert len(set(sweep)) == 10 and 'coco.capdec' in sweep and 'coco.capdec.noise-2.5' in sweep
    # the cross-domain experiment takes the captioner of the other
    own, crossed = plan_of('coco', levers=[]), plan_of('coco-flickr30k', levers=[])
    assert trained(own) == trained(crossed)
    assert [o.words for o in own.steps[:3]] == [o.words for o in crossed.steps[:3]]

def test_published_numbers_are_those_of_our_notes(shared):
    spec, field = ((shared/'guides'/f'{o}.md').read_text() for o in ('spec', 'field'))
    rows = {'coco': 'CapDec COCO', 'flickr30k': 'CapDec Flickr30k', 'coco-flickr30k': 'COCO -> Flickr30k',
        'flickr30k-coco': 'Flickr30k -> COCO'}
    for name, row in rows.items():
        cells = re.search(rf'^\| {re.escape(row)} \|(.*)\|$', spec, re.M)[1].split('|')
        noted = {m: float(c) for m, c in zip(room._METRICS, cells) if c.strip()}
        assert PUBLISHED_SCORES[name] == noted
    for name, lever in PAPER_LEVERS.items():
        system = lever.paper.split(' 20')[0].split(',')[0]
        row = next(l for l in field.splitlines() if l.startswith(f'| {system}'))
        for experiment, number in lever.published.items():
            at = {'coco': 3, 'flickr30k': 4, 'flickr30k-coco': 5}.get(experiment)
            place = field if isinstance(number, str) else row.split('|')[at] if at else spec
            assert str(number) in place, (name, experiment)

def test_what_is_missing_is_told_a_line_each_and_nothing_runs(tmp_path):
    r = capdec('reproduce', 'flickr30k', '--scale', 'mini', '--data', tmp_path, '--out', tmp_path/'out', ok=False)
    said = one_line(r)
    lines = [o for o in said if o.startswith('capdec: missing: ')]
    assert [o.split(': ')[2] for o in lines] == [f'{tmp_path}/dataset_flickr8k.json', f'{tmp_path}/flickr8k/images']
    assert said[-1] == 'capdec: error: flickr30k: 2 things are missing, see above; nothing was run'
    assert not (tmp_path/'out').exists() and not r.stdout
    # a lever that nobody asked for stays out where its files are missing
    assert all('is left out: ' not in o for o in lines)

def test_full_scale_says_what_a_copy_lacks(coco, monkeypatch):
    import torch
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    plan = plan_of('coco', data=coco, levers=[])
    lacks = missing(plan)
    assert f'{coco}/dataset_coco.json: train holds 2 of 82,783 images' in lacks
    assert any(o.startswith(f'{coco}/coco: is not there') for o in lacks)
    assert any(o.startswith('no GPU is here') for o in lacks)
    # said in so many words, a CPU will do
    assert not any('GPU' in o for o in missing(plan, 'cpu'))

@pytest.mark.parametrize('args,says', [(['cocoa'], "name 'cocoa': use coco, flickr30k"),
    (['coco', '--scale', 'tiny'], "scale 'tiny': use full, mini"),
    (['coco', '--levers', 'memory', 'rope'], "levers 'rope': use weights, memory"),
    (['style', '--levers', 'memory'], 'style has none'),
    (['open-text', '--levers', 'memory'], 'open-text has none'),
    (['coco', '--prose', 'book.txt'], '--prose book.txt: belongs to open-text; coco reads none'),
    (['open-text', '--prose', 'gone.txt'], '--prose gone.txt: no such file or folder'),
    (['coco', '--scale', 'mini', '--levers', 'weights'], 'cannot be run in coco at mini scale')])
def test_bad_input_is_one_line(tmp_path, args, says):
    r = capdec('reproduce', *args, '--data', tmp_path, '--dry_run', ok=False)
    assert len(one_line(r)) == 1 and says in one_line(r)[0]

def test_a_dry_run_shows_the_plan_alone(tmp_path):
    r = capdec('reproduce', 'coco-flickr30k', '--scale', 'mini', '--data', tmp_path, '--out', tmp_path/'out',
        '--dry_run', ok=True)
    lines = r.stdout.splitlines()
    assert lines[0].startswith(f'[1/{len(lines)}] capdec parse ') and not (tmp_path/'out').exists()
    assert any('missing: ' in o for o in one_line(r))

def test_prose_comes_after_plain_captions(tmp_path):
    "From captions alone, and from photos as CapDec's README has it where photos of the captions are at hand"
    (tmp_path/'book.txt').write_text('It was late.\n')
    plan = plan_of('open-text', out='out', prose=str(tmp_path/'book.txt'), seed=3)
    trained = {o.makes[0].parent.name: o for o in plan.steps if o.words[0] == 'train'}
    assert list(trained) == ['coco.capdec.seed-3', 'coco.capdec.seed-3.then-book', 'coco.clipcap.seed-3',
        'coco.clipcap.seed-3.then-book']
    for name in ('coco.capdec.seed-3', 'coco.clipcap.seed-3'):
        assert trained[name].makes[0] in trained[f'{name}.then-book'].needs
    assert '--use_image_embedding_as_clipcap' in trained['coco.clipcap.seed-3'].words
    mixed = next(o for o in plan.steps if '--mix' in o.words)
    assert mixed.needs == [tmp_path/'book.txt', room.Path('out/full/coco.json')]
    assert [o.sees for o in plan.rows] == [room.TEXT, room.TEXT, room.PAIRS]
    # no photos of these captions are at hand at mini scale; two texts share what does not depend on them
    small = [plan_of('open-text', 'mini', prose=o) for o in (str(tmp_path/'book.txt'), '')]
    assert [o.name for o in small[0].rows] == ['captions alone', 'captions, then prose']
    assert small[0].left_out == ['photos, then prose is left out: no photos of these captions are here']
    made = [{o.makes[0] for o in p.steps} for p in small]
    both = {o.name for o in made[0] & made[1]}
    assert {'coco.json', 'coco.store', 'captioner_latest'} <= both
    assert not any('book' in o or 'alllines' in o for o in both)
    assert sum('book' in str(o) for o in made[0]) == sum('alllines' in str(o) for o in made[1]) == 7

# ---- running

@pytest.fixture
def chain(tmp_path):
    "Three steps, each of which copies a file; what was run is counted"
    (tmp_path/'a').write_text('1')
    p = [tmp_path/o for o in 'abcd']
    plan, ran = Plan('coco', 'mini', [Step(('parse', x, '--out', y), (y,)) for x, y in zip(p, p[1:])]), []
    def run(step, device):
        if device == 'breaks' and step.makes[0].name == 'c':
            return 3
        ran.append(step.makes[0].name)
        step.makes[0].write_text(step.needs[0].read_text())
        return 0
    return plan, tmp_path, ran, run

def test_a_step_that_is_done_is_not_run_again(chain):
    plan, d, ran, run = chain
    assert [run_steps(plan, d, run=run) for _ in range(2)] == [3, 0] and ran == ['b', 'c', 'd']
    # what was taken away is made again, and so is all that follows from it
    (d/'c').unlink()
    assert run_steps(plan, d, run=run) == 2 and ran[3:] == ['c', 'd']

def test_a_step_that_fails_is_where_the_next_run_begins(chain, capsys):
    plan, d, ran, run = chain
    with pytest.raises(ValueError, match='step 2 of 3 ended with exit code 3'):
        run_steps(plan, d, 'breaks', run)
    assert ran == ['b'] and not (d/'c').exists()
    # on another device
    assert run_steps(plan, d, 'cpu', run) == 2 and ran == ['b', 'c', 'd']
    assert '[3/3] capdec parse ' in capsys.readouterr().out

def test_an_output_without_a_note_is_not_believed(chain):
    plan, d, ran, run = chain
    (d/'b').write_text('half')
    run_steps(plan, d, run=run)
    assert ran == ['b', 'c', 'd'] and (d/'d').read_text() == '1'

def test_other_settings_and_other_files_are_refused(chain):
    plan, d, ran, run = chain
    run_steps(plan, d, run=run)
    other = Plan('coco', 'mini', [Step((*plan.steps[0].words, '--split', 'val'), plan.steps[0].makes)])
    with pytest.raises(ValueError, match='was made by another command or from other files'):
        run_steps(other, d, run=run)
    (d/'a').write_text('12')
    with pytest.raises(ValueError, match='was made by another command or from other files'):
        run_steps(plan, d, run=run)
    assert len(ran) == 3

def test_a_photo_that_cannot_be_read_does_not_stop_the_run(tmp_path):
    (tmp_path/'photos').mkdir()
    Image.fromarray(photos.coffee()).save(tmp_path/'photos'/'a.jpg')
    (tmp_path/'photos'/'b.jpg').write_text('no photo')
    out = tmp_path/'p.store'
    words = 'embed', '--clip_model_type', 'mini', '--images', tmp_path/'photos', '--out', out
    plan = Plan('coco', 'mini', [Step(words, (out,))])
    run = lambda step, device: capdec(*step.argv(device)).returncode
    assert [run_steps(plan, tmp_path, 'cpu', run) for _ in range(2)] == [1, 0]

def test_steps_run_as_processes_of_their_own(tmp_path, capfd):
    (tmp_path/'a.txt').write_text('A dog runs.\n')
    made = tmp_path/'b.json'
    plan = lambda name: Plan('coco', 'mini', [Step(('parse', tmp_path/name, '--out', made), (made,))])
    with pytest.raises(ValueError, match='step 1 of 1 ended with exit code 1'):
        run_steps(plan('gone.txt'), tmp_path)
    assert 'gone.txt' in capfd.readouterr().err
    assert run_steps(plan('a.txt'), tmp_path) == 1
    assert [o['caption'] for o in json.loads(made.read_text())] == ['A dog runs.']

def draw(folder, name, n):
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(photos.coffee()).resize((90, 60)).rotate(9*n).save(folder/name)

@pytest.fixture
def tiny(tmp_path):
    "A Flickr8k of 24 captions to train on and two photos to test on"
    ims = []
    for n in range(8):
        split, name = ('val' if n > 5 else 'train'), f'{n+1}_0123456789.jpg'
        draw(tmp_path/'flickr8k'/'images', name, n)
        said = [f'A dog and a cat in {c} grass {n}.' for c in ('red', 'white', 'blue', 'large')]
        ims.append(dict(filename=name, split=split, sentences=[dict(raw=o, sentid=4*n + i)
            for i, o in enumerate(said)]))
    (tmp_path/'dataset_flickr8k.json').write_text(json.dumps(dict(dataset='flickr8k', images=ims)))
    return tmp_path

@pytest.fixture
def ran(monkeypatch):
    "Steps are run in this process, and their verbs noted"
    verbs = []
    def run(step, device):
        verbs.append(step.words[0])
        return capdec(*step.argv(device), ok=True).returncode
    monkeypatch.setattr(room.run_steps, '__defaults__', ('', run))
    return verbs

def test_a_tiny_experiment_from_files_to_table(tiny, ran):
    levers = ['concepts', 'shape']
    args = ('reproduce', 'flickr30k', '--scale', 'mini', '--data', tiny, '--out', tiny/'out', '--device', 'cpu',
        '--levers', *levers)
    r = capdec(*args, ok=True)
    table = json.loads((tiny/'out'/'mini'/'flickr30k.table.json').read_text())
    assert table['machine']['cpu'] and table['scale'] == 'mini'
    rows = {(o['row'], o['metric']): o for o in table['rows']}
    assert rows['CapDec', 'CIDEr']['published'] == 39.1 and rows['concepts', 'CIDEr']['published'] == 47.9
    assert rows['shape', 'CIDEr']['published'] is None and rows['shape', 'CIDEr']['sees'] == '+ pairs'
    for o in plan_of('flickr30k', 'mini', tiny, tiny/'out', levers).rows:
        cider = json.loads(o.scores.read_text())['corpus']['CIDEr']
        assert rows[o.name, 'CIDEr']['obtained'] == round(100*cider, 1)
    assert '39.1' in r.stdout and 'the scores cannot be compared' in r.stderr
    assert ran.count('train') == 3
    # all is there: nothing is run, and the table is the same
    ran.clear()
    again = capdec(*args, ok=True)
    assert not ran and again.stdout.splitlines() == [l for l in r.stdout.splitlines() if not l.startswith('[')]

def test_a_book_from_file_to_captioner(tmp_path, ran):
    "Captions first, then captions and prose; the table tells how many captions sound like the book"
    d = tmp_path/'more_photos'/'coco'
    said = [f'A {a} dog runs over the {b} grass.' for a in ('red', 'white', 'small') for b in ('wet', 'dry', 'high',
        'low')]
    ims = [dict(filename=f'{n}.jpg', cocoid=n, split='val', sentences=[dict(raw=o, sentid=n)]) for n, o in
        enumerate(said)]
    (tmp_path/'dataset_coco.json').write_text(json.dumps(dict(dataset='coco', images=ims)))
    for n in (15, 25):
        draw(d/'images', f'{n}.jpg', n)
    (d/'captions.json').write_text(json.dumps([dict(image_id=n, caption='A dog.', id=n, filename=f'{n}.jpg') for n in
        (15, 25)]))
    (tmp_path/'book.txt').write_text(' '.join(f'It was a {a} and {b} night, and he said no word.' for a in ('dark',
        'long', 'cold', 'bad') for b in ('stormy', 'silent', 'endless')))
    args = ('reproduce', 'open-text', '--prose', tmp_path/'book.txt', '--scale', 'mini', '--data', tmp_path, '--out',
        tmp_path/'out', '--device', 'cpu')
    r = capdec(*args, ok=True)
    rows = json.loads((tmp_path/'out'/'mini'/'open-text.table.json').read_text())['rows']
    assert {o['row'] for o in rows} == {'captions alone', 'captions, then prose'} and ran.count('train') == 2
    assert [o['row'] for o in rows if o['metric'] == 'styled'] == ['captions alone', 'captions, then prose']
    mixed = json.loads((tmp_path/'out'/'mini'/'book.mixed.json').read_text())
    assert sum('night' in o['caption'] for o in mixed) == sum('dog' in o['caption'] for o in mixed) == 12
    # what to do with it, and that it works
    line = r.stdout.splitlines()[-1]
    assert line.startswith('caption photos with it: capdec caption PHOTOS --model ')
    capdec('caption', d/'images'/'15.jpg', '--model', line.split()[-1], '--device', 'cpu', '--beam_size', 1, ok=True)
    ran.clear()
    capdec(*args, ok=True)
    assert not ran

@pytest.mark.slow
def test_the_other_levers_run(tiny, ran):
    capdec('reproduce', 'flickr30k', '--scale', 'mini', '--data', tiny, '--out', tiny/'out', '--device', 'cpu',
        '--levers', 'nearest', 'another', 'mean', 'vote', ok=True)
    rows = json.loads((tiny/'out'/'mini'/'flickr30k.table.json').read_text())['rows']
    assert {o['row'] for o in rows} == {'CapDec', 'nearest', 'another', 'mean', 'vote'} and ran.count('train') == 3

@pytest.mark.slow
def test_tiny_styles_from_files_to_table(tiny, ran):
    names = [f'{10**6+n}_0123456789.jpg' for n in range(14)]
    for n, name in enumerate(names):
        draw(tiny/'flickr8k'/'images', name, n)
    with zipfile.ZipFile(tiny/'FlickrStyle_v0.9.zip', 'w') as z:
        for folder, text in (('humor', 'funny'), ('romantic', 'romantic')):
            z.writestr(f'FlickrStyle_v0.9/{folder}/{text}_train.txt', '\n'.join(f'a {text} dog {n} .' for n in
                range(14)))
            z.writestr(f'FlickrStyle_v0.9/{folder}/train.p', pickle.dumps(names))
    r = capdec('reproduce', 'style', '--scale', 'mini', '--data', tiny, '--out', tiny/'out', '--device', 'cpu', ok=True)
    rows = json.loads((tiny/'out'/'mini'/'style.table.json').read_text())['rows']
    assert {o['row'] for o in rows} == {'humorous', 'romantic'} and {o['published'] for o in rows} == {None}
    assert 'not in our notes' in r.stdout

def test_the_table_gives_gains_to_levers(tmp_path):
    plan = Plan('coco', 'mini')
    for name, cider, published in (('CapDec', .9, PUBLISHED_SCORES['coco']), ('vote', .978, {'CIDEr': '+7.8'}),
            ('x', .9, {})):
        write_json(tmp_path/name, dict(corpus=dict.fromkeys(room._METRICS, .25) | dict(CIDEr=cider)))
        plan.rows.append(room.Row(name, published, 'paper', room.TEXT, tmp_path/name))
    rows = table_rows(plan)
    assert [o['gain'] for o in rows if o['metric'] == 'CIDEr'] == [0, 7.8, 0]
    assert [o['published'] for o in rows if o['row'] == 'vote'] == ['+7.8']
    # where nothing was published, all metrics are shown
    assert len([o for o in rows if o['row'] == 'x']) == 5
    lines = room.table_text(rows).splitlines()
    assert '+7.8' in lines[6]
    # where each row comes from stands once, below the table
    assert lines[1 + len(rows):] == ['', 'What a row may see; where it was published:',
        *(f'  {o:8}captions alone; paper' for o in ('CapDec', 'vote', 'x'))]

def test_training_with_words_keeps_their_names(tmp_path):
    "The file that `--concepts` takes at inference"
    (tmp_path/'s.txt').write_text('\n'.join(f'A dog and a cat in {a} grass {i}.' for i in range(8)
        for a in ('brown', 'white')))
    capdec('train', '--data', tmp_path/'s.txt', '--clip_model_type', 'mini', '--lm', 'mini', '--mapping_type', 'mlp',
        '--prefix_length', 2, '--hint_tokens', 4, '--epochs', 1, '--bs', 8, '--warmup_steps', 1, '--device', 'cpu',
        '--out_dir', tmp_path/'out', ok=True)
    assert {'dog', 'cat'} <= set((tmp_path/'out'/'vocabulary.txt').read_text().splitlines())
