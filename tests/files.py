"Files that several tests make and read"
import io
import json

from PIL import Image
from skimage import data as photos

def photo(path, turn=0, **kw):
    "A small photo; the format is that of the ending"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(photos.coffee()).resize((96, 64)).rotate(turn).save(path, **kw)
    return path

def jpeg(turn=0):
    "The bytes of a small photo"
    f = io.BytesIO()
    Image.fromarray(photos.coffee()).resize((96, 64)).rotate(turn).save(f, 'jpeg')
    return f.getvalue()

def rows(path):
    "The rows of a `.parquet` or `.jsonl` file"
    if path.suffix == '.parquet':
        import pyarrow.parquet as pq
        return pq.read_table(path).to_pylist()
    return [json.loads(l) for l in path.read_text().splitlines()]
