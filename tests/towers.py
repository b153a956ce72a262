"Random towers for tests: the shapes of the real ones where it matters, tiny elsewhere"
import torch

from capdec.studies.bench import random_clip

def save_hf(folder, kind='clip', seed=0):
    "A random CLIP or SigLIP of Hugging Face transformers with tokenizer and image processor, saved in `folder`"
    import transformers as t
    from capdec.embedding import ClipTokenizer
    torch.manual_seed(seed)
    bpe = ClipTokenizer().bpe
    small = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4)
    vision = dict(image_size=32, patch_size=16, **small)
    if kind == 'clip':
        model = t.CLIPModel(t.CLIPConfig(projection_dim=24, text_config=dict(vocab_size=49408, projection_dim=24,
            eos_token_id=49407, **small), vision_config=dict(projection_dim=24, **vision)))
        t.CLIPTokenizer(vocab=bpe.encoder, merges=list(bpe.bpe_ranks), model_max_length=77).save_pretrained(folder)
        t.CLIPImageProcessor(size={'shortest_edge': 32}, crop_size={'height': 32, 'width': 32}).save_pretrained(folder)
    else:
        from tokenizers import Tokenizer,models,pre_tokenizers,processors
        words = ['<pad>','</s>','<unk>'] + 'a dog runs on the beach cat two men ride horses in rain . long word'.split()
        tok = Tokenizer(models.WordLevel({w:i for i,w in enumerate(words)}, unk_token='<unk>'))
        tok.pre_tokenizer = pre_tokenizers.Whitespace()
        tok.post_processor = processors.TemplateProcessing(single='$A </s>', special_tokens=[('</s>', 1)])
        t.PreTrainedTokenizerFast(tokenizer_object=tok, pad_token='<pad>', eos_token='</s>', unk_token='<unk>',
            model_max_length=64, model_input_names=['input_ids']).save_pretrained(folder)
        model = t.SiglipModel(t.SiglipConfig(text_config=dict(vocab_size=len(words), max_position_embeddings=64,
            pad_token_id=0, eos_token_id=1, bos_token_id=1, projection_size=32, **small), vision_config=vision))
        t.SiglipImageProcessor(size={'height': 32, 'width': 32}).save_pretrained(folder)
    model.eval().save_pretrained(folder)
    return model

def weights(m):
    "All weights of a model, in a row"
    return torch.cat([p.detach().flatten() for p in m.parameters()])

def kernel_rounding(model, x, tokens):
    "How far single precision cross entropy is off on this CPU: AVX2 and AVX-512 differ by several 1e-5"
    real = tokens != 0
    logits,target = model.logits(x, tokens)[real],tokens[real].long()
    return abs(torch.nn.functional.cross_entropy(logits,
        target).item() - torch.nn.functional.cross_entropy(logits.double(), target).item())
