__version__ = "0.2.0"

def __getattr__(name):
    "`from capdec import Captioner`; torch is loaded only when it is asked for"
    if name == 'Captioner':
        from .captioner import Captioner
        return Captioner
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
