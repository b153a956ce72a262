"Captioners whose decoder is told words beside the vector, for tests"
import dataclasses

import torch

from capdec import Captioner
from capdec.bridges import Bridge
from capdec.concepts import zero_shot
from capdec.model import CaptionModel

NAMES = ['cat', 'dog', 'cup of coffee', 'rocket', 'street', 'boat']

def teller(least=.2):
    "The bundled captioner with room for words, and a classifier of six names"
    mini = Captioner.from_pretrained('mini', 'cpu', dtype='float32')
    config = dataclasses.replace(mini.model.config, hint_tokens=6)
    torch.manual_seed(0)
    model = CaptionModel.create(config, (mini.model.raw_lm, mini.model.tokenizer))
    model.mapper.load_state_dict(mini.model.mapper.state_dict())
    head = zero_shot(mini.encoder, NAMES)
    head.least = least
    b = mini.bridge
    return Captioner(model, mini.encoder, Bridge('offset', b.offset, b.memory, b.sentences, concepts=head))
