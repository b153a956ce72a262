"""What the first caption costs beyond `import torch`: seconds, processor seconds and megabytes, in one fresh process.

    python tools/first_caption.py photo.jpg
"""
import json
import resource
import sys
import time

HEAVY = ('transformers', 'timm', 'torchvision', 'clip', 'huggingface_hub', 'scipy', 'matplotlib', 'pandas', 'pyarrow')

def now():
    "Seconds, processor seconds, megabytes at most so far"
    return time.perf_counter(), time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1024

def main():
    start = now()
    import torch  # what we compare with
    loaded = now()
    from capdec.cli import main as capdec
    code = capdec(['caption', *sys.argv[1:], '--device', 'cpu'])
    end = now()
    torch_, ours = ([round(b-a, 2) for a, b in zip(*o)] for o in ((start, loaded), (loaded, end)))
    print(json.dumps(dict(zip(('seconds', 'processor', 'megabytes'), ours)) | dict(torch=torch.__version__,
        import_torch=torch_, imported=[o for o in HEAVY if o in sys.modules])))
    sys.exit(code)

if __name__ == '__main__':
    main()
